"""What attributes bring to items that were never trained on, for the accuracy page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cold_items.figures import DIFFERENCE, WITH, WITHOUT
from benchmarks.cold_items.run import METRICS, ROWS, measured, options_of
from benchmarks.rows import changed_options

from docs.performance import STAR, measured_before, table

NAMES = {"hit_rate@10": "HR@10", "ndcg@10": "NDCG@10"}
Found = Mapping[str, Any]


def cold_items() -> list[str]:
    """Make the part of the page."""
    found = {name: row for name in ROWS if (row := measured(name)) is not None}
    lines = ["## Items that were never trained on", ""]
    if not found:
        return [*lines, "Not measured yet: `make bench-cold-items`.", ""]
    lines += [
        f"{next(iter(found.values()))['protocol']}.",
        "",
        "In brackets the interval; a star where that of the paired difference excludes zero, which "
        "by chance alone one in twenty does. “Of the lists”: the share of all top-10 places that "
        "held-out items take. Items that nobody took are not told apart without attributes, and no "
        "room is made for them. How attributes enter: "
        "[decision 23](decisions/023-item-attributes.md).",
        "",
    ]
    for name, row in found.items():
        lines += _row(name, row)
    missing = [f"`{name}`" for name in ROWS if name not in found]
    if missing:
        lines += [f"Not measured yet: {listed(missing)}.", ""]
    return lines


def _row(name: str, row: Found) -> list[str]:
    data, cost = row["data"], row["cost"]
    head = ["events"]
    for metric in METRICS:
        head += [f"{NAMES[metric]} without", "with", "with − without"]
    body = [
        [
            count,
            *(cell for metric in METRICS for cell in _cells(figures, metric)),
            *(f"{figures[which]['share_of_lists']['mean']:.1%}" for which in (WITHOUT, WITH)),
        ]
        for count, figures in row["metrics"].items()
    ]
    seconds, epochs, machine = cost["train_seconds"], cost["epochs"], row["machine"]["processor"]
    return [
        f"**{name}**: {row['attributes']}; {data['held_out']} held-out items, "
        f"{data['cases']:,} places looked for",
        "",
        *table([*head, "of the lists without", "with"], body),
        "",
        *_words(row["metrics"]),
        f"Items that were not held out, on validation after each training's best epoch "
        f"({data['validation_users']:,} users): {_ordinary(row['valid'])}.",
        "",
        f"Trained in {seconds[WITHOUT]:.0f} s without and {seconds[WITH]:.0f} s with attributes "
        f"(best epochs {epochs[WITHOUT]} and {epochs[WITH]}) on {cost['threads']} thread of "
        f"{machine}, {cost['peak_memory_bytes'] / 1e9:.1f} GB at most; {row['date']}, commit "
        f"`{row['commit']}`. {measured_before(changed_options(row, options_of(name)))}Again: "
        f"`make bench-cold-items ROW={name}`.",
        "",
    ]


def _cells(figures: Found, metric: str) -> list[str]:
    difference = figures[DIFFERENCE][metric]
    return [
        *(_figure(figures[which][metric], "") for which in (WITHOUT, WITH)),
        _figure(difference, "+") + (STAR if difference["excludes_zero"] else ""),
    ]


def _figure(found: Found, sign: str) -> str:
    return f"{found['mean']:{sign}.4f} [{found['low']:{sign}.4f}, {found['high']:{sign}.4f}]"


def _words(metrics: Found) -> list[str]:
    """Say where attributes help, where they lose, and where neither is beyond chance."""
    places: dict[str, list[str]] = {"help": [], "lose": [], "neither": [], "lower": []}
    for metric in METRICS:
        counts: dict[str, list[str]] = {}
        for count, figures in metrics.items():
            difference = figures[DIFFERENCE][metric]
            sure, less = difference["excludes_zero"], difference["mean"] < 0
            counts.setdefault(("lose" if less else "help") if sure else "neither", []).append(count)
            if less:
                both = (
                    f"{figures[WITHOUT][metric]['mean']:.4f} → {figures[WITH][metric]['mean']:.4f}"
                )
                counts.setdefault("lower", []).append(f"{count} ({both})")
        for kind, found in counts.items():
            places[kind].append(f"{NAMES[metric]} at {listed(found)}")
    lines = ["By the number of events:", ""]
    for kind, words in (
        ("help", "attributes help beyond chance"),
        ("lose", "attributes lose beyond chance"),
        ("neither", "no difference beyond chance"),
        ("lower", "lower with attributes, by chance or not"),
    ):
        if places[kind]:
            lines.append(f"- {words}: {'; '.join(places[kind])}")
    return [*lines, ""]


def _ordinary(valid: Found) -> str:
    """Say what attributes do where no item was held out."""
    told, sure = [], []
    for metric in METRICS:
        difference = valid[DIFFERENCE][metric]
        both = f"{valid[WITHOUT][metric]['mean']:.4f} → {valid[WITH][metric]['mean']:.4f}"
        told.append(f"{NAMES[metric]} {both} ({_figure(difference, '+')})")
        if difference["excludes_zero"]:
            gained = "gains" if difference["mean"] > 0 else "loses"
            sure.append(f"{NAMES[metric]} {gained} beyond chance")
    return f"{', '.join(told)}: {listed(sure) or 'nothing beyond chance'}"


def listed(words: Sequence[str]) -> str:
    """Join words as a sentence does.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *others, last = words or [""]
    return f"{', '.join(others)} and {last}" if others else last
