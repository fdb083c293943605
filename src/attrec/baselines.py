"""The floor that every report shows: popularity, recent popularity, first-order Markov.

Each is a scorer like any other. Their counts tie often; they break ties themselves, by popularity
and then item order, so their distances are strict orders that no tie rule touches.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from attrec.data.cases import Cases
from attrec.data.interactions import InteractionLog
from attrec.data.sequences import Sequences, last_items
from attrec.data.vocabulary import UNKNOWN, Vocabulary

RECENT_SHARE = 0.1
"""Share of the training events, the latest, that recent popularity counts."""

IntArray = npt.NDArray[np.int64]


def item_counts(log: InteractionLog, vocabulary: Vocabulary) -> IntArray:
    """(N,) int64: training events of each item."""
    items = vocabulary.encode_items(log.item_ids)[log.item_codes]
    return np.bincount(items[items != UNKNOWN], minlength=vocabulary.num_items)


def recent_item_counts(
    log: InteractionLog, vocabulary: Vocabulary, share: float = RECENT_SHARE
) -> IntArray:
    """(N,) int64: events of each item among the latest ``share`` of ``log``.

    A log without times has no latest events for everybody; there each user's latest ``share`` is
    counted, at least one event.
    """
    if log.timestamps is not None:
        order = np.argsort(log.timestamps, kind="stable")
        return item_counts(log.take(order[-max(1, round(len(log) * share)) :]), vocabulary)
    order = log.time_order()
    users = log.user_codes[order]
    lengths = np.bincount(users, minlength=log.num_users)
    from_end = np.cumsum(lengths)[users] - np.arange(len(order))
    keep = from_end <= np.maximum(1, np.round(lengths * share))[users]
    return item_counts(log.take(order[keep]), vocabulary)


class Popularity:
    """The same list for everybody: items by falling count, ties by ``fallback``, then item order.

    Parameters
    ----------
    counts : (N,) int64
        Events of each item; recent popularity is this with recent counts.
    fallback : (N,) int64, optional
        Second key, such as the counts of all events.
    """

    def __init__(self, counts: IntArray, fallback: IntArray | None = None) -> None:
        second = counts if fallback is None else fallback
        order = np.lexsort((-second, -counts))
        places = np.empty(len(counts), dtype=np.float32)
        places[order] = np.arange(len(counts))
        self.places = torch.from_numpy(places)

    def __call__(self, cases: Cases) -> torch.Tensor:
        """(B, N): the place of each item in the one list."""
        return self.places.expand(len(cases), -1)


class Markov:
    """First-order Markov chain: items by how often they directly followed the last item.

    What never followed it comes behind, by popularity.

    Parameters
    ----------
    sequences : Sequences
        Training histories.
    counts : (N,) int64
        Training events of each item.
    """

    def __init__(self, sequences: Sequences, counts: IntArray) -> None:
        num_items = len(counts)
        values = sequences.histories.values.astype(np.int64)
        follows = np.ones(len(values), dtype=bool)
        follows[sequences.histories.offsets[:-1][sequences.histories.lengths > 0]] = False
        after = np.flatnonzero(follows)
        pairs, times = np.unique(values[after - 1] * num_items + values[after], return_counts=True)
        self.starts = np.searchsorted(pairs // num_items, np.arange(num_items + 1))
        self.items = pairs % num_items
        self.times = times
        self.popular = Popularity(counts)

    def __call__(self, cases: Cases) -> torch.Tensor:
        """(B, N): places in the list; the followers' come before all others."""
        distances = self.popular(cases).clone()
        last = last_items(cases.histories, 1)[:, 0]
        for row, item in enumerate(last):
            if item >= 0:
                followers = slice(self.starts[item], self.starts[item + 1])
                items, times = self.items[followers], self.times[followers]
                order = np.lexsort((self.popular.places.numpy()[items], -times))
                ahead = np.arange(len(items), dtype=np.float32) - len(items)
                distances[row, torch.from_numpy(items[order])] = torch.from_numpy(ahead)
        return distances
