"""make bench-peers: other libraries on the same splits, by the same scorer, on one thread each.

python -m benchmarks.peers.run                    the rows that lack a result, or this AttRec
python -m benchmarks.peers.run ROW ...            these rows, or all rows of a data.split
python -m benchmarks.peers.run --again ROW ...    these rows, everything trained again

A training that ended is kept under .cache/peers, and its lists are only judged again; where its
targets stood is kept beside the results, for those who have no lists. ``--again`` removes both and
trains once more. A row that fails is told at the end, and the others still run.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attrec.api import WITHOUT_RETRAINING, baselines
from attrec.baselines import item_counts
from attrec.config import Options
from attrec.data.cases import encode_cases
from attrec.data.splits import Split
from attrec.data.vocabulary import Vocabulary
from attrec.evaluation.comparison import rank_in_lists, read_lists
from attrec.evaluation.evaluate import evaluate_systems
from benchmarks.accuracy import run as accuracy
from benchmarks.data import load_split
from benchmarks.kept import Places, kept_path, read_kept, with_lists, write_kept
from benchmarks.peers.material import write_material
from benchmarks.peers.rows import PATIENCE, Row, read_rows
from benchmarks.rows import changed_options, here_and_now, read_row, write_row

CACHE = Path(__file__).parents[2] / ".cache" / "peers"
WORKERS = Path(__file__).with_name("workers")
SEED = 0
THREADS = 1
ENOUGH = 0.9
"""Share of the published figure from which on a peer counts as reproduced."""
SPARE_SECONDS = 1800.0
"""What a worker may take beside its training before it counts as stuck."""
TRAININGS = {"first": "train", "retrained": "train_and_validation"}


class WorkerError(Exception):
    """A worker ended without a result."""


def run_row(row: Row) -> None:
    """Train a peer where that was not done, and judge it."""
    options = attrec_options(row) or Options.of(**row.options)
    split = load_split(row.data, options.protocol)
    vocabulary = Vocabulary.fit(split.train_and_validation)
    told, places = measured(row, split, options, vocabulary)
    write_row("peers", row.name, judged(row, split, options, vocabulary, told, places))


def measured(
    row: Row, split: Split, options: Options, vocabulary: Vocabulary
) -> tuple[dict[str, Any], dict[str, Places]]:
    """Return what both trainings of a peer told, and where the targets stood in their lists."""
    key = [row.worker, row.model, row.settings, row.cap_seconds, row.max_epochs, row.options,
           PATIENCE, SEED, THREADS, split.log.fingerprint(),
           *row.revision_if_any.values()]  # fmt: skip
    kept = read_kept("peers", row.name, key)
    if kept is not None:
        return kept
    material = write_material(
        split, CACHE / "material" / f"{row.split}.{split.log.fingerprint()[:12]}"
    )
    told = {"first": work(row, material, "first")}
    told["retrained"] = work(row, material, "retrained", epochs=told["first"]["best"]["epoch"])
    cases = encode_cases(split.test, split.log, vocabulary)
    users = split.log.user_ids[split.test.user_codes]
    counts = item_counts(split.train_and_validation, vocabulary)
    cutoffs, places = options.protocol.cutoffs, {}
    for which, found in told.items():
        lists = read_lists(found.pop("lists"))
        ranking = rank_in_lists(lists, cases, users, vocabulary, max(cutoffs)).ranking
        places[which] = Places.of(ranking, cases, cutoffs, counts)
    told["trained"] = here_and_now()
    write_kept("peers", row.name, key, told, places)
    return told, places


def work(row: Row, material: Path, phase: str, epochs: float | None = None) -> dict[str, Any]:
    """Let the peer's worker do one of the two trainings, or find it done.

    Returns
    -------
    dict
        What the worker says of it, and under ``lists`` the path of its lists.
    """
    spec = {
        "material": str(material),
        "training": TRAININGS[phase],
        "worker": row.worker,
        "model": row.model,
        "settings": row.settings,
        "cap_seconds": row.cap_seconds,
        "patience": PATIENCE,
        "max_epochs": row.max_epochs,
        "epochs": epochs,
        "seed": SEED,
        "threads": THREADS,
        **row.revision_if_any,
    }
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    out = CACHE / "work" / f"{row.name}.{phase}.{digest}"
    result = out.with_name(out.name + ".json")
    if not result.exists():
        _call(row, {**spec, "out": str(out)}, out)
    return {
        **json.loads(result.read_text(encoding="utf-8")),
        "lists": out.with_name(out.name + ".csv"),
    }


def _call(row: Row, spec: dict[str, Any], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    given, log = out.with_name(out.name + ".spec"), out.with_name(out.name + ".log")
    given.write_text(json.dumps(spec, indent=1), encoding="utf-8")
    print(f"{row.name}: trains on {spec['training']}, log in {log}", flush=True)
    one_thread = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS)
    )
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(
                [python_of(row.environment), str(WORKERS / f"{row.worker}.py"), str(given)],
                stdout=file, stderr=subprocess.STDOUT, cwd=out.parent, check=False,
                timeout=2 * row.cap_seconds + SPARE_SECONDS,
                # RecBole loads what it saved itself, which newer PyTorch asks to be told.
                env={**os.environ, **one_thread, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise WorkerError(f"stuck for {SPARE_SECONDS:.0f} s beyond its cap; {log}") from None
    if done.returncode:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:] or ["it said nothing"]
        raise WorkerError(f"{last[0]} (exit code {done.returncode}; {log})")


def python_of(environment: str) -> str:
    """Return the interpreter of a peer's environment."""
    found = CACHE / environment / "bin" / "python"
    if not found.exists():
        raise SystemExit(f"the environment {environment} is not there; `make bench-peers` makes it")
    return str(found)


