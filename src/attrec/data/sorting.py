"""Stable orders of whole numbers, many times as fast as a sort of pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_BITS = 63


def stable_order(keys: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the positions that sort ``keys``; equal keys keep their order.

    Key and position are packed into one int64 where they fit: NumPy sorts plain integers with
    vector instructions, and pairs one by one.

    Parameters
    ----------
    keys : (n,) integer or float array

    Returns
    -------
    (n,) int64

    Examples
    --------
    >>> stable_order(np.array([5, 3, 5, 3])).tolist()
    [1, 3, 0, 2]
    """
    whole = _whole(keys)
    if whole is None or len(keys) < 2:
        return np.argsort(keys, kind="stable")
    low = int(whole.min())
    spread = (int(whole.max()) - low).bit_length()
    positions = (len(keys) - 1).bit_length()
    if spread + positions > _BITS:
        return np.argsort(keys, kind="stable")
    packed = whole - low
    packed <<= positions
    packed |= np.arange(len(keys))
    packed.sort()
    packed &= (1 << positions) - 1
    return packed


def _whole(keys: npt.NDArray[Any]) -> npt.NDArray[np.int64] | None:
    """Return the keys as int64, or None where that would lose something."""
    if keys.dtype.kind in "iub":
        return keys.astype(np.int64, copy=False)
    if not bool(np.isfinite(keys).all()) or bool((np.abs(keys) >= 2.0**53).any()):
        return None
    cast = keys.astype(np.int64)
    return cast if bool((cast == keys).all()) else None
