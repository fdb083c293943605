"""What an item's attributes say about its vectors before anybody took it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import embedding_bag

Side = Literal["context", "key"]


class Attributes(NamedTuple):
    """What is known of N items, as numbers.

    Attributes
    ----------
    num_categories : int
        A.
    categories : (E,) int64
        Of all items, one after the other; item i has those from offsets[i] to offsets[i + 1].
    offsets : (N + 1,) int64
    vectors : (N, D) float32
    """

    num_categories: int
    categories: npt.NDArray[np.integer]
    offsets: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]

    @property
    def told(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: items that anything is known of."""
        told: npt.NDArray[np.bool_] = (np.diff(self.offsets) > 0) | self.vectors.any(axis=1)
        return told


def unknown(n: int, like: Attributes) -> Attributes:
    """Return the attributes of ``n`` items that nothing is known of."""
    vectors = np.zeros((n, like.vectors.shape[1]), np.float32)
    return Attributes(
        like.num_categories, np.zeros(0, np.int64), np.zeros(n + 1, np.int64), vectors
    )


class ItemPrior(nn.Module):
    """Prior of an item's rows: p_i = Σ_a C_a / √|A_i| + f_i F.

    A_i are the item's categories, C a table with a row for each, f_i the item's own vector and F a
    map of it; `AdditiveNetwork` adds p_i to the item's own row. Where an item has a second row, as
    an event of a history, that has a prior with tables of its own. What items share is so learnt
    once, and an item that nobody took yet has a place.

    Parameters
    ----------
    attributes : Attributes
        Of N items, and of those that came after the training behind them.
    d : int
        Size of the rows.
    normal : callable
        Makes a parameter of a shape, of entries with standard deviation ``std``.
    tied : bool
        Whether an item has one row.
    """

    entries: torch.Tensor
    offsets: torch.Tensor
    vectors: torch.Tensor

    def __init__(
        self, attributes: Attributes, d: int, normal: Callable[..., nn.Parameter], tied: bool
    ) -> None:
        super().__init__()
        count, width = attributes.num_categories, attributes.vectors.shape[1]
        self.category_context = None if tied else normal(count, d, std=0.1)
        self.category_key = normal(count, d, std=0.1)
        self.vector_context = None if tied else normal(width, d, std=0.1)
        self.vector_key = normal(width, d, std=0.1)
        like = self.category_key.dtype
        self.register_buffer("entries", torch.as_tensor(attributes.categories).long())
        self.register_buffer("offsets", torch.as_tensor(attributes.offsets).long())
        self.register_buffer("vectors", torch.as_tensor(attributes.vectors).to(like))

    def rows(self, side: Side, items: torch.Tensor | None = None) -> torch.Tensor:
        """Return p of some items (n,), or of all: (n, d)."""
        lengths = self.offsets.diff()
        if items is None:
            return self._sum(side, self.entries, lengths, self.vectors)
        starts, chosen = self.offsets[:-1][items], lengths[items]
        before = (chosen.cumsum(0) - chosen).repeat_interleave(chosen)
        places = torch.arange(len(before), device=before.device) - before
        entries = self.entries[places + starts.repeat_interleave(chosen)]
        return self._sum(side, entries, chosen, self.vectors[items])

    def behind(self, first: int) -> Attributes:
        """Return what is known of the items from the ``first`` on."""
        begin = int(self.offsets[first])
        return Attributes(
            len(self.category_key),
            self.entries[begin:].cpu().numpy(),
            (self.offsets[first:] - begin).cpu().numpy(),
            self.vectors[first:].float().cpu().numpy(),
        )

    def followed_by(self, first: int, others: Attributes) -> ItemPrior:
        """Return the prior of the ``first`` items and of others behind them; tables are shared."""
        entries, offsets, vectors = (
            torch.as_tensor(part, device=self.entries.device) for part in others[1:]
        )
        end = self.offsets[first]
        return self._with(
            torch.cat([self.entries[:end], entries.to(self.entries)]),
            torch.cat([self.offsets[: first + 1], offsets[1:].to(self.offsets) + end]),
            torch.cat([self.vectors[:first], vectors.to(self.vectors)]),
        )

    def keeping(self, items: torch.Tensor) -> ItemPrior:
        """Return the prior of these items alone; its tables are shared."""
        lengths = self.offsets.diff()
        kept = torch.zeros(len(lengths), dtype=torch.bool, device=items.device)
        kept[items] = True
        ends = lengths[items].cumsum(0)
        return self._with(
            self.entries[kept.repeat_interleave(lengths)],
            torch.cat([self.offsets[:1], ends]),
            self.vectors[items],
        )

    def _with(
        self, entries: torch.Tensor, offsets: torch.Tensor, vectors: torch.Tensor
    ) -> ItemPrior:
        other = copy.copy(self)
        other._buffers = {
            **self._buffers, "entries": entries, "offsets": offsets, "vectors": vectors
        }  # fmt: skip
        return other

    def _sum(
        self, side: Side, entries: torch.Tensor, lengths: torch.Tensor, vectors: torch.Tensor
    ) -> torch.Tensor:
        table, mapped = self.category_key, self.vector_key
        if side == "context" and self.category_context is not None:
            assert self.vector_context is not None
            table, mapped = self.category_context, self.vector_context
        found = vectors @ mapped
        if len(entries) == 0:
            return found
        weights = lengths.clamp(min=1).to(table.dtype).rsqrt().repeat_interleave(lengths)
        starts = lengths.cumsum(0) - lengths
        return found + embedding_bag(entries, table, starts, mode="sum", per_sample_weights=weights)
