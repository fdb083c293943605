"""Metrics as pure functions of ranks.

Ranks are 1-based places of a user's targets in the full list of items; `MISSED` where a target is
not in the list. Every function takes one list of ranks per user and returns one number per user;
with R the ranks of a user's n targets and [·] = 1 where true:

=================  ==============================================================================
hit_rate@k         [min R ≤ k]
recall@k           (1/n) Σ_r [r ≤ k]
precision@k        (1/k) Σ_r [r ≤ k]
ndcg@k             Σ_r [r ≤ k] / log₂(1 + r)  over  Σ_{j=1}^{min(n, k)} 1 / log₂(1 + j)
map@k              (1/min(n, k)) Σ_{j: r_j ≤ k} j / r_j,  r_1 < r_2 < … the ranks in order
mrr                1 / min R, over the whole catalogue;  mrr@k: 0 where min R > k
=================  ==============================================================================

With a single target recall = hit rate, and map@k = mrr@k.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from attrec.config import MOST
from attrec.data.ragged import Ragged
from attrec.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
MISSED = np.iinfo(np.int64).max
"""Rank of a target that is not in the list at all."""

PerUser = Callable[[Ragged, int], FloatArray]


def hit_rate(ranks: Ragged, k: int) -> FloatArray:
    """(n,) 1 where a target is among the first ``k``.

    Examples
    --------
    >>> hit_rate(Ragged.from_lists([[3], [11, 2], [MISSED]], dtype=np.int64), 10).tolist()
    [1.0, 1.0, 0.0]
    """
    return (_sum(ranks, ranks.values <= k) > 0).astype(np.float64)


def recall(ranks: Ragged, k: int) -> FloatArray:
    """(n,) share of a user's targets among the first ``k``.

    Examples
    --------
    >>> recall(Ragged.from_lists([[11, 2]], dtype=np.int64), 10).tolist()
    [0.5]
    """
    return _sum(ranks, ranks.values <= k) / ranks.lengths


def precision(ranks: Ragged, k: int) -> FloatArray:
    """(n,) share of the first ``k`` that are targets.

    Examples
    --------
    >>> precision(Ragged.from_lists([[11, 2]], dtype=np.int64), 10).tolist()
    [0.1]
    """
    return _sum(ranks, ranks.values <= k) / k


def ndcg(ranks: Ragged, k: int) -> FloatArray:
    """(n,) discounted gain of the targets among the first ``k``, over the best there could be.

    Examples
    --------
    >>> ndcg(Ragged.from_lists([[1], [3], [4]], dtype=np.int64), 3).tolist()
    [1.0, 0.5, 0.0]
    """
    within = ranks.values <= k
    gain = np.where(within, 1.0 / np.log2(1.0 + np.where(within, ranks.values, 1)), 0.0)
    full = np.minimum(ranks.lengths, k)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2.0, full.max(initial=0) + 2.0)))
    return np.asarray(_sum(ranks, gain) / ideal[full - 1])


def average_precision(ranks: Ragged, k: int) -> FloatArray:
    """(n,) mean precision at the targets among the first ``k``; over users it is map@k.

    Examples
    --------
    >>> average_precision(Ragged.from_lists([[4, 1]], dtype=np.int64), 5).tolist()
    [0.75]
    """
    rows = ranks.row_of_value
    order = np.lexsort((ranks.values, rows))
    ascending = ranks.values[order]
    nth = np.arange(len(rows)) - ranks.offsets[:-1][rows] + 1
    within = ascending <= k
    gain = np.where(within, nth / np.where(within, ascending, 1), 0.0)
    return _sum(ranks, gain) / np.minimum(ranks.lengths, k)


def mrr(ranks: Ragged, k: int = 0) -> FloatArray:
    """(n,) one over the place of the first target; 0 beyond ``k``, where ``k`` is above 0.

    Examples
    --------
    >>> mrr(Ragged.from_lists([[4, 2], [MISSED]], dtype=np.int64)).tolist()
    [0.5, 0.0]
    """
    first = np.minimum.reduceat(ranks.values, ranks.offsets[:-1])
    counted = first <= k if k > 0 else first < MISSED
    return np.where(counted, 1.0 / np.where(counted, first, 1), 0.0)


METRICS: dict[str, PerUser] = {
    "hit_rate": hit_rate,
    "ndcg": ndcg,
    "mrr": mrr,
    "recall": recall,
    "precision": precision,
    "map": average_precision,
}


def metric_names(cutoffs: tuple[int, ...]) -> list[str]:
    """List every metric at every cut-off, and mrr without one.

    Examples
    --------
    >>> metric_names((10,))[:3]
    ['hit_rate@10', 'ndcg@10', 'mrr@10']
    """
    return [f"{name}@{k}" for k in cutoffs for name in METRICS] + ["mrr"]


def per_user(name: str, ranks: Ragged) -> FloatArray:
    """Compute a metric by its name, such as ``ndcg@10`` or ``mrr``.

    Raises
    ------
    ConfigError
        There is no such metric.
    """
    base, _, cutoff = name.partition("@")
    if base not in METRICS or not (_is_cutoff(cutoff) if cutoff else name == "mrr"):
        known = ", ".join([*(f"{known}@k" for known in METRICS), "mrr"])
        raise ConfigError(
            f"no metric {name!r}; known: {known}, with k a whole number from 1 to {MOST}"
        )
    return METRICS[base](ranks, int(cutoff or 0))


def _is_cutoff(text: str) -> bool:
    digits = text.lstrip("0")  # and no more of them than the limit has: int refuses thousands
    return text.isascii() and text.isdecimal() and 0 < len(digits) <= 10 and int(digits) <= MOST


def coverage(top_items: npt.NDArray[np.integer], k: int, num_items: int) -> float:
    """Return the share of the catalogue that is in any user's first ``k``.

    Parameters
    ----------
    top_items : (n, K) integer
        Each user's list, -1 where it is shorter; K ≥ k, or no list is longer.
    """
    shown = top_items[:, :k]
    return float(len(np.unique(shown[shown >= 0])) / num_items)


def novelty(
    top_items: npt.NDArray[np.integer], k: int, item_counts: npt.NDArray[np.integer]
) -> float:
    """Return the mean of −log₂ p over all recommended items: how far from the popular they are.

    p is an item's share of the training events; one event is added to each item so that p > 0.
    """
    shown = top_items[:, :k]
    smoothed = item_counts + 1.0
    surprise = -np.log2(smoothed / smoothed.sum())
    return float(surprise[shown[shown >= 0]].mean()) if (shown >= 0).any() else 0.0


def _sum(ranks: Ragged, values: npt.NDArray[np.generic]) -> FloatArray:
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.asarray(np.diff(total[ranks.offsets]))
