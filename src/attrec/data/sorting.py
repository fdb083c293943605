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
    return np.argsort(keys, kind="stable") if whole is None else stable_sort(whole)[1]


def stable_sort(
    keys: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return ``keys`` in ascending order, and the positions that they came from.

    Examples
    --------
    >>> [part.tolist() for part in stable_sort(np.array([5, 3, 5, 3]))]
    [[3, 3, 5, 5], [1, 3, 0, 2]]
    """
    low = int(keys.min()) if len(keys) else 0
    spread = (int(keys.max()) - low).bit_length() if len(keys) else 0
    positions = len(keys).bit_length()
    if spread + positions > _BITS:
        order = np.argsort(keys, kind="stable")
        return keys[order], order
    packed = keys - low
    packed <<= positions
    packed |= np.arange(len(keys))
    packed.sort()
    ascending = packed >> positions
    ascending += low
    packed &= (1 << positions) - 1
    return ascending, packed


def _whole(keys: npt.NDArray[Any]) -> npt.NDArray[np.int64] | None:
    """Return the keys as int64, or None where that would lose something."""
    if keys.dtype.kind in "iub":
        return keys.astype(np.int64, copy=False)
    if not bool(np.isfinite(keys).all()) or bool((np.abs(keys) >= 2.0**53).any()):
        return None
    cast = keys.astype(np.int64)
    return cast if bool((cast == keys).all()) else None
