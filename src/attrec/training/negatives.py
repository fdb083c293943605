"""Seeded sampling of what a user did not take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from attrec.errors import DataError


def sample_negatives(
    targets: npt.NDArray[np.int64], num_items: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    r"""Draw T negatives for each window, uniformly and independently from I \ T⁺.

    Drawing r from 0 … N - |T⁺| - 1 and stepping over each target in ascending order gives exactly
    the items outside T⁺, without a rejected draw. Only the window's own targets are excluded:
    what the user takes later may be drawn, or the held-out item could be told by its absence.

    Parameters
    ----------
    targets : (B, T) int64
        T⁺ of each window; negative entries are padding. A short history still gets T negatives.
    num_items : int
        N, at least T + 1.
    rng : numpy.random.Generator

    Returns
    -------
    (B, T) int64

    Examples
    --------
    >>> sample_negatives(np.array([[0, 2], [1, -1]]), 3, np.random.default_rng(0)).tolist()
    [[1, 1], [2, 2]]
    """
    B, T = targets.shape
    check_enough_items(num_items, T)
    ascending = np.sort(np.where(targets < 0, num_items, targets), axis=1)
    repeated = ascending[:, 1:] == ascending[:, :-1]
    if repeated.any():
        ascending[:, 1:][repeated] = num_items
        ascending.sort(axis=1)
    excluded = (ascending < num_items).sum(axis=1)
    drawn: npt.NDArray[Any] = rng.integers(0, num_items - excluded[:, None], size=(B, T))
    for place in range(T):
        drawn += drawn >= ascending[:, place : place + 1]
    return drawn


def check_enough_items(num_items: int, num_targets: int) -> None:
    """Raise unless a negative can always be found.

    Raises
    ------
    DataError
        There are fewer than T + 1 items.
    """
    if num_items <= num_targets:
        raise DataError(
            f"the training part has {num_items} items, and windows with num_targets = "
            f"{num_targets} need at least {num_targets + 1} for a negative to exist; "
            f"lower num_targets or give more data"
        )
