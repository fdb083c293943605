"""make bench-accuracy: the rows of rows.toml, each on its own, resumable seed by seed.

python -m benchmarks.accuracy.run                    rows that lack a seed or have other options
python -m benchmarks.accuracy.run ROW ...            these rows
python -m benchmarks.accuracy.run --again ROW ...    these rows, everything trained again

A seed is trained once. Its networks stay under .cache/accuracy, where they are judged again as
often as asked; where its targets stood is kept beside the results, for those who have no networks.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from attrec.api import (
    WITHOUT_RETRAINING,
    Listener,
    Trained,
    baselines,
    make_checkpointer,
    retrain_on,
    train_on,
)
from attrec.baselines import item_counts
from attrec.config import Options, identity_of
from attrec.data.cases import encode_cases
from attrec.data.splits import Split
from attrec.data.vocabulary import Vocabulary
from attrec.evaluation.evaluate import evaluate_systems
from attrec.evaluation.metrics import per_user
from attrec.files import write_whole
from attrec.model.choice import make_network
from attrec.profiling import Profile
from attrec.training.checkpoint import TrainingRun
from attrec.training.memory import peak_bytes
from benchmarks.data import load_split
from benchmarks.kept import Places, kept_path, read_kept, with_lists, write_kept
from benchmarks.rows import changed_options, each_for_itself, here_and_now, read_row, write_row

ROWS = Path(__file__).with_name("rows.toml")
CACHE = Path(__file__).parents[2] / ".cache" / "accuracy"


def run_row(name: str, row: dict[str, Any]) -> None:
    """Measure one row, seed by seed, and write what there is after each."""
    torch.set_num_threads(1)
    options = options_of(row)
    split = load_split(row["data"], options.protocol)
    vocabulary = Vocabulary.fit(split.train_and_validation)
    runs: list[dict[str, Any]] = []
    for seed in row["seeds"]:
        runs.append(trained_seed(name, split, options.with_(seed=seed), vocabulary))
        _judge(name, row, split, options, vocabulary, runs)


def _judge(
    name: str,
    row: dict[str, Any],
    split: Split,
    options: Options,
    vocabulary: Vocabulary,
    runs: list[dict[str, Any]],
) -> None:
    ours = systems_of(runs)
    evaluation = evaluate_systems(
        {
            **{name: [places.ranking for places in of_seeds] for name, of_seeds in ours.items()},
            **baselines(split.train_and_validation, vocabulary),
        },
        encode_cases(split.test, split.log, vocabulary),
        options.protocol,
        item_counts(split.train_and_validation, vocabulary),
        split.protocol,
    )
    found = with_lists(evaluation.to_dict(), ours)
    write_row(
        "accuracy",
        name,
        {
            "data": {
                "name": row["data"],
                "log_sha256": split.log.fingerprint(),
                "users": split.log.num_users,
                "items": split.log.num_items,
                "events": len(split.log),
                "split": split.counts,
            },
            "protocol": found["protocol"],
            "config": options.to_dict(),
            "seeds": row["seeds"][: len(runs)],
            "metrics": found["systems"]["attrec"],
            "systems": found["systems"],
            "differences": found["differences"],
            "slices": found["slices"],
            "counts": found["counts"],
            "new_users": found["new_users"],
            "valid": [run["figures"] for run in runs],
            "curve": [run["curve"] for run in runs],
            "recent_popularity": [run["calibration"] for run in runs],
            "cost": {
                "train_seconds": float(np.mean([run["seconds"] for run in runs])),
                "epochs": [run["best_epoch"] for run in runs],
                "peak_memory_bytes": max(run["trained"]["peak_memory_bytes"] for run in runs),
                "threads": 1,
                "trained": [run["trained"] for run in runs],
            },
        },
    )
    print(evaluation, flush=True)


def read_rows() -> dict[str, dict[str, Any]]:
    """Read the rows' declarations."""
    return tomllib.loads(ROWS.read_text(encoding="utf-8"))


def options_of(row: dict[str, Any]) -> Options:
    """Return the options of a declared row."""
    return Options.of(row["preset"], **row.get("options", {}))


def systems_of(runs: list[dict[str, Any]]) -> dict[str, list[Places]]:
    """Name the rankings of all seeds as the tables do."""
    return {
        "attrec": [run["places"]["retrained"] for run in runs],
        WITHOUT_RETRAINING: [run["places"]["first"] for run in runs],
    }


