"""A preset with one thing changed. No class here is an option of the product."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from attrec.config import ModelConfig
from attrec.data.cases import Cases
from attrec.data.sequences import last_items
from attrec.model.additive import AdditiveNetwork
from attrec.model.attention import allowed_pairs, project
from attrec.model.distance import joint_distance
from attrec.model.network import AttRecNetwork
from attrec.model.positions import time_signal


class Variant(AttRecNetwork):
    """What all variants share: distances to the whole catalogue for the evaluation."""

    def catalogue(self, first: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """(B, N): `compare` of each row of ``first`` with each row of ``table``."""
        norms = table.square().sum(dim=1)
        products = torch.addmm(norms[None], first, table.T, alpha=-2.0)
        return products + first.square().sum(dim=1, keepdim=True)

    @property
    def long_term_items(self) -> torch.Tensor:
        """The table that stands for V in (9)."""
        return self.item_long

    def distances(
        self,
        users: torch.Tensor,
        windows: torch.Tensor,
        candidates: torch.Tensor,
        *,
        dropout_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(10), with the variant's parts."""
        chosen = candidates.clamp(min=0)
        intent = self.intent(windows, dropout_mask=dropout_mask)
        long_term = self.compare(self.user_long[users][:, None], self.long_term_items[chosen])
        short_term = self.compare(intent[:, None], self.item_short[chosen])
        return joint_distance(long_term, short_term, self.config.long_term_weight)

    forward = distances


class VariantScorer:
    """Scores a variant for the evaluation."""

    def __init__(self, network: AttRecNetwork) -> None:
        """Keep the network."""
        assert isinstance(network, Variant)
        self.network = network

    @torch.no_grad()
    def __call__(self, cases: Cases) -> torch.Tensor:
        """(B, N) distances; every user must have been trained on."""
        network = self.network
        assert (cases.user_index >= 0).all()
        windows = torch.from_numpy(last_items(cases.histories, network.config.window_length))
        users = network.user_long[torch.from_numpy(np.asarray(cases.user_index))]
        return joint_distance(
            network.catalogue(users, network.long_term_items),
            network.catalogue(network.intent(windows), network.item_short),
            network.config.long_term_weight,
        )


