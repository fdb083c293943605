"""Ways of doing the same, each in a process of its own, one after the other, again and again."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

RUNS = 5
Runs = dict[str, list[dict[str, Any]]]


def measure(module: str, *arguments: object, threads: int) -> dict[str, Any]:
    """Run a module of this package in a process; it prints one line of JSON."""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"benchmarks.speed.{module}", *map(str, arguments)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    if found.returncode:
        raise SystemExit(f"benchmarks.speed.{module}: {found.stderr}")
    return json.loads(found.stdout)


def alternate(
    row: str, ways: Mapping[str, tuple[str, Sequence[object]]], threads: int, shown: str,
    runs: int = RUNS,
) -> Runs:  # fmt: skip
    """Measure each way (module, arguments) in turn, ``runs`` times."""
    found: Runs = {name: [] for name in ways}
    for number in range(runs):
        for name, (module, arguments) in ways.items():
            found[name].append(measure(module, *arguments, threads=threads))
            value = found[name][-1][shown]
            print(f"{row} run {number + 1} {name}: {shown} {value:,.4g}", flush=True)
    return found


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Return median, lowest, highest and all of them."""
    every = list(values)
    return {"median": statistics.median(every), "low": min(every), "high": max(every),
            "values": every}  # fmt: skip


def figures(runs: Runs, key: str) -> dict[str, Any]:
    """Spread one figure of each way."""
    return {name: spread(run[key] for run in of) for name, of in runs.items()}


def ratios(runs: Runs, first: str, second: str, key: str) -> dict[str, Any]:
    """Spread the ratio of one way's figure to another's, pair by pair."""
    pairs = zip(runs[first], runs[second], strict=True)
    return spread(one[key] / other[key] for one, other in pairs)
