"""The softmax over distances: a loss over a whole catalogue that never holds positions × items.

Of a position p with query q and of an item i with key k and bias b, at scale τ > 0,

    logit_pi = − τ ‖q_p − k_i‖² + b_i,
    loss = Σ_p w_p (log Σ_i exp logit_pi − logit_pt),    t the item that followed.

The term − τ ‖q_p‖² is the same for all items of a position and cancels; what remains is one product
of queries and keys, worked through block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

from attrec.native.library import KINDS, available
from attrec.native.softmax import softmax_rows

BUDGET = {"cpu": 16 << 20, "cuda": 256 << 20}
"""Most bytes of logits held at once. A block of all items takes a quarter where it can."""
_FEWEST_ROWS = 64
"""Positions to a block of all items that are worth a product with the keys."""
_ROWS_OF_PARTS = 256
"""Positions to a block of a part of the items."""


def softmax_loss(
    queries: torch.Tensor,
    keys: torch.Tensor,
    targets: torch.Tensor,
    log_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    budget: int | None = None,
) -> torch.Tensor:
    """Return the loss of a softmax over the distances to all items.

    Σ_p w_p (log Σ_i exp logit_pi − Σ_i s_pi logit_pi) with logit_pi = − τ ‖q_p − k_i‖² + b_i,
    τ = exp(log_scale), and s_p the target distribution: 1 − ε on t_p, and ε / N on every item.

    Where gradients are wanted they are computed together with the loss, while a block of logits is
    at hand; going backward only scales them. Differentiable once, in ``queries``, ``keys``,
    ``log_scale``, ``bias`` and ``weights``.

    Parameters
    ----------
    queries : (P, D) float32 or float64
    keys : (N, D) tensor
        Of the type of ``queries``, as are the other tensors but ``targets``.
    targets : (P,) int64
        t_p, from 0 to N − 1.
    log_scale : () tensor
        log τ.
    bias : (N,) tensor, optional
        b_i; 0 where left out.
    weights : (P,) tensor, optional
        w_p; 1 where left out.
    label_smoothing : float
        ε, at least 0 and less than 1.
    budget : int, optional
        Most bytes of logits to hold at once; `BUDGET` of the device where left out.

    Returns
    -------
    () tensor
        A sum, not a mean.

    Raises
    ------
    IndexError
        A target is no row of ``keys``.
    ValueError
        ``label_smoothing`` is out of its range, or there are no keys.
    """
    _check_smoothing(label_smoothing)
    _check_rows("targets", targets, len(keys))
    setting = _Setting(targets, None, label_smoothing, budget, torch.is_grad_enabled())
    return _fused(queries, keys, bias, log_scale, None, weights, setting)


def sampled_softmax_loss(
    queries: torch.Tensor,
    keys: torch.Tensor,
    targets: torch.Tensor,
    samples: torch.Tensor,
    sample_log_q: torch.Tensor,
    log_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    target_log_q: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    budget: int | None = None,
) -> torch.Tensor:
    """Return the loss of a softmax over each target and the samples that all positions share.

    Σ_p w_p (log(exp z_pt + Σ_j [S_j ≠ t_p] exp z_pj) − z_pt + ε (logit_pt − Σ_i logit_pi / N)) with
    z_pj = − τ ‖q_p − k_{S_j}‖² + b_{S_j} − log Q(S_j), and z_pt likewise of the target: the softmax
    over all items as estimated from samples of probabilities Q. A sample that is the position's
    target (an accidental hit) is left out there. The mean logit that smoothing needs is exact: one
    product with the mean key. Differentiable as `softmax_loss` is.

    Parameters
    ----------
    queries : (P, D) float32 or float64
    keys : (N, D) tensor
        Without smoothing only the rows that ``targets`` and ``samples`` name are read; they may be
        the distinct rows of a batch, with the indices into them.
    targets : (P,) int64
    samples : (n,) int64
        S_j; an item may occur more than once.
    sample_log_q : (n,) tensor
        log Q(S_j).
    log_scale : () tensor
        log τ.
    bias : (N,) tensor, optional
        b_i; 0 where left out.
    target_log_q : (P,) tensor, optional
        log Q(t_p); 0 where left out, for a target that is there whatever is drawn.
    weights : (P,) tensor, optional
        w_p; 1 where left out.
    label_smoothing : float
        ε, at least 0 and less than 1.
    budget : int, optional
        Most bytes of logits to hold at once; `BUDGET` of the device where left out.

    Returns
    -------
    () tensor
        A sum, not a mean.

    Raises
    ------
    IndexError
        A target or a sample is no row of ``keys``.
    ValueError
        ``label_smoothing`` is out of its range.
    """
    _check_smoothing(label_smoothing)
    _check_rows("targets", targets, len(keys))
    _check_rows("samples", samples, len(keys))
    near = keys[targets]
    scale = log_scale.exp()
    own = scale * (2 * (queries * near).sum(dim=1) - near.square().sum(dim=1))
    others = -sample_log_q
    if bias is not None:
        own = own + bias[targets]
        others = others + bias[samples]
    above = None
    if label_smoothing:
        mean = scale * (2 * queries @ keys.mean(dim=0) - keys.square().sum(dim=1).mean())
        above = own - mean if bias is None else own - mean - bias.mean()
    if target_log_q is not None:
        own = own - target_log_q
    setting = _Setting(targets, samples, 0.0, budget, torch.is_grad_enabled())
    loss = _fused(queries, keys[samples], others, log_scale, own, weights, setting)
    if above is None:
        return loss
    return loss + label_smoothing * (above.sum() if weights is None else weights @ above)


def plain_softmax_loss(
    queries: torch.Tensor,
    keys: torch.Tensor,
    targets: torch.Tensor,
    log_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return `softmax_loss` in the obvious way, which holds all P × N logits several times."""
    scale = log_scale.exp()
    logits = scale * (2 * queries @ keys.T - keys.square().sum(dim=1))
    if bias is not None:
        logits = logits + bias
    terms = cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
    return terms.sum() if weights is None else weights @ terms


