"""How a long piece of work shows itself: a live bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from attrec.config import Space
from attrec.listeners import Listener
from attrec.training.checkpoint import Epoch
from attrec.training.trainer import Progress
from attrec.tuning.study import Trial, TuningListener

_FIGURES = 3
"""Validation figures on an epoch's line: the one that chooses, and two more."""


class ConsoleListener(Listener):
    """Shows a `fit` on a console; use it in a ``with`` statement.

    Parameters
    ----------
    console : rich.console.Console
    stop_requested : callable, optional
        Asked after each step.
    """

    def __init__(
        self, console: Console, stop_requested: Callable[[], bool] = lambda: False
    ) -> None:
        self._console = console
        self._stop_requested = stop_requested
        self._phase = ""
        self._bar: Bar | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        """Start the live bar, where there is a terminal for it."""
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description:<11}"),
                BarColumn(bar_width=28),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(compact=True),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=None, figures="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the live bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def phase(self, name: str) -> None:
        """Begin a phase."""
        self._phase = name
        if self._bar is not None:
            self._bar.reset(self._task, total=None, description=name, figures="")

    def stop_requested(self) -> bool:
        """Pass the question on."""
        return self._stop_requested()

    def going_on(self, epoch: int, steps: int) -> None:
        """Say where the training goes on."""
        self._console.print(
            f"{self._phase:<11} goes on from its checkpoint: epoch {epoch}, after {steps} steps",
            highlight=False,
        )

    def progress(self, progress: Progress) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(
                self._task,
                total=progress.num_epochs * progress.windows_in_epoch,
                completed=(progress.epoch - 1) * progress.windows_in_epoch + progress.windows_done,
                figures=f"epoch {progress.epoch} of at most {progress.num_epochs}, "
                f"loss {progress.loss:.3f}",
            )

    def epoch(self, epoch: Epoch) -> None:
        """Leave one line for the epoch."""
        shown = list(epoch.validation.items())[:_FIGURES]
        figures = "  ".join(f"{name} {value:.4f}" for name, value in shown)
        seconds = epoch.train_seconds + epoch.validation_seconds
        self._console.print(
            f"{self._phase:<11} epoch {epoch.number:>3}  loss {epoch.loss:.3f}  "
            f"{figures}{'  ' if figures else ''}{seconds:.1f} s",
            highlight=False,
            soft_wrap=True,
        )


class ConsoleTuningListener(ConsoleListener, TuningListener):
    """Shows an `attrec.tune` on a console: the bar as in a training, and a line for each trial."""

    def searching(self, spaces: Mapping[str, Space], trials: list[Trial]) -> None:
        """Say what is searched, and what is there already."""
        for name, space in spaces.items():
            self._console.print(f"  searching {name}={space}", highlight=False, style="dim")
        if trials:
            self._console.print(f"going on; trials so far: {len(trials)}", highlight=False)

    def epoch(self, epoch: Epoch) -> None:
        """Leave no line: the trial gets one."""

    def trial(self, trial: Trial, best: Trial | None) -> None:
        """Leave one line for the trial."""
        figure = "no figure" if trial.figure is None else f"{trial.figure:.4f}"
        ahead = "" if best is None else f"  best {best.figure:.4f} (trial {best.number})"
        why = f"  {trial.reason}" if trial.reason else ""
        self._console.print(
            f"trial {trial.number:>3}  {trial.ending:<8}  {figure}  epoch {trial.best_epoch} of "
            f"{trial.epochs}  {trial.seconds:.1f} s{ahead}{why}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
