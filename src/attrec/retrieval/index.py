"""Exact nearest keys: found in float32 by blocks, proved and ordered in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from attrec.data.ragged import Ragged
from attrec.errors import RequestError
from attrec.native import ranking as native
from attrec.native.ranking import Shortlist, readable

_BUDGET = 1 << 23
"""Numbers in one intermediate matrix: 32 MB in float32, 64 MB in float64."""
_CACHED = 1 << 21
"""Numbers in a block that the compiled search reads again: 8 MB, which stay in cache."""
_QUERIES_AT_ONCE = 256
_FEWEST_ITEMS_AT_ONCE = 4096
_MARGIN = 32
"""Candidates beyond k that are recomputed in float64 before any widening."""
_LARGEST_NORM = 1e15
"""Above it the squares would leave float32's range."""
_UNIT_ROUNDOFF = {"highest": 2.0**-24, "high": 2.0**-10, "medium": 2.0**-7}
"""Of a float32 product at each of PyTorch's matmul precisions (TF32 and bfloat16 included)."""
_SMALLEST_NORMAL = 2.0**-126


class Neighbours(NamedTuple):
    """The answer to B queries, nearest first.

    Attributes
    ----------
    indices : (B, k) int64
        Item indices; -1 where fewer than k items may be ranked.
    distances : (B, k) float64
        y; infinite where the index is -1.
    """

    indices: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]


