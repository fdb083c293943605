"""make bench-accuracy: the rows of rows.toml, each on its own, resumable seed by seed.

python -m benchmarks.accuracy.run            the rows that have no result yet
python -m benchmarks.accuracy.run ROW ...    these rows, again
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from attrec.api import (
    WITHOUT_RETRAINING,
    Listener,
    baselines,
    identity_of,
    make_checkpointer,
    retrain_on,
    train_on,
)
from attrec.baselines import item_counts
from attrec.config import Options
from attrec.data.cases import encode_cases
from attrec.data.ragged import Ragged
from attrec.data.splits import Split
from attrec.data.vocabulary import Vocabulary
from attrec.evaluation.evaluate import evaluate_systems
from attrec.evaluation.ranking import Ranking
from attrec.training.checkpoint import TrainingRun
from benchmarks.data import load_split
from benchmarks.rows import read_row, write_row

ROWS = Path(__file__).with_name("rows.toml")
CACHE = Path(__file__).parents[2] / ".cache" / "accuracy"


def run_row(name: str, row: dict[str, Any]) -> None:
    """Measure one row, seed by seed, and write what there is after each."""
    torch.set_num_threads(1)
    options = Options.of(row["preset"], **row.get("options", {}))
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
    evaluation = evaluate_systems(
        {
            "attrec": [run["retrained"] for run in runs],
            WITHOUT_RETRAINING: [run["first"] for run in runs],
            **baselines(split.train_and_validation, vocabulary),
        },
        encode_cases(split.test, split.log, vocabulary),
        options.protocol,
        item_counts(split.train_and_validation, vocabulary),
        split.protocol,
    )
    found = evaluation.to_dict()
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
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "threads": 1,
            },
        },
    )
    print(evaluation, flush=True)


def read_rows() -> dict[str, dict[str, Any]]:
    """Read the rows' declarations."""
    return tomllib.loads(ROWS.read_text(encoding="utf-8"))


def trained_seed(
    name: str, split: Split, options: Options, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Train one seed, or find it trained; the best epoch is chosen on validation alone."""
    key = json.dumps([name, identity_of(options), split.log.fingerprint()], sort_keys=True)
    path = CACHE / f"{name}.{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    if not path.exists():
        kept = path.with_suffix(".checkpoint")
        keeper = make_checkpointer(kept, split, options, Listener())
        assert keeper is not None
        first = train_on(split.train, options, validate_on=split, checkpointer=keeper)
        best = first.run.best_epoch
        last = retrain_on(split, first, options, checkpointer=keeper)
        seconds = sum(
            epoch.train_seconds + epoch.validation_seconds
            for epoch in [*first.run.epochs, *last.run.epochs]
        )
        rankings = {
            "first": first.ranking(split, options.protocol, vocabulary),
            "retrained": last.ranking(split, options.protocol, vocabulary),
        }
        arrays = {"best_epoch": best, "seconds": seconds}
        for which, ranking in rankings.items():
            arrays |= {
                f"{which}_ranks": ranking.ranks.values,
                f"{which}_offsets": ranking.ranks.offsets,
                f"{which}_top": ranking.top_items,
            }
        figures = json.dumps(first.run.epochs[best - 1].validation)
        tried = [] if first.calibration is None else first.calibration.tried
        arrays["calibration"] = np.array(json.dumps(tried, default=float))
        arrays["curve"] = np.array(json.dumps(validation_curve(first.run)))
        path.parent.mkdir(parents=True, exist_ok=True)
        for which, trained in (("first", first), ("retrained", last)):
            state = {
                name: value.contiguous() for name, value in trained.network.state_dict().items()
            }
            save_file(state, path.with_suffix(f".{which}.safetensors"))
        np.savez(path.with_suffix(".part.npz"), figures=np.array(figures), **arrays)
        path.with_suffix(".part.npz").replace(path)
        shutil.rmtree(kept, ignore_errors=True)
        print(f"{name} seed {options.train.seed}: epoch {best}, {seconds:.0f} s, {figures}",
              flush=True)  # fmt: skip
    with np.load(path) as found:
        return {
            "best_epoch": int(found["best_epoch"]),
            "seconds": float(found["seconds"]),
            "figures": json.loads(str(found["figures"])),
            # Seeds trained before these were kept have none.
            "calibration": json.loads(str(found["calibration"])) if "calibration" in found else [],
            "curve": json.loads(str(found["curve"])) if "curve" in found else [],
            **{
                which: Ranking(
                    Ragged(found[f"{which}_ranks"], found[f"{which}_offsets"]),
                    found[f"{which}_top"],
                )
                for which in ("first", "retrained")
            },
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
    return found is not None and found["seeds"] == row["seeds"]


def main() -> None:
    """Run the rows asked for, or those that are missing."""
    rows = read_rows()
    asked = sys.argv[1:] or [name for name, row in rows.items() if not _is_done(name, row)]
    for name in asked:
        if name not in rows:
            raise SystemExit(f"no row {name!r}; rows: {', '.join(rows)}")
        run_row(name, rows[name])


if __name__ == "__main__":
    main()
