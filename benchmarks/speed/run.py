"""make bench-speed: every row alternates processes of what is shipped with what it is held against.

python -m benchmarks.speed.run [ROW ...]   all rows, or these (a beginning of a name will do)
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import psutil

from benchmarks.rows import write_row
from benchmarks.speed import epochs, ranking, sizes, softmax, softmax_step
from benchmarks.speed.agreement import compare
from benchmarks.speed.alternating import RUNS, alternate, figures, measure, ratios, spread
from benchmarks.speed.worker import MODEL, SHAPES, TRAIN

Content = dict[str, Any]
STEPS = {
    "step.ml-1m.threads-1": ("ml-1m", 1, {"eager": 120, "shipped": 600}),
    "step.ml-1m.threads-2": ("ml-1m", 2, {"eager": 120, "shipped": 600}),
    "step.1m-items.threads-1": ("1m-items", 1, {"eager": 6, "sparse": 40, "shipped": 200}),
}
ROOFLINES = {
    "roofline.ml-1m.threads-1": ("ml-1m", 1),
    "roofline.1m-items.threads-1": ("1m-items", 1),
}
EPOCHS = {"epoch.ml-1m.threads-1": 1, "epoch.ml-1m.threads-2": 2}
TABLES = {"tables.10k-items": 10_000, "tables.100k-items": 100_000, "tables.1m-items": 1_000_000}
SOFTMAX_STEPS = {"softmax-step.ml-1m.threads-1": 1, "softmax-step.ml-1m.threads-2": 2}
RANKING_RUNS = 3


def data_of(shape: str) -> Content:
    """Describe a simulated shape."""
    users, items, events = SHAPES[shape]
    return {"name": f"simulated, {shape}", "users": users, "items": items, "events": events}


def step_row(row: str) -> Content:
    """Measure the paper's step against eager PyTorch, and against its sparse gradients."""
    shape, threads, steps = STEPS[row]
    runs = alternate(
        row,
        {name: ("worker", (shape, name, threads, count)) for name, count in steps.items()},
        threads,
        "windows_per_second",
    )
    memory = figures(runs, "peak_memory_bytes")
    others = [name for name in runs if name != "shipped"]
    return {
        "data": data_of(shape),
        "protocol": f"{RUNS} alternating processes for each way, {threads} thread(s) each, λ = 0, "
        "norm clipping in all; batches made beforehand",
        "config": {"model": asdict(MODEL), "train": asdict(TRAIN), "threads": threads},
        "metrics": {
            "windows_per_second": figures(runs, "windows_per_second"),
            "milliseconds_per_step": figures(runs, "milliseconds_per_step"),
            **{
                f"ratio_to_{name}": ratios(runs, "shipped", name, "windows_per_second")
                for name in others
            },
            "peak_memory_bytes": memory,
            **{
                f"memory_ratio_to_{name}": memory["shipped"]["median"] / memory[name]["median"]
                for name in others
            },
        },
    }


def agreement_row(row: str) -> Content:
    """Compare the losses of the two steps."""
    del row
    return {
        "data": data_of("ml-1m"),
        "protocol": "largest relative difference of the losses; λ = 0; equal batches",
        "config": {"model": asdict(MODEL), "train": asdict(TRAIN)},
        "metrics": compare(),
    }


