"""make bench-cold-items: items held out of training, folded in after few events.

python -m benchmarks.cold_items.run            the rows that have no result as declared here
python -m benchmarks.cold_items.run ROW ...    these rows again
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
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
from attrec.data.splits import Split, split_log
from attrec.evaluation.metrics import per_user
from attrec.model.additive import AdditiveNetwork
from attrec.new_items import (
    LONGEST,
    mean_of_first,
    predicted_keys,
    scaled_to_share,
    trained_events,
)
from attrec.retrieval.vectors import additive_intents
from attrec.training.memory import peak_bytes
from benchmarks.cold_items.figures import WITH, WITHOUT, Floats, Ints, summary
from benchmarks.cold_items.text import COLUMN, SIZE, write_with_vectors
from benchmarks.rows import changed_options, each_for_itself, here_and_now, read_row, write_row


@dataclass(frozen=True)
class Row:
    """A data set, and which attributes of its items are learnt from: in words, as an option."""

    data: str
    attributes: str
    option: dict[str, str]


ROWS = {
    "ml-100k": Row(
        "ml-100k",
        "genres (column `class`) and year of release (column `release_year`)",
        {"item_categories": "class,release_year"},
    ),
    "ml-100k.vectors": Row(
        "ml-100k",
        f"vectors of {SIZE} numbers, made of the words of title, genres and year (TF-IDF, SVD)",
        {"item_vectors": COLUMN},
    ),
    "movietweetings-100k": Row(
        "movietweetings-100k", "genres (column 3)", {"item_categories": "3"}
    ),
    "movietweetings-100k.vectors": Row(
        "movietweetings-100k",
        f"vectors of {SIZE} numbers, made of the words of title, genres and year (TF-IDF, SVD)",
        {"item_vectors": COLUMN},
    ),
}
HELD_OUT = 0.1
EVENTS = (0, 1, 2, 3, 4, 5)
FEWEST_EVENTS = 25
"""Of a held-out item: five to fold it in from, the others to look for it."""
CUT = 10
METRICS = ("hit_rate@10", "ndcg@10")
SHARE, QUERIES = 0.1, 2000
"""Of the lists, that held-out items shall take: their share of the catalogue; and the intents of
trained events by which that is held."""
THREADS = 1
PLAIN = Options.of("accurate", recent_popularity=False)
"""Without attributes, and without the popularity of the moment: keys alone are judged."""
PROTOCOL = (
    f"{HELD_OUT:.0%} of the items with at least {FEWEST_EVENTS} events never trained on; each "
    f"folded in from its first {min(EVENTS)} to {max(EVENTS)} events, and looked for in the later "
    "ones among all trained and all held-out items, seen items left out; their keys are scaled "
    f"alike to take a tenth of the lists of trained events, to length {LONGEST:g} at most; 95 % "
    "intervals by 2,000 bootstrap draws of held-out items, on validation of users; one seed, so "
    "what another training would change is not in them"
)
"""What a reader of the figures should know."""


@dataclass(frozen=True)
class Event:
    """Somebody took a held-out item: which of them, and what they had taken before.

    ``history`` has trained items, as the vocabulary numbers them; ``new_before`` held-out ones.
    """

    item: int
    number: int
    history: Ints
    new_before: Ints


def run_row(name: str) -> None:
    """Measure one row."""
    torch.set_num_threads(THREADS)
    row, options = ROWS[name], options_of(name)
    files = fetch(row.data)
    assert files.items is not None
    log, items = read_interactions(files.interactions), _items(row, files.items)
    held_out = _held_out(log)
    rest = log.take(np.flatnonzero(~np.isin(log.item_codes, held_out)))
    split = split_log(rest, options.protocol)
    cases: dict[str, dict[int, Floats]] = {}
    valid: dict[str, Floats] = {}
    cost: dict[str, dict[str, Any]] = {"train_seconds": {}, "epochs": {}, "trained": {}}
    for which, chosen in {WITHOUT: PLAIN, WITH: options}.items():
        trained = train_on(split.train, chosen, validate_on=split, items=items)
        epochs = trained.run.epochs
        took = sum(epoch.train_seconds + epoch.validation_seconds for epoch in epochs)
        cost["train_seconds"][which] = took
        cost["epochs"][which] = trained.run.best_epoch
        cost["trained"][which] = here_and_now()
        valid[which] = _on_validation(trained, split, chosen)
        units, cases[which] = _measure(trained, log, rest, held_out, items, chosen)
        print(name, which, f"{took:.0f} s", valid[which].mean(axis=0),
              {count: found.mean(axis=0) for count, found in cases[which].items()},
              flush=True)  # fmt: skip
    write_row(
        "cold_items",
        name,
        {
            "data": {"name": row.data, "log_sha256": log.fingerprint(),
                     "held_out": len(held_out), "cases": len(units),
                     "validation_users": len(valid[WITH])},
            "protocol": PROTOCOL,
            "attributes": row.attributes,
            "config": options.to_dict(),
            "seeds": [options.train.seed],
            "metrics": {
                str(count): summary({which: of[count] for which, of in cases.items()},
                                    [*METRICS, "share_of_lists"], units)
                for count in EVENTS
            },
            "valid": summary(valid, METRICS, np.arange(len(valid[WITH]))),
            "cost": {**cost, "peak_memory_bytes": peak_bytes(), "threads": THREADS},
        },
    )  # fmt: skip


def options_of(name: str) -> Options:
    """Return the options of a row's training with attributes."""
    return PLAIN.with_(**ROWS[name].option)


