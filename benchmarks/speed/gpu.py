"""make bench-gpu: step, epoch and ranking on the CUDA device that is there.

Beside eager PyTorch on the same device, and beside the floor that its memory sets: rows touched ×
(weight + state), read and written once.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import torch

from attrec.evaluation.ranking import rank_targets
from attrec.model.network import AttRecNetwork
from attrec.retrieval.vectors import NetworkScorer
from attrec.training.choice import make_step
from attrec.training.trainer import train
from benchmarks.rows import write_row
from benchmarks.speed.eager import EagerStep
from benchmarks.speed.worker import MODEL, SHAPES, TRAIN, ranking_cases, simulated

RUNS = 5
STEPS = 200
FLOAT = 4
BIG = 1 << 28


def seconds_of(work: Callable[[], Any]) -> float:
    """Return how long the device needs."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def bandwidth() -> float:
    """Bytes a second of a copy that no cache holds."""
    one, other = torch.zeros(BIG, device="cuda"), torch.zeros(BIG, device="cuda")
    seconds_of(lambda: other.copy_(one))
    best = min(seconds_of(lambda: other.copy_(one)) for _ in range(5))
    return 2 * FLOAT * BIG / best


def measure(shape: str) -> dict[str, Any]:
    """Measure one shape."""
    num_users, num_items, events = SHAPES[shape]
    data, config = simulated(shape), replace(TRAIN, device="cuda")
    network = AttRecNetwork(MODEL, num_users, num_items).cuda()
    ways = {"shipped": make_step(network, config), "eager": EagerStep(network, MODEL, config)}
    batches = list(islice(ways["shipped"].batches(data, 1), STEPS))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for step in ways.values():
        for batch in batches[:5]:
            step(batch)
    for _ in range(RUNS):
        for name, step in ways.items():
            seconds[name].append(
                seconds_of(lambda step=step: [step(batch) for batch in batches]) / len(batches)
            )
    batch = batches[0]
    candidates = torch.cat([batch.targets.flatten(), batch.negatives.flatten()])
    short = torch.cat([batch.windows.flatten(), candidates]).unique()
    rows = len(short) + len(candidates.unique()) + len(batch.users.unique())
    rate = bandwidth()
    floor = rows * MODEL.embedding_dim * FLOAT * 2 * 2 / rate
    fresh = AttRecNetwork(MODEL, num_users, num_items).cuda()
    epoch = seconds_of(lambda: train(fresh, data, config, num_epochs=1))
    cases = ranking_cases(data, num_items)
    scorer = NetworkScorer(network)
    ranking = min(seconds_of(lambda: rank_targets(scorer, cases, num_items)) for _ in range(3))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "data": {"name": f"simulated, {shape}", "users": num_users, "items": num_items,
                 "events": events},
        "protocol": f"{RUNS} alternating runs of {len(batches)} steps each",
        "config": {"model": asdict(MODEL), "train": asdict(config)},
        "metrics": {
            "seconds_per_step": seconds,
            "ratio_to_eager": medians["eager"] / medians["shipped"],
            "rows_touched": rows,
            "memory_bytes_per_second": rate,
            "floor_seconds_per_step": floor,
            "times_the_floor": medians["shipped"] / floor,
            "epoch_seconds": epoch,
            "ranking_seconds": ranking,
            "ranked": len(cases),
        },
        "device": torch.cuda.get_device_name(),
    }  # fmt: skip


def main() -> int:
    """Measure the shapes asked for, or all."""
    if not torch.cuda.is_available():
        print("bench-gpu: this machine has no CUDA device, so nothing was measured")
        return 0
    for shape in sys.argv[1:] or list(SHAPES):
        write_row("gpu", f"step.{shape}", measure(shape))
    return 0


if __name__ == "__main__":
    sys.exit(main())
