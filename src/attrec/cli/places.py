"""Where a command may write: over nothing that it reads, and not among a model's own files."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from attrec.errors import RequestError
from attrec.files import real_path


def check_file(flag: str, place: Path, *, reads: Iterable[str | Path | None] = ()) -> None:
    """Refuse a file to write that is read as well, or that lies where a model is kept.

    Parameters
    ----------
    flag : str
        The option that names the file.
    place : path
    reads : iterable of str, path or None
        What the command reads: files, folders, patterns; addresses are passed over.

    Raises
    ------
    RequestError
    """
    from attrec.artifact import kept_in

    whole = real_path(place)
    for source in reads:
        if source is not None and _is_of(whole, str(source)):
            raise RequestError(
                f"{place}: is read by this command, and {flag} would write over it; name another "
                "file"
            )
    for folder in whole.parents:
        noun = kept_in(folder)
        if noun is not None:
            _refuse(flag, place, folder, noun)


def check_outside(flag: str, place: Path | None, folder: Path, noun: str) -> None:
    """Refuse a place that is a folder where a model or a checkpoint will be, or lies in it.

    Raises
    ------
    RequestError
    """
    if place is not None and real_path(place).is_relative_to(real_path(folder)):
        _refuse(flag, place, folder, noun)


def _refuse(flag: str, place: Path, folder: Path, noun: str) -> None:
    raise RequestError(
        f"{place}: the folder {folder} is for the {noun} alone; give {flag} a place outside of it"
    )


def _is_of(place: Path, source: str) -> bool:
    """Tell whether a file is what a source names, or in the folder, or one of the pattern."""
    if "://" in source:
        return False
    named = [Path(source), *map(Path, glob.glob(source, recursive=True))]  # noqa: PTH207 - absolute too
    return any(place.is_relative_to(real_path(each)) for each in named)
