"""Users of the paper's network: the trained row, the mean over V, and the fit by the loss.

Two groups are judged. Users with a row of their own: a trained U_u beside two fold-ins of the same
history, on the same X, V and W. Users held out of training altogether, folded into the model of the
others: beside them the trained row they would have had.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.api import Trained, train_on
from attrec.config import Options
from attrec.data.cases import Cases
from attrec.data.splits import Split
from attrec.evaluation.intervals import bootstrap_means, interval
from attrec.evaluation.metrics import per_user
from attrec.evaluation.ranking import rank_targets
from attrec.fitted_users import Towards, fitted_user_factors
from attrec.foldin import user_factors
from attrec.model.network import AttRecNetwork
from attrec.retrieval.vectors import NetworkScorer
from benchmarks.data import load_split
from benchmarks.rows import write_row

PRESETS = ("paper-sparse", "paper-dense")
SEEDS = (0, 1, 2)
METRICS = ("hit_rate@10", "ndcg@10", "hit_rate@50", "mrr")
HELD_OUT = 0.2
"""Of the judged users, never trained on."""
TOWARDS: tuple[Towards, ...] = ("mean", "zero")
PENALTIES, ITERATIONS, NEGATIVES = (1.0, 10.0, 30.0), (10, 500), 50
PAIRS = (
    ("mean", "trained row"), ("fit", "trained row"), ("fit", "mean"), ("no user", "mean"),
)  # fmt: skip
"""Of systems, whose difference is told."""

Figures = dict[str, npt.NDArray[np.float64]]


def run_row(data: str, preset: str) -> None:
    """Measure one data set with one preset."""
    options = Options.of(preset)
    split = load_split(data, options.protocol)
    started = time.perf_counter()
    first = train_on(split.train, options, validate_on=split)
    epochs = first.run.best_epoch
    chosen, tried = _chosen_fit(first, first.cases(split.validation, split.log), options)
    found: dict[str, dict[str, list[Figures]]] = {"with a row": {}, "held out": {}}
    seconds: list[float] = []
    held_out = _held_out(split)
    without = split.train_and_validation.take(
        ~np.isin(split.train_and_validation.user_codes, held_out)
    )
    for seed in SEEDS:
        seeded = options.with_(seed=seed)
        whole = train_on(split.train_and_validation, seeded, num_epochs=epochs)
        cases = whole.cases(split.test, split.log)
        of_held_out = np.isin(split.test.user_codes, held_out)
        judged, spent = _systems(whole, cases, seeded, chosen)
        seconds.append(spent)
        _append(found["with a row"], judged)
        part = train_on(without, seeded, num_epochs=epochs)
        folded, _ = _systems(part, part.cases(split.test, split.log).take(of_held_out), seeded,
                             chosen, trained_row=False)  # fmt: skip
        row = {name: values[of_held_out] for name, values in judged["trained row"].items()}
        _append(found["held out"], {"trained row": row, **folded})
        print(data, preset, seed, _short(found), flush=True)
    write_row(
        "foldin",
        f"users.{data}.{preset}",
        {
            "data": {"name": data, "log_sha256": split.log.fingerprint()},
            "protocol": f"{split.protocol}; full ranking, items seen before left out; the epoch, "
            "λ′, c and the iterations chosen on validation by seed 0, then trained on train + "
            f"validation; held out: {HELD_OUT:.0%} of the judged users, without whom the model is "
            "trained anew, for as many epochs; 95 % intervals by 2,000 bootstrap draws of users, "
            f"in pairs; mean over {len(SEEDS)} seeds",
            "config": {**options.to_dict(), "negatives": NEGATIVES},
            "seeds": list(SEEDS),
            "fit": chosen,
            "valid": tried,
            "metrics": {group: summary(systems, PAIRS) for group, systems in found.items()},
            "cost": {
                "epochs": epochs,
                "fit_seconds_per_1000_users": 1000 * float(np.mean(seconds)) / len(split.test),
                "seconds": time.perf_counter() - started,
                "threads": 1,
            },
        },
    )


def _held_out(split: Split) -> npt.NDArray[np.int32]:
    codes = split.test.user_codes
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(codes, round(HELD_OUT * len(codes)), replace=False))


def _chosen_fit(
    trained: Trained, cases: Cases, options: Options
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Try every setting of the fit on the validation users; NDCG@10 decides."""
    tried: list[dict[str, Any]] = []
    for towards in TOWARDS:
        for l2 in PENALTIES:
            for iterations in ITERATIONS:
                setting = {"towards": towards, "l2": l2, "max_iterations": iterations}
                figures = _judge(trained, cases, _fit(trained, cases, options, setting), options)
                tried.append({**setting, **{m: float(v.mean()) for m, v in figures.items()}})
    best = max(tried, key=lambda one: one["ndcg@10"])
    for name, rows in (
        ("trained row", _trained_rows(trained, cases)),
        ("mean", user_factors(_network(trained).item_long, cases.histories)),
    ):
        figures = _judge(trained, cases, rows, options)
        tried.append({"system": name, **{m: float(v.mean()) for m, v in figures.items()}})
    return {name: best[name] for name in ("towards", "l2", "max_iterations")}, tried


