"""New events put into histories where their time says, each once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attrec.config import Repeats
from attrec.data.interactions import InteractionLog, concatenate
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.data.sorting import stable_order
from attrec.data.vocabulary import Vocabulary
from attrec.errors import DataError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Merged:
    """Histories with new events in them.

    Attributes
    ----------
    sequences : Sequences
    is_new : (E,) bool
        Which of its events came in.
    known : int
        Events that were there before, and did not come in again.
    late : int
        Events that came in before a later event of their user.
    """

    sequences: Sequences
    is_new: npt.NDArray[np.bool_]
    known: int
    late: int


def merge_events(
    sequences: Sequences, log: InteractionLog, vocabulary: Vocabulary, repeats: Repeats = "keep"
) -> Merged:
    """Put the events of ``log`` into histories.

    An event equal in user, item and time to one that is there is that event: it does not come in
    again (of several equal ones, as many are left out as are there). Without times nobody can tell
    an event from its repetition, and all of ``log`` goes behind what is there; unless everybody's
    events begin with what is there, as in a whole log that has grown: then only the rest comes in.

    Parameters
    ----------
    sequences : Sequences
        Of the first users of the vocabulary.
    log : InteractionLog
    vocabulary : Vocabulary
        Has all users and items of both.
    repeats : {"keep", "first", "last"}
        Of an item that its user has already, as the log was cleaned.

    Raises
    ------
    DataError
        Only one of the two has times.
    """
    check_times(sequences, log)
    order = log.time_order()
    users = vocabulary.encode_users(log.user_ids)[log.user_codes[order]]
    items = vocabulary.encode_items(log.item_ids)[log.item_codes[order]]
    old = sequences.histories
    users = np.concatenate([old.row_of_value, users])
    items = np.concatenate([old.values.astype(np.int64), items])
    is_new = np.arange(len(users)) >= len(old.values)
    times = None
    if log.timestamps is not None:
        before = sequences.times if sequences.times is not None else np.zeros(0)
        times = np.concatenate([before, log.timestamps[order]])
        kept = ~repeated(users, items, times, is_new)
        times = times[kept]
    else:
        kept = ~_beginning(old, users, items, is_new)
    users, items, is_new = users[kept], items[kept], is_new[kept]
    known = len(log) - int(is_new.sum())
    order = stable_order(users) if times is None else _by_user_and_time(users, times)
    users, items, is_new = users[order], items[order], is_new[order]
    times = None if times is None else times[order]
    if repeats != "keep":
        kept = _first_or_last(users, items, vocabulary.num_items, repeats)
        known += int((is_new & ~kept).sum())
        users, items, is_new = users[kept], items[kept], is_new[kept]
        times = None if times is None else times[kept]
    lengths = np.bincount(users, minlength=vocabulary.num_users)
    merged = Sequences(Ragged.from_lengths(items.astype(np.int32), lengths), times)
    return Merged(merged, is_new, known, _late(users, is_new))


def check_times(sequences: Sequences, log: InteractionLog) -> None:
    """Raise unless both have times or neither has.

    Raises
    ------
    DataError
    """
    if sequences.num_events and (sequences.times is None) != (log.timestamps is None):
        which = "no times" if log.timestamps is None else "times"
        raise DataError(
            f"{log.source}: has {which}, and the model's events have "
            f"{'none' if which == 'times' else 'times'}; give the events as the model was trained "
            "on them, or train it again"
        )


def with_missing(log: InteractionLog, more: InteractionLog) -> InteractionLog:
    """Append the events of ``more`` that ``log`` lacks, told by their times as in `merge_events`.

    Without times only an equal log is recognised, and all of any other is appended.

    Raises
    ------
    DataError
        The two do not fit; see `attrec.data.interactions.concatenate`.

    Examples
    --------
    >>> log = InteractionLog.from_columns(["a", "b"], [7, 7], [1, 2])
    >>> more = InteractionLog.from_columns(["b", "c"], [7, 7], [2, 2])
    >>> both = with_missing(log, more)
    >>> both.user_ids[both.user_codes].tolist()
    ['a', 'b', 'c']
    """
    if len(more) == 0 or (more.timestamps is None and more.fingerprint() == log.fingerprint()):
        return log
    if len(log) == 0:
        return more
    both = concatenate(log, more)
    if both.timestamps is None:
        return both
    is_more = np.arange(len(both)) >= len(log)
    return both.take(~repeated(both.user_codes, both.item_codes, both.timestamps, is_more))


def repeated(
    users: npt.NDArray[np.integer],
    items: npt.NDArray[np.integer],
    times: npt.NDArray[np.float64],
    is_new: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """(E,) flags: new events of which an equal old one is there, each old one counted once."""
    order = np.lexsort((is_new, times, items, users))  # of equal events the old ones come first
    same = np.zeros(len(order), dtype=bool)
    a, b = order[1:], order[:-1]
    same[1:] = (users[a] == users[b]) & (items[a] == items[b]) & (times[a] == times[b])
    group = np.cumsum(~same) - 1
    fresh = is_new[order]
    old = np.bincount(group, weights=~fresh).astype(np.int64)
    # Which one of its group's new events each is, from 0.
    number = np.cumsum(fresh) - 1
    first = np.zeros(len(old), dtype=np.int64)
    starts = np.flatnonzero(~same)
    first[:] = np.cumsum(fresh)[starts] - fresh[starts]
    result = np.zeros(len(order), dtype=bool)
    result[order] = fresh & (number - first[group] < old[group])
    return result


def _beginning(
    old: Ragged, users: Ints, items: Ints, is_new: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """(E,) flags: new events that say once more what is there, for everybody from the first on."""
    result = np.zeros(len(users), dtype=bool)
    fresh = np.flatnonzero(is_new)
    fresh = fresh[stable_order(users[fresh])]
    their = users[fresh]
    number = np.arange(len(their)) - np.searchsorted(their, their)
    there = np.zeros(int(users.max(initial=-1)) + 1, dtype=np.int64)
    there[: len(old)] = old.lengths[: len(there)]
    begins = fresh[number < there[their]]
    if len(begins) == len(old.values) and np.array_equal(items[begins], old.values):
        result[begins] = True
    return result


def _by_user_and_time(users: Ints, times: npt.NDArray[np.float64]) -> Ints:
    by_time = stable_order(times)
    return by_time[stable_order(users[by_time])]


def _first_or_last(users: Ints, items: Ints, num_items: int, which: str) -> npt.NDArray[np.bool_]:
    pairs = users * max(1, num_items) + items
    order = np.arange(len(pairs)) if which == "first" else np.arange(len(pairs))[::-1]
    kept = np.zeros(len(pairs), dtype=bool)
    kept[order[np.unique(pairs[order], return_index=True)[1]]] = True
    return kept


def _late(users: Ints, is_new: npt.NDArray[np.bool_]) -> int:
    """Count new events with an old one of the same user behind them."""
    if len(users) == 0:
        return 0
    last_old = np.full(int(users.max()) + 1, -1, dtype=np.int64)
    place = np.arange(len(users))
    np.maximum.at(last_old, users[~is_new], place[~is_new])
    return int((is_new & (place < last_old[users])).sum())
