"""Cutting a log by time: what is learnt from, what is judged on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from attrec.config import ProtocolConfig
from attrec.data.interactions import InteractionLog, concatenate
from attrec.data.merging import repeated
from attrec.data.ragged import Ragged
from attrec.errors import DataError

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Users judged at one moment, in the codes of the log.

    Parameters
    ----------
    user_codes : (n,) int32
    histories : Ragged of int32
        Item codes of all the user's events before the target, oldest first.
    targets : Ragged of int32
        Item codes to be predicted, oldest first; an item that comes twice is one target.
    """

    user_codes: npt.NDArray[np.int32]
    histories: Ragged
    targets: Ragged

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.user_codes)


@dataclass(frozen=True, eq=False)
class Split:
    """A log in three parts.

    Parameters
    ----------
    log, train, train_and_validation : InteractionLog
        All events; those before validation; those before the test part. One id table.
    validation, test : HeldOut
        Validation histories are events of ``train``, test histories of ``train_and_validation``
        (but for users who came later: see `global_time`).
    protocol : str
        The split in words.
    counts : dict
        What a reader of the figures should know: users held out and not, ties, late users.
    """

    log: InteractionLog
    train: InteractionLog
    train_and_validation: InteractionLog
    validation: HeldOut
    test: HeldOut
    protocol: str
    counts: dict[str, int | float]

    def without_test(self) -> Split:
        """Return the split as who must not look at the test part sees it: its events are gone."""
        nothing = Ragged.from_lengths(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64))
        return replace(
            self,
            log=self.train_and_validation,
            test=HeldOut(np.empty(0, dtype=np.int32), nothing, nothing),
            counts={n: v for n, v in self.counts.items() if not n.startswith("test_")},
        )

    def fingerprint_before_test(self) -> str:
        """Return a SHA-256 over training and validation part, in external ids."""
        log, validation = self.train_and_validation, self.validation
        users, user_codes = np.unique(log.user_codes, return_inverse=True)
        items, item_codes = np.unique(log.item_codes, return_inverse=True)
        seen = replace(
            log,
            user_ids=log.user_ids[users], item_ids=log.item_ids[items],
            user_codes=user_codes.astype(np.int32), item_codes=item_codes.astype(np.int32),
        )  # fmt: skip
        digest = hashlib.sha256(seen.fingerprint().encode())
        digest.update(np.searchsorted(users, validation.user_codes).tobytes())
        digest.update(np.searchsorted(items, validation.targets.values).tobytes())
        return digest.hexdigest()


def split_log(
    log: InteractionLog, config: ProtocolConfig, test_log: InteractionLog | None = None
) -> Split:
    """Split as ``config`` says, or by a given test file.

    Raises
    ------
    DataError
        A part would be empty, or a cut by time is asked of a log without times.
    """
    if test_log is not None:
        return given_files(log, test_log)
    if config.split == "global-time":
        return global_time(log, config.test_fraction, config.validation_fraction)
    return leave_last_out(log, config.held_out_events)


def leave_last_out(log: InteractionLog, held_out_events: int = 1) -> Split:
    """Hold out each user's last T events for test and the T before them for validation.

    Users with fewer than 2 T + 1 events stay in training whole and are not judged.
    """
    T = held_out_events
    ordered = _Ordered(log)
    judged = ordered.lengths >= 2 * T + 1
    from_end = np.repeat(ordered.ends, ordered.lengths) - np.arange(len(log))
    row_judged = np.repeat(judged, ordered.lengths)
    in_test = row_judged & (from_end <= T)
    in_validation = row_judged & (from_end > T) & (from_end <= 2 * T)
    words = "leave-last-out" if T == 1 else f"leave-last-{T}-out"
    return ordered.split(
        in_validation,
        in_test,
        f"{words}: each user's last {_events(T)} for test, the {_events(T)} before for validation",
        {"users_too_short": int((~judged & (ordered.lengths > 0)).sum())},
    )