class UniformWeights(Variant):
    """Every other event weighs the same; attention chooses nothing."""

    def weigh(self, queries: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Equal weights instead of (4)."""
        allowed = allowed_pairs(mask).to(queries.dtype)
        return allowed / allowed.sum(dim=-1, keepdim=True).clamp(min=1.0)


class NoMask(Variant):
    """The diagonal is not masked: each event may look at itself."""

    def weigh(self, queries: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(4) with padding masked only."""
        pairs = mask[:, :, None] & mask[:, None, :]
        affinity = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
        hidden = affinity.masked_fill(~pairs, torch.finfo(affinity.dtype).min)
        return hidden.softmax(dim=-1).masked_fill(~pairs, 0.0)


class NoTimeSignal(Variant):
    """Query and key without (7, 8): the order inside the window is lost."""

    def project(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(2, 3) without TE."""
        projected = torch.relu(rows @ self.projection)
        return projected, projected


class SeparateProjections(Variant):
    """W_Q and W_K are two matrices."""

    def __init__(self, config: ModelConfig, *sizes: int, seed: int = 0, **options: object) -> None:
        super().__init__(config, *sizes, seed=seed, **options)  # type: ignore[arg-type]
        self.projection_key = _square(config.embedding_dim, seed + 1)

    def project(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(2) and (3), each with its own matrix."""
        length, d = rows.shape[1:]
        signal = time_signal(length, d, dtype=rows.dtype, device=rows.device)
        return project(rows, signal, self.projection), project(rows, signal, self.projection_key)


class ValueProjection(Variant):
    """The value is a learnt map of the embedding instead of the embedding itself."""

    def __init__(self, config: ModelConfig, *sizes: int, seed: int = 0, **options: object) -> None:
        super().__init__(config, *sizes, seed=seed, **options)  # type: ignore[arg-type]
        self.projection_value = _square(config.embedding_dim, seed + 1)

    def attend(self, weights: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(5) with a value map."""
        return weights @ (rows @ self.projection_value)


class OneTable(Variant):
    """V = X: one item table for both distances."""

    @property
    def long_term_items(self) -> torch.Tensor:
        """X in the place of V."""
        return self.item_short


class DotProduct(Variant):
    """Minus the dot product instead of the squared distance."""

    def compare(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """-⟨first, second⟩."""
        return -(first * second).sum(dim=-1)

    def catalogue(self, first: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """-first · tableᵀ."""
        return -first @ table.T


def _square(d: int, seed: int) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(d, d), generator=generator))


VARIANTS: dict[str, type[Variant]] = {
    "uniform-weights": UniformWeights,
    "no-mask": NoMask,
    "no-time-signal": NoTimeSignal,
    "separate-projections": SeparateProjections,
    "value-projection": ValueProjection,
    "one-table": OneTable,
    "dot-product": DotProduct,
}
"""Changes of the equations."""

OPTIONS: dict[str, dict[str, object]] = {
    "paper": {},
    "aggregation-sum": {"aggregation": "sum"},
    "aggregation-max": {"aggregation": "max"},
    "aggregation-min": {"aggregation": "min"},
    "no-short-term": {"long_term_weight": 1.0},
    "no-long-term": {"long_term_weight": 0.0},
    "one-to-one-pairs": {"pairing": "one-to-one"},
}
"""Changes that are options of the product."""


class BareValues(AdditiveNetwork):
    """What an event adds is its embedding itself; attention only weighs."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.maps.requires_grad_(False)  # the identity that they begin as


class NoRecency(AdditiveNetwork):
    """No weight knows how long ago an event was, but for the causal mask."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        for part in (self, *self.blocks):
            part.recency = nn.Parameter(torch.zeros_like(part.recency), requires_grad=False)


class AnyLength(AdditiveNetwork):
    """Intents and keys are of the length they have; the distances are as wide as that makes them.

    Its temperature 0.5 leaves the distances as they are: lengths that are learnt scale them.
    """

    def directed(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows themselves."""
        return rows


ADDITIVE: dict[str, type[AdditiveNetwork]] = {
    "any-length": AnyLength,
    "bare-values": BareValues,
    "no-recency": NoRecency,
}
"""Changes of the additive network."""

ACCURATE: dict[str, dict[str, object]] = {
    "accurate": {},
    "another-seed": {"seed": 1},
    "a-third-seed": {"seed": 2},
    "any-length": {"temperature": 0.5},
    "two-tables": {"tied_embeddings": False},
    "random-maps": {"identity_maps": False},
    "no-blocks": {"blocks": 0},
    "two-blocks": {"blocks": 2},
    "one-head": {"heads": 1},
    "window-50": {"window_length": 50},
    "dimension-64": {"embedding_dim": 64},
    "dimension-256": {"embedding_dim": 256},
    "no-averaging": {"averaging": 0.0},
    "no-label-smoothing": {"label_smoothing": 0.0},
    "rate-0.002": {"learning_rate": 0.002},
    "rate-0.004": {"learning_rate": 0.004},
    "rate-kept": {"full_rate_steps": 0},
    "warmup-50": {"warmup_steps": 50},
    "min-steps-1": {"min_steps": 1},
    "dropout-0.3": {"dropout": 0.3},
    "temperature-0.07": {"temperature": 0.07},
    "no-weight-decay": {"weight_decay": 0.0},
    "sampled-softmax": {"softmax_samples": 4096},
}
"""Changes of the accurate preset by options of the product; a network may go with them.

Of the preset itself other seeds show what first numbers alone change.
"""

MOMENT: dict[str, dict[str, object]] = {
    "moment": {},
    "no-moment": {"recent_popularity": False},
}
"""The accurate preset with the popularity of the moment that validation chooses, and without."""

RETRAINING: dict[str, dict[str, object]] = {
    "retraining": {},
    "not-retrained": {"retrain": False},
}
"""The accurate preset trained again on train + validation, and not."""
