"""Which training step runs."""

from __future__ import annotations

import torch

from attrec.config import TrainConfig
from attrec.model.additive import AdditiveNetwork
from attrec.model.choice import Network
from attrec.model.network import AttRecNetwork
from attrec.native.library import available
from attrec.training.native_step import NativeStep
from attrec.training.softmax_step import SoftmaxStep
from attrec.training.step import FusedStep, PlainStep, TrainingStep


def make_step(network: Network, config: TrainConfig) -> TrainingStep:
    """Choose the fastest step that covers the network.

    The additive network takes `SoftmaxStep`. The paper's takes `NativeStep` where this installation
    has the compiled kernels and the network is on the CPU, `FusedStep` where it does not; both
    cover mean and sum aggregation of the network as it is. Max and min, and any subclass with other
    equations, take `PlainStep`.
    """
    if isinstance(network, AdditiveNetwork):
        return SoftmaxStep(network, config)
    if type(network) is not AttRecNetwork or network.config.aggregation not in ("mean", "sum"):
        return PlainStep(network, config)
    table = network.item_short
    if available() and table.device.type == "cpu" and table.dtype in (torch.float32, torch.float64):
        return NativeStep(network, config)
    return FusedStep(network, config)
