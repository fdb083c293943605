"""Items held out of training and folded in after 1, 2, 5 and 20 events.

A tenth of the better-known items is there to choose β on, another tenth is reported: two catalogues
with the same trained items. Every system is a query for each case and a key for each item, by
inner product, so all are judged by the same lines.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.api import Trained, train_on
from attrec.config import Options
from attrec.data.datasets import fetch
from attrec.data.interactions import InteractionLog, concatenate
from attrec.data.ragged import Ragged
from attrec.data.reading import read_interactions
from attrec.data.sequences import Sequences, last_items
from attrec.data.splits import Split, split_log
from attrec.data.vocabulary import Vocabulary
from attrec.evaluation.intervals import bootstrap_means, interval
from attrec.model.additive import AdditiveNetwork
from attrec.model.network import AttRecNetwork
from attrec.new_items import (
    item_factors,
    mean_of_first,
    predicted_keys,
    scaled_to_share,
    trained_events,
)
from attrec.retrieval.vectors import additive_intents, item_keys, query_vectors, user_vectors
from benchmarks.rows import write_row

COUNTS = (1, 2, 5, 20)
FEWEST_EVENTS = 40
"""Of a held-out item: twenty to fold it in from, the others to look for it."""
HELD_OUT = 0.1
BETAS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
PRESET = "paper-sparse"
ADDITIVE_EPOCHS = 8
NEIGHBOURS = 50
CUT = 10
SOME, LATER = 2000, 4000
"""Lists by which a share is held; places looked for, at most."""
PLAIN, FIXED = "paper-sparse, β = 0", "paper-sparse, β fixed"
PUSHED = "paper-sparse, β by the share taken"

PROTOCOL = (
    f"of the items with at least {FEWEST_EVENTS} events, {HELD_OUT:.0%} to choose β and "
    f"{HELD_OUT:.0%} reported, neither trained on; folded in from their first 1, 2, 5 or 20 events "
    f"that have a history, and looked for in the events after the twentieth ({LATER:,} of them), "
    "among all trained and the new items, seen items left out; trained: the trained items that "
    "ended a user's history, with the new items beside them; share of lists: of those users' "
    "top-10 places; β fixed: by NDCG@10 of new and trained items, weighted as they are taken; β by "
    "the share taken: the least with which new items take no more of the lists than those to "
    f"choose by took of the last events; item-kNN: cosine, {NEIGHBOURS} neighbours; the additive "
    f"network after {ADDITIVE_EPOCHS} epochs; 95 % intervals by 2,000 bootstrap draws of new "
    "items; one seed"
)
"""What a reader of the figures should know."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cases:
    """Places where something was taken, in codes of the log; ``items`` may be new or trained."""

    users: Ints
    items: Ints
    histories: Ragged
    new_before: Ragged

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: npt.NDArray[Any]) -> Cases:
        """Return the cases ``rows``."""
        return Cases(self.users[rows], self.items[rows], self.histories.take(rows),
                     self.new_before.take(rows))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trial:
    """Some new items: what they are folded in from, and what is looked for.

    Attributes
    ----------
    new : (n,) codes of the new items, ascending
    first : Cases
        Their first events, in time order.
    number : (len(first),) which event of its item each is
    later : Cases
        All events after the twentieth.
    ends : Cases
        The last event of each judged user, of a trained item or a later one of a new item.
    """

    new: Ints
    first: Cases
    number: Ints
    later: Cases
    ends: Cases

    def events(self, count: int) -> tuple[Cases, npt.NDArray[np.int64]]:
        """Return the first events of all items, item by item, and their offsets."""
        rows = np.flatnonzero(self.number < count)
        rows = rows[np.argsort(self.first.items[rows], kind="stable")]
        found = np.bincount(np.searchsorted(self.new, self.first.items[rows]),
                            minlength=len(self.new))  # fmt: skip
        return self.first.take(rows), np.concatenate([[0], np.cumsum(found)])


@dataclass(frozen=True, eq=False)
class System:
    """Scores are queries (of later, of ends) · keys of trained and then of new items."""

    later: torch.Tensor
    ends: torch.Tensor
    keys: torch.Tensor


