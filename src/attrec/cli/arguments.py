"""The application, and what several commands read and print alike."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

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
        found = fetch(source, echo=lambda line: Console(stderr=True).print(line, highlight=False))
        source, items = str(found.interactions), items or found.items
    with Console(stderr=True).status(f"reading {shown(source)} …"):
        log = read_interactions(source, config=config)
    return log, None if items is None else read_items(items)


def beside(model: Path, ending: str) -> Path:
    """Return the path MODEL.ending, next to the model also where that is the folder one is in."""
    named = model.resolve() if model.name in ("", "..") else model
    return named.with_name(f"{named.name}.{ending}")


def listed_ids(text: str | None, parse: Any) -> list[Any] | None:
    return None if text is None else [parse(part.strip()) for part in text.split(",")]


def print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=1, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
