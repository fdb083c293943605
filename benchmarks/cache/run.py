"""make bench-cache: how often a kept answer is proved to stand, and what that saves.

python -m benchmarks.cache.run            the rows that have no result yet
python -m benchmarks.cache.run ROW ...    these rows, again

A row DATA.PRESET replays the last tenth of a log, event by event, against a model of the rest:
after each event its user asks for ten items. The row catalogues times both ways over random keys.
Seconds are of one thread's CPU.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from attrec.api import train_on
from attrec.config import Options
from attrec.data.datasets import fetch
from attrec.data.interactions import InteractionLog
from attrec.data.ragged import Ragged
from attrec.data.reading import read_interactions
from attrec.data.sequences import Sequences
from attrec.retrieval.cache import CertifiedSearch
from attrec.retrieval.index import ExactIndex
from attrec.retrieval.vectors import item_keys, query_vectors
from benchmarks.rows import read_row, write_row

EPOCHS = {
    "ml-100k.accurate": 4,
    "ml-100k.paper-sparse": 15,
    "movietweetings-100k.accurate": 4,
    "movietweetings-100k.paper-sparse": 5,
}
CATALOGUES = "catalogues"
K = 10
MARGINS = (10, 40, 90, 240, 490, 990)
LATE = 0.1
TIMED_QUERIES = 300
SIZES, WIDTH, SIZED_MARGIN, STEPS = (10_000, 100_000, 1_000_000), 128, 240, 40

Ints = npt.NDArray[np.int64]


class Request(NamedTuple):
    """A user asks, having this history."""

    user: int
    row: int
    history: Ints


def run_row(name: str) -> None:
    """Measure one log with one model."""
    torch.set_num_threads(1)
    data, preset = name.split(".")
    log = read_interactions(fetch(data).interactions)
    assert log.timestamps is not None
    order = np.argsort(log.timestamps, kind="stable")
    first, last = np.split(order, [round((1 - LATE) * len(order))])
    options = Options.of(preset)
    trained = train_on(log.take(np.sort(first)), options, num_epochs=EPOCHS[name])
    vocabulary = trained.vocabulary
    requests = _requests(log, first, last, vocabulary)
    rows = np.array([request.row for request in requests])
    histories = Ragged.from_lists([request.history for request in requests])
    queries = query_vectors(trained.network, rows, histories)
    index = ExactIndex(item_keys(trained.network))
    searched, expected = _search_all(index, queries, requests)
    known = len({request.user for request in requests})
    metrics = {
        "margins": {str(m): _replay(index, queries, requests, m, expected) for m in MARGINS},
        "seconds_per_search": searched,
        "seconds_per_query": _seconds_per_query(trained.network, rows, histories),
        "first_requests": known / len(requests),
        "moved": _moved(queries, requests),
    }
    print(name, metrics, flush=True)
    write_row(
        "cache",
        name,
        {
            "data": {
                "name": data,
                "log_sha256": log.fingerprint(),
                "items": len(index),
                "late_events": len(last),
                "requests": len(requests),
                "users": known,
                "users_without_a_row": float(np.mean(rows < 0)),
            },
            "protocol": f"the last {LATE:.0%} of the events in time order, replayed against a "
            f"model of the others ({EPOCHS[name]} epochs): after each event its user asks for {K} "
            "items, seen items left out; answers kept for each user; every answer compared with a "
            "search's, ids and distances equal; seconds of one thread's CPU",
            "config": options.to_dict(),
            "seeds": [options.train.seed],
            "metrics": metrics,
        },
    )


def _requests(log: InteractionLog, first: Ints, last: Ints, vocabulary: Any) -> list[Request]:
    """Return one request for each late event; users with no known item have none."""
    histories = {
        int(user): list(history)
        for user, history in enumerate(
            Sequences.from_log(log.take(np.sort(first)), vocabulary.with_users_of(log)).histories
        )
    }
    users = vocabulary.with_users_of(log).encode_users(log.user_ids)[log.user_codes[last]]
    items = vocabulary.encode_items(log.item_ids)[log.item_codes[last]]
    found = []
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        if item >= 0:
            histories[user].append(item)
        if histories[user]:
            row = user if user < vocabulary.num_trained_users else -1
            found.append(Request(user, row, np.array(histories[user], dtype=np.int64)))
    return found


def _search_all(
    index: ExactIndex, queries: torch.Tensor, requests: list[Request]
) -> tuple[float, list[Any]]:
    """Answer all by search; the median of the seconds, and the answers."""
    seconds, answers = [], []
    for query, request in zip(queries, requests, strict=True):
        started = time.process_time()
        answers.append(index.search(query[None], K, exclude=Ragged.from_lists([request.history])))
        seconds.append(time.process_time() - started)
    return statistics.median(seconds), answers


def _replay(
    index: ExactIndex,
    queries: torch.Tensor,
    requests: list[Request],
    margin: int,
    expected: list[Any],
) -> dict[str, float]:
    """Answer all by a cache, and check every answer."""
    cache = CertifiedSearch(index, margin=margin)
    hits, misses, again = [], [], 0
    for query, request, right in zip(queries, requests, expected, strict=True):
        started = time.process_time()
        found = cache.search(request.user, query, K, exclude=request.history)
        seconds = time.process_time() - started
        (hits if found.certificate.reused else misses).append(seconds)
        again += found.certificate.moved is not None
        assert found.indices.tolist() == right.indices[0].tolist()
        assert found.distances.tolist() == right.distances[0].tolist()
    return {
        "hit_rate": len(hits) / len(requests),
        "hit_rate_of_later_requests": len(hits) / max(1, again),
        "seconds_per_hit": statistics.median(hits) if hits else 0.0,
        "seconds_per_miss": statistics.median(misses) if misses else 0.0,
        "seconds_per_answer": sum(hits + misses) / len(requests),
    }


def _moved(queries: torch.Tensor, requests: list[Request]) -> dict[str, float]:
    """Quantiles of how far one event moves a query."""
    last: dict[int, torch.Tensor] = {}
    moved = []
    for query, request in zip(queries, requests, strict=True):
        if request.user in last:
            moved.append(float((query - last[request.user]).norm()))
        last[request.user] = query
    return {str(p): float(np.percentile(moved, p)) for p in (5, 25, 50, 75, 95)}


def _seconds_per_query(network: Any, rows: Ints, histories: Ragged) -> float:
    some = np.linspace(0, len(rows) - 1, TIMED_QUERIES).astype(np.int64)
    seconds = []
    for at in some:
        started = time.process_time()
        query_vectors(network, rows[at : at + 1], histories.take(np.array([at])))
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def run_catalogues() -> None:
    """Time a reuse beside a search, by the size of the catalogue."""
    torch.set_num_threads(1)
    metrics = {}
    for size in SIZES:
        generator = torch.Generator().manual_seed(0)
        keys = torch.randn(size, WIDTH, generator=generator)
        index = ExactIndex(torch.nn.functional.normalize(keys, dim=1))
        del keys
        query = torch.nn.functional.normalize(torch.randn(WIDTH, generator=generator), dim=0)
        query = query.double()
        cache = CertifiedSearch(index, margin=SIZED_MARGIN)
        started = time.process_time()
        cache.search(0, query, K)
        kept = time.process_time() - started
        searched, reused = [], []
        for _ in range(STEPS):
            way = torch.randn(WIDTH, generator=generator).double()
            here = query + 0.02 * way / way.norm()
            started = time.process_time()
            index.search(here[None], K)
            searched.append(time.process_time() - started)
            started = time.process_time()
            found = cache.search(0, here, K)
            reused.append(time.process_time() - started)
            assert found.certificate.reused
        metrics[str(size)] = {
            "seconds_per_search": statistics.median(searched),
            "seconds_per_hit": statistics.median(reused),
            "seconds_of_the_first": kept,
        }
        print(size, metrics[str(size)], flush=True)
    write_row(
        "cache",
        CATALOGUES,
        {
            "data": {"name": "random unit keys", "width": WIDTH},
            "protocol": f"one query, moved by 0.02 in {STEPS} directions; {K} items, margin "
            f"{SIZED_MARGIN}; medians of one thread's CPU",
            "config": {},
            "seeds": [0],
            "metrics": metrics,
        },
    )


def main() -> None:
    """Run the rows asked for, or those that are missing."""
    rows = [*EPOCHS, CATALOGUES]
    for row in sys.argv[1:] or [r for r in rows if read_row("cache", r) is None]:
        if row not in rows:
            raise SystemExit(f"no row {row!r}; rows: {', '.join(rows)}")
        if row == CATALOGUES:
            run_catalogues()
        else:
            run_row(row)


if __name__ == "__main__":
    main()
