"""make bench-ablations: a preset with one thing changed, each on its own.

python -m benchmarks.ablations.run            the rows that have no result as declared here
python -m benchmarks.ablations.run ROW ...    these rows again, such as ml-100k.uniform-weights

The paper's model is judged on the test part, to be held against what the paper says. The accurate
preset is judged on the validation part: its options were chosen there. What comes behind its
training, the retraining and the popularity of the moment, is judged without the test part too: what
is left is cut again in the same way. Such rows named in one call share their first training.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from attrec.api import Trained, retrain_on, train_on
from attrec.baselines import item_counts
from attrec.config import Options
from attrec.data.cases import encode_cases
from attrec.data.splits import Split, split_log
from attrec.data.vocabulary import Vocabulary
from attrec.evaluation.evaluate import evaluate_systems
from attrec.model.additive import AdditiveNetwork
from attrec.retrieval.vectors import NetworkScorer
from benchmarks.ablations.variants import (
    ACCURATE,
    ADDITIVE,
    MOMENT,
    OPTIONS,
    RETRAINING,
    VARIANTS,
    Variant,
    VariantScorer,
)
from benchmarks.data import load_split
from benchmarks.kept import Places, read_kept, with_lists, write_kept
from benchmarks.rows import is_as_declared, write_row


@dataclass(frozen=True)
class Family:
    """A preset, what is changed of it, and on which logs.

    Attributes
    ----------
    name : str
        Of the row that has nothing changed.
    variants : dict
        A variant to the options that it changes, that row first.
    networks : dict
        A variant that changes an equation to its network.
    logs : dict
        A row's first word to the data, as `benchmarks.data.load_split` names it.
    options : dict
        Of all variants, for each log.
    judged_on : {"test", "validation", "second cut"}
        The part of the log; a second cut is that of the log without its test part.
    """

    name: str
    preset: str
    variants: dict[str, dict[str, object]]
    networks: Mapping[str, type[Variant] | type[AdditiveNetwork]]
    logs: dict[str, str]
    options: dict[str, dict[str, object]]
    judged_on: str = "test"

    @property
    def rows(self) -> list[str]:
        """The variants, of whichever kind; the row that has nothing changed first."""
        return list(dict.fromkeys([*self.variants, *self.networks]))


# The popularity of the moment is added to a network, whichever it is. An epoch of MovieLens 1M
# takes two minutes.
ACCURATE_LOGS: dict[str, dict[str, object]] = {
    "ml-100k": {"recent_popularity": False},
    "movietweetings-100k": {"recent_popularity": False},
    "amazon-beauty": {"recent_popularity": False},
    "ml-1m": {"recent_popularity": False, "max_epochs": 6},
}
RETRAINING_LOGS = ("movietweetings-100k", "amazon-beauty")
MOMENT_LOGS: dict[str, dict[str, object]] = {
    "movietweetings-100k": {},
    "movietweetings-100k-by-time": {"split": "global-time"},
}
FAMILIES = (
    Family(
        "paper",
        "paper-sparse",
        OPTIONS,
        VARIANTS,
        {"ml-100k": "ml-100k.author-split", "ml-1m": "ml-1m"},
        {"ml-100k": {"max_epochs": 40}, "ml-1m": {"max_epochs": 15}},
    ),
    Family(
        "accurate",
        "accurate",
        ACCURATE,
        ADDITIVE,
        {log: log for log in ACCURATE_LOGS},
        ACCURATE_LOGS,
        judged_on="validation",
    ),
    Family(
        "retraining",
        "accurate",
        RETRAINING,
        {},
        {log: log for log in RETRAINING_LOGS},
        {log: ACCURATE_LOGS[log] for log in RETRAINING_LOGS},
        judged_on="second cut",
    ),
    Family(
        "moment",
        "accurate",
        MOMENT,
        {},
        dict.fromkeys(MOMENT_LOGS, "movietweetings-100k"),
        MOMENT_LOGS,
        judged_on="second cut",
    ),
)


def options_of(family: Family, log: str, name: str) -> Options:
    """Return a row's options."""
    return Options.of(family.preset, **{**family.options[log], **family.variants.get(name, {})})


