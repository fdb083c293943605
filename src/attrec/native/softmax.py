"""The softmax kernel: a structure that mirrors structures.h, and the call."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p

import torch

from attrec.native.library import KINDS, address, loaded, threads_for

_FEWEST_A_THREAD = 32768
"""Logits that are worth a thread."""


class _Softmax(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("n", "first", "sum", "gradient")),
        *((name, c_double) for name in ("even", "peak")),
        *((name, c_void_p) for name in ("offsets", "weights", "targets", "items")),
        *((name, c_void_p) for name in ("logits", "picked", "top", "total")),
    )


def softmax_rows(
    logits: torch.Tensor,
    offsets: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None,
    items: torch.Tensor | None,
    top: torch.Tensor,
    total: torch.Tensor,
    picked: torch.Tensor,
    *,
    first: int,
    even: float,
    peak: float,
    sums: bool,
    gradient: bool,
) -> None:
    """Take a block of logits into its rows' sums, or turn it into their gradient, or both.

    Equals `attrec.model.softmax.plain_rows`, where the arguments are told.
    """
    rows, columns = logits.shape
    dtype, whole, wide = logits.dtype, torch.int64, torch.float64
    function = getattr(loaded(), f"attrec_softmax_{KINDS[dtype]}")
    function.argtypes = [c_void_p, c_int64, c_int64]
    fields = _Softmax(
        n=columns, first=first, sum=sums, gradient=gradient, even=even, peak=peak,
        offsets=address(offsets, dtype), weights=address(weights, dtype),
        targets=address(targets, whole), items=address(items, whole),
        logits=address(logits, dtype), picked=address(picked, dtype),
        top=address(top, wide), total=address(total, wide),
    )  # fmt: skip
    function(ctypes.byref(fields), rows, threads_for(rows * columns, _FEWEST_A_THREAD))
