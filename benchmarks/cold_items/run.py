"""make bench-cold-items: items held out of training, folded in after few events.

python -m benchmarks.cold_items.run            the rows that have no result yet
python -m benchmarks.cold_items.run ROW ...    these rows again: ml-100k, movietweetings-100k
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize

from attrec.api import Trained, item_features, numbers, train_on
from attrec.config import Options
from attrec.data.datasets import fetch
from attrec.data.interactions import InteractionLog
from attrec.data.items import Items, read_items
from attrec.data.ragged import Ragged
from attrec.data.reading import read_interactions
from attrec.data.sequences import Sequences
from attrec.data.splits import split_log
from attrec.foldin import predicted_keys, scaled_to_share
from attrec.model.additive import AdditiveNetwork
from attrec.retrieval.vectors import additive_intents
from benchmarks.rows import read_row, write_row

CATEGORIES = {"ml-100k": "class,release_year", "movietweetings-100k": "3"}
HELD_OUT = 0.1
EVENTS = (0, 1, 2, 5)
FEWEST_EVENTS = 25
"""Of a held-out item: five to fold it in from, the others to look for it."""
CUT = 10
SHARE, QUERIES = 0.1, 2000
"""Of the lists, that held-out items shall take: their share of the catalogue; and the intents of
trained events by which that is held."""

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
        result[name] = _measure(trained, log, rest, held_out, items, options)
        print(data, name, result[name], flush=True)
    write_row(
        "cold_items",
        data,
        {
            "data": {"name": data, "log_sha256": log.fingerprint(), "held_out": len(held_out)},
            "protocol": f"{HELD_OUT:.0%} of the items with at least {FEWEST_EVENTS} events never "
            "trained on; each folded in from its first 0 to 5 events, and looked for in the later "
            "ones among all items and all held-out ones, seen items left out; "
            "their keys are scaled to take a tenth of the lists of trained events; "
            "one seed",
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
    trained: Trained,
    log: InteractionLog,
    rest: InteractionLog,
    held_out: Ints,
    items: Items,
    options: Options,
) -> dict[str, Any]:
    network, ids = trained.network, log.item_ids[held_out]
    assert isinstance(network, AdditiveNetwork)
    events = _events(log, held_out, trained.vocabulary.encode_items(log.item_ids))
    intents = additive_intents(
        network, Ragged.from_lists([event.history for event in events]), torch.float32
    )
    keys = network.keys().detach()
    old_targets, old_intents = _old_events(trained, rest)
    some = np.random.default_rng(0).permutation(len(old_intents))[:QUERIES]
    described = numbers(item_features(items, ids, options))
    found: dict[str, Any] = {}
    for count in EVENTS:
        rows = np.flatnonzero(np.bincount(old_targets, minlength=len(keys)) >= max(1, count))
        first = [n for n, event in enumerate(events) if event.number < count]
        known = [_means(old_targets, old_intents, rows, count)]
        asked = [_means(np.array([events[n].item for n in first], np.int64), intents[first],
                        np.arange(len(held_out)), count)]  # fmt: skip
        if network.prior is not None and described is not None:
            with torch.no_grad():
                known.append(normalize(network.prior.rows("key")[torch.from_numpy(rows)], dim=1))
                asked.append(normalize(network.prior.rows_of("key", described), dim=1))
        new = predicted_keys(keys[rows], torch.cat(known, dim=1), torch.cat(asked, dim=1))
        if bool((new != new[0]).any()):
            new = scaled_to_share(new, keys, old_intents[some], SHARE)
        found[str(count)] = _figures(events, intents, keys, new.float())
    return found


@torch.no_grad()
def _old_events(trained: Trained, rest: InteractionLog) -> tuple[Ints, torch.Tensor]:
    """Return the items of trained events, and the intents that preceded them."""
    network = trained.network
    assert isinstance(network, AdditiveNetwork)
    histories = Sequences.from_log(rest, trained.vocabulary).histories
    targets, intents = [], []
    for history in histories:
        events = history[-network.config.window_length - 1 :].astype(np.int64)
        if len(events) > 1:
            before = torch.from_numpy(events[:-1])
            intents.append(network.intents(before, torch.tensor([len(before)])))
            targets.append(events[1:])
    return np.concatenate(targets), torch.cat(intents)


def _means(targets: Ints, intents: torch.Tensor, items: Ints, count: int) -> torch.Tensor:
    """Mean of ``count`` intents of each item; nothing (n, 0) where none is asked for."""
    if count == 0:
        return intents.new_zeros(len(items), 0)
    order = np.random.default_rng(0).permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]
    starts = np.searchsorted(targets[order], items)
    chosen = order[starts[:, None] + np.arange(count)]
    assert (targets[chosen] == items[:, None]).all()
    return intents[torch.from_numpy(chosen)].mean(dim=1)


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
    events: list[Event], intents: torch.Tensor, old: torch.Tensor, new: torch.Tensor
) -> dict[str, float]:
    """Look for the item of each later event among all items; the score is m · k̂."""
    later = [n for n, event in enumerate(events) if event.number >= max(EVENTS)]
    values = np.zeros((len(later), 3))
    keys = torch.cat([old, new]).T
    for start in range(0, len(later), 1000):
        rows = later[start : start + 1000]
        scored = intents[rows] @ keys
        for at, n in enumerate(rows):
            event, scores = events[n], scored[at]
            scores[torch.from_numpy(event.history)] = -torch.inf
            rank = int((scores >= scores[len(old) + event.item]).sum())  # ties stand before it
            top = scores.topk(CUT).indices
            values[start + at] = (
                rank <= CUT,
                1 / np.log2(rank + 1) if rank <= CUT else 0.0,
                float((top >= len(old)).float().mean()),
            )
    names = ("hit_rate@10", "ndcg@10", "share_of_lists")
    return {**dict(zip(names, values.mean(axis=0).tolist(), strict=True)), "cases": len(later)}


def main() -> None:
    """Run the rows asked for, or those that are missing."""
    for row in sys.argv[1:] or [d for d in CATEGORIES if read_row("cold_items", d) is None]:
        if row not in CATEGORIES:
            raise SystemExit(f"no row {row!r}; rows: {', '.join(CATEGORIES)}")
        run_row(row)


if __name__ == "__main__":
    main()