def split_of(family: Family, log: str, options: Options) -> Split:
    """Return the log's parts; what the variants are judged on is the test part."""
    split = load_split(family.logs[log], options.protocol)
    if family.judged_on == "validation":
        return replace(split, test=split.validation)
    if family.judged_on == "second cut":
        return split_log(split.train_and_validation, options.protocol)
    return split


def train_variant(family: Family, name: str, split: Split, options: Options) -> Trained:
    """Train on the training part; the epoch is chosen on validation."""
    network = family.networks.get(name)
    judged_by = VariantScorer if network and issubclass(network, Variant) else NetworkScorer
    return train_on(
        split.train, options, validate_on=split, network_class=network, make_scorer=judged_by
    )


@lru_cache(maxsize=1)
def first_training(of: str, log: str, options: Options) -> tuple[Split, Trained]:
    """Return the parts of a second cut, and what was trained on the first of them."""
    family = next(family for family in FAMILIES if family.name == of)
    split = split_of(family, log, options)
    return split, train_variant(family, family.name, split, options)


def run_row(family: Family, log: str, name: str) -> None:
    """Measure a variant against its preset on the same users."""
    torch.set_num_threads(1)
    options = options_of(family, log, name)
    again = family.judged_on == "second cut"
    started = time.perf_counter()
    if again:
        split, first = first_training(family.name, log, options.with_(retrain=True))
        retrained = options.retraining_epochs(first.run.best_epoch) > 0
        trained = retrain_on(split, first, options) if retrained else first
    else:
        split = split_of(family, log, options)
        first = trained = train_variant(family, name, split, options)
    seconds = time.perf_counter() - started
    part = split.train_and_validation if again else split.train
    vocabulary = Vocabulary.fit(part)
    cases = encode_cases(split.test, split.log, vocabulary)
    counts = item_counts(part, vocabulary)
    ranking = trained.ranking(split, options.protocol)
    systems = {name: Places.of(ranking, cases, options.protocol.cutoffs, counts)}
    key = [options_of(family, log, family.name).to_dict(), split.log.fingerprint()]
    if name == family.name:
        write_kept("ablations", f"{log}.{name}", key, {}, systems)
    else:
        systems |= _reference(family, log, key)
    most = family.options[log].get("max_epochs")
    limit = f", at most {most} epochs" if most else ""
    how = {
        "test": "; trained on the training part alone",
        "validation": "; judged on the validation part; trained on the training part alone",
        "second cut": "; the log without its test part, cut again in the same way",
    }[family.judged_on]
    evaluation = evaluate_systems(
        {one: [places.ranking] for one, places in systems.items()},
        cases,
        options.protocol,
        counts,
        f"{split.protocol}{how}{limit}, one seed",
    )
    found = with_lists(evaluation.to_dict(), {one: [places] for one, places in systems.items()})
    best = first.run.epochs[first.run.best_epoch - 1]
    write_row(
        "ablations",
        f"{log}.{name}",
        {
            "data": {"name": family.logs[log], "log_sha256": split.log.fingerprint()},
            "protocol": found["protocol"],
            "config": options.to_dict(),
            "seeds": [options.train.seed],
            "metrics": found["systems"][name],
            "family": family.name,
            "minus_preset": found["differences"].get(family.name, {}),
            "cost": {
                "train_seconds": seconds,
                "epochs": len(trained.run.epochs),
                "best_epoch": first.run.best_epoch,
                "step": trained.run.step,
                "threads": 1,
            },
            "valid": best.validation,
        },
    )


def _reference(family: Family, log: str, key: list[object]) -> dict[str, Places]:
    """Return where the targets stood for the preset itself, trained where that is not kept."""
    while (kept := read_kept("ablations", f"{log}.{family.name}", key)) is None:
        run_row(family, log, family.name)
    return kept[1]


def main() -> None:
    """Run the rows asked for, or those that are missing or have other options."""
    every = {
        f"{log}.{name}": (family, log, name)
        for family in FAMILIES
        for log in family.logs
        for name in family.rows
    }
    asked: Iterable[str] = sys.argv[1:]
    missing = [
        row for row, of in every.items() if not is_as_declared("ablations", row, options_of(*of))
    ]
    for row in asked or missing:
        if row not in every:
            raise SystemExit(f"no row {row!r}; rows: {', '.join(every)}")
        run_row(*every[row])


if __name__ == "__main__":
    main()
