"""Where each target stands among all items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from attrec.config import Ties
from attrec.data.cases import Cases
from attrec.data.ragged import Ragged
from attrec.errors import TrainingError
from attrec.evaluation.metrics import MISSED
from attrec.native.ranking import (
    Lists,
    Places,
    Shortlist,
    TiledPlaces,
    bands,
    count_places,
    readable,
)

Scorer = Callable[[Cases], torch.Tensor]
"""Gives (B, N) distances for B cases; smaller is better. Every system is judged through it."""

BLOCK_BYTES = 64 << 20
"""The most memory that one block of distances may take."""
_CACHED_BYTES = 8 << 20
_ROWS_WORTH_A_PRODUCT = 256
"""A block that leaves the cache is worth it up to as many rows; beyond them no product gains."""
_TILE_ROWS, _TILE_COLUMNS = 1024, 1024
"""Of a tile of a catalogue too large for that: 4 MB in float32, counted while they are in cache."""


@runtime_checkable
class ProductScorer(Protocol):
    """A scorer whose distances are one matrix product, which the ranking takes tile by tile."""

    def __call__(self, cases: Cases) -> torch.Tensor:
        """Return (B, N) distances."""

    @property
    def lifted_keys(self) -> torch.Tensor:
        """(N, W): a row of it times a lifted query is a distance."""

    def lifted_queries(self, cases: Cases) -> torch.Tensor:
        """Return (B, W) of the keys' type."""


@runtime_checkable
class BlockScorer(Protocol):
    """A scorer that writes into memory which the ranking keeps for all blocks, and masks there."""

    def __call__(self, cases: Cases) -> torch.Tensor:
        """Return (B, N) distances."""

    def room(self, rows: int) -> torch.Tensor:
        """Return (rows, N) to write distances into."""

    def write(self, cases: Cases, block: torch.Tensor) -> None:
        """Write the distances of B cases into ``block`` (B, N)."""


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
        What it returns is left alone; a `BlockScorer` is given the memory to write into. With
        kernels, a `ProductScorer` of a large catalogue is taken tile by tile.
    cases : Cases
    num_items : int
        N.
    filter_seen : bool
        Leave the items of each case's history out of its list; a target among them is missed.
    ties : {"pessimistic", "optimistic", "item-order"}
        Where a target stands among items of equal distance: behind all others, before them, or in
        item order. Several tied targets of one case follow each other.
    top_k : int
        K, length of the lists to keep, N at most; ties there are in item order.
    block_bytes : int
        Cases are taken in blocks whose distances need no more than this.

    Raises
    ------
    TrainingError
        A distance is NaN.
    """
    top_k = min(top_k, num_items)
    ranked = _strips_or_tiles(scorer, num_items, len(cases), filter_seen, top_k, block_bytes)
    top = np.full((len(cases), top_k), -1, dtype=np.int32)
    found = []
    for start in range(0, len(cases), ranked.rows):
        block = cases.take(slice(start, start + ranked.rows))
        places, nearest = ranked.rank(block)
        if places is None:
            raise TrainingError(
                "a distance is NaN, so nothing can be ranked; the training diverged: lower "
                "learning_rate or, of the paper's network, turn norm_clipping on"
            )
        found.append(places)
        if nearest is not None:
            top[start : start + len(block)] = nearest
    ranks = _ranks(found, cases.targets, ties)
    return Ranking(Ragged(ranks, cases.targets.offsets), top)


_Ranked = tuple[Places | None, npt.NDArray[np.int32] | None]
"""Where the targets stand, None where a distance is NaN; and who is nearest, if that is asked."""


def _strips_or_tiles(
    scorer: Scorer, num_items: int, cases: int, filter_seen: bool, top_k: int, block_bytes: int
) -> _Strips | _Tiles:
    large = 4 * num_items * _ROWS_WORTH_A_PRODUCT > _CACHED_BYTES
    if large and isinstance(scorer, ProductScorer) and readable(scorer.lifted_keys):
        rows = max(1, min(_TILE_ROWS, cases, block_bytes // (8 * _TILE_COLUMNS)))
        return _Tiles(scorer, rows, filter_seen, top_k)
    return _Strips(scorer, min(_rows_at_once(num_items, block_bytes), cases), filter_seen, top_k)


def _rows_at_once(num_items: int, block_bytes: int) -> int:
    """Rows that stay in cache, or as many as make a product quick, never above ``block_bytes``."""
    row_bytes = 4 * max(1, num_items)
    wanted = max(_CACHED_BYTES // row_bytes, _ROWS_WORTH_A_PRODUCT)
    return max(1, min(wanted, block_bytes // row_bytes))


class _Strips:
    """Ranks a block of cases from all its distances at once."""

    def __init__(self, scorer: Scorer, rows: int, filter_seen: bool, top_k: int) -> None:
        self.rows = max(1, rows)
        self._scorer, self._filter_seen, self._top_k = scorer, filter_seen, top_k
        self._room = scorer.room(rows) if isinstance(scorer, BlockScorer) else None

    def rank(self, block: Cases) -> _Ranked:
        """Rank a block of cases."""
        distances = self._distances(block)
        targets, seen = _targets_and_seen(block, self._filter_seen)
        count = count_places if readable(distances) else count_places_in_passes
        places = count(distances, targets, seen)
        if places is None or not self._top_k:
            return places, None
        return places, _nearest(distances, self._filter_seen, self._top_k)

    def _distances(self, block: Cases) -> torch.Tensor:
        """(B, N) with contiguous rows; nobody else's where the seen are to be masked."""
        if self._room is not None and isinstance(self._scorer, BlockScorer):
            distances = self._room[: len(block)]
            self._scorer.write(block, distances)
            return distances
        distances = self._scorer(block)
        if self._filter_seen:
            return distances.clone(memory_format=torch.contiguous_format)
        return distances if distances.stride(1) == 1 else distances.contiguous()


