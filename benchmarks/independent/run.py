"""make bench-independent: the accurate rows' figures again, from files, by a scorer of its own.

python -m benchmarks.independent.run            the rows that have no result yet
python -m benchmarks.independent.run ROW ...    these rows again, as ml-100k.leave-last-out.accurate

A row is trained, judged and asked by the command line, as a user does it. Its files stay under
.cache/independent, and a training that was broken off goes on from there.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrec
from attrec.data.datasets import fetch
from attrec.data.reading import write_csv
from attrec.flags import as_flags
from benchmarks.accuracy.run import options_of, read_rows
from benchmarks.independent.score import CUTOFFS, cut, scored
from benchmarks.rows import read_row, write_row

CACHE = Path(__file__).parents[2] / ".cache" / "independent"
SEED = 0
# The author's split comes as two files, and from no public registry.
ROWS = {
    name: row
    for name, row in read_rows().items()
    if name.endswith(".accurate") and ".author-split." not in name
}

Figures = dict[str, float]


def run_row(name: str) -> None:
    """Measure one row."""
    row, folder, began = ROWS[name], CACHE / name, time.perf_counter()
    options = options_of(row).with_(seed=SEED)
    folder.mkdir(parents=True, exist_ok=True)
    log = attrec.read_interactions(fetch(row["data"]).interactions)
    write_csv(log, folder / "log.csv")
    targets = cut(folder / "log.csv", folder / "before.csv", options.protocol.split)
    chosen = as_flags({**row.get("options", {}), "seed": SEED, "threads": 1})
    _attrec(folder, "train", "log.csv", "--preset", row["preset"], *shlex.split(chosen))
    judged = json.loads(_attrec(folder, "evaluate", "model", "log.csv", "--json"))
    _attrec(folder, "recommend", "model", "--log", "before.csv", "--as-of-log",
            "-k", str(max(CUTOFFS)), "--out", "lists.csv")  # fmt: skip
    served = attrec.load(folder / "model")
    assert served.record["log_fingerprint"] == log.fingerprint()
    assert judged["counts"]["users"] == len(targets)
    again = scored(folder / "lists.csv", targets)
    evaluated = {metric: judged["systems"]["attrec"][metric]["mean"] for metric in again}
    write_row(
        "independent",
        name,
        {
            "data": {
                "name": row["data"],
                "log_sha256": log.fingerprint(),
                "users": log.num_users,
                "items": log.num_items,
                "events": len(log),
            },
            "protocol": f"{judged['protocol']}; the same from the lists of {max(CUTOFFS)} that "
            "`attrec recommend --as-of-log` makes of the log without its test part: "
            "benchmarks/independent/score.py cuts the log and scores them; one seed",
            "config": options.to_dict(),
            "seeds": [SEED],
            "users": len(targets),
            "has_moment": served.moment is not None,
            "metrics": {"from the lists": again, "attrec evaluate": evaluated},
            "largest_difference": _largest_difference(again, evaluated),
            "accuracy_row": _accuracy_row(name, again),
            "cost": {"seconds": time.perf_counter() - began, "threads": 1},
        },
    )
    print(name, again, evaluated, flush=True)


def _attrec(folder: Path, *words: str) -> str:
    """Run a command line in ``folder``; return what it prints where that is JSON."""
    print("attrec", shlex.join(words), flush=True)
    output = subprocess.PIPE if "--json" in words else None
    done = subprocess.run(
        [sys.executable, "-m", "attrec.cli", *words],
        cwd=folder, check=True, stdout=output, text=True,
    )  # fmt: skip
    return done.stdout or ""


def _accuracy_row(name: str, again: Figures) -> dict[str, Any] | None:
    """Return what the accuracy benchmark has of the same seed; equal on a processor of one kind."""
    found = read_row("accuracy", name)
    if found is None:
        return None
    seed = found["seeds"].index(SEED)
    figures = {metric: found["systems"]["attrec"][metric]["values"][seed] for metric in again}
    return {
        "metrics": figures,
        "largest_difference": _largest_difference(again, figures),
        "processor": found["cost"]["trained"][seed]["machine"]["processor"],
    }


def _largest_difference(first: Figures, second: Figures) -> float:
    return max(abs(first[metric] - second[metric]) for metric in first)


def main() -> None:
    """Run the rows asked for, or those that are missing."""
    for row in sys.argv[1:] or [row for row in ROWS if read_row("independent", row) is None]:
        if row not in ROWS:
            raise SystemExit(f"no row {row!r}; rows: {', '.join(ROWS)}")
        run_row(row)


if __name__ == "__main__":
    main()
