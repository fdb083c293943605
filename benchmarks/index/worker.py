"""One index over one catalogue, in a process of its own: prints one line of JSON.

python -m benchmarks.index.worker KIND ITEMS   kinds: exact, faiss-flat, ivf, hnsw
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch

from attrec.errors import RequestError
from attrec.retrieval.approximate import KINDS, FaissIndex, tune_recall
from attrec.retrieval.contract import Index
from attrec.retrieval.index import ExactIndex

WIDTH = 128
TARGET, TUNED_AT = 0.99, 50
TUNED_ON, JUDGED, SINGLE, BATCH = 500, 500, 500, 256
SPREAD = 0.7
TURNS = 7
BLOCKS = (8192, 32_768, 131_072)
"""Columns of the bare product, of which the quickest is held against."""


def catalogue(items: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return keys, and queries for tuning and for judging, all of length 1.

    √N clusters whose sizes fall as 1 / rank; a key is its centre plus noise of 0.7 of its length. A
    query is the mean of three keys, two of them of one cluster: a user with a main taste and a
    second one.
    """
    random = np.random.default_rng(0)
    clusters = round(items**0.5)
    weights = 1.0 / np.arange(1, clusters + 1)
    centres = _unit(random.standard_normal((clusters, WIDTH), dtype=np.float32))
    place = np.sort(random.choice(clusters, items, p=weights / weights.sum()))
    noise = random.standard_normal((items, WIDTH), dtype=np.float32)
    keys = _unit(centres[place] + noise * np.float32(SPREAD / WIDTH**0.5))
    first = random.integers(0, items, TUNED_ON + JUDGED)
    low, high = (np.searchsorted(place, place[first], side=side) for side in ("left", "right"))
    second, other = random.integers(low, high), random.integers(0, items, len(first))
    queries = _unit(keys[first] + keys[second] + keys[other]).astype(np.float64)
    shuffled = torch.from_numpy(keys[random.permutation(items)])
    both = torch.from_numpy(queries)
    return shuffled, both[:TUNED_ON], both[TUNED_ON:]


def _unit(rows: np.ndarray[Any, Any]) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def seconds(work: Callable[[], Any]) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def product(keys: torch.Tensor, queries: torch.Tensor, columns: int) -> Callable[[], Any]:
    """Return the bare product, block by block: nothing is looked at."""
    room = torch.empty(len(queries), min(columns, len(keys)))

    def work() -> None:
        for start in range(0, len(keys), columns):
            block = keys[start : start + columns]
            torch.mm(queries, block.T, out=room[:, : len(block)])

    return work


def with_topk(keys: torch.Tensor, queries: torch.Tensor, k: int, columns: int) -> Callable[[], Any]:
    """Return the bare product and its top k, block by block: nothing else is done."""
    room = torch.empty(len(queries), min(columns, len(keys)))

    def work() -> Any:
        best, items = room.new_empty(len(queries), 0), torch.empty(len(queries), 0).long()
        for start in range(0, len(keys), columns):
            block = keys[start : start + columns]
            products = room[:, : len(block)]
            torch.mm(queries, block.T, out=products)
            high, at = products.topk(k)
            best, at_both = torch.cat([best, high], dim=1).topk(k)
            items = torch.cat([items, at + start], dim=1).gather(1, at_both)
        return best, items

    return work


def against_bare(index: Index, keys: torch.Tensor, queries: torch.Tensor) -> dict[str, Any]:
    """Alternate exact search of queries with the bare product of that size, with a top k and bare.

    One ratio would say nothing: the product alone answers no question, and PyTorch's `topk` takes
    as long as the product.
    """
    rounded = queries.float()
    found: dict[str, Any] = {"queries": len(queries), "k": TUNED_AT}
    index.search(queries, TUNED_AT)
    for name, make in (
        ("product", lambda columns: product(keys, rounded, columns)),
        ("product_and_topk", lambda columns: with_topk(keys, rounded, TUNED_AT, columns)),
    ):
        ways = {columns: make(columns) for columns in BLOCKS}
        best = min(ways, key=lambda columns: min(seconds(ways[columns]) for _ in range(2)))
        work, pairs = ways[best], []
        for _ in range(TURNS):
            before, ours, after = (
                seconds(each) for each in (work, lambda: index.search(queries, TUNED_AT), work)
            )
            pairs.append((ours, (before + after) / 2.0))
        ratios = [ours / theirs for ours, theirs in pairs]
        found[f"ratio_to_{name}"] = {
            "median": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
            "values": ratios, "columns": best,
            "seconds": statistics.median(ours for ours, _ in pairs),
            "bare_seconds": statistics.median(theirs for _, theirs in pairs),
        }  # fmt: skip
    return found


def main() -> None:
    """Build, tune, measure and print."""
    kind, items = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    keys, tuning, judged = catalogue(items)
    exact = ExactIndex(keys)
    process = psutil.Process()
    before, started = process.memory_info().rss, time.perf_counter()
    started_cpu = time.process_time()
    index: Index = ExactIndex(keys) if kind == "exact" else KINDS[kind.removeprefix("faiss-")](keys)
    built, busy_building = time.perf_counter() - started, time.process_time() - started_cpu
    added = process.memory_info().rss - before
    found: dict[str, Any] = {
        "build_seconds": built, "build_cpu_seconds": busy_building, "added_bytes": added,
    }  # fmt: skip
    if isinstance(index, FaissIndex):
        started = time.perf_counter()
        try:
            tune_recall(index, exact, tuning, TARGET, k=TUNED_AT)
        except RequestError as error:
            index.effort, found["target_missed"] = index.efforts[1], str(error)
        found["tuning_seconds"] = time.perf_counter() - started
        found["parameters"] = index.parameters
    for k in (10, 50):
        limits = exact.search(judged, k).distances[:, -1:]
        found[f"recall@{k}"] = float((index.search(judged, k).distances <= limits).mean())
        alone, busy = [], []
        for row in range(SINGLE):
            before_cpu = time.thread_time()
            alone.append(1000.0 * seconds(lambda at=row, k=k: index.search(judged[at : at + 1], k)))
            busy.append(1000.0 * (time.thread_time() - before_cpu))
        found[f"single_ms@{k}"] = {
            "median": statistics.median(alone), "p99": float(np.quantile(alone, 0.99)),
            "cpu_median": statistics.median(busy), "cpu_p99": float(np.quantile(busy, 0.99)),
        }  # fmt: skip
    if kind == "exact":
        found["batch"] = against_bare(index, keys, judged[:BATCH])
        found["one"] = against_bare(index, keys, judged[:1])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
