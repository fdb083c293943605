"""The training step by the compiled kernels: one visit of each window, one of each row."""

from __future__ import annotations

import torch

from attrec.config import TrainConfig
from attrec.model.loss import l2_penalty
from attrec.model.network import AttRecNetwork
from attrec.model.positions import time_signal
from attrec.native.step import Occurrences, group, run
from attrec.training.optimizer import EPSILON
from attrec.training.step import Batch, Step


class NativeStep(Step):
    """The step of `FusedStep`, its passes over memory joined.

    Three matrix products per batch are PyTorch's: Z = X W of the distinct items, and the two of
    their gradients. Everything else is four loops, each over disjoint windows or rows, so that the
    result does not depend on the number of threads:

    1. a window: (2) to (11) and back to ∂/∂m, ∂/∂U_u and ∂/∂Q', kept in the first-level cache;
    2. a distinct item: the sum of ∂/∂Q' over its occurrences;
    3. a row of X, V or U: its gradient gathered over its occurrences, Adagrad and (12).
    """

    def __init__(self, network: AttRecNetwork, config: TrainConfig) -> None:
        super().__init__(network, config)
        like = network.item_short
        self.signal = time_signal(network.config.window_length, like.shape[1], dtype=like.dtype)
        self._item_marks = torch.full((network.num_items,), -1, dtype=torch.int32)
        self._user_marks = torch.full((network.num_users,), -1, dtype=torch.int32)
        self._room: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, batch: Batch) -> torch.Tensor:
        """Take one step."""
        network, config = self.network, self.config
        omega, dtype = network.config.long_term_weight, network.item_short.dtype
        windows = batch.windows.contiguous()
        candidates = torch.cat([batch.targets, batch.negatives], dim=1)
        (B, L), C, d = windows.shape, candidates.shape[1], network.config.embedding_dim
        if len(self.signal) != L or not B == len(candidates) == len(batch.users):
            raise ValueError(
                f"{len(batch.users)} users, windows {(B, L)} and candidates {(len(candidates), C)} "
                f"do not fit each other, or not windows of {len(self.signal)}"
            )
        slots = B * L
        items = group(windows, candidates, self._item_marks)
        long_items = group(candidates, None, self._item_marks)
        users = group(batch.users, None, self._user_marks)
        if len(batch.users) and int(users.places.min()) < 0:
            raise IndexError("a window of the batch has a negative user")
        if len(batch.users) and not len(long_items.distinct):
            raise IndexError("the batch has no item among its targets and negatives")
        X = self._rows("X", network.item_short, items.distinct)
        V = self._rows("V", network.item_long, long_items.distinct)
        U = self._rows("U", network.user_long, users.distinct)
        W = network.projection.data
        in_windows = X[: items.in_first]
        Z = torch.mm(in_windows, W, out=self._space("Z", items.in_first, d))
        m, g_m, g_u = (self._space(name, B, d) for name in ("m", "g_m", "g_u"))
        g_Q, g_Z = self._space("g_Q", slots, d), self._space("g_Z", items.in_first, d)
        shares, a = self._space("shares", slots), self._space("a", B * C)
        loss = torch.empty(B, dtype=torch.float64)
        run(
            "windows", dtype, B, L=L, C=C, T=batch.targets.shape[1], d=d,
            mean=network.config.aggregation == "mean", one_to_one=config.pairing != "all",
            omega=omega, margin=config.margin, X=X, V=V, U=U, Z=Z, signal=self.signal @ W,
            dropout=self._dropout_mask(windows), window_places=items.places,
            candidate_places=items.places[slots:], long_places=long_items.places,
            user_places=users.places, m=m, g_m=g_m, g_u=g_u, g_Q=g_Q, shares=shares, a=a, loss=loss,
        )  # fmt: skip
        run(
            "segments", dtype, items.in_first, d=d, limit=slots, starts=items.starts,
            order=items.order, source=g_Q, into=g_Z,
        )  # fmt: skip
        through_W = torch.mm(g_Z, W.T, out=self._space("through_W", items.in_first, d))
        g_W = (in_windows.T @ g_Z).addmm_(self.signal.T, g_Q.view(B, L, d).sum(dim=0))
        total = loss.sum().to(dtype)
        if config.l2:
            total += l2_penalty((X, V, U, W), config.l2)
            g_W.add_(W, alpha=2.0 * config.l2)
        self._update(
            "item_short", items, limit=slots, ready=through_W, ready_rows=items.in_first,
            shares=shares, first=g_m, per_first=L,
            a=a, factor=2.0 * (1.0 - omega), second=m, per_second=C,
        )  # fmt: skip
        self._update(
            "item_long", long_items, a=a, factor=2.0 * omega, second=U, per_second=C,
            second_places=users.places,
        )  # fmt: skip
        self._update("user_long", users, limit=B, first=g_u, per_first=1)
        self.optimizers["projection"].step(g_W)
        return total

    def _update(self, name: str, rows: Occurrences, **arguments: object) -> None:
        config, rule = self.config, self.optimizers[name]
        run(
            "update", rule.table.dtype, len(rows.distinct), d=rule.table.shape[1],
            distinct=rows.distinct, starts=rows.starts, order=rows.order, table=rule.table,
            state=rule.accumulator,
            rate=rule.learning_rate, tiny=EPSILON, l2=config.l2, clip=rule.clip,
            row_wise=rule.row_wise, **arguments,
        )  # fmt: skip

    def _rows(self, name: str, table: torch.Tensor, distinct: torch.Tensor) -> torch.Tensor:
        space = self._space(name, len(distinct), table.shape[1])
        return torch.index_select(table.data, 0, distinct, out=space)

    def _space(self, name: str, *shape: int) -> torch.Tensor:
        """Return memory that is kept from step to step."""
        size = 1
        for length in shape:
            size *= length
        kept = self._room.get(name)
        if kept is None or len(kept) < size:
            kept = self._room[name] = self.network.item_short.new_empty(size)
        return kept[:size].view(shape)
