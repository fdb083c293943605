"""make bench-replay: the last tenth of a log, event by event, as a service would have met it.

python -m benchmarks.replay.run            rows that have no result or other options
python -m benchmarks.replay.run ROW ...    these rows, again

Each event asks for the list that its user would have got just before it. Trained is on what came
before the last tenth; what happens then sets the models apart:

frozen       nothing is taken in: everybody's history ends where the training's log ends
events       histories grow with every event; items and their popularity stay as trained
updated      and every twentieth of the replay `attrec update` takes new items and popularity in
retrained    and every quarter of it the network is trained anew, from the start
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.api import Trained, retrain_on, train_on
from attrec.baselines import Popularity, item_counts, recent_item_counts
from attrec.config import Options
from attrec.data.cases import Cases
from attrec.data.interactions import InteractionLog
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.data.vocabulary import Vocabulary
from attrec.evaluation.intervals import bootstrap_means, interval
from attrec.evaluation.metrics import per_user
from attrec.evaluation.ranking import Scorer, rank_targets
from attrec.recommender import Recommender
from attrec.request import plain
from attrec.retrieval.vectors import NetworkScorer
from attrec.updating import update
from benchmarks.data import load_split
from benchmarks.rows import is_as_declared, write_row

ROWS = {
    f"{data}.{preset}": (data, preset)
    for preset in ("accurate", "paper-sparse")
    for data in ("ml-100k", "movietweetings-100k")
}
STEPS, QUARTERS, K, TIMED = 20, 4, 10, 1000
SYSTEMS = ("frozen", "events", "updated", "retrained", "recent popularity")
METRICS = ("hit_rate@10", "ndcg@10")


@dataclass(frozen=True, eq=False)
class Event:
    """One event of the replay, in the codes of the log."""

    user: int
    item: int
    frozen: npt.NDArray[np.int32]
    history: npt.NDArray[np.int32]


def run_row(name: str) -> None:
    """Measure one row."""
    data = ROWS[name][0]
    torch.set_num_threads(1)
    options = options_of(name)
    split = load_split(data, options.protocol)
    log = split.log
    assert log.timestamps is not None
    first = train_on(split.train, options, validate_on=split)
    before = split.train_and_validation
    began = _recommender(retrain_on(split, first, options), before, first, options)
    order = np.argsort(log.timestamps, kind="stable")
    start = len(before)
    events = list(_events(log, order, start))
    values = {system: np.zeros((len(events), 2)) for system in SYSTEMS}
    shares = dict.fromkeys(SYSTEMS, 0.0)
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    model = newest = began
    edges = np.linspace(0, len(events), STEPS + 1).astype(int)
    for step in range(STEPS):
        known = log.take(order[: start + edges[step]])
        if step:
            with _timed(seconds["update"]):
                model = update(model, known).recommender
            newest = update(newest, known).recommender
        if step and step % (STEPS // QUARTERS) == 0:
            with _timed(seconds["training"]):
                again = train_on(
                    known, options, num_epochs=first.run.best_epoch, moment=_moment(first)
                )
            newest = _recommender(again, known, first, options)
        block = events[edges[step] : edges[step + 1]]
        popular = Vocabulary.fit(known)
        states: dict[str, tuple[Scorer, Vocabulary, bool]] = {
            "frozen": (NetworkScorer(began.network), began.vocabulary, True),
            "events": (NetworkScorer(began.network), began.vocabulary, False),
            "updated": (NetworkScorer(model.network), model.vocabulary, False),
            "retrained": (NetworkScorer(newest.network), newest.vocabulary, False),
            "recent popularity": (
                Popularity(recent_item_counts(known, popular), item_counts(known, popular)),
                popular, False,
            ),
        }  # fmt: skip
        for system, state in states.items():
            figures, new = _judge(block, *state, log, began.vocabulary)
            values[system][edges[step] : edges[step + 1]] = figures
            shares[system] += new * len(block) / len(events)
        print(name, step + 1, {s: v[: edges[step + 1]].mean(axis=0).round(4).tolist()
                               for s, v in values.items()}, flush=True)  # fmt: skip
    untrained = [began.vocabulary.encode_items(log.item_ids[[e.item]])[0] < 0 for e in events]
    write_row(
        "replay",
        name,
        {
            "data": {"name": data, "log_sha256": log.fingerprint(), "events": len(events),
                     "users": len({event.user for event in events}),
                     "new_users": len({e.user for e in events if len(e.frozen) == 0})},
            "protocol": "the last tenth of the events, each asking for its item just before it; "
            "full ranking over the items the model has, seen items left out; an item it lacks is a "
            f"miss; update every {len(events) // STEPS:,} events, training anew every "
            f"{len(events) // QUARTERS:,}; one seed; 95 % intervals by 2,000 bootstrap draws of "
            "events",
            "config": options.to_dict(),
            "seeds": [0],
            "share_of_events_on_new_items": float(np.mean(untrained)),
            "share_of_places_with_new_items": shares,
            "metrics": _summary(values),
            "cost": {
                f"{what}_cpu_seconds": float(np.median(found))
                for what, found in {**seconds, **_served(began, log, events[:TIMED])}.items()
            },
        },
    )  # fmt: skip


def options_of(name: str) -> Options:
    """Return the options of a row."""
    return Options.of(ROWS[name][1], split="global-time")


def _events(log: InteractionLog, order: npt.NDArray[np.int64], start: int) -> Iterator[Event]:
    """Yield the events behind ``start`` in time order, with what their user had taken before."""
    histories: dict[int, list[int]] = {}
    frozen: dict[int, npt.NDArray[np.int32]] = {}
    for place, row in enumerate(order.tolist()):
        user, item = int(log.user_codes[row]), int(log.item_codes[row])
        history = histories.setdefault(user, [])
        if place >= start:
            if user not in frozen:
                frozen[user] = np.array(history, np.int32)
            yield Event(user, item, frozen[user], np.array(history, np.int32))
        history.append(item)


def _recommender(
    trained: Trained, log: InteractionLog, first: Trained, options: Options
) -> Recommender:
    vocabulary = trained.vocabulary
    sequences = Sequences.from_log(log, vocabulary)
    return Recommender(trained.network, vocabulary, sequences, options, moment=_moment(first))


def _moment(first: Trained) -> Any:
    return None if first.calibration is None else first.calibration.moment


def _judge(
    block: list[Event],
    scorer: Scorer,
    vocabulary: Vocabulary,
    frozen: bool,
    log: InteractionLog,
    trained: Vocabulary,
) -> tuple[npt.NDArray[np.float64], float]:
    """Return the figures of each event, and the share of places that hold an untrained item."""
    item_of_code = vocabulary.encode_items(log.item_ids).astype(np.int32)
    users = vocabulary.encode_users(log.user_ids[[event.user for event in block]])
    histories = Ragged.from_lists([e.frozen if frozen else e.history for e in block])
    encoded = item_of_code[histories.values]
    cases = Cases(
        np.where(users < vocabulary.num_trained_users, users, -1),
        Ragged(encoded, histories.offsets).where(encoded >= 0),
        Ragged.from_lists([[item_of_code[event.item]] for event in block]),
    )
    ranking = rank_targets(scorer, cases, vocabulary.num_items, top_k=K)
    top = ranking.top_items[ranking.top_items >= 0]
    new = trained.encode_items(vocabulary.item_ids[top]) < 0
    return np.stack([per_user(m, ranking.ranks) for m in METRICS], axis=1), float(new.mean())


@contextmanager
def _timed(into: list[float]) -> Iterator[None]:
    """Append the seconds of the processor, which other work on the machine hardly changes."""
    began = process_time()
    yield
    into.append(process_time() - began)


def _served(
    served: Recommender, log: InteractionLog, events: list[Event]
) -> dict[str, list[float]]:
    """Return the seconds of each event taken in, and of the list after it."""
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    now = float(served.histories.times.max()) if served.histories.times is not None else 0.0
    for number, event in enumerate(events):
        user, item = plain(log.user_ids[event.user]), plain(log.item_ids[event.item])
        with _timed(seconds["observe"]):
            came = served.observe(user, item, now + number)
        if came:
            with _timed(seconds["recommend"]):
                served.recommend(user, k=K)
    return seconds


def _summary(values: dict[str, npt.NDArray[np.float64]]) -> dict[str, Any]:
    columns = np.concatenate(list(values.values()), axis=1)
    means = bootstrap_means(columns)
    found: dict[str, Any] = {}
    for at, system in enumerate(values):
        for number, metric in enumerate(METRICS):
            column = 2 * at + number
            low, high = interval(means[:, column])
            found.setdefault(system, {})[metric] = {
                "mean": float(columns[:, column].mean()), "low": low, "high": high,
                "by_quarter": [float(part.mean())
                               for part in np.array_split(columns[:, column], QUARTERS)],
            }  # fmt: skip
    pairs = {"updated": "events", "retrained": "updated", "events": "frozen"}
    for system, other in pairs.items():
        for number, metric in enumerate(METRICS):
            a, b = (2 * list(values).index(s) + number for s in (system, other))
            low, high = interval(means[:, a] - means[:, b])
            found[system][metric][f"less {other}"] = {"low": low, "high": high}
    return found


def main() -> None:
    """Run the rows asked for, or those that are missing."""
    for row in sys.argv[1:] or [
        name for name in ROWS if not is_as_declared("replay", name, options_of(name))
    ]:
        if row not in ROWS:
            raise SystemExit(f"no row {row!r}; rows: {', '.join(ROWS)}")
        run_row(row)


if __name__ == "__main__":
    main()
