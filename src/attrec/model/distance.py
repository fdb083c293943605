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
