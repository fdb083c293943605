"""Users that came after the training, from trained rows alone. No gradient is taken."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

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


def into_ball(rows: torch.Tensor) -> torch.Tensor:
    """Project each row to the unit ball (12)."""
    inside: torch.Tensor = rows / rows.norm(dim=1, keepdim=True).clamp(min=1.0)
    return inside


def _blocks(histories: Ragged) -> list[tuple[int, int]]:
    """Ranges of whole histories with about ``_EVENTS_AT_ONCE`` events each."""
    edges = np.arange(0, int(histories.offsets[-1]) + 1, _EVENTS_AT_ONCE)
    starts = np.searchsorted(histories.offsets, edges, side="left")
    cuts = np.unique(np.concatenate([[0], starts, [len(histories)]]))
    return [(int(a), int(b)) for a, b in pairwise(cuts)]
