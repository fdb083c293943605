"""Users and items that came after training, from trained rows alone. No gradient is taken."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from attrec.data.ragged import Ragged
from attrec.errors import ConfigError

PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
_LEAST = 1e-12
_LARGEST, _HALVINGS = 1e6, 40
_EVENTS_AT_ONCE = 65_536
"""Rows of V gathered together: 26 MB at d = 50 in float64, plus at most one whole history."""


@torch.no_grad()
def user_factors(
    item_long: torch.Tensor,
    histories: Ragged,
    *,
    l2: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """Return the U_u that suits each history best: U_u = Σ_j V_j / (n + λ').

    It minimises Σ_j ‖U_u − V_j‖² + λ' ‖U_u‖², the summed long-term distance (9) to the n events.
    Without λ' it is their mean over V, which lies inside the ball that holds V (12).

    Parameters
    ----------
    item_long : (N, d) tensor
        V. Trained rows only: a new user and a new item never define each other.
    histories : Ragged of n lists
        Item indices; an item counts as often as it occurs.
    l2 : float, ≥ 0
        λ'.
    dtype : torch.dtype
        Of the sums and of the result.

    Returns
    -------
    (n, d) tensor
        0 where the history is empty.

    Raises
    ------
    ConfigError
        ``l2`` is negative.

    Examples
    --------
    >>> V = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> user_factors(V, Ragged.from_lists([[0, 1], [1], []])).tolist()
    [[0.5, 0.5], [0.0, 1.0], [0.0, 0.0]]
    """
    if not l2 >= 0:
        raise ConfigError(f"l2 = {l2!r}: the penalty of a folded-in user must be at least 0")
    lengths = histories.lengths
    sums = torch.zeros(len(histories), item_long.shape[1], dtype=dtype, device=item_long.device)
    for start, stop in _blocks(histories):
        events = histories.values[histories.offsets[start] : histories.offsets[stop]]
        rows = item_long[torch.as_tensor(events, dtype=torch.int64, device=item_long.device)]
        sums[start:stop] = torch.segment_reduce(
            rows.to(dtype), "sum", lengths=torch.as_tensor(lengths[start:stop], device=rows.device)
        )
    counts = torch.as_tensor(np.maximum(lengths, 1), dtype=dtype, device=sums.device)
    return sums / (counts + l2)[:, None]


@torch.no_grad()
def predicted_keys(
    keys: torch.Tensor,
    known: torch.Tensor,
    asked: torch.Tensor,
    *,
    penalties: tuple[float, ...] = PENALTIES,
) -> torch.Tensor:
    """Return the expected keys of new items of the additive network, given what is known of them.

    k̂ = k̄ + (z − z̄) W, with W from ridge regression of the trained keys on the same knowledge of
    the trained items: the mean of some intents that preceded their events, their prior, or both.
    The penalty is the one with the least leave-one-out error, which has a closed form.

    k̂ is shorter than 1, the less is known the shorter: an item nobody can say anything about
    stands behind, where a key of full length from a single event would stand before everything. As
    E ‖m − k‖² = 2 − 2 m · k̂, its distance is that to [k̂ ; √(1 − ‖k̂‖²)], in a coordinate where
    queries are 0.

    Parameters
    ----------
    keys : (N, d) tensor
        Of length 1, of trained items.
    known : (N, f) tensor
        What is known of these.
    asked : (n, f) tensor
        What is known of the new items.
    penalties : tuple of float, > 0
        Tried, as shares of the mean square of what is known.

    Returns
    -------
    (n, d) float64 tensor
        Of length 1 at most.

    Examples
    --------
    >>> trained = torch.eye(3)
    >>> predicted_keys(trained, trained[:, :1], torch.tensor([[0.0], [1.0]])).shape
    torch.Size([2, 3])
    """
    z, y = known.double(), keys.double()
    centre, mean = z.mean(dim=0), y.mean(dim=0)
    z, y = z - centre, y - mean
    values, basis = torch.linalg.eigh(z.T @ z)
    rotated, along = z @ basis, basis.T @ (z.T @ y)
    scale = float(values.clamp(min=0).sum()) / max(1, z.shape[1])
    best, weights = torch.inf, torch.zeros_like(along)
    for penalty in penalties:
        shrunk = 1.0 / (values.clamp(min=0) + penalty * scale + _LEAST)
        found = shrunk[:, None] * along
        leverage = (rotated.square() * shrunk).sum(dim=1) + 1.0 / len(z)
        errors = (y - rotated @ found) / (1.0 - leverage).clamp(min=_LEAST)[:, None]
        error = float(errors.square().sum())
        if error < best:
            best, weights = error, found
    expected = mean + (asked.double() - centre) @ basis @ weights
    result: torch.Tensor = expected / expected.norm(dim=1, keepdim=True).clamp(min=1.0)
    return result


@torch.no_grad()
def scaled_to_share(
    new: torch.Tensor, keys: torch.Tensor, queries: torch.Tensor, share: float, *, k: int = 10
) -> torch.Tensor:
    """Scale the keys of new items so that they take a given share of the lists.

    From few events it cannot be known how often an item will be taken; how much room new items get
    is a decision. With one factor for all of them, m · k of new and of trained items is compared
    so that of all places in the lists of ``queries`` they take ``share``.

    Parameters
    ----------
    new : (n, d) tensor
        Keys of new items, such as `predicted_keys` gives.
    keys : (N, d) tensor
        Of trained items.
    queries : (Q, d) tensor
        Intents of users.
    share : float, 0 < share < 1
        At most what n items can take.
    k : int
        Length of the lists.

    Returns
    -------
    (n, d) tensor
    """
    old = (queries.to(keys) @ keys.T).topk(min(k, len(keys)), dim=1).values
    fresh = queries.to(keys) @ new.to(keys).T
    low, high = 0.0, 1.0
    while _share(old, fresh * high, k) < share and high < _LARGEST:
        low, high = high, 2.0 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _share(old, fresh * middle, k) < share else (low, middle)
    return new * high


def _share(old: torch.Tensor, new: torch.Tensor, k: int) -> float:
    """Which share of the k best of both is new."""
    places = torch.cat([old, new], dim=1).topk(min(k, old.shape[1] + new.shape[1]), dim=1).indices
    return float((places >= old.shape[1]).double().mean())


def _blocks(histories: Ragged) -> list[tuple[int, int]]:
    """Ranges of whole histories with about ``_EVENTS_AT_ONCE`` events each."""
    edges = np.arange(0, int(histories.offsets[-1]) + 1, _EVENTS_AT_ONCE)
    starts = np.searchsorted(histories.offsets, edges, side="left")
    cuts = np.unique(np.concatenate([[0], starts, [len(histories)]]))
    return [(int(a), int(b)) for a, b in pairwise(cuts)]
