"""What folding in costs and brings, for the page on updating, from the result files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.foldin.run import changed

from docs.performance import measured_before, rows, table

USERS = {"hit_rate@10": "HR@10", "ndcg@10": "NDCG@10", "hit_rate@50": "HR@50", "mrr": "MRR"}
GROUPS = {
    "with a row": "users with a trained row, who are folded in all the same",
    "held out": "users held out of training, beside the row they would have had",
}
Found = Mapping[str, Any]


def users_given_anew() -> list[str]:
    """Compare users unknown to the accurate preset's training with trained ones."""
    lines: list[str] = []
    for row in _users(accurate=True):
        data, same = row["data"], row["same_lists"]
        found = row["metrics"]["held out"]
        (differences,) = found["differences"].values()
        lines += [
            f"**{row['row'].removeprefix('users.')}**: {data['held_out']:,} of {data['users']:,} "
            f"users held out of training, {found['users']:,} of them with a test event. Lists of "
            f"{same['k']}, beside those of the same histories given anew, one at a time "
            f"({len(row['seeds'])} seeds): of trained users, asked by their ids, "
            f"{_agreement(same['trained users'])}; of held-out users, asked all together, "
            f"{_agreement(same['held-out users'])}.",
            "",
        ]
        body = []
        for system, figures in found["systems"].items():
            less = differences if system == "trained without them" else {}
            cells = [_figure(figures[metric], less.get(metric)) for metric in USERS]
            body.append([system, *cells])
        lines += [*table(["held-out users; model", *USERS.values()], body), ""]
        lines += _told(row)
    if not lines:
        return ["Not measured yet: `make bench-foldin`.", ""]
    return [
        *lines,
        "Stars: the 95 % interval of the paired difference from the line before excludes zero.",
        "",
    ]


def users_folded_in() -> list[str]:
    """Compare the trained row, the mean over V and the fit, on the same users."""
    lines: list[str] = []
    for row in _users(accurate=False):
        fit, name = row["fit"], row["row"].removeprefix("users.")
        lines += [
            f"**{name}**; fit: λ′ = {fit['l2']:g} towards the {fit['towards']}, at most "
            f"{fit['max_iterations']} steps, {row['cost']['fit_seconds_per_1000_users']:.0f} s for "
            "1,000 users",
            "",
        ]
        body = []
        for group, words in GROUPS.items():
            found = row["metrics"][group]
            for system, figures in found["systems"].items():
                less = found["differences"].get(f"{system} − trained row", {})
                cells = [_figure(figures[metric], less.get(metric)) for metric in USERS]
                body.append([f"{words} ({found['users']:,})", system, *cells])
        lines += [*table(["users", "U", *USERS.values()], body), ""]
    if not lines:
        return ["Not measured yet: `make bench-foldin`.", ""]
    return [
        *lines,
        "Stars: the 95 % interval of the paired difference from the trained row excludes zero.",
        "",
    ]


def items_folded_in() -> list[str]:
    """Show where new items stand after a few events, and what they take from the others."""
    lines: list[str] = []
    for row in rows("foldin", "items."):
        lines += [
            f"**{row['row'].removeprefix('items.')}**: {row['data']['held_out']} new items, which "
            f"took {row['share_taken']['reported']:.1%} of the last events; β fixed = "
            f"{row['beta']:g}, by the share taken: "
            + ", ".join(f"{beta:g} after {n}" for n, beta in row["beta_by_share"].items()),
            "",
        ]
        body = [
            [system, count, _figure(found["hit_rate@10"]), _figure(found["ndcg@10"]),
             f"{found['share_of_lists']:.1%}", f"{found['trained_ndcg@10']:.4f}"]
            for system, counts in row["metrics"].items()
            for count, found in counts.items()
        ]  # fmt: skip
        head = ["", "events", "new: HR@10", "NDCG@10", "of the lists", "trained items: NDCG@10"]
        lines += [*table(head, body), ""]
        lines += _told(row)
    return lines or ["Not measured yet: `make bench-foldin`.", ""]


def _told(row: Found) -> list[str]:
    told = measured_before(changed(row))
    return [told.rstrip(), ""] if told else []


def _users(*, accurate: bool) -> list[dict[str, Any]]:
    return [row for row in rows("foldin", "users.") if row["row"].endswith(".accurate") == accurate]


def _agreement(found: Found) -> str:
    return (
        f"{found['unequal']:,} of {found['lists']:,} differ, and distances by at most "
        f"{found['largest_difference']:.0e}"
    )


def _figure(found: Found, difference: Found | None = None) -> str:
    star = difference is not None and (difference["low"] > 0 or difference["high"] < 0)
    return f"{found['mean']:.4f}{' *' if star else ''}"
