"""Do the shipped step and the eager one learn the same? Losses of 100 steps and of epochs.

In float64 they must agree step by step. In float32 no two orders of summation do: Adagrad from a
start near zero multiplies rounding, and a pair at the edge of the hinge turns over. So the same
figure is given for the eager step against itself, with the rows of each batch in other orders.
"""

from __future__ import annotations

import torch

from attrec.model.network import AttRecNetwork
from attrec.training.choice import make_step
from attrec.training.step import Batch, TrainingStep
from benchmarks.speed.eager import EagerStep
from benchmarks.speed.worker import MODEL, SHAPES, TRAIN, simulated

FIRST_STEPS = 100
REORDERINGS = 4
EPOCHS = 2


def losses(
    step: TrainingStep, batches: list[Batch], *, reordering: int | None = None
) -> list[float]:
    """Take the steps; with ``reordering`` the rows of each batch come in another, seeded order."""
    if reordering is not None:
        shuffled = torch.Generator().manual_seed(reordering)
        orders = [torch.randperm(len(batch.users), generator=shuffled) for batch in batches]
        batches = [
            Batch(*(part[order] for part in batch))
            for batch, order in zip(batches, orders, strict=True)
        ]
    return [float(step(batch)) for batch in batches]


def worst(first: list[float], second: list[float]) -> float:
    """Return the largest relative difference."""
    return max(abs(a - b) / b for a, b in zip(first, second, strict=True))


def compare() -> dict[str, float]:
    """Measure the agreement at ML-1M's shape, on one thread."""
    torch.set_num_threads(1)
    num_users, num_items, _ = SHAPES["ml-1m"]
    data = simulated("ml-1m")
    figures = {}
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        network = AttRecNetwork(MODEL, num_users, num_items, dtype=dtype)
        eager = EagerStep(network, MODEL, TRAIN)
        again = [EagerStep(network, MODEL, TRAIN) for _ in range(REORDERINGS)]
        ours = make_step(network, TRAIN)
        first = []
        for batch in ours.batches(data, 1):
            first.append(batch)
            if len(first) == FIRST_STEPS:
                break
        reference = losses(eager, first)
        figures[f"first_{FIRST_STEPS}_losses_{name}"] = worst(losses(ours, first), reference)
        figures[f"eager_against_itself_{name}"] = max(
            worst(losses(step, first, reordering=seed), reference)
            for seed, step in enumerate(again)
        )
    network = AttRecNetwork(MODEL, num_users, num_items)
    eager, ours = EagerStep(network, MODEL, TRAIN), make_step(network, TRAIN)
    for epoch in range(1, EPOCHS + 1):
        totals = [0.0, 0.0]
        for batch in ours.batches(data, epoch):
            for place, step in enumerate((ours, eager)):
                totals[place] += float(step(batch))
        figures[f"epoch_{epoch}_loss_float32"] = abs(totals[0] - totals[1]) / totals[1]
    return figures