def attrec_options(row: Row) -> Options | None:
    """Return the options of the AttRec that the row stands beside; None where none is declared."""
    declared = accuracy.read_rows().get(row.attrec)
    if declared is None:
        return None
    options = accuracy.options_of(declared)
    if options.protocol != Options.of(**row.options).protocol:
        raise SystemExit(f"{row.name}: the accuracy row {row.attrec} has another protocol")
    return options


def attrec_key(row: Row) -> dict[str, Any] | None:
    """Name the AttRec that the row stands beside so that another one can be told from it."""
    options = attrec_options(row)
    if options is None:
        return None
    seeds = accuracy.read_rows()[row.attrec]["seeds"]
    return {"row": row.attrec, "config": options.to_dict(), "seeds": seeds}


def judged(
    row: Row,
    split: Split,
    options: Options,
    vocabulary: Vocabulary,
    told: dict[str, Any],
    places: dict[str, Places],
) -> dict[str, Any]:
    """Judge a peer beside AttRec, in pairs of users.

    Returns
    -------
    dict
        The content of the row's file.
    """
    first, retrained = told["first"], told["retrained"]
    key = attrec_key(row)
    seeds = [
        accuracy.trained_seed(row.attrec, split, options.with_(seed=seed), vocabulary)
        for seed in (key or {"seeds": []})["seeds"]
    ]
    ours = accuracy.systems_of(seeds) if seeds else {}
    peers = {row.peer: [places["retrained"]], not_retrained(row.peer): [places["first"]]}
    cases = encode_cases(split.test, split.log, vocabulary)
    counts = item_counts(split.train_and_validation, vocabulary)

    def evaluated(systems: dict[str, Any]) -> dict[str, Any]:
        return evaluate_systems(systems, cases, options.protocol, counts, split.protocol).to_dict()

    systems = {
        name: [one.ranking for one in of_seeds] for name, of_seeds in {**ours, **peers}.items()
    }
    evaluation = evaluated({**systems, **baselines(split.train_and_validation, vocabulary)})
    if seeds:
        # Like is held against like: without retraining on either side.
        peer = not_retrained(row.peer)
        pair = evaluated({name: systems[name] for name in (WITHOUT_RETRAINING, peer)})
        evaluation["differences"][peer] = pair["differences"][peer]
        if evaluation["new_users"]:
            evaluation["new_users"]["differences"][peer] = pair["new_users"]["differences"][peer]
    figures = _of_lists(with_lists(evaluation, {**ours, **peers}), bool(seeds))
    comparable = figures["systems"][not_retrained(row.peer)]
    return {
        "data": {
            "name": row.data,
            "log_sha256": split.log.fingerprint(),
            "users": split.log.num_users,
            "items": split.log.num_items,
            "events": len(split.log),
            "split": split.counts,
        },
        "protocol": evaluation["protocol"],
        "peer": {**declared(row), "versions": first["versions"]},
        "seeds": [SEED],
        "metrics": figures["systems"][row.peer],
        **figures,
        "curve": first["curve"],
        "best": first["best"],
        "capped": first["capped"],
        "retraining_capped": retrained["capped"],
        "published": row.published,
        "reproduced": reproduced(comparable, row.published),
        "trained": told["trained"],
        "attrec": key and {**key, "curves": [run["curve"] for run in seeds]},
        "cost": {
            "train_seconds": first["train_seconds"],
            "validation_seconds": first["validation_seconds"],
            "epochs": first["epochs"],
            "retraining_seconds": retrained["train_seconds"],
            "retraining_epochs": retrained["epochs"],
            "peak_memory_bytes": max(first["peak_memory_bytes"], retrained["peak_memory_bytes"]),
            "threads": first["threads"],
        },
    }  # fmt: skip


