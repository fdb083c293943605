"""One call that judges any number of systems on the same users."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from attrec.config import ProtocolConfig
from attrec.data.cases import Cases
from attrec.evaluation.intervals import bootstrap_means, interval
from attrec.evaluation.metrics import (
    FloatArray,
    coverage,
    metric_names,
    novelty,
    per_user,
)
from attrec.evaluation.ranking import Ranking, Scorer, rank_targets

RESAMPLES = 2000
MAIN_CUTOFFS = 2
"""How many cut-offs a narrow table shows."""
REPEAT_SHARE = 0.1
"""Above this share of targets that the user took before, both settings of the filter are shown."""

HISTORY_BANDS = ((0, 5), (5, 10), (10, 20), (20, 50), (50, 100), (100, None))
POPULARITY_BANDS = (("head", 0.5), ("middle", 0.8), ("tail", 1.0))

Figures = dict[str, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class SystemResult:
    """What one system reached.

    Parameters
    ----------
    metrics : dict
        Metric name to ``mean``, ``low``, ``high`` (95 % over users) and ``values`` (one per seed).
    per_user : dict
        Metric name to (n,) float64, each user's figure averaged over the seeds.
    """

    metrics: Figures
    per_user: dict[str, FloatArray] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of all systems on one set of held-out users.

    Parameters
    ----------
    systems : dict
        Name to result, in the order given.
    differences : dict
        Other system to metric to ``mean``, ``low``, ``high`` of (first system − other), in pairs of
        users, and ``excludes_zero``.
    slices : dict
        Slice name to ``users`` and each system's means.
    counts : dict
        Users, targets, misses that the vocabulary forces, new users, repeated targets.
    protocol : str
        One line that names the protocol in full.
    new_users : Evaluation or None
        The same for users without a trained row, who are scored by fold-in, apart.
    other_filter : Evaluation or None
        The same with the seen-filter the other way, where more than 10 % of targets are repeats.
    """

    systems: dict[str, SystemResult]
    differences: dict[str, Figures]
    slices: dict[str, dict[str, Any]]
    counts: dict[str, int | float]
    protocol: str
    new_users: Evaluation | None = None
    other_filter: Evaluation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, JSON-able, without the arrays per user."""
        return {
            "protocol": self.protocol,
            "counts": self.counts,
            "systems": {name: result.metrics for name, result in self.systems.items()},
            "differences": self.differences,
            "slices": self.slices,
            "new_users": None if self.new_users is None else self.new_users.to_dict(),
            "other_filter": None if self.other_filter is None else self.other_filter.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Read what `to_dict` wrote; the arrays per user stay empty."""
        new_users, other_filter = values["new_users"], values["other_filter"]
        return cls(
            {name: SystemResult(figures, {}) for name, figures in values["systems"].items()},
            values["differences"],
            values["slices"],
            values["counts"],
            values["protocol"],
            None if new_users is None else cls.from_dict(new_users),
            None if other_filter is None else cls.from_dict(other_filter),
        )

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    def main_metrics(self) -> list[str]:
        """Name the few metrics that a narrow table shows."""
        shown = self._cutoffs()[:MAIN_CUTOFFS]
        return [f"{base}@{k}" for k in shown for base in ("hit_rate", "ndcg")] + ["mrr"]

    def not_shown(self) -> str:
        """Say which cut-offs such a table leaves out; empty where it has all."""
        others = ", ".join(f"@{k}" for k in self._cutoffs()[MAIN_CUTOFFS:])
        return others and f"the figures {others} are in the JSON alone (--json, to_dict)"

    def _cutoffs(self) -> list[str]:
        names = next(iter(self.systems.values())).metrics
        return [name.partition("@")[2] for name in names if name.startswith("hit_rate@")]

    def __str__(self) -> str:
        """Return a table of the main metrics with their intervals, and the protocol."""
        columns = self.main_metrics()
        width = max([len(name) for name in self.systems] + [6]) + 2
        lines = [" " * width + "".join(f"{column:>26}" for column in columns)]
        for name, result in self.systems.items():
            cells = [result.metrics[column] for column in columns]
            figures = [f"{c['mean']:.4f} [{c['low']:.4f}, {c['high']:.4f}]" for c in cells]
            lines.append(f"{name:<{width}}" + "".join(f"{cell:>26}" for cell in figures))
        return "\n".join([*lines, *filter(None, [self.not_shown()]), self.protocol])


