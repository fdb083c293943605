"""What a text file looks like: its format, its delimiter, its rows with their line numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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

FORMATS = (*DELIMITERS, "parquet")
"""Every format that can be named."""

_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".inter": "inter",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_UNREADABLE = {".gz", ".zip", ".bz2", ".zst", ".json", ".jsonl", ".ndjson", ".db", ".sqlite"}
_UNREADABLE |= {".xlsx", ".feather", ".arrow", ".pkl", ".npy", ".npz"}
_TYPED_HEADER = (":token", ":float")


@dataclass(frozen=True)
class TextFile:
    """A delimited text file.

    Parameters
    ----------
    path : Path
    format : str
        A key of `DELIMITERS`.
    delimiter : str
        What stands between two cells.
    encoding : str
        How bytes become text; a byte order mark is dropped.
    """

    path: Path
    format: str
    delimiter: str
    encoding: str = "utf-8-sig"

    @property
    def quoted(self) -> bool:
        """Whether quotation marks protect delimiters and line ends: in CSV only."""
        return self.format == "csv"

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the 1-based line and the cells of each row; empty lines are passed over."""
        with self.path.open(encoding=self.encoding, errors="replace", newline="") as handle:
            if not self.quoted:
                for line, text in enumerate(handle, start=1):
                    bare = text.rstrip("\r\n")
                    if bare:
                        yield line, self._split(bare)
                return
            reader = csv.reader(handle, delimiter=self.delimiter)
            line = 1
            try:
                for cells in reader:
                    if cells:
                        yield line, cells
                    line = reader.line_num + 1
            except csv.Error as error:
                raise DataError(
                    f"{self.path.name}, line {line}: the row cannot be read ({error}); "
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
        raise DataError(f"{self.path.name}: the file is empty; give a file with at least one row")

    def line_of_row(self, row: int) -> int:
        """Return the 1-based line on which row ``row`` (from 0, a header counts) begins."""
        return next(line for index, (line, _) in enumerate(self.rows()) if index == row)


def existing_file(source: str | Path) -> Path:
    """Return ``source`` as a path to a file that is there and holds something.

    Raises
    ------
    DataError
        It is missing, a folder, or empty.
    """
    path = Path(source)
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; name a file in it")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    if path.stat().st_size == 0:
        raise DataError(f"{path.name}: the file is empty; give a file with at least one row")
    return path


def sniff_format(path: Path, encoding: str = "utf-8-sig") -> str:
    """Tell the format of a file from its suffix, or from its first line.

    Raises
    ------
    DataError
        Neither says which format it is.
    """
    suffix = path.suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    with path.open("rb") as handle:
        magic = handle.read(4)
    if magic == b"PAR1":
        return "parquet"
    if suffix in _UNREADABLE:
        raise DataError(
            f"{path.name}: files that end in {suffix} are not read; "
            f"convert it to one of {', '.join(FORMATS)}"
        )
    line = _first_line(path, encoding)
    if any(kind in line for kind in _TYPED_HEADER):
        return "inter"
    for name, mark in (("::", "::"), ("tsv", "\t"), ("psv", "|"), ("csv", ","), ("csv", ";")):
        if mark in line:
            return name
    if len(line.split()) > 1:
        return "lines"
    raise DataError(
        f"{path.name}: its first line, {line[:60]!r}, has no delimiter that is known; "
        f"pass format= one of {', '.join(FORMATS)}"
    )


def open_text(path: Path, format: str, encoding: str = "utf-8-sig") -> TextFile:  # noqa: A002
    """Describe a text file of a known format; CSV's delimiter is counted in its first line.

    Examples
    --------
    >>> open_text(Path("ratings.dat"), "::").delimiter
    '::'
    """
    delimiter = DELIMITERS[format]
    if format == "csv":
        line = _first_line(path, encoding)
        delimiter = max((",", ";", "\t", "|"), key=line.count)
    return TextFile(path, format, delimiter, encoding)


def _first_line(path: Path, encoding: str) -> str:
    with path.open(encoding=encoding, errors="replace") as handle:
        return next((line.strip("\r\n") for line in handle if line.strip()), "")
