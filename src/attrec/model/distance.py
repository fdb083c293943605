"""The one distance that ranks all items: (9) and (10). Smaller is nearer."""

from __future__ import annotations

import torch


def squared_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return ‖first − second‖² over the last dimension (9); the others broadcast."""
    return (first - second).square().sum(dim=-1)


def joint_distance(
    long_term: torch.Tensor, short_term: torch.Tensor, long_term_weight: float
) -> torch.Tensor:
    """Return y = ω ‖U_u − V_i‖² + (1 − ω) ‖m − X_i‖² (10) from its two squared distances."""
    return long_term_weight * long_term + (1.0 - long_term_weight) * short_term


def fold_bias(keys: torch.Tensor, bias: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """Return keys whose distances alone rank as distances and biases do together.

    k'_i = [k_i ; √((b_max − b_i) / τ)], for queries q' = [q ; 0] (`room_for_bias`):
    − τ ‖q' − k'_i‖² = − τ ‖q − k_i‖² + b_i − b_max, so an item's bias is one more coordinate, and
    the nearest key is the item of the largest logit.

    Parameters
    ----------
    keys : (N, D) tensor
    bias : (N,) tensor
        b_i, finite.
    scale : () tensor or float
        τ > 0.

    Returns
    -------
    (N, D + 1) tensor
    """
    height = ((bias.max() - bias) / scale).sqrt() if len(bias) else bias
    return torch.cat([keys, height[:, None]], dim=1)


def room_for_bias(queries: torch.Tensor) -> torch.Tensor:
    """Return (..., D) queries with the coordinate 0 that `fold_bias` needs: (..., D + 1)."""
    return torch.nn.functional.pad(queries, (0, 1))
