"""Keys and queries: the distance that ranks as one squared Euclidean distance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad

from attrec.data.cases import Cases
from attrec.data.ragged import Ragged
from attrec.data.sequences import last_items, newest
from attrec.foldin import user_factors
from attrec.model.additive import AdditiveNetwork
from attrec.model.choice import Network
from attrec.model.network import AttRecNetwork

_ROWS_AT_ONCE = 65_536
_FAR = 1e6
"""‖k‖² of an item that nothing is known of: it stands behind all others."""
_CELLS_AT_ONCE = 16_384
"""Positions, padding included, that the additive network sees together."""


@torch.no_grad()
def item_keys(network: Network, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the key of every item, its long-term coordinates first.

    k_i = [√ω V_i ; √(1−ω) X_i] of the paper's network, and the unit vector k_i of the additive one,
    with a coordinate more where there are offsets or items that came after training.

    Parameters
    ----------
    network : Network
    dtype : torch.dtype
        Of the result; the product is rounded to it once.

    Returns
    -------
    (N, 2d), (N, d) or (N, d + 1) tensor
        On the network's device.
    """
    if isinstance(network, AdditiveNetwork):
        return bare_keys(network, dtype=dtype)
    d = network.config.embedding_dim
    keys = torch.empty(network.num_items, 2 * d, dtype=dtype, device=network.item_long.device)
    long_weight, short_weight = _root_weights(network)
    for start in range(0, network.num_items, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        keys[rows, :d] = network.item_long[rows].double() * long_weight
        keys[rows, d:] = network.item_short[rows].double() * short_weight
    return keys


@torch.no_grad()
def query_vectors(
    network: Network,
    user_index: npt.NDArray[Any],
    histories: Ragged,
    *,
    dtype: torch.dtype = torch.float64,
    l2: float = 0.0,
) -> torch.Tensor:
    """Return q with which y = ‖q − k_i‖²: [√ω U_u ; √(1−ω) m], or m of the additive network.

    Parameters
    ----------
    network : Network
    user_index : (n,) integer
        Row of U; negative, or M and above, for a user without one, who is folded in from the
        history. The additive network asks nobody who they are.
    histories : Ragged of n lists
        Item indices, oldest first. The newest L make the window.
    dtype : torch.dtype
        The gathered rows are cast to it before anything is computed.
    l2 : float, ≥ 0
        λ' of the fold-in, see `user_factors`.

    Returns
    -------
    (n, 2d), (n, d) or (n, d + 1) tensor
        On the network's device.
    """
    queries = bare_queries(network, user_index, histories, dtype=dtype, l2=l2)
    if not isinstance(network, AdditiveNetwork):
        d = network.config.embedding_dim
        long_weight, short_weight = _root_weights(network)
        queries[:, :d] *= long_weight
        queries[:, d:] *= short_weight
    return queries


@torch.no_grad()
def bare_keys(
    network: Network,
    items: npt.NDArray[Any] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the keys of some items, or of all, without ω: [V_i ; X_i], or k_i of the additive net.

    With `bare_queries`, y = ω ‖q − k_i‖² over the first `long_term_width` coordinates plus
    (1 − ω) ‖q − k_i‖² over the others, for any ω; the additive network has the second sum alone,
    its k_i lifted where there are offsets or items that came after training.

    Parameters
    ----------
    network : Network
    items : (n,) integer, optional
        Item indices; all items without it.
    dtype : torch.dtype
        Of the result.

    Returns
    -------
    (n, D) tensor
        On the network's device.
    """
    if isinstance(network, AdditiveNetwork):
        chosen = None if items is None else torch.as_tensor(items, device=network.item_key.device)
        found = network.keys(chosen, dtype=torch.float64)
        if network.is_lifted:
            found = torch.cat([found, network.lift(chosen).sqrt()[:, None]], dim=1)
        return found.to(dtype)
    tables = (network.item_long, network.item_short)
    if items is not None:
        asked = torch.as_tensor(items, device=network.item_long.device)
        return torch.cat([table[asked].to(dtype) for table in tables], dim=1)
    return torch.cat([table.detach().to(dtype) for table in tables], dim=1)


@torch.no_grad()
def item_points(network: Network, items: npt.NDArray[Any]) -> torch.Tensor:
    """Return some items as if they were asking: their bare keys, 0 where queries are 0.

    An asker at an item's own point has the distance ‖V_j − V_i‖² and ‖X_j − X_i‖² to every item i,
    or 2 − 2 k_j · k_i + o_i of the additive network's trained items.

    Returns
    -------
    (n, D) float64 tensor
        On the network's device.
    """
    points = bare_keys(network, items, dtype=torch.float64)
    if isinstance(network, AdditiveNetwork) and network.is_lifted:
        points[:, -1] = 0.0
    return points


@torch.no_grad()
def bare_queries(
    network: Network,
    user_index: npt.NDArray[Any],
    histories: Ragged,
    *,
    dtype: torch.dtype = torch.float64,
    l2: float = 0.0,
) -> torch.Tensor:
    """Return the queries without ω: [U_u ; m], or m of the additive network.

    Parameters and shape as for `query_vectors`.
    """
    if isinstance(network, AdditiveNetwork):
        intents = additive_intents(network, histories, dtype)
        return pad(intents, (0, 1)) if network.is_lifted else intents
    device = network.item_short.device
    windows = torch.as_tensor(last_items(histories, network.config.window_length), device=device)
    intent = network.intent(windows, dtype=dtype)
    users = user_vectors(network, user_index, histories, dtype=dtype, l2=l2)
    return torch.cat([users, intent], dim=1)


def long_term_width(network: Network) -> int:
    """Return how many coordinates of keys and queries are the long-term part."""
    return 0 if isinstance(network, AdditiveNetwork) else network.config.embedding_dim


@torch.no_grad()
def additive_intents(
    network: AdditiveNetwork, histories: Ragged, dtype: torch.dtype
) -> torch.Tensor:
    """Return m of each history's newest items, (n, d)."""
    kept = newest(histories, network.config.window_length)
    device, lengths = network.item_key.device, kept.lengths
    result = network.start.to(dtype).repeat(len(kept), 1)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    while len(order):
        # The longest come last: a batch of neighbours has little padding.
        count = max(1, _CELLS_AT_ONCE // int(lengths[order[-1]]))
        chosen, order = order[-count:], order[:-count]
        part = kept.take(chosen)
        items = torch.as_tensor(part.values.astype(np.int64), device=device)
        sizes = torch.as_tensor(part.lengths, device=device)
        places = torch.as_tensor(chosen, device=device)
        result[places] = network.last_intents(items, sizes, dtype=dtype)
    return result


@torch.no_grad()
def user_vectors(
    network: AttRecNetwork,
    user_index: npt.NDArray[Any],
    histories: Ragged,
    *,
    dtype: torch.dtype = torch.float64,
    l2: float = 0.0,
) -> torch.Tensor:
    """Return U_u (n, d): the trained row where there is one, else the fold-in of the history.

    Parameters as for `query_vectors`.
    """
    index = np.asarray(user_index, dtype=np.int64)
    trained = (index >= 0) & (index < network.num_users)
    device = network.user_long.device
    users = torch.empty(len(index), network.config.embedding_dim, dtype=dtype, device=device)
    flags = torch.as_tensor(trained, device=device)
    users[flags] = network.user_long[torch.as_tensor(index[trained], device=device)].to(dtype)
    if not trained.all():
        # Trained rows alone: a new user and a new item never define each other.
        asked = histories.take(np.flatnonzero(~trained))
        asked = asked.where(asked.values < network.num_trained_items)
        users[~flags] = user_factors(network.item_long, asked, l2=l2, dtype=dtype)
    return users


class NetworkScorer:
    """AttRec as an evaluation scorer: cases in, float32 distances to the whole catalogue out.

    Parameters
    ----------
    network : Network
        Its keys are computed once, here: make a new scorer after a further training step.

    Attributes
    ----------
    lifted_keys : (N, D + 2) float32 tensor
        [−2k, ‖k‖², 1].

    Notes
    -----
    ‖q − k‖² = [q, 1, ‖q‖²] · [−2k, ‖k‖², 1] is one matrix product, rounded in float32, so a
    distance of nearly 0 may come out slightly negative.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        keys = item_keys(network, torch.float32)
        width = keys.shape[1]
        self.lifted_keys = keys.new_ones(len(keys), width + 2)
        self.lifted_keys[:, :width] = keys * -2.0
        self.lifted_keys[:, width] = keys.square().sum(dim=1)
        self.lifted_keys[network.unplaced, width] = _FAR

    def __call__(self, cases: Cases) -> torch.Tensor:
        """Return the distances (B, N) of the cases, on the network's device."""
        block = self.room(len(cases))
        self.write(cases, block)
        return block

    def room(self, rows: int) -> torch.Tensor:
        """Return (rows, N) to write distances into, on the network's device."""
        return self.lifted_keys.new_empty(rows, len(self.lifted_keys))

    @torch.no_grad()
    def write(self, cases: Cases, block: torch.Tensor) -> None:
        """Write the distances of B cases into ``block`` (B, N)."""
        torch.mm(self.lifted_queries(cases), self.lifted_keys.T, out=block)

    @torch.no_grad()
    def lifted_queries(self, cases: Cases) -> torch.Tensor:
        """Return [q, 1, ‖q‖²] of the cases (B, D + 2)."""
        queries = self.queries(cases)
        squared = queries.square().sum(dim=1, keepdim=True)
        return torch.cat([queries, torch.ones_like(squared), squared], dim=1)

    def queries(self, cases: Cases) -> torch.Tensor:
        """Return the float32 queries (B, D) of the cases."""
        return query_vectors(self.network, cases.user_index, cases.histories, dtype=torch.float32)


def _root_weights(network: AttRecNetwork) -> tuple[float, float]:
    """√ω and √(1 − ω)."""
    weight = network.config.long_term_weight
    return math.sqrt(weight), math.sqrt(1.0 - weight)
