"""make bench-index: every index over a hundred thousand and a million keys, on one thread.

python -m benchmarks.index.run [ROW ...]   rows begin with 100k or 1m; without ROW those missing
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from typing import Any

from benchmarks.index import worker
from benchmarks.rows import read_row, write_row

SIZES = {"100k": 100_000, "1m": 1_000_000}
KINDS = ("exact", "faiss-flat", "ivf", "hnsw")
ROWS = {f"{size}.{kind}": (kind, items) for size, items in SIZES.items() for kind in KINDS}


def row(kind: str, items: int) -> dict[str, Any]:
    """Measure one index in a process of its own."""
    busy = os.getloadavg()[0]
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.index.worker", kind, str(items)],
        stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return {
        "data": {
            "name": "simulated: √N clusters of unit vectors, sizes as 1 / rank, noise of 0.7; "
            "queries of three keys, two of one cluster",
            "items": items, "width": worker.WIDTH,
        },
        "protocol": f"one process, one thread; parameters chosen for a recall@{worker.TUNED_AT} of "
        f"{worker.TARGET} on {worker.TUNED_ON} queries, recall measured on {worker.JUDGED} others; "
        f"{worker.SINGLE} single queries one after the other, through the contract (exact float64 "
        "distances, in order)",
        "config": {"kind": kind, "faiss": version("faiss-cpu")},
        "metrics": json.loads(found.stdout),
        "load_per_cpu": busy / (os.cpu_count() or 1),
    }  # fmt: skip


def main() -> None:
    """Measure the rows asked for, or those that are missing."""
    asked = sys.argv[1:]
    for name, (kind, items) in ROWS.items():
        wanted = name.startswith(tuple(asked)) if asked else read_row("index", name) is None
        if wanted:
            print(f"{name} …", flush=True)
            write_row("index", name, row(kind, items))


if __name__ == "__main__":
    main()
