"""Histories as flat arrays, and the training windows that are computed from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from attrec.data.interactions import InteractionLog
from attrec.data.ragged import Ragged
from attrec.data.vocabulary import UNKNOWN, Vocabulary

PADDING = -1
"""Stands in a slot that has no item; no table has a row for it."""


class Windows(NamedTuple):
    """A batch of training windows.

    Attributes
    ----------
    users : (B,) int64
        ``user_index`` of each window.
    inputs : (B, L) int64
        The last items up to and including position t, left-padded: the newest is in slot L - 1.
    targets : (B, T) int64
        The next items, right-padded.
    """

    users: npt.NDArray[np.int64]
    inputs: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sequences:
    """Each user's items, oldest first; row = ``user_index``.

    A history of n items gives n - 1 windows, t = 1 … n - 1: the input is the last min(L, t) of the
    first t items, the targets are the next min(T, n - t). For the history ``a b c d``, L = 3 and
    T = 2, with ``.`` for padding::

        t   input    targets
        1   . . a    b c
        2   . a b    c d
        3   a b c    d .

    Windows are numbered through all users and computed when asked for, never stored.

    Parameters
    ----------
    histories : Ragged of M lists
    times : (E,) float64, optional
        When each event was, in the log's unit; None where nothing is known of it.
    """

    histories: Ragged
    times: npt.NDArray[np.float64] | None = None

    @classmethod
    def from_log(cls, log: InteractionLog, vocabulary: Vocabulary) -> Sequences:
        """Order the events of ``log`` by user and time; items the vocabulary lacks are left out.

        Users whom the vocabulary lacks are left out too; every user it has gets a row.
        """
        order = log.time_order()
        user_of_code = vocabulary.encode_users(log.user_ids)
        item_of_code = vocabulary.encode_items(log.item_ids)
        users = user_of_code[log.user_codes[order]]
        items = item_of_code[log.item_codes[order]]
        known = (users != UNKNOWN) & (items != UNKNOWN)
        users, items = users[known], items[known].astype(np.int32)
        by_user = np.argsort(users, kind="stable")
        lengths = np.bincount(users, minlength=vocabulary.num_users)
        times = None if log.timestamps is None else log.timestamps[order][known][by_user]
        return cls(Ragged.from_lengths(items[by_user], lengths), times)

    @property
    def num_users(self) -> int:
        """M: number of histories."""
        return len(self.histories)

    @property
    def num_events(self) -> int:
        """Number of events in all histories."""
        return len(self.histories.values)

    @property
    def num_windows(self) -> int:
        """Number of training windows: the sum of n - 1 over the histories."""
        return int(np.maximum(self.histories.lengths - 1, 0).sum())

    def windows(self, numbers: npt.NDArray[Any], window_length: int, num_targets: int) -> Windows:
        """Compute the windows with the given numbers.

        Parameters
        ----------
        numbers : (B,) integer
            Each in 0 … ``num_windows`` - 1.
        window_length : int
            L, slots of the input.
        num_targets : int
            T, slots of the targets.

        Examples
        --------
        >>> sequences = Sequences(Ragged.from_lists([[7, 8], [1, 2, 3]]))
        >>> windows = sequences.windows(np.array([0, 2]), 3, 2)
        >>> windows.users.tolist(), windows.inputs.tolist(), windows.targets.tolist()
        ([0, 1], [[-1, -1, 7], [-1, 1, 2]], [[8, -1], [3, -1]])
        """
        before = self.windows_before
        users = np.searchsorted(before, numbers, side="right") - 1
        starts, ends = self.histories.offsets[users], self.histories.offsets[users + 1]
        newest = starts + (np.asarray(numbers, dtype=np.int64) - before[users])
        inputs = _gather(
            self.histories.values,
            newest[:, None] + np.arange(1 - window_length, 1),
            starts[:, None],
            ends[:, None],
        )
        targets = _gather(
            self.histories.values,
            newest[:, None] + np.arange(1, num_targets + 1),
            starts[:, None],
            ends[:, None],
        )
        return Windows(users.astype(np.int64), inputs, targets)

    @property
    def windows_before(self) -> npt.NDArray[np.int64]:
        """(M + 1,) int64: how many windows the users before each one have; all in the last."""
        cached: npt.NDArray[np.int64] | None = self.__dict__.get("_before")
        if cached is None:
            cached = np.zeros(self.num_users + 1, dtype=np.int64)
            np.cumsum(np.maximum(self.histories.lengths - 1, 0), out=cached[1:])
            self.__dict__["_before"] = cached
        return cached


def last_items(histories: Ragged, length: int) -> npt.NDArray[np.int64]:
    """(n, length) int64: the newest items of each history, left-padded; the newest stands last.

    Examples
    --------
    >>> last_items(Ragged.from_lists([[1, 2, 3], [4]]), 2).tolist()
    [[2, 3], [-1, 4]]
    """
    starts, ends = histories.offsets[:-1, None], histories.offsets[1:, None]
    return _gather(histories.values, ends + np.arange(-length, 0), starts, ends)


def newest(histories: Ragged, length: int) -> Ragged:
    """Return each history's newest items, at most ``length`` of them.

    Examples
    --------
    >>> [list(map(int, items)) for items in newest(Ragged.from_lists([[1, 2, 3], [4]]), 2)]
    [[2, 3], [4]]
    """
    lengths = histories.lengths
    from_end = np.repeat(histories.offsets[1:], lengths) - np.arange(len(histories.values))
    return histories.where(from_end <= length)


def _gather(
    values: npt.NDArray[Any],
    places: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    inside = (places >= starts) & (places < ends)
    if len(values) == 0:
        return np.full(places.shape, PADDING, dtype=np.int64)
    return np.where(inside, values[np.where(inside, places, 0)], PADDING).astype(np.int64)