def run_row(data: str) -> None:
    """Measure one data set."""
    log = read_interactions(fetch(data).interactions)
    choosing, reported = _held_out(log)
    new = np.sort(np.concatenate([choosing, reported]))
    rest = log.take(np.flatnonzero(~np.isin(log.item_codes, new)))
    options = Options.of(PRESET)
    split = split_log(rest, options.protocol)
    started = time.perf_counter()
    paper = train_on(split.train, options, validate_on=split)
    seconds = {"paper-sparse": time.perf_counter() - started}
    catalogue = paper.vocabulary
    trials = {
        name: _trial(log, split, catalogue, items)
        for name, items in (("choosing", choosing), ("reported", reported))
    }
    taken = {name: _share_taken(trial) for name, trial in trials.items()}
    tried = {str(beta): _tried(paper, split, trials["choosing"], beta, log) for beta in BETAS}
    beta = max(BETAS, key=lambda one: _worth(tried[str(one)], taken["choosing"]))
    print(data, "taken", taken, "β", beta, flush=True)
    for one in BETAS:
        print(one, round(_worth(tried[str(one)], taken["choosing"]), 5), tried[str(one)])
    trial = trials["reported"]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    differences: dict[str, Any] = {}
    pushes: dict[str, float] = {}
    for name, count, system in _systems(
        data, log, split, paper, trial, beta, taken["choosing"], seconds, pushes
    ):
        judged = _judge(system, trial, log, catalogue)
        found.setdefault(name, {})[str(count)] = judged
        print(data, name, count, _means(judged), flush=True)
    for after in map(str, COUNTS):
        differences[after] = _difference(found[PUSHED][after], found[PLAIN][after])
    write_row(
        "foldin",
        f"items.{data}",
        {
            "data": {"name": data, "log_sha256": log.fingerprint(), "held_out": len(reported)},
            "protocol": PROTOCOL,
            "config": {**options.to_dict(), "additive": additive_options().to_dict()},
            "seeds": [0],
            "beta": beta,
            "beta_by_share": pushes,
            "valid": tried,
            "share_taken": taken,
            "cases": {"later": len(trial.later), "ends": len(trial.ends)},
            "metrics": {
                name: {count: _summary(judged) for count, judged in counts.items()}
                for name, counts in found.items()
            },
            "by_share_minus_without": differences,
            "cost": {"train_seconds": seconds, "seconds": time.perf_counter() - started,
                     "epochs": paper.run.best_epoch, "threads": 1},
        },
    )  # fmt: skip


def _systems(
    data: str,
    log: InteractionLog,
    split: Split,
    paper: Trained,
    trial: Trial,
    beta: float,
    share: float,
    seconds: dict[str, float],
    pushes: dict[str, float],
) -> Iterator[tuple[str, int, System]]:
    """Yield every system after every count of events."""
    catalogue = paper.vocabulary
    for count in COUNTS:
        yield PLAIN, count, _folded_paper(paper, split, trial, count, 0.0)
        yield FIXED, count, _folded_paper(paper, split, trial, count, beta)
        yield PUSHED, count, _pushed_to_share(paper, split, trial, count, share, pushes)
        yield "item-kNN", count, _neighbours(split, trial, count, catalogue)
        log_then = _with_first(log, split, trial, count)
        started = time.perf_counter()
        again = train_on(log_then, Options.of(PRESET), num_epochs=paper.run.best_epoch)
        seconds[f"paper-sparse, retrained {count}"] = time.perf_counter() - started
        yield "paper-sparse, retrained", count, _as_trained(again, trial, log, catalogue)
    plain = additive_options()
    started = time.perf_counter()
    additive = train_on(split.train, plain, num_epochs=ADDITIVE_EPOCHS)
    seconds["additive"] = time.perf_counter() - started
    assert isinstance(additive.network, AdditiveNetwork)
    histories = Sequences.from_log(split.train, additive.vocabulary).histories
    old = trained_events(additive.network, histories)
    for count in COUNTS:
        for name, room in (("predicted keys", None), ("scaled to the share taken", share)):
            yield f"additive, {name}", count, _folded_additive(additive, old, trial, count, room)


def _tried(
    paper: Trained, split: Split, trial: Trial, beta: float, log: InteractionLog
) -> dict[str, dict[str, float]]:
    found = {}
    for count in COUNTS:
        system = _folded_paper(paper, split, trial, count, beta)
        found[str(count)] = _means(_judge(system, trial, log, paper.vocabulary))
    return found


def additive_options() -> Options:
    """Return the default preset's, without the popularity of the moment: keys alone are judged."""
    return Options.of("accurate", recent_popularity=False)


