"""What every index promises, whatever finds its answers; and the order of every list."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from attrec.data.ragged import Ragged
from attrec.retrieval.index import Neighbours


class Index(Protocol):
    """Nearest keys in squared Euclidean distance; ties go to the lower item index.

    Every implementation runs the same suite, tests/retrieval/test_index_contract.py.
    """

    def __len__(self) -> int:
        """Return the number of items that may be found."""
        ...

    @property
    def dimension(self) -> int:
        """How many numbers a key has."""
        ...

    def search(
        self,
        queries: torch.Tensor,
        k: int,
        *,
        exclude: Ragged | None = None,
        allow: npt.ArrayLike | None = None,
        deny: npt.ArrayLike | None = None,
    ) -> Neighbours:
        """Return k items of each query, nearest first.

        Parameters
        ----------
        queries : (B, D) float64 tensor
        k : int, ≥ 1
        exclude : Ragged of B lists, optional
            Item indices that the query's own list must not hold.
        allow : (A,) integer, optional
            Item indices of which alone the lists are made.
        deny : (A,) integer, optional
            Item indices that no list holds; it wins over ``allow``.

        Returns
        -------
        Neighbours
            (B, k): exact float64 distances; -1 and infinite behind the last item where fewer than
            k may be ranked, never where more are left. The same whether a query comes alone or in
            a batch. An approximate index may miss a nearer item, and does nothing else wrong.

        Raises
        ------
        RequestError
            ``k`` is below 1, or a query is not finite or has a norm above 1e15.
        """
        ...


def nearest(items: npt.NDArray[Any], distances: npt.NDArray[Any], k: int) -> Neighbours:
    """Order candidates (B, m) by distance, equal ones by item index, and keep or pad to k.

    Parameters
    ----------
    items : (B, m) int64
        -1 where there is none.
    distances : (B, m) float64
        Infinite where there is none.
    k : int

    Returns
    -------
    Neighbours
        (B, k)
    """
    order = np.lexsort((items, distances), axis=-1)[:, :k]
    found = nothing(len(items), k)
    width = order.shape[1]
    found.indices[:, :width] = np.take_along_axis(items, order, axis=1)
    found.distances[:, :width] = np.take_along_axis(distances, order, axis=1)
    return found


def nothing(count: int, k: int) -> Neighbours:
    """Return ``count`` empty lists."""
    return Neighbours(np.full((count, k), -1, dtype=np.int64), np.full((count, k), np.inf))
