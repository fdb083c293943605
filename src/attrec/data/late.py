"""Events of items that came after the training, and what stood before each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences

EVENTS_OF_AN_ITEM = 100
"""The newest are read."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LateEvents:
    """Events of new items with something before them, by item, the newest of each.

    They are all that says anything of such an item.

    Attributes
    ----------
    items : (E,) int64
        From 0.
    users : (E,) int64
    before : Ragged of E lists
        The trained items of the history before, the newest L.
    known : Ragged of M lists
        All histories, without the new items.
    """

    items: Ints
    users: Ints
    before: Ragged
    known: Ragged


def late_events(sequences: Sequences, trained: int, length: int) -> LateEvents:
    """Find what is known of the items behind the first ``trained`` ones.

    Parameters
    ----------
    sequences : Sequences
    trained : int
        Number of items that the training knew.
    length : int
        L, how much of the history before an event is read.
    """
    histories = sequences.histories
    old = histories.values < trained
    known = histories.where(old)
    old_before = np.concatenate([[0], np.cumsum(old)])
    places = np.flatnonzero(~old)
    users, items = histories.row_of_value[places], histories.values[places].astype(np.int64)
    # The newest events of an item come first, and only so many of them are read.
    when = places if sequences.times is None else sequences.times[places]
    order = np.lexsort((-when, items))
    starts, stops = known.offsets[users], old_before[places]
    order = order[(stops > starts)[order]]
    number = np.arange(len(order)) - np.searchsorted(items[order], items[order])
    chosen = order[number < EVENTS_OF_AN_ITEM]
    starts, stops = np.maximum(starts, stops - length)[chosen], stops[chosen]
    lengths = stops - starts
    places = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
    before = Ragged.from_lengths(known.values[places], lengths)
    return LateEvents(items[chosen] - trained, users[chosen], before, known)
