"""make bench-speed: the shipped step against eager PyTorch, alternating, one process a run; and
ranking against the bare matrix product of its size, alternating in each of several processes.

python -m benchmarks.speed.run [ROW ...]   rows: step.ml-1m.threads-1, step.ml-1m.threads-2,
                                           step.1m-items.threads-1, agreement,
                                           ranking.ml-1m.threads-1, ranking.ml-1m.threads-2,
                                           ranking.100k-items.threads-1, top-50.1m-items.threads-1
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from benchmarks.rows import write_row
from benchmarks.speed.agreement import compare
from benchmarks.speed.ranking import SIZES, TURNS
from benchmarks.speed.worker import MODEL, SHAPES, TRAIN

RUNS = 5
RANKING_RUNS = 3
ROWS = {
    "step.ml-1m.threads-1": ("ml-1m", 1, {"eager": 200, "shipped": 400}),
    "step.ml-1m.threads-2": ("ml-1m", 2, {"eager": 200, "shipped": 400}),
    "step.1m-items.threads-1": ("1m-items", 1, {"eager": 6, "shipped": 200}),
}


def measure(module: str, *arguments: str | int, threads: int) -> dict[str, Any]:
    """Run one worker process."""
    found = subprocess.run(
        [sys.executable, "-m", f"benchmarks.speed.{module}", *map(str, arguments)],
        capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    return json.loads(found.stdout)


def step_row(row: str) -> dict[str, Any]:
    """Alternate the two steps and summarise them."""
    shape, threads, num_steps = ROWS[row]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in num_steps}
    for number in range(RUNS):
        for name, count in num_steps.items():
            runs[name].append(measure("worker", shape, name, threads, count, threads=threads))
            rate = runs[name][-1]["windows_per_second"]
            print(f"{row} run {number + 1} {name}: {rate:,.0f} windows/s", flush=True)

    def figures(key: str) -> dict[str, Any]:
        return {
            name: {"median": statistics.median(r[key] for r in of), "values": [r[key] for r in of]}
            for name, of in runs.items()
        }

    speed, memory = figures("windows_per_second"), figures("peak_memory_bytes")
    ratios = [
        ours["windows_per_second"] / eager["windows_per_second"]
        for ours, eager in zip(runs["shipped"], runs["eager"], strict=True)
    ]
    users, items, events = SHAPES[shape]
    return {
        "data": {"name": f"simulated, {shape}", "users": users, "items": items, "events": events},
        "protocol": f"{RUNS} alternating pairs of processes, {threads} thread(s) each, λ = 0, "
        "norm clipping in both; batches made beforehand",
        "config": {"model": asdict(MODEL), "train": asdict(TRAIN), "threads": threads},
        "metrics": {
            "windows_per_second": speed,
            "ratio_to_eager": {
                "median": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
                "values": ratios,
            },
            "peak_memory_bytes": memory,
            "memory_ratio_to_eager": memory["shipped"]["median"] / memory["eager"]["median"],
        },
    }  # fmt: skip


def agreement_row() -> dict[str, Any]:
    """Compare the losses of the two steps."""
    users, items, events = SHAPES["ml-1m"]
    return {
        "data": {"name": "simulated, ml-1m", "users": users, "items": items, "events": events},
        "protocol": "largest relative difference of the losses; λ = 0; equal batches",
        "config": {"model": asdict(MODEL), "train": asdict(TRAIN)},
        "metrics": compare(),
    }


def ranking_row(row: str) -> dict[str, Any]:
    """Measure a ranking against the bare product."""
    size = SIZES[row]
    runs = []
    for number in range(RANKING_RUNS):
        runs.append(measure("ranking", row, threads=size.threads))
        print(f"{row} run {number + 1}: {runs[-1]['ratio']}", flush=True)

    def median(key: str, name: str) -> float:
        return statistics.median(run[key][name] for run in runs)

    ratios = {}
    for name in runs[0]["ratio"]:
        values = [run["ratio"][name] for run in runs]
        ratios[name] = {
            "median": statistics.median(values), "low": min(values), "high": max(values),
            "values": values,
        }  # fmt: skip
    whole = [run["one_shot_seconds"] for run in runs]
    return {
        "data": {"name": "random", **size._asdict()},
        "protocol": f"{RANKING_RUNS} processes, {size.threads} thread(s), in each {TURNS} turns of "
        "bare product, ours, bare product; the bare product in the blocks that make it fastest",
        "config": size._asdict(),
        "metrics": {
            "ratio_to_product": ratios,
            "seconds": {name: median("seconds", name) for name in runs[0]["seconds"]},
            "one_shot_product_seconds": None if None in whole else statistics.median(whole),
            "product_blocks": [run["block"] for run in runs],
            "added_peak_bytes": max(run["added_peak_bytes"] for run in runs),
        },
    }


def main() -> None:
    """Measure the rows asked for, or all."""
    for row in sys.argv[1:] or [*ROWS, "agreement", *SIZES]:
        if row in SIZES:
            content = ranking_row(row)
        else:
            content = agreement_row() if row == "agreement" else step_row(row)
        write_row("speed", row, content)


if __name__ == "__main__":
    main()