def trained_seed(
    name: str, split: Split, options: Options, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Rank the test part by one seed: its networks are there, or its places are, or it is trained.

    The best epoch and the popularity of the moment are chosen on validation alone.

    Returns
    -------
    dict
        What the training told, and ``places`` of both its networks.
    """
    key = [name, identity_of(options), split.log.fingerprint()]
    of_seed = f"{name}.{options.train.seed}"
    path = _networks_path(name, key)
    if not path.exists():
        kept = read_kept("accuracy", of_seed, key)
        if kept is not None:
            return {**kept[0], "places": kept[1]}
        _train(path, name, split, options)
    told, places = _judged_seed(path, split, options, vocabulary)
    write_kept("accuracy", of_seed, key, told, places)
    return {**told, "places": places}


def _networks_path(name: str, key: Any) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return CACHE / f"{name}.{digest[:16]}.json"


def _judged_seed(
    path: Path, split: Split, options: Options, vocabulary: Vocabulary
) -> tuple[dict[str, Any], dict[str, Places]]:
    """Rank the test part by both kept networks."""
    cases = encode_cases(split.test, split.log, vocabulary)
    counts = item_counts(split.train_and_validation, vocabulary)
    places = {}
    for which, log in (("first", split.train), ("retrained", split.train_and_validation)):
        of_log = Vocabulary.fit(log)
        network = make_network(options.model, of_log.num_users, of_log.num_items)
        network.load_state_dict(load_file(path.with_suffix(f".{which}.safetensors")))
        trained = Trained(network, of_log, TrainingRun([], 0, ""))
        ranking = trained.ranking(split, options.protocol, vocabulary)
        places[which] = Places.of(ranking, cases, options.protocol.cutoffs, counts)
    return json.loads(path.read_text(encoding="utf-8")), places


def _train(path: Path, name: str, split: Split, options: Options) -> None:
    """Train one seed and keep both of its networks beside ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = path.with_suffix(".checkpoint")
    keeper = make_checkpointer(kept, split, options, Listener())
    assert keeper is not None
    profile = Profile()
    first = train_on(split.train, options, validate_on=split, checkpointer=keeper, profile=profile)
    last = retrain_on(split, first, options, checkpointer=keeper)
    for which, trained in (("first", first), ("retrained", last)):
        save_file(trained.network.state_dict(), path.with_suffix(f".{which}.safetensors"))
    best, curve, calibration = first.run.best_epoch, validation_curve(first.run), first.calibration
    if calibration is not None and calibration.moment is not None:
        took = sum(one.seconds for one in profile.phases() if one.path == ("calibration",))
        curve.append(_last_point(curve[-1], first, split, options, took))
    run = {
        "best_epoch": best,
        "seconds": sum(epoch.train_seconds + epoch.validation_seconds
                       for epoch in [*first.run.epochs, *last.run.epochs]),
        "figures": first.run.epochs[best - 1].validation,
        "curve": curve,
        "calibration": calibration.tried if calibration is not None else [],
        "trained": {
            **here_and_now(),
            "peak_memory_bytes": peak_bytes(),
        },
    }  # fmt: skip
    write_whole(path, lambda file: file.write_text(json.dumps(run), encoding="utf-8"))
    shutil.rmtree(kept, ignore_errors=True)
    print(f"{name} seed {options.train.seed}: {run}", flush=True)


def _last_point(
    last: dict[str, float], trained: Trained, split: Split, options: Options, took: float
) -> dict[str, float]:
    """Tell what the popularity of the moment brings to validation, ``took`` seconds later."""
    ranks = trained.ranking(replace(split, test=split.validation), options.protocol).ranks
    return {
        "epoch": last["epoch"],
        **{name: last[name] + took for name in ("seconds", "wall_seconds")},
        **{name: float(per_user(name, ranks).mean()) for name in ("ndcg@10", "hit_rate@10")},
    }


def validation_curve(run: TrainingRun) -> list[dict[str, float]]:
    """Validation figures against the seconds spent so far, without and with the judging."""
    curve = []
    seconds = judging = 0.0
    for epoch in run.epochs:
        seconds += epoch.train_seconds
        judging += epoch.validation_seconds
        point = {"epoch": epoch.number, "seconds": seconds, "wall_seconds": seconds + judging}
        curve.append(point | {name: epoch.validation[name] for name in ("ndcg@10", "hit_rate@10")})
    return curve


def _is_done(name: str, row: dict[str, Any]) -> bool:
    found = read_row("accuracy", name)
    complete = found is not None and found["seeds"] == row["seeds"]
    return complete and not changed_options(found, options_of(row))


def _forget(name: str) -> None:
    """Remove what is kept of a row's seeds, so that they are trained again."""
    for path in (*CACHE.glob(f"{name}.*"), *kept_path("accuracy", name).parent.glob(f"{name}.*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> None:
    """Run the rows asked for, or those that are missing: each for itself, as its memory counts."""
    rows = read_rows()
    given = [word for word in sys.argv[1:] if word != "--again"]
    again = [word for word in sys.argv[1:] if word == "--again"]
    asked = given or [name for name, row in rows.items() if not _is_done(name, row)]
    for name in asked:
        if name not in rows:
            raise SystemExit(f"no row {name!r}; rows: {', '.join(rows)}")

    def run(name: str) -> None:
        if again:
            _forget(name)
        run_row(name, rows[name])

    each_for_itself("benchmarks.accuracy.run", asked, run, *again)


if __name__ == "__main__":
    main()
