"""Files that appear whole or not at all: written beside their place, then moved there."""

from __future__ import annotations

import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrec.errors import AttRecError, RequestError, in_one_line

if TYPE_CHECKING:
    from filelock import BaseFileLock

Writer = Callable[[Path], object]
"""Writes a file at the path that it is given."""

UNFINISHED = re.compile(r"\.attrec-.*\.tmp")
"""Names of files that a writer which was killed may have left."""


def write_whole(file: str | Path, write: Writer) -> Path:
    """Write a file whole or not at all; its folder is made where there is none.

    Parameters
    ----------
    file : path
    write : callable
        Given the path of a temporary file beside it.

    Raises
    ------
    RequestError
        It cannot be written.
    """
    path = Path(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(path.parent, write) as written:
            written.replace(path)
    except OSError as error:
        raise RequestError(
            f"{path}: cannot be written ({in_one_line(error)}); choose a place that is "
            "writable and has room"
        ) from error
    return path


def real_path(path: str | Path) -> Path:
    """Return where a path leads, absolute; one whose links lead in a circle, as far as it leads.

    `Path.resolve` raises RuntimeError of such a circle, before Python 3.13.
    """
    return Path(os.path.realpath(path))


def try_writing(folder: str | Path) -> None:
    """Raise the OSError that writing into a folder would; nothing stays there, nor a new folder.

    Asked before long work, not after it.
    """
    path = Path(folder)
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    with unfinished(path, lambda file: file.write_bytes(b"attrec")):
        pass
    if made:
        path.rmdir()


def locked(file: Path, busy: AttRecError) -> BaseFileLock:
    """Take the lock of a file, until it is released or the process ends.

    Raises
    ------
    AttRecError
        ``busy``: another process has it.
    OSError, NotImplementedError
        The file system gives none.
    """
    from filelock import FileLock, Timeout  # not where nothing is locked: it brings asyncio

    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise busy from None
    return lock


@contextmanager
def unfinished(folder: Path, write: Writer) -> Iterator[Path]:
    """Write a temporary file through to the disk; it is removed unless it is moved away inside."""
    path = folder / f".attrec-{uuid.uuid4().hex}.tmp"
    try:
        path.touch()
        allowed = stat.S_IMODE(path.stat().st_mode)
        write(path)
        path.chmod(allowed)  # some writers let nobody but themselves read
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)
