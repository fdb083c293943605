"""Where the microseconds of a training step go, and what bounds each part of it.

python -m benchmarks.speed.roofline SHAPE THREADS prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from attrec.training import native_step
from benchmarks.speed.worker import MODEL, TRAIN, prepare

STEPS = 60
FLOAT = 4
BIG = 1 << 25
"""Numbers of an array that no cache holds."""


def clocked(work: Callable[[], Any], repeats: int) -> float:
    """Return the seconds of one call, the best of ``repeats``."""
    work()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def machine_limits(rows: int, d: int) -> dict[str, float]:
    """Measure what this machine can do at best, at the sizes that the step has."""
    items, W = torch.randn(rows, d), torch.randn(d, d)
    product = clocked(lambda: torch.mm(items, W), 50)
    one, other = torch.zeros(BIG), torch.zeros(BIG)
    copy = clocked(lambda: other.copy_(one), 8)
    in_cache, to = torch.zeros(1 << 16), torch.zeros(1 << 16)
    small = clocked(lambda: to.copy_(in_cache), 200)
    return {
        "product_gflops": 2e-9 * rows * d * d / product,
        "memory_gbytes": 2e-9 * FLOAT * BIG / copy,
        "cache_gbytes": 2e-9 * FLOAT * (1 << 16) / small,
    }


def phases(shape: str) -> dict[str, Any]:
    """Take steps with a clock around every kernel and product."""
    step, batches = prepare(shape, "shipped")
    for batch in batches[:10]:
        step(batch)
    started = time.perf_counter()
    for number in range(STEPS):
        step(batches[number % len(batches)])
    whole = (time.perf_counter() - started) / STEPS
    seconds: dict[str, float] = defaultdict(float)
    before = native_step.group, native_step.run, native_step.torch
    native_step.group = _timed(native_step.group, seconds, lambda *_: "numbering indices")
    native_step.run = _timed(native_step.run, seconds, _kernel)
    native_step.torch = _Torch(seconds)
    try:
        for number in range(STEPS):
            step(batches[number % len(batches)])
    finally:
        native_step.group, native_step.run, native_step.torch = before
    parts = {name: total / STEPS for name, total in seconds.items()}
    parts["the rest: the gradient of W, Python"] = max(0.0, whole - sum(parts.values()))
    batch = batches[0]
    in_windows = int(batch.windows[batch.windows >= 0].unique().numel())
    candidates = torch.cat([batch.targets.flatten(), batch.negatives.flatten()])
    long = int(candidates[candidates >= 0].unique().numel())
    every = torch.cat([batch.windows.flatten(), candidates])
    touched = int(every[every >= 0].unique().numel()) + long + int(batch.users.unique().numel())
    d, L, C = MODEL.embedding_dim, MODEL.window_length, 2 * TRAIN.num_targets
    limits = machine_limits(in_windows, d)
    # Of a window, forward and back: projections' sums and ReLU, L (L − 1) / 2 affinities and their
    # gradients, mixtures of L and C rows, 2 C distances and their gradients; 2 operations each.
    window = 2 * d * (4 * L + L * (L - 1) // 2 + 2 * L * L + 2 * L + 4 * C)
    floors = {
        "products": 3 * 2 * in_windows * d * d / (1e9 * limits["product_gflops"]),
        "windows": TRAIN.batch_size * window / (1e9 * limits["product_gflops"]),
        "rows touched, weight and state, there and back": 4 * FLOAT * d * touched
        / (1e9 * limits["memory_gbytes"]),
    }  # fmt: skip
    return {
        "seconds": whole,
        "phases": dict(sorted(parts.items(), key=lambda part: -part[1])),
        "floors": floors,
        "limits": limits,
        "rows_touched": touched,
        "items_projected": in_windows,
        "operations_of_a_window": window,
    }


def _kernel(name: str, *_: Any, **__: Any) -> str:
    return {
        "windows": "windows: (2) to (11) and back",
        "segments": "sums of the queries' gradients",
        "update": "rows: gradient, Adagrad, clipping",
    }[name]


def _timed(
    work: Callable[..., Any], seconds: dict[str, float], name: Callable[..., str]
) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        answer = work(*arguments, **named)
        seconds[name(*arguments, **named)] += time.perf_counter() - started
        return answer

    return timed


CALLS = {"mm": "products Z = X W, and back", "index_select": "gathering rows"}


class _Torch:
    """PyTorch with a clock around what the step calls of it."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        found = getattr(torch, name)
        if name not in CALLS:
            return found
        return _timed(found, self._seconds, lambda *_, **__: CALLS[name])


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(int(sys.argv[2]))
    print(json.dumps(phases(sys.argv[1])))


if __name__ == "__main__":
    main()
