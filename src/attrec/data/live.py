"""Histories that grow event by event."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from threading import RLock

import numpy as np
import numpy.typing as npt

from attrec.config import Duplicates, Repeats
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.data.units import common_unit


class LiveHistories:
    """Sequences, and the histories of those who took something since, kept apart.

    Threads may share one: each event comes in whole, and what is read holds whole events.
    One event costs its user's history, not everybody's; `sequences` brings all together again.
    Whatever is added, in time or late, ends as if it had come in one cleaned log to
    `attrec.data.merging.merge_events`.

    Parameters
    ----------
    sequences : Sequences
        Left as they are.
    repeats : {"keep", "first", "last"}
        Of an item that its user has already.
    duplicates : {"drop", "keep"}
        Of events added that are equal in user, item and time: whether the second is the first again
        or one more. What is there to begin with is told by its time either way: of equal events, as
        many as are there.

    Attributes
    ----------
    version : int
        Another one after each event and each user that came in.
    """

    def __init__(
        self, sequences: Sequences, repeats: Repeats = "keep", duplicates: Duplicates = "drop"
    ) -> None:
        self._base = sequences
        self._repeats = repeats
        self._duplicates = duplicates
        self._met: dict[tuple[int, int, float], int] = {}
        self._items: dict[int, list[int]] = {}
        self._times: dict[int, list[float]] = {}
        self._num_users = sequences.num_users
        self._lock = RLock()
        self.version = 0

    @property
    def num_users(self) -> int:
        """M: number of histories."""
        return self._num_users

    @property
    def has_times(self) -> bool:
        """Whether events have times; where there is no event yet, they may."""
        return self._base.times is not None

    @cached_property
    def unit(self) -> int | None:
        """In which unit times are, see `attrec.data.units`; None where they do not say it."""
        return None if self._base.times is None else common_unit(self._base.times)

    def add_user(self) -> int:
        """Return the index of one more user, whose history is empty."""
        with self._lock:
            self._num_users += 1
            self.version += 1
            return self._num_users - 1

    def add(self, user: int, item: int, time: float | None) -> bool:
        """Put an event where its time says, behind what has the same time.

        Returns
        -------
        bool
            False where the event is there already, or another of its item is kept in its place.
        """
        with self._lock:
            items, times = self._own(user)
            place = len(items)
            if time is not None:
                first, place = bisect_left(times, time), bisect_right(times, time)
                if self._is_there((user, item, time), items[first:place].count(item)):
                    return False
            if self._repeats != "keep":
                others = [at for at, other in enumerate(items) if other == item]
                kept = min if self._repeats == "first" else max
                # Of equal times the new one counts as the later: its place is behind the other's.
                if others and (kept(others) < place) == (self._repeats == "first"):
                    return False
                for at in reversed(others):
                    del items[at]
                    if time is not None:
                        del times[at]
                    place -= at < place
            items.insert(place, item)
            if time is not None:
                times.insert(place, time)
            self.version += 1
            return True

    def _is_there(self, event: tuple[int, int, float], number: int) -> bool:
        """Tell whether an event of which ``number`` equal ones are there is one of these."""
        if self._duplicates == "drop":
            return number > 0
        met = self._met.get(event, 0)
        if met >= number or self._repeats == "keep":
            self._met[event] = met + 1
        return met < number

    def take(self, users: npt.NDArray[np.integer]) -> Ragged:
        """Return the histories of some users, in that order."""
        with self._lock:
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
        with self._lock:
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
