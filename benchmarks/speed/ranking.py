"""Ranking beside the bare matrix product of that very size, in one process, by turns.

python -m benchmarks.speed.ranking ROW prints one line of JSON.

The bare product is `torch.mm` into one block that is used again, in the blocks that make it
fastest here; nothing is done with its numbers.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from attrec.config import Options
from attrec.data.cases import Cases
from attrec.data.ragged import Ragged
from attrec.evaluation.ranking import rank_targets
from attrec.model.network import AttRecNetwork
from attrec.retrieval.index import ExactIndex
from attrec.retrieval.vectors import NetworkScorer, query_vectors

TOP_K = 50
TURNS = 5
ONE_SHOT_BYTES = 2 << 30
"""No larger product is asked for at once."""


class Size(NamedTuple):
    """Of one row: how many users, items and numbers in a vector, and events before the target."""

    users: int
    items: int
    width: int
    events: int
    threads: int


SIZES = {
    "ranking.ml-1m.threads-1": Size(6040, 3416, 200, 165, 1),
    "ranking.ml-1m.threads-2": Size(6040, 3416, 200, 165, 2),
    "ranking.100k-items.threads-1": Size(2048, 100_000, 128, 50, 1),
    "top-50.1m-items.threads-1": Size(256, 1_000_000, 128, 0, 1),
}


class ReadyScorer(NetworkScorer):
    """The shipped scorer with its queries computed beforehand: what is left is the ranking."""

    def __init__(self, network: AttRecNetwork, cases: Cases) -> None:
        super().__init__(network)
        self.ready = query_vectors(network, cases.user_index, cases.histories, dtype=torch.float32)

    def queries(self, cases: Cases) -> torch.Tensor:
        """Look the queries up."""
        return self.ready[torch.from_numpy(cases.user_index)]


def seconds(work: Callable[[], Any]) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def product(left: torch.Tensor, right: torch.Tensor, rows: int, columns: int) -> Callable[[], None]:
    """Return the bare product in blocks of that many rows and columns."""
    room = torch.empty(min(rows, len(left)), min(columns, len(right)))

    def work() -> None:
        for start in range(0, len(left), rows):
            part = left[start : start + rows]
            for begin in range(0, len(right), columns):
                other = right[begin : begin + columns]
                torch.mm(part, other.T, out=room[: len(part), : len(other)])

    return work


def fastest_product(size: Size) -> tuple[Callable[[], None], list[int], float | None]:
    """Return the bare product, its block, and the seconds of the whole at once, None if too big."""
    generator = torch.Generator().manual_seed(1)
    left = torch.randn(size.users, size.width, generator=generator)
    right = torch.randn(size.items, size.width, generator=generator)
    blocks = {
        (min(rows, size.users), min(columns, size.items))
        for rows in (256, 600, 1200, 2048)
        for columns in (1024, 4096, 8192)
    }
    timed = {}
    for block in sorted(blocks):
        work = product(left, right, *block)
        timed[block] = min(seconds(work) for _ in range(3))
    best = min(timed, key=lambda block: timed[block])
    whole = None
    if size.users * size.items * 4 <= ONE_SHOT_BYTES:
        whole = min(seconds(lambda: torch.mm(left, right.T)) for _ in range(3))
    return product(left, right, *best), list(best), whole


def ranking_work(size: Size) -> dict[str, Callable[[], Any]]:
    """Return what is measured of a ranking: one target a user, seen items left out."""
    random = np.random.default_rng(0)
    config = Options.of("paper-sparse", embedding_dim=size.width // 2).model
    network = AttRecNetwork(config, size.users, size.items, seed=1)
    events = random.integers(0, size.items, (size.users, size.events), dtype=np.int32)
    target = random.integers(0, size.items, size.users, dtype=np.int32)
    cases = Cases(
        np.arange(size.users),
        Ragged.from_lengths(events.ravel(), np.full(size.users, size.events)),
        Ragged.from_lengths(target, np.ones(size.users, dtype=np.int64)),
    )
    ready, whole = ReadyScorer(network, cases), NetworkScorer(network)
    return {
        "ranks": lambda: rank_targets(ready, cases, size.items),
        f"ranks and top {TOP_K}": lambda: rank_targets(ready, cases, size.items, top_k=TOP_K),
        "ranks, queries computed": lambda: rank_targets(whole, cases, size.items),
    }


def search_work(size: Size) -> dict[str, Callable[[], Any]]:
    """Return what is measured of the exact search."""
    generator = torch.Generator().manual_seed(1)
    index = ExactIndex(0.1 * torch.randn(size.items, size.width, generator=generator))
    queries = 0.1 * torch.randn(size.users, size.width, generator=generator).double()
    return {f"exact top {TOP_K}": lambda: index.search(queries, TOP_K)}


def added_peak_bytes(works: Iterable[Callable[[], Any]]) -> int:
    """Return by how much the first calls raise the process's memory while they run (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = memory("VmRSS")
    for work in works:
        work()
    return memory("VmHWM") - before


def memory(field: str) -> int:
    """Read a figure of the process's memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    """Measure one row and print it."""
    size = SIZES[sys.argv[1]]
    torch.set_num_threads(size.threads)
    works = search_work(size) if size.events == 0 else ranking_work(size)
    added = added_peak_bytes(works.values())
    bare, block, one_shot = fastest_product(size)
    times: dict[str, list[float]] = {"bare product": []}
    ratios: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(TURNS):
        for name, work in works.items():
            first, ours, last = seconds(bare), seconds(work), seconds(bare)
            times["bare product"] += [first, last]
            times.setdefault(name, []).append(ours)
            ratios[name].append(ours / ((first + last) / 2))
    print(
        json.dumps(
            {
                "ratio": {name: statistics.median(values) for name, values in ratios.items()},
                "seconds": {name: statistics.median(values) for name, values in times.items()},
                "block": block,
                "one_shot_seconds": one_shot,
                "added_peak_bytes": added,
            }
        )
    )


if __name__ == "__main__":
    main()
