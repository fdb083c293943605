"""What is taken out of a log before it is split, each step counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from attrec.config import DataConfig
from attrec.data.interactions import CleaningStep, InteractionLog
from attrec.data.sorting import stable_order
from attrec.errors import DataError

_Mask = npt.NDArray[np.bool_]


def clean(log: InteractionLog, config: DataConfig) -> InteractionLog:
    """Drop exact duplicates, merge repeats, cut to the k-core: as ``config`` says, in that order.

    Parameters
    ----------
    log : InteractionLog
    config : DataConfig
        ``duplicates``, ``repeats``, ``min_user_events``, ``min_item_events``.

    Returns
    -------
    InteractionLog
        With id tables of what is left, and one more `CleaningStep` for each step that ran.

    Raises
    ------
    DataError
        Nothing is left.
    """
    if config.duplicates == "drop" and log.timestamps is not None:
        kept = _first_of_each(log, log.timestamps)
        log = _step(log, "exact duplicates (same user, item and time)", kept)
    if config.repeats != "keep":
        kept = _merged(log, config.repeats)
        log = _step(log, f"repeats of an item by its user (the {config.repeats} is kept)", kept)
    if config.min_user_events > 1 or config.min_item_events > 1:
        least = (config.min_user_events, config.min_item_events)
        what = "k-core: users below {} events, items below {}, repeated until none is left"
        log = _step(log, what.format(*least), _core(log, *least))
        if len(log) == 0:
            raise DataError(
                f"{log.source}: no event is left when every user must have {least[0]} events and "
                f"every item {least[1]}; lower min_user_events or min_item_events"
            )
    return without_unused_ids(log)


def without_unused_ids(log: InteractionLog) -> InteractionLog:
    """Return the log over only the users and items that have events."""
    user_ids, user_codes = _used(log.user_ids, log.user_codes)
    item_ids, item_codes = _used(log.item_ids, log.item_codes)
    return replace(
        log, user_ids=user_ids, user_codes=user_codes, item_ids=item_ids, item_codes=item_codes
    )


def _step(log: InteractionLog, what: str, kept: _Mask) -> InteractionLog:
    left = int(kept.sum())
    taken = CleaningStep(what, len(log) - left, left)
    return replace(log if left == len(log) else log.take(kept), steps=(*log.steps, taken))


def _pairs(log: InteractionLog) -> npt.NDArray[np.int64]:
    """(E,) int64: one number for each pair of user and item."""
    return log.user_codes.astype(np.int64) * max(log.num_items, 1) + log.item_codes


def _first_of_each(log: InteractionLog, times: npt.NDArray[np.float64]) -> _Mask:
    """(E,) flags: the first row of each distinct (user, item, time)."""
    pairs = _pairs(log)
    # Two events can be the same only where their pairs are: most logs have few such pairs.
    order = stable_order(pairs)
    same = pairs[order[1:]] == pairs[order[:-1]]
    repeated = np.zeros(len(pairs), dtype=bool)
    repeated[1:] |= same
    repeated[:-1] |= same
    rows = order[repeated]
    rows = rows[np.lexsort((rows, times[rows], pairs[rows]))]
    before, after = rows[:-1], rows[1:]
    kept = np.ones(len(pairs), dtype=bool)
    kept[after[(pairs[after] == pairs[before]) & (times[after] == times[before])]] = False
    return kept


def _merged(log: InteractionLog, which: str) -> _Mask:
    """(E,) flags: the first or the last event of each pair of user and item, in time."""
    order = log.time_order()
    if which == "last":
        order = order[::-1]
    kept = np.zeros(len(log), dtype=bool)
    _, first = np.unique(_pairs(log)[order], return_index=True)
    kept[order[first]] = True
    return kept


def _core(log: InteractionLog, least_user: int, least_item: int) -> _Mask:
    """(E,) flags: the largest part in which every user and every item has enough events."""
    kept = np.ones(len(log), dtype=bool)
    users, items = log.user_codes, log.item_codes
    while True:
        enough = (np.bincount(users, minlength=log.num_users) >= least_user)[users]
        enough &= (np.bincount(items, minlength=log.num_items) >= least_item)[items]
        if enough.all():
            return kept
        kept[kept] = enough
        users, items = users[enough], items[enough]


def _used(ids: npt.NDArray[Any], codes: npt.NDArray[np.int32]) -> tuple[Any, Any]:
    used = np.bincount(codes, minlength=len(ids)) > 0
    if used.all():
        return ids, codes
    renumber = np.cumsum(used, dtype=np.int32) - 1
    return ids[used], renumber[codes].astype(np.int32)