class _Tiles:
    """Ranks a block of cases from products of some columns, while these are still in cache."""

    def __init__(self, scorer: ProductScorer, rows: int, filter_seen: bool, top_k: int) -> None:
        self.rows = rows
        self._scorer, self._filter_seen, self._top_k = scorer, filter_seen, top_k
        self._keys = scorer.lifted_keys
        self._width = _TILE_COLUMNS
        self._room = self._keys.new_empty(rows * min(self._width, len(self._keys)))

    @torch.no_grad()
    def rank(self, block: Cases) -> _Ranked:
        """Rank a block of cases."""
        queries = self._scorer.lifted_queries(block)
        targets, seen = _targets_and_seen(block, self._filter_seen)
        num_items = len(self._keys)
        low, high = bands(queries, self._keys, targets)
        counted = TiledPlaces(targets, seen, num_items, self._width, low, high)
        shortlist = None
        if self._top_k:
            shortlist = Shortlist(len(block), self._top_k, num_items, self._keys.dtype)
        for tile in self._products(queries):
            counted.add(tile)
            if shortlist is not None:
                shortlist.add(tile)
        if counted.again():
            for tile in self._products(queries):
                counted.add(tile)
        nearest = None
        if shortlist is not None:
            nearest = _listed(*shortlist.finish(ordered=True), self._filter_seen)
        return counted.places(), nearest

    def _products(self, queries: torch.Tensor) -> Iterator[torch.Tensor]:
        """Give the distances to the next columns, always in the same memory."""
        for start in range(0, len(self._keys), self._width):
            keys = self._keys[start : start + self._width]
            tile = self._room[: len(queries) * len(keys)].view(len(queries), len(keys))
            torch.mm(queries, keys.T, out=tile)
            yield tile


