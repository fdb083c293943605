"""What a text file looks like: its format, its delimiter, its rows with their line numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from attrec.data.locations import Location, unopened
from attrec.errors import DataError

DELIMITERS = {
    "csv": ",",
    "tsv": "\t",
    "::": "::",
    "psv": "|",
    "inter": "\t",
    "lines": " ",
}
"""The delimiter of each text format; ``lines`` is "user item item …", oldest item first."""

FORMATS = (*DELIMITERS, "jsonl", "parquet")
"""Every format that can be named."""

_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".inter": "inter",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_UNREADABLE = {".zip", ".bz2", ".xz", ".tar", ".xlsx", ".feather", ".arrow", ".npy", ".npz"}
_PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".joblib"}
_DATABASES = {".db", ".sqlite", ".sqlite3"}
_TYPED_HEADER = (":token", ":float")


@dataclass(frozen=True)
class TextFile:
    """A delimited text file.

    Parameters
    ----------
    location : Location
    db : duckdb connection
        Decompresses what Python's standard library cannot.
    format : str
        A key of `DELIMITERS`.
    delimiter : str
        What stands between two cells.
    encoding : str
        How bytes become text; a byte order mark is dropped.
    quotes : bool
        Whether quotation marks of a CSV file are more than plain text.
    """

    location: Location
    db: duckdb.DuckDBPyConnection
    format: str
    delimiter: str
    encoding: str = "utf-8"
    quotes: bool = True

    @property
    def name(self) -> str:
        """What a person calls the file."""
        return self.location.name

    @property
    def quoted(self) -> bool:
        """Whether quotation marks protect delimiters and line ends: in CSV only."""
        return self.format == "csv" and self.quotes

    def rows(self, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Yield the 1-based line and the cells of each row; empty lines are passed over.

        ``strict`` refuses quotation marks that are not closed.
        """
        with self.location.lines(self.db, self.encoding) as lines:
            if not self.quoted:
                for line, text in enumerate(lines, start=1):
                    bare = text.rstrip("\r\n")
                    if bare.strip(" \t") if self.format == "lines" else bare:
                        yield line, self._split(bare)
                return
            reader = csv.reader(lines, delimiter=self.delimiter, strict=strict)
            line = 1
            try:
                for cells in reader:
                    if cells:
                        yield line, cells
                    line = reader.line_num + 1
            except csv.Error as error:
                raise DataError(
                    f"{self.name}, line {line}: the row cannot be read ({error}); "
                    "close its quotation marks"
                ) from error

    def _split(self, text: str) -> list[str]:
        return text.split() if self.format == "lines" else text.split(self.delimiter)

    def first_row(self) -> tuple[int, list[str]]:
        """Return the line and the cells of the first row.

        Raises
        ------
        DataError
            The file has no row.
        """
        for line, cells in self.rows():
            return line, cells
        raise DataError(f"{self.name}: the file is empty; give a file with at least one row")


def existing_file(source: str | Path) -> Path:
    """Return ``source`` as a path to a file that is there and holds something.

    Raises
    ------
    DataError
        It is missing, a folder, or empty, or cannot be looked at.
    """
    path = Path(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        size = path.stat().st_size if is_file else 0
    except OSError as error:
        raise unopened(str(path), error) from error
    if is_folder:
        raise DataError(f"{path}: this is a folder; name a file in it")
    if not is_file:
        raise DataError(f"{path}: there is no such file; check the path")
    if size == 0:
        raise DataError(f"{path.name}: the file is empty; give a file with at least one row")
    return path


def sniff_format(location: Location, db: duckdb.DuckDBPyConnection, encoding: str = "utf-8") -> str:
    """Tell the format of a file from its suffix, or from its first line.

    Raises
    ------
    DataError
        Neither says which format it is.
    """
    suffix, name = location.suffix, location.name
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix in _PICKLES:
        raise DataError(
            f"{name}: a pickle can run any code when it is opened, so none is; "
            f"export the log as one of {', '.join(FORMATS)}"
        )
    if suffix in _DATABASES:
        raise DataError(
            f"{name}: a database is read by an address and a query; give "
            f"sqlite:///{location.path} and --query 'SELECT user, item, time FROM …'"
        )
    if suffix in _UNREADABLE:
        raise DataError(
            f"{name}: files that end in {suffix} are not read; "
            f"convert it to one of {', '.join(FORMATS)}"
        )
    line = _first_line(location, db, encoding)
    if line.startswith("PAR1"):
        return "parquet"
    if line.startswith("{"):
        return "jsonl"
    if line.startswith("["):
        raise DataError(
            f"{name}: this is one JSON array; write one object on each line (JSON Lines), "
            "as jq -c '.[]' does"
        )
    if any(kind in line for kind in _TYPED_HEADER):
        return "inter"
    for kind, mark in (("::", "::"), ("tsv", "\t"), ("psv", "|"), ("csv", ","), ("csv", ";")):
        if mark in line:
            return kind
    if len(line.split()) > 1:
        return "lines"
    raise DataError(
        f"{name}: its first line, {line[:60]!r}, has no delimiter that is known; "
        f"pass format= one of {', '.join(FORMATS)}"
    )


def open_text(
    location: Location,
    db: duckdb.DuckDBPyConnection,
    format: str,  # noqa: A002
    encoding: str = "utf-8",
    quotes: bool = True,
) -> TextFile:
    """Describe a text file of a known format; CSV's delimiter is counted in its first line."""
    delimiter = DELIMITERS[format]
    if format == "csv":
        line = _first_line(location, db, encoding)
        delimiter = max((",", ";", "\t", "|"), key=line.count)
    return TextFile(location, db, format, delimiter, encoding, quotes)


def _first_line(location: Location, db: duckdb.DuckDBPyConnection, encoding: str) -> str:
    with location.lines(db, encoding) as lines:
        for line in lines:
            if line.strip():
                return line.strip("\r\n")
    return ""
