"""make bench-cold-items: items held out of training, folded in after few events.

python -m benchmarks.cold_items.run            the rows that have no result yet
python -m benchmarks.cold_items.run ROW ...    these rows again: ml-100k, movietweetings-100k
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.api import Trained, item_features, numbers, train_on
from attrec.config import Options
from attrec.data.datasets import fetch
from attrec.data.interactions import InteractionLog
from attrec.data.items import Items, read_items
from attrec.data.ragged import Ragged
from attrec.data.reading import read_interactions
from attrec.data.splits import split_log
from attrec.foldin import new_item_keys
from attrec.model.additive import AdditiveNetwork
from attrec.retrieval.vectors import additive_intents
from benchmarks.rows import read_row, write_row

CATEGORIES = {"ml-100k": "class,release_year", "movietweetings-100k": "3"}
HELD_OUT = 0.1
EVENTS = (0, 1, 2, 5)
FEWEST_EVENTS = 25
"""Of a held-out item: five to fold it in from, the others to look for it."""
STRENGTHS, PUSHES = (1.0, 3.0, 10.0, 30.0), (0.0, 0.5, 0.9)
CUT = 10

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Event:
    """Somebody took a held-out item: which of them, and what they had taken before."""

    item: int
    number: int
    history: Ints


def run_row(data: str) -> None:
    """Measure one data set."""
    torch.set_num_threads(1)
    found = fetch(data)
    assert found.items is not None
    log, items = read_interactions(found.interactions), read_items(found.items)
    held_out = _held_out(log)
    rest = log.take(np.flatnonzero(~np.isin(log.item_codes, held_out)))
    plain = Options.of("accurate")
    result: dict[str, Any] = {}
    for name, options in {
        "without attributes": plain,
        "with attributes": plain.with_(item_categories=CATEGORIES[data]),
    }.items():
        split = split_log(rest, options.protocol)
        trained = train_on(split.train, options, validate_on=split, items=items)
        result[name] = _measure(trained, log, held_out, items, options)
        print(data, name, result[name], flush=True)
    write_row(
        "cold_items",
        data,
        {
            "data": {"name": data, "log_sha256": log.fingerprint(), "held_out": len(held_out)},
            "protocol": f"{HELD_OUT:.0%} of the items with at least {FEWEST_EVENTS} events never "
            "trained on; each folded in from its first 0 to 5 events, and looked for in the later "
            "ones among all items and all held-out ones, seen items left out; λ and β chosen on "
            "one half of the held-out items, figures of the other half; one seed",
            "config": {**plain.to_dict(), "item_categories": CATEGORIES[data]},
            "seeds": [0],
            "metrics": result,
        },
    )


def _held_out(log: InteractionLog) -> Ints:
    counts = np.bincount(log.item_codes, minlength=log.num_items)
    known = np.flatnonzero(counts >= FEWEST_EVENTS)
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(known, round(HELD_OUT * len(known)), replace=False))


def _measure(
    trained: Trained, log: InteractionLog, held_out: Ints, items: Items, options: Options
) -> dict[str, Any]:
    network, ids = trained.network, log.item_ids[held_out]
    assert isinstance(network, AdditiveNetwork)
    events = _events(log, held_out, trained.vocabulary.encode_items(log.item_ids))
    intents = additive_intents(
        network, Ragged.from_lists([event.history for event in events]), torch.float32
    )
    average = intents.mean(dim=0)
    prior = None
    known = numbers(item_features(items, ids, options))
    if known is not None and network.prior is not None:
        with torch.no_grad():
            prior = network.prior.rows_of("key", known)
    first_half = np.arange(len(held_out)) % 2 == 0
    old = network.keys().detach()
    found: dict[str, Any] = {}
    for count in EVENTS:
        best: tuple[float, ...] = (-1.0,)
        strengths = STRENGTHS if prior is not None else (0.0,)
        for strength, push in product(strengths, PUSHES if count else (0.0,)):
            chosen = [n for n, event in enumerate(events) if event.number < count]
            chosen.sort(key=lambda n: events[n].item)
            lengths = np.bincount([events[n].item for n in chosen], minlength=len(held_out))
            keys = new_item_keys(
                intents[chosen], torch.from_numpy(lengths), prior=prior, strength=strength,
                average=average, push=push,
            )  # fmt: skip
            tuned, judged = _figures(events, intents, old, keys, first_half)
            if tuned["ndcg@10"] > best[0]:
                best = (tuned["ndcg@10"], strength, push)
                found[str(count)] = {**judged, "strength": strength, "push": push}
    return found


def _events(log: InteractionLog, held_out: Ints, codes: Ints) -> list[Event]:
    """List who took a held-out item when, in time order."""
    order = log.time_order()
    by_time = order if log.timestamps is None else np.argsort(log.timestamps, kind="stable")
    place = {int(item): at for at, item in enumerate(held_out)}
    histories: dict[int, list[int]] = {}
    counts = [0] * len(held_out)
    events = []
    for row in by_time.tolist():
        user, item = int(log.user_codes[row]), int(log.item_codes[row])
        before = histories.setdefault(user, [])
        if item in place and before:
            at = place[item]
            events.append(Event(at, counts[at], np.array(before, np.int64)))
            counts[at] += 1
        elif item not in place and codes[item] >= 0:
            before.append(int(codes[item]))
    return events


def _figures(
    events: list[Event],
    intents: torch.Tensor,
    old: torch.Tensor,
    new: torch.Tensor,
    first_half: npt.NDArray[np.bool_],
) -> tuple[dict[str, float], dict[str, float]]:
    """Look for the item of each later event; return the figures of either half of the items."""
    later = [n for n, event in enumerate(events) if event.number >= max(EVENTS)]
    values = np.zeros((len(later), 3))
    for start in range(0, len(later), 1000):
        rows = later[start : start + 1000]
        cosines = intents[rows] @ torch.cat([old, new]).T
        for at, n in enumerate(rows):
            event, scores = events[n], cosines[at]
            scores[torch.from_numpy(event.history)] = -torch.inf
            target = scores[len(old) + event.item]
            # An item without a key (0) has none of the catalogue behind it.
            placed = bool(new[event.item].any())
            rank = int((scores >= target).sum()) if placed else len(scores)
            top = scores.topk(CUT).indices
            values[start + at] = (
                rank <= CUT,
                1 / np.log2(rank + 1) if rank <= CUT else 0.0,
                float((top >= len(old)).float().mean()),
            )
    half = first_half[[events[n].item for n in later]]
    return tuple(  # type: ignore[return-value]
        {
            "hit_rate@10": float(part[:, 0].mean()),
            "ndcg@10": float(part[:, 1].mean()),
            "share_of_lists": float(part[:, 2].mean()),
            "cases": len(part),
        }
        for part in (values[half], values[~half])
    )


def main() -> None:
    """Run the rows asked for, or those that are missing."""
    for row in sys.argv[1:] or [d for d in CATEGORIES if read_row("cold_items", d) is None]:
        if row not in CATEGORIES:
            raise SystemExit(f"no row {row!r}; rows: {', '.join(CATEGORIES)}")
        run_row(row)


if __name__ == "__main__":
    main()