def count_places_in_passes(
    distances: torch.Tensor, targets: Lists, seen: Lists | None
) -> Places | None:
    """Do what `count_places` does with PyTorch's operators, on any device; its result is on CPU."""
    if bool(distances.isnan().any()):
        return None
    device = distances.device
    rows, items = _pairs(targets, device)
    hidden = torch.zeros(distances.shape, dtype=torch.bool, device=device)
    if seen is not None:
        hidden[_pairs(seen, device)] = True
        distances.masked_fill_(hidden, torch.inf)
    known = items.clamp(min=0)
    own = distances[rows, known]
    reachable = (items >= 0) & ~hidden[rows, known]
    nearer, equal, before = (torch.zeros_like(items) for _ in range(3))
    # Row by row of targets, as many at a time as there are cases: memory stays that of the block.
    for start in range(0, len(items), max(1, len(distances))):
        part = slice(start, start + len(distances))
        candidates, place = distances[rows[part]], own[part, None]
        nearer[part] = (candidates < place).sum(dim=1)
        same = (candidates == place) & ~hidden[rows[part]]
        equal[part] = same.sum(dim=1)
        same &= torch.arange(distances.shape[1], device=device) < items[part, None]
        before[part] = same.sum(dim=1)
    return Places(*(found.cpu() for found in (own, nearer, equal, before, reachable)))


def _ranks(found: list[Places], targets: Ragged, ties: Ties) -> npt.NDArray[np.int64]:
    if not found:
        return np.full(len(targets.values), MISSED, dtype=np.int64)
    own, nearer, equal, before, reachable = (
        torch.cat(parts).numpy() for parts in zip(*found, strict=True)
    )
    if ties == "item-order":
        ahead = nearer + before
    else:
        # Tied targets of one case follow each other in item order, behind all others that tie with
        # them (pessimistic) or before them (optimistic).
        nth, size = _among_tied_targets(own, reachable, targets)
        ahead = nearer + nth + (equal - size if ties == "pessimistic" else 0)
    return np.where(reachable, ahead + 1, MISSED)


def _among_tied_targets(
    own: npt.NDArray[np.floating], reachable: npt.NDArray[np.bool_], targets: Ragged
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Number each target among those of its case at its distance, from 0; and how many they are."""
    count = len(own)
    numbers, sizes = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    if (targets.lengths <= 1).all():
        return numbers, sizes
    keys = (targets.values, own, ~reachable, targets.row_of_value)
    order = np.lexsort(keys)
    same = np.ones(count, dtype=bool)
    same[:1] = False
    for key in keys[1:]:
        same[1:] &= key[order][1:] == key[order][:-1]
    group = np.cumsum(~same) - 1
    in_group = np.bincount(group)
    first = np.cumsum(in_group) - in_group
    numbers[order] = np.arange(count) - first[group]
    sizes[order] = in_group[group]
    return numbers, sizes


def _nearest(distances: torch.Tensor, filter_seen: bool, top_k: int) -> npt.NDArray[np.int32]:
    """(B, K) the nearest items, equal distances in item order, -1 where the list ends."""
    rows, num_items = distances.shape
    if readable(distances):
        shortlist = Shortlist(rows, top_k, num_items, distances.dtype)
        shortlist.add(distances)
        values, found = shortlist.finish(ordered=True)
    else:
        values, found = nearest_in_passes(distances, top_k)
    return _listed(values, found, filter_seen)


def _listed(values: torch.Tensor, found: torch.Tensor, filter_seen: bool) -> npt.NDArray[np.int32]:
    """Put -1 for what is infinitely far, where something is left out."""
    result = found.cpu().numpy().astype(np.int32)
    if filter_seen:
        result[torch.isinf(values).cpu().numpy()] = -1
    return result


def nearest_in_passes(distances: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what an ordered `Shortlist` does with PyTorch's operators, on any device."""
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
    return values, found


def _targets_and_seen(block: Cases, filter_seen: bool) -> tuple[Lists, Lists | None]:
    seen = _lists(block.histories) if filter_seen else None
    return _lists(block.targets), seen


def _lists(lists: Ragged) -> Lists:
    values = np.array(lists.values, dtype=np.int32)
    return Lists(torch.from_numpy(values), torch.from_numpy(lists.offsets.copy()))


def _pairs(lists: Lists, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of all values."""
    rows = torch.repeat_interleave(torch.arange(len(lists.starts) - 1), lists.starts.diff())
    return rows.to(device), lists.values.long().to(device)
