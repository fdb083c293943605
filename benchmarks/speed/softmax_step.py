"""A whole training step of the additive network: packed and fused, or as one writes it first.

python -m benchmarks.speed.softmax_step WAY THREADS prints one line of JSON. The plain way pads
every history to the window's length, holds all logits, and lets PyTorch differentiate them;
network and optimiser are the same.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from attrec.config import ModelConfig, TrainConfig
from attrec.data.packing import PackedBatch
from attrec.data.sequences import PADDING
from attrec.model.additive import AdditiveNetwork
from attrec.model.softmax import plain_softmax_loss
from attrec.training.memory import peak_bytes
from attrec.training.softmax_step import SoftmaxStep
from benchmarks.speed.worker import SHAPES, simulated

LENGTH, USERS = 100, 64
MODEL = ModelConfig(
    architecture="additive", embedding_dim=64, window_length=LENGTH, heads=4, blocks=0, dropout=0.0
)
TRAIN = TrainConfig(batch_size=LENGTH * USERS, min_steps=0, learning_rate=0.001)
STEPS = 6


class PlainSoftmaxStep(SoftmaxStep):
    """The same step over all positions × items."""

    def _loss(
        self, items: torch.Tensor, lengths: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        network = self.network
        return plain_softmax_loss(
            network.intents(items, lengths),
            network.keys(),
            targets.clamp(min=0),
            self._log_scale,
            weights=(targets >= 0).to(network.item_key.dtype),
        )


def padded(batch: PackedBatch) -> PackedBatch:
    """Fill each history up to the window's length."""
    B = len(batch.lengths)
    inside = np.arange(LENGTH) < batch.lengths[:, None]
    items, targets = np.zeros((B, LENGTH), np.int64), np.full((B, LENGTH), PADDING, np.int64)
    items[inside], targets[inside] = batch.items, batch.targets
    return PackedBatch(items.ravel(), np.full(B, LENGTH), targets.ravel())


def main() -> None:
    """Measure one way and print."""
    way, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    num_users, num_items, _ = SHAPES["ml-1m"]
    network = AdditiveNetwork(MODEL, num_users, num_items)
    step = {"shipped": SoftmaxStep, "plain": PlainSoftmaxStep}[way](network, replace(TRAIN))
    batches = list(islice(step.batches(simulated("ml-1m"), 1), STEPS))
    if way == "plain":
        batches = [padded(batch) for batch in batches]
    step(batches[0])
    started = time.perf_counter()
    for batch in batches:
        step(batch)
    seconds = time.perf_counter() - started
    positions = sum(batch.size for batch in batches)
    print(
        json.dumps(
            {
                "positions_per_second": positions / seconds,
                "milliseconds_per_step": 1000 * seconds / len(batches),
                "peak_memory_bytes": peak_bytes(),
            }
        )
    )


if __name__ == "__main__":
    main()