class ExactIndex:
    """Exact search in squared Euclidean distance; ties go to the lower item index.

    The coordinates are cut into blocks, whose weights each call may choose:

        y_i = Σ_b w_b ‖q_b − k_ib‖².

    Parameters
    ----------
    keys : (N, D) float32 tensor
        One key per item; kept, not copied. The search runs on its device.
    blocks : sequence of int, optional
        How many coordinates each block has, D in all; one block without it.

    Raises
    ------
    RequestError
        A key is not finite, or has a norm above 1e15.

    Notes
    -----
    Write ‖k‖² for the weighted norm Σ_j w_j k_j² and q·k for Σ_j w_j q_j k_j, w_j being the weight
    of j's block. Items are sought in float32 by l_i = (1 − e) ‖k_i‖² − 2 q·k_i, which one matrix
    product of the keys with the vector (w_j q_j) gives. With u = 2⁻²⁴: each rounding of a factor,
    a product or a partial sum is relative to Σ_j w_j |q_j| |k_j| at most, and that is ≤ ‖q‖‖k‖, by
    Cauchy and Schwarz with the weights inside. So summing ‖k‖² and the D products in float32, in
    any order, fused or not, errs by at most (D + 1) u (‖k‖² + 2 ‖q‖‖k‖); rounding w_j q_j adds
    2u ‖q‖‖k‖ and rounding ‖k‖² adds u ‖k‖². Since 2 ‖q‖‖k‖ ≤ ‖q‖² + ‖k‖², the error is, to first
    order,

        |err| ≤ c u (‖q‖² + ‖k‖²) ≤ c u (‖q‖ + ‖k‖)²,   c = 2D + 4.

    e = 1.01 (2D + 8) u has room for the higher orders up to D = 100 000. What may underflow is at
    most a = 8 (D + 1) 2⁻¹²⁶ (1 + K), where K is the largest plain norm of a key: a tiny weight may
    make w_j q_j vanish in float32 beside a large k_j. So l_i + (1 − e) ‖q‖² − a never exceeds the
    true y_i. The m items with the smallest bounds are recomputed in float64; once the k-th of
    them is nearer than the bound of the m-th, no item left out can be as near: the list is
    proved. Until then m is doubled. Weights are at most 1, so nothing grows beyond what the plain
    norms were checked for.
    """

    def __init__(self, keys: torch.Tensor, blocks: Sequence[int] | None = None) -> None:
        self.keys = keys
        self.blocks = (keys.shape[1],) if blocks is None else tuple(blocks)
        squared = torch.empty(len(keys), len(self.blocks), dtype=torch.float64, device=keys.device)
        step = max(1, _BUDGET // max(1, keys.shape[1]))
        for start in range(0, len(keys), step):
            rows = keys[start : start + step].double().square_()
            squared[start : start + step] = _block_sums(rows, self.blocks)
        plain = squared.sum(dim=1)
        if not bool((plain <= _LARGEST_NORM**2).all()):
            raise RequestError(
                f"the keys of {int((~(plain <= _LARGEST_NORM**2)).sum())} items are not finite "
                "or have a norm above 1e15; the training diverged: train again with "
                "norm_clipping or a smaller learning_rate"
            )
        self._squared_norms = squared
        self._whole: tuple[tuple[tuple[float, ...], float], _Scope] | None = None
        self._largest_norm = float(plain.max().sqrt()) if len(keys) else 0.0

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.keys)

    @property
    def dimension(self) -> int:
        """How many numbers a key has."""
        return self.keys.shape[1]

    @torch.no_grad()
    def search(
        self,
        queries: torch.Tensor,
        k: int,
        *,
        weights: Sequence[float] | None = None,
        exclude: Ragged | None = None,
        allow: npt.ArrayLike | None = None,
        deny: npt.ArrayLike | None = None,
    ) -> Neighbours:
        """Return the k nearest items of each query.

        Parameters
        ----------
        queries : (B, D) float64 tensor
        k : int, ≥ 1
        weights : sequence of float, optional
            w_b of each block, each in 0 … 1; all 1 without it.
        exclude : Ragged of B lists, optional
            Item indices that the query's own list must not hold.
        allow : (A,) integer, optional
            Item indices of which alone the lists are made.
        deny : (A,) integer, optional
            Item indices that no list holds; it wins over ``allow``.

        Returns
        -------
        Neighbours
            The same bits whether a query comes alone or in a batch.

        Raises
        ------
        RequestError
            ``k`` is below 1, a weight is out of its range, or a query is not finite or has a norm
            above 1e15.
        """
        if k < 1:
            raise RequestError(f"k = {k}: ask for at least 1 item")
        queries = self._checked(queries)
        scope = self._scope(weights, allow, deny)
        if scope.size == 0:
            return _nothing(len(queries), k)
        return self._search(queries, k, min(k + _MARGIN, scope.size), scope, exclude)

    @torch.no_grad()
    def ranks(
        self,
        queries: torch.Tensor,
        items: npt.NDArray[np.integer],
        *,
        weights: Sequence[float] | None = None,
        exclude: Ragged | None = None,
        deny: npt.ArrayLike | None = None,
    ) -> npt.NDArray[np.int64]:
        """Return the place of one item in the whole list of each query, 1 being nearest.

        Exact: float32 decides where its error bound lets it, float64 everywhere else.

        Parameters
        ----------
        queries : (B, D) float64 tensor
        items : (B,) integer
            The item whose place is asked; an exclusion of itself has no effect.
        weights, exclude, deny
            As in `search`.

        Returns
        -------
        (B,) int64

        Raises
        ------
        RequestError
            As in `search`.
        """
        queries = self._checked(queries)
        scope = self._scope(weights, None, deny)
        before = np.zeros(len(queries), dtype=np.int64)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            rows = np.arange(start, min(start + _QUERIES_AT_ONCE, len(queries)))
            asked = torch.as_tensor(items[rows], dtype=torch.int64, device=queries.device)
            excluded = None if exclude is None else exclude.take(rows)
            nearer = scope.count_nearer(queries[start : start + len(rows)], asked, excluded)
            before[rows] = _to_numpy(nearer)
        return before + 1

    def parts(
        self,
        queries: torch.Tensor,
        items: torch.Tensor,
        *,
        weights: Sequence[float] | None = None,
    ) -> torch.Tensor:
        """Return w_b ‖q_b − k_ib‖² of the items (B, m) of each query: (B, m, blocks) float64.

        Their sum is the distance that `search` orders by, to the bit with one or two blocks.
        """
        chosen = torch.tensor(self._weights(weights), dtype=torch.float64, device=self.keys.device)
        return block_distances(self._checked(queries), self.keys, items, self.blocks).mul_(chosen)

    def _checked(self, queries: torch.Tensor) -> torch.Tensor:
        queries = queries.to(device=self.keys.device, dtype=torch.float64)
        if not bool((queries.square().sum(dim=1) <= _LARGEST_NORM**2).all()):
            raise RequestError("a query vector is not finite or has a norm above 1e15")
        return queries

    def _weights(self, weights: Sequence[float] | None) -> tuple[float, ...]:
        chosen = (1.0,) * len(self.blocks) if weights is None else tuple(weights)
        if len(chosen) != len(self.blocks) or not all(0.0 <= w <= 1.0 for w in chosen):
            raise RequestError(
                f"weights = {chosen}: give each of the {len(self.blocks)} blocks of the index a "
                "weight from 0 to 1"
            )
        return chosen

    def _scope(
        self,
        weights: Sequence[float] | None,
        allow: npt.ArrayLike | None,
        deny: npt.ArrayLike | None,
    ) -> _Scope:
        chosen = self._weights(weights)
        if allow is not None or len(_as_indices(deny)):
            return _Scope(self, chosen, allow, deny)
        # A pass over all keys' norms is a fifth of a single query: the last whole scope is kept.
        key, kept = (chosen, _unit_roundoff()), self._whole
        if kept is None or kept[0] != key:
            kept = self._whole = (key, _Scope(self, chosen, None, None))
        return kept[1]

    def _search(
        self, queries: torch.Tensor, k: int, width: int, scope: _Scope, exclude: Ragged | None
    ) -> Neighbours:
        """Answer over ``width`` candidates, and again over twice as many what that leaves open."""
        answer = _nothing(len(queries), k)
        step = max(1, min(_QUERIES_AT_ONCE, _BUDGET // max(width, _FEWEST_ITEMS_AT_ONCE)))
        for start in range(0, len(queries), step):
            rows = np.arange(start, min(start + step, len(queries)))
            excluded = None if exclude is None else exclude.take(rows)
            found, proved = self._candidates(
                queries[start : start + step], k, width, scope, excluded
            )
            _put(answer, rows, found)
            rows = rows[~proved]
            if len(rows):
                open_queries = queries[torch.as_tensor(rows, device=queries.device)]
                excluded = None if exclude is None else exclude.take(rows)
                wider = min(2 * width, scope.size)
                _put(answer, rows, self._search(open_queries, k, wider, scope, excluded))
        return answer

    def _candidates(
        self, queries: torch.Tensor, k: int, width: int, scope: _Scope, exclude: Ragged | None
    ) -> tuple[Neighbours, npt.NDArray[np.bool_]]:
        """Return the best k of ``width`` candidates in order, and which lists are proved."""
        bounds, items = scope.nearest_bounds(queries, width, exclude)
        forbidden = torch.isinf(bounds)
        exact = _tree_sum(scope.parts(queries, items))
        exact, items = _in_order(exact.masked_fill(forbidden, torch.inf), items)
        items = items.masked_fill(torch.isinf(exact), -1)
        # A forbidden candidate among them: so is every item that may be ranked.
        proved = forbidden.any(dim=1) | (width == scope.size)
        proved |= exact[:, min(k, width) - 1] < bounds.amax(dim=1)
        return Neighbours(_to_numpy(items[:, :k]), _to_numpy(exact[:, :k])), _to_numpy(proved)


class _Scope:
    """The items that one call may rank, and the search for their lowest lower bounds."""

    def __init__(
        self,
        index: ExactIndex,
        weights: tuple[float, ...],
        allow: npt.ArrayLike | None,
        deny: npt.ArrayLike | None,
    ) -> None:
        self.keys, self.blocks = index.keys, index.blocks
        device, width = self.keys.device, self.keys.shape[1]
        self.weights = torch.tensor(weights, dtype=torch.float64, device=device)
        self.by_coordinate = self.weights.repeat_interleave(
            torch.tensor(self.blocks, device=device), output_size=width
        )
        denied = _as_indices(deny)
        self.items: npt.NDArray[np.int64] | None = None
        self.squared_norms = index._squared_norms @ self.weights
        if allow is not None:
            self.items = np.setdiff1d(_as_indices(allow), denied)
            self.squared_norms = self.squared_norms[torch.as_tensor(self.items, device=device)]
        self.size = len(self.squared_norms)
        self.error = 1.01 * (2 * width + 8) * _unit_roundoff()
        self.underflow = 8.0 * (width + 1) * _SMALLEST_NORMAL * (1.0 + index._largest_norm)
        self.bias = ((1.0 - self.error) * self.squared_norms).float()
        if allow is None and len(denied):
            self.bias[torch.as_tensor(denied, device=device)] = torch.inf

    def parts(self, queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return w_b ‖q_b − k_ib‖² of the items (B, m) of each query: (B, m, blocks) float64."""
        apart = block_distances(queries, self.keys, items, self.blocks)
        return apart.mul_(self.weights)

    def count_nearer(
        self, queries: torch.Tensor, items: torch.Tensor, exclude: Ragged | None
    ) -> torch.Tensor:
        """Return (B,) int64: how many items stand before ``items`` (B,) in each query's list."""
        own = _tree_sum(self.parts(queries, items[:, None]))
        squared = (queries.square() * self.by_coordinate).sum(dim=1, keepdim=True)
        weighted = (queries * self.by_coordinate).float()
        norms = self.squared_norms.float().masked_fill(torch.isinf(self.bias), torch.inf)
        rows, places = self._places(exclude)
        count = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        step = self._items_at_once(len(queries), _BUDGET)
        for start in range(0, self.size, step):
            stop = min(start + step, self.size)
            found = torch.addmm(norms[None, start:stop], weighted, self._block(start, stop).T,
                                alpha=-2.0)  # fmt: skip
            gap = found.double() + (squared - own)  # y_i less the y of the asked item
            slack = self.error * (squared + self.squared_norms[start:stop]) + self.underflow
            gap[self._hidden(rows, places, start, stop)] = torch.inf
            count += (gap < -slack).sum(dim=1)
            row, place = (gap.abs() <= slack).nonzero(as_tuple=True)
            place += start
            exact = _tree_sum(
                pair_distances(queries, self.keys, row, place, self.blocks).mul_(self.weights)
            )
            mine = own[row, 0]
            before = (exact < mine) | ((exact == mine) & (place < items[row]))
            count += torch.bincount(row[before], minlength=len(queries))
        return count

    def nearest_bounds(
        self, queries: torch.Tensor, width: int, exclude: Ragged | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ``width`` smallest lower bounds (B, width) float64 and their items.

        A bound is infinite where the item may not be ranked.
        """
        rounded = (queries * self.by_coordinate).float()
        seek = self._by_kernel if readable(rounded) else self._by_passes
        best, chosen = seek(rounded, width, *self._places(exclude))
        if self.items is not None:
            chosen = torch.as_tensor(self.items, device=chosen.device)[chosen]
        squared = (queries.square() * self.by_coordinate).sum(dim=1, keepdim=True)
        return best.double() + (1.0 - self.error) * squared - self.underflow, chosen

    def _by_kernel(
        self,
        queries: torch.Tensor,
        width: int,
        rows: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Seek in one pass over bare products: the bias is added where they are read."""
        shortlist = Shortlist(len(queries), width, self.size, queries.dtype)
        step = self._items_at_once(len(queries), min(_BUDGET, _CACHED))
        room = queries.new_empty(len(queries), min(step, self.size))
        by_place = np.argsort(places, kind="stable")
        rows, places = rows[by_place], places[by_place]
        for start in range(0, self.size, step):
            stop = min(start + step, self.size)
            products = room[:, : stop - start]
            torch.mm(queries, self._block(start, stop).T, out=products)
            low, high = np.searchsorted(places, [start, stop])
            products[rows[low:high], places[low:high] - start] = -torch.inf
            shortlist.add(products, bias=self.bias[start:stop], factor=-2.0)
        best, chosen = shortlist.finish(ordered=False)
        return best, chosen.long()

    def _by_passes(
        self,
        queries: torch.Tensor,
        width: int,
        rows: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Do the same with PyTorch's operators, on any device."""
        best = queries.new_empty(len(queries), 0)
        chosen = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        step = self._items_at_once(len(queries), _BUDGET)
        for start in range(0, self.size, step):
            stop = min(start + step, self.size)
            bounds = torch.addmm(
                self.bias[None, start:stop], queries, self._block(start, stop).T, alpha=-2.0
            )
            bounds[self._hidden(rows, places, start, stop)] = torch.inf
            low, at = bounds.topk(min(width, stop - start), largest=False, sorted=False)
            best = torch.cat([best, low], dim=1)
            chosen = torch.cat([chosen, at + start], dim=1)
            if best.shape[1] > width:
                best, at = best.topk(width, largest=False, sorted=False)
                chosen = chosen.gather(1, at)
        return best, chosen

    def _items_at_once(self, num_queries: int, budget: int) -> int:
        return max(_FEWEST_ITEMS_AT_ONCE, budget // max(num_queries, self._gather_width))

    @property
    def _gather_width(self) -> int:
        """Numbers per item that a block costs beside its bounds: the copy of an allowed key."""
        return 1 if self.items is None else self.keys.shape[1]

    def _block(self, start: int, stop: int) -> torch.Tensor:
        if self.items is None:
            return self.keys[start:stop]
        return self.keys[torch.as_tensor(self.items[start:stop], device=self.keys.device)]

    def _hidden(
        self, rows: npt.NDArray[np.int64], places: npt.NDArray[np.int64], start: int, stop: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and columns, in the block of items from ``start``, of what is excluded."""
        inside = (places >= start) & (places < stop)
        device = self.keys.device
        return (
            torch.as_tensor(rows[inside], device=device),
            torch.as_tensor(places[inside] - start, device=device),
        )

    def _places(
        self, exclude: Ragged | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows and places (among the items that may be ranked) of what a query excludes."""
        if exclude is None:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        rows, places = exclude.row_of_value, exclude.values.astype(np.int64)
        if self.items is None:
            return rows, places
        found = np.minimum(np.searchsorted(self.items, places), self.size - 1)
        same = self.items[found] == places
        return rows[same], found[same]


@torch.no_grad()
def squared_distances(
    queries: torch.Tensor, keys: torch.Tensor, items: torch.Tensor
) -> torch.Tensor:
    """Return ‖q_b − k_i‖² in float64 for the items (B, m) of each query.

    Parameters and bits as for `block_distances`, with one block.
    """
    return block_distances(queries, keys, items, (keys.shape[1],))[:, :, 0]


@torch.no_grad()
def block_distances(
    queries: torch.Tensor, keys: torch.Tensor, items: torch.Tensor, blocks: Sequence[int]
) -> torch.Tensor:
    """Return the squared distances, block by block, of the items (B, m) of each query.

    They are the order of every list. The squares are added in one fixed tree, so that a pair has
    the same bits in any batch, on any number of threads.

    Parameters
    ----------
    queries : (B, D) float64 tensor
    keys : (N, D) tensor
    items : (B, m) int64 tensor
    blocks : sequence of int
        How many coordinates each block has, D in all.

    Returns
    -------
    (B, m, blocks) float64 tensor
    """
    width = items.shape[1]
    pairs = torch.arange(items.numel(), device=items.device)
    rows = pairs // max(1, width)
    return pair_distances(queries, keys, rows, items.flatten(), blocks).view(
        *items.shape, len(blocks)
    )


@torch.no_grad()
def distances_to_key(
    queries: torch.Tensor, key: torch.Tensor, blocks: Sequence[int]
) -> torch.Tensor:
    """Return the squared distances, block by block, of all queries (B, D) to one key (D,).

    (B, blocks) float64, with the bits of `block_distances`.
    """
    result = queries.new_empty(len(queries), len(blocks))
    step = max(1, _BUDGET // max(1, len(key)))
    for start in range(0, len(queries), step):
        terms = (queries[start : start + step] - key.double()).square_()
        result[start : start + step] = _block_sums(terms, blocks)
    return result


@torch.no_grad()
def pair_distances(
    queries: torch.Tensor,
    keys: torch.Tensor,
    rows: torch.Tensor,
    items: torch.Tensor,
    blocks: Sequence[int],
) -> torch.Tensor:
    """Return the squared distances, block by block, of single pairs of query row and item.

    As `block_distances`; ``rows`` and ``items`` are (P,) int64, the answer (P, blocks) float64.
    """
    if readable(keys) and keys.is_contiguous():
        return native.pair_distances(
            queries.contiguous(), keys, rows.contiguous(), items.contiguous(), blocks
        )
    return pair_distances_in_passes(queries, keys, rows, items, blocks)


def pair_distances_in_passes(
    queries: torch.Tensor,
    keys: torch.Tensor,
    rows: torch.Tensor,
    items: torch.Tensor,
    blocks: Sequence[int],
) -> torch.Tensor:
    """Do as `pair_distances` with PyTorch's operators, on any device, to the same bits."""
    result = torch.empty(len(items), len(blocks), dtype=torch.float64, device=queries.device)
    step = max(1, _BUDGET // max(1, keys.shape[1]))
    for start in range(0, len(items), step):
        chosen = slice(start, start + step)
        terms = (queries[rows[chosen]] - keys[items[chosen]].double()).square_()
        result[chosen] = _block_sums(terms, blocks)
    return result


def _block_sums(terms: torch.Tensor, blocks: Sequence[int]) -> torch.Tensor:
    """Sum each block of the columns, in place: (n, D) to (n, blocks)."""
    ends = np.cumsum(blocks)
    parts = [
        _tree_sum(terms[:, end - width : end]) for end, width in zip(ends, blocks, strict=True)
    ]
    return torch.stack(parts, dim=1)


def weighted_sum(apart: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return y of squared distances that are apart (…, blocks), in place: the order of lists."""
    return _tree_sum(apart.mul_(weights))


def _tree_sum(terms: torch.Tensor) -> torch.Tensor:
    """Sum the last dimension by halves, in place."""
    length = terms.shape[-1]
    while length > 1:
        half = (length + 1) // 2
        terms[..., : length - half] += terms[..., half:length]
        length = half
    return terms[..., 0] if length else terms.sum(dim=-1)


def _in_order(distances: torch.Tensor, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort each row by distance, equal distances by item index."""
    items, by_item = items.sort(dim=1)
    distances, by_distance = distances.gather(1, by_item).sort(dim=1, stable=True)
    return distances, items.gather(1, by_distance)


def _nothing(count: int, k: int) -> Neighbours:
    return Neighbours(np.full((count, k), -1, dtype=np.int64), np.full((count, k), np.inf))


def _put(answer: Neighbours, rows: npt.NDArray[np.int64], found: Neighbours) -> None:
    width = found.indices.shape[1]
    answer.indices[rows, :width] = found.indices
    answer.distances[rows, :width] = found.distances


def _as_indices(values: npt.ArrayLike | None) -> npt.NDArray[np.int64]:
    return np.unique(np.asarray([] if values is None else values, dtype=np.int64))


def _to_numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = tensor.cpu().numpy()
    return array


def _unit_roundoff() -> float:
    return _UNIT_ROUNDOFF[torch.get_float32_matmul_precision()]
