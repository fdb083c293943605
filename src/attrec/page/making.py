"""What the model was made of, and how: data, training, options."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.artifact import FORMAT_VERSION, attrec_version
from attrec.config import OptionSpec, option_specs
from attrec.page.charts import Line, bars, columns, histogram, line_chart
from attrec.page.markup import (
    Html,
    count,
    definitions,
    figure,
    folded,
    paragraph,
    percent,
    table,
    tag,
    together,
)
from attrec.recommender import Recommender

_CURVE_POINTS = 120
_FIRST_DAY, _LAST_DAY = 1e8, 1e10
"""Smaller numbers may be counters, larger ones milliseconds: no dates are shown for them."""
_NUMBERS = re.compile(r"\[[\s\d.,e+\-nul]+\]")
"""Lists of numbers in JSON: written on one line."""
_AFTERWARDS = (
    "The model was changed after its training: events came in, or were forgotten. Its users, items "
    "and histories are shown as they are now; what is said to be of the training log, what "
    "cleaning took out, and all test figures are of the log that it was trained on."
)
_SECTIONS = {
    "model": "Model",
    "train": "Training",
    "protocol": "Protocol",
    "data": "Reading the data",
}


def item_counts(recommender: Recommender) -> npt.NDArray[np.int64]:
    """(N,) int64: how often each item occurs in the histories."""
    values = recommender.histories.histories.values
    return np.bincount(values, minlength=recommender.vocabulary.num_items).astype(np.int64)


def data_section(recommender: Recommender, counts: npt.NDArray[np.int64]) -> Html:
    """Say what the log is like that the model holds."""
    record = recommender.record
    histories = recommender.histories.histories
    lengths, told = histories.lengths, record.get("counts", {})
    pairs = histories.row_of_value * max(1, len(counts)) + histories.values
    repeats = 1 - len(np.unique(pairs)) / max(1, len(pairs))
    changed = _changed(recommender)
    of_log = " of the training log" if changed else ""
    rows: list[tuple[Any, Any]] = [
        ("Users", count(recommender.vocabulary.num_users)),
        ("Items", count(recommender.vocabulary.num_items)),
        *([(f"Events{of_log or ' of the log'}", count(told["events"]))]
          if "events" in told else []),
        ("Events of items that the model knows", count(recommender.histories.num_events)),
        ("Events of a user", f"{_spread(lengths)}"),
        ("Events of an item", f"{_spread(counts)}"),
        ("Events that repeat an item of the user", percent(repeats)),
    ]  # fmt: skip
    span = _span(recommender.histories.times)
    if span:
        rows.append(("Time", span))
    if "tied_events" in told and told.get("events"):
        tied = told["tied_events"]
        rows.append(
            (f"Events{of_log} at the same time as the one before",
             f"{count(tied)} ({percent(tied / told['events'])})")
        )  # fmt: skip
    if "last_item_tie_dependent_share" in told:
        rows.append(
            (f"Users{of_log} whose last item depends on the order of rows",
             percent(told["last_item_tie_dependent_share"]))
        )  # fmt: skip
    vocabulary = recommender.vocabulary
    for what, late in (
        ("Users", vocabulary.num_users - vocabulary.num_trained_users),
        ("Items", vocabulary.num_items - vocabulary.num_trained_items),
    ):
        if late:
            rows.append((f"{what} that came after the training", count(late)))
    unplaced = len(recommender.network.unplaced)
    if unplaced:
        rows.append(("Of these items, in no list: nothing is known of them yet", count(unplaced)))
    pictures = []
    if len(histories.values):
        pictures = [
            histogram("Lengths of the histories", lengths, x_label="events", y_label="users"),
            _popularity(counts),
        ]
    return together(
        [
            paragraph(_AFTERWARDS) if changed else "",
            definitions(rows),
            tag("div", *pictures, class_="pictures"),
            _cleaning(record),
        ]
    )


def _changed(recommender: Recommender) -> bool:
    """Answer whether events came in, or went, since the training.

    Of models of before 2026-11-26, which do not tell how many events they held, some that were
    changed look as they were.
    """
    record, vocabulary = recommender.record, recommender.vocabulary
    held, events = record.get("events_held"), recommender.histories.num_events
    if held is None:
        return (
            vocabulary.num_items > vocabulary.num_trained_items
            or "updates" in record
            or events > record.get("counts", {}).get("events", events)
        )
    return bool(held != events)


def _spread(values: npt.NDArray[np.int64]) -> str:
    if not len(values):
        return "–"
    low, middle, high = (int(np.quantile(values, q)) for q in (0.1, 0.5, 0.9))
    return (
        f"{middle:,} (median); {low:,} to {high:,} for four in five; "
        f"{int(values.min()):,} to {int(values.max()):,} in all"
    )


def _span(times: npt.NDArray[np.float64] | None) -> str | None:
    """Return the first and the last day, where times are seconds since 1970."""
    if times is None or not len(times) or not _FIRST_DAY <= np.median(times) < _LAST_DAY:
        return None
    ends = (float(times.min()), float(times.max()))
    first, last = (datetime.fromtimestamp(max(0.0, at), UTC).date() for at in ends)
    return f"{first} to {last}"


def _popularity(counts: npt.NDArray[np.int64]) -> Html:
    shares = np.sort(counts)[::-1].cumsum() / max(1, counts.sum())
    at = np.unique(np.geomspace(1, len(shares), _CURVE_POINTS).round().astype(np.int64))
    curve = Line("share", (100 * at / len(shares)).tolist(), (100 * shares[at - 1]).tolist())
    tenth = float(shares[max(1, round(len(shares) / 10)) - 1])
    return line_chart(
        f"Popularity: a tenth of the items has {percent(tenth, 0)} of the events",
        [Line("share", [0.0, *curve.xs], [0.0, *curve.ys])], x_label="most popular items, %",
        write=lambda v: f"{v:g} %", from_zero=True, dots=False,
    )  # fmt: skip


def _cleaning(record: Mapping[str, Any]) -> Html:
    if "cleaning" not in record:
        return paragraph("The record does not say what cleaning took out.", note=True)
    steps = record["cleaning"]
    if not steps:
        return paragraph("Reading and cleaning took nothing out of the log.")
    return table(
        "What reading and cleaning took out, in order", ["Step", "Removed", "Left"],
        [(step["what"], count(step["removed"]), count(step["left"])) for step in steps],
    )  # fmt: skip


def training_section(recommender: Recommender) -> Html:
    """Draw loss, validation figure and time of the epochs."""
    record = recommender.record
    epochs = record.get("epochs") or []
    if not epochs:
        return paragraph("The record of this model does not hold its epochs.")
    metric = recommender.options.train.selection_metric
    best = record.get("best_epoch")
    numbers = [epoch["number"] for epoch in epochs]
    judged = [epoch for epoch in epochs if metric in epoch.get("validation", {})]
    trained = [epoch["train_seconds"] for epoch in epochs]
    validated = [epoch.get("validation_seconds", 0.0) for epoch in epochs]
    pictures = [
        line_chart("Loss per window", [Line("epoch", numbers, [e["loss"] for e in epochs])],
                   x_label="epoch", mark=best),
    ]  # fmt: skip
    words = f"{len(epochs)} epochs" if len(epochs) > 1 else "1 epoch"
    if judged:
        values = [epoch["validation"][metric] for epoch in judged]
        pictures.append(
            line_chart(f"Validation {metric}",
                       [Line("epoch", [e["number"] for e in judged], values)],
                       x_label="epoch", mark=best)
        )  # fmt: skip
        chosen = next((e["validation"][metric] for e in judged if e["number"] == best), None)
        words += f"; validation {metric} chose epoch {best} ({figure(chosen)}), the dotted line"
    pictures.append(
        columns("Seconds of each epoch", [str(n) for n in numbers],
                [("training", trained), ("validation", validated)], x_label="epoch")
    )  # fmt: skip
    retrained = record.get("trained_on")
    then = ""
    if retrained == "train + validation":
        more = recommender.options.retraining_epochs(best) if best else None
        then = " Then it was trained anew, on training and validation part together" + (
            f", for {more} epoch{'s' * (more != 1)}." if more else "."
        )
    elif retrained == "train" and not recommender.options.train.retrain:
        then = " It was not trained again with the validation part."
    then += _of_moment(recommender)
    pictures += _phases(record)
    names = list(judged[0]["validation"]) if judged else []
    rows = [
        (str(e["number"]), f"{e['loss']:.5g}",
         *(figure(e.get("validation", {}).get(name)) for name in names),
         f"{e['train_seconds']:.2f}", f"{e.get('validation_seconds', 0.0):.2f}")
        for e in epochs
    ]  # fmt: skip
    return together(
        [
            paragraph(
                f"{words}. Training them took {_seconds(sum(trained))}, validating them "
                f"{_seconds(sum(validated))}.{then}"
            ),
            tag("div", *pictures, class_="pictures"),
            folded(
                "Every epoch in figures",
                table("Epochs", ["Epoch", "Loss", *names, "Training, s", "Validation, s"], rows),
            ),
        ]
    )


def _phases(record: Mapping[str, Any]) -> list[Html]:
    """Draw what each phase of the fit took; models of before 2026-11-26 do not tell it."""
    seconds = record.get("seconds")
    if not seconds:
        return []
    title = f"Seconds of each phase, {_seconds(sum(seconds.values()))} in all"
    return [bars(title, list(seconds), list(seconds.values()), write=_precisely)]


def _of_moment(recommender: Recommender) -> str:
    """Say whether validation lets the popularity of the moment count."""
    tried, moment = recommender.record.get("recent_popularity"), recommender.moment
    if not tried:
        return ""
    words = f" Validation tried {len(tried) - 1} ways to let the popularity of the moment count"
    if moment is None:
        return f"{words}; none was better than leaving it out."
    return f"{words}, and chose one whose half-life is {moment.half_life:,.0f} events."


def _precisely(seconds: float) -> str:
    """Write seconds of any size: 0.003, 0.42, 3.1, 1,250."""
    if seconds < 0.1:
        return f"{seconds:.3f}"
    return f"{seconds:.2f}" if seconds < 1 else f"{seconds:,.{1 if seconds < 100 else 0}f}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 90 else f"{value / 60:.1f} min"


def settings_section(recommender: Recommender, manifest: Mapping[str, Any] | None) -> Html:
    """Show protocol, options, versions and the whole record."""
    record, moment = recommender.record, recommender.moment
    protocol = record.get("test", {}).get("protocol", "not recorded")
    facts: list[tuple[Any, Any]] = [
        ("Protocol", protocol),
        ("Preset", recommender.options.preset),
        ("Trained on", record.get("trained_on", "not recorded")),
        ("Training step", record.get("step", "not recorded")),
        ("Fingerprint of the log", tag("code", record.get("log_fingerprint", "not recorded"))),
        *([("Popularity of the moment", f"half-life {moment.half_life:,.6g} events, scale "
            f"{moment.scale:.6g}")] if moment else []),
        ("Parameters", count(sum(p.numel() for p in recommender.network.parameters()))),
    ]  # fmt: skip
    if manifest is not None:
        facts += [
            ("Saved", f"{manifest['created']} by attrec {manifest['attrec_version']}"),
            ("Artifact format", f"{manifest['format_version']}"),
        ]
    else:
        facts.append(("Artifact format", f"{FORMAT_VERSION} (not saved yet)"))
    facts.append(
        ("This page", f"attrec {attrec_version()}, Python {platform.python_version()}, "
         f"PyTorch {torch.__version__}, NumPy {np.__version__}")
    )  # fmt: skip
    architecture = recommender.options.model.architecture
    values = recommender.options.to_dict()
    tables = []
    for section, title in _SECTIONS.items():
        rows = [
            (tag("code", spec.name), _written(values[section][spec.name]), _doc(spec))
            for spec in option_specs()
            if spec.section == section and spec.is_for(architecture)
        ]
        tables.append(table(title, ["Option", "Value", "What it is"], rows))
    files = manifest["files"] if manifest is not None else {}
    stored = [
        (entry["name"], count(entry["bytes"]), tag("code", entry["sha256"]))
        for entry in files.values()
    ]
    parts = [definitions(facts), folded("All options", *tables)]
    if stored:
        listed = table("Files", ["File", "Bytes", "SHA-256"], stored)
        parts.append(folded("The files of the model", listed))
    text = _NUMBERS.sub(
        lambda found: " ".join(found[0].split()),
        json.dumps(record, indent=1, ensure_ascii=False, default=str),
    )
    whole = folded("The whole record, as JSON", tag("pre", text, tabindex="0"))
    return together([*parts, tag("div", whole, class_="unprinted")])


def _doc(spec: OptionSpec) -> str:
    return spec.doc.removeprefix(f"{spec.of}: ") if spec.of else spec.doc


def _written(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