def plain_rows(
    logits: torch.Tensor,
    offsets: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None,
    items: torch.Tensor | None,
    top: torch.Tensor,
    total: torch.Tensor,
    picked: torch.Tensor,
    *,
    first: int,
    even: float,
    peak: float,
    sums: bool,
    gradient: bool,
) -> None:
    """Take a block of logits into its rows' sums, or turn it into their gradient, or both.

    Parameters
    ----------
    logits : (B, n) tensor
        Without the columns' offsets. With ``gradient`` it becomes, in place,
        w (exp(logit − top) / total − even), and w · peak less in the target's column; else what it
        holds afterwards is of no use.
    offsets : (n,) tensor
    targets : (B,) int64
        The column, counted from ``first`` in this block, or the item where ``items`` are given.
    weights : (B,) tensor, optional
    items : (n,) int64, optional
        The items of the columns; one that is the row's target is left out, and no column is it.
    top, total : (B,) float64
        So far Σ exp(logit) = total · exp(top); with ``sums`` the block is taken in.
    picked : (B,) tensor
        With ``sums``, the target's logit is put here if its column is in the block.
    """
    count = logits.shape[1]
    logits.add_(offsets)
    column = targets - first
    if items is None:
        rows = ((column >= 0) & (column < count)).nonzero()[:, 0]
    else:
        logits.masked_fill_(items == targets[:, None], -torch.inf)
        rows = column.new_empty(0)
    column = column[rows]
    if sums:
        picked[rows] = logits[rows, column]
        best = torch.maximum(top, logits.amax(dim=1).double())
        total.mul_((top - best).exp_())
        top.copy_(best)
    if sums or gradient:
        logits.sub_(top.to(logits.dtype)[:, None]).exp_()
    if sums:
        total.add_(logits.sum(dim=1, dtype=torch.float64))
    if gradient:
        w = torch.ones_like(picked) if weights is None else weights
        logits.mul_((w / total).to(logits.dtype)[:, None]).sub_(even * w[:, None])
        logits[rows, column] -= peak * w[rows]


@dataclass(frozen=True)
class _Setting:
    """What the loss depends on and has no gradient in."""

    targets: torch.Tensor
    items: torch.Tensor | None
    smoothing: float
    budget: int | None
    with_gradients: bool


