"""make bench-data: ten million rows read, cleaned and sorted, beside bare duckdb and pandas.

python -m benchmarks.volume.run [ROW ...]   rows: parquet, csv
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.rows import write_row

FOLDER = Path(__file__).parents[2] / ".cache" / "volume"
ROWS = ("parquet", "csv")
EVENTS, USERS, ITEMS = 10_000_000, 500_000, 100_000
RUNS = 3


def made(suffix: str) -> Path:
    """Write the log once: text ids, popularity with a long tail, one row in a hundred twice."""
    path = FOLDER / f"log.{suffix}"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        db = duckdb.connect()
        db.execute("SELECT setseed(0.5)")
        once = EVENTS - EVENTS // 100
        db.execute(
            "CREATE TABLE log AS SELECT "
            f"'user-' || CAST({USERS} * random() ** 1.5 AS INT) AS user_id, "
            f"'item-' || CAST({ITEMS} * random() ** 2.5 AS INT) AS item_id, "
            f"1600000000 + CAST(1e8 * random() AS BIGINT) AS timestamp FROM range({once})"
        )
        db.execute(f"INSERT INTO log SELECT * FROM log LIMIT {EVENTS - once}")
        db.execute(f"COPY log TO '{path}.part' (FORMAT {suffix})")
        Path(f"{path}.part").replace(path)
    return path


def measure(way: str, path: Path) -> dict[str, Any]:
    """Go one way in a process of its own."""
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.volume.worker", way, str(path)],
        capture_output=True, text=True, check=True,
        env={**os.environ, "ATTREC_CACHE": str(FOLDER / "cache"), "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    return json.loads(found.stdout)


def row(suffix: str) -> dict[str, Any]:
    """Alternate the ways and summarise them."""
    path = made(suffix)
    runs: dict[str, list[dict[str, Any]]] = {"attrec": [], "duckdb": [], "pandas": []}
    for number in range(RUNS):
        for way in runs if number == 0 else ("attrec", "duckdb"):
            runs[way].append(measure(way, path))
            print(f"{suffix} {way}: {runs[way][-1]['seconds']:.1f} s", flush=True)
    measure("again", path)
    runs["attrec, read again"] = [measure("again", path)]
    left = {way: of[0]["left"] for way, of in runs.items()}
    assert len(set(map(tuple, left.values()))) == 1, left
    ratios = [
        ours["seconds"] / bare["seconds"]
        for ours, bare in zip(runs["attrec"], runs["duckdb"], strict=True)
    ]
    return {
        "data": {"name": f"simulated, {suffix}", "events": EVENTS, "left": left["attrec"],
                 "bytes": path.stat().st_size},
        "protocol": f"{RUNS} alternating pairs of processes on all CPUs (pandas once): ids to "
        "codes, exact  duplicates dropped, 5-core, sorted by user and time",
        "metrics": {
            "ways": {
                way: {
                    "seconds": statistics.median(r["seconds"] for r in of),
                    "peak_bytes": max(r["peak_bytes"] for r in of),
                    "stages": of[0]["stages"],
                }
                for way, of in runs.items()
            },
            "ratio_to_duckdb": {
                "median": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
            },
        },
    }  # fmt: skip


def main() -> None:
    """Measure the rows asked for, or all."""
    for suffix in sys.argv[1:] or ROWS:
        write_row("volume", suffix, row(suffix))


if __name__ == "__main__":
    main()
