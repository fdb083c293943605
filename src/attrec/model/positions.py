"""The time signal (7, 8)."""

from __future__ import annotations

import torch


def time_signal(
    length: int,
    embedding_dim: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Return the sinusoids of every slot.

    Equations (7) and (8): TE(t, 2i) = sin(t / 10000^(2i/d)), TE(t, 2i+1) = cos(t / 10000^(2i/d)),
    sine and cosine interleaved; t = 0 … L - 1 is the slot, and the newest item is in slot L - 1.

    Parameters
    ----------
    length : int
        L, number of slots.
    embedding_dim : int
        d, even.
    dtype, device
        Of the result; the angles are computed in float64.

    Returns
    -------
    (L, d) tensor
        Each row has the norm √(d/2).

    Examples
    --------
    >>> time_signal(2, 4).round(decimals=3).tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.8410000205039978, 0.5400000214576721, 0.009999999776482582, 1.0]]
    """
    slots = torch.arange(length, dtype=torch.float64)[:, None]
    even = torch.arange(0, embedding_dim, 2, dtype=torch.float64)
    angles = slots / 10000.0 ** (even / embedding_dim)
    signal = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return signal.to(dtype=dtype, device=device)
