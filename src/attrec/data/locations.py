"""Where a log lies: a file, a pattern, a partitioned folder, an address that fsspec knows."""

from __future__ import annotations

import glob
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import duckdb

from attrec.errors import DataError, in_one_line

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Suffix to duckdb's name of a compression."""

LONGEST_LINE = 2_000_000
"""Characters; duckdb has the same limit."""

_PATTERN = frozenset("*?[")


@dataclass(frozen=True)
class Location:
    """One file.

    Parameters
    ----------
    path : str
        What duckdb opens.
    name : str
        What a person reads.
    remote : bool
        Whether fsspec opens it.
    """

    path: str
    name: str
    remote: bool = False

    @property
    def compression(self) -> str:
        """``none``, or a value of `COMPRESSIONS`."""
        return COMPRESSIONS.get(Path(self.path).suffix.lower(), "none")

    @property
    def suffix(self) -> str:
        """The suffix below the compression's, in lower case: ``.csv`` of ``a.csv.gz``."""
        path = Path(self.path)
        return (path.with_suffix("") if self.compression != "none" else path).suffix.lower()

    @property
    def in_sql(self) -> str:
        """The path as duckdb takes it, to which a name such as ``log[1].csv`` is a pattern."""
        return literal(self.path if self.remote else glob.escape(self.path))

    @contextmanager
    def lines(self, db: duckdb.DuckDBPyConnection, encoding: str) -> Iterator[Iterator[str]]:
        """Yield the lines with their ends; bytes that are no text become U+FFFD.

        Raises
        ------
        DataError
            The file cannot be opened, is not of its encoding, or is compressed and damaged.
        """
        # A mark at the beginning of UTF-8 is no text.
        codec = {"utf-8": "utf-8-sig"}.get(encoding, encoding)
        options: dict[str, Any] = {"encoding": codec, "errors": "replace", "newline": ""}
        if self.remote or self.compression == "zstd":
            yield self._scanned(db, encoding)
            return
        opened: Any = gzip.open if self.compression == "gzip" else open
        try:
            handle = opened(self.path, "rt", **options)
        except OSError as error:
            raise unopened(self.name, error) from error
        with handle:
            yield self._bounded(handle)

    def _bounded(self, handle: TextIO) -> Iterator[str]:
        """Yield lines; one without an end in sight is refused before it fills the memory."""
        number = 1
        try:
            while line := handle.readline(LONGEST_LINE + 1):
                if len(line) > LONGEST_LINE:
                    raise DataError(
                        f"{self.name}, line {number}: the row cannot be read (it is longer than "
                        f"{LONGEST_LINE:,} characters); check the ends of the lines"
                    )
                yield line
                number += 1
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise damaged(self.name, error) from error
        except UnicodeError as error:
            raise DataError(
                f"{self.name}, line {number}: this is not text of the encoding that was named "
                f"({error}); name the one it has"
            ) from error

    def _scanned(self, db: duckdb.DuckDBPyConnection, encoding: str) -> Iterator[str]:
        reader = db.cursor()
        try:
            reader.execute(
                f"SELECT line FROM read_csv({self.in_sql}, delim = '\x01', quote = '', "
                "escape = '', header = false, auto_detect = false, store_rejects = true, "
                f"columns = {{'line': 'VARCHAR'}}, encoding = {literal(encoding)}, "
                f"compression = {literal(self.compression)})"
            )
            while rows := reader.fetchmany(1024):
                for (line,) in rows:
                    yield f"{line or ''}\n"
        except duckdb.Error as error:
            raise damaged(self.name, error) from error


def find_files(source: str | Path, db: duckdb.DuckDBPyConnection) -> list[Location]:
    """Return the files that a path, a pattern, a folder or a remote address names, in order.

    Raises
    ------
    DataError
        There is no such file, it cannot be looked at, or a file is empty.
    """
    text = str(source)
    if "://" in text:
        return _remote_files(text, db)
    path = Path(source)
    try:
        found = _local_files(path)
        empty = next((file for file in found if file.stat().st_size == 0), None)
        names = [_name(file, path) for file in found]
    except OSError as error:
        raise unopened(error.filename or text, error) from error
    if empty is not None:
        raise DataError(f"{empty.name}: the file is empty; give a file with at least one row")
    return [Location(str(file.resolve()), name) for file, name in zip(found, names, strict=True)]


def _local_files(path: Path) -> list[Path]:
    text = str(path)
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = _files_below(path)
        if not found:
            raise DataError(f"{path}: this folder holds no file; name a log or a folder of logs")
    elif _PATTERN & set(text):
        found = [Path(name) for name in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - an absolute pattern too
        found = [file for file in found if file.is_file()]
        if not found:
            raise DataError(f"{path}: no file has a name of this pattern; check the path")
    else:
        raise DataError(f"{path}: there is no such file; check the path")
    return found


def unopened(name: str, error: OSError) -> DataError:
    """Say that the system does not open a file, or does not let this account look at it."""
    return DataError(
        f"{name}: the file cannot be opened ({in_one_line(error)}); check the path, and that this "
        "account may read it"
    )


def damaged(name: str, error: Exception) -> DataError:
    """Say that a compressed file cannot be read to its end."""
    said = first_sentence(error)
    return DataError(f"{name}: the file is cut off or damaged ({said}); copy or export it again")


def first_sentence(error: Exception) -> str:
    """Return the line of duckdb's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Original Line", "LINE ", "^"))]
    return re.sub(r"^[A-Z][A-Za-z ]+ Error: ", "", (said or lines or ["unreadable"])[0])


def literal(value: object) -> str:
    """Quote a value as text in SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def _files_below(root: Path) -> list[Path]:
    """Leave out hidden files and what writers of partitioned folders leave (``_SUCCESS``)."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=_raised):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        found += [Path(folder, name) for name in names if not name.startswith((".", "_"))]
    return sorted(file for file in found if file.is_file())


def _raised(error: OSError) -> None:
    """Pass over no folder that cannot be looked into: its part of a log would be missed."""
    raise error


def _name(file: Path, asked: Path) -> str:
    return str(file.relative_to(asked)) if asked.is_dir() else file.name


def _remote_files(address: str, db: duckdb.DuckDBPyConnection) -> list[Location]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
        found = system.glob(path) if _PATTERN & set(path) else [path]
        found = [name for name in found if system.isfile(name)]
        sizes = [system.size(name) for name in found]
    except (ImportError, ValueError) as error:
        raise DataError(f"{address}: cannot be opened ({error}); check the address") from error
    except OSError as error:
        raise DataError(f"{address}: cannot be reached ({error}); check the address") from error
    if not found:
        raise DataError(f"{address}: there is no such file; check the address")
    if 0 in sizes:
        raise DataError(
            f"{found[sizes.index(0)]}: the file is empty; give a file with at least one row"
        )
    db.register_filesystem(system)
    scheme = address.split("://", 1)[0]
    paths = [f"{scheme}://{name.split('://', 1)[-1].lstrip('/')}" for name in found]
    return [Location(path, path.rsplit("/", 1)[-1], remote=True) for path in paths]
