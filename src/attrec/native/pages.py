"""Large pages behind large tables."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

import torch

FEWEST_BYTES = 32 << 20
"""Smaller tables have too few pages for it to matter."""


def on_large_pages(tensor: torch.Tensor) -> torch.Tensor:
    """Ask the system to put a new tensor on large pages; return it.

    A step visits random rows of its tables. On pages of 4 kB nearly each of them costs a walk
    through the page tables beside the cache miss; on pages of 2 MB it does not. To be asked before
    the tensor is first written. Without effect on other systems than Linux, on other devices than
    the CPU, and where it is forbidden.

    Parameters
    ----------
    tensor : contiguous tensor

    Returns
    -------
    tensor
        The same.
    """
    size = tensor.numel() * tensor.element_size()
    advise = _madvise()
    if advise is not None and tensor.device.type == "cpu" and size >= FEWEST_BYTES:
        start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (tensor.data_ptr() + size - start) // mmap.PAGESIZE * mmap.PAGESIZE
        advise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)
    return tensor


@cache
def _madvise() -> Any:
    if sys.platform != "linux" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    return ctypes.CDLL(None).madvise
