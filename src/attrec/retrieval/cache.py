"""Answers that are kept, and given again only where that is proved to be what a search would find.

√y = ‖q − k‖ is a metric: a query that moved by δ is nearer to no key by more than δ.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from attrec.data.ragged import Ragged
from attrec.errors import RequestError
from attrec.retrieval.index import ExactIndex, block_distances, weighted_sum

MARGIN = 240
"""Candidates kept beyond the k that were asked for: docs/certified-reuse.md shows other choices."""
USERS = 10_000
"""Answers kept: about 4 kB each for d = 100, and 8 bytes for every item that was left out."""
_MINUTE = 2.0**-500
"""Above the root of what can be lost where squares leave float64's range."""
_KEYS_AT_ONCE = 65_536
_LEAST_NORM = 2.0**-400
"""No norm is divided by less."""

Indices = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Certificate:
    """Why an answer is right, in distances ‖·‖ (not squared), float64.

    Attributes
    ----------
    reused : bool
        It was made of what was kept: ``moved < allowed``, or the query is the very same. Otherwise
        it was searched for.
    moved : float or None
        δ = ‖q − q₀‖ to the query whose answer was kept. None where nothing was kept of which
        all of today's candidates were candidates.
    allowed : float or None
        Below this, δ proves that no item but those kept is in today's list; at least 0.
    radius : float, ≥ 0
        While the query stays nearer than this to the present one, and the candidates are the same
        or fewer, the answer holds these k items (they may change places), unless one of them is
        taken away: half the gap to the next item, or more. Infinite where there is none.
    """

    reused: bool
    moved: float | None
    allowed: float | None
    radius: float


class CertifiedNeighbours(NamedTuple):
    """The answer to one query, nearest first.

    Attributes
    ----------
    indices : (k,) int64
        Item indices; -1 where fewer than k items may be ranked.
    distances : (k,) float64
        ‖q − k_i‖²; infinite where the index is -1.
    certificate : Certificate
    """

    indices: Indices
    distances: Distances
    certificate: Certificate


