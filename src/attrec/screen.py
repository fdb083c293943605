"""What the command line and the demo show on a terminal or in a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from attrec.answers import (
    AudienceMember,
    GroupRecommendation,
    Recommendation,
    RecommendationTable,
)
from attrec.api import FitResult
from attrec.config import option_specs
from attrec.data.inspection import Inspection
from attrec.data.interactions import InteractionLog
from attrec.evaluation.evaluate import Evaluation
from attrec.planning import Plan
from attrec.profiling import Profile
from attrec.recommender import Recommender
from attrec.tuning.run import TuneResult
from attrec.tuning.spaces import short
from attrec.tuning.study import Trial, best_of

PIPE_WIDTH = 132
_FIGURES_WIDTH, _OPTION_WIDTH = 44, 8
"""Of the table of trials: its figures, and an option, whose longest word and 1e-05 fit."""


def verbatim_console(**options: Any) -> Console:
    """Return a console that prints text as it is.

    Ids, titles and names of files are anybody's: Rich would take ``[red]`` for a colour, ``[/bar]``
    for a mistake and ``:100:`` for a picture. What has a style gets it as an argument.
    """
    return Console(markup=False, emoji=False, **options)


def console() -> Console:
    """Return a verbatim console that does not cut tables in a pipe."""
    found = verbatim_console()
    return found if found.is_terminal else verbatim_console(width=PIPE_WIDTH)


def busy(words: str) -> Status:
    """Return a spinner on standard error, for a ``with`` statement; its words are verbatim too."""
    return verbatim_console(stderr=True).status(Text(words))


def evaluation_table(evaluation: Evaluation, title: str) -> Table:
    """Lay the main metrics of all systems out, each with its 95 % interval.

    A figure from which the first system differs (the paired 95 % interval excludes zero) is marked.
    """
    metrics = evaluation.main_metrics()
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
    for place, (name, result) in enumerate(evaluation.systems.items()):
        cells = []
        for metric in metrics:
            figures = result.metrics[metric]
            difference = evaluation.differences.get(name, {}).get(metric)
            mark = "*" if difference and difference["excludes_zero"] else " "
            half = (figures["high"] - figures["low"]) / 2
            cells.append(f"{figures['mean']:.4f} ±{half:.4f}{mark}")
        table.add_row(name, *cells, style="bold" if place == 0 else "")
    return table


def print_evaluation(screen: Console, evaluation: Evaluation) -> None:
    """Print the figures of all systems, and the protocol in full."""
    screen.print()
    screen.print(evaluation_table(evaluation, "On the test part"))
    if evaluation.other_filter is not None:
        screen.print()
        screen.print(evaluation_table(evaluation.other_filter, "The same, seen-filter turned"))
    if evaluation.new_users is not None:
        screen.print()
        screen.print(
            evaluation_table(evaluation.new_users, "Users without a trained row, by fold-in")
        )
    marks = "±: half of the 95 % interval; *: differs from the first row (in pairs of users, 95 %)"
    screen.print("; ".join(filter(None, [marks, evaluation.not_shown()])), style="dim")
    screen.print(f"Protocol: {evaluation.protocol}", style="dim", highlight=False)


def print_log(screen: Console, log: InteractionLog) -> None:
    """Show what was read, what was assumed, and what was taken out."""
    screen.print(
        f"{log.source}: {len(log):,} events of {log.num_users:,} users and {log.num_items:,} items",
        highlight=False,
    )
    for note in log.notes:
        style = "yellow" if note.startswith("WARNING") else "dim"
        screen.print(f"  {note}", highlight=False, markup=False, style=style)
    for step in log.steps:
        if step.removed:
            screen.print(
                f"  left out {step.removed:,}: {step.what}; {step.left:,} events left",
                highlight=False, markup=False, style="dim",
            )  # fmt: skip
        for example in step.examples:
            screen.print(f"    {example}", highlight=False, markup=False, style="dim")


def print_inspection(screen: Console, found: Inspection) -> None:
    """Show what a log is like, and what is suggested for it."""

    def spread(values: Mapping[str, float]) -> str:
        return "  ".join(f"{name} {value:,.0f}" for name, value in values.items())

    heads = ", ".join(f"{top} have {share:.0%}" for top, share in found.head_shares.items())
    pairs = {
        "density": f"{found.density:.3%} of all pairs of user and item",
        "events of a user": spread(found.history_lengths),
        "events of an item": spread(found.item_counts),
        "popularity": f"of the items, {heads} of the events",
        "repeats": f"{found.repeat_share:.1%} of the events",
        "ties in time": f"{found.tied_events:,} events; the last item of "
        f"{found.tied_last_share:.1%} of the users depends on the order of rows",
    }
    if found.first:
        pairs["time span"] = f"{found.first} to {found.last}"
    if found.gaps:
        pairs["gaps, seconds" if found.first else "gaps in time"] = spread(found.gaps)
    losses = dict(found.losses)
    pairs["split"] = str(losses.pop("split"))
    pairs |= {f"  {name}": f"{value:,}" for name, value in losses.items()}
    pairs |= {f"try {each.option} = {each.value}": each.reason for each in found.suggestions}
    print_pairs(screen, pairs)


def print_recommendations(
    screen: Console,
    served: Recommender,
    answers: list[Recommendation],
    user: Any,
    history: Any,
    long_term_weight: float | None = None,
) -> None:
    """Print one list with its reasons."""
    items = [answer.item_id for answer in answers]
    reasons = served.reasons(user, items, history=history, long_term_weight=long_term_weight)
    additive = served.options.model.architecture == "additive"
    parts = () if additive else ("long", "short")
    table = _list_table("distance", *parts, last="drawn near by")
    for answer, why in zip(answers, reasons, strict=True):
        split = () if additive else (f"{answer.long_term:.4f}", f"{answer.short_term:.4f}")
        table.add_row(
            str(answer.rank), str(answer.item_id), answer.title or "", f"{answer.distance:.4f}",
            *split, "; ".join(why) or ("what most take" if additive else "long-term taste"),
        )  # fmt: skip
    screen.print(table)


def print_group(
    screen: Console, answers: list[GroupRecommendation], members: Sequence[str]
) -> None:
    """Print a group's list: the mean distance and each member's own."""
    table = _list_table("distance", *members)
    for answer in answers:
        numbers = (f"{distance:.4f}" for distance in (answer.distance, *answer.members))
        table.add_row(str(answer.rank), str(answer.item_id), answer.title or "", *numbers)
    screen.print(table)


def print_similar(screen: Console, answers: list[Recommendation]) -> None:
    """Print the items near one item."""
    table = _list_table("distance")
    for answer in answers:
        table.add_row(
            str(answer.rank), str(answer.item_id), answer.title or "", f"{answer.distance:.4f}"
        )
    screen.print(table)


def print_audience(screen: Console, answers: list[AudienceMember], *, additive: bool) -> None:
    """Print the users near one item."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "user", "distance", *(() if additive else ("long", "short"))):
        table.add_column(name, justify="left" if name == "user" else "right", no_wrap=True)
    for answer in answers:
        numbers = [answer.distance] + ([] if additive else [answer.long_term, answer.short_term])
        table.add_row(str(answer.rank), str(answer.user_id), *(f"{y:.4f}" for y in numbers))
    screen.print(table)