def _held_out(log: InteractionLog) -> tuple[Ints, Ints]:
    counts = np.bincount(log.item_codes, minlength=log.num_items)
    known = np.flatnonzero(counts >= FEWEST_EVENTS)
    chosen = np.random.default_rng(0).permutation(known)
    size = round(HELD_OUT * len(known))
    return np.sort(chosen[:size]), np.sort(chosen[size : 2 * size])


def _trial(log: InteractionLog, split: Split, catalogue: Vocabulary, new: Ints) -> Trial:
    """Walk through the log in time order; items that nobody is asked about are not there."""
    assert log.timestamps is not None
    index = catalogue.encode_items(log.item_ids)
    place = {int(item): at for at, item in enumerate(new)}
    counts = [0] * len(new)
    before: dict[int, tuple[list[int], list[int]]] = {}
    walked: list[tuple[int, int, list[int], list[int], int]] = []
    last: dict[int, int] = {}
    firsts: list[int] = []
    laters: list[int] = []
    judged = set(split.test.user_codes.tolist())
    for row in np.argsort(log.timestamps, kind="stable").tolist():
        user, item = int(log.user_codes[row]), int(log.item_codes[row])
        at, trained = place.get(item, -1), int(index[item])
        if at < 0 and trained < 0:
            continue
        old, fresh = before.setdefault(user, ([], []))
        if old:
            number = counts[at] if at >= 0 else -1
            if at >= 0:
                counts[at] += 1
                (firsts if number < max(COUNTS) else laters).append(len(walked))
            last[user] = len(walked)
            keep = at >= 0 or user in judged
            walked.append((user, item, old.copy() if keep else [], fresh.copy(), number))
        (fresh if at >= 0 else old).append(at if at >= 0 else trained)
    ends = [
        n for user, n in last.items()
        if user in judged and not 0 <= walked[n][4] < max(COUNTS)
    ]  # fmt: skip

    drawn = np.random.default_rng(0).permutation(len(laters))[:LATER]
    laters = [laters[n] for n in np.sort(drawn)]

    def cases(rows: list[int]) -> Cases:
        some = [walked[n] for n in rows]
        return Cases(
            np.array([one[0] for one in some], np.int64),
            np.array([one[1] for one in some], np.int64),
            Ragged.from_lists([one[2] for one in some]),
            Ragged.from_lists([one[3] for one in some]),
        )

    return Trial(
        new, cases(firsts), np.array([walked[n][4] for n in firsts]), cases(laters), cases(ends)
    )


def _share_taken(trial: Trial) -> float:
    return float(np.isin(trial.ends.items, trial.new).mean())


def _with_first(log: InteractionLog, split: Split, trial: Trial, count: int) -> InteractionLog:
    """Return the training events and the first events of the new items."""
    events, _ = trial.events(count)
    wanted = set(zip(events.users.tolist(), events.items.tolist(), strict=True))
    rows = [
        row
        for row in np.flatnonzero(np.isin(log.item_codes, trial.new)).tolist()
        if (int(log.user_codes[row]), int(log.item_codes[row])) in wanted
    ]
    return concatenate(split.train, log.take(np.array(rows)))


def _lifted(queries: torch.Tensor) -> torch.Tensor:
    """[2q, −1], which with [k, ‖k‖²] gives ‖q‖² − ‖q − k‖²."""
    return torch.cat([2.0 * queries, queries.new_full((len(queries), 1), -1.0)], dim=1)


def _lifted_keys(keys: torch.Tensor) -> torch.Tensor:
    return torch.cat([keys, keys.square().sum(dim=1, keepdim=True)], dim=1)


def _queries(trained: Trained, cases: Cases, histories: Ragged) -> torch.Tensor:
    """Return queries by a trained network; users in codes of the log's own table."""
    return query_vectors(trained.network, cases.users, histories, dtype=torch.float32)


def _users_as_indices(trained: Trained, cases: Cases, log_users: npt.NDArray[Any]) -> Cases:
    return replace(cases, users=trained.vocabulary.encode_users(log_users)[cases.users])


