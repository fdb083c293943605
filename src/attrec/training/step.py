"""One training step: the readable one, and the same with its gradient written out in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch.func import functional_call
from torch.nn.functional import embedding_bag

from attrec.config import TrainConfig
from attrec.data.sequences import Sequences
from attrec.data.sorting import stable_sort
from attrec.errors import CheckpointError
from attrec.model.attention import attention_weights, intent_shares
from attrec.model.distance import joint_distance
from attrec.model.loss import hinge_terms, l2_penalty, pair_mask
from attrec.model.network import AttRecNetwork
from attrec.model.positions import time_signal
from attrec.training.batches import epoch_windows
from attrec.training.optimizer import RowAdagrad, clip_rows


class Batch(NamedTuple):
    """What one step learns from; negative entries of windows and targets are padding.

    Attributes
    ----------
    users : (B,) int64
    windows : (B, L) int64
    targets : (B, T) int64
    negatives : (B, T) int64
    """

    users: torch.Tensor
    windows: torch.Tensor
    targets: torch.Tensor
    negatives: torch.Tensor

    @property
    def size(self) -> int:
        """B: number of windows."""
        return len(self.users)


class TrainingStep(Protocol):
    """What the loop over epochs needs: batches, a step on each, and what has to be kept."""

    def batches(self, sequences: Sequences, epoch: int, skip: int = 0) -> Iterator[Any]:
        """Yield an epoch's batches, which (seed, epoch) determine, from number ``skip``.

        Each tells by ``size`` how many windows, or positions, it learns from.
        """

    def __call__(self, batch: Any) -> torch.Tensor:
        """Take one step; the loss is a 0-d tensor, summed over the batch."""

    def averaged(self) -> AbstractContextManager[None]:
        """Let the network have the weights that are judged and kept, for a while."""

    def finish(self) -> None:
        """Let the network end with those weights."""

    def state(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the optimisers' state by table, and where the randomness of the steps stands."""

    def load_state(self, accumulators: Mapping[str, torch.Tensor], generator: torch.Tensor) -> None:
        """Take what `state` returned."""