def measured(name: str) -> dict[str, Any] | None:
    """Read the result of a row; None where there is none that was measured in this way."""
    found = read_row("cold_items", name)
    return found if found and found.get("protocol") == PROTOCOL else None


def _is_done(name: str) -> bool:
    found = measured(name)
    return found is not None and not changed_options(found, options_of(name))


def _items(row: Row, path: Path) -> Items:
    """Read what is known of the items; vectors as a user's, from a Parquet file."""
    items = read_items(path)
    if "item_vectors" not in row.option:
        return items
    with tempfile.TemporaryDirectory() as folder:
        write_with_vectors(items, Path(folder) / "items.parquet")
        return read_items(Path(folder) / "items.parquet")


def _held_out(log: InteractionLog) -> Ints:
    counts = np.bincount(log.item_codes, minlength=log.num_items)
    known = np.flatnonzero(counts >= FEWEST_EVENTS)
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(known, round(HELD_OUT * len(known)), replace=False))


def _on_validation(trained: Trained, split: Split, options: Options) -> Floats:
    """Return `METRICS` of each validation user, whose items are none of those held out."""
    ranks = trained.ranking(replace(split, test=split.validation), options.protocol).ranks
    return np.column_stack([per_user(name, ranks) for name in METRICS])


def _measure(
    trained: Trained,
    log: InteractionLog,
    rest: InteractionLog,
    held_out: Ints,
    items: Items,
    options: Options,
) -> tuple[Ints, dict[int, Floats]]:
    """Return which held-out item each later event is of, and its figures by number of events."""
    network, ids = trained.network, log.item_ids[held_out]
    assert isinstance(network, AdditiveNetwork)
    events = _events(log, held_out, trained.vocabulary.encode_items(log.item_ids))
    intents = additive_intents(
        network, Ragged.from_lists([event.history for event in events]), torch.float32
    )
    keys = network.keys().detach()
    histories = Sequences.from_log(rest, trained.vocabulary).histories
    old_targets, old_intents = trained_events(network, histories)
    described = numbers(item_features(items, ids, options))
    later = [n for n, event in enumerate(events) if event.number >= max(EVENTS)]
    found: dict[int, Floats] = {}
    for count in EVENTS:
        rows = np.flatnonzero(np.bincount(old_targets, minlength=len(keys)) >= max(1, count))
        first = [n for n, event in enumerate(events) if event.number < count]
        known = [mean_of_first(old_targets, old_intents, rows, count)]
        asked = [mean_of_first(np.array([events[n].item for n in first], np.int64), intents[first],
                               np.arange(len(held_out)), count)]  # fmt: skip
        if network.prior is not None and described is not None:
            with torch.no_grad():
                known.append(normalize(network.prior.rows("key")[torch.from_numpy(rows)], dim=1))
                whole = network.prior.followed_by(len(keys), described)
                asked.append(normalize(whole.rows("key")[len(keys) :], dim=1))
        new = predicted_keys(keys[rows], torch.cat(known, dim=1), torch.cat(asked, dim=1))
        if bool((new != new[0]).any()):
            new = scaled_to_share(new, keys, old_intents[:QUERIES], SHARE)
        found[count] = _figures([events[n] for n in later], intents[later], keys, new.float())
    return np.array([events[n].item for n in later], np.int64), found


def _events(log: InteractionLog, held_out: Ints, codes: Ints) -> list[Event]:
    """List who took a held-out item when, in time order."""
    order = log.time_order()
    by_time = order if log.timestamps is None else np.argsort(log.timestamps, kind="stable")
    place = {int(item): at for at, item in enumerate(held_out)}
    before: dict[int, tuple[list[int], list[int]]] = {}
    counts = [0] * len(held_out)
    events = []
    for row in by_time.tolist():
        user, item = int(log.user_codes[row]), int(log.item_codes[row])
        history, new = before.setdefault(user, ([], []))
        if item in place:
            at = place[item]
            if history:
                events.append(
                    Event(at, counts[at], np.array(history, np.int64), np.array(new, np.int64))
                )
                counts[at] += 1
            new.append(at)
        elif codes[item] >= 0:
            history.append(int(codes[item]))
    return events


def _figures(
    events: list[Event], intents: torch.Tensor, old: torch.Tensor, new: torch.Tensor
) -> Floats:
    """Look for the item of each event among all items; the score is m · k̂.

    Returns
    -------
    (n, 3) float64
        `METRICS`, and which share of the list is new.
    """
    values = np.zeros((len(events), 3))
    keys = torch.cat([old, new]).T
    for start in range(0, len(events), 1000):
        scored = intents[start : start + 1000] @ keys
        for n, scores in enumerate(scored, start):
            event = events[n]
            scores[torch.from_numpy(event.history)] = -torch.inf
            scores[len(old) + torch.from_numpy(event.new_before)] = -torch.inf
            rank = int((scores >= scores[len(old) + event.item]).sum())  # ties stand before it
            top = scores.topk(CUT).indices
            values[n] = (
                rank <= CUT,
                1 / np.log2(rank + 1) if rank <= CUT else 0.0,
                float((top >= len(old)).float().mean()),
            )
    return values


def main() -> None:
    """Run the rows asked for, or those that are missing: each for itself, as its memory counts."""
    asked = sys.argv[1:] or [name for name in ROWS if not _is_done(name)]
    for name in asked:
        if name not in ROWS:
            raise SystemExit(f"no row {name!r}; rows: {', '.join(ROWS)}")
    each_for_itself("benchmarks.cold_items.run", asked, run_row)


if __name__ == "__main__":
    main()
