"""The training step's kernels: structures that mirror structures.h, and the calls."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_int64, c_void_p
from typing import Any, NamedTuple

import torch

from attrec.native.library import KINDS, address, loaded, threads_for

_INTEGERS = {
    **dict.fromkeys(("distinct", "starts"), torch.int64),
    **dict.fromkeys(
        ("order", "window_places", "candidate_places", "long_places", "user_places",
         "second_places"), torch.int32,
    ),
    "loss": torch.float64,
}  # fmt: skip
"""Of the tensors that do not have the call's own type."""
_FEWEST_A_THREAD = 64
"""Windows or rows that are worth a thread."""


class _Windows(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("L", "C", "T", "d", "mean", "one_to_one")),
        *((name, c_double) for name in ("omega", "margin")),
        *((name, c_void_p) for name in ("X", "V", "U", "Z", "signal", "dropout")),
        *((name, c_void_p) for name in ("window_places", "candidate_places")),
        *((name, c_void_p) for name in ("long_places", "user_places")),
        *((name, c_void_p) for name in ("m", "g_m", "g_u", "g_Q", "shares", "a", "loss")),
    )


class _Segments(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("d", "limit")),
        *((name, c_void_p) for name in ("starts", "order", "source", "into")),
    )


class _Update(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("d", "limit", "per_first", "per_second", "ready_rows")),
        ("factor", c_double),
        *((name, c_void_p) for name in ("distinct", "starts", "order", "second_places")),
        *((name, c_void_p) for name in ("ready", "shares", "first", "a", "second")),
        *((name, c_void_p) for name in ("table", "state")),
        *((name, c_double) for name in ("rate", "tiny", "l2")),
        *((name, c_int64) for name in ("clip", "row_wise")),
    )


class Occurrences(NamedTuple):
    """Where each distinct index of a batch occurs.

    Attributes
    ----------
    distinct : (n,) int64
        In the order in which they are met; no padding.
    places : (P,) int32
        Of every occurrence among ``distinct``; -1 for padding.
    starts : (n + 1,) int64
    order : (P,) int32
        Number r occurs at ``order[starts[r]:starts[r + 1]]``, ascending.
    in_first : int
        How many of ``distinct`` occur in the first list.
    """

    distinct: torch.Tensor
    places: torch.Tensor
    starts: torch.Tensor
    order: torch.Tensor
    in_first: int


def group(first: torch.Tensor, second: torch.Tensor | None, marks: torch.Tensor) -> Occurrences:
    """Number the distinct indices of one or two lists.

    Parameters
    ----------
    first, second : int64 tensors
        Negative entries are padding. The occurrences of ``second`` count on from those of
        ``first``.
    marks : (rows,) int32 tensor
        All -1, and so again afterwards.

    Raises
    ------
    IndexError
        An index is not below the number of rows.
    """
    one = first.numel()
    two = 0 if second is None else second.numel()
    distinct = torch.empty(one + two, dtype=torch.int64)
    places = torch.empty(one + two, dtype=torch.int32)
    starts = torch.empty(one + two + 1, dtype=torch.int64)
    order = torch.empty(one + two, dtype=torch.int32)
    in_first = c_int64()
    call = loaded().attrec_group
    call.restype = c_int64
    call.argtypes = [
        c_void_p, c_int64, c_void_p, c_int64, c_void_p, c_int64, c_void_p, c_void_p, c_void_p,
        c_void_p, POINTER(c_int64),
    ]  # fmt: skip
    n = call(
        address(first, torch.int64), one, address(second, torch.int64), two,
        address(marks, torch.int32), len(marks), address(distinct, torch.int64),
        address(places, torch.int32), address(starts, torch.int64), address(order, torch.int32),
        ctypes.byref(in_first),
    )  # fmt: skip
    if n < 0:
        raise IndexError(f"an index of the batch is not below {len(marks)}, the rows of its table")
    return Occurrences(distinct[:n], places, starts[: n + 1], order, in_first.value)


def run(kernel: str, dtype: torch.dtype, count: int, **arguments: Any) -> None:
    """Run a kernel over ``count`` windows or rows, on as many threads as PyTorch uses.

    Parameters
    ----------
    kernel : {"windows", "segments", "update"}
    dtype : torch.dtype
        float32 or float64.
    count : int
    **arguments
        The fields of the kernel's structure: numbers, or contiguous CPU tensors; None for none.

    Raises
    ------
    MemoryError
    """
    structure = {"windows": _Windows, "segments": _Segments, "update": _Update}[kernel]
    function = getattr(loaded(), f"attrec_{kernel}_{KINDS[dtype]}")
    fields = structure(
        **{
            name: address(value, _INTEGERS.get(name, dtype)) if torch.is_tensor(value) else value
            for name, value in arguments.items()
            if value is not None
        }
    )
    function.argtypes = [c_void_p, c_int64, c_int64]
    if function(ctypes.byref(fields), count, threads_for(count, _FEWEST_A_THREAD)):
        raise MemoryError("no memory for a training step's scratch space")
