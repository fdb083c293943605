"""The network of the accurate preset: the intent is a sum over the whole history."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.nn.functional import dropout as device_dropout
from torch.nn.functional import gelu, layer_norm, normalize, scaled_dot_product_attention

from attrec.config import ModelConfig
from attrec.model.prior import Attributes, ItemPrior, Side, unknown

Normal = Callable[..., nn.Parameter]
"""Makes a parameter of a shape with normal entries of a given ``std``."""

_LEAST = 1e-12
"""No length is divided by less; as `normalize` has it."""


class AdditiveNetwork(nn.Module):
    """Attention over the whole history that stays a sum over its events.

    With x_j the row of the j-th event's item, e_t a causal transformer's state at position t, and
    heads h = 1 … H,

        a^h_tj = softmax over j ≤ t of (Q_h e_t · K_h e_j / √(d/H) + r^h_(t−j)),
        m_t = Σ_j v_tj,   v_tj = w_tj / ‖Σ_j w_tj‖,   w_tj = Σ_h a^h_tj x_j R_h,
        y_i = ‖m_t − k_i‖² = 2 − 2 Σ_j v_tj · k_i,   ‖m_t‖ = ‖k_i‖ = 1.

    What an event adds to the intent is v_tj: its item's embedding through maps R_h of its own,
    weighted by attention that may look at everything. So the intent splits exactly over the events,
    ranking is a nearest-neighbour search over fixed keys, and nobody has a row of their own: a user
    unknown at training time gets what a known one with the same history gets.

    With ``identity_maps`` every R_h begins as the identity, and an event adds its item itself until
    the log has said what comes after it.

    An item has one row x_i, and its key k_i is that row's direction. Without ``tied_embeddings``
    the key is the direction of a second row, so that an item as an event of a history and as a
    candidate may be two things.

    After training an item may have an offset o_i ≥ 0 added to y_i, and items may come that were
    never trained, their keys k̂ of any length; see `lift`.

    Parameters
    ----------
    config : ModelConfig
    num_users : int
        Taken for the signature that all networks share; no parameter depends on it.
    num_items : int
        N.
    seed : int
        Of the initialisation.
    dtype : torch.dtype
    attributes : Attributes, optional
        Of the N items: `ItemPrior` then adds what they say to their rows.

    Attributes
    ----------
    item_key : (N, d) parameter
        What an item is, beside its prior; k is the direction, see `keys`.
    item_context : (N, d) parameter or None
        What it is as an event of a history, where that is another row.
    start : (d,) buffer
        The intent of an empty history; see `settle`.
    offset : (N,) buffer, ≥ 0
        o, the popularity of the moment; 0 where a model has none. See `with_offset`.
    folded_context, folded_key : (n, d) buffers
        x and k̂ of items that came after training, behind the trained ones. See `with_items`.
    """

    start: torch.Tensor
    offset: torch.Tensor
    folded_context: torch.Tensor
    folded_key: torch.Tensor

    def __init__(
        self,
        config: ModelConfig,
        num_users: int,
        num_items: int,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        attributes: Attributes | None = None,
    ) -> None:
        super().__init__()
        del num_users
        self.config = config
        d, H = config.embedding_dim, config.heads
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, std: float) -> nn.Parameter:
            values = torch.empty(*shape, dtype=dtype)
            return nn.Parameter(values.normal_(0.0, std, generator=generator))

        tied = config.tied_embeddings
        self.item_context = None if tied else normal(num_items, d, std=0.1)
        self.item_key = normal(num_items, d, std=0.1)
        self.blocks = nn.ModuleList(_Block(config, normal) for _ in range(config.blocks))
        self.norm = _Norm(d, dtype)
        self.look = normal(d, 2 * d, std=1.0 / math.sqrt(d))
        self.recency = nn.Parameter(_decays(H, config.window_length).to(dtype))
        if config.identity_maps:
            self.maps = nn.Parameter(torch.eye(d, dtype=dtype).repeat(H, 1))
        else:
            self.maps = normal(H * d, d, std=0.5 / math.sqrt(d))
        self.prior = None if attributes is None else ItemPrior(attributes, d, normal, tied)
        self.register_buffer("start", torch.zeros(d, dtype=dtype))
        self.register_buffer("offset", torch.zeros(num_items, dtype=torch.float64))
        self.register_buffer("folded_context", torch.zeros(0, d, dtype=dtype))
        self.register_buffer("folded_key", torch.zeros(0, d, dtype=dtype))
        self.eval()  # a training step turns dropout on for itself

    @property
    def num_users(self) -> int:
        """0: no user has a row."""
        return 0

    @property
    def num_items(self) -> int:
        """N: trained items, and those that came later."""
        return len(self.item_key) + len(self.folded_key)

    @property
    def num_trained_items(self) -> int:
        """Items with rows of their own."""
        return len(self.item_key)

    @property
    def unplaced(self) -> torch.Tensor:
        """(n,) int64: items that came after training and that nothing is known of."""
        return (self.folded_key == 0).all(dim=1).nonzero()[:, 0] + self.num_trained_items

    @property
    def is_lifted(self) -> bool:
        """Whether a key has a coordinate more than a query's direction; see `lift`."""
        return len(self.folded_key) > 0 or bool(self.offset.any())

    def intents(self, items: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return m_t at every position of packed histories.

        Parameters
        ----------
        items : (P,) int64
            The items of all histories, one after the other, each oldest first.
        lengths : (B,) int64
            Of the histories, each at least 1 and at most ``window_length``.

        Returns
        -------
        (P, d) tensor
        """
        grid = _Grid.of(lengths)
        x = self._drop(self.contexts(items))
        weights = self._weights(self._states(x, grid), grid)
        attended = weights @ grid.spread(x)[:, None]
        return self.directed(grid.packed(attended.transpose(1, 2).flatten(2)) @ self.maps)

    def last_intents(
        self, items: torch.Tensor, lengths: torch.Tensor, *, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Return m at the newest position of each packed history: (B, d).

        With ``dtype`` everything is computed in it (float64 when serving).
        """
        grid = _Grid.of(lengths)
        x = self.contexts(items).to(dtype or self.item_key.dtype)
        weights = self._weights(self._states(x, grid), grid, newest=True)
        attended = weights @ grid.spread(x)[:, None]
        return self.directed(attended.flatten(1) @ self.maps.to(x.dtype))

    def contributions(
        self, items: torch.Tensor, *, dtype: torch.dtype | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the intent of one history apart.

        Parameters
        ----------
        items : (n,) int64
            Oldest first.

        Returns
        -------
        weights : (H, n) tensor
            a^h of the newest position; each head's sum is 1.
        parts : (n, d) tensor
            v_j, whose sum is m.
        """
        grid = _Grid.of(torch.tensor([len(items)], device=items.device))
        x = self.contexts(items).to(dtype or self.item_key.dtype)
        weights = self._weights(self._states(x, grid), grid, newest=True)[0, :, 0]
        H, d = self.config.heads, self.config.embedding_dim
        mapped = torch.einsum("nd,hde->hne", x, self.maps.to(x.dtype).view(H, d, d))
        parts = (weights[:, :, None] * mapped).sum(dim=0)
        return weights, parts / parts.sum(dim=0).norm().clamp(min=_LEAST)

    def newest_weights(
        self, items: torch.Tensor, lengths: torch.Tensor, *, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Return a^h of each history's newest position: (B, H, L), 0 behind its last event."""
        grid = _Grid.of(lengths)
        x = self.contexts(items).to(dtype or self.item_key.dtype)
        return self._weights(self._states(x, grid), grid, newest=True)[:, :, 0]

    def contexts(self, items: torch.Tensor | None = None) -> torch.Tensor:
        """Return x of some items, or of all: (n, d)."""

        def trained(items: torch.Tensor | None) -> torch.Tensor:
            table = self.item_key if self.item_context is None else self.item_context
            rows = table if items is None else table[items]
            return rows if self.prior is None else rows + self._prior("context", items)

        return self._with_folded(trained, self.folded_context, items)

    def keys(
        self, items: torch.Tensor | None = None, *, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Return k of some items, or of all: (n, d), of length 1; k̂ of items after training."""

        def trained(items: torch.Tensor | None) -> torch.Tensor:
            rows = self.item_key if items is None else self.item_key[items]
            if self.prior is not None:
                rows = rows + self._prior("key", items)
            return self.directed(rows.to(dtype or rows.dtype))

        return self._with_folded(trained, self.folded_key.to(dtype or self.item_key.dtype), items)

    def directed(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows of length 1, as intents and keys are: (n, d)."""
        return normalize(rows, dim=1)

    @cached_property
    def raised(self) -> float:
        """What is added to every distance where a key k̂ is longer than 1: c ≥ 0, see `lift`."""
        if len(self.folded_key) == 0:
            return 0.0
        longest = float(self.folded_key.double().square().sum(dim=1).max())
        return max(0.0, longest - 1.0)

    @torch.no_grad()
    def lift(self, items: torch.Tensor | None = None) -> torch.Tensor:
        """Return l² of some items, or of all: (n,) float64, the square of a further coordinate.

        Queries are 0 there, so that ‖(m, 0) − (k, l)‖² = 2 − 2 m · k + o + c: an offset, and a key
        k̂ of any length, leave the distance a distance. l² = 1 − ‖k̂‖² + o + c; of trained items
        o + c. No l² is below 0, as c = max(0, max ‖k̂‖² − 1); it is added to every distance alike.
        """
        first = len(self.item_key)
        if items is None:
            items = torch.arange(self.num_items, device=self.offset.device)
        squares = self.offset[items] + self.raised
        late = items >= first
        if bool(late.any()):
            lengths = self.folded_key[items[late] - first].double().square().sum(dim=1)
            squares[late] += 1.0 - lengths
        return squares.clamp(min=0.0)

    @torch.no_grad()
    def with_offset(self, offset: torch.Tensor) -> AdditiveNetwork:
        """Return this network with another o, (N,); everything else is shared."""
        return self._with(offset=offset.to(self.offset))

    @torch.no_grad()
    def with_items(
        self, contexts: torch.Tensor, keys: torch.Tensor, described: Attributes | None = None
    ) -> AdditiveNetwork:
        """Return this network with other items behind the trained ones; their offset is 0.

        Parameters
        ----------
        contexts, keys : (n, d) tensor
            x and k̂; k̂ = 0 of an item that nothing is known of.
        described : Attributes, optional
            Of these items. They are in x and k̂ already, and kept for who makes those anew.
        """
        first = len(self.item_key)
        offset = self.offset.new_zeros(first + len(keys))
        offset[:first] = self.offset[:first]
        like = self.item_key
        other = self._with(
            offset=offset, folded_context=contexts.to(like), folded_key=keys.to(like)
        )
        if self.prior is not None:
            kept = described or unknown(len(keys), self.prior.behind(first))
            other._modules = {**self._modules, "prior": self.prior.followed_by(first, kept)}
        return other

    @torch.no_grad()
    def keeping(self, users: torch.Tensor, items: torch.Tensor) -> AdditiveNetwork:
        """Return this network with the rows of these items alone; everything else is shared.

        Parameters
        ----------
        users : tensor
            Taken for the signature that all networks share; nobody has a row.
        items : (n,) int64
            Ascending.
        """
        del users
        first = len(self.item_key)
        trained, late = items[items < first], items[items >= first] - first
        other = self._with(
            offset=self.offset[items],
            folded_context=self.folded_context[late],
            folded_key=self.folded_key[late],
        )
        tables = {"item_context": self.item_context, "item_key": self.item_key}
        other._parameters = {
            **self._parameters,
            **{name: None if t is None else nn.Parameter(t[trained]) for name, t in tables.items()},
        }
        if self.prior is not None:
            other._modules = {**self._modules, "prior": self.prior.keeping(items)}
        return other

    @torch.no_grad()
    def unplacing(self, items: torch.Tensor) -> AdditiveNetwork:
        """Return this network as if nothing were known of these items, which came after training.

        Parameters
        ----------
        items : (n,) int64
        """
        if len(items) == 0:
            return self
        late = items - len(self.item_key)
        offset, context, key = (
            table.clone() for table in (self.offset, self.folded_context, self.folded_key)
        )
        context[late], key[late] = 0.0, 0.0
        offset[items] = offset.max()  # as of an item that nobody takes
        return self._with(offset=offset, folded_context=context, folded_key=key)

    def _with(self, **buffers: torch.Tensor) -> AdditiveNetwork:
        other = copy.copy(self)
        other._buffers = {**self._buffers, **buffers}  # the copy shares everything else
        other.__dict__.pop("raised", None)  # but what was derived from other keys
        return other

    def _prior(self, side: Side, items: torch.Tensor | None) -> torch.Tensor:
        """Return p of some trained items, or of all."""
        assert self.prior is not None
        rows = self.prior.rows(side, items)
        return rows if items is not None else rows[: len(self.item_key)]

    def _with_folded(
        self,
        trained: Callable[[torch.Tensor | None], torch.Tensor],
        folded: torch.Tensor,
        items: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return rows of trained items, and of those behind them."""
        first = len(self.item_key)
        if len(folded) == 0:
            return trained(items)
        if items is None:
            return torch.cat([trained(None), folded])
        late = items >= first
        rows = folded.new_empty(len(items), folded.shape[1])
        rows[~late] = trained(items[~late])
        rows[late] = folded[items[late] - first]
        return rows

    @torch.no_grad()
    def settle(self, counts: torch.Tensor) -> None:
        """Give an empty history the intent that is nearest, in sum, to all events' keys.

        Parameters
        ----------
        counts : (N,) tensor
            How often each item was taken.
        """
        total = counts.double() @ self.keys(dtype=torch.float64)
        self.start.copy_(normalize(total, dim=0))

    def _states(self, x: torch.Tensor, grid: _Grid) -> torch.Tensor:
        states = x
        for block in self.blocks:
            states = block(states, grid)
        normed: torch.Tensor = self.norm(states)
        return normed

    def _weights(self, states: torch.Tensor, grid: _Grid, *, newest: bool = False) -> torch.Tensor:
        """Return a (B, H, L, L), or (B, H, 1, L) of each history's newest position."""
        H = self.config.heads
        queries, keys = (states @ self.look.to(states.dtype)).chunk(2, dim=1)
        keys = grid.heads(keys, H)
        if newest:
            queries = queries[grid.newest].view(len(grid.newest), H, 1, -1)
        else:
            queries = grid.heads(queries, H)
        affinity = queries @ keys.transpose(2, 3) / math.sqrt(keys.shape[-1])
        recency = self.recency.to(states.dtype)
        bias = grid.newest_bias(recency) if newest else grid.causal_bias(recency)
        return (affinity + bias).softmax(dim=-1)

    def _drop(self, rows: torch.Tensor) -> torch.Tensor:
        return _dropout(rows, self.config.dropout, self.training)


class _Block(nn.Module):
    """A causal transformer block with pre-normalisation; its states choose weights only."""

    def __init__(self, config: ModelConfig, normal: Normal) -> None:
        super().__init__()
        d = config.embedding_dim
        self.heads = config.heads
        small = 0.5 / math.sqrt(d * config.blocks)
        self.inputs = normal(d, 3 * d, std=1.0 / math.sqrt(d))
        self.output = normal(d, d, std=small)
        self.inner = normal(d, 4 * d, std=1.0 / math.sqrt(d))
        self.outer = normal(4 * d, d, std=small / 2)
        self.first = _Norm(d, self.inputs.dtype)
        self.second = _Norm(d, self.inputs.dtype)
        self.recency = nn.Parameter(
            _decays(config.heads, config.window_length).to(self.inputs.dtype)
        )

    def forward(self, states: torch.Tensor, grid: _Grid) -> torch.Tensor:
        like = states.dtype
        parts = (self.first(states) @ self.inputs.to(like)).chunk(3, dim=1)
        queries, keys, values = (grid.heads(part, self.heads) for part in parts)
        attended = scaled_dot_product_attention(
            queries, keys, values, attn_mask=grid.causal_bias(self.recency.to(like))
        )
        merged = grid.packed(attended.transpose(1, 2).flatten(2)) @ self.output.to(like)
        states = states + merged
        wide = gelu(self.second(states) @ self.inner.to(like)) @ self.outer.to(like)
        return states + wide


class _Norm(nn.Module):
    """Layer normalisation in the type of what comes in."""

    def __init__(self, d: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(d, dtype=dtype))
        self.eps = 1e-5

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.to(rows.dtype), self.bias.to(rows.dtype)
        return layer_norm(rows, rows.shape[-1:], weight, bias, self.eps)


@dataclass(frozen=True, eq=False)
class _Grid:
    """Packed rows (P, …) seen as a grid (B, L, …): each history from the left, then padding.

    Under a causal mask no row of a history looks at the padding behind it.
    """

    lengths: torch.Tensor
    longest: int
    slots: torch.Tensor | None
    """(P,) int64: of each packed row in the flat grid; None where the grid has no padding."""

    @classmethod
    def of(cls, lengths: torch.Tensor) -> _Grid:
        longest = int(lengths.max())
        if bool((lengths == longest).all()):
            return cls(lengths, longest, None)
        inside = torch.arange(longest, device=lengths.device) < lengths[:, None]
        return cls(lengths, longest, inside.flatten().nonzero()[:, 0])

    @property
    def newest(self) -> torch.Tensor:
        """(B,): the packed row of each history's newest position."""
        return self.lengths.cumsum(0) - 1

    def spread(self, rows: torch.Tensor) -> torch.Tensor:
        """(P, d) to (B, L, d)."""
        B, L = len(self.lengths), self.longest
        if self.slots is None:
            return rows.view(B, L, -1)
        return rows.new_zeros(B * L, rows.shape[1]).index_copy(0, self.slots, rows).view(B, L, -1)

    def packed(self, cells: torch.Tensor) -> torch.Tensor:
        """(B, L, d) to (P, d)."""
        flat = cells.flatten(0, 1)
        return flat if self.slots is None else flat.index_select(0, self.slots)

    def heads(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """(P, H c) to (B, H, L, c)."""
        cells = self.spread(rows)
        return cells.view(*cells.shape[:2], count, -1).transpose(1, 2)

    def causal_bias(self, recency: torch.Tensor) -> torch.Tensor:
        """(H, L, L): r of the age t − j, −∞ for what comes later."""
        place = torch.arange(self.longest, device=recency.device)
        age = place[:, None] - place
        return self._bias(recency, age)

    def newest_bias(self, recency: torch.Tensor) -> torch.Tensor:
        """(B, H, 1, L): r of the age as the newest position sees it."""
        place = torch.arange(self.longest, device=recency.device)
        age = self.lengths[:, None] - 1 - place
        return self._bias(recency, age).transpose(0, 1)[:, :, None]

    @staticmethod
    def _bias(recency: torch.Tensor, age: torch.Tensor) -> torch.Tensor:
        bias = recency.index_select(1, age.clamp(min=0).flatten()).view(-1, *age.shape)
        return bias.masked_fill(age < 0, -math.inf)


def _dropout(rows: torch.Tensor, share: float, training: bool) -> torch.Tensor:
    """Drop entries, and scale what is left so that the mean stays.

    On a CPU one draw of 64 random bits serves four entries (the share is then a multiple of
    2⁻¹⁶): PyTorch's own draw for each entry took a twelfth of a training step.
    """
    if not training or share == 0.0 or rows.device.type != "cpu":
        return device_dropout(rows, share, training)
    bits = torch.empty(-(-rows.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    dropped = round(share * 2**16)
    kept = bits.view(torch.int16)[: rows.numel()].view(rows.shape) >= dropped - 2**15
    return rows * kept.to(rows.dtype).mul_(2**16 / (2**16 - dropped))


def _decays(heads: int, length: int) -> torch.Tensor:
    """(H, W): r at initialisation, − 2^(−1.5 h) log(1 + age): from fast decay to slow."""
    slopes = 2.0 ** (-1.5 * torch.arange(heads, dtype=torch.float64))
    return -slopes[:, None] * torch.arange(length, dtype=torch.float64).log1p()