def declared(row: Row) -> dict[str, Any]:
    """Return what a result keeps of how its peer was declared."""
    return {
        "name": row.peer, "model": row.model, "settings": row.settings, "source": row.source,
        "floor": row.floor, "patience": PATIENCE, "max_epochs": row.max_epochs,
        "cap_seconds": row.cap_seconds, **row.revision_if_any,
    }  # fmt: skip


def not_retrained(peer: str) -> str:
    """Name a peer's row without the retraining."""
    return f"{peer}, not retrained"


def reproduced(figures: dict[str, Any], published: dict[str, Any] | None) -> bool | None:
    """Answer whether a peer comes near its published figures; None where there are none.

    Examples
    --------
    >>> reproduced({"ndcg@10": {"mean": 0.17}}, {"ndcg@10": 0.18, "source": "…"})
    True
    """
    if published is None:
        return None
    metrics = [name for name in published if "@" in name]
    return all(figures[name]["mean"] >= ENOUGH * published[name] for name in metrics)


def seconds_to(
    value: float, curves: list[list[dict[str, float]]], clock: str
) -> list[float | None]:
    """Return each seed's seconds until validation NDCG@10 reached ``value``, or None.

    Parameters
    ----------
    value : float
    curves : list
        The points of each seed.
    clock : str
        ``wall_seconds``, or ``seconds`` without the judging.

    Examples
    --------
    >>> curve = [{"ndcg@10": 0.1, "seconds": 3.0}, {"ndcg@10": 0.2, "seconds": 6.0}]
    >>> seconds_to(0.2, [curve], "seconds")
    [6.0]
    """
    return [
        next((point[clock] for point in curve if point["ndcg@10"] >= value), None)
        for curve in curves
    ]


def _of_lists(evaluation: dict[str, Any], with_attrec: bool) -> dict[str, Any]:
    """Keep what lists of 50 can answer; a difference is AttRec's, or there is none."""

    def cut(figures: dict[str, Any]) -> dict[str, Any]:
        return {
            name: {metric: value for metric, value in of.items() if "@" in metric}
            for name, of in figures.items()
        }

    new = evaluation["new_users"]
    return {
        "systems": cut(evaluation["systems"]),
        "differences": cut(evaluation["differences"]) if with_attrec else {},
        "counts": evaluation["counts"],
        "new_users": None if new is None else _of_lists({**new, "new_users": None}, with_attrec),
    }


def missing(row: Row) -> bool:
    """Answer whether a row has no result, or one of another declaration or another AttRec.

    The same AttRec trained again, on another machine perhaps, is another: its seconds differ.
    """
    found = read_row("peers", row.name)
    if found is None or found["published"] != row.published:
        return True
    now = declared(row)
    if {name: found["peer"].get(name) for name in now} != now or beside_another(row, found):
        return True
    ours = read_row("accuracy", row.attrec)
    return bool(ours and found["attrec"] and ours["curve"] != found["attrec"]["curves"])


def beside_another(row: Row, found: Mapping[str, Any]) -> bool:
    """Answer whether a result stands beside an AttRec with other options than are declared now."""
    options, now, then = attrec_options(row), attrec_key(row), found["attrec"] or {}
    if options is None or now is None:
        return False
    if any(then.get(name) != now[name] for name in ("row", "seeds")):
        return True
    return bool(changed_options(then, options))


def _forget(row: Row) -> None:
    """Remove what is kept of a row's trainings, so that they are done again."""
    for path in (*(CACHE / "work").glob(f"{row.name}.*"), kept_path("peers", row.name)):
        path.unlink(missing_ok=True)


def main() -> None:
    """Run the rows asked for, or those that are missing."""
    torch.set_num_threads(THREADS)
    rows = read_rows()
    given = [word for word in sys.argv[1:] if word != "--again"]
    asked = [] if given else [row for row in rows.values() if missing(row)]
    for name in given:
        of_name = [row for row in rows.values() if name in (row.name, row.split)]
        if not of_name:
            raise SystemExit(f"no row {name!r}; rows: {', '.join(rows)}")
        asked += of_name
    if "--again" in sys.argv:
        for row in asked:
            _forget(row)
    hours = sum(2 * row.cap_seconds for row in asked if not row.floor) / 3600
    print(f"{len(asked)} rows, at most {hours:.1f} h of training under the caps", flush=True)
    failed = []
    for row in asked:
        began = time.perf_counter()
        try:
            run_row(row)
        except WorkerError as error:
            failed.append(row.name)
            print(f"{row.name}: failed: {error}", flush=True)
        else:
            print(f"{row.name}: {time.perf_counter() - began:.0f} s", flush=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
