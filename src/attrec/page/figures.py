"""How good the model is: the test figures of the record, beside the floors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrec.evaluation.evaluate import Evaluation
from attrec.page.charts import Interval, dots, intervals
from attrec.page.markup import (
    Html,
    count,
    figure,
    folded,
    paragraph,
    percent,
    signed,
    table,
    tag,
    together,
)

_PICTURES = 4
"""Metrics that are drawn; all are in the tables."""


def judged_of(record: Mapping[str, Any]) -> Evaluation | None:
    """Return the evaluation that a record holds; None where it holds none."""
    return Evaluation.from_dict(record["test"]) if record.get("test") else None


def floor_of(evaluation: Evaluation, metric: str) -> str | None:
    """Name the best system that is not the model itself."""
    floors = [name for name in evaluation.systems if not name.startswith("attrec")]
    means = {name: evaluation.systems[name].metrics[metric]["mean"] for name in floors}
    return max(means, key=means.__getitem__) if means else None


def verdict(evaluation: Evaluation, metric: str) -> str:
    """Say in a sentence how the first system stands against the best floor."""
    first = next(iter(evaluation.systems))
    figures = evaluation.systems[first].metrics[metric]
    words = (
        f"{metric} is {figure(figures['mean'])} (95 % interval {figure(figures['low'])} to "
        f"{figure(figures['high'])})"
    )
    floor = floor_of(evaluation, metric)
    if floor is None:
        return f"{words}."
    other = evaluation.systems[floor].metrics[metric]["mean"]
    words += f"; the best floor, {floor}, reaches {figure(other)}"
    found = evaluation.differences.get(floor, {}).get(metric)
    if not found:
        return f"{words}."
    span = f"{signed(found['low'])} to {signed(found['high'])}"
    if not found["excludes_zero"]:
        return (
            f"{words}. The paired difference, {span}, includes zero: neither is shown to be ahead."
        )
    better = "ahead" if found["mean"] > 0 else "behind"
    return (
        f"{words}. In pairs of users the model is {better}: the difference, {span}, excludes zero."
    )


def in_short(evaluation: Evaluation, metric: str) -> str:
    """Say the first system's figure, and the best floor's."""
    first = next(iter(evaluation.systems))
    words = f"{metric} {figure(evaluation.systems[first].metrics[metric]['mean'])}"
    floor = floor_of(evaluation, metric)
    if floor is None:
        return f"{words}."
    other = evaluation.systems[floor].metrics[metric]["mean"]
    return f"{words}; the best floor, {floor}: {figure(other)}."


def figures_section(evaluation: Evaluation | None, metric: str) -> Html:
    """Show metrics, differences and slices; new users and the other filter apart."""
    if evaluation is None:
        return paragraph(
            "The record of this model holds no test figures. ", tag("code", "attrec evaluate"),
            " judges it on the log it was trained on.",
        )  # fmt: skip
    parts = [_evaluation(evaluation, metric)]
    if evaluation.new_users is not None:
        parts += [
            tag("h3", "Users that came after the training"),
            paragraph("They have no trained row; the model meets them by their history alone."),
            _evaluation(evaluation.new_users, metric),
        ]
    if evaluation.other_filter is not None:
        parts += [
            tag("h3", "With the filter of seen items turned"),
            paragraph(
                "Many targets are items that the user took before, so both settings are shown."
            ),
            _evaluation(evaluation.other_filter, metric),
        ]
    return together(parts)


def _evaluation(evaluation: Evaluation, metric: str) -> Html:
    main = evaluation.main_metrics()
    metric = metric if metric in main else main[min(1, len(main) - 1)]
    lost, counts = evaluation.counts.get("targets_unknown_to_training"), evaluation.counts
    judged, targets = count(counts["users"]), count(counts["targets"])
    users = f"{judged} users were judged on {targets} held-out events. "
    missed = (
        f"{count(lost)} of these are of items that the training never saw, and count as misses. "
        if lost
        else ""
    )
    repeated = counts.get("repeated_target_share") or 0.0
    again = (
        f"{percent(repeated)} of them repeat an item that the user had taken before. "
        if repeated
        else ""
    )
    pictures = [
        _intervals(evaluation, name) for name in list(dict.fromkeys([metric, *main]))[:_PICTURES]
    ]
    parts: list[Any] = [
        paragraph(tag("strong", verdict(evaluation, metric))),
        paragraph(users, missed, again),
        tag("div", *pictures, class_="pictures"),
        _all_figures(evaluation, main),
        _differences(evaluation, main),
        _slices(evaluation, metric),
        paragraph(f"Protocol: {evaluation.protocol}.", note=True),
    ]
    return together(parts)


def _intervals(evaluation: Evaluation, metric: str) -> Html:
    rows = []
    for name, system in evaluation.systems.items():
        found = system.metrics[metric]
        rows.append(Interval(name, found["mean"], found.get("low"), found.get("high")))
    return intervals(metric, rows)


def _all_figures(evaluation: Evaluation, main: list[str]) -> Html:
    def rows(names: list[str]) -> list[list[str]]:
        return [
            [system, *(_with_interval(result.metrics[name]) for name in names)]
            for system, result in evaluation.systems.items()
        ]

    names = list(next(iter(evaluation.systems.values())).metrics)
    others = [name for name in names if name not in main]
    first = table(
        "Test figures, with half the width of their 95 % interval",
        ["", *main],
        rows(main),
        kind="systems",
    )
    # Turned: many figures of few systems are read downwards.
    turned = [
        [name, *(_with_interval(result.metrics[name]) for result in evaluation.systems.values())]
        for name in others
    ]
    if not turned:
        return first
    more = table("Further figures", ["", *evaluation.systems], turned)
    return together([first, folded("All other figures", more)])


def _with_interval(found: Mapping[str, Any]) -> str:
    value: float = found["mean"]
    if found.get("low") is None:
        return f"{value:.4f}"
    return f"{value:.4f} ±{(found['high'] - found['low']) / 2:.4f}"


def _differences(evaluation: Evaluation, main: list[str]) -> Html:
    rows = []
    for other, found in evaluation.differences.items():
        cells = []
        for name in main:
            one = found.get(name)
            if one is None:
                cells.append(tag("span", "–"))
                continue
            mean = tag("b" if one["excludes_zero"] else "span", signed(one["mean"]))
            span = tag("small", f"{signed(one['low'])} to {signed(one['high'])}")
            cells.append(together([mean, span]))
        rows.append([f"less {other}", *cells])
    if not rows:
        return Html()
    first = next(iter(evaluation.systems))
    caption = f"{first} less each other system, in pairs of users; bold where it excludes zero"
    return table(caption, ["", *main], rows)


def _slices(evaluation: Evaluation, metric: str) -> Html:
    if not evaluation.slices:
        return Html()
    names = list(evaluation.systems)
    rows = [
        (_sliced(words), [found[name][metric] for name in names])
        for words, found in evaluation.slices.items()
    ]
    drawn = dots(f"{metric} by length of history and popularity of the target", rows, names)
    cells = [
        [words, count(found["users"]), *(figure(found[name][metric]) for name in names)]
        for words, found in evaluation.slices.items()
    ]
    listed = table(f"{metric} by slice", ["", "Users", *names], cells)
    return together(
        [tag("div", drawn, class_="pictures one"), folded("The slices in figures", listed)]
    )


def _sliced(words: str) -> str:
    """Shorten the name of a slice for a picture."""
    return (
        words.removeprefix("history of ")
        .replace("target in the ", "")
        .replace(" of popularity", " of catalogue")
    )