def _list_table(*numbers: str, last: str | None = None) -> Table:
    """Return an empty table of items with columns of numbers."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "item", "title", *numbers, *([] if last is None else [last])):
        right = name in ("", *numbers)
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    return table


def print_batch(screen: Console, table: RecommendationTable) -> None:
    """Print the answers to several users."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("user", "rank", "item", "title", "distance"):
        shown.add_column(name)
    for row in table.rows():
        shown.add_row(
            str(row.user_id),
            str(row.rank),
            str(row.item_id),
            row.title or "",
            f"{row.distance:.4f}",
        )
    screen.print(shown)


def print_counts(screen: Console, result: FitResult) -> None:
    """Print what a reader of the figures should know about the data and the attention."""
    counts, evaluation = result.counts, result.evaluation
    lost = evaluation.counts["targets_unknown_to_training"]
    lines = [
        f"best epoch {result.best_epoch} of {len(result.validation_run.epochs)}; "
        f"{counts['test_users']:,} users judged; {lost:,} targets that training lacks count as "
        "misses",
    ]
    share = counts["test_tie_dependent_share"]
    if share > 0:
        lines.append(
            f"the target of {share:.0%} of the users depends on the order of rows of equal time"
        )
    entropy, content = result.attention["entropy"], result.attention["content_share"]
    if entropy is not None and content is not None:
        lines.append(
            f"attention: {entropy:.0%} of the entropy of uniform weights; {content:.0%} of the "
            "affinities' variance comes from content, the rest from positions"
        )
    for line in lines:
        screen.print(line, style="dim", highlight=False)


