"""The application, and what several commands read and print alike."""

from __future__ import annotations

import csv
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrec.data.vocabulary import UNKNOWN
from attrec.errors import RequestError, UnknownIdError
from attrec.screen import busy, verbatim_console

if TYPE_CHECKING:
    from attrec.data.vocabulary import Vocabulary

app = typer.Typer(
    name="attrec",
    help="Next-item recommendation with self-attention: from an event log to recommendations, "
    "how good they are, and why each was made.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(
    help="Public data sets and simulated logs.", no_args_is_help=True, rich_markup_mode="rich"
)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Log = Annotated[
    str,
    typer.Argument(
        metavar="LOG",
        help="Events: a file (CSV, TSV, ::, JSON Lines, Parquet, .inter, lines 'user item …'), a "
        "pattern or folder of such files, a database's address, or a public data set's name such "
        "as ml-100k.",
        show_default=False,
    ),
]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A folder that train wrote.", show_default=False)
]
COMMAS = """where an id has a comma: '"a,b",c'"""
"""For the help of every option that lists ids."""
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="ID,ID,…", help=f"Rank only these items; {COMMAS}."),
]
Deny = Annotated[
    list[str] | None,
    typer.Option("--deny", metavar="ID,ID,…", help=f"Never rank these items; {COMMAS}."),
]
TestFile = Annotated[
    Path | None,
    typer.Option("--test", metavar="FILE", help="A given test file; LOG is then for training."),
]


def read_source(source: str, items: Path | None, config: Any) -> tuple[Any, Any]:
    """Read a log, and an item file where there is one; a public data set by its name."""
    from attrec.data.databases import shown
    from attrec.data.datasets import NAMES, fetch
    from attrec.data.items import read_items
    from attrec.data.reading import read_interactions

    if source in NAMES and not Path(source).exists():
        screen = verbatim_console(stderr=True)
        found = fetch(source, echo=lambda line: screen.print(line, highlight=False))
        source, items = str(found.interactions), items or found.items
    with busy(f"reading {shown(source)} …"):
        log = read_interactions(source, config=config)
    return log, None if items is None else read_items(items)


def beside(model: Path, ending: str) -> Path:
    """Return the path MODEL.ending, next to the model also where that is the folder one is in."""
    named = model.resolve() if model.name in ("", "..") else model
    return named.with_name(f"{named.name}.{ending}")


def listed_items(
    flag: str, texts: list[str] | None, vocabulary: Vocabulary
) -> list[int | str] | None:
    """Read the items that an option lists; given several times, it lists those of all.

    Raises
    ------
    RequestError
        A text with quotation marks is no CSV.
    UnknownIdError
        An id is of the wrong kind, or one with a comma in it was meant and stands without quotes.
    """
    if not texts:
        return None
    found = []
    for text in texts:
        items = [vocabulary.parse_item(part) for part in _parts(flag, text, vocabulary)]
        _check_no_comma_was_meant(flag, text, items, vocabulary)
        found += items
    return found


def _parts(flag: str, text: str, vocabulary: Vocabulary) -> list[str]:
    if '"' not in text:
        # A blank beside a comma is none of the id's, unless an id has it.
        parts, own = text.split(","), vocabulary.item_kind == "string"
        as_written = vocabulary.encode_items(parts) != UNKNOWN if own else [False] * len(parts)
        return [part if is_id else part.strip()
                for part, is_id in zip(parts, as_written, strict=True)]  # fmt: skip
    try:
        (cells,) = csv.reader([text], skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise RequestError(
            f"{flag} {text}: its quotation marks are not as in CSV ({error}); "
            f"""write '"a,b",c', and a mark inside of quotes twice"""
        ) from error
    return cells


def _check_no_comma_was_meant(
    flag: str, text: str, items: list[int | str], vocabulary: Vocabulary
) -> None:
    # Only where a part is no item: allow and deny ignore such parts, so nobody would be told.
    if len(items) == 1 or (vocabulary.encode_items(items) != UNKNOWN).all():
        return
    for item in vocabulary.item_ids:
        if "," in str(item) and f",{item}," in f",{text},":
            cell = '"' + item.replace('"', '""') + '"'
            raise UnknownIdError(
                f"{flag} {text}: an id that holds a comma, as {item!r} does, stands in double "
                f"quotes; write {flag} {shlex.quote(cell)}"
            )


def print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=1, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