def _systems(
    trained: Trained,
    cases: Cases,
    options: Options,
    fit: dict[str, Any],
    *,
    trained_row: bool = True,
) -> tuple[dict[str, Figures], float]:
    """Return each system's figures of each user, and the seconds that the fit took."""
    rows = {"trained row": _trained_rows(trained, cases)} if trained_row else {}
    rows["mean"] = user_factors(_network(trained).item_long, cases.histories)
    started = time.perf_counter()
    rows["fit"] = _fit(trained, cases, options, fit)
    spent = time.perf_counter() - started
    rows["no user"] = torch.zeros_like(rows["mean"])
    return {name: _judge(trained, cases, users, options) for name, users in rows.items()}, spent


def _network(trained: Trained) -> AttRecNetwork:
    assert isinstance(trained.network, AttRecNetwork)
    return trained.network


def _trained_rows(trained: Trained, cases: Cases) -> torch.Tensor:
    assert (cases.user_index >= 0).all()
    return _network(trained).user_long.detach()[torch.from_numpy(cases.user_index)].double()


def _fit(trained: Trained, cases: Cases, options: Options, fit: dict[str, Any]) -> torch.Tensor:
    return fitted_user_factors(
        _network(trained), cases.histories, options.train, negatives=NEGATIVES, **fit
    ).factors


def _judge(trained: Trained, cases: Cases, users: torch.Tensor, options: Options) -> Figures:
    """Rank with the given rows (n, d) in place of U."""
    old = _network(trained)
    network = AttRecNetwork(old.config, len(users), old.num_items)
    network.load_state_dict({**old.state_dict(), "user_long": users.float()})
    ranks = rank_targets(
        NetworkScorer(network),
        Cases(np.arange(len(cases)), cases.histories, cases.targets),
        old.num_items,
        filter_seen=options.protocol.filter_seen,
        ties=options.protocol.ties,
    ).ranks
    return {name: per_user(name, ranks) for name in METRICS}


def _append(found: dict[str, list[Figures]], judged: dict[str, Figures]) -> None:
    for name, figures in judged.items():
        found.setdefault(name, []).append(figures)


def summary(systems: dict[str, list[Figures]], pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Means over users and seeds with intervals, and those of the differences in ``pairs``."""
    table = {
        (name, metric): np.mean([figures[metric] for figures in of_seeds], axis=0)
        for name, of_seeds in systems.items()
        for metric in METRICS
    }
    draws = dict(zip(table, bootstrap_means(np.column_stack(list(table.values()))).T, strict=True))

    def figure(values: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64]) -> dict[str, Any]:
        low, high = interval(drawn)
        return {"mean": float(values.mean()), "low": low, "high": high}

    result: dict[str, Any] = {"users": len(next(iter(table.values()))), "systems": {}}
    for name, of_seeds in systems.items():
        result["systems"][name] = {
            metric: {
                **figure(table[name, metric], draws[name, metric]),
                "values": [float(figures[metric].mean()) for figures in of_seeds],
            }
            for metric in METRICS
        }
    result["differences"] = {
        f"{name} − {other}": {
            metric: figure(
                table[name, metric] - table[other, metric],
                draws[name, metric] - draws[other, metric],
            )
            for metric in METRICS
        }
        for name, other in pairs
    }
    return result


def _short(found: dict[str, dict[str, list[Figures]]]) -> dict[str, Any]:
    return {
        group: {name: round(float(runs[-1]["ndcg@10"].mean()), 4) for name, runs in systems.items()}
        for group, systems in found.items()
    }