class CertifiedSearch:
    """The search of an `ExactIndex`, one query at a time, that begins at what it found last.

    Parameters
    ----------
    index : ExactIndex
        With other keys, or another ω in them, make a new one.
    margin : int, ≥ 1
        m, candidates kept beyond the k that were asked for.
    users : int, ≥ 1
        Answers kept; the one not asked for longest goes first.
    moving : int, optional
        Queries differ in their first so many coordinates only; in any, when left out. One that
        differs in another is searched for.

    Raises
    ------
    RequestError
        ``margin`` or ``users`` is no whole number, or below 1.

    Notes
    -----
    Kept are the query q₀ and its n = k + m nearest candidates, at distances s_1 ≤ … ≤ s_n, not
    squared. Let q be δ away from it, and no key longer than κ in the coordinates that move. Two
    things hold of every item:

        | ‖q − k‖ − ‖q₀ − k‖ | ≤ δ,                                                          (a)
        | (‖q − k‖² − ‖q₀ − k‖²) − (‖q‖² − ‖q₀‖²) | = 2 |(q − q₀) · k| ≤ 2 κ δ.                (b)

    Both are used, whichever proves more: (a) near a key, (b) where distances are longer than κ, as
    are those of the additive network (whose popularity of the moment is a coordinate that never
    moves).

    *What was not kept.* Every other candidate was at s_n or farther. The kept items are ranked
    again, exactly, without those that are candidates no more; let the k-th of them be at s'. If

        δ < s_n − s'   or   δ < (s_n² + ‖q‖² − ‖q₀‖² − s'²) / 2κ

    no other item can be in the list, nor tie with its last: the list is proved, in its order. With
    fewer candidates that stays true; an item that is a candidate now and was none then makes what
    is kept void.

    *What need not be ranked again.* While δ is less than **half** the gap, (s_i − s_k) / 2, or less
    than (s_i² − s_k²) / 4κ, the i-th item stays behind the first k: both sides of the gap may move.
    So only the kept items within that reach are ranked.

    With weights of the index's blocks all of this holds for the weighted norm Σ_b w_b ‖·‖²; what
    was found with other weights is void. As κ² serves Σ_b w_b max_i ‖k_ib‖², no less than the
    largest, and known at once for any weights.

    *Rounding.* A computed ‖q − k‖² sums D squares of differences, each within (1 ± 3u), u = 2⁻⁵³;
    a sum of D positive numbers, in any order, adds (1 ± (D − 1) u). The root is within
    (1 ± (D/2 + 3) u), to first order; so is δ. With e = (D + 16) 2⁻⁵¹, e (s_n + s' + δ) is several
    times what the sides of (a) can err by, and 16 e (‖q‖ + ‖k‖)² (the longest) of (b): they are
    asked for besides, with 2⁻⁵⁰⁰ for what may underflow. So the order of the *computed* distances
    is proved. Those are of `block_distances`, which has the same bits wherever a pair is met.
    """

    def __init__(
        self,
        index: ExactIndex,
        *,
        margin: int = MARGIN,
        users: int = USERS,
        moving: int | None = None,
    ) -> None:
        for name, value in (("margin", margin), ("users", users)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise RequestError(f"{name} = {value!r}: give a whole number, at least 1")
        self.index = index
        self.margin = margin
        self.users = users
        self._moving = index.keys.shape[1] if moving is None else moving
        self._lengths = _largest_norms(index.keys, index.blocks, index.keys.shape[1])
        self._reaches = _largest_norms(index.keys, index.blocks, self._moving)
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        """Return the number of answers kept."""
        return len(self._kept)

    def search(
        self,
        name: Hashable,
        query: torch.Tensor,
        k: int,
        *,
        weights: Sequence[float] | None = None,
        exclude: npt.ArrayLike | None = None,
        allow: npt.ArrayLike | None = None,
        deny: npt.ArrayLike | None = None,
    ) -> CertifiedNeighbours:
        """Return what ``index.search`` returns, bit for bit, and how that is known.

        Parameters
        ----------
        name : hashable
            Whose answer this is; the last one under a name is kept.
        query : (D,) float64 tensor
        k : int, ≥ 1
        weights : sequence of float, optional
            Of each block of the index; all 1 without it.
        exclude, deny : (A,) integer, optional
            Item indices that the list must not hold.
        allow : (A,) integer, optional
            Item indices of which alone the list is made.

        Raises
        ------
        RequestError
            As `ExactIndex.search`.
        """
        if k < 1:
            raise RequestError(f"k = {k}: ask for at least 1 item")
        query = query.to(device=self.index.keys.device, dtype=torch.float64)
        chosen = (1.0,) * len(self.index.blocks) if weights is None else tuple(weights)
        scope = _Scope.of(chosen, exclude, allow, deny)
        kept = self._look_up(name)
        moved = allowed = None
        if kept is not None and self._is_near(query, kept) and scope.is_within(kept.scope):
            found = self._ranked_again(kept, query, k, scope)
            if found.certificate.reused:
                return found
            moved, allowed = found.certificate.moved, found.certificate.allowed
        kept = self._searched(query, k, scope)
        self._put(name, kept)
        radius = self._geometry(scope.weights, kept.query).radius(kept.distances, k, kept.rim)
        certificate = Certificate(False, moved, allowed, radius)
        return CertifiedNeighbours(*_padded(kept.items, kept.distances, k), certificate)

    def forget(self, name: Hashable) -> None:
        """Drop what is kept under a name, if anything is."""
        with self._lock:
            self._kept.pop(name, None)

    def _searched(self, query: torch.Tensor, k: int, scope: _Scope) -> _Kept:
        size = min(k + self.margin, max(k, len(self.index)))
        items, distances = self.index.search(
            query[None],
            size,
            weights=scope.weights,
            exclude=Ragged(scope.barred, np.array([0, len(scope.barred)])),
            allow=scope.allow,
        )
        real = items[0] >= 0
        # A copy: the caller may write into the tensor later.
        here = query.cpu().numpy().copy()
        whole = size >= len(self.index) or not real.all()
        return _Kept(here, items[0][real], distances[0][real], whole, scope)

    def _is_near(self, query: torch.Tensor, kept: _Kept) -> bool:
        """Tell whether a query is finite, and differs in the coordinates that move only."""
        here = query.cpu().numpy()
        same = np.array_equal(here[self._moving :], kept.query[self._moving :])
        return same and bool(np.isfinite(here).all())

    def _ranked_again(
        self, kept: _Kept, query: torch.Tensor, k: int, scope: _Scope
    ) -> CertifiedNeighbours:
        """Rank what is kept for the present query, and certify what that proves."""
        here = query.cpu().numpy()
        by_coordinate = np.repeat(scope.weights, self.index.blocks)
        geometry = self._geometry(scope.weights, here, kept.query)
        moved = float(np.sqrt(np.square(here - kept.query) @ by_coordinate))
        longer = float((np.square(here) - np.square(kept.query)) @ by_coordinate)
        left = scope.holds(kept.items)
        items, before = kept.items[left], kept.distances[left]
        near = len(items)
        if near > k:
            near = int(np.searchsorted(geometry.half_gap(before[k - 1], before), moved, "right"))
        ranked, now = self._in_order(query, items[: max(near, k)], scope.weights)
        last = float(now[k - 1]) if len(now) >= k else np.inf
        allowed = np.inf
        if not kept.whole:
            allowed = geometry.allowed(last, kept.rim, moved, longer)
        same = np.array_equal(here, kept.query) and len(now) >= k
        behind = [geometry.at_least(y, moved, longer) for y in (*before[near : near + 1], kept.rim)]
        radius = geometry.radius(now, k, min(behind))
        certificate = Certificate(same or moved < allowed, moved, allowed, radius)
        return CertifiedNeighbours(*_padded(ranked, now, k), certificate)

    def _in_order(
        self, query: torch.Tensor, items: Indices, weights: tuple[float, ...]
    ) -> tuple[Indices, Distances]:
        chosen = torch.as_tensor(items, device=query.device)[None]
        apart = block_distances(query[None], self.index.keys, chosen, self.index.blocks)
        now = weighted_sum(apart, apart.new_tensor(weights))[0].cpu().numpy()
        order = np.lexsort((items, now))
        return items[order], now[order]

    def _geometry(self, weights: tuple[float, ...], *queries: Distances) -> _Geometry:
        by_coordinate = np.repeat(weights, self.index.blocks)
        longest = max(float(np.sqrt(np.square(query) @ by_coordinate)) for query in queries)
        length, reach = (
            max(float(np.sqrt(np.square(norms) @ np.asarray(weights))), _LEAST_NORM)
            for norms in (self._lengths, self._reaches)
        )
        return _Geometry(length, reach, longest, self.index.keys.shape[1])

    def _look_up(self, name: Hashable) -> _Kept | None:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def _put(self, name: Hashable, kept: _Kept) -> None:
        with self._lock:
            self._kept[name] = kept
            self._kept.move_to_end(name)
            while len(self._kept) > self.users:
                self._kept.popitem(last=False)


@dataclass(frozen=True, eq=False)
class _Scope:
    """What one call may rank, those of ``allow`` (all where None) less ``barred``; and how."""

    weights: tuple[float, ...]
    allow: Indices | None
    barred: Indices

    @classmethod
    def of(
        cls,
        weights: tuple[float, ...],
        exclude: npt.ArrayLike | None,
        allow: npt.ArrayLike | None,
        deny: npt.ArrayLike | None,
    ) -> _Scope:
        barred = [np.asarray(part, dtype=np.int64) for part in (exclude, deny) if part is not None]
        return cls(
            weights,
            None if allow is None else np.unique(np.asarray(allow, dtype=np.int64)),
            np.unique(np.concatenate(barred)) if barred else np.zeros(0, dtype=np.int64),
        )

    def holds(self, items: Indices) -> npt.NDArray[np.bool_]:
        """Tell which items may be ranked."""
        free = ~_is_in(items, self.barred)
        return free if self.allow is None else free & _is_in(items, self.allow)

    def is_within(self, other: _Scope) -> bool:
        """Tell whether ``other`` may rank every item that this one may, and ranks as this does."""
        if self.weights != other.weights:
            return False
        if self.holds(other.barred).any():
            return False
        if other.allow is None:
            return True
        return self.allow is not None and bool(
            other.holds(self.allow[self.holds(self.allow)]).all()
        )


@dataclass(frozen=True, eq=False)
class _Kept:
    """A query and its nearest candidates, ascending; ``whole``: there were no others."""

    query: Distances
    items: Indices
    distances: Distances
    whole: bool
    scope: _Scope

    @property
    def rim(self) -> float:
        """s_n²: no item that is not kept was nearer."""
        return np.inf if self.whole else float(self.distances[-1])


@dataclass(frozen=True)
class _Geometry:
    """What two distances can do while the query moves.

    Attributes
    ----------
    longest_key : float
    reach : float
        κ: the same in the coordinates that move.
    longest_query : float
    width : int
        D.
    """

    longest_key: float
    reach: float
    longest_query: float
    width: int

    @property
    def relative(self) -> float:
        """Return e."""
        return (self.width + 16) * 2.0**-51

    @property
    def absolute(self) -> float:
        """What squared distances may err by."""
        return 16.0 * self.relative * (self.longest_query + self.longest_key) ** 2

    def half_gap(self, near: float, far: Distances) -> Distances:
        """(n,): while the query moves by less, the farther items stay behind the nearer.

        Both are given as squared distances.
        """
        root_near, root_far = np.sqrt(near), np.sqrt(far)
        by_roots = (root_far - root_near) / 2.0 - self.relative * (root_far + root_near)
        by_squares = (far - near - self.absolute) / (4.0 * self.reach)
        gaps: Distances = np.maximum(np.maximum(by_roots, by_squares) - _MINUTE, 0.0)
        return gaps

    def allowed(self, last: float, rim: float, moved: float, longer: float) -> float:
        """Return what δ has to be below, so that what was beyond the rim is farther than the last.

        ``last`` is squared and of the present query, ``rim`` squared and of the kept one;
        ``longer`` = ‖q‖² − ‖q₀‖².
        """
        root_last, root_rim = np.sqrt(last), np.sqrt(rim)
        by_roots = root_rim - root_last - self.relative * (root_rim + root_last + moved)
        by_squares = (rim + longer - last - self.absolute) / (2.0 * self.reach)
        return max(float(max(by_roots, by_squares)) - _MINUTE, 0.0)

    def radius(self, ascending: Distances, k: int, beyond: float) -> float:
        """Return how far the query may move while the first k stay the same set.

        ``beyond``: what the squared distances of all others are at least.
        """
        if len(ascending) < k:
            return np.inf if np.isinf(beyond) else 0.0
        following = min([*ascending[k : k + 1], beyond])
        if np.isinf(following):
            return np.inf
        return float(self.half_gap(ascending[k - 1], np.array([following]))[0])

    def at_least(self, before: float, moved: float, longer: float) -> float:
        """Return what an item's squared distance is at least, by what it was before."""
        if np.isinf(before):
            return np.inf
        root = float(np.sqrt(before))
        by_roots = max(root - moved - self.relative * (root + moved), 0.0) ** 2
        by_squares = before + longer - 2.0 * self.reach * moved - self.absolute
        return max(by_roots, by_squares)


def _largest_norms(keys: torch.Tensor, blocks: Sequence[int], width: int) -> Distances:
    """(blocks,): the largest norm of a key in each block, in its first ``width`` coordinates."""
    largest = np.zeros(len(blocks))
    edges = np.minimum(np.concatenate([[0], np.cumsum(blocks)]), width)
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        squares = keys[start : start + _KEYS_AT_ONCE].double().square_()
        for block, (first, last) in enumerate(pairwise(edges.tolist())):
            norm = squares[:, first:last].sum(dim=1).max().sqrt()
            largest[block] = max(largest[block], float(norm))
    return largest


def _padded(items: Indices, distances: Distances, k: int) -> tuple[Indices, Distances]:
    """Return the first k; -1 at infinity where there are fewer."""
    short = k - len(items)
    if short <= 0:
        return items[:k].copy(), distances[:k].copy()  # what is kept is nobody else's
    return (
        np.pad(items[:k], (0, short), constant_values=-1),
        np.pad(distances[:k], (0, short), constant_values=np.inf),
    )


def _is_in(values: Indices, ascending: Indices) -> npt.NDArray[np.bool_]:
    """Tell which values are among the ascending ones."""
    if len(ascending) == 0:
        return np.zeros(len(values), dtype=bool)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    found: npt.NDArray[np.bool_] = ascending[place] == values
    return found
