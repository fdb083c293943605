"""A batch's windows and negatives, by the compiled kernels."""

from __future__ import annotations

from ctypes import c_int64, c_void_p
from typing import Any

import numpy as np
import numpy.typing as npt

from attrec.native.library import loaded

Ints = npt.NDArray[np.int64]


def make_windows(
    values: npt.NDArray[Any],
    offsets: Ints,
    before: Ints,
    numbers: Ints,
    window_length: int,
    num_targets: int,
    num_items: int,
) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Compute the windows with the given numbers, and their distinct targets.

    Parameters
    ----------
    values : (E,) int32
        All histories, one after the other; each below ``num_items``.
    offsets : (M + 1,) int64
        Where each history starts.
    before : (M + 1,) int64
        How many windows the users before each one have.
    numbers : (B,) int64
    window_length, num_targets, num_items : int
        L, T and N.

    Returns
    -------
    users (B,), windows (B, L), targets (B, T), ascending (B, T), free (B,) : int64
        ``ascending`` holds the distinct targets in order, N behind them; ``free`` says how many
        items are no target.

    Raises
    ------
    IndexError
        No window has one of the numbers.
    """
    B, L, T = len(numbers), window_length, num_targets
    users, free = np.empty(B, np.int64), np.empty(B, np.int64)
    windows = np.empty((B, L), np.int64)
    targets, ascending = np.empty((B, T), np.int64), np.empty((B, T), np.int64)
    call = loaded().attrec_make_windows
    call.restype = c_int64
    call.argtypes = [*[c_void_p] * 3, c_int64, c_void_p, *[c_int64] * 4, *[c_void_p] * 5]
    failed = call(
        _at(values, np.int32), _at(offsets, np.int64), _at(before, np.int64), len(offsets) - 1,
        _at(numbers, np.int64), B, L, T, num_items, _at(users, np.int64), _at(windows, np.int64),
        _at(targets, np.int64), _at(ascending, np.int64), _at(free, np.int64),
    )  # fmt: skip
    if failed:
        raise IndexError(f"a window's number is not below {int(before[-1])}, how many there are")
    return users, windows, targets, ascending, free


def step_over(draws: Ints, ascending: Ints) -> Ints:
    """Turn draws (B, T) from 0 … free - 1 into items that are no target, in place."""
    call = loaded().attrec_step_over
    call.restype, call.argtypes = None, [c_void_p, c_void_p, c_int64, c_int64]
    call(_at(draws, np.int64), _at(ascending, np.int64), *draws.shape)
    return draws


def _at(array: npt.NDArray[Any], dtype: type) -> int:
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise TypeError(
            f"a kernel takes contiguous arrays of {np.dtype(dtype)}, not {array.dtype} of shape "
            f"{array.shape}, strides {array.strides}"
        )
    return int(array.ctypes.data)
