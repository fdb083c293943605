"""Titles and attributes of items."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import duckdb

from attrec.data.columns import KNOWN_NAMES, plain
from attrec.data.locations import Location
from attrec.data.text_files import existing_file, open_text, sniff_format
from attrec.errors import DataError

_TITLES = ("title", "movietitle", "itemtitle", "name", "itemname", "productname")
_YEARS = ("releaseyear", "year")
_ENDS_WITH_YEAR = re.compile(r"\(\d{4}\)\s*$")


@dataclass(frozen=True)
class Items:
    """What is known of items; the keys are the ids as text.

    Attributes
    ----------
    titles : dict of str to str
    attributes : dict of str to dict of str to str
        Every other column with a name: its value for each item that has one.
    """

    titles: dict[str, str]
    attributes: dict[str, dict[str, str]]


def read_item_titles(path: str | Path) -> dict[str, str]:
    """Read the title of each item: those of `read_items`."""
    return read_items(path).titles


def read_items(path: str | Path) -> Items:
    r"""Read titles and attributes of items.

    Read are RecBole's ``.item``, CSV and TSV with a header (``item_id,title``), and files without
    a header whose first two columns are id and title (``movies.dat``, MovieLens' ``u.item``).
    Text is UTF-8, or Latin-1 where it is not. A release year is appended to a title that has none.
    Items without a title have none; of several rows for one item the last counts.

    Raises
    ------
    DataError
        The file cannot be read, or no column is known to hold the id or the title.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "movies.item"
    >>> _ = file.write_text(
    ...     "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    ...     "1\tToy Story\t1995\tAnimation Comedy\n"
    ... )
    >>> found = read_items(file)
    >>> found.titles, found.attributes["class"]
    ({'1': 'Toy Story (1995)'}, {'1': 'Animation Comedy'})
    """
    file = existing_file(path)
    encoding = _encoding(file)
    location, db = Location(str(file), file.name), duckdb.connect()
    kind = sniff_format(location, db, encoding)
    if kind in ("parquet", "lines", "jsonl"):
        raise DataError(
            f"{file.name}: titles are read from delimited text, not from {kind!r}; "
            "give a CSV file with the header item_id,title"
        )
    text = open_text(location, db, kind, encoding)
    _, first = text.first_row()
    id_at, title_at, year_at, named = _columns(first, file.name)
    titles: dict[str, str] = {}
    others = {
        at: cell.split(":", 1)[0].strip()
        for at, cell in enumerate(first)
        if named and at not in (id_at, title_at)
    }
    attributes: dict[str, dict[str, str]] = {name: {} for name in others.values()}
    for line, cells in islice(text.rows(), int(named), None):
        if len(cells) <= max(id_at, title_at):
            raise DataError(
                f"{file.name}, line {line}: {len(cells)} columns where the first row has "
                f"{len(first)}; correct the row"
            )
        year = cells[year_at].strip() if year_at is not None and year_at < len(cells) else ""
        titles[cells[id_at]] = _with_year(cells[title_at].strip(), year)
        for at, name in others.items():
            if at < len(cells) and cells[at].strip():
                attributes[name][cells[id_at]] = cells[at].strip()
    return Items({item: title for item, title in titles.items() if title}, attributes)


def _columns(cells: Sequence[str], place: str) -> tuple[int, int, int | None, bool]:
    names = [plain(cell) for cell in cells]
    id_at = _first_known(names, [name for tier in KNOWN_NAMES["item"] for name in tier])
    title_at = _first_known(names, _TITLES)
    if id_at is None and title_at is None and len(cells) > 1:
        return 0, 1, None, False
    if id_at is None or title_at is None:
        raise DataError(
            f"{place}: no column is known to hold {'ids' if id_at is None else 'titles'} among "
            f"{', '.join(cells)}; give a header with item_id and title"
        )
    return id_at, title_at, _first_known(names, _YEARS), True


def _first_known(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _with_year(title: str, year: str) -> str:
    return f"{title} ({year})" if title and year and not _ENDS_WITH_YEAR.search(title) else title


def _encoding(path: Path) -> str:
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"
