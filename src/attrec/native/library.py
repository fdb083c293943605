"""Finds the compiled kernels and passes tensors to them."""

from __future__ import annotations

import ctypes
import hashlib
from ctypes import c_int64
from functools import cache
from pathlib import Path

import torch

HERE = Path(__file__).parent
SUFFIXES = (".so", ".dll")
KINDS = {torch.float32: "float", torch.float64: "double"}
"""How the kernels of a type end."""


def source_digest(folder: Path) -> int | None:
    """Return a digest of the C sources in ``folder``, or None where there are none."""
    sources = sorted([*folder.glob("*.c"), *folder.glob("*.h")])
    if not sources:
        return None
    together = b"".join(path.read_bytes().replace(b"\r\n", b"\n") for path in sources)
    return int.from_bytes(hashlib.sha256(together).digest()[:7], "big")


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None where this installation has none that fit.

    A library that was built from other sources than those beside it is not used.
    """
    for path in (HERE / f"_kernels{suffix}" for suffix in SUFFIXES):
        if not path.exists():
            continue
        try:
            found = ctypes.CDLL(str(path))
            found.attrec_sources.restype = c_int64
            built_from = found.attrec_sources()
        except (OSError, AttributeError):
            return None
        return found if source_digest(HERE) in (None, built_from) else None
    return None


def available() -> bool:
    """Tell whether the kernels can be called."""
    return library() is not None


def kernels_in_words() -> str:
    """Say whether the kernels run here, and if not, why."""
    found = library()
    if found is not None:
        return "compiled, " + ("threaded" if found.attrec_threaded() else "one thread")
    if any((HERE / f"_kernels{suffix}").exists() for suffix in SUFFIXES):
        return "not used: built from other sources, or for another system; install attrec again"
    return "none: training takes its slower PyTorch step; install again where a C compiler is"


def address(tensor: torch.Tensor | None, dtype: torch.dtype) -> int | None:
    """Return where a tensor's numbers lie, None for none.

    Raises
    ------
    TypeError
        The kernel would misread it: another type, not contiguous, or not on the CPU.
    """
    if tensor is None:
        return None
    if tensor.dtype != dtype or not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise TypeError(
            f"a kernel takes contiguous {dtype} tensors on the CPU, not {tensor.dtype} of shape "
            f"{tuple(tensor.shape)}, strides {tensor.stride()} on {tensor.device}"
        )
    return tensor.data_ptr()


def loaded() -> ctypes.CDLL:
    """Return the kernels.

    Raises
    ------
    RuntimeError
        There are none: ask `available` first.
    """
    found = library()
    if found is None:
        raise RuntimeError("this installation has no compiled kernels")
    return found


def threads_for(count: int, fewest: int) -> int:
    """Return how many threads share ``count`` pieces of work, ``fewest`` being worth one."""
    return min(torch.get_num_threads(), max(1, count // fewest))
