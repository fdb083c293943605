"""An index that grows and shrinks: a base, an exact segment of added keys, and tombstones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from attrec.data.ragged import Ragged
from attrec.errors import RequestError
from attrec.retrieval.contract import Index, nearest, nothing
from attrec.retrieval.index import ExactIndex, Neighbours


class SegmentedIndex:
    """Items come and go without a new index; over an exact base the lists are those of a new one.

    Item indices stay: added items count on behind the base, and those of removed items are never
    given again. Build anew when the segment or the tombstones are no longer few: an added key is
    searched exactly, and a tombstone is a denied item of every search.

    Parameters
    ----------
    base : Index
        Kept, not copied, and never changed.
    """

    def __init__(self, base: Index) -> None:
        self.base = base
        self._base_size, self._removed = len(base), np.zeros(0, dtype=np.int64)
        if isinstance(base, SegmentedIndex):  # it may have given more items than are there
            self._base_size, self._removed = base._size, base.removed
        self._added: ExactIndex | None = None

    def __len__(self) -> int:
        """Return the number of items that are there."""
        return self._size - len(self._removed)

    @property
    def dimension(self) -> int:
        """How many numbers a key has."""
        return self.base.dimension

    @property
    def removed(self) -> npt.NDArray[np.int64]:
        """(R,) int64: the indices of removed items, sorted."""
        return self._removed

    def add(self, keys: torch.Tensor) -> npt.NDArray[np.int64]:
        """Add items.

        Parameters
        ----------
        keys : (n, D) float32 tensor

        Returns
        -------
        (n,) int64
            Their item indices.

        Raises
        ------
        RequestError
            A key is not finite or has a norm above 1e15, or has another width than those before.
        """
        first = self._size
        if keys.shape[1] != self.dimension:
            raise RequestError(
                f"keys of {keys.shape[1]} numbers are added to keys of {self.dimension}; "
                "give keys of one model"
            )
        if self._added is not None:
            keys = torch.cat([self._added.keys, keys.to(self._added.keys)])
        self._added = ExactIndex(keys)
        return np.arange(first, self._size)

    def remove(self, items: npt.ArrayLike) -> None:
        """Remove items; those that were removed before stay removed.

        Parameters
        ----------
        items : (n,) integer
            Item indices.

        Raises
        ------
        RequestError
            There never was such an item.
        """
        gone = np.asarray(items, dtype=np.int64)
        strange = gone[(gone < 0) | (gone >= self._size)]
        if len(strange):
            raise RequestError(
                f"item index {strange[0]} cannot be removed: the index has given 0 to "
                f"{self._size - 1}"
            )
        self._removed = np.union1d(self._removed, gone)

    def search(
        self,
        queries: torch.Tensor,
        k: int,
        *,
        exclude: Ragged | None = None,
        allow: npt.ArrayLike | None = None,
        deny: npt.ArrayLike | None = None,
    ) -> Neighbours:
        """Return the k nearest items of each query that are there; see `Index.search`."""
        denied = self._removed if deny is None else np.union1d(self._removed, _indices(deny))
        allowed = None if allow is None else _indices(allow)
        split = self._base_size
        found = self.base.search(
            queries,
            k,
            exclude=None if exclude is None else exclude.where(exclude.values < split),
            allow=None if allowed is None else allowed[allowed < split],
            deny=denied[denied < split],
        )
        if self._added is None:
            return found
        late = self._added.search(
            queries,
            k,
            exclude=None if exclude is None else _behind(exclude, split),
            allow=None if allowed is None else allowed[allowed >= split] - split,
            deny=denied[denied >= split] - split,
        )
        if len(queries) == 0:
            return nothing(0, k)
        shifted = np.where(late.indices >= 0, late.indices + split, -1)
        return nearest(
            np.concatenate([found.indices, shifted], axis=1),
            np.concatenate([found.distances, late.distances], axis=1),
            k,
        )

    @property
    def _size(self) -> int:
        """Item indices that were ever given."""
        return self._base_size + (0 if self._added is None else len(self._added))


def _indices(items: npt.ArrayLike) -> npt.NDArray[np.int64]:
    return np.asarray(items, dtype=np.int64)


def _behind(lists: Ragged, first: int) -> Ragged:
    """Keep the values from ``first`` on, and count them from there."""
    kept = lists.where(lists.values >= first)
    return Ragged(kept.values.astype(np.int64) - first, kept.offsets)
