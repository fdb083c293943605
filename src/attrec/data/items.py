"""Titles and attributes of items."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from attrec.data.columns import KNOWN_NAMES, plain
from attrec.data.locations import Location, first_sentence
from attrec.data.text_files import existing_file, open_text, sniff_format
from attrec.errors import ConfigError, DataError

Floats = npt.NDArray[np.float32]
_MARKS = ("|", ";")
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
    separators: dict[str, str] = field(default_factory=dict)
    """What sets several values of an attribute apart, where it is not found by looking."""
    vectors: dict[str, tuple[list[str], Floats]] = field(default_factory=dict)
    """Columns with a vector for each item: ids and rows."""
    no_vectors: dict[str, str] = field(default_factory=dict)
    """Columns with lists of numbers that cannot be such vectors, and why."""

    def ids(self) -> set[str]:
        """Return the items that have an attribute or a vector, in any column."""
        described = [set(values) for values in self.attributes.values()]
        return set().union(*described, *(ids for ids, _ in self.vectors.values()))

    def categories(self, column: str) -> dict[str, list[str]]:
        """Return the values that each item has in a column: `Drama|War` are two.

        Raises
        ------
        ConfigError
            There is no such column.

        Examples
        --------
        >>> Items({}, {"genre": {"1": "Drama|War"}}).categories("genre")
        {'1': ['Drama', 'War']}
        """
        if column not in self.attributes:
            raise ConfigError(
                f"item_categories: the item file has no column {column!r}; it has "
                f"{', '.join(self.attributes) or 'none besides ids and titles'}"
            )
        values = self.attributes[column]
        mark = self.separators.get(column) or next(
            (each for each in _MARKS if any(each in value for value in values.values())), None
        )
        return {
            item: [part.strip() for part in value.split(mark) if part.strip()] if mark else [value]
            for item, value in values.items()
        }

    def vectors_of(self, column: str) -> tuple[list[str], Floats]:
        """Return ids and rows of a column with vectors.

        Raises
        ------
        ConfigError
            There is no such column.
        DataError
            Its lists are no vectors.
        """
        if column in self.no_vectors:
            raise DataError(self.no_vectors[column])
        if column not in self.vectors:
            raise ConfigError(
                f"item_vectors: the item file has no column {column!r} of vectors, one an item; "
                f"it has {', '.join(self.vectors) or 'none'} (a Parquet file may have)"
            )
        return self.vectors[column]


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
    location, db = Location(str(file), file.name), duckdb.connect()
    kind = sniff_format(location, db)
    if kind == "parquet":
        return _read_parquet(location, db)
    if kind in ("lines", "jsonl"):
        raise DataError(
            f"{file.name}: items are read from delimited text or Parquet, not from {kind!r}; "
            "give a CSV file with the header item_id,title"
        )
    text = open_text(location, db, kind, _encoding(location))
    _, first = text.first_row()
    id_at, title_at, year_at, named = _columns(first, file.name)
    titles: dict[str, str] = {}
    others = {
        at: cell.split(":", 1)[0].strip() if named else str(at + 1)
        for at, cell in enumerate(first)
        if at not in (id_at, title_at)
    }
    blanks = {name: " " for at, name in others.items() if first[at].strip().endswith(":token_seq")}
    attributes: dict[str, dict[str, str]] = {name: {} for name in others.values()}
    for line, cells in islice(text.rows(strict=True), int(named), None):
        if not max(id_at, title_at) < len(cells) <= len(first):
            raise DataError(
                f"{file.name}, line {line}: {len(cells)} columns where the first row has "
                f"{len(first)}; correct the row (in CSV a cell with a comma stands in quotes)"
            )
        year = cells[year_at].strip() if year_at is not None and year_at < len(cells) else ""
        titles[cells[id_at]] = _with_year(cells[title_at].strip(), year)
        for at, name in others.items():
            if at < len(cells) and cells[at].strip():
                attributes[name][cells[id_at]] = cells[at].strip()
    return Items({item: title for item, title in titles.items() if title}, attributes, blanks)


def _read_parquet(file: Location, db: duckdb.DuckDBPyConnection) -> Items:
    """Read a Parquet file: lists of numbers are vectors, integers and others several values."""
    try:
        table = db.execute(f"SELECT * FROM read_parquet({file.in_sql}, hive_partitioning = false)")
        kinds = {column[0]: str(column[1]) for column in table.description or ()}
        rows = table.fetchall()
    except duckdb.Error as error:
        raise DataError(
            f"{file.name}: cannot be read as Parquet ({first_sentence(error)}); check it"
        ) from error
    names = list(kinds)
    plain_names = [plain(name) for name in names]
    id_at = _first_known(plain_names, [name for tier in KNOWN_NAMES["item"] for name in tier])
    title_at = _first_known(plain_names, _TITLES)
    if id_at is None:
        raise DataError(
            f"{file.name}: no column is known to hold ids among {', '.join(names)}; "
            "name one item_id"
        )
    by_id = {str(row[id_at]): row for row in rows if row[id_at] is not None}
    titles = {}
    if title_at is not None:
        titles = {item: str(row[title_at]) for item, row in by_id.items() if row[title_at]}
    found = Items(titles, {}, {}, {})
    for at, name in enumerate(names):
        if at in (id_at, title_at):
            continue
        cells = {item: row[at] for item, row in by_id.items() if row[at] not in (None, [], ())}
        first = next((cell for cell in cells.values() if isinstance(cell, list | tuple)), None)
        if first is not None and isinstance(first[0], int | float):
            try:
                found.vectors[name] = _stacked(file.name, name, cells)
            except DataError as error:
                found.no_vectors[name] = str(error)
        if first is not None and not isinstance(first[0], float):
            found.separators[name] = "|"
            found.attributes[name] = {
                i: "|".join(str(one) for one in cell if one is not None)
                for i, cell in cells.items()
            }
        elif first is None:
            found.attributes[name] = {i: str(cell) for i, cell in cells.items()}
    return found


def _stacked(place: str, name: str, cells: dict[str, Any]) -> tuple[list[str], Floats]:
    sizes = {len(cell) for cell in cells.values()}
    if len(sizes) > 1:
        raise DataError(
            f"{place}, column {name!r}: vectors of {min(sizes)} and {max(sizes)} numbers; give all "
            "items vectors of one size"
        )
    rows = np.array(list(cells.values()), dtype=np.float32)
    if not np.isfinite(rows).all():
        raise DataError(
            f"{place}, column {name!r}: a vector holds a number that is not finite; leave its item "
            "without one"
        )
    return list(cells), rows


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


def _encoding(file: Location) -> str:
    """Answer latin-1 where the text is no UTF-8; what cannot be read is told when it is read."""
    opened = gzip.open if file.compression == "gzip" else open
    try:
        with opened(file.path, "rt", encoding="utf-8") as text:
            for _ in text:
                pass
    except UnicodeDecodeError:
        return "latin-1"
    except (OSError, EOFError, zlib.error):
        pass
    return "utf-8"
