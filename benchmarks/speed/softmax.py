"""The softmax over distances, forward and backward, beside its plain form and its bare products.

python -m benchmarks.speed.softmax ROW WAY THREADS REPEATS measures one way in this process, so
that its peak memory is its own, and prints one line of JSON; make bench-speed ROW=... runs a row.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from attrec.model.softmax import plain_softmax_loss, softmax_loss

DIM = 64
BLOCK = 256
ALL_WAYS = {"fused": 10, "plain": 4, "products": 8, "blocked_products": 8}
ROWS = {
    # positions, items, threads, repeats by way
    "softmax-loss.ml-1m.threads-1": (6400, 3416, 1, ALL_WAYS),
    "softmax-loss.ml-1m.threads-2": (6400, 3416, 2, ALL_WAYS),
    "softmax-loss.ten-times-the-items.threads-1": (6400, 34_160, 1, {"fused": 2}),
}


def peak_bytes() -> int:
    """Return this process's peak memory (Linux); getrusage would begin at its parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def work(way: str, num_positions: int, num_items: int) -> Callable[[], None]:
    """Return what is timed, its inputs made."""
    torch.manual_seed(0)
    queries, keys = (torch.randn(n, DIM) / DIM**0.5 for n in (num_positions, num_items))
    if way == "products":
        logits = torch.empty(num_positions, num_items)

        def products() -> None:
            torch.mm(queries, keys.T, out=logits)
            torch.mm(logits, keys)
            torch.mm(logits.T, queries)

        return products
    if way == "blocked_products":
        logits, to_keys = torch.empty(BLOCK, num_items), torch.zeros(num_items, DIM)

        def blocked() -> None:
            for part in queries.split(BLOCK):
                torch.mm(part, keys.T, out=logits[: len(part)])
                torch.mm(logits[: len(part)], keys)
                to_keys.addmm_(logits[: len(part)].T, part)

        return blocked
    inputs = [queries, keys, torch.zeros(()), 0.1 * torch.randn(num_items)]
    for tensor in inputs:
        tensor.requires_grad_()
    targets = torch.randint(0, num_items, (num_positions,))
    loss = {"fused": softmax_loss, "plain": plain_softmax_loss}[way]

    def there_and_back() -> None:
        for tensor in inputs:
            tensor.grad = None
        loss(inputs[0], inputs[1], targets, inputs[2], inputs[3]).backward()

    return there_and_back


def main() -> None:
    """Measure one way and print."""
    row, way, threads, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    once = work(way, *ROWS[row][:2])
    before = peak_bytes()
    once()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - started)
    peak = peak_bytes()
    print(
        json.dumps(
            {
                "seconds": statistics.median(seconds),
                "peak_memory_bytes": peak,
                "above_inputs_bytes": peak - before,
            }
        )
    )


if __name__ == "__main__":
    main()