def evaluate_systems(
    systems: Mapping[str, Scorer | Ranking | Sequence[Scorer | Ranking]],
    cases: Cases,
    config: ProtocolConfig,
    item_counts: npt.NDArray[np.int64],
    split_in_words: str,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Judge every system on the same cases.

    Parameters
    ----------
    systems : mapping of name to scorer, ready ranking, or a sequence of either
        A sequence holds one entry per seed; figures per user are averaged over them. The first
        system is the one whose differences from the others are tested.
    cases : Cases
    config : ProtocolConfig
        Cut-offs, seen-filter and tie rule.
    item_counts : (N,) int64
        Training events of each item, for novelty and the slices by popularity.
    split_in_words : str
        What was held out, for the protocol line.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    Evaluation
        Users known to the vocabulary; new users, where there are any, apart under ``new_users``.
    """
    by_seed = {
        name: list(given) if isinstance(given, Sequence) else [given]
        for name, given in systems.items()
    }
    new = cases.user_index < 0
    arguments = (config, item_counts, split_in_words, resamples, seed)
    if new.any() and not new.all():
        known = _evaluate_group(by_seed, cases, ~new, *arguments)
        return replace(known, new_users=_evaluate_group(by_seed, cases, new, *arguments))
    return _evaluate_group(by_seed, cases, np.ones(len(cases), dtype=bool), *arguments)


def _evaluate_group(
    systems: dict[str, list[Scorer | Ranking]],
    cases: Cases,
    group: npt.NDArray[np.bool_],
    config: ProtocolConfig,
    item_counts: npt.NDArray[np.int64],
    split_in_words: str,
    resamples: int,
    seed: int,
) -> Evaluation:
    chosen = cases.take(group)

    def judged(settings: ProtocolConfig, *, ready: bool) -> Evaluation | None:
        rankings = {
            name: [_ranking_of(entry, chosen, group, settings, len(item_counts)) for entry in given]
            for name, given in systems.items()
            if ready or not any(isinstance(entry, Ranking) for entry in given)
        }
        if not rankings:
            return None
        return _summarise(rankings, chosen, settings, item_counts, split_in_words, resamples, seed)

    result = judged(config, ready=True)
    assert result is not None
    if result.counts["repeated_target_share"] <= REPEAT_SHARE:
        return result
    # A ready list was made under one setting of the filter: only scorers can be asked again.
    turned = replace(config, filter_seen=not config.filter_seen)
    return replace(result, other_filter=judged(turned, ready=False))


def _ranking_of(
    entry: Scorer | Ranking,
    cases: Cases,
    group: npt.NDArray[np.bool_],
    config: ProtocolConfig,
    num_items: int,
) -> Ranking:
    if isinstance(entry, Ranking):
        return Ranking(entry.ranks.take(np.flatnonzero(group)), entry.top_items[group])
    return rank_targets(
        entry,
        cases,
        num_items,
        filter_seen=config.filter_seen,
        ties=config.ties,
        top_k=max(config.cutoffs),
    )


def _summarise(
    rankings: dict[str, list[Ranking]],
    cases: Cases,
    config: ProtocolConfig,
    item_counts: npt.NDArray[np.int64],
    split_in_words: str,
    resamples: int,
    seed: int,
) -> Evaluation:
    names = metric_names(config.cutoffs)
    users: dict[str, dict[str, FloatArray]] = {}
    seeds: dict[str, dict[str, list[float]]] = {}
    for system, of_seeds in rankings.items():
        table = {name: [per_user(name, one.ranks) for one in of_seeds] for name in names}
        users[system] = {name: np.mean(values, axis=0) for name, values in table.items()}
        seeds[system] = {name: [float(v.mean()) for v in vs] for name, vs in table.items()}
    columns = np.column_stack([users[s][n] for s in rankings for n in names])
    resampled = bootstrap_means(columns, resamples=resamples, seed=seed)
    draws = {
        (system, name): resampled[:, place]
        for place, (system, name) in enumerate((s, n) for s in rankings for n in names)
    }
    results, differences = {}, {}
    first = next(iter(rankings))
    for system, of_seeds in rankings.items():
        figures: Figures = {}
        for name in names:
            low, high = interval(draws[system, name])
            mean = float(users[system][name].mean())
            figures[name] = {"mean": mean, "low": low, "high": high, "values": seeds[system][name]}
        for k in config.cutoffs:
            for name, values in (
                (f"coverage@{k}", [coverage(r.top_items, k, len(item_counts)) for r in of_seeds]),
                (f"novelty@{k}", [novelty(r.top_items, k, item_counts) for r in of_seeds]),
            ):
                figures[name] = {"mean": float(np.mean(values)), "values": values}
        results[system] = SystemResult(figures, users[system])
        if system != first:
            differences[system] = {
                name: _difference(
                    users[first][name] - users[system][name],
                    draws[first, name] - draws[system, name],
                )
                for name in names
            }
    num_seeds = max(len(of) for of in rankings.values())
    return Evaluation(
        results,
        differences,
        _slices(users, cases, item_counts, names),
        _counts(cases),
        protocol_line(cases, config, len(item_counts), split_in_words, resamples, num_seeds),
    )


def _difference(values: FloatArray, draws: FloatArray) -> dict[str, Any]:
    low, high = interval(draws)
    return {
        "mean": float(values.mean()),
        "low": low,
        "high": high,
        "excludes_zero": bool(low > 0 or high < 0),
    }


def protocol_line(
    cases: Cases,
    config: ProtocolConfig,
    num_items: int,
    split_in_words: str,
    resamples: int,
    num_seeds: int,
) -> str:
    """Name the protocol in full, in one line."""
    seen = "items seen before left out" if config.filter_seen else "items seen before kept in"
    seeds = f"; mean over {num_seeds} seeds" if num_seeds > 1 else ""
    return (
        f"{split_in_words}; full ranking over {num_items:,} items, {seen}; ties {config.ties}; "
        f"{len(cases):,} users; 95 % intervals by {resamples:,} bootstrap draws of users{seeds}"
    )


def _repeated(cases: Cases) -> npt.NDArray[np.bool_]:
    """(targets,) whether the user took the target before."""
    rows = np.concatenate([cases.histories.row_of_value, cases.targets.row_of_value])
    items = np.concatenate([cases.histories.values, cases.targets.values]).astype(np.int64)
    pairs = rows * (int(items.max(initial=0)) + 2) + items + 1
    seen = np.isin(pairs[len(cases.histories.values) :], pairs[: len(cases.histories.values)])
    return seen & (cases.targets.values >= 0)


def _counts(cases: Cases) -> dict[str, int | float]:
    targets = cases.targets.values
    return {
        "users": len(cases),
        "new_users": int((cases.user_index < 0).sum()),
        "targets": len(targets),
        "targets_unknown_to_training": int((targets < 0).sum()),
        "repeated_target_share": float(_repeated(cases).mean()),
    }


def _slices(
    users: dict[str, dict[str, FloatArray]],
    cases: Cases,
    item_counts: npt.NDArray[np.int64],
    names: list[str],
) -> dict[str, dict[str, Any]]:
    lengths = cases.histories.lengths
    flags: dict[str, npt.NDArray[np.bool_]] = {}
    for low, high in HISTORY_BANDS:
        words = f"history of {low} to {high - 1} events" if high else f"history of {low}+ events"
        flags[words] = (lengths >= low) & (lengths < (high or np.inf))
    # Head: the most popular items that hold half of all training events; the tail holds a fifth.
    order = np.argsort(-item_counts, kind="stable")
    before = np.cumsum(item_counts[order]) - item_counts[order]
    band_of_item = np.empty(len(item_counts), dtype=np.int64)
    limits = np.array([share for _, share in POPULARITY_BANDS]) * max(1, item_counts.sum())
    bands = np.searchsorted(limits, before, side="right")
    band_of_item[order] = np.minimum(bands, len(POPULARITY_BANDS) - 1)
    first_target = cases.targets.values[cases.targets.offsets[:-1]]
    band = np.where(first_target >= 0, band_of_item[np.maximum(first_target, 0)], -1)
    for place, (word, _) in enumerate(POPULARITY_BANDS):
        flags[f"target in the {word} of popularity"] = band == place
    shown = [n for n in names if n.startswith(("hit_rate@", "ndcg@"))] + ["mrr"]
    return {
        words: {
            "users": int(chosen.sum()),
            **{s: {n: float(users[s][n][chosen].mean()) for n in shown} for s in users},
        }
        for words, chosen in flags.items()
        if chosen.any()
    }
