"""The step a PyTorch user would write: dense tables, autograd, `torch.optim.Adagrad`.

It is kept plain, not slow: one gather for each table, batched matrix products, fused optimiser
loops as PyTorch ships them, and the norm clipping only on the rows of the batch.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from attrec.config import ModelConfig, TrainConfig
from attrec.model.network import AttRecNetwork
from attrec.training.step import Batch


class EagerStep:
    """One training step of (11) with λ = 0 and (12), on dense tables."""

    def __init__(self, network: AttRecNetwork, model: ModelConfig, train: TrainConfig) -> None:
        """Start from the weights of ``network``."""
        self.omega, self.margin = model.long_term_weight, train.margin
        device = network.item_short.device
        self.X = nn.Parameter(network.item_short.detach().clone())
        self.V = nn.Parameter(network.item_long.detach().clone())
        self.U = nn.Parameter(network.user_long.detach().clone())
        self.W = nn.Parameter(network.projection.detach().clone())
        L, d = model.window_length, model.embedding_dim
        slots = torch.arange(L, dtype=torch.float64)[:, None]
        angles = slots / 10000 ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
        self.signal = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(self.X)
        self.diagonal = torch.eye(L, dtype=torch.bool, device=device)
        self.optimizer = torch.optim.Adagrad(
            [self.X, self.V, self.U, self.W],
            lr=train.learning_rate,
            initial_accumulator_value=train.initial_accumulator,
        )

    def rows(self, table: nn.Parameter, index: torch.Tensor) -> torch.Tensor:
        """Look rows up."""
        return table[index]

    def loss(self, batch: Batch) -> torch.Tensor:
        """Compute (1) to (11)."""
        real = batch.windows >= 0
        rows = self.rows(self.X, batch.windows.clamp(min=0))
        Q = torch.relu((rows + self.signal) @ self.W)
        affinity = Q @ Q.transpose(1, 2) / math.sqrt(Q.shape[-1])
        count = real.sum(dim=1)
        own = self.diagonal == (count == 1)[:, None, None]
        allowed = real[:, :, None] & real[:, None, :] & own
        lowest = torch.finfo(affinity.dtype).min
        s = affinity.masked_fill(~allowed, lowest).softmax(dim=-1).masked_fill(~allowed, 0.0)
        m = (s @ rows).sum(dim=1) / count[:, None]
        candidates = torch.cat([batch.targets, batch.negatives], dim=1).clamp(min=0)
        long = (
            (self.rows(self.U, batch.users)[:, None] - self.rows(self.V, candidates))
            .square()
            .sum(dim=-1)
        )
        short = (m[:, None] - self.rows(self.X, candidates)).square().sum(dim=-1)
        y = self.omega * long + (1 - self.omega) * short
        T = batch.targets.shape[1]
        pairs = torch.relu(y[:, :T, None] + self.margin - y[:, None, T:])
        return pairs.masked_fill((batch.targets < 0)[:, :, None], 0.0).sum()

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Take one step."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()
        self.optimizer.step()
        candidates = torch.cat([batch.targets, batch.negatives], dim=1).flatten()
        with torch.no_grad():
            for table, used in (
                (self.X, torch.cat([batch.windows.flatten(), candidates])),
                (self.V, candidates),
                (self.U, batch.users),
            ):
                rows = used.clamp(min=0).unique()
                # torch.renorm would shrink to 1 - 1e-7, not to 1.
                norms = table[rows].norm(dim=1, keepdim=True)
                table[rows] /= norms.clamp(min=1.0)
        return loss.detach()


class SparseStep(EagerStep):
    """The same with PyTorch's own sparse gradients: `embedding(sparse=True)` and Adagrad."""

    def rows(self, table: nn.Parameter, index: torch.Tensor) -> torch.Tensor:
        """Look rows up; the gradient is a sparse tensor of those rows."""
        return nn.functional.embedding(index, table, sparse=True)