def global_time(
    log: InteractionLog, test_fraction: float = 0.1, validation_fraction: float = 0.1
) -> Split:
    """Cut at one moment for everybody: the test part is the last share of all events.

    Events at the very moment of a cut fall behind it. A user's target is the first event after
    the cut, the history everything before. A user without an event before the cut has nothing to
    be judged from: the first event after it becomes the history and the second the target (to be
    scored by fold-in, apart from the others); with a single event the user is only counted.
    """
    if log.timestamps is None:
        raise DataError(
            f"{log.source}: has no timestamps, which split = global-time needs; "
            "name the time column, or take split = leave-last-out"
        )
    times = np.sort(log.timestamps)
    last = len(times) - 1
    in_test = int(last * test_fraction)
    behind = int(last * (test_fraction + validation_fraction))
    if behind >= last or behind == in_test:
        raise DataError(
            f"{log.source}: of its {len(log)} events test_fraction = {test_fraction:g} and "
            f"validation_fraction = {validation_fraction:g} leave {max(0, last - behind)} to train "
            f"on and {behind - in_test} for validation; choose others, or take split = "
            "leave-last-out"
        )
    test_cut, validation_cut = times[last - in_test], times[last - behind]
    if not times[0] < validation_cut < test_cut:
        raise DataError(
            f"{log.source}: one moment holds too many of its {len(log)} events for a cut into "
            f"training, validation ({validation_fraction:g}) and test ({test_fraction:g}); "
            "take split = leave-last-out"
        )
    ordered = _Ordered(log)
    row_times = log.timestamps[ordered.order]
    return ordered.split(
        (row_times >= validation_cut) & (row_times < test_cut),
        row_times >= test_cut,
        f"global time: test = the last {100 * test_fraction:g}% of events, validation = the "
        f"{100 * validation_fraction:g}% before, target = a user's first event after the cut",
        {},
        first_target_only=True,
    )


def given_files(train: InteractionLog, test: InteractionLog) -> Split:
    """Judge on a given test file; validation is each user's last training event.

    Raises
    ------
    DataError
        The file is empty, or most of its events are in the training file too.
    """
    if len(test) == 0:
        raise DataError(
            f"{test.source}: holds no event to be judged on; give a test file with some"
        )
    log = concatenate(train, test)
    is_test = np.arange(len(log)) >= len(train)
    words = _in_both(train, test, log, is_test)
    ordered = _Ordered(log, behind=is_test)
    in_test = is_test[ordered.order]
    train_lengths = np.bincount(log.user_codes[: len(train)], minlength=log.num_users)
    last_of_train = ordered.starts + train_lengths - 1
    in_validation = np.zeros(len(log), dtype=bool)
    in_validation[last_of_train[train_lengths >= 2]] = True
    return ordered.split(
        in_validation,
        in_test,
        "given files: the test file's events are the targets, each user's last training event "
        f"is for validation{words}",
        {},
    )


def _in_both(
    train: InteractionLog, test: InteractionLog, both: InteractionLog, is_test: Flags
) -> str:
    """Say how many test events are learnt from, too; raise where that is most of them."""
    if both.timestamps is None:  # nobody can tell an event from its repetition
        return ""
    again = repeated(both.user_codes, both.item_codes, both.timestamps, is_test)
    count = int(again.sum())
    if 2 * count > len(test):
        raise DataError(
            f"{test.source}: {count:,} of its {len(test):,} events are in {train.source} too, and "
            "would be learnt from; take them out of one of the two"
        )
    return f"; {count:,} of the {len(test):,} test events are learnt from, too" if count else ""