def slices_table(evaluation: Evaluation, metric: str) -> Table:
    """Lay one metric out by length of history and popularity of the target."""
    table = Table(
        title=f"{metric} by slice", title_justify="left", header_style="bold", box=None,
        pad_edge=False,
    )  # fmt: skip
    table.add_column("", no_wrap=True)
    table.add_column("users", justify="right")
    for name in evaluation.systems:
        table.add_column(name, justify="right")
    for words, row in evaluation.slices.items():
        values = [f"{row[name][metric]:.4f}" for name in evaluation.systems]
        table.add_row(words, f"{row['users']:,}", *values)
    return table


def print_slices(screen: Console, evaluation: Evaluation) -> None:
    """Print the first two metrics by slice."""
    for metric in evaluation.main_metrics()[:2]:
        screen.print()
        screen.print(slices_table(evaluation, metric))


def trials_table(trials: Sequence[Trial], names: Sequence[str], metric: str, width: int) -> Table:
    """Lay the trials of a search out, the best one bold.

    Each option has a column where the ``width`` of the screen has room for them; otherwise they
    share one.
    """
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("trial", metric, "best epoch", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    apart = len(names) * (_OPTION_WIDTH + 2) + _FIGURES_WIDTH <= width
    for name in names if apart else ():
        table.add_column(name.replace("_", " "), justify="right", min_width=_OPTION_WIDTH)
    if not apart:
        table.add_column("options")
    best = best_of(trials)
    for trial in trials:
        figure = "" if trial.figure is None else f"{trial.figure:.4f}"
        ending = "" if trial.ending == "finished" else f" {trial.ending}"
        values = {name: short(value) for name, value in trial.values.items()}
        cells = [values.get(name, "") for name in names]
        if not apart:
            cells = [", ".join(f"{name} {value}" for name, value in values.items())]
        table.add_row(
            str(trial.number), f"{figure}{ending}", f"{trial.best_epoch} of {trial.epochs}",
            f"{trial.seconds:.1f}", *cells, style="bold" if trial == best else "",
        )  # fmt: skip
    return table


def print_tuning(screen: Console, result: TuneResult) -> None:
    """Print the trials, and what the best one changed."""
    screen.print()
    screen.print(trials_table(result.trials, list(result.spaces), result.metric, screen.width))
    for trial in result.trials:
        if trial.reason:
            screen.print(f"trial {trial.number} failed: {trial.reason}", style="dim",
                         highlight=False, markup=False, soft_wrap=True)  # fmt: skip
    best = result.best
    if best is None:
        return
    first = result.trials[0]
    if first.figure is not None:
        screen.print(
            f"{result.metric} on validation: {first.figure:.4f} with the options as they were, "
            f"{best.figure:.4f} with those of trial {best.number}",
            highlight=False,
        )
        screen.print(
            "the best of several trials flatters itself on validation; the test part was not "
            "looked at",
            style="dim", highlight=False,
        )  # fmt: skip


def print_pairs(screen: Console, pairs: Mapping[str, Any]) -> None:
    """Print names and values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in pairs.items():
        table.add_row(key, str(value))
    screen.print(table)


def print_profile(
    screen: Console, profile: Profile, path: Path, step: str, peak_bytes: int
) -> None:
    """Print where the time went, and where the trace is."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("phase", "seconds", "share", "times"):
        table.add_column(name, justify="left" if name == "phase" else "right", no_wrap=True)
    outermost = 0.0
    for phase in profile.phases():
        depth = len(phase.path) - 1
        outermost += phase.seconds * (depth == 0)
        table.add_row(
            "  " * depth + phase.path[-1], f"{phase.seconds:,.2f}", f"{phase.share:.1%}",
            f"{phase.count:,}",
        )  # fmt: skip
    between = profile.seconds - outermost
    table.add_row("between them", f"{between:,.2f}", f"{between / (profile.seconds or 1):.1%}", "")
    table.add_row("together", f"{profile.seconds:,.2f}", "", "")
    screen.print()
    screen.print(table)
    windows = profile.counts.get("windows", 0)
    taken = profile.seconds_of("batches", "steps")
    pace = f"; {windows / taken:,.0f} windows a second" if taken else ""
    screen.print(
        f"step: {step}{pace}; peak memory {peak_bytes / 1e9:.2f} GB\n"
        f"trace: {path} (open it at ui.perfetto.dev or chrome://tracing)",
        style="dim", highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


def print_plan(screen: Console, plan: Plan) -> None:
    """Print what a training would take."""
    memory = (
        f"{plan.memory_bytes / 1e9:.1f} GB at the peak; {plan.available_bytes / 1e9:.1f} GB free"
    )
    again = f", and {plan.retraining_epochs} by the retraining" if plan.retraining_epochs else ""
    pairs = {
        "log": f"{plan.events:,} events of {plan.users:,} users and {plan.items:,} items",
        "memory": memory if plan.fits else f"{memory}: does not fit; {plan.advice}",
        "step": f"{plan.step}, {plan.windows_per_second:,.0f} windows a second",
        "reading": f"{duration(plan.reading_seconds)}, from CSV",
        "splitting, encoding": duration(plan.splitting_seconds),
        "making tables": duration(plan.preparing_seconds),
        "an epoch": f"{duration(plan.epoch_seconds)}, {plan.windows:,} windows",
        "its validation": f"{duration(plan.validation_seconds)}, {plan.judged_users:,} users",
        "judging": f"{duration(plan.judging_seconds)}, test part, all systems",
        "one epoch in all": duration(plan.total_seconds(1)),
        "at most": f"{duration(plan.total_seconds(plan.max_epochs))}, if max_epochs = "
        f"{plan.max_epochs} are taken{again}",
    }
    print_pairs(screen, pairs)
    lines = [
        "How many epochs early stopping takes depends on the data, and cannot be planned. "
        "Checkpoints and saving come on top; judging takes twice as long where more than a tenth "
        "of the targets are repeats.",
    ]
    if plan.measured_share < 1:
        lines.append(
            f"Measured on tables of {plan.measured_share:.1%} of that size: larger ones would have "
            "taken too much memory for a measurement."
        )
    for line in lines:
        screen.print(line, style="dim", highlight=False)


def duration(seconds: float) -> str:
    """Return seconds in words.

    Examples
    --------
    >>> duration(0.04), duration(75), duration(9000), duration(200_000)
    ('0.0 s', '75.0 s', '2.5 h', '2.3 days')
    """
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def print_info(screen: Console, model: Path, found: Mapping[str, Any]) -> None:
    """Print what a saved model is."""
    table = Table(box=None, show_header=False, pad_edge=False)
    record = found["record"]
    rows = {
        "model": f"{model}  (format {found['format_version']}, attrec {found['attrec_version']})",
        "users": f"{found['users']:,}, of them {found['trained_users']:,} in the training",
        "items": f"{found['items']:,}, {found['titles']:,} with a title",
        "events": f"{found['events']:,}",
        "preset": found["options"]["preset"],
        "trained on": record.get("trained_on", "not recorded"),
        "best epoch": str(record.get("best_epoch", "not recorded")),
    }
    for key, value in rows.items():
        table.add_row(key, value)
    architecture = found["options"]["model"]["architecture"]
    means_nothing = {spec.name for spec in option_specs() if not spec.is_for(architecture)}
    for section in ("model", "train", "protocol"):
        values = found["options"][section].items()
        shown = [f"{name} = {value}" for name, value in values if name not in means_nothing]
        table.add_row(section, ", ".join(shown))
    test = record.get("test")
    if test:
        for name, figures in test["systems"].items():
            shown = [m for m in figures if m.startswith(("hit_rate", "ndcg"))] + ["mrr"]
            table.add_row(name, "  ".join(f"{m} {figures[m]['mean']:.4f}" for m in shown))
        table.add_row("protocol", test["protocol"])
    screen.print(table)
