"""A log cut, and lists scored, by the standard library alone: neither AttRec nor NumPy takes part.

Whoever doubts a figure of AttRec's need trust nothing but these lines and two CSV files.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

CUTOFFS = (10, 50)
TEST_SHARE = 0.1
"""Of the events, behind the cut of global-time."""


def cut(log: Path, before: Path, split: str) -> dict[str, str]:
    """Write the rows of a log that come before its test part; return what each judged user took.

    ``leave-last-out``: the test part is the last event of every user with at least three.
    ``global-time``: it is the last tenth of all events, and those of the same moment; what a user
    took is the first of them, and who has no event before the cut is not judged.

    Parameters
    ----------
    log : Path
        CSV with a header and columns for user, item and, where there are times, time; without
        them the rows are in order of time.
    before : Path
        Is written: rows in their order.
    split : {"leave-last-out", "global-time"}
    """
    with log.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    times = [float(row[2]) for row in rows] if len(header) > 2 else list(range(len(rows)))
    places: dict[str, list[int]] = defaultdict(list)
    for place in sorted(range(len(rows)), key=times.__getitem__):  # ties in the order of the rows
        places[rows[place][0]].append(place)
    if split == "leave-last-out":
        held_out = {user: own[-1:] for user, own in places.items() if len(own) >= 3}
    else:
        last = len(rows) - 1
        moment = sorted(times)[last - int(last * TEST_SHARE)]
        held_out = {user: [p for p in own if times[p] >= moment] for user, own in places.items()}
    hidden = {place for own in held_out.values() for place in own}
    with before.open("w", encoding="utf-8", newline="") as file:
        kept = (row for place, row in enumerate(rows) if place not in hidden)
        csv.writer(file).writerows([header, *kept])
    return {
        user: rows[own[0]][1] for user, own in held_out.items() if 0 < len(own) < len(places[user])
    }


def scored(lists: Path, targets: Mapping[str, str]) -> dict[str, float]:
    """Return hit rate and NDCG of the lists in a CSV file, by the item that each user took.

    A user without a list counts as a miss, and so does an item outside the list.

    Parameters
    ----------
    lists : Path
        With columns ``user_id`` and ``item_id``; a user's rows are in the order of the list.
    targets : mapping
        User to item; the list of anybody else is not looked at.
    """
    items: dict[str, list[str]] = {user: [] for user in targets}
    with lists.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["user_id"] in items:
                items[row["user_id"]].append(row["item_id"])
    ranks = [items[user].index(item) + 1 for user, item in targets.items() if item in items[user]]
    found = {}
    for k in CUTOFFS:
        within = [rank for rank in ranks if rank <= k]
        found[f"hit_rate@{k}"] = len(within) / len(targets)
        found[f"ndcg@{k}"] = math.fsum(1 / math.log2(rank + 1) for rank in within) / len(targets)
    return found
