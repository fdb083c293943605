"""Exact nearest keys: found in float32 by blocks, proved and ordered in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from attrec.data.ragged import Ragged
from attrec.errors import RequestError
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
        ‖q − k_i‖²; infinite where the index is -1.
    """

    indices: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]


class ExactIndex:
    """Exact search in squared Euclidean distance; ties go to the lower item index.

    Parameters
    ----------
    keys : (N, D) float32 tensor
        One key per item; kept, not copied. The search runs on its device.

    Raises
    ------
    RequestError
        A key is not finite, or has a norm above 1e15.

    Notes
    -----
    Items are sought in float32 by l_i = (1 − e) ‖k_i‖² − 2 q·k_i, which one matrix product gives.
    With u = 2⁻²⁴: summing ‖k‖² and the D products in float32, in any order, fused or not, errs by
    at most (D + 1) u (‖k‖² + 2 ‖q‖‖k‖); rounding q adds 2u ‖q‖‖k‖ and rounding ‖k‖² adds u ‖k‖².
    Since 2 ‖q‖‖k‖ ≤ ‖q‖² + ‖k‖², the error is, to first order,

        |err| ≤ c u (‖q‖² + ‖k‖²) ≤ c u (‖q‖ + ‖k‖)²,   c = 2D + 4.

    e = 1.01 (2D + 8) u has room for the higher orders up to D = 100 000; what may underflow is at
    most 8 (D + 1) 2⁻¹²⁶ in all. So l_i + (1 − e) ‖q‖² − 8 (D + 1) 2⁻¹²⁶ never exceeds the true
    ‖q − k_i‖². The m items with the smallest bounds are recomputed in float64; once the k-th of
    them is nearer than the bound of the m-th, no item left out can be as near: the list is
    proved. Until then m is doubled.
    """

    def __init__(self, keys: torch.Tensor) -> None:
        self.keys = keys
        squared = torch.empty(len(keys), dtype=torch.float64, device=keys.device)
        step = max(1, _BUDGET // max(1, keys.shape[1]))
        for start in range(0, len(keys), step):
            squared[start : start + step] = keys[start : start + step].double().square().sum(dim=1)
        if not bool((squared <= _LARGEST_NORM**2).all()):
            raise RequestError(
                f"the keys of {int((~(squared <= _LARGEST_NORM**2)).sum())} items are not finite "
                "or have a norm above 1e15; the training diverged: train again with "
                "norm_clipping or a smaller learning_rate"
            )
        self._squared_norms = squared

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.keys)

    @torch.no_grad()
    def search(
        self,
        queries: torch.Tensor,
        k: int,
        *,
        exclude: Ragged | None = None,
        allow: npt.ArrayLike | None = None,
        deny: npt.ArrayLike | None = None,
    ) -> Neighbours:
        """Return the k nearest items of each query.

        Parameters
        ----------
        queries : (B, D) float64 tensor
        k : int, ≥ 1
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
            ``k`` is below 1, or a query is not finite or has a norm above 1e15.
        """
        if k < 1:
            raise RequestError(f"k = {k}: ask for at least 1 item")
        queries = queries.to(device=self.keys.device, dtype=torch.float64)
        if not bool((queries.square().sum(dim=1) <= _LARGEST_NORM**2).all()):
            raise RequestError("a query vector is not finite or has a norm above 1e15")
        scope = _Scope(self.keys, self._squared_norms, allow, deny)
        if scope.size == 0:
            return _nothing(len(queries), k)
        return self._search(queries, k, min(k + _MARGIN, scope.size), scope, exclude)

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
        exact = squared_distances(queries, self.keys, items)
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
        keys: torch.Tensor,
        squared_norms: torch.Tensor,
        allow: npt.ArrayLike | None,
        deny: npt.ArrayLike | None,
    ) -> None:
        self.keys = keys
        denied = _as_indices(deny)
        self.items: npt.NDArray[np.int64] | None = None
        if allow is not None:
            self.items = np.setdiff1d(_as_indices(allow), denied)
            squared_norms = squared_norms[torch.as_tensor(self.items, device=keys.device)]
        self.size = len(squared_norms)
        self.error = 1.01 * (2 * keys.shape[1] + 8) * _unit_roundoff()
        self.bias = ((1.0 - self.error) * squared_norms).float()
        if allow is None and len(denied):
            self.bias[torch.as_tensor(denied, device=keys.device)] = torch.inf

    def nearest_bounds(
        self, queries: torch.Tensor, width: int, exclude: Ragged | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ``width`` smallest lower bounds (B, width) float64 and their items.

        A bound is infinite where the item may not be ranked.
        """
        rounded = queries.float()
        seek = self._by_kernel if readable(rounded) else self._by_passes
        best, chosen = seek(rounded, width, *self._places(exclude))
        if self.items is not None:
            chosen = torch.as_tensor(self.items, device=chosen.device)[chosen]
        squared = queries.square().sum(dim=1, keepdim=True)
        underflow = 8.0 * (queries.shape[1] + 1) * _SMALLEST_NORMAL
        return best.double() + (1.0 - self.error) * squared - underflow, chosen

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
            inside = (places >= start) & (places < stop)
            if inside.any():
                hidden = (
                    torch.as_tensor(rows[inside], device=bounds.device),
                    torch.as_tensor(places[inside] - start, device=bounds.device),
                )
                bounds[hidden] = torch.inf
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
    """Return ‖q_b − k_i‖² in float64 for the items (B, m) of each query: the order of every list.

    The squares are added in one fixed tree, so that a pair has the same bits in any batch, on any
    number of threads.

    Parameters
    ----------
    queries : (B, D) float64 tensor
    keys : (N, D) tensor
    items : (B, m) int64 tensor

    Returns
    -------
    (B, m) float64 tensor
    """
    width = items.shape[1]
    flat = items.flatten()
    result = torch.empty(len(flat), dtype=torch.float64, device=queries.device)
    step = max(1, _BUDGET // max(1, keys.shape[1]))
    for start in range(0, len(flat), step):
        chosen = flat[start : start + step]
        pairs = torch.arange(start, start + len(chosen), device=flat.device)
        terms = (queries[pairs // width] - keys[chosen].double()).square_()
        result[start : start + step] = _tree_sum(terms)
    return result.view(items.shape)


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
