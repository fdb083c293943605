"""Users and items that came after training, from trained rows alone. No gradient is taken."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch.nn.functional import normalize

from attrec.data.ragged import Ragged
from attrec.errors import ConfigError

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
def new_item_keys(
    intents: torch.Tensor,
    lengths: torch.Tensor,
    *,
    prior: torch.Tensor | None = None,
    strength: float = 1.0,
    average: torch.Tensor | None = None,
    push: float = 0.0,
) -> torch.Tensor:
    """Return the key of length 1 that suits each new item best, for the additive network.

    k_i ∝ λ p_i + Σ_e (m_e − β m̄) minimises λ ‖k − p_i‖² + Σ_e (‖m_e − k‖² − β ‖m̄ − k‖²) over
    ‖k‖ = 1: the distance to the intents that preceded its events, drawn to what its attributes say
    and pushed away from where everybody is.

    Parameters
    ----------
    intents : (E, d) tensor
        m_e, of length 1, of all items' events, one item's after the other's.
    lengths : (n,) int64
        Events of each item; their sum is E.
    prior : (n, d) tensor, optional
        p_i before it is brought to length 1; 0 where nothing is known.
    strength : float, ≥ 0
        λ: how many events the prior counts for.
    average : (d,) tensor, optional
        m̄, the mean of many users' intents.
    push : float, ≥ 0
        β.

    Returns
    -------
    (n, d) tensor
        0 of an item without events and prior.

    Examples
    --------
    >>> m = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> new_item_keys(m, torch.tensor([1, 1, 0])).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    total = torch.segment_reduce(intents, "sum", lengths=lengths, unsafe=False)
    if average is not None:
        total = total - push * lengths[:, None].to(total) * average
    if prior is not None:
        total = total + strength * normalize(prior, dim=1)
    return normalize(total, dim=1)


def _blocks(histories: Ragged) -> list[tuple[int, int]]:
    """Ranges of whole histories with about ``_EVENTS_AT_ONCE`` events each."""
    edges = np.arange(0, int(histories.offsets[-1]) + 1, _EVENTS_AT_ONCE)
    starts = np.searchsorted(histories.offsets, edges, side="left")
    cuts = np.unique(np.concatenate([[0], starts, [len(histories)]]))
    return [(int(a), int(b)) for a, b in pairwise(cuts)]
