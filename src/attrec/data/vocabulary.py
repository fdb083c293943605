"""The one door between external ids and indices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from attrec.data.interactions import IdArray, InteractionLog
from attrec.errors import DataError, UnknownIdError

IdKind = Literal["integer", "string"]
UNKNOWN = -1
"""Index of an id that the vocabulary lacks."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Users and items of the training part, in the order of their indices.

    Parameters
    ----------
    user_ids : (M,) int64 or object (str)
        External id of each ``user_index``: those of the training, sorted, and behind them users
        that came later, in the order in which they came.
    item_ids : (N,) int64 or object (str)
        External id of each ``item_index``, in the same way: item order is id order, but for items
        that came later.
    num_trained_users : int
        How many of the users have a trained row.
    num_trained_items : int, optional
        How many of the items have a trained row; all, when left out.
    """

    user_ids: IdArray
    item_ids: IdArray
    num_trained_users: int
    num_trained_items: int = -1

    def __post_init__(self) -> None:
        """Take all items as trained where nothing else is said."""
        if self.num_trained_items < 0:
            object.__setattr__(self, "num_trained_items", len(self.item_ids))

    @classmethod
    def fit(cls, log: InteractionLog) -> Vocabulary:
        """Learn the users and items that occur in ``log``.

        Examples
        --------
        >>> log = InteractionLog.from_columns(["b", "a"], [30, 20])
        >>> vocabulary = Vocabulary.fit(log)
        >>> vocabulary.encode_items([20, 30, 40]).tolist()
        [0, 1, -1]
        """
        users = log.user_ids[np.unique(log.user_codes)]
        return cls(users, log.item_ids[np.unique(log.item_codes)], len(users))

    def with_users_of(self, log: InteractionLog) -> Vocabulary:
        """Append the users of ``log`` that are new; every known index stays as it is."""
        users = log.user_ids[np.unique(log.user_codes)]
        new = users[self.encode_users(users) == UNKNOWN]
        return replace(self, user_ids=_appended(self.user_ids, new, "user", log.source))

    def with_user(self, user: int | str) -> Vocabulary:
        """Append one user who is new, of the kind that the ids have; `self` stays as it is.

        It costs the same however many there are: both share one table and one mapping.
        """
        known = self._users
        if len(known) != self.num_users:  # another vocabulary has appended to what both share
            known = _Ids(self.user_ids, self.num_trained_users)
        after = replace(self, user_ids=known.append(user))
        after.__dict__["_users"] = known
        return after

    def with_items_of(self, log: InteractionLog) -> Vocabulary:
        """Append the items of ``log`` that are new; every known index stays as it is."""
        return self.with_items(log.item_ids[np.unique(log.item_codes)], log.source)

    def with_items(self, ids: IdArray, source: str = "these items") -> Vocabulary:
        """Append those of some items that are new; every known index stays as it is."""
        new = ids[self.encode_items(ids) == UNKNOWN]
        return replace(self, item_ids=_appended(self.item_ids, new, "item", source))

    def check_kinds(self, log: InteractionLog) -> None:
        """Refuse a log whose ids are of another kind than these: it could have none in common.

        Raises
        ------
        DataError
            They are.
        """
        _check_kind(self.user_ids, log.user_ids, "user", log.source)
        _check_kind(self.item_ids, log.item_ids, "item", log.source)

    @property
    def num_users(self) -> int:
        """M: number of users."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """N: number of items."""
        return len(self.item_ids)

    @property
    def user_kind(self) -> IdKind:
        """Whether user ids are integers or strings."""
        return _kind(self.user_ids)

    @property
    def item_kind(self) -> IdKind:
        """Whether item ids are integers or strings."""
        return _kind(self.item_ids)

    def encode_users(self, ids: Sequence[Any] | IdArray) -> npt.NDArray[np.int64]:
        """(n,) int64: the index of each user id, -1 where it is unknown."""
        return self._users.encode(ids, self.num_users)

    def encode_items(self, ids: Sequence[Any] | IdArray) -> npt.NDArray[np.int64]:
        """(n,) int64: the index of each item id, -1 where it is unknown."""
        return self._items.encode(ids, self.num_items)

    @cached_property
    def _users(self) -> _Ids:
        return _Ids(self.user_ids, self.num_trained_users)

    @cached_property
    def _items(self) -> _Ids:
        return _Ids(self.item_ids, self.num_trained_items)

    def decode_users(self, index: npt.NDArray[np.integer]) -> IdArray:
        """Return the external id of each user index."""
        return np.asarray(self.user_ids[index])

    def decode_items(self, index: npt.NDArray[np.integer]) -> IdArray:
        """Return the external id of each item index."""
        return np.asarray(self.item_ids[index])

    def parse_user(self, text: str) -> int | str:
        """Read a user id from text, as the kind this vocabulary has.

        Raises
        ------
        UnknownIdError
            Integer ids are expected and ``text`` is none.
        """
        return _parse(text, self.user_kind, "user")

    def parse_item(self, text: str) -> int | str:
        """Read an item id from text, as the kind this vocabulary has; see :meth:`parse_user`."""
        return _parse(text, self.item_kind, "item")


class _Ids:
    """A table of ids that only grows; vocabularies that came of one another share it.

    Each of them reads as much of it as is its own.

    Parameters
    ----------
    ids : (n,) int64 or object (str)
        Left as they are.
    trained : int
        How many of them, at the start, are sorted.
    """

    def __init__(self, ids: IdArray, trained: int) -> None:
        self._room = ids
        self._size = len(ids)
        self._trained = trained
        self._late = dict(zip(ids[trained:].tolist(), range(trained, len(ids)), strict=True))

    def __len__(self) -> int:
        """Return the number of ids, of all who share them."""
        return self._size

    def append(self, identity: int | str) -> IdArray:
        """Return the table with one more id."""
        if self._size == len(self._room):
            room = np.empty(self._size + max(1024, self._size // 4), dtype=self._room.dtype)
            room[: self._size] = self._room
            self._room = room
        self._room[self._size] = identity
        self._late[identity] = self._size
        self._size += 1
        return self._room[: self._size]

    def encode(self, ids: Sequence[Any] | IdArray, size: int) -> npt.NDArray[np.int64]:
        """(n,) int64: the index of each id among the first ``size``, -1 where it is none."""
        # A list is not left to NumPy, which would turn [7, "7"] into two equal strings.
        values = ids if isinstance(ids, np.ndarray) else np.array([*ids, None], dtype=object)[:-1]
        found = _encode(values, self._room[: self._trained])
        if size > self._trained:
            # Only of the right kind: 5.0 and True would find the integers that they equal.
            kind, rows = _kind(self._room), np.flatnonzero(found == UNKNOWN)
            late = [
                self._late.get(each, UNKNOWN) if _is_of(each, kind) else UNKNOWN
                for each in values[rows].tolist()
            ]
            found[rows] = np.where(np.array(late, dtype=np.int64) < size, late, UNKNOWN)
        return found


def check_kind(identity: int | str, kind: IdKind, name: str) -> None:
    """Raise unless an id is of this kind.

    Raises
    ------
    UnknownIdError
    """
    if type(identity) is not {"integer": int, "string": str}[kind]:
        raise UnknownIdError(
            f"{name} {identity!r}: this model's {name} ids are {kind}s; give one of that kind"
        )


def _is_of(identity: Any, kind: IdKind) -> bool:
    if kind == "string":
        return isinstance(identity, str)
    return isinstance(identity, int | np.integer) and type(identity) is not bool


def _kind(ids: IdArray) -> IdKind:
    return "integer" if ids.dtype.kind in "iu" else "string"


def _appended(ids: IdArray, new: IdArray, name: str, source: str) -> IdArray:
    """Append ids of the same kind.

    Raises
    ------
    DataError
        They are of the other kind.
    """
    _check_kind(ids, new, name, source)
    both: IdArray = np.concatenate([ids, new]) if len(new) else ids
    return both


def _check_kind(ids: IdArray, others: IdArray, name: str, source: str) -> None:
    if len(ids) and len(others) and _kind(ids) != _kind(others):
        raise DataError(
            f"{source}: its {name} ids are {_kind(others)}s, such as {others.tolist()[0]!r}, and "
            f"the model's are {_kind(ids)}s; bring both to one kind"
        )


def _encode(values: IdArray, table: IdArray) -> npt.NDArray[np.int64]:
    """Look ``values`` up in the sorted ``table``; one of another kind is unknown."""
    if values.dtype.kind == "U":
        values = values.astype(object)
    if len(table) == 0 or len(values) == 0:
        return np.full(len(values), UNKNOWN, dtype=np.int64)
    of_kind = np.ones(len(values), dtype=bool)
    if table.dtype.kind in "iu":
        # Beside integers of another width NumPy would compare as floats, of which 2⁶⁰ and
        # 2⁶⁰ + 1 are one.
        if values.dtype.kind != "i":
            if values.dtype.kind == "u":
                of_kind = values < 2**63
            else:
                of_kind = np.array([_is_of(v, "integer") and -(2**63) <= v < 2**63 for v in values])
            values = np.where(of_kind, values, 0).astype(np.int64)
    elif values.dtype.kind in "iu":
        return np.full(len(values), UNKNOWN, dtype=np.int64)
    else:
        of_kind = np.array([_is_of(v, "string") for v in values])
        values = np.array(
            [v if ok else "" for v, ok in zip(values, of_kind, strict=True)], dtype=object
        )
    place = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return np.where(of_kind & (table[place] == values), place, UNKNOWN).astype(np.int64)


def _parse(text: str, kind: IdKind, name: str) -> int | str:
    if kind == "string":
        return text
    # int() alone would take 1_000, and digits of other scripts.
    if not re.fullmatch(r"\s*-?[0-9]+\s*", text):
        raise UnknownIdError(
            f"{name} {text!r}: this model's {name} ids are integers; give a whole number"
        )
    return int(text)
