"""Files and folders that the account may not read, also where it is root that runs the tests."""

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

_READS_ALL = 0b110
"""The bits of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root may read everything."""


@contextlib.contextmanager
def closed(path: Path) -> Iterator[None]:
    """Take away every leave to a file or a folder, for the length of a ``with`` statement."""
    mode = path.stat().st_mode
    path.chmod(0)
    header, before = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None)
    linux = hasattr(libc, "capget")
    if linux:
        libc.capget(header, before)
        libc.capset(header, (ctypes.c_uint32 * 6)(before[0] & ~_READS_ALL, *before[1:]))
    try:
        yield
    finally:
        if linux:
            libc.capset(header, before)
        path.chmod(mode)