@torch.no_grad()
def _folded_paper(paper: Trained, split: Split, trial: Trial, count: int, beta: float) -> System:
    network = paper.network
    assert isinstance(network, AttRecNetwork)
    ids = split.log.user_ids
    events, offsets = trial.events(count)
    events = _users_as_indices(paper, events, ids)
    windows = torch.from_numpy(last_items(events.histories, network.config.window_length))
    X, V = item_factors(
        user_vectors(network, events.users, events.histories),
        network.intent(windows, dtype=torch.float64),
        offsets,
        network.user_long.mean(dim=0),
        _intent_mean(paper, split),
        beta,
    )
    omega = network.config.long_term_weight
    new = torch.cat([omega**0.5 * V, (1 - omega) ** 0.5 * X], dim=1).float()
    later, ends = (_users_as_indices(paper, cases, ids) for cases in (trial.later, trial.ends))
    return System(
        _lifted(_queries(paper, later, later.histories)),
        _lifted(_queries(paper, ends, ends.histories)),
        _lifted_keys(torch.cat([item_keys(network), new])),
    )


def _pushed_to_share(
    paper: Trained, split: Split, trial: Trial, count: int, share: float, pushes: dict[str, float]
) -> System:
    """Push until new items take no more of the lists than of the events; note how far."""
    index = np.zeros(split.log.num_items, np.int64)  # what is looked for does not matter
    for beta in BETAS:
        system = _folded_paper(paper, split, trial, count, beta)
        old = len(system.keys) - len(trial.new)
        if _ranked(system.ends, system.keys, trial.ends, index, old)[2].mean() <= share:
            break
    pushes[str(count)] = beta
    return system


@cache
@torch.no_grad()
def _intent_mean(paper: Trained, split: Split) -> torch.Tensor:
    network, sequences = paper.network, Sequences.from_log(split.train, paper.vocabulary)
    assert isinstance(network, AttRecNetwork)
    windows = sequences.windows(
        np.arange(sequences.num_windows), network.config.window_length, 1
    ).inputs
    return network.intent(torch.from_numpy(windows)).double().mean(dim=0)


@torch.no_grad()
def _folded_additive(
    additive: Trained,
    old: tuple[Ints, torch.Tensor],
    trial: Trial,
    count: int,
    share: float | None,
) -> System:
    network, (targets, intents) = additive.network, old
    assert isinstance(network, AdditiveNetwork)
    keys = item_keys(network)
    events, offsets = trial.events(count)
    asked = torch.segment_reduce(
        additive_intents(network, events.histories, torch.float32), "mean",
        lengths=torch.from_numpy(np.diff(offsets)),
    )  # fmt: skip
    rows = np.flatnonzero(np.bincount(targets, minlength=len(keys)) >= count)
    new = predicted_keys(keys[rows], mean_of_first(targets, intents, rows, count), asked).float()
    if share is not None:
        new = scaled_to_share(new, keys, intents[:SOME], share)
    later, ends = (
        additive_intents(network, cases.histories, torch.float32)
        for cases in (trial.later, trial.ends)
    )
    return System(later, ends, torch.cat([keys, new]))


@torch.no_grad()
def _as_trained(
    trained: Trained, trial: Trial, log: InteractionLog, catalogue: Vocabulary
) -> System:
    """Return a model that knows all items, in the numbering of the others."""
    ids = np.concatenate([catalogue.item_ids, log.item_ids[trial.new]])
    place = trained.vocabulary.encode_items(ids)
    assert (place >= 0).all()
    keys = item_keys(trained.network)[torch.from_numpy(place)]
    queries = []
    for cases in (trial.later, trial.ends):
        known = _users_as_indices(trained, cases, log.user_ids)
        histories = Ragged(place[cases.histories.values].astype(np.int32), cases.histories.offsets)
        queries.append(_queries(trained, known, histories))
    return System(_lifted(queries[0]), _lifted(queries[1]), _lifted_keys(keys))


def _neighbours(split: Split, trial: Trial, count: int, catalogue: Vocabulary) -> System:
    """Return item-kNN by cosine over who took what, new items by the takers of their first events.

    An item has the history's items among its nearest ``NEIGHBOURS`` added up.
    """
    old = len(catalogue.item_ids)
    items = catalogue.encode_items(split.log.item_ids)[split.train.item_codes]
    events, _ = trial.events(count)
    users = np.concatenate([split.train.user_codes, events.users])
    items = np.concatenate([items, old + np.searchsorted(trial.new, events.items)])
    pairs = torch.from_numpy(np.unique(np.stack([users, items]).astype(np.int64), axis=1))
    size = (int(users.max()) + 1, old + len(trial.new))
    took = torch.sparse_coo_tensor(pairs, torch.ones(pairs.shape[1]), size,
                                   check_invariants=True).coalesce()  # fmt: skip
    together = torch.sparse.mm(took.T, took).to_dense()
    times = together.diagonal().clone()
    together.fill_diagonal_(0.0)
    cosine = together / (times[:, None] * times[None]).sqrt().clamp(min=1.0)
    best = cosine[:, :old].topk(NEIGHBOURS, dim=1)
    keys = torch.zeros(size[1], old).scatter_(1, best.indices, best.values)
    later, ends = (_taken(cases.histories, old) for cases in (trial.later, trial.ends))
    return System(later, ends, keys)


