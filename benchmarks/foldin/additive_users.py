"""Users of the accurate preset's network, which has a row for nobody: known or not is all one.

A tenth of the users is held out of training altogether. Asked is whether a user's list depends on
anything but the history: whether the model knows the user, who else is asked in the same call. And
what the held-out tenth gets is judged beside what a model trained on everybody gives it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import attrec
from attrec import Recommender
from attrec.answers import RecommendationTable
from attrec.config import Options
from attrec.data.cases import encode_cases
from attrec.data.interactions import InteractionLog
from attrec.data.sequences import Sequences
from attrec.data.splits import Split, split_log
from attrec.data.vocabulary import Vocabulary
from attrec.evaluation.metrics import per_user
from attrec.evaluation.ranking import rank_targets
from attrec.retrieval.vectors import NetworkScorer
from benchmarks.accuracy import run as accuracy
from benchmarks.data import load_split
from benchmarks.foldin.users import METRICS, SEEDS, Figures, summary
from benchmarks.rows import write_row

HELD_OUT = 0.1
"""Of all users, never trained on."""
K = 50
EVERYBODY, OTHERS = "trained on everybody", "trained without them"
TRAINED, UNKNOWN = "trained users", "held-out users"

Lists = Iterator[tuple[Any, npt.NDArray[Any], npt.NDArray[np.float64]]]


@dataclass
class Agreement:
    """How far lists are from those of the same histories, each given alone, without a user.

    Attributes
    ----------
    lists : int
    unequal : int
        Of them, lists that hold other items, or the same in another order.
    largest_difference : float
        Of two distances at the same place.
    """

    lists: int = 0
    unequal: int = 0
    largest_difference: float = 0.0

    def compare(
        self, served: Recommender, table: RecommendationTable, histories: Mapping[Any, Any]
    ) -> None:
        """Ask for each list of ``table`` again, by its user's history alone."""
        for user, items, distances in _lists(table):
            alone = served.recommend(history=histories[user], k=K)
            self.lists += 1
            self.unequal += [place.item_id for place in alone] != items.tolist()
            apart = [abs(a.distance - b) for a, b in zip(alone, distances.tolist(), strict=False)]
            self.largest_difference = max(self.largest_difference, *apart)


def run_row(data: str) -> None:
    """Measure one data set."""
    row = f"{data}.leave-last-out.accurate"
    options = accuracy.options_of(accuracy.read_rows()[row])
    split = load_split(data, options.protocol)
    everybody = Vocabulary.fit(split.train_and_validation)
    held_out = _held_out(split.log)
    judged = np.isin(split.test.user_codes, held_out)
    agreement = {TRAINED: Agreement(), UNKNOWN: Agreement()}
    systems: dict[str, list[Figures]] = {EVERYBODY: [], OTHERS: []}
    epochs, began = [], time.perf_counter()
    for seed in SEEDS:
        seeded = options.with_(seed=seed)
        ranks = accuracy.trained_seed(row, split, seeded, everybody)["places"]["retrained"].ranks
        systems[EVERYBODY].append({name: per_user(name, ranks)[judged] for name in METRICS})
        others = split.log.take(~np.isin(split.log.user_codes, held_out))
        fitted = attrec.fit(others, options=seeded)
        epochs.append(fitted.best_epoch)
        systems[OTHERS].append(_figures(fitted.recommender, others, split, judged, seeded))
        _compare(fitted.recommender, split.log, held_out, agreement)
        print(data, seed, agreement, flush=True)
    write_row(
        "foldin",
        f"users.{data}.accurate",
        {
            "data": {
                "name": data,
                "log_sha256": split.log.fingerprint(),
                "users": split.log.num_users,
                "held_out": len(held_out),
            },
            "protocol": f"{HELD_OUT:.0%} of the users held out of training and validation, and of "
            f"the popularity of the moment; {split.protocol}; full ranking, items seen before left "
            f"out; 95 % intervals by 2,000 bootstrap draws of users, in pairs; mean over "
            f"{len(SEEDS)} seeds",
            "config": options.to_dict(),
            "seeds": list(SEEDS),
            "metrics": {"held out": summary(systems, [(OTHERS, EVERYBODY)])},
            "same_lists": {"k": K, **{group: vars(found) for group, found in agreement.items()}},
            "cost": {"epochs": epochs, "seconds": time.perf_counter() - began, "threads": 1},
        },
    )


def _held_out(log: InteractionLog) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(log.num_users, round(HELD_OUT * log.num_users), replace=False))


def _figures(
    served: Recommender,
    others: InteractionLog,
    split: Split,
    judged: npt.NDArray[np.bool_],
    options: Options,
) -> Figures:
    """Judge a model on the held-out users, as of the moment before the test part."""
    known = split_log(others, options.protocol).train_and_validation
    ranks = rank_targets(
        NetworkScorer(served.as_of(known).network),
        encode_cases(split.test, split.log, served.vocabulary).take(judged),
        served.vocabulary.num_items,
        filter_seen=options.protocol.filter_seen,
        ties=options.protocol.ties,
    ).ranks
    return {name: per_user(name, ranks) for name in METRICS}


def _compare(
    served: Recommender,
    log: InteractionLog,
    held_out: npt.NDArray[np.int64],
    agreement: Mapping[str, Agreement],
) -> None:
    """Compare the lists of trained users, asked by id, and of held-out ones, asked together."""
    unknown = log.take(np.isin(log.user_codes, held_out))
    agreement[TRAINED].compare(served, served.recommend_batch(k=K), _histories(log))
    agreement[UNKNOWN].compare(served, served.recommend_batch(log=unknown, k=K), _histories(log))


def _histories(log: InteractionLog) -> dict[Any, Sequence[Any]]:
    """Each user's items in external ids, oldest first."""
    rows = Sequences.from_log(log, Vocabulary.fit(log)).histories
    return {user: log.item_ids[row].tolist() for user, row in zip(log.user_ids, rows, strict=True)}


def _lists(table: RecommendationTable) -> Lists:
    """Yield each user's list: user, items, distances."""
    starts = np.flatnonzero(table.rank == 1)
    for first, end in zip(starts, np.append(starts[1:], len(table)), strict=True):
        yield table.user_id[first], table.item_id[first:end], table.distance[first:end]
