"""An interaction log in external ids: who took what, and when."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from attrec.data.sorting import stable_order
from attrec.errors import DataError

IdArray = npt.NDArray[Any]
"""External ids: int64, or object holding ``str``."""
NO_IDS = ("", "nan", "null", "none", "<na>")
"""Texts that stand, in any case of their letters, where there is no id."""
_LARGEST_ID = np.iinfo(np.int64).max


@dataclass(frozen=True)
class CleaningStep:
    """What one step of reading and cleaning took out.

    Attributes
    ----------
    what : str
        In words, of what was taken out.
    removed, left : int
        Events.
    examples : tuple of str
        The first bad rows, each with its place.
    """

    what: str
    removed: int
    left: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class InteractionLog:
    """Events in the order of their source, ids stored once and referred to by code.

    Parameters
    ----------
    user_ids : (M,) int64 or object (str)
        The distinct users, sorted.
    item_ids : (N,) int64 or object (str)
        The distinct items, sorted.
    user_codes : (E,) int32
        Position of each event's user in ``user_ids``.
    item_codes : (E,) int32
        Position of each event's item in ``item_ids``.
    timestamps : (E,) float64 or None
        Time of each event in the source's unit; None where the source has none, and then the
        order of the rows is the order in time.
    source : str
        Where the events came from, for messages.
    notes : tuple of str
        What a reader assumed and a person should know ("no header: columns by position").
    steps : tuple of CleaningStep
        What reading and cleaning took out, in order.
    """

    user_ids: IdArray
    item_ids: IdArray
    user_codes: npt.NDArray[np.int32]
    item_codes: npt.NDArray[np.int32]
    timestamps: npt.NDArray[np.float64] | None = None
    source: str = "the log"
    notes: tuple[str, ...] = ()
    steps: tuple[CleaningStep, ...] = ()

    @classmethod
    def from_columns(
        cls,
        users: Sequence[Any] | IdArray,
        items: Sequence[Any] | IdArray,
        timestamps: Sequence[float] | npt.NDArray[Any] | None = None,
        *,
        source: str = "the log",
    ) -> InteractionLog:
        """Build a log from three columns of equal length (ids: integers or strings).

        Raises
        ------
        DataError
            The columns differ in length, an id is neither an integer nor a string (a float, as a
            table makes of integers with a gap among them), or a time is not finite.

        Examples
        --------
        >>> log = InteractionLog.from_columns(["a", "b", "a"], [7, 7, 9], [1, 2, 3])
        >>> log.num_users, log.num_items, len(log)
        (2, 2, 3)
        """
        user_ids, user_codes = _distinct(users, f"{source}: users")
        item_ids, item_codes = _distinct(items, f"{source}: items")
        times = None if timestamps is None else _times(timestamps, source)
        if len(user_codes) != len(item_codes) or (times is not None and len(times) != len(items)):
            raise DataError(
                f"{source}: the columns have {len(user_codes)} users, {len(item_codes)} items and "
                f"{len(item_codes) if times is None else len(times)} timestamps; "
                "give columns of equal length"
            )
        if times is not None and not np.isfinite(times).all():
            row = int(np.flatnonzero(~np.isfinite(times))[0])
            raise DataError(
                f"{source}: timestamps[{row}] is {times[row]}; give numbers, or leave the row out"
            )
        return cls(user_ids, item_ids, user_codes, item_codes, times, source)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.user_codes)

    @property
    def num_users(self) -> int:
        """Number of distinct users in the id table."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Number of distinct items in the id table."""
        return len(self.item_ids)

    def take(self, rows: npt.NDArray[Any]) -> InteractionLog:
        """Return the events ``rows`` (positions or flags); the id tables stay as they are."""
        return replace(
            self,
            user_codes=self.user_codes[rows],
            item_codes=self.item_codes[rows],
            timestamps=None if self.timestamps is None else self.timestamps[rows],
        )

    def events(self) -> Iterator[tuple[int | str, int | str, float | None]]:
        """Yield user, item and time of each event, as Python values."""
        times = [None] * len(self) if self.timestamps is None else self.timestamps.tolist()
        users, items = self.user_ids[self.user_codes], self.item_ids[self.item_codes]
        return zip(users.tolist(), items.tolist(), times, strict=True)

    def time_order(self) -> npt.NDArray[np.int64]:
        """(E,) int64: rows by user, then time; equal times keep the order of their rows."""
        if self.timestamps is None:
            return stable_order(self.user_codes)
        by_time = stable_order(self.timestamps)
        return by_time[stable_order(self.user_codes[by_time])]

    def fingerprint(self) -> str:
        """Return a SHA-256 over ids, events and times: equal logs, equal fingerprints."""
        digest = hashlib.sha256()
        for ids in (self.user_ids, self.item_ids):
            for start in range(0, len(ids), 65536):
                digest.update("\x1f".join(map(str, ids[start : start + 65536])).encode())
            digest.update(b"\x1e")
        for column in (self.user_codes, self.item_codes, self.timestamps):
            digest.update(b"none" if column is None else np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def concatenate(first: InteractionLog, second: InteractionLog) -> InteractionLog:
    """Append ``second`` to ``first`` over one id table.

    Raises
    ------
    DataError
        One log has integer ids where the other has strings, or only one of them has times.
    """
    for name in ("user_ids", "item_ids"):
        kinds = [getattr(log, name).dtype.kind for log in (first, second) if len(log)]
        if len(set(kinds)) > 1:
            raise DataError(
                f"{second.source}: its {name.replace('_', ' ')} are not of the kind "
                f"(integers or strings) that {first.source} has; bring both to one kind"
            )
    if (first.timestamps is None) != (second.timestamps is None):
        raise DataError(
            f"{second.source}: one of the two logs has timestamps and {first.source} differs; "
            "give times in both, or in neither"
        )
    user_ids, user_codes = _merge(
        first.user_ids, first.user_codes, second.user_ids, second.user_codes
    )
    item_ids, item_codes = _merge(
        first.item_ids, first.item_codes, second.item_ids, second.item_codes
    )
    times = (
        None
        if first.timestamps is None or second.timestamps is None
        else np.concatenate([first.timestamps, second.timestamps])
    )
    source = first.source if first.source == second.source else f"{first.source}, {second.source}"
    return InteractionLog(
        user_ids,
        item_ids,
        user_codes,
        item_codes,
        times,
        source,
        first.notes + second.notes,
        first.steps + second.steps,
    )


def _distinct(ids: Sequence[Any] | IdArray, place: str) -> tuple[IdArray, npt.NDArray[np.int32]]:
    table, codes = np.unique(_ids(ids, place), return_inverse=True)
    return table, codes.astype(np.int32)


def _ids(ids: Sequence[Any] | IdArray, place: str) -> IdArray:
    # NumPy would make texts of a list that mixes them with numbers.
    values = np.asarray(ids, dtype=None if hasattr(ids, "dtype") else object)
    if values.dtype.kind in "iu":
        return _whole(values, place)
    found = values.astype(object)
    if values.dtype.kind == "U" or len(found) == 0:
        return found
    kinds = [_kind(one) for one in found.tolist()]
    wanted = kinds[0] if kinds[0] in ("str", "int") else "an integer or a string"
    row = next((row for row, kind in enumerate(kinds) if kind != wanted), None)
    if row is None and wanted == "str":
        return found
    if row is None:
        return _whole(found, place)
    raise DataError(
        f"{place}[{row}] is {found[row]!r}, of type {type(found[row]).__name__}; give ids that are "
        "all integers or all strings, and leave out rows without one"
    )


def _whole(values: npt.NDArray[Any], place: str) -> IdArray:
    if len(values) and max(abs(int(values.min())), int(values.max())) > _LARGEST_ID:
        raise DataError(
            f"{place} has {values.max()}, beyond the integers of 64 bits; give ids as strings"
        )
    return values.astype(np.int64)


def _times(timestamps: Sequence[Any] | npt.NDArray[Any], place: str) -> npt.NDArray[np.float64]:
    values = np.asarray(timestamps)
    if values.dtype.kind not in "iuf" and len(values):
        wrong = (row for row, one in enumerate(values.tolist()) if not isinstance(one, int | float))
        row = next(wrong, 0)
        raise DataError(
            f"{place}: timestamps[{row}] is {values.tolist()[row]!r}; give seconds since 1970 as "
            "numbers"
        )
    return values.astype(np.float64)


def _kind(one: Any) -> str:
    if isinstance(one, str):
        return "str"
    is_whole = isinstance(one, int | np.integer) and not isinstance(one, bool)
    return "int" if is_whole else type(one).__name__


def _merge(
    first_ids: IdArray,
    first_codes: npt.NDArray[np.int32],
    second_ids: IdArray,
    second_codes: npt.NDArray[np.int32],
) -> tuple[IdArray, npt.NDArray[np.int32]]:
    table, codes = np.unique(np.concatenate([first_ids, second_ids]), return_inverse=True)
    renumber = codes.astype(np.int32)
    return table, np.concatenate(
        [renumber[: len(first_ids)][first_codes], renumber[len(first_ids) :][second_codes]]
    )
