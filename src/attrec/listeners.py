"""Listeners are told how a training gets on, and may stop it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from attrec.config import Options
from attrec.evaluation.evaluate import Evaluation
from attrec.training.checkpoint import Epoch
from attrec.training.trainer import Progress


class Listener:
    """Told how a `fit` gets on; every method may be overridden, none has to be."""

    def begin(self, options: Options, data: Mapping[str, Any]) -> None:
        """Begin: all options, and the log's ``source``, sizes and ``fingerprint``."""

    def phase(self, name: str) -> None:
        """Begin a phase: splitting, training, retraining, judging."""

    def progress(self, progress: Progress) -> None:
        """Tell that a step was taken."""

    def epoch(self, epoch: Epoch) -> None:
        """Tell that an epoch ended."""

    def stop_requested(self) -> bool:
        """Answer, after each step, whether the training shall save and stop."""
        return False

    def going_on(self, epoch: int, steps: int) -> None:
        """Tell that a training goes on from its checkpoint."""

    def judged(self, evaluation: Evaluation, best_epoch: int) -> None:
        """Tell the figures of the test part, and the epoch that validation chose."""

    def end(self, error: BaseException | None) -> None:
        """End, told in any case: ``error`` is what stopped it, or None."""


class Listeners(Listener):
    """Several listeners as one: each is told everything, in their order; any may stop."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self.all = tuple(listeners)

    def begin(self, options: Options, data: Mapping[str, Any]) -> None:
        """Pass it on."""
        for each in self.all:
            each.begin(options, data)

    def phase(self, name: str) -> None:
        """Pass it on."""
        for each in self.all:
            each.phase(name)

    def progress(self, progress: Progress) -> None:
        """Pass it on."""
        for each in self.all:
            each.progress(progress)

    def epoch(self, epoch: Epoch) -> None:
        """Pass it on."""
        for each in self.all:
            each.epoch(epoch)

    def stop_requested(self) -> bool:
        """Ask all."""
        return any(each.stop_requested() for each in self.all)

    def going_on(self, epoch: int, steps: int) -> None:
        """Pass it on."""
        for each in self.all:
            each.going_on(epoch, steps)

    def judged(self, evaluation: Evaluation, best_epoch: int) -> None:
        """Pass it on."""
        for each in self.all:
            each.judged(evaluation, best_epoch)

    def end(self, error: BaseException | None) -> None:
        """Pass it on, to the others too where one fails."""
        with ExitStack() as told:
            for each in reversed(self.all):
                told.callback(each.end, error)


def as_listener(given: Listener | Iterable[Listener] | None) -> Listener:
    """Return what was given as one listener."""
    if given is None:
        return Listener()
    return given if isinstance(given, Listener) else Listeners(given)


@contextmanager
def told_the_end(listener: Listener) -> Iterator[None]:
    """Tell a listener how the work inside ends."""
    try:
        yield
    except BaseException as error:
        listener.end(error)
        raise
    listener.end(None)
