"""Histories that grow event by event."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
import numpy.typing as npt

from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences


class LiveHistories:
    """Sequences, and the histories of those who took something since, kept apart.

    One event costs its user's history, not everybody's; `sequences` brings all together again.

    Parameters
    ----------
    sequences : Sequences
        Left as they are.
    """

    def __init__(self, sequences: Sequences) -> None:
        self._base = sequences
        self._items: dict[int, list[int]] = {}
        self._times: dict[int, list[float]] = {}
        self._num_users = sequences.num_users

    @property
    def num_users(self) -> int:
        """M: number of histories."""
        return self._num_users

    @property
    def has_times(self) -> bool:
        """Whether events have times; where there is no event yet, they may."""
        return self._base.times is not None

    def add_user(self) -> int:
        """Return the index of one more user, whose history is empty."""
        self._num_users += 1
        return self._num_users - 1

    def add(self, user: int, item: int, time: float | None) -> bool:
        """Put an event where its time says, behind what has the same time.

        Returns
        -------
        bool
            False where the event is there already.
        """
        items, times = self._own(user)
        if time is None:
            items.append(item)
            return True
        first, last = bisect_left(times, time), bisect_right(times, time)
        if item in items[first:last]:
            return False
        items.insert(last, item)
        times.insert(last, time)
        return True

    def take(self, users: npt.NDArray[np.integer]) -> Ragged:
        """Return the histories of some users, in that order."""
        if not self._items and self._num_users == self._base.num_users:
            return self._base.histories.take(users)
        return Ragged.from_lists(self[int(user)] for user in users)

    def __getitem__(self, user: int) -> list[int]:
        """Return the history of one user."""
        if user in self._items:
            return self._items[user]
        if user >= self._base.num_users:
            return []
        history: list[int] = self._base.histories[user].tolist()
        return history

    @property
    def sequences(self) -> Sequences:
        """All histories as arrays; computed anew after an event."""
        if self._items or self._num_users > self._base.num_users:
            lists = [np.asarray(self[user], np.int32) for user in range(self._num_users)]
            lengths = np.array([len(row) for row in lists], dtype=np.int64)
            values = np.concatenate(lists) if lists else np.zeros(0, np.int32)
            times = None
            if self._base.times is not None:
                rows = [np.asarray(self._own_times(user)) for user in range(self._num_users)]
                times = np.concatenate(rows) if rows else np.zeros(0)
            self._base = Sequences(Ragged.from_lengths(values, lengths), times)
            self._items, self._times = {}, {}
        return self._base

    def _own(self, user: int) -> tuple[list[int], list[float]]:
        """Return a user's own lists, which may be written to."""
        if user not in self._items:
            items, times = self[user], self._own_times(user)
            self._items[user], self._times[user] = items, times
        return self._items[user], self._times[user]

    def _own_times(self, user: int) -> list[float]:
        if user in self._times:
            return self._times[user]
        if self._base.times is None or user >= self._base.num_users:
            return []
        offsets = self._base.histories.offsets
        found: list[float] = self._base.times[offsets[user] : offsets[user + 1]].tolist()
        return found
