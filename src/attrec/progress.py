"""How a long piece of work shows itself: a live bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from attrec.api import Listener
from attrec.training.checkpoint import Epoch
from attrec.training.trainer import Progress

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

    def __enter__(self) -> ConsoleListener:
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
