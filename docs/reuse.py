"""The page on answers that are kept and reused, from the result files of the replays."""

from __future__ import annotations

from typing import Any

from benchmarks.rows import changed_options

from attrec.config import Options
from docs.performance import measured_before, rows, table

NAMES = {"ml-100k": "MovieLens 100K", "movietweetings-100k": "MovieTweetings"}


def reuse_page() -> str:
    """Make the page."""
    found = rows("cache")
    parts = [
        _head(),
        _replays([row for row in found if row["row"] != "catalogues"]),
        _catalogues([row for row in found if row["row"] == "catalogues"]),
    ]
    return "\n\n".join("\n".join(part).strip() for part in parts if part)


def _head() -> list[str]:
    return [
        "# Answers that need no search",
        "",
        "```bash",
        "attrec train events.csv --out model",
        "```",
        "",
        "```python",
        "import attrec",
        "",
        'model = attrec.load("model")',
        "cache = attrec.CertifiedCache(model)",
        'history = ["3", "8", "11", "5"]',
        'first = cache.recommend("17", k=5)',
        'again = cache.recommend("17", history=history, k=5)',
        "print(again.certificate)  # reused, moved, allowed, radius",
        'print(again.recommendations == model.recommend("17", history=history, k=5))',
        "```",
        "",
        "prints `True` at the end, always: `recommend` of the cache takes what `recommend` of the "
        "model takes and returns the same bits. For each user it keeps the last query, its k + m "
        "nearest items and their distances. A new event moves the query by δ, and no item can come "
        "nearer by more than that: the kept items are ranked again, exactly, and if the k-th is "
        "nearer than anything outside can be, there is nothing to search. Otherwise it searches. "
        "The proof, with what rounding may do, is in "
        "[`retrieval/cache.py`](../src/attrec/retrieval/cache.py).",
        "",
        "- **Fewer candidates** (an item was taken, or is denied) leave a proof as it is; more "
        "candidates, another ω, or other keys make what is kept void. After an update give a cache "
        "the new model: `cache.recommender = found.recommender`.",
        "- **`radius`** says how far the query may move, at least, before the answer holds other "
        "items: half the gap to the next one. Whoever holds an answer elsewhere can tell from it "
        "whether it still stands.",
        "- **Sessions** without a user are kept under a `session` of the caller's.",
        "- At most `users` answers are kept, the one longest unasked goes first; about 6 kB each. "
        "Threads may share a cache.",
    ]


def _replays(found: list[dict[str, Any]]) -> list[str]:
    if not found:
        return []
    lines = [
        "## How often an answer stands",
        "",
        "The last tenth of a log, event by event, against a model of the rest: after each event "
        "its user asks for ten items, seen ones left out. Every answer was compared with that of a "
        "search. Share of answers that needed none, by the margin m; a user's first request always "
        "does. Milliseconds of one CPU thread for an answer, the query's own not counted.",
        "",
    ]
    margins = sorted({int(m) for row in found for m in row["metrics"]["margins"]})
    body = []
    for row in found:
        data, preset = row["row"].split(".")
        metrics = row["metrics"]
        by_margin = metrics["margins"]
        body.append(
            [
                f"{NAMES[data]}, {preset}",
                f"{metrics['moved']['50']:.2f}",
                f"{metrics['first_requests']:.0%}",
                *(
                    f"{by_margin[str(m)]['hit_rate']:.0%}, "
                    f"{1000 * by_margin[str(m)]['seconds_per_answer']:.1f} ms"
                    for m in margins
                ),
                f"{1000 * metrics['seconds_per_search']:.1f} ms",
                f"{1000 * metrics['seconds_per_query']:.1f} ms",
            ]
        )
    head = ["log, preset", "median δ", "first requests", *(f"m = {m}" for m in margins)]
    lines += table([*head, "searching always", "the query itself"], body)
    before = [(row, changed_options(row, Options.of(row["row"].split(".")[1]))) for row in found]
    return [
        *lines,
        "",
        *(f"{row['row']}: {measured_before(changed)}" for row, changed in before if changed),
        "",
        "One event moves a query much farther than the tenth and the eleventh item are apart: with "
        "few further candidates next to nothing is proved, with hundreds of them a third and more. "
        "And on catalogues as small as these a search costs little more than a proof, while a miss "
        "costs both: **here the cache saves no time.**",
    ]


def _catalogues(found: list[dict[str, Any]]) -> list[str]:
    if not found:
        return []
    (row,) = found
    body = [
        [
            f"{int(size):,}",
            f"{1000 * figures['seconds_per_search']:.1f} ms",
            f"{1000 * figures['seconds_per_hit']:.2f} ms",
        ]
        for size, figures in row["metrics"].items()
    ]
    return [
        "## What a proof saves",
        "",
        f"Random keys, D = {row['data']['width']}; {row['protocol']}. A search reads every key, a "
        "proof the kept ones.",
        "",
        *table(["items", "search", "proved reuse"], body),
        "",
        "So it is for large catalogues, and for requests that repeat: δ = 0, when a page is loaded "
        "again or a user took what the model does not know, is the surest hit. The time is that of "
        "the search; the query is computed in any case. Again: `make bench-cache`.",
    ]
