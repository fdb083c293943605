"""Lists of unequal length as two flat arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Ragged:
    """``n`` lists of integers: list ``r`` is ``values[offsets[r]:offsets[r + 1]]``.

    Parameters
    ----------
    values : (E,) integer
        All lists, one after the other.
    offsets : (n + 1,) int64
        Where each list starts; ``offsets[0] == 0`` and ``offsets[n] == E``.

    Examples
    --------
    >>> lists = Ragged.from_lists([[4, 5], [], [6]])
    >>> len(lists), lists[0].tolist(), lists.lengths.tolist()
    (3, [4, 5], [2, 0, 1])
    """

    values: IntArray
    offsets: npt.NDArray[np.int64]

    @classmethod
    def from_lists(cls, lists: Iterable[Sequence[int]], dtype: type = np.int32) -> Ragged:
        """Flatten ``lists``."""
        rows: list[IntArray] = [np.asarray(row, dtype=dtype) for row in lists]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.concatenate(rows) if rows else np.zeros(0, dtype=dtype), offsets)

    @classmethod
    def from_lengths(cls, values: IntArray, lengths: IntArray) -> Ragged:
        """Cut ``values`` into consecutive lists of the given ``lengths``."""
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(values, offsets)

    def __len__(self) -> int:
        """Return the number of lists."""
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> IntArray:
        """Return list ``row`` as a view."""
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[IntArray]:
        """Yield each list as a view."""
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(n,) int64: the length of each list."""
        return np.diff(self.offsets)

    @property
    def row_of_value(self) -> npt.NDArray[np.int64]:
        """(E,) int64: the list each value belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def take(self, rows: IntArray | slice) -> Ragged:
        """Return the lists ``rows``, in that order."""
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(len(self))
            offsets = self.offsets[start : max(start, stop) + 1]
            return Ragged(self.values[offsets[0] : offsets[-1]].copy(), offsets - offsets[0])
        chosen = np.arange(len(self), dtype=np.int64)[rows]
        lengths = self.lengths[chosen]
        result = Ragged.from_lengths(self.values[:0], lengths)
        within = np.arange(result.offsets[-1]) - np.repeat(result.offsets[:-1], lengths)
        return Ragged(
            self.values[np.repeat(self.offsets[:-1][chosen], lengths) + within], result.offsets
        )

    def where(self, keep: npt.NDArray[np.bool_]) -> Ragged:
        """Return the same lists without the values whose flag in ``keep`` (E,) is false."""
        kept_before = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
        return Ragged(self.values[keep], kept_before[self.offsets])
