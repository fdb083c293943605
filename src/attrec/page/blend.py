"""The slider: a list that is re-ranked live and exactly, from a handful of numbers per item.

Between two ends a distance is a straight line in the weight w,

    y_i(w) = w a_i + (1 − w) b_i,   0 ≤ w ≤ 1.

Of the paper's network a_i = ‖U_u − V_i‖², b_i = ‖m − X_i‖², and w is ω of (10). The additive
network has no ω; its slider weighs two users q and q′ against each other, a_i = ‖q′ − k_i‖² and
b_i = ‖q − k_i‖², as one would recommend to both together. Offsets of the distances are within: they
are a coordinate of the keys, see `item_keys`.

Which items can stand among the first k for *some* w? Item j comes before item i for every w where
a_j < a_i and b_j < b_i. So an item before which k others come at both ends is never among the first
k, and the page does without it; what is left, some dozens of items, gives the same lists as the
whole catalogue does.

Neither list holds what a user of the example took, nor an item that came after the training and of
which nothing is known.

The recommender ranks by keys that are rounded to float32, which moves a distance by at most
2u ‖q − k‖ ‖k‖ ≤ 2u (‖q‖ + ‖k‖)², u = 2⁻²⁴, to first order, and two distances apart by twice as
much. In between, (‖q‖ + ‖k‖)² is at most twice what it is at the worse end. So 8u times that is
enough: an item is left out only if k others undercut it by 16u times that, and the recommender's
lists, too, are made of the items that are left.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.data.ragged import Ragged
from attrec.model.additive import AdditiveNetwork
from attrec.model.network import AttRecNetwork
from attrec.recommender import Recommender
from attrec.retrieval.index import ExactIndex
from attrec.retrieval.vectors import bare_queries, item_keys, long_term_width, query_vectors

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

STEPS = 100
"""Of the slider."""
_SLACK = 2.0**-20
"""16u: times (‖q‖ + ‖k‖)² it is twice what rounding can move two distances apart."""
_FILTERS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)
"""Weights whose first k items sort most of a catalogue out at once."""
_ROWS_AT_ONCE = 2048
_CHECKED_WHOLE = 50_000
"""Items up to which every place of the slider is checked; above it every quarter."""


@dataclass(frozen=True, eq=False)
class Blend:
    """One example: the items that can be listed, and their distances at both ends.

    Attributes
    ----------
    users : tuple of int
        Indices of the one or two users.
    items : (c,) int64
        Item indices, ascending.
    first, second : (c,) float64
        a and b.
    k : int
        Length of the list.
    """

    users: tuple[int, ...]
    items: Indices
    first: Floats
    second: Floats
    k: int

    def listed(self, weight: float) -> Indices:
        """Return the item indices at a weight, nearest first; ties go to the lower index."""
        distances = weight * self.first + (1.0 - weight) * self.second
        return self.items[np.argsort(distances, kind="stable")[: self.k]]


def can_be_listed(first: Floats, second: Floats, k: int, slack: float = 0.0) -> npt.NDArray[Any]:
    """Tell which items can be among the first ``k`` for some weight, given both distances.

    Left out is an item that ``k`` others undercut by more than ``slack`` at both ends.

    Parameters
    ----------
    first, second : (N,) float64
    k : int, ≥ 1
    slack : float, ≥ 0

    Returns
    -------
    (N,) bool

    Examples
    --------
    >>> can_be_listed(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 3.5]), 1).tolist()
    [True, True, False]
    """
    hopeful = np.ones(len(first), dtype=bool)
    if len(first) > k:
        for weight in _FILTERS:
            at = np.argpartition(weight * first + (1.0 - weight) * second, k - 1)[:k]
            beaten = (first > first[at].max() + slack) & (second > second[at].max() + slack)
            hopeful &= ~beaten
    rows = np.flatnonzero(hopeful)
    order = rows[np.argsort(first[rows], kind="stable")]
    kept = np.zeros(len(first), dtype=bool)
    nearest: list[float] = []  # the k smallest second distances of items already passed, negated
    passed = 0
    for item in order.tolist():
        while first[order[passed]] < first[item] - slack:
            heapq.heappush(nearest, -float(second[order[passed]]))
            if len(nearest) > k:
                heapq.heappop(nearest)
            passed += 1
        kept[item] = len(nearest) < k or second[item] <= -nearest[0] + slack
    return kept


def blends_of(recommender: Recommender, users: Sequence[int], k: int = 10) -> list[Blend]:
    """Make the examples of some users: each alone under ω, or two by two.

    Parameters
    ----------
    recommender : Recommender
    users : sequence of int
        User indices.
    k : int
        Length of the lists; they are shorter where fewer items are left.
    """
    network = recommender.network
    half = len(users) // 2
    if isinstance(network, AttRecNetwork):
        groups: list[tuple[int, ...]] = [(user,) for user in users]
    else:
        groups = list(zip(users[:half], users[half:], strict=False))
    if not groups:
        return []
    if isinstance(network, AttRecNetwork):
        first, second, size = _of_weight(recommender, network, np.array(groups)[:, 0])
    else:
        first, second, size = _of_pairs(recommender, network, np.array(groups))
    return [
        _pruned(recommender, group, a, b, size, k)
        for group, a, b in zip(groups, first, second, strict=True)
    ]


def disagreements(recommender: Recommender, blends: Sequence[Blend]) -> tuple[int, int]:
    """Compare the examples' lists with those that the recommender answers with.

    Returns
    -------
    wrong, compared : int
        Lists that differ, and lists compared. They can differ only where two distances agree to
        within the rounding of the keys.
    """
    places = np.arange(
        0, STEPS + 1, 1 if recommender.network.num_items <= _CHECKED_WHOLE else STEPS // 4
    )
    wrong = compared = 0
    for weight, answers in _answers(recommender, blends, (places / STEPS).tolist()):
        compared += len(blends)
        wrong += sum(
            not np.array_equal(answer[: blend.k], blend.listed(weight))
            for blend, answer in zip(blends, answers, strict=True)
        )
    return wrong, compared


@torch.no_grad()
def _of_weight(
    recommender: Recommender, network: AttRecNetwork, users: Indices
) -> tuple[Floats, Floats, float]:
    """Return a and b of every user and item, (n, N), and the largest ‖q‖ + ‖k‖."""
    histories = recommender.histories.histories.take(users)
    queries, width = bare_queries(network, users, histories), long_term_width(network)
    first, first_size = _distances(network.item_long, queries[:, :width])
    second, second_size = _distances(network.item_short, queries[:, width:])
    return first, second, max(first_size, second_size)


@torch.no_grad()
def _of_pairs(
    recommender: Recommender, network: AdditiveNetwork, pairs: Indices
) -> tuple[Floats, Floats, float]:
    """Return the same of pairs of users (n, 2)."""
    histories = recommender.histories.histories.take(pairs.ravel())
    queries = query_vectors(network, pairs.ravel(), histories)
    found, size = _distances(item_keys(network, torch.float64), queries)
    return found[1::2], found[0::2], size


def _pruned(
    recommender: Recommender,
    users: tuple[int, ...],
    first: Floats,
    second: Floats,
    size: float,
    k: int,
) -> Blend:
    free = np.ones(len(first), dtype=bool)
    free[_seen(recommender, users)] = False
    free[recommender.network.unplaced.cpu().numpy()] = False
    items = np.flatnonzero(free)
    k = min(k, len(items))
    if k:
        items = items[can_be_listed(first[items], second[items], k, _SLACK * size**2)]
    return Blend(users, items, first[items], second[items], k)


def _distances(table: torch.Tensor, queries: torch.Tensor) -> tuple[Floats, float]:
    """Return ‖query − row‖² (n, N) in float64, and the largest ‖query‖ + ‖row‖."""
    found, longest = np.empty((len(queries), len(table))), 0.0
    for start in range(0, len(table), _ROWS_AT_ONCE):
        rows = table[start : start + _ROWS_AT_ONCE].double()
        for query, row in zip(queries, found, strict=True):
            row[start : start + len(rows)] = (rows - query).square().sum(dim=1).cpu().numpy()
        longest = max(longest, float(rows.square().sum(dim=1).max()))
    return found, float(queries.norm(dim=1).max()) + longest**0.5


def _answers(
    recommender: Recommender, blends: Sequence[Blend], weights: Sequence[float]
) -> Iterator[tuple[float, Sequence[npt.NDArray[np.integer[Any]]]]]:
    """Yield each weight, and the item indices of the recommender's list for each example."""
    network, vocabulary = recommender.network, recommender.vocabulary
    users, most = np.array([blend.users for blend in blends]), max(blend.k for blend in blends)
    if isinstance(network, AttRecNetwork):
        names = vocabulary.decode_users(users[:, 0])
        for weight in weights:
            table = recommender.recommend_batch(names, k=most, long_term_weight=weight)
            items = vocabulary.encode_items(table.item_id)
            yield weight, [items[table.user_id == name] for name in names]
        return
    # What `recommend_group` does, for all examples at once; but what either user took is left out
    # at the ends, too.
    index, histories = ExactIndex(item_keys(network)), recommender.histories.histories
    near, far = (
        query_vectors(network, users[:, end], histories.take(users[:, end])) for end in (0, 1)
    )
    seen = Ragged.from_lists([_seen(recommender, blend.users).tolist() for blend in blends])
    unplaced = network.unplaced.cpu().numpy()
    for weight in weights:
        # w ‖q′ − k‖² + (1 − w) ‖q − k‖² = ‖w q′ + (1 − w) q − k‖² and what k does not change.
        queries = weight * far + (1.0 - weight) * near
        yield weight, list(index.search(queries, most, exclude=seen, deny=unplaced).indices)


def _seen(recommender: Recommender, users: Sequence[int]) -> Indices:
    histories = recommender.histories.histories
    return np.unique(np.concatenate([histories[user] for user in users])).astype(np.int64)
