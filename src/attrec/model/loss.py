"""The training loss (11)."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from attrec.config import Pairing


def pair_mask(real_targets: torch.Tensor, num_negatives: int, pairing: Pairing) -> torch.Tensor:
    """Tell which pairs of a target and a negative the loss sums over.

    Parameters
    ----------
    real_targets : (B, T) bool
        False where a short history has no further target.
    num_negatives : int
        T⁻, number of negatives of each window.
    pairing : {"all", "one-to-one"}
        The double sum of (11), or the n-th target with the n-th negative (the author's code).

    Returns
    -------
    (B, T, T⁻) bool
    """
    pairs = real_targets[:, :, None].expand(-1, -1, num_negatives)
    if pairing == "one-to-one":
        same = torch.eye(real_targets.shape[1], num_negatives, dtype=torch.bool)
        pairs = pairs & same.to(pairs.device)
    return pairs


def hinge_terms(
    targets: torch.Tensor, negatives: torch.Tensor, margin: float, pairs: torch.Tensor
) -> torch.Tensor:
    """Return [y_i + γ − y_j]₊ of each pair, 0 where ``pairs`` is false.

    Parameters
    ----------
    targets : (B, T) tensor
        Distances y_i of the targets i ∈ T⁺.
    negatives : (B, T⁻) tensor
        Distances y_j of the negatives j ∈ T⁻.
    margin : float
        γ.
    pairs : (B, T, T⁻) bool

    Returns
    -------
    (B, T, T⁻) tensor
        The loss of (11) is its plain sum.
    """
    violation = targets[:, :, None] + margin - negatives[:, None, :]
    return violation.relu().masked_fill(~pairs, 0.0)


def l2_penalty(rows: Iterable[torch.Tensor], weight: float) -> torch.Tensor | float:
    """Return λ Σ‖Θ‖² over the given rows.

    Differs from the paper: the rows are those that a step touches, each once, not whole tables.
    """
    return weight * sum(row.square().sum() for row in rows)
