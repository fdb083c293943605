"""One measurement in a process of its own, so that its peak memory is its own.

python -m benchmarks.speed.worker SHAPE STEP THREADS NUM_STEPS prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from itertools import islice

import numpy as np
import torch

from attrec.config import Options
from attrec.data.cases import Cases
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.model.network import AttRecNetwork
from attrec.training.choice import make_step
from attrec.training.step import Batch, TrainingStep
from benchmarks.speed.eager import EagerStep, SparseStep

SHAPES = {
    # users, items, events: ML-1M's, and a catalogue of a million items.
    "ml-1m": (6040, 3416, 999_611),
    "1m-items": (100_000, 1_000_000, 2_000_000),
}
PRESET = Options.of("paper-sparse")
MODEL, TRAIN = PRESET.model, PRESET.train


def simulated(shape: str) -> Sequences:
    """Histories of the shape's size; items by Zipf's law, as in a real catalogue."""
    num_users, num_items, num_events = SHAPES[shape]
    rng = np.random.default_rng(0)
    weights = 1.0 / np.arange(10, num_items + 10)
    items = rng.choice(num_items, size=num_events, p=weights / weights.sum()).astype(np.int32)
    lengths = np.full(num_users, num_events // num_users)
    lengths[: num_events - lengths.sum()] += 1
    return Sequences(Ragged.from_lengths(items, lengths))


def ranking_cases(data: Sequences, num_items: int) -> Cases:
    """Let every user ask for one item, chosen at random."""
    targets = np.random.default_rng(1).integers(0, num_items, data.num_users)
    one = np.ones(data.num_users, dtype=np.int64)
    return Cases(np.arange(data.num_users), data.histories, Ragged.from_lengths(targets, one))


def prepare(
    shape: str, step: str, dtype: torch.dtype = torch.float32
) -> tuple[TrainingStep, list[Batch]]:
    """Return the step and 60 batches of the first epoch."""
    num_users, num_items, _ = SHAPES[shape]
    data = simulated(shape)
    network = AttRecNetwork(MODEL, num_users, num_items, dtype=dtype)
    ours = make_step(network, TRAIN)
    batches = list(islice(ours.batches(data, 1), 60))
    steps = {"eager": EagerStep, "sparse": SparseStep}
    return (steps[step](network, MODEL, TRAIN) if step in steps else ours), batches


def main() -> None:
    """Measure and print."""
    shape, name, threads, num_steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    step, batches = prepare(shape, name)
    for batch in batches[:3]:
        step(batch)
    started = time.perf_counter()
    for number in range(num_steps):
        step(batches[number % len(batches)])
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "windows_per_second": num_steps * TRAIN.batch_size / seconds,
                "milliseconds_per_step": 1000 * seconds / num_steps,
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
