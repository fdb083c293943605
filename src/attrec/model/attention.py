"""From the window's rows to one intent: (2) to (6)."""

from __future__ import annotations

import math

import torch

from attrec.config import Aggregation


def project(rows: torch.Tensor, signal: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
    """Project the window to queries, which are the keys too: Q' = K' = ReLU((X + TE) W).

    Equations (2) and (3) with W_Q = W_K = W; the time signal is added to query and key only.

    Parameters
    ----------
    rows : (B, L, d) tensor
        X_t, the embeddings of the window's items.
    signal : (L, d) tensor
        TE of (7, 8).
    projection : (d, d) tensor
        W.

    Returns
    -------
    (B, L, d) tensor
    """
    return torch.relu((rows + signal) @ projection)


def allowed_pairs(mask: torch.Tensor) -> torch.Tensor:
    """Tell which key each query may look at.

    Padding is masked everywhere and the diagonal is masked, but a window's only item, to which
    nothing else is left, looks at itself.

    Parameters
    ----------
    mask : (B, L) bool
        True where a slot holds an item.

    Returns
    -------
    (B, L, L) bool
        ``[b, l, j]``: query slot l may look at key slot j.
    """
    diagonal = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    alone = (mask.sum(dim=1) == 1)[:, None, None]
    return mask[:, :, None] & mask[:, None, :] & (diagonal == alone)


def attention_weights(
    queries: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Return s = softmax(Q' K'ᵀ / √d) (4), masked before the softmax.

    Parameters
    ----------
    queries, keys : (B, L, d) tensor
    mask : (B, L) bool
        True where a slot holds an item.

    Returns
    -------
    (B, L, L) tensor
        Rows sum to 1; rows and columns of padding are 0, and so is the diagonal unless the window
        has a single item.

    Notes
    -----
    Differs from the author's code, which masks the diagonal after the softmax.
    """
    allowed = allowed_pairs(mask)
    affinity = queries @ keys.transpose(1, 2) / math.sqrt(queries.shape[-1])
    # The lowest finite number instead of −∞: the same zeros, and rows of padding stay finite.
    hidden = affinity.masked_fill(~allowed, torch.finfo(affinity.dtype).min)
    return hidden.softmax(dim=-1).masked_fill(~allowed, 0.0)


def aggregate(attended: torch.Tensor, mask: torch.Tensor, aggregation: Aggregation) -> torch.Tensor:
    """Make one intent m of the attention's rows a (6).

    Parameters
    ----------
    attended : (B, L, d) tensor
        a = s X (5); rows of padding are 0.
    mask : (B, L) bool
    aggregation : {"mean", "sum", "max", "min"}
        Over the n ≤ L real rows: (1/n) Σ a_l, Σ a_l, or the largest or smallest of each dimension.

    Returns
    -------
    (B, d) tensor
        0 where the window is empty.
    """
    if aggregation in ("mean", "sum"):
        total = attended.sum(dim=1)
        return total / _count(mask, total.dtype)[:, None] if aggregation == "mean" else total
    sign = 1.0 if aggregation == "max" else -1.0
    hidden = (sign * attended).masked_fill(~mask[:, :, None], -math.inf)
    return (sign * hidden.amax(dim=1)).masked_fill(~mask.any(dim=1)[:, None], 0.0)


def intent_shares(
    weights: torch.Tensor, mask: torch.Tensor, aggregation: Aggregation
) -> torch.Tensor:
    """Return c with m = Σ_j c_j X_j: what the intent is made of.

    The column sums of the weights, over n for ``mean`` (then Σ c = 1), plain for ``sum`` (Σ c = n).
    ``max`` and ``min`` have no such c.

    Parameters
    ----------
    weights : (B, L, L) tensor
        s of (4).
    mask : (B, L) bool

    Returns
    -------
    (B, L) tensor, ≥ 0
    """
    columns = weights.sum(dim=1)
    return columns / _count(mask, columns.dtype)[:, None] if aggregation == "mean" else columns


def _count(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return mask.sum(dim=1).clamp(min=1).to(dtype)
