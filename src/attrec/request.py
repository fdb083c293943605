"""A request's ids become indices here, and nowhere else; what cannot be answered stops here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import numpy.typing as npt

from attrec.data.interactions import NO_IDS, IdArray, InteractionLog
from attrec.data.live import LiveHistories
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.data.units import UNITS, unit_of
from attrec.data.vocabulary import UNKNOWN, Vocabulary, check_kind
from attrec.errors import RequestError, UnknownIdError

Ids = Sequence[Any] | IdArray
Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Member = int | str | Ids
"""A user id, or a history of item ids, oldest first."""
DEFAULT_STRENGTH = 0.15
"""Of a critique, where the user has 1; docs/choices.md says what it does to lists."""
LEAST_WEIGHT = 1e-6
"""Of the sum of weights, as a share of the sum of their sizes."""


class Asked(NamedTuple):
    """Who asks.

    Attributes
    ----------
    names : (n,) int64 or object (str)
        User ids, or the numbers of the histories.
    user_index : (n,) int64
        -1 where only a history was given.
    histories : Ragged of n lists
        Item indices, oldest first.
    """

    names: IdArray
    user_index: Indices
    histories: Ragged

    def take(self, rows: Indices) -> Asked:
        """Return what some of them ask."""
        return Asked(self.names[rows], self.user_index[rows], self.histories.take(rows))


class Event(NamedTuple):
    """What somebody took, and when.

    Attributes
    ----------
    user, item : int or str
        External ids.
    time : float or None
    user_index, item_index : int
        -1 where it is unknown.
    """

    user: int | str
    item: int | str
    time: float | None
    user_index: int
    item_index: int


class Limits(NamedTuple):
    """What a list may hold.

    Attributes
    ----------
    k : int
        At most the number of items.
    exclude_seen : bool
    allow, deny : (A,) int64 or None
    """

    k: int
    exclude_seen: bool
    allow: Indices | None
    deny: Indices | None


@dataclass(frozen=True, eq=False)
class RequestReader:
    """Reads requests against one vocabulary and its histories.

    Attributes
    ----------
    vocabulary : Vocabulary
    histories : LiveHistories
    unplaced : (n,) int64
        Items that nothing is known of: they say nothing of whoever took them.
    user_rows : int
        How many users, the first ones, have a row of the network to rank by.
    """

    vocabulary: Vocabulary
    histories: LiveHistories
    unplaced: Indices
    user_rows: int

    def one(self, user: int | str | None, history: Ids | None) -> Asked:
        """Read the request of one user, one history, or a user with another history.

        Raises
        ------
        UnknownIdError
            The vocabulary lacks the user.
        RequestError
            Neither is given, or nothing is known of the one that is.
        """
        if user is None and history is None:
            raise RequestError("name a user of the model or give a history of item ids")
        asked = self.many(None if user is None else [user], None if history is None else [history])
        if not self.answerable(asked)[0]:
            raise RequestError(
                f"user {plain(user)!r}: none of the user's items is known to the model; "
                "give a history"
            )
        return asked

    def many(self, users: Ids | None, histories: Sequence[Ids] | None) -> Asked:
        """Read the request of many users, many histories, or all users; see `one`."""
        if users is None:
            if histories is None:
                everybody = np.arange(self.vocabulary.num_users)
                whole = self.histories.sequences.histories
                if len(whole) > len(everybody):  # somebody came in since the vocabulary was read
                    whole = whole.take(everybody)
                return Asked(self.vocabulary.user_ids, everybody, whole)
            given = self._given(histories)
            return Asked(np.arange(len(given)), np.full(len(given), UNKNOWN, np.int64), given)
        index = self._users(users)
        names = self.vocabulary.decode_users(index)
        if histories is None:
            return Asked(names, index, self.histories.take(index))
        if len(histories) != len(index):
            raise RequestError(
                f"{len(index)} users and {len(histories)} histories; give one history for each user"
            )
        return Asked(names, index, self._given(histories))

    def of_log(self, log: InteractionLog) -> Asked:
        """Read the request of all users of a log, known or not, with their histories there."""
        everybody = self.vocabulary.with_users_of(log)
        names = log.user_ids[np.unique(log.user_codes)]
        index = everybody.encode_users(names)
        return Asked(names, index, Sequences.from_log(log, everybody).histories.take(index))

    def group(
        self, members: Sequence[Member], weights: Sequence[float] | None
    ) -> tuple[Asked, Floats]:
        """Read the members of a group, users and histories mixed, and their weights.

        Raises
        ------
        UnknownIdError, RequestError
            As in `one`; there is no member, or the weights do not fit; see `checked_weights`.
        """
        if isinstance(members, str) or not hasattr(members, "__len__"):
            raise RequestError(
                f"{members!r} is one member where a list is expected; write [{members!r}]"
            )
        if len(members) == 0:
            raise RequestError("the group has no members; name a user or give a history")
        given = np.ones(len(members)) if weights is None else checked_weights(weights, members)
        read = [self._member(member) for member in members]
        user_index = np.concatenate([each.user_index for each in read])
        histories = Ragged.from_lists([each.histories[0].tolist() for each in read])
        return Asked(np.arange(len(read)), user_index, histories), given

    def critique(
        self, like: Ids | None, unlike: Ids | None, strength: float
    ) -> tuple[Indices, Floats]:
        """Read the items that a list shall turn to or from, and the weight of each.

        The items of a side share ``strength``, those of ``unlike`` with a negative sign.

        Raises
        ------
        UnknownIdError
            The vocabulary lacks an item.
        RequestError
            The strength is not above 0, or not below 1 where ``unlike`` names items.
        """
        sides = [
            self.items(ids) for ids in ([] if each is None else each for each in (like, unlike))
        ]
        if not 0.0 < number("strength", strength) < np.inf:
            raise RequestError(f"strength = {strength!r}: give a number above 0, such as 0.15")
        if len(sides[1]) and not strength < 1.0:
            raise RequestError(
                f"strength = {strength!r}: with items in unlike it must stay below 1, which is the "
                "user's weight"
            )
        shares = [
            np.full(len(side), sign * strength / max(1, len(side)))
            for side, sign in zip(sides, (1.0, -1.0), strict=True)
        ]
        return np.concatenate(sides), np.concatenate(shares)

    def answerable(self, asked: Asked) -> npt.NDArray[np.bool_]:
        """(n,) bool: there is a row of the user or a history to rank by."""
        has_row = (asked.user_index >= 0) & (asked.user_index < self.user_rows)
        return has_row | (self._telling(asked.histories).lengths > 0)

    def items(self, items: Ids) -> Indices:
        """Return the indices of items that must all be known.

        Raises
        ------
        UnknownIdError
            The vocabulary lacks one.
        """
        items = listed(items)
        index = self.vocabulary.encode_items(items)
        unknown = np.flatnonzero(index == UNKNOWN)
        if len(unknown):
            raise UnknownIdError(
                f"item {plain(items[unknown[0]])!r} is not in the model (item ids are "
                f"{self.vocabulary.item_kind}s); give an item that occurs in the training log"
            )
        return index

    def event(self, user: int | str, item: int | str, time: float | None) -> Event:
        """Read an event as a row of a log is read.

        Raises
        ------
        UnknownIdError
            An id is of the other kind.
        RequestError
            There is no time, or one too many, or it is no finite number or in another unit than
            the others; or an id is none.
        """
        user, item, time = plain(user), plain(item), plain(time)
        place = f"event of user {user!r}"
        if self.histories.has_times != (time is not None):
            wants = "need a time" if time is None else "have no times; leave the time out"
            raise RequestError(f"{place}: this model's events {wants}")
        if time is not None:
            time = self._time(place, time)
        check_kind(user, self.vocabulary.user_kind, "user")
        check_kind(item, self.vocabulary.item_kind, "item")
        (user_index,) = self.vocabulary.encode_users([user]).tolist()
        (item_index,) = self.vocabulary.encode_items([item]).tolist()
        for name, identity, index in (("user", user, user_index), ("item", item, item_index)):
            # An id that the model has is one, whatever it looks like.
            fault = _fault(identity) if index == UNKNOWN else None
            if fault:
                raise RequestError(f"{place}: the {name} {fault}; give its id")
        return Event(user, item, time, user_index, item_index)

    def _time(self, place: str, time: Any) -> float:
        unit = self.histories.unit
        wanted = f"a number of {UNITS[unit]}" if unit is not None else "a number in the log's unit"
        if isinstance(time, bool) or not isinstance(time, int | float):
            raise RequestError(f"{place}: time = {time!r} is not a number; give {wanted}")
        if not abs(time) <= sys.float_info.max:
            raise RequestError(f"{place}: time = {time} is not a finite number; give {wanted}")
        own = unit_of(time)
        if unit is not None and own not in (None, unit):
            raise RequestError(
                f"{place}: time = {time:.0f} is in {UNITS[own or 0]} where the model's events are "
                f"in {UNITS[unit]}; bring it to {UNITS[unit]}"
            )
        return float(time)

    def limits(self, k: int, exclude_seen: bool, allow: Ids | None, deny: Ids | None) -> Limits:
        """Read what a list may hold; items that the vocabulary lacks are ignored.

        Raises
        ------
        RequestError
            ``k`` is below 1, or no item is left.
        UnknownIdError
            An id of ``allow`` or ``deny`` is of the other kind: what shall be denied must not pass.
        """
        check_count(k, "item")
        allowed, denied = (
            None if ids is None else self._of_the_kind(listed(ids)) for ids in (allow, deny)
        )
        if allowed is not None or denied is not None:
            left = np.arange(self.vocabulary.num_items) if allowed is None else allowed
            if len(left if denied is None else np.setdiff1d(left, denied)) == 0:
                raise RequestError(
                    "allow and deny leave no item that the model knows (item ids are "
                    f"{self.vocabulary.item_kind}s); widen allow or narrow deny"
                )
        return Limits(min(int(k), self.vocabulary.num_items), exclude_seen, allowed, denied)

    def _of_the_kind(self, items: Ids) -> Indices:
        """Return the indices of the items that the vocabulary has, each once and in order."""
        index = self.vocabulary.encode_items(items)
        for place in np.flatnonzero(index == UNKNOWN):
            check_kind(plain(items[int(place)]), self.vocabulary.item_kind, "item")
        return np.setdiff1d(index, [UNKNOWN])

    def _given(self, histories: Sequence[Ids]) -> Ragged:
        known = []
        for row, history in enumerate(histories):
            index = self.vocabulary.encode_items(listed(history))
            known.append(index[index != UNKNOWN])
            if len(np.setdiff1d(known[-1], self.unplaced)) == 0:
                raise RequestError(
                    f"history {row} has {len(history)} items and none of them is known to the "
                    f"model (item ids are {self.vocabulary.item_kind}s); give at least one that is"
                )
        return Ragged.from_lists(known)

    def _telling(self, histories: Ragged) -> Ragged:
        """Leave out items that nothing is known of."""
        if len(self.unplaced) == 0:
            return histories
        return histories.where(~np.isin(histories.values, self.unplaced))

    def _member(self, member: Member) -> Asked:
        if isinstance(member, Sequence | np.ndarray) and not isinstance(member, str):
            return self.one(None, member)
        return self.one(member, None)

    def _users(self, users: Ids) -> Indices:
        users = listed(users)
        index = self.vocabulary.encode_users(users)
        unknown = np.flatnonzero(index == UNKNOWN)
        if len(unknown):
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise UnknownIdError(
                f"user {plain(users[unknown[0]])!r}{more} is not in the model (user ids are "
                f"{self.vocabulary.user_kind}s); give a history of item ids instead"
            )
        return index


def as_frame(users: Any) -> nw.DataFrame[Any] | None:
    """Return a Polars, pandas or PyArrow frame as narwhals sees it; None for anything else."""
    frame = nw.from_native(users, eager_only=True, pass_through=True)
    return frame if isinstance(frame, nw.DataFrame) else None


def user_column(frame: nw.DataFrame[Any]) -> IdArray:
    """Return the users of a frame: the column ``user_id``, or the only one.

    Raises
    ------
    RequestError
        There are several columns and none has that name, or a user is missing.
    """
    names = frame.columns
    if "user_id" not in names and len(names) != 1:
        raise RequestError(
            f"the frame has the columns {', '.join(names)}; name the one with the users 'user_id'"
        )
    name = "user_id" if "user_id" in names else names[0]
    missing = np.flatnonzero(frame[name].is_null().to_numpy())
    if len(missing):
        raise RequestError(
            f"the frame's column {name!r}, row {missing[0]}: there is no user; leave such rows out"
        )
    column: IdArray = frame[name].to_numpy()
    return column


def checked_weights(weights: Sequence[float], members: Sequence[Any]) -> Floats:
    """Return the weights of a group as an array.

    Raises
    ------
    RequestError
        There are more or fewer than members, one is no finite number, or their sum is not above 0
        (or nothing beside them: then rounding alone would order the list).
    """
    given = np.array([number("weights", weight) for weight in weights])
    if given.shape != (len(members),):
        raise RequestError(
            f"{given.size} weights for {len(members)} members; give one weight for each member"
        )
    if not np.isfinite(given).all():
        raise RequestError(f"weights = {given.tolist()}: each must be a finite number")
    if not given.sum() > LEAST_WEIGHT * np.abs(given).sum():
        raise RequestError(
            f"weights = {given.tolist()}: their sum must be above 0; make the positive ones larger"
        )
    return given


def number(name: str, value: Any) -> float:
    """Return a number of a request.

    Raises
    ------
    RequestError
        It is none.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise RequestError(f"{name}: {value!r} is no number; give one")
    return float(value)