class _Ordered:
    """A log's rows by user and time, and the cutting that all splits share."""

    def __init__(self, log: InteractionLog, behind: Flags | None = None) -> None:
        """Order the rows of ``log``; a user's rows flagged ``behind`` come after the others."""
        if len(log) == 0:
            raise DataError(f"{log.source}: holds no events; give a log with some")
        self.log = log
        order = log.time_order()
        if behind is not None:
            order = order[np.lexsort((behind[order], log.user_codes[order]))]
        self.order = order
        self.items = log.item_codes[order]
        self.users = log.user_codes[order]
        self.lengths = np.bincount(log.user_codes, minlength=log.num_users)
        self.ends = np.cumsum(self.lengths)
        self.starts = self.ends - self.lengths

    def split(
        self,
        in_validation: Flags,
        in_test: Flags,
        protocol: str,
        counts: dict[str, int | float],
        *,
        first_target_only: bool = False,
    ) -> Split:
        """Cut by flags over the ordered rows."""
        before_test = ~in_test
        train = before_test & ~in_validation
        if not train.any():
            raise DataError(
                f"{self.log.source}: nothing is left to train on after holding out validation and "
                f"test events of {self.log.num_users} users; give a longer log"
            )
        validation, validation_counts = self._held_out(in_validation, train, first_target_only)
        test, test_counts = self._held_out(in_test, before_test, first_target_only)
        for part, name in ((validation, "validation"), (test, "test")):
            if len(part) == 0:
                raise DataError(
                    f"{self.log.source}: no user can be judged in the {name} part "
                    f"({protocol}); give a log with longer histories"
                )
        all_counts: dict[str, int | float] = {
            "events": len(self.log),
            "users": int((self.lengths > 0).sum()),
            "items": len(np.unique(self.items)),
            "training_events": int(train.sum()),
            "validation_users": len(validation),
            "test_users": len(test),
            **counts,
            **self._ties(),
            **{f"validation_{name}": value for name, value in validation_counts.items()},
            **{f"test_{name}": value for name, value in test_counts.items()},
        }
        return Split(
            self.log,
            self._rows(train),
            self._rows(before_test),
            validation,
            test,
            protocol,
            all_counts,
        )

    def _rows(self, flags: Flags) -> InteractionLog:
        keep = np.zeros(len(self.log), dtype=bool)
        keep[self.order[flags]] = True
        return self.log.take(keep)

    def _held_out(
        self, targets: Flags, before: Flags, first_only: bool
    ) -> tuple[HeldOut, dict[str, int | float]]:
        num_users = self.log.num_users
        num_before = np.bincount(self.users[before], minlength=num_users)
        num_targets = np.bincount(self.users[targets], minlength=num_users)
        # Who has no history yet gets the first held-out event as one.
        late = (num_before == 0) & (num_targets > 0)
        first_target = _first_of_each(self.users, targets, num_users)
        history, chosen = before.copy(), targets.copy()
        history[first_target[late]] = True
        chosen[first_target[late]] = False
        if first_only:
            chosen[:] = False
            judged = np.where(late, num_targets >= 2, num_targets > 0)
            chosen[(first_target + late)[judged]] = True
        else:
            judged = num_targets > late
        chosen = self._without_repeats(chosen)
        users = np.flatnonzero(judged)
        rows_judged = judged[self.users]
        held_out = HeldOut(
            users.astype(np.int32),
            self._lists(history & rows_judged, users),
            self._lists(chosen & rows_judged, users),
        )
        return held_out, {
            "new_users": int(late.sum()),
            "new_users_judged": int((late & judged).sum()),
            "tie_dependent_share": self._tie_dependent(chosen & rows_judged, users),
        }

    def _without_repeats(self, flags: Flags) -> Flags:
        """Keep the first of a user's flagged events with the same item: targets are a set."""
        rows = np.flatnonzero(flags)
        pairs = self.users[rows] * np.int64(self.log.num_items) + self.items[rows]
        kept = np.zeros(len(flags), dtype=bool)
        kept[rows[np.unique(pairs, return_index=True)[1]]] = True
        return kept

    def _lists(self, flags: Flags, users: npt.NDArray[np.int64]) -> Ragged:
        lengths = np.bincount(self.users[flags], minlength=self.log.num_users)[users]
        return Ragged.from_lengths(self.items[flags], lengths)

    def _same_time_as_previous(self) -> Flags:
        same = np.zeros(len(self.log), dtype=bool)
        if self.log.timestamps is not None:
            times = self.log.timestamps[self.order]
            same[1:] = (times[1:] == times[:-1]) & (self.users[1:] == self.users[:-1])
        return same

    def _ties(self) -> dict[str, int | float]:
        same = self._same_time_as_previous()
        last_tied = same[self.ends[self.lengths > 0] - 1]
        return {
            "tied_events": int(same.sum()),
            "last_item_tie_dependent_share": float(last_tied.mean()),
        }

    def _tie_dependent(self, targets: Flags, users: npt.NDArray[np.int64]) -> float:
        """Share of judged users whose first target would be another under another row order."""
        if len(users) == 0:
            return 0.0
        same = self._same_time_as_previous()
        first = _first_of_each(self.users, targets, self.log.num_users)[users]
        following = np.minimum(first + 1, len(same) - 1)
        after = same[following] & (following > first)
        return float((same[first] | after).mean())


def _first_of_each(
    users: npt.NDArray[np.int32], flags: Flags, num_users: int
) -> npt.NDArray[np.int64]:
    """(num_users,) first flagged row of each user (0 where there is none)."""
    rows = np.flatnonzero(flags)
    first = np.zeros(num_users, dtype=np.int64)
    first[users[rows][::-1]] = rows[::-1]
    return first


def _events(count: int) -> str:
    return "event" if count == 1 else f"{count} events"