def _taken(histories: Ragged, items: int) -> torch.Tensor:
    rows = torch.zeros(len(histories), items)
    rows[torch.from_numpy(histories.row_of_value), torch.from_numpy(histories.values).long()] = 1.0
    return rows


def _judge(
    system: System, trial: Trial, log: InteractionLog, catalogue: Vocabulary
) -> dict[str, npt.NDArray[Any]]:
    """Return the figures of each case: later ones by new item, and the ends."""
    old = len(system.keys) - len(trial.new)
    index = catalogue.encode_items(log.item_ids).astype(np.int64)
    index[trial.new] = old + np.arange(len(trial.new))
    hit, gain, _ = _ranked(system.later, system.keys, trial.later, index, old)
    end_hit, end_gain, share = _ranked(system.ends, system.keys, trial.ends, index, old)
    trained = ~np.isin(trial.ends.items, trial.new)
    return {
        "item": np.searchsorted(trial.new, trial.later.items),
        "hit_rate@10": hit,
        "ndcg@10": gain,
        "trained_hit_rate@10": end_hit[trained],
        "trained_ndcg@10": end_gain[trained],
        "share_of_lists": share,
    }


def _ranked(
    queries: torch.Tensor, keys: torch.Tensor, cases: Cases, index: Ints, old: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    ranks, shares = np.zeros(len(cases)), np.zeros(len(cases))
    targets = index[cases.items]
    for start in range(0, len(cases), 500):
        scored = queries[start : start + 500] @ keys.T
        for at, scores in enumerate(scored):
            n = start + at
            scores[torch.from_numpy(cases.histories[n]).long()] = -torch.inf
            own = float(scores[targets[n]])
            scores[old + torch.from_numpy(cases.new_before[n]).long()] = -torch.inf
            # Who takes an item again could not be shown it: a miss. Ties stand before it.
            ranks[n] = int((scores >= own).sum()) if own > -np.inf else len(keys)
            shares[n] = float((scores.topk(CUT).indices >= old).float().mean())
    hits = ranks <= CUT
    return hits.astype(float), np.where(hits, 1 / np.log2(np.maximum(ranks, 1) + 1), 0.0), shares


def _means(judged: dict[str, npt.NDArray[Any]]) -> dict[str, float]:
    return {name: round(float(v.mean()), 6) for name, v in judged.items() if name != "item"}


def _worth(of_counts: dict[str, dict[str, float]], taken: float) -> float:
    """NDCG@10 of new and trained items, weighted as they are taken, over the counts."""
    return float(
        np.mean([taken * one["ndcg@10"] + (1 - taken) * one["trained_ndcg@10"]
                 for one in of_counts.values()])
    )  # fmt: skip


def _per_item(judged: dict[str, npt.NDArray[Any]], name: str) -> npt.NDArray[np.float64]:
    """(n, 2): sum of the figure and number of cases of each new item."""
    cases = np.bincount(judged["item"])
    return np.column_stack([np.bincount(judged["item"], judged[name]), cases])


def _summary(judged: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    result: dict[str, Any] = dict(_means(judged))
    for name in ("hit_rate@10", "ndcg@10"):
        drawn = bootstrap_means(_per_item(judged, name))
        low, high = interval(drawn[:, 0] / drawn[:, 1])
        result[name] = {"mean": float(judged[name].mean()), "low": low, "high": high}
    return result


def _difference(
    first: dict[str, npt.NDArray[Any]], second: dict[str, npt.NDArray[Any]]
) -> dict[str, Any]:
    result = {}
    for name in ("hit_rate@10", "ndcg@10"):
        both = np.column_stack([_per_item(first, name)[:, :1], _per_item(second, name)])
        drawn = bootstrap_means(both)
        low, high = interval((drawn[:, 0] - drawn[:, 1]) / drawn[:, 2])
        mean = float(first[name].mean() - second[name].mean())
        result[name] = {"mean": mean, "low": low, "high": high}
    return result
