"""The tables X, V, U and W, and what is computed from them."""

from __future__ import annotations

import copy

import torch
from torch import nn

from attrec.config import ModelConfig
from attrec.errors import ConfigError
from attrec.model.attention import aggregate, attention_weights, intent_shares, project
from attrec.model.distance import joint_distance, squared_distance
from attrec.model.positions import time_signal
from attrec.native.pages import on_large_pages


class AttRecNetwork(nn.Module):
    """The model of the paper, equations (1) to (10).

    Parameters
    ----------
    config : ModelConfig
    num_users, num_items : int
        M and N.
    seed : int
        Of the initialisation: embeddings normal with ``init_std``, W Xavier-uniform.
    dtype : torch.dtype

    Attributes
    ----------
    item_short : (N, d) parameter
        X: input of the attention and the short-term side of the score.
    item_long : (N, d) parameter
        V, long-term item factors.
    user_long : (M, d) parameter
        U, long-term user factors.
    projection : (d, d) parameter
        W = W_Q = W_K, without bias.
    num_trained_items : int
        Rows of X and V before those of items that came later.

    Notes
    -----
    In every (B, L) window of item indices a negative entry is padding.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_users: int,
        num_items: int,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_trained_items = num_items
        d = config.embedding_dim
        generator = torch.Generator().manual_seed(seed)

        def table(rows: int) -> nn.Parameter:
            values = on_large_pages(torch.empty(rows, d, dtype=dtype))
            return nn.Parameter(values.normal_(0.0, config.init_std, generator=generator))

        self.item_short = table(num_items)
        self.item_long = table(num_items)
        self.user_long = table(num_users)
        self.projection = nn.Parameter(torch.empty(d, d, dtype=dtype))
        nn.init.xavier_uniform_(self.projection, generator=generator)

    @property
    def num_users(self) -> int:
        """M: rows of U."""
        return self.user_long.shape[0]

    @property
    def num_items(self) -> int:
        """N: rows of X and V, those of items that came after training included."""
        return self.item_short.shape[0]

    @property
    def unplaced(self) -> torch.Tensor:
        """(n,) int64: items that came after training and that nothing is known of."""
        rows = self.item_short[self.num_trained_items :]
        return (rows == 0).all(dim=1).nonzero()[:, 0] + self.num_trained_items

    @torch.no_grad()
    def with_items(self, short: torch.Tensor, long: torch.Tensor) -> AttRecNetwork:
        """Return this network with other items behind the trained ones; the rest is shared.

        Parameters
        ----------
        short, long : (n, d) tensor
            X and V of these; 0 of an item that nothing is known of.
        """
        other = copy.copy(self)
        other._parameters = dict(self._parameters)  # the copy shares everything else
        for name, rows in (("item_short", short), ("item_long", long)):
            table = getattr(self, name)
            trained = table[: self.num_trained_items]
            other._parameters[name] = nn.Parameter(torch.cat([trained, rows.to(table)]))
        return other

    def keeping(self, users: torch.Tensor, items: torch.Tensor) -> AttRecNetwork:
        """Return this network with the rows of these users and items alone; W is shared.

        Parameters
        ----------
        users, items : (m,) and (n,) int64
            Ascending.
        """
        other = copy.copy(self)
        other._parameters = dict(self._parameters)
        for name, rows in (("item_short", items), ("item_long", items), ("user_long", users)):
            other._parameters[name] = nn.Parameter(getattr(self, name).detach()[rows])
        other.num_trained_items = int((items < self.num_trained_items).sum())
        return other

    @torch.no_grad()
    def unplacing(self, items: torch.Tensor) -> AttRecNetwork:
        """Return this network as if nothing were known of these items, which came after training.

        Parameters
        ----------
        items : (n,) int64
        """
        late = items - self.num_trained_items
        tables = [t[self.num_trained_items :].clone() for t in (self.item_short, self.item_long)]
        for table in tables:
            table[late] = 0.0
        return self.with_items(*tables)

    def attention(
        self,
        windows: torch.Tensor,
        *,
        dtype: torch.dtype | None = None,
        dropout_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the weights s of (4) for windows of items.

        Parameters
        ----------
        windows : (B, L) int64
            Item indices, oldest first, left-padded with negative entries.
        dtype : torch.dtype, optional
            The gathered rows are cast to it first (float64 when serving).
        dropout_mask : (B, L, d) tensor, optional
            Multiplies Q' = K': 0 or 1 / (1 - dropout). For training only.

        Returns
        -------
        (B, L, L) tensor
            Rows of padding are 0.
        """
        rows, mask = self._window_rows(windows, dtype)
        return self._weights(rows, mask, dropout_mask)

    def shares(self, windows: torch.Tensor, *, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return c (B, L) with m = Σ_j c_j X_j; see `intent_shares`.

        Raises
        ------
        ConfigError
            The aggregation is max or min, which mixes per dimension.
        """
        if self.config.aggregation in ("max", "min"):
            raise ConfigError(
                f"aggregation = {self.config.aggregation!r} has no share of an event in the "
                "intent; train with mean or sum, or read the explanation per dimension"
            )
        rows, mask = self._window_rows(windows, dtype)
        return intent_shares(self._weights(rows, mask, None), mask, self.config.aggregation)

    def intent(
        self,
        windows: torch.Tensor,
        *,
        dtype: torch.dtype | None = None,
        dropout_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the short-term intent m (B, d): (5) and (6); 0 for an empty window."""
        rows, mask = self._window_rows(windows, dtype)
        weights = self._weights(rows, mask, dropout_mask)
        return aggregate(self.attend(weights, rows), mask, self.config.aggregation)

    def distances(
        self,
        users: torch.Tensor,
        windows: torch.Tensor,
        candidates: torch.Tensor,
        *,
        dropout_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return y of (10) for candidates of each window.

        Parameters
        ----------
        users : (B,) int64
        windows : (B, L) int64
        candidates : (B, C) int64
            Item indices; a negative entry gives the distance of item 0, to be masked by the caller.

        Returns
        -------
        (B, C) tensor, ≥ 0
        """
        chosen = candidates.clamp(min=0)
        intent = self.intent(windows, dropout_mask=dropout_mask)
        long_term = self.compare(self.user_long[users][:, None], self.item_long[chosen])
        short_term = self.compare(intent[:, None], self.item_short[chosen])
        return joint_distance(long_term, short_term, self.config.long_term_weight)

    forward = distances

    # The four parts of the equations that can be read, and replaced, one by one.

    def project(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return Q' and K' (2, 3) of rows (B, L, d)."""
        length, d = rows.shape[1:]
        signal = time_signal(length, d, dtype=rows.dtype, device=rows.device)
        queries = project(rows, signal, self.projection.to(rows.dtype))
        return queries, queries

    def weigh(self, queries: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return s of (4)."""
        return attention_weights(queries, keys, mask)

    def attend(self, weights: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return a = s X of (5): the value map is the identity."""
        return weights @ rows

    def compare(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return the squared distance of (9)."""
        return squared_distance(first, second)

    def _window_rows(
        self, windows: torch.Tensor, dtype: torch.dtype | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mask = windows >= 0
        rows = self.item_short[windows.clamp(min=0)]
        if dtype is not None:
            rows = rows.to(dtype)
        return rows, mask

    def _weights(
        self, rows: torch.Tensor, mask: torch.Tensor, dropout_mask: torch.Tensor | None
    ) -> torch.Tensor:
        queries, keys = self.project(rows)
        if dropout_mask is not None:
            queries, keys = queries * dropout_mask, keys * dropout_mask
        return self.weigh(queries, keys, mask)
