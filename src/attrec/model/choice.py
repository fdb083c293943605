"""Which network the options ask for."""

from __future__ import annotations

from attrec.config import ModelConfig
from attrec.model.additive import AdditiveNetwork
from attrec.model.network import AttRecNetwork
from attrec.model.prior import Attributes

Network = AttRecNetwork | AdditiveNetwork
NETWORKS: dict[str, type[Network]] = {"paper": AttRecNetwork, "additive": AdditiveNetwork}


def make_network(
    config: ModelConfig,
    num_users: int,
    num_items: int,
    *,
    seed: int = 0,
    attributes: Attributes | None = None,
) -> Network:
    """Build the network of ``config.architecture``; the additive one may learn from attributes."""
    if config.architecture == "additive":
        return AdditiveNetwork(config, num_users, num_items, seed=seed, attributes=attributes)
    return NETWORKS[config.architecture](config, num_users, num_items, seed=seed)
