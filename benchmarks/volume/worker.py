"""One way through the rows, in a process of its own: prints seconds by stage and peak memory.

python -m benchmarks.volume.worker WAY FILE
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

CORE = 5
Tell = Callable[[str], None]


def attrec(file: Path, done: Tell) -> tuple[int, int, int]:
    """Read, encode, drop duplicates, cut to the 5-core, and sort by user and time."""
    from attrec import read_interactions
    from attrec.config import DataConfig
    from attrec.data.cleaning import clean

    log = read_interactions(file, duplicates="keep", cache=False)
    done("read and encode")
    log = clean(log, DataConfig(min_user_events=CORE, min_item_events=CORE))
    done("clean")
    log.time_order()
    done("sort")
    return len(log), log.num_users, log.num_items


def bare_duckdb(file: Path, done: Tell) -> tuple[int, int, int]:
    """Do the same in SQL alone: ids to integers first, then everything on integers."""
    import duckdb

    db = duckdb.connect()
    scan = f"read_csv('{file}')" if file.suffix == ".csv" else f"'{file}'"
    db.execute(f"CREATE TABLE raw AS SELECT user_id, item_id, timestamp FROM {scan}")
    for role in ("user", "item"):
        db.execute(
            f"CREATE TABLE {role}s AS SELECT {role}_id AS id, "
            f"(row_number() OVER (ORDER BY {role}_id) - 1)::INTEGER AS code "
            f"FROM (SELECT DISTINCT {role}_id FROM raw)"
        )
    db.execute(
        "CREATE TABLE events AS SELECT users.code AS u, items.code AS i, timestamp AS t FROM raw "
        "JOIN users ON user_id = users.id JOIN items ON item_id = items.id"
    )
    db.execute("DROP TABLE raw")
    done("read and encode")
    db.execute("CREATE TABLE left_0 AS SELECT DISTINCT u, i, t FROM events")
    number, before = 0, -1
    while True:
        count = db.execute(f"SELECT count(*) FROM left_{number}").fetchall()[0][0]
        if count == before:
            break
        before = count
        now = f"left_{number}"
        db.execute(
            f"CREATE TABLE left_{number + 1} AS SELECT * FROM {now} WHERE "
            f"u IN (SELECT u FROM {now} GROUP BY u HAVING count(*) >= {CORE}) AND "
            f"i IN (SELECT i FROM {now} GROUP BY i HAVING count(*) >= {CORE})"
        )
        db.execute(f"DROP TABLE {now}")
        number += 1
    done("clean")
    db.execute(f"CREATE TABLE sorted AS SELECT * FROM left_{number} ORDER BY u, t")
    done("sort")
    found = db.execute("SELECT count(*), count(DISTINCT u), count(DISTINCT i) FROM sorted")
    events, users, items = found.fetchall()[0]
    return events, users, items


def pandas(file: Path, done: Tell) -> tuple[int, int, int]:
    """Do the same with pandas."""
    import pandas as pd

    frame = pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
    for role in ("user_id", "item_id"):
        frame[role] = pd.factorize(frame[role], sort=True)[0]
    done("read and encode")
    frame = frame.drop_duplicates(["user_id", "item_id", "timestamp"])
    while True:
        before = len(frame)
        for role in ("user_id", "item_id"):
            frame = frame[frame.groupby(role)[role].transform("size") >= CORE]
        if len(frame) == before:
            break
    done("clean")
    frame = frame.sort_values(["user_id", "timestamp"])
    done("sort")
    return len(frame), frame["user_id"].nunique(), frame["item_id"].nunique()


def again(file: Path, done: Tell) -> tuple[int, int, int]:
    """Read what an earlier run kept."""
    from attrec import read_interactions

    log = read_interactions(file, min_user_events=CORE, min_item_events=CORE)
    done("read")
    return len(log), log.num_users, log.num_items


WAYS = {"attrec": attrec, "duckdb": bare_duckdb, "pandas": pandas, "again": again}


def main() -> None:
    """Go one way."""
    stages: dict[str, float] = {}
    since = [time.perf_counter()]

    def done(stage: str) -> None:
        now = time.perf_counter()
        stages[stage], since[0] = now - since[0], now

    left = WAYS[sys.argv[1]](Path(sys.argv[2]), done)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"stages": stages, "seconds": sum(stages.values()), "peak_bytes": peak,
                      "left": left}))  # fmt: skip


if __name__ == "__main__":
    main()
