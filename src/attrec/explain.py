"""Why an item stands where it stands: exact splits of its distance, all in float64.

The intent is a mixture of the window's events, m_d = Σ_j c_jd X_jd. For ``mean`` and ``sum`` the
share c_jd = c_j is the same in every dimension. ``max`` and ``min`` have no such c_j, but in each
dimension d one attended row l supplies m_d, and a row is a mixture: c_jd = s_lj of that row.
With C_d = Σ_j c_jd (1 for mean, max and min; n for sum; 0 for an empty window), for every item i

    ‖m − X_i‖² = Σ_j Σ_d c_jd (X_jd − X_id)²  +  Σ_d (1 − C_d) X_id²  −  S,
    S = Σ_d (Σ_j c_jd X_jd² − m_d²),

and S does not depend on i. A part of the distance is small also where the share is: it is no
reason by itself. The pull of an event compares its part with the part of the average item. All of
this splits what was computed; what would happen *without* an event is computed without it.

The additive network's intent is a plain sum, m = Σ_j v_j, and all lengths are 1:

    y_i = 2 − 2 Σ_j v_j · k_i,

so an event's part is − 2 v_j · k_i. An empty history has an intent of its own, whose part takes the
place of the excess. There is no long-term distance. An item's offset o_i, the popularity of the
moment, is added to y_i and to nothing else. The equation holds as it is for an item that came after
training, whose key has a length of its own; where one is longer than 1, all distances are greater
by a c, which belongs to the constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.model.additive import AdditiveNetwork
from attrec.model.choice import Network
from attrec.model.network import AttRecNetwork

Floats = npt.NDArray[np.float64]
_ROWS_AT_ONCE = 65_536
_ADDITIVE_WINDOWS = 1000
"""Histories that the profile of the additive network reads."""
_FEWEST_ITEMS = 3
"""With one or two items the mask leaves attention no choice."""


@dataclass(frozen=True, eq=False)
class CatalogueMeans:
    """What pulls need to know of the average item; computed once per network.

    Items that nothing is known of have no vectors to average.

    Attributes
    ----------
    short, short_square, long, long_square : (d,) float64
        Means over all items of X, X², V and V², each dimension for itself. Of the additive network:
        of k and k², and nothing (0,).
    offset : float
        Mean of o over all items; 0 of the paper's network.
    """

    short: Floats
    short_square: Floats
    long: Floats
    long_square: Floats
    offset: float = 0.0

    @classmethod
    @torch.no_grad()
    def of(cls, network: Network) -> CatalogueMeans:
        """Take the means over the tables of ``network``, by blocks of rows."""
        placed = torch.ones(network.num_items, dtype=torch.bool, device=network.unplaced.device)
        placed[network.unplaced] = False
        every = bool(placed.all())
        if isinstance(network, AdditiveNetwork):
            none = np.zeros(0)
            rows = None if every else placed.nonzero()[:, 0]
            keys = network.keys(rows, dtype=torch.float64)
            offset = float(network.offset[placed].sum()) / max(1, len(keys))
            return cls(*_means(keys), none, none, offset)
        tables = (network.item_short, network.item_long)
        short, long = tables if every else (table[placed] for table in tables)
        return cls(*_means(short), *_means(long))


@dataclass(frozen=True, eq=False)
class Intent:
    """What the intent of one window is made of; the same for every candidate.

    Attributes
    ----------
    items : (n,) int64
        The window's events, oldest first.
    vector : (d,) float64
        m.
    shares : (n, d) float64
        c_jd ≥ 0. Of the additive network (n, 1): the mean of the heads' weights.
    suppliers : (d,) int64 or None
        For max and min: the event (position in ``items``) whose attended row supplies the
        dimension. That row is a mixture of the *other* events.
    constant : float
        S; at least 0, but for sum aggregation.
    excess : (d,) float64
        1 − C_d: 0 for mean, max and min. Of the additive network: 1 where the history is empty.
    contributions : (n, d) float64 or None
        v_j of the additive network.
    """

    items: npt.NDArray[np.int64]
    vector: Floats
    shares: Floats
    suppliers: npt.NDArray[np.int64] | None
    constant: float
    excess: Floats
    contributions: Floats | None = None

    @property
    def event_shares(self) -> Floats:
        """(n,): c_j; for max and min its mean over the dimensions."""
        shares: Floats = self.shares.mean(axis=1)
        return shares


@dataclass(frozen=True, eq=False)
class Split:
    """The distance of one candidate, taken apart. All terms are weighted as in (10).

    Attributes
    ----------
    item : int
        The candidate i.
    distance : float
        y = ``long_term`` + ``short_term``.
    long_term : float
        ω ‖U_u − V_i‖².
    short_term : float
        (1 − ω) ‖m − X_i‖² = Σ ``parts`` + ``excess`` + ``constant`` + ``offset``.
    parts : (n,) float64
        (1 − ω) Σ_d c_jd (X_jd − X_id)² of each event.
    constant : float
        −(1 − ω) S, the same for every candidate.
    excess : float
        (1 − ω) Σ_d (1 − C_d) X_id²: 0 but for sum aggregation and an empty window.
    pulls : (n,) float64
        The part of the average item less the part of this one: above 0 where the event brings the
        candidate nearer than an average item.
    excess_pull : float
        The same of ``excess``.
    long_term_pull : float
        ω (mean over the catalogue of ‖U_u − V_·‖² − ‖U_u − V_i‖²).
    dimensions : (d,) float64
        (1 − ω) (m_d − X_id)², the short-term part by dimension.
    offset, offset_pull : float
        o_i of the additive network, a term of ``short_term`` too, and the mean o less it; 0 of the
        paper's.
    """

    item: int
    distance: float
    long_term: float
    short_term: float
    parts: Floats
    constant: float
    excess: float
    pulls: Floats
    excess_pull: float
    long_term_pull: float
    dimensions: Floats
    offset: float = 0.0
    offset_pull: float = 0.0

    @property
    def short_term_advantage(self) -> float:
        """How much nearer than an average item, short-term: the sum of all pulls."""
        return float(self.pulls.sum()) + self.excess_pull + self.offset_pull

    @property
    def advantage(self) -> float:
        """How much nearer than an average item in all, the long-term pull included."""
        return self.short_term_advantage + self.long_term_pull


@dataclass(frozen=True, eq=False)
class Comparison:
    """Why the first item stands above the second (where ``difference`` is above 0).

    Attributes
    ----------
    difference : float
        Distance of the second less that of the first = Σ ``events`` + ``excess`` + ``long_term`` +
        ``offset``. The constant has cancelled.
    events : (n,) float64
        What each event adds to it: its part for the second less its part for the first.
    excess : float
        The same of the excess term.
    long_term, offset : float
        The same of the long-term distance, and of the offset.
    """

    difference: float
    events: Floats
    excess: float
    long_term: float
    offset: float = 0.0


def compare(first: Split, second: Split) -> Comparison:
    """Split the difference between two candidates of one query over its events."""
    return Comparison(
        second.distance - first.distance,
        second.parts - first.parts,
        second.excess - first.excess,
        second.long_term - first.long_term,
        second.offset - first.offset,
    )


@torch.no_grad()
def read_intent(network: Network, window: npt.NDArray[np.integer]) -> Intent:
    """Take the intent of one window apart.

    Parameters
    ----------
    network : Network
    window : (L,) integer
        Item indices, oldest first, left-padded with negative entries.
    """
    if isinstance(network, AdditiveNetwork):
        return _read_sum(network, window[window >= 0])
    slots = torch.as_tensor(window, dtype=torch.int64, device=network.item_short.device)[None]
    real = slots[0] >= 0
    items = slots[0][real]
    weights = network.attention(slots, dtype=torch.float64)[0][real][:, real]
    rows = network.item_short[items].double()
    vector = network.intent(slots, dtype=torch.float64)[0]
    shares, suppliers = _shares(network, slots, weights, rows)
    constant = (shares * rows.square()).sum() - vector.square().sum()
    mixed = len(items) if network.config.aggregation == "sum" else min(1, len(items))
    return Intent(
        _numpy(items),
        _numpy(vector),
        _numpy(shares),
        None if suppliers is None else _numpy(suppliers),
        float(constant),
        np.full(len(vector), 1.0 - mixed),
    )


def _read_sum(network: AdditiveNetwork, items: npt.NDArray[np.integer]) -> Intent:
    d = network.config.embedding_dim
    asked = torch.as_tensor(items, dtype=torch.int64, device=network.item_key.device)
    if len(items):
        weights, parts = map(_numpy, network.contributions(asked, dtype=torch.float64))
    else:
        weights, parts = np.ones((1, 0)), np.zeros((0, d))
    vector: Floats = parts.sum(axis=0) if len(items) else _numpy(network.start.double())
    shares = weights.mean(axis=0)[:, None]
    square = float(vector @ vector)
    excess = np.full(d, float(len(items) == 0))
    return Intent(_numpy(asked), vector, shares, None, -1.0 - square, excess, parts)


@torch.no_grad()
def split_distances(
    network: Network,
    user_vector: torch.Tensor,
    intent: Intent,
    candidates: npt.NDArray[np.integer],
    means: CatalogueMeans,
    *,
    long_term_weight: float | None = None,
) -> list[Split]:
    """Take the distances of a query to some candidates apart.

    The means over the catalogue come in closed form from ``means``: the cost does not depend on
    the number of items.

    Parameters
    ----------
    network : Network
    user_vector : (d,) tensor
        U_u, trained or folded in; the additive network does not look at it.
    intent : Intent
    candidates : (C,) integer
        Item indices.
    means : CatalogueMeans
        Of the same network.
    long_term_weight : float, optional
        ω in place of the network's own; the additive network has none.
    """
    if isinstance(network, AdditiveNetwork):
        return _split_sums(network, intent, candidates, means)
    index = torch.as_tensor(candidates, dtype=torch.int64, device=network.item_short.device)
    short, long = _rows(network.item_short, index), _rows(network.item_long, index)
    events = _rows(
        network.item_short, torch.as_tensor(intent.items, device=network.item_short.device)
    )
    user: Floats = _numpy(user_vector.double())
    weight = network.config.long_term_weight if long_term_weight is None else long_term_weight
    average_part = (
        intent.shares * (events**2 - 2.0 * events * means.short + means.short_square)
    ).sum(axis=1)
    average_long = (user**2 - 2.0 * user * means.long + means.long_square).sum()
    average_excess = (intent.excess * means.short_square).sum()
    splits = []
    for item, x, v in zip(candidates, short, long, strict=True):
        dimensions = (intent.vector - x) ** 2
        parts = (intent.shares * (events - x) ** 2).sum(axis=1)
        excess = (intent.excess * x**2).sum()
        apart = ((user - v) ** 2).sum()
        long_term = float(weight * apart)
        short_term = float((1.0 - weight) * dimensions.sum())
        splits.append(
            Split(
                item=int(item),
                distance=long_term + short_term,
                long_term=long_term,
                short_term=short_term,
                parts=(1.0 - weight) * parts,
                constant=-(1.0 - weight) * intent.constant,
                excess=float((1.0 - weight) * excess),
                pulls=(1.0 - weight) * (average_part - parts),
                excess_pull=float((1.0 - weight) * (average_excess - excess)),
                long_term_pull=float(weight * (average_long - apart)),
                dimensions=(1.0 - weight) * dimensions,
            )
        )
    return splits


def _split_sums(
    network: AdditiveNetwork,
    intent: Intent,
    candidates: npt.NDArray[np.integer],
    means: CatalogueMeans,
) -> list[Split]:
    """Take the distances of the additive network apart."""
    index = torch.as_tensor(candidates, dtype=torch.int64, device=network.item_key.device)
    keys = _numpy(network.keys(index, dtype=torch.float64))
    lifts, offsets = _numpy(network.lift(index)), _numpy(network.offset[index])
    raised = network.raised
    assert intent.contributions is not None
    splits = []
    without = -2.0 * intent.excess * intent.vector
    for item, key, lift, offset in zip(candidates, keys, lifts, offsets, strict=True):
        parts = -2.0 * intent.contributions @ key
        dimensions = (intent.vector - key) ** 2
        distance = float(dimensions.sum() + lift)
        splits.append(
            Split(
                item=int(item),
                distance=distance,
                long_term=0.0,
                short_term=distance,
                parts=parts,
                constant=raised - intent.constant,
                excess=float(without @ key),
                pulls=-2.0 * intent.contributions @ means.short - parts,
                excess_pull=float(without @ (means.short - key)),
                long_term_pull=0.0,
                dimensions=dimensions,
                offset=float(offset),
                offset_pull=means.offset - float(offset),
            )
        )
    return splits


def attention_profile(
    network: Network, windows: npt.NDArray[np.integer], *, block: int = 1024
) -> dict[str, Any]:
    """Tell whether attention chooses, and whether it reads content or only positions.

    Only windows of at least 3 items count: with fewer the mask leaves no choice. Of the additive
    network the newest position is read, each head for itself.

    Parameters
    ----------
    network : Network
    windows : (B, L) integer
        Item indices, oldest first, left-padded with negative entries.
    block : int
        Windows computed together.

    Returns
    -------
    dict
        ``windows``: how many counted; the rest is None where that is 0.

        ``entropy``: mean entropy of the weights of a query slot over its maximum log(n − 1), of the
        additive network log n, in 0 … 1. 1 means uniform weights.

        ``weight_by_slot``: (L,) list, mean of the column sums of the weights over n, over the
        windows that fill the slot; None for a slot that none fills.

        ``content_share``: share of the affinities' variance that positions do not explain, in
        0 … 1. Affinities Q'_l·K'_j / √d are centred per query slot l (a constant there changes no
        weight). What positions explain is the variance between the means of (n, l, j): window
        size, query slot, key slot. 0 means purely positional attention; None where all weights
        are uniform. With few windows it comes out low, since each mean follows its own windows.
    """
    filled = (windows >= 0).sum(axis=1)
    chosen = windows[filled >= _FEWEST_ITEMS]
    length = windows.shape[1]
    if len(chosen) == 0:
        return {"windows": 0, "entropy": None, "weight_by_slot": None, "content_share": None}
    if isinstance(network, AdditiveNetwork):
        return _additive_profile(network, chosen[:_ADDITIVE_WINDOWS], max(1, block // 16))
    cells = (length + 1) * length * length
    count, total, square = np.zeros(cells), np.zeros(cells), 0.0
    entropy, slot_weight, slot_count = 0.0, np.zeros(length), np.zeros(length)
    for weights, mask in _attention_blocks(network, chosen, block):
        sizes = mask.sum(axis=1)
        pairs = mask[:, :, None] & mask[:, None, :] & ~np.eye(length, dtype=bool)
        logs = np.where(pairs, np.log(np.maximum(weights, np.finfo(np.float64).tiny)), 0.0)
        row_entropy = -(weights * logs).sum(axis=2) / np.log(sizes - 1)[:, None]
        entropy += float((row_entropy.sum(axis=1) / sizes).sum())
        slot_weight += (weights.sum(axis=1) / sizes[:, None]).sum(axis=0)
        slot_count += mask.sum(axis=0)
        # log s is the affinity but for a constant per row, which centring removes anyway.
        centred = logs - logs.sum(axis=2, keepdims=True) / (sizes - 1)[:, None, None]
        size, query, key = (place.astype(np.int64) for place in np.nonzero(pairs))
        cell = (sizes[size] * length + query) * length + key
        count += np.bincount(cell, minlength=cells)
        total += np.bincount(cell, weights=centred[pairs], minlength=cells)
        square += float((centred[pairs] ** 2).sum())
    by_position = float((total**2 / np.maximum(count, 1)).sum())
    return _profile(len(chosen), entropy, slot_weight, slot_count, by_position, square)


@torch.no_grad()
def _additive_profile(
    network: AdditiveNetwork, windows: npt.NDArray[np.integer], block: int
) -> dict[str, Any]:
    """Read the newest position of each history; positions are ages, by head and history size."""
    length, heads = windows.shape[1], network.config.heads
    count: dict[int, int] = {}
    total: dict[int, Floats] = {}  # by size: a number for each head and age
    square = 0.0
    entropy, slot_weight, slot_count = 0.0, np.zeros(length), np.zeros(length)
    for start in range(0, len(windows), block):
        part = windows[start : start + block]
        mask = part >= 0
        asked = torch.as_tensor(part[mask], dtype=torch.int64, device=network.item_key.device)
        sizes = mask.sum(axis=1)
        weights = _numpy(
            network.newest_weights(
                asked, torch.as_tensor(sizes, device=asked.device), dtype=torch.float64
            )
        )
        for size, row in zip(sizes.tolist(), weights, strict=True):
            kept = np.maximum(row[:, :size], np.finfo(np.float64).tiny)  # (H, n)
            logs = np.log(kept)
            entropy += float(-(kept * logs).sum(axis=1).mean() / np.log(size))
            slot_weight[length - size :] += kept.mean(axis=0)
            slot_count[length - size :] += 1
            centred = logs - logs.mean(axis=1, keepdims=True)
            count[size] = count.get(size, 0) + 1
            total[size] = total.get(size, np.zeros((heads, size))) + centred
            square += float((centred**2).sum())
    by_position = sum(float((total[size] ** 2).sum()) / count[size] for size in count)
    return _profile(len(windows), entropy, slot_weight, slot_count, by_position, square)


def _profile(
    windows: int,
    entropy: float,
    slot_weight: Floats,
    slot_count: Floats,
    by_position: float,
    square: float,
) -> dict[str, Any]:
    """Make what `attention_profile` returns of its sums."""
    return {
        "windows": windows,
        "entropy": entropy / windows,
        "weight_by_slot": [
            float(weight / times) if times else None
            for weight, times in zip(slot_weight, slot_count, strict=True)
        ],
        "content_share": max(0.0, 1.0 - by_position / square) if square > 1e-20 else None,
    }


@torch.no_grad()
def _attention_blocks(
    network: AttRecNetwork, windows: npt.NDArray[np.integer], block: int
) -> Iterator[tuple[Floats, npt.NDArray[np.bool_]]]:
    for start in range(0, len(windows), block):
        part = windows[start : start + block]
        asked = torch.as_tensor(part, dtype=torch.int64, device=network.item_short.device)
        yield _numpy(network.attention(asked, dtype=torch.float64)), part >= 0


def _shares(
    network: AttRecNetwork, window: torch.Tensor, weights: torch.Tensor, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return c_jd (n, d), and for max and min the attended row behind each dimension (d,)."""
    if len(rows) == 0:
        return torch.zeros_like(rows), None
    if network.config.aggregation in ("mean", "sum"):
        shares = network.shares(window, dtype=torch.float64)[0][window[0] >= 0]
        return shares[:, None].expand_as(rows), None
    attended = network.attend(weights, rows)
    suppliers = (
        attended.argmax(dim=0) if network.config.aggregation == "max" else attended.argmin(dim=0)
    )
    return weights[suppliers].T, suppliers


def _means(table: torch.Tensor) -> tuple[Floats, Floats]:
    total = table.new_zeros(2, table.shape[1], dtype=torch.float64)
    for start in range(0, len(table), _ROWS_AT_ONCE):
        rows = table[start : start + _ROWS_AT_ONCE].double()
        total[0] += rows.sum(dim=0)
        total[1] += rows.square().sum(dim=0)
    mean: Floats = _numpy(total) / max(1, len(table))
    return mean[0], mean[1]


def _rows(table: torch.Tensor, index: torch.Tensor) -> Floats:
    return _numpy(table[index].double())


def _numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = tensor.detach().cpu().numpy()
    return array