def plain(value: Any) -> Any:
    """Return a numpy scalar as the Python value it is."""
    return value.item() if isinstance(value, np.generic) else value


def _fault(identity: int | str) -> str | None:
    """Say why this is no id, where reading a log would refuse it."""
    if isinstance(identity, int):
        return None if abs(identity) < 2**63 else f"{identity} does not fit into 64 bits"
    if identity.lower() in NO_IDS:
        return f"is {identity!r}, which stands for none" if identity else "is empty"
    return "holds NUL bytes" if "\0" in identity else None


def listed(ids: Ids) -> Sequence[Any] | IdArray:
    """Return ids one behind the other, whatever holds them: a set, say, or a column of a frame.

    Raises
    ------
    RequestError
        It is one id.
    """
    if isinstance(ids, str) or not hasattr(ids, "__len__"):
        raise RequestError(f"{ids!r} is one id where a list of ids is expected; write [{ids!r}]")
    return ids if isinstance(ids, list | tuple | np.ndarray) else list(ids)


def check_count(k: int, what: str) -> None:
    """Check how many ``what`` are asked for.

    Raises
    ------
    RequestError
        ``k`` is no whole number, or below 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise RequestError(f"k = {k!r} is no whole number; ask for at least 1 {what}")
    if k < 1:
        raise RequestError(f"k = {k}: ask for at least 1 {what}")