def roofline_row(row: str) -> Content:
    """Take a step apart."""
    shape, threads = ROOFLINES[row]
    runs = [measure("roofline", shape, threads, threads=threads) for _ in range(RUNS)]
    runs.sort(key=lambda run: run["seconds"])
    return {
        "data": data_of(shape),
        "protocol": f"the median of {RUNS} processes, {threads} thread(s)",
        "config": {"model": asdict(MODEL), "train": asdict(TRAIN), "threads": threads},
        "metrics": runs[RUNS // 2],
    }


def epoch_row(row: str) -> Content:
    """Time epochs of ML-1M."""
    threads = EPOCHS[row]
    runs = [measure("epochs", threads, threads=threads) for _ in range(3)]
    return {
        "data": {"name": "ml-1m, leave-last-out, training part", "windows": runs[0]["windows"]},
        "protocol": f"paper-sparse; three processes of {epochs.EPOCHS} epochs, {threads} "
        "thread(s); batches made on the way, the first epoch of each process left out",
        "config": {"preset": "paper-sparse", "threads": threads},
        "metrics": {
            "epoch_seconds": spread(seconds for run in runs for seconds in run["seconds"][1:]),
            "step": runs[0]["step"],
        },
    }


def tables_row(row: str) -> Content:
    """Train on a catalogue of one size."""
    found = measure("sizes", TABLES[row], 1, threads=1)
    return {
        "data": {"name": "simulated, community", "items": TABLES[row], "users": found["users"],
                 "events": found["events"]},
        "protocol": f"paper-sparse, init_std 0.1, {sizes.EPOCHS} epochs, one thread; the next item "
        f"of {sizes.JUDGED} users among all items",
        "config": {"preset": "paper-sparse", "init_std": 0.1},
        "metrics": found,
    }  # fmt: skip


def softmax_step_row(row: str) -> Content:
    """Measure a whole step of the additive network."""
    threads = SOFTMAX_STEPS[row]
    ways = {way: ("softmax_step", (way, threads)) for way in ("plain", "shipped")}
    runs = alternate(row, ways, threads, "positions_per_second")
    return {
        "data": data_of("ml-1m"),
        "protocol": f"{RUNS} alternating processes for each way, {threads} thread(s) each; "
        f"{softmax_step.USERS} histories of {softmax_step.LENGTH}",
        "config": {"model": asdict(softmax_step.MODEL), "train": asdict(softmax_step.TRAIN)},
        "metrics": {
            "positions_per_second": figures(runs, "positions_per_second"),
            "milliseconds_per_step": figures(runs, "milliseconds_per_step"),
            "ratio_to_plain": ratios(runs, "shipped", "plain", "positions_per_second"),
            "peak_memory_bytes": figures(runs, "peak_memory_bytes"),
        },
    }


def softmax_row(row: str) -> Content:
    """Measure the softmax over distances alone."""
    num_positions, num_items, threads, repeats = softmax.ROWS[row]
    ways = {way: ("softmax", (row, way, threads, count)) for way, count in repeats.items()}
    runs = alternate(row, ways, threads, "seconds")
    return {
        "protocol": f"{RUNS} alternating processes for each way, {threads} thread(s) each, the "
        f"median of several repeats in each; {num_positions:,} positions, {num_items:,} items, "
        f"dimension {softmax.DIM}, float32; gradients of queries, keys, biases and scale",
        "config": {"positions": num_positions, "items": num_items, "dim": softmax.DIM,
                   "threads": threads},
        "metrics": {
            "seconds": figures(runs, "seconds"),
            "times_as_long_as_fused": {way: ratios(runs, way, "fused", "seconds") for way in runs},
            "above_inputs_bytes": figures(runs, "above_inputs_bytes"),
            "peak_memory_bytes": figures(runs, "peak_memory_bytes"),
            "logits_bytes": 4 * num_positions * num_items,
        },
    }  # fmt: skip


def ranking_row(row: str) -> Content:
    """Measure a ranking against the bare product."""
    size = ranking.SIZES[row]
    runs = []
    for number in range(RANKING_RUNS):
        runs.append(measure("ranking", row, threads=size.threads))
        print(f"{row} run {number + 1}: {runs[-1]['ratio']}", flush=True)
    whole = [run["one_shot_seconds"] for run in runs]
    return {
        "data": {"name": "random", **size._asdict()},
        "protocol": f"{RANKING_RUNS} processes, {size.threads} thread(s), in each {ranking.TURNS} "
        "turns of bare product, ours, bare product; the bare product in the blocks that make it "
        "fastest",
        "config": size._asdict(),
        "metrics": {
            "ratio_to_product": {
                name: spread(run["ratio"][name] for run in runs) for name in runs[0]["ratio"]
            },
            "seconds": {
                name: statistics.median(run["seconds"][name] for run in runs)
                for name in runs[0]["seconds"]
            },
            "one_shot_product_seconds": None if None in whole else statistics.median(whole),
            "product_blocks": [run["block"] for run in runs],
            "added_peak_bytes": max(run["added_peak_bytes"] for run in runs),
        },
    }


ROWS: dict[str, Callable[[str], Content]] = {
    **dict.fromkeys(STEPS, step_row),
    "agreement": agreement_row,
    **dict.fromkeys(ROOFLINES, roofline_row),
    **dict.fromkeys(EPOCHS, epoch_row),
    **dict.fromkeys(TABLES, tables_row),
    **dict.fromkeys(softmax.ROWS, softmax_row),
    **dict.fromkeys(SOFTMAX_STEPS, softmax_step_row),
    **dict.fromkeys(ranking.SIZES, ranking_row),
}


def main() -> None:
    """Measure."""
    asked = sys.argv[1:]
    for row, make in ROWS.items():
        if asked and not row.startswith(tuple(asked)):
            continue
        # Figures of a machine that does something else beside are worth little: say so in the row.
        content = make(row)
        load = psutil.getloadavg()[0] / (os.cpu_count() or 1)
        write_row("speed", row, {**content, "load_per_cpu": round(load, 2)})


if __name__ == "__main__":
    main()