def _fused(*arguments: Any) -> torch.Tensor:
    total: torch.Tensor = _FusedSoftmax.apply(*arguments)  # type: ignore[no-untyped-call]
    return total


class _FusedSoftmax(torch.autograd.Function):
    """Σ_p w_p (log Σ_i exp logit_pi − Σ_i s_pi logit_pi), its gradients computed on the way.

    With ``own`` logits of the positions these are one more column, and the target.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: torch.Tensor,
        keys: torch.Tensor,
        bias: torch.Tensor | None,
        log_scale: torch.Tensor,
        own: torch.Tensor | None,
        weights: torch.Tensor | None,
        setting: _Setting,
    ) -> torch.Tensor:
        wanted = [setting.with_gradients and need for need in ctx.needs_input_grad[:6]]
        double = torch.float64
        scale = log_scale.exp()
        length = keys.square().sum(dim=1)
        offsets = -scale * length if bias is None else bias - scale * length
        scaled = 2 * scale * queries
        blocks = _Pass(scaled, keys.contiguous(), offsets, own, weights, setting)
        blocks.run(need_queries=wanted[0] or wanted[3], need_keys=any(wanted[1:4]))

        terms = blocks.top + blocks.total.log() - blocks.peak * blocks.picked
        if setting.smoothing:
            # The mean logit of a position, without looking at the logits.
            every = scaled.to(double) @ keys.sum(dim=0, dtype=double) + offsets.sum(dtype=double)
            terms -= blocks.even * every
        loss = terms.sum() if weights is None else weights.to(double) @ terms
        if any(wanted):
            ctx.save_for_backward(*blocks.gradients(wanted, scale, length, terms))
        return loss.to(queries.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scaled = (None if saved is None else saved * grad for saved in ctx.saved_tensors)
        return (*scaled, None)


class _Pass:
    """The blocks of one pass over positions and items, and what they add up to.

    The logits' gradients G are never whole: a block of them goes into G k, Gᵀ q and the columns'
    sums, and is overwritten by the next.
    """

    def __init__(
        self,
        scaled: torch.Tensor,
        keys: torch.Tensor,
        offsets: torch.Tensor,
        own: torch.Tensor | None,
        weights: torch.Tensor | None,
        setting: _Setting,
    ) -> None:
        num_positions, num_items = len(scaled), len(keys)
        self.scaled, self.keys, self.offsets = scaled, keys, offsets.contiguous()
        self.own, self.weights = own, None if weights is None else weights.contiguous()
        self.targets = setting.targets.contiguous()
        self.items = None if setting.items is None else setting.items.contiguous()
        self.even = setting.smoothing / max(1, num_items)
        self.peak = 1.0 - setting.smoothing
        if own is None:
            self.picked = scaled.new_empty(num_positions)
            self.top = scaled.new_full((num_positions,), -torch.inf, dtype=torch.float64)
            self.total = torch.zeros_like(self.top)
        else:
            self.picked, self.top = own, own.to(torch.float64, copy=True)
            self.total = torch.ones_like(self.top)
        device = scaled.device.type
        budget = BUDGET.get(device, BUDGET["cuda"]) if setting.budget is None else setting.budget
        self.rows, self.columns = block_shape(
            num_positions, num_items, budget // scaled.element_size()
        )
        self.buffer = scaled.new_empty(self.rows * self.columns)
        self.ones = scaled.new_ones(self.rows)
        compiled = available() and device == "cpu" and scaled.dtype in KINDS
        self.work = softmax_rows if compiled else plain_rows
        self.to_queries: torch.Tensor | None = None
        self.to_keys: torch.Tensor | None = None
        self.column_sums: torch.Tensor | None = None

    def run(self, need_queries: bool, need_keys: bool) -> None:
        """Go through all blocks; G k and Gᵀ q where they are needed."""
        wanted = need_queries or need_keys
        if need_queries:
            self.to_queries = torch.zeros_like(self.scaled)
        if need_keys:
            self.to_keys = torch.zeros_like(self.keys)
            self.column_sums = torch.zeros_like(self.offsets)
        once = self.columns >= len(self.keys)
        for rows in _slices(len(self.scaled), self.rows):
            for columns in _slices(len(self.keys), self.columns):
                block = self.block(rows, columns, sums=True, gradient=wanted and once)
                if wanted and once:
                    self.add(block, rows, columns)
            if wanted and not once:
                # The sums are known only now: the logits are made a second time.
                for columns in _slices(len(self.keys), self.columns):
                    block = self.block(rows, columns, sums=False, gradient=True)
                    self.add(block, rows, columns)

    def block(self, rows: slice, columns: slice, *, sums: bool, gradient: bool) -> torch.Tensor:
        """Return the block's logits, worked over."""
        queries, keys = self.scaled[rows], self.keys[columns]
        block = self.buffer[: len(queries) * len(keys)].view(len(queries), len(keys))
        torch.mm(queries, keys.T, out=block)
        self.work(
            block, self.offsets[columns], self.targets[rows],
            None if self.weights is None else self.weights[rows],
            None if self.items is None else self.items[columns],
            self.top[rows], self.total[rows], self.picked[rows],
            first=columns.start, even=self.even, peak=self.peak, sums=sums, gradient=gradient,
        )  # fmt: skip
        return block

    def add(self, block: torch.Tensor, rows: slice, columns: slice) -> None:
        """Add a block of G to the products with it."""
        if self.to_queries is not None:
            self.to_queries[rows].addmm_(block, self.keys[columns])
        if self.to_keys is not None and self.column_sums is not None:
            self.to_keys[columns].addmm_(block.T, self.scaled[rows])
            self.column_sums[columns].addmv_(block.T, self.ones[: len(block)])

    def gradients(
        self, wanted: list[bool], scale: torch.Tensor, length: torch.Tensor, terms: torch.Tensor
    ) -> list[torch.Tensor | None]:
        """Return the loss's gradients in the inputs that want one.

        With h = G k and c the columns' sums: 2 τ h in the queries, Gᵀ 2 τ q − 2 τ c k in the keys,
        c in the bias, and Σ_p 2 τ q_p · h_p − τ Σ_i c_i ‖k_i‖² in log τ.
        """
        h, to_keys, sums = self.to_queries, self.to_keys, self.column_sums
        to_scale = to_own = None
        if wanted[3] and h is not None and sums is not None:
            near = (self.scaled * h).sum(dtype=torch.float64)
            far = (sums * length).sum(dtype=torch.float64)
            to_scale = (near - scale * far).to(scale.dtype)
        if to_keys is not None and sums is not None:
            # A slice at a time: no further tensor of the keys' size.
            for part in _slices(len(to_keys), 4096):
                to_keys[part] -= (2 * scale * sums[part])[:, None] * self.keys[part]
        if self.own is not None:
            share = (self.own - self.top).exp_() / self.total
            to_own = (share - 1).to(self.scaled.dtype)
            to_own = to_own if self.weights is None else to_own * self.weights
        to_queries = None if h is None else h.mul_(2 * scale)
        found = (to_queries, to_keys, sums, to_scale, to_own, terms.to(self.scaled.dtype))
        return [gradient if want else None for gradient, want in zip(found, wanted, strict=True)]


def block_shape(num_positions: int, num_items: int, budget: int) -> tuple[int, int]:
    """Return how many positions and items a block of at most ``budget`` logits has.

    All items, where that leaves positions enough for a product to be worth its while; each logit
    is then made once. Otherwise a part of both.
    """
    rows = max(1, min(num_positions, max(_FEWEST_ROWS, budget // 4 // max(1, num_items))))
    if rows * num_items <= budget:
        return rows, num_items
    rows = max(1, min(_ROWS_OF_PARTS, num_positions, budget))
    return rows, max(1, budget // rows)


def _slices(count: int, size: int) -> Iterator[slice]:
    """Cut 0 ... count − 1 into slices of at most ``size``."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _check_smoothing(share: float) -> None:
    if not 0.0 <= share < 1.0:
        raise ValueError(f"label_smoothing is {share}, not in [0, 1)")


def _check_rows(name: str, indices: torch.Tensor, num_items: int) -> None:
    """See to it that all indices are rows of the keys."""
    if not len(indices):
        return
    low, high = (int(end) for end in indices.aminmax())
    if low < 0 or high >= num_items:
        raise IndexError(
            f"{name} go from {low} to {high}; the rows of the keys go from 0 to {num_items - 1}"
        )