class Step:
    """What all steps share: the optimisers, the first clipping, and dropout."""

    tables = ("item_short", "item_long", "user_long")

    def __init__(self, network: AttRecNetwork, config: TrainConfig) -> None:
        self.network = network
        self.config = config
        if config.norm_clipping:
            for name in self.tables:
                clip_rows(getattr(network, name).data)
        self.optimizers = {
            name: RowAdagrad(
                parameter.data,
                config.learning_rate,
                config.initial_accumulator,
                config.norm_clipping and name in self.tables,
                config.adagrad == "row-wise" and name in self.tables,
            )
            for name, parameter in network.named_parameters()
        }
        self.generator = torch.Generator(network.item_short.device)
        self.generator.manual_seed(config.seed)

    def batches(self, sequences: Sequences, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield every window once, in an order and with negatives that (seed, epoch) determine."""
        shape = self.network.config.window_length, self.config.num_targets, self.network.num_items
        device = self.network.item_short.device
        for parts in epoch_windows(sequences, *shape, self.config, epoch, skip):
            yield Batch(*(torch.from_numpy(part).to(device) for part in parts))

    def averaged(self) -> AbstractContextManager[None]:
        """Judge the weights as they are."""
        return nullcontext()

    def finish(self) -> None:
        """Keep the weights as they are."""

    def state(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the optimisers' accumulators by table, and the dropout generator's state."""
        accumulators = {name: each.accumulator for name, each in self.optimizers.items()}
        return accumulators, self.generator.get_state()

    def load_state(self, accumulators: Mapping[str, torch.Tensor], generator: torch.Tensor) -> None:
        """Take what `state` returned.

        Raises
        ------
        CheckpointError
            There is dropout, and it was drawn on another kind of device.
        """
        for name, each in self.optimizers.items():
            each.accumulator.copy_(accumulators[name])
        if generator.shape == self.generator.get_state().shape:
            self.generator.set_state(generator)
        elif self.network.config.dropout > 0.0:
            raise CheckpointError(
                "the checkpoint's dropout was drawn on another kind of device than "
                f"{self.generator.device}; go on with that device, or start again with --fresh"
            )

    def _dropout_mask(self, windows: torch.Tensor) -> torch.Tensor | None:
        """(B, L, d) factors 0 or 1 / (1 - p) of Q' = K', or None without dropout."""
        p = self.network.config.dropout
        if p == 0.0:
            return None
        like = self.network.item_short
        shape = (*windows.shape, like.shape[1])
        kept = torch.rand(shape, generator=self.generator, device=like.device) >= p
        return kept.to(like.dtype).div_(1.0 - p)


class PlainStep(Step):
    """The step as the equations say it, by automatic differentiation.

    The network is called on the batch's distinct rows as if they were its whole tables, so the
    gradient is as small as they are. Differs from a dense step only where λ > 0: the penalty acts
    on the rows touched, each once, and on W.
    """

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Take one step."""
        items, (windows, targets, negatives) = _renumber(
            batch.windows, batch.targets, batch.negatives
        )
        candidates, _ = _renumber(batch.targets, batch.negatives)
        users, (user_rows,) = _renumber(batch.users)
        rows = {"item_short": items, "item_long": candidates, "user_long": users}
        leaves = {
            name: (value.detach()[rows[name]] if name in rows else value.detach()).requires_grad_()
            for name, value in self.network.named_parameters()
        }
        # X has more rows here than V has: V is spread out to be met under the same numbers.
        place = torch.searchsorted(candidates, items).clamp_(max=len(candidates) - 1)
        arguments = {**leaves, "item_long": leaves["item_long"][place]}
        distances = functional_call(
            self.network,
            arguments,
            (user_rows, windows, torch.cat([targets, negatives], dim=1)),
            {"dropout_mask": self._dropout_mask(batch.windows)},
        )
        config = self.config
        T = batch.targets.shape[1]
        pairs = pair_mask(batch.targets >= 0, batch.negatives.shape[1], config.pairing)
        loss = hinge_terms(distances[:, :T], distances[:, T:], config.margin, pairs).sum()
        if config.l2:
            loss = loss + l2_penalty(leaves.values(), config.l2)
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        with torch.no_grad():
            for name, gradient in zip(leaves, gradients, strict=True):
                if gradient is not None:
                    self.optimizers[name].step(gradient, rows.get(name))
        return loss.detach()


def _renumber(*indices: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the distinct indices, ascending, and each tensor in places among them.

    Padding stays negative; distinct holds none.
    """
    flat = torch.cat([index.reshape(-1) for index in indices])
    distinct, places = torch.unique(flat, return_inverse=True)
    if len(distinct) and distinct[0] < 0:
        distinct, places = distinct[1:], places - 1
    sizes = [index.numel() for index in indices]
    parts = places.split(sizes)
    return distinct, [part.view(i.shape) for part, i in zip(parts, indices, strict=True)]


class _Occurrences(NamedTuple):
    """Where each distinct index of a batch occurs, for sums over its occurrences.

    Attributes
    ----------
    distinct : (n,) int64
        Ascending, without padding.
    places : (P,) int64
        Of every occurrence among ``distinct``; padding is at 0, to be masked.
    order : (P',) int64
        The real occurrences, sorted by their index (stable).
    starts : (n,) int64
        Where the occurrences of each distinct index start in ``order``.
    """

    distinct: torch.Tensor
    places: torch.Tensor
    order: torch.Tensor
    starts: torch.Tensor

    @classmethod
    def of(cls, flat: torch.Tensor) -> _Occurrences:
        ascending, order = _stable_sort(flat)
        padding = int((ascending < 0).sum())
        order = order[padding:]
        distinct, inverse, counts = torch.unique_consecutive(
            ascending[padding:], return_inverse=True, return_counts=True
        )
        places = torch.zeros_like(flat)
        places[order] = inverse
        return cls(distinct, places, order, counts.cumsum(0) - counts)

    def sum(
        self,
        source: torch.Tensor,
        rows: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Sum ``weights · source[rows]`` over the occurrences of each distinct index: (n, d).

        Without ``rows``, occurrence p has row p of ``source``.

        A scattered addition would visit one row at a time; sorted segments are summed by the
        kernel of ``embedding_bag``, in a fixed order, with the weighted rows never written out.
        """
        return embedding_bag(
            self.order if rows is None else rows[self.order],
            source,
            self.starts,
            mode="sum",
            per_sample_weights=None if weights is None else weights[self.order],
        )


class FusedStep(Step):
    """The same step with its gradient written out.

    What it saves: every distinct item is projected once, (X_i + TE_l) W = X_i W + TE_l W; the value
    being the identity, the intent is m = Σ_j c_j X_j and its gradient one row a window; sums over
    the occurrences of a row go by sorted segments; no graph is built.

    With a = ∂loss/∂y (the number of violated pairs of a target, minus that of a negative):

    - ∂/∂m = Σ_i 2(1−ω) a_i (m − X_i);  ∂/∂X_i = 2(1−ω) a_i (X_i − m);  likewise U and V with ω
    - ∂/∂X_j += c_j ∂/∂m;  ∂/∂s_lj = (X_j · ∂/∂m) / n  (sum aggregation: not over n)
    - A = Q'Q'ᵀ/√d:  ∂/∂A = s ∘ (∂/∂s − rowsum(s ∘ ∂/∂s));  ∂/∂Q' = (∂/∂A + ∂/∂Aᵀ) Q'/√d
    - through the ReLU to Z = X W and TE W, summed over occurrences before the products with W
    """

    def __init__(self, network: AttRecNetwork, config: TrainConfig) -> None:
        super().__init__(network, config)
        like = network.item_short
        self.signal = time_signal(
            network.config.window_length, like.shape[1], dtype=like.dtype, device=like.device
        )

    @torch.no_grad()
    def __call__(self, batch: Batch) -> torch.Tensor:
        """Take one step."""
        config = self.config
        candidates = torch.cat([batch.targets, batch.negatives], dim=1)
        items = _Occurrences.of(torch.cat([batch.windows.reshape(-1), candidates.reshape(-1)]))
        long_items = _Occurrences.of(candidates.reshape(-1))
        users = _Occurrences.of(batch.users)
        X = self.network.item_short.data.index_select(0, items.distinct)
        V = self.network.item_long.data.index_select(0, long_items.distinct)
        U = self.network.user_long.data.index_select(0, users.distinct)
        W = self.network.projection.data

        attention = self._attend(batch.windows, items, X, W)
        m, factors = attention.intent, U.index_select(0, users.places)
        shape = (*candidates.shape, X.shape[1])
        in_window = batch.windows.numel()
        short = X.index_select(0, items.places[in_window:]).view(shape) - m[:, None]
        long = V.index_select(0, long_items.places).view(shape) - factors[:, None]
        loss, a = self._hinge(batch, short, long)

        omega = self.network.config.long_term_weight
        a_short, a_long = a * (2.0 * (1.0 - omega)), a * (2.0 * omega)
        g_m = torch.bmm(a_short[:, None], short)[:, 0].neg_()
        g_U = users.sum(torch.bmm(a_long[:, None], long)[:, 0].neg_())
        # Over a candidate's occurrences, Σ a (X_i − m) = (Σ a) X_i − Σ a m: no row is written out.
        B, C = candidates.shape
        window_of_candidate = torch.arange(B, device=X.device).repeat_interleave(C)
        window_of_slot = torch.arange(B, device=X.device).repeat_interleave(batch.windows.shape[1])
        sources = torch.cat([window_of_slot, B + window_of_candidate])
        shares = attention.shares.reshape(-1)
        a_short, a_long = a_short.reshape(-1), a_long.reshape(-1)
        g_X = items.sum(torch.cat([g_m, m]), sources, torch.cat([shares, -a_short]))
        g_X.addcmul_(items.sum(torch.cat([torch.zeros_like(shares), a_short])[:, None]), X)
        g_V = long_items.sum(factors, window_of_candidate, -a_long)
        g_V.addcmul_(long_items.sum(a_long[:, None]), V)
        g_W = self._attend_backward(attention, g_m, g_X, W)

        if config.l2:
            loss = loss + l2_penalty((X, V, U, W), config.l2)
            for gradient, rows in ((g_X, X), (g_V, V), (g_U, U), (g_W, W)):
                gradient.add_(rows, alpha=2.0 * config.l2)
        self.optimizers["item_short"].step(g_X, items.distinct)
        self.optimizers["item_long"].step(g_V, long_items.distinct)
        self.optimizers["user_long"].step(g_U, users.distinct)
        self.optimizers["projection"].step(g_W)
        return loss

    def _attend(
        self, windows: torch.Tensor, items: _Occurrences, X: torch.Tensor, W: torch.Tensor
    ) -> _Attention:
        """Compute (2) to (6): the projection per distinct item, the rest per window."""
        shape = (*windows.shape, X.shape[1])
        mask = windows >= 0
        values = X.index_select(0, items.places[: windows.numel()]).view(shape)
        projected = _Occurrences.of(windows.reshape(-1))
        among_items = torch.searchsorted(items.distinct, projected.distinct)
        Z = X.index_select(0, among_items) @ W
        Q = Z.index_select(0, projected.places).view(shape)
        Q.add_(self.signal @ W).relu_()
        dropout = self._dropout_mask(windows)
        if dropout is not None:
            Q.mul_(dropout)
        s = attention_weights(Q, Q, mask)
        shares = intent_shares(s, mask, self.network.config.aggregation)
        intent = torch.bmm(shares[:, None], values)[:, 0]
        return _Attention(values, mask, projected, among_items, X, Q, dropout, s, shares, intent)

    def _attend_backward(
        self, attention: _Attention, g_m: torch.Tensor, g_X: torch.Tensor, W: torch.Tensor
    ) -> torch.Tensor:
        """Return ∂/∂W and add to ``g_X`` what reaches X through the queries and keys."""
        s, Q = attention.weights, attention.queries
        d = Q.shape[-1]
        g_s = torch.bmm(attention.values, g_m[:, :, None]).transpose(1, 2)
        if self.network.config.aggregation == "mean":
            g_s = g_s / attention.mask.sum(dim=1).clamp(min=1)[:, None, None]
        g_A = (g_s - (s * g_s).sum(dim=-1, keepdim=True)).mul_(s).div_(math.sqrt(d))
        g_Q = torch.bmm(g_A + g_A.transpose(1, 2), Q).mul_(Q > 0)
        if attention.dropout is not None:
            g_Q.mul_(attention.dropout)
        g_Z = attention.projected.sum(g_Q.view(-1, d))
        g_X.index_add_(0, attention.among_items, g_Z @ W.T)
        g_W = attention.rows.index_select(0, attention.among_items).T @ g_Z
        return g_W.addmm_(self.signal.T, g_Q.sum(dim=0))

    def _hinge(
        self, batch: Batch, short: torch.Tensor, long: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss (11) and a = ∂loss/∂y (B, 2 T) from the differences in (10)."""
        omega = self.network.config.long_term_weight
        y = joint_distance(_squared_norms(long), _squared_norms(short), omega)
        T = batch.targets.shape[1]
        pairs = pair_mask(batch.targets >= 0, batch.negatives.shape[1], self.config.pairing)
        hinge = hinge_terms(y[:, :T], y[:, T:], self.config.margin, pairs)
        violated = (hinge > 0).to(y.dtype)
        return hinge.sum(), torch.cat([violated.sum(dim=2), -violated.sum(dim=1)], dim=1)


class _Attention(NamedTuple):
    """What the backward pass needs of the forward pass."""

    values: torch.Tensor  # (B, L, d): X of each slot
    mask: torch.Tensor  # (B, L) bool
    projected: _Occurrences  # of the windows' items
    among_items: torch.Tensor  # their places among the distinct items
    rows: torch.Tensor  # (n, d): X of the distinct items
    queries: torch.Tensor  # (B, L, d): Q' = K'
    dropout: torch.Tensor | None  # (B, L, d)
    weights: torch.Tensor  # (B, L, L): s
    shares: torch.Tensor  # (B, L): c
    intent: torch.Tensor  # (B, d): m


def _stable_sort(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort int64 indices and return where each came from."""
    if values.device.type != "cpu":
        return values.sort(stable=True)
    ascending, order = stable_sort(values.numpy())
    return torch.from_numpy(ascending), torch.from_numpy(order)


def _squared_norms(rows: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vecdot(rows, rows)
    return norms
