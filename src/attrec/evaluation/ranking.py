"""Where each target stands among all items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from attrec.config import Ties
from attrec.data.cases import Cases
from attrec.data.ragged import Ragged
from attrec.errors import DataError
from attrec.evaluation.metrics import MISSED

Scorer = Callable[[Cases], torch.Tensor]
"""Gives (B, N) distances for B cases; smaller is better. Every system is judged through it."""

BLOCK_BYTES = 64 << 20
"""Memory of one block of distances."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Where the targets stand, and who stands first.

    Parameters
    ----------
    ranks : Ragged of int64
        Aligned with the cases' targets: 1-based, `MISSED` for a target that the vocabulary lacks or
        the seen-filter removes.
    top_items : (n, K) int32
        The K nearest items of each case, nearest first; -1 where fewer are left.
    """

    ranks: Ragged
    top_items: npt.NDArray[np.int32]


def rank_targets(
    scorer: Scorer,
    cases: Cases,
    num_items: int,
    *,
    filter_seen: bool = True,
    ties: Ties = "pessimistic",
    top_k: int = 0,
    block_bytes: int = BLOCK_BYTES,
) -> Ranking:
    """Rank every target in the full catalogue.

    Parameters
    ----------
    scorer : callable
    cases : Cases
    num_items : int
        N.
    filter_seen : bool
        Leave the items of each case's history out of its list; a target among them is missed.
    ties : {"pessimistic", "optimistic", "item-order"}
        Where a target stands among items of equal distance: behind all others, before them, or in
        item order. Several tied targets of one case follow each other.
    top_k : int
        K, length of the lists to keep; ties there are in item order.
    block_bytes : int
        Cases are taken in blocks whose distances need no more than this.

    Raises
    ------
    DataError
        A distance is NaN.
    """
    size = max(1, block_bytes // (4 * max(1, num_items)))
    ranks = np.full(len(cases.targets.values), MISSED, dtype=np.int64)
    top = np.full((len(cases), top_k), -1, dtype=np.int32)
    for start in range(0, len(cases), size):
        block = cases.take(slice(start, start + size))
        distances = scorer(block)
        if distances.isnan().any():
            raise DataError(
                "a distance is NaN, so nothing can be ranked; the training diverged: lower "
                "learning_rate or turn norm_clipping on"
            )
        if filter_seen:
            distances = distances.clone()
            distances[_pairs(block.histories, distances.device)] = torch.inf
        low, high = cases.targets.offsets[start], cases.targets.offsets[start + len(block)]
        ranks[low:high] = _ranks(distances, block, filter_seen, ties)
        if top_k:
            top[start : start + len(block)] = _nearest(distances, block, filter_seen, top_k)
    return Ranking(Ragged(ranks, cases.targets.offsets), top)


def _ranks(
    distances: torch.Tensor, block: Cases, filter_seen: bool, ties: Ties
) -> npt.NDArray[np.int64]:
    device = distances.device
    num_targets = len(block.targets.values)
    rows = torch.from_numpy(block.targets.row_of_value).to(device)
    items = torch.from_numpy(block.targets.values.astype(np.int64)).to(device)
    seen = torch.zeros(distances.shape, dtype=torch.bool, device=device)
    if filter_seen:
        seen[_pairs(block.histories, device)] = True
    known = items.clamp(min=0)
    own = distances[rows, known]
    reachable = (items >= 0) & ~seen[rows, known]
    ahead = torch.empty_like(items)
    # Row by row of targets, as many at a time as there are cases: memory stays that of the block.
    for start in range(0, num_targets, len(block)):
        part = slice(start, start + len(block))
        candidates, place = distances[rows[part]], own[part, None]
        ahead[part] = (candidates < place).sum(dim=1)
        equal = (candidates == place) & ~seen[rows[part]]
        if ties == "item-order":
            equal &= torch.arange(distances.shape[1], device=device) < items[part, None]
        if ties != "optimistic":
            ahead[part] += equal.sum(dim=1)
    ranks = np.where(reachable.cpu().numpy(), ahead.cpu().numpy() + 1, MISSED)
    if ties == "item-order":
        return ranks
    # Every target counted itself, and all targets that tie with it, as ahead of it (pessimistic)
    # or none of them (optimistic); tied targets of one case follow each other in item order.
    keys = (items.cpu().numpy(), own.cpu().numpy(), ~reachable.cpu().numpy(), rows.cpu().numpy())
    order = np.lexsort(keys)
    same = np.ones(num_targets, dtype=bool)
    same[:1] = False
    for key in keys[1:]:
        same[1:] &= key[order][1:] == key[order][:-1]
    group = np.cumsum(~same) - 1
    sizes = np.bincount(group)
    first = np.cumsum(sizes) - sizes
    nth = np.arange(num_targets) - first[group]
    shift = nth - sizes[group] if ties == "pessimistic" else nth
    ranks[order] += np.where(ranks[order] == MISSED, 0, shift)
    return ranks


def _nearest(
    distances: torch.Tensor, block: Cases, filter_seen: bool, top_k: int
) -> npt.NDArray[np.int32]:
    """(B, K) the nearest items, equal distances in item order, -1 where the list ends."""
    num_items = distances.shape[1]
    k = min(top_k, num_items)
    values, found = distances.topk(k, dim=1, largest=False)
    # Among equal distances topk takes any; where the last place is tied, sort the row in full.
    tied_out = (distances <= values[:, -1:]).sum(dim=1) > k
    order = torch.argsort(found, dim=1)
    values, found = values.gather(1, order), found.gather(1, order)
    order = torch.argsort(values, dim=1, stable=True)
    values, found = values.gather(1, order), found.gather(1, order)
    for row in torch.nonzero(tied_out).flatten().tolist():
        ascending, places = torch.sort(distances[row], stable=True)
        values[row], found[row] = ascending[:k], places[:k]
    result = np.full((len(block), top_k), -1, dtype=np.int32)
    result[:, :k] = found.cpu().numpy()
    if filter_seen:
        result[:, :k][torch.isinf(values).cpu().numpy()] = -1
    return result


def _pairs(lists: Ragged, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.from_numpy(lists.row_of_value)
    columns = torch.from_numpy(lists.values.astype(np.int64))
    return rows.to(device), columns.to(device)
