"""The accurate rows' figures once more, scored from files, for the accuracy page."""

from __future__ import annotations

from benchmarks.accuracy.run import options_of, read_rows
from benchmarks.rows import changed_options

from docs.performance import measured_before, rows, table

METRICS = {
    "hit_rate@10": "HR@10",
    "ndcg@10": "NDCG@10",
    "hit_rate@50": "HR@50",
    "ndcg@50": "NDCG@50",
}


def same_figures() -> list[str]:
    """Make the part of the page."""
    lines = [
        "## The same figures from files",
        "",
        "Seed 0, trained again by `attrec train`. `attrec recommend --as-of-log` wrote a list of "
        "50 for every user of the log without its test part, and "
        "[plain Python](../benchmarks/independent/score.py), which cuts the log and scores the "
        "lists without AttRec, took the figures again. Difference: the largest of the four from "
        "those of `attrec evaluate`. Who has no event before a cut by time is in no such log, and "
        "left out. What users get whom no training saw: "
        "[updating](updating.md#users-of-the-accurate-preset).",
        "",
    ]
    measured = rows("independent")
    if not measured:
        return [*lines, "Not measured yet: `make bench-independent`.", ""]
    body, before, processors = [], [], set()
    for row in measured:
        figures, kept = row["metrics"]["from the lists"], row["accuracy_row"]
        changed = changed_options(row, options_of(read_rows()[row["row"]]))
        beside = kept and not changed  # the row below may have been measured again since
        own = [f"{kept['metrics'][m]:.4f}" if beside else "" for m in ("hit_rate@10", "ndcg@10")]
        body.append(
            [
                row["row"],
                f"{row['users']:,}",
                "yes" if row["has_moment"] else "no",
                *(f"{figures[metric]:.4f}" for metric in METRICS),
                f"{row['largest_difference']:.0e}" if row["largest_difference"] else "0",
                *own,
            ]
        )
        before += [f"{row['row']}: {measured_before(changed)}"] if changed else []
        here, there = row["machine"]["processor"], kept and kept["processor"]
        processors |= {f"{here} here, {there} there"} if there not in (None, here) else set()
    others = "; ".join(sorted(processors))
    head = ["", "users", "popularity of the moment", *METRICS.values(), "difference",
            "the row below, seed 0: HR@10", "NDCG@10"]  # fmt: skip
    return [
        *lines,
        *table(head, body),
        "",
        *before,
        "The last two columns: the row's own training, which may be another one where the "
        f"processor is another{f' ({others})' if others else ''}. Again: `make bench-independent`.",
        "",
    ]
