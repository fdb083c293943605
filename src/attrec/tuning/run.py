"""Searching for better options: trainings judged on validation, one after the other."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrec.api import (
    check_metric,
    described,
    item_features,
    torch_device,
    torch_threads,
    train_on,
)
from attrec.artifact import CHECKPOINT, remove_artifact
from attrec.config import Options, Space, chosen_options, identity_of, names_given
from attrec.data.given import as_items, as_log, as_test
from attrec.data.interactions import InteractionLog
from attrec.data.items import Items
from attrec.data.splits import Split, split_log
from attrec.errors import (
    ConfigError,
    DataError,
    InterruptedTraining,
    RequestError,
    in_one_line,
)
from attrec.files import write_whole
from attrec.listeners import Listener, as_listener, told_the_end
from attrec.training.checkpoint import Checkpointer, Epoch
from attrec.training.memory import check_memory
from attrec.training.trainer import Progress
from attrec.tuning.picture import draw_tuning
from attrec.tuning.spaces import in_words, spaces_of
from attrec.tuning.study import (
    STUDY_FILES,
    Ending,
    Running,
    Study,
    Trial,
    best_of,
    check_folder,
    check_holds_only,
    keeping_in,
    need_optuna,
    of_the_trials,
    searching_in,
)

BEST, TABLE, PICTURE, CHECKPOINT_FOLDER = "best.toml", "trials.csv", "tuning.png", "running"


@dataclass(frozen=True, eq=False)
class TuneResult:
    """What `tune` returns.

    Attributes
    ----------
    options : Options
        Those of the best trial; those the search began with where none finished.
    best : Trial or None
    trials : list of Trial
        All, in their order, stopped ones too.
    spaces : dict
        What was searched, and where.
    metric : str
        The validation figure that was searched for.
    folder : Path
        Holds ``best.toml``, ``trials.csv``, ``tuning.png`` and ``study.db``.
    """

    options: Options
    best: Trial | None
    trials: list[Trial]
    spaces: dict[str, Space]
    metric: str
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping."""
        return {
            "metric": self.metric,
            "best": None if self.best is None else vars(self.best),
            "spaces": in_words(self.spaces),
            "trials": [vars(trial) for trial in self.trials],
            "folder": str(self.folder),
        }


def tune(
    log: InteractionLog | Any,
    *,
    folder: str | Path,
    trials: int = 30,
    seconds: float | None = None,
    search: str | Iterable[str] | None = None,
    preset: str | None = None,
    config_file: str | Path | None = None,
    options: Options | None = None,
    test: InteractionLog | Any | None = None,
    items: Items | str | Path | None = None,
    listener: Listener | Iterable[Listener] | None = None,
    **overrides: Any,
) -> TuneResult:
    """Search for options that do better on the validation part.

    Every trial trains on the training part with early stopping, and counts by its best validation
    figure, ``selection_metric``. The first one has the options as they are, so the best is never
    worse on validation. The test part is taken away before anything is trained.

    Parameters
    ----------
    log : InteractionLog, path or frame
        Anything that `read_interactions` takes.
    folder : path
        Keeps the search. A call with the same data and options goes on from what is there, also
        in the middle of a trial.
    trials : int
        How many trials there shall be, those of earlier calls included; from 1.
    seconds : float, optional
        How long they may take together, those of earlier calls included; above 0.
    search : str or iterable of str, optional
        Options to search: ``"margin"``, ``"dropout=0.1..0.5"``, ``"l2=0,1e-4"``,
        ``"margin=0.1..1:log"``. Without it, all that declare a space and are not given a value.
    preset, config_file, **overrides
        Options; those of the file and the overrides stay as they are.
    options : Options, optional
        All options at once, in place of these: one or the other. None of them counts as given.
    test : InteractionLog, path or frame, optional
        A given test file: ``log`` is then the training file. Only `fit` looks at it.
    items : Items or path, optional
        What ``item_categories`` and ``item_vectors`` are columns of.
    listener : Listener or several, optional
        A `TuningListener` is told of the trials too; those of `attrec.callbacks` keep each trial's
        epochs, under its number.

    Returns
    -------
    TuneResult

    Raises
    ------
    ConfigError, DataError, DeviceError
    MissingExtraError
        Optuna is not installed.
    ArtifactError
        The folder holds something else, or the search of other data or options.
    RequestError
        The budget is empty, another process searches in this folder, or a file there cannot be
        written.
    InterruptedTraining
        The listener asked to stop; everything is kept.
    """
    base = chosen_options(options, preset, config_file, overrides)
    spaces = check_search(
        base, folder=folder, trials=trials, seconds=seconds, search=search,
        config_file=config_file, overrides=overrides,
    )  # fmt: skip
    told = as_listener(listener)
    with torch_threads(base.train.threads), told_the_end(told):
        told.phase("splitting")
        given = as_test(test, base.data)
        split = split_log(as_log(log, base.data), base.protocol, given).without_test()
        told.begin(base, described(split))
        known = as_items(items)
        features = item_features(known, split.log.item_ids, base)
        identity = {
            **({} if features is None else {"attributes of items": features.digest()}),
            "data": split.fingerprint_before_test(),
            **identity_of(base),
            "searched options": in_words(spaces),
        }
        first = {name: base.value(name) for name in spaces}
        with Study(folder, identity, spaces, first, base.train.seed) as study:
            for each in of_the_trials(told):
                each.searching(spaces, study.trials())
            search_on = _Search(study, split, known, base, told, _Budget(trials, seconds, study))
            asked_to_stop = search_on.run()
            result = search_on.result()
    _write(result)
    draw_tuning(result.trials, spaces, result.metric, result.folder / PICTURE)
    if asked_to_stop:
        raise InterruptedTraining(
            f"stopped as asked in trial {result.trials[-1].number}; everything is kept in "
            f"{folder}: run the same command again to go on"
        )
    return result


def check_search(
    base: Options,
    *,
    folder: str | Path,
    trials: int = 30,
    seconds: float | None = None,
    search: str | Iterable[str] | None = None,
    config_file: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Space]:
    """Raise what `tune` raises before it reads anything; return what it will search.

    What a file sets is not searched, unless ``search`` names it: then the search begins there.
    """
    if trials < 1:
        raise RequestError(f"trials = {trials}: must be at least 1")
    if seconds is not None and not seconds > 0:
        raise RequestError(f"seconds = {seconds:g}: must be above 0")
    given = overrides or {}
    if search is None:
        spaces = spaces_of(base, names_given(config_file, given))
    else:
        spaces = spaces_of(base, given, search)
    check_metric(base.train.selection_metric)
    torch_device(base.train.device)
    need_optuna()
    check_folder(Path(folder))
    return spaces


def remove_tuning(folder: str | Path) -> None:
    """Remove what `tune` wrote; where anything else lies beside it, remove nothing.

    Raises
    ------
    ArtifactError
        The folder holds something else.
    RequestError
        Another process searches there, or it cannot be written.
    """
    path = Path(folder)
    check_folder(path)
    if path.exists():
        files = (BEST, TABLE, PICTURE, *STUDY_FILES)
        check_holds_only(path, (*files, CHECKPOINT_FOLDER))
        with keeping_in(path), searching_in(path):
            remove_artifact(path / CHECKPOINT_FOLDER, CHECKPOINT)
            for name in files:
                (path / name).unlink(missing_ok=True)


class _Budget:
    """How many trials, and how much time, are left of the whole search."""

    def __init__(self, trials: int, seconds: float | None, study: Study) -> None:
        self._trials, self._seconds, self._study = trials, seconds, study
        self._since = time.monotonic()
        self._before = sum(trial.seconds for trial in study.trials())

    def trials_are_there(self) -> bool:
        """Tell whether as many trials ended as were asked for."""
        return sum(trial.ending != "stopped" for trial in self._study.trials()) >= self._trials

    def time_is_over(self) -> bool:
        """Tell whether the time is used up."""
        if self._seconds is None:
            return False
        return self._before + time.monotonic() - self._since >= self._seconds


class _Behind(Exception):  # noqa: N818 - it is no fault
    """A trial falls behind the others."""


_FAILURES = (ConfigError, DataError, ArithmeticError, MemoryError, RuntimeError)
"""What values raise that do not go together, or not on this machine: others may. `TrainingError`,
`MemoryNeededError`, and PyTorch's own errors are among them."""


class _TrialListener(Listener):
    """Passes a trial's training on, reports its epochs, and ends it where it falls behind.

    ``error`` is what was raised by who was told: no fault of the trial.
    """

    def __init__(
        self, told: Listener, running: Running, metric: str, stop: Callable[[], bool]
    ) -> None:
        self._told, self._running, self._metric, self._stop = told, running, metric, stop
        self.error: Exception | None = None

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = error
            raise

    def stop_requested(self) -> bool:
        with self._telling():
            return self._stop()

    def progress(self, progress: Progress) -> None:
        with self._telling():
            self._told.progress(progress)

    def going_on(self, epoch: int, steps: int) -> None:
        with self._telling():
            self._told.going_on(epoch, steps)

    def epoch(self, epoch: Epoch) -> None:
        with self._telling():
            self._told.epoch(epoch)
        if self._running.report(epoch.number, epoch.validation[self._metric]):
            raise _Behind


class _Search:
    """The loop over trials."""

    def __init__(
        self,
        study: Study,
        split: Split,
        items: Items | None,
        base: Options,
        told: Listener,
        budget: _Budget,
    ) -> None:
        self._study, self._split, self._items, self._base = study, split, items, base
        self._told, self._budget = told, budget
        self._kept = study.folder / CHECKPOINT_FOLDER

    def run(self) -> bool:
        """Run trials until the budget is spent; tell whether the listener asked to stop before."""
        while not self._budget.trials_are_there() and not self._budget.time_is_over():
            running = self._study.begin()
            if not running.stopped_before:
                remove_artifact(self._kept, CHECKPOINT)
            self._told.phase(f"trial {running.number}")
            try:
                self._train(running)
            except InterruptedTraining:
                return self._told.stop_requested()
            remove_artifact(self._kept, CHECKPOINT)
            found = self.result()
            _write(found)
            for each in of_the_trials(self._told):
                each.trial(found.trials[-1], found.best)
        return False

    def result(self) -> TuneResult:
        """Return what was found so far."""
        trials = self._study.trials()
        best = best_of(trials)
        options = self._base if best is None else self._base.with_(**best.values)
        metric = self._base.train.selection_metric
        return TuneResult(options, best, trials, self._study.spaces, metric, self._study.folder)

    def _train(self, running: Running) -> None:
        """Run one trial, and keep how it ended."""
        ending: Ending = "finished"
        why = ""
        told = _TrialListener(
            self._told, running, self._base.train.selection_metric,
            lambda: self._told.stop_requested() or self._budget.time_is_over(),
        )  # fmt: skip
        try:
            self._train_on(running, told)
        except _Behind:
            ending = "pruned"
        except _FAILURES as error:
            if error is told.error:
                raise
            if isinstance(error, DataError) and running.number == 1:
                raise  # the log is too small for the options as they are
            ending, why = "failed", in_one_line(error)
        except InterruptedTraining:
            running.end("stopped")
            raise
        running.end(ending, why)

    def _train_on(self, running: Running, told: _TrialListener) -> None:
        options = self._base.with_(**running.values)
        log = self._split.log
        check_memory(log.num_users, log.num_items, len(log), options)
        identity = {**self._study.identity, "trial": running.number}
        keeper = Checkpointer(
            self._kept, identity, options.train.checkpoint_seconds, told.stop_requested
        )
        # A trial is judged without the popularity of the moment, which `fit` chooses afterwards.
        train_on(
            self._split.train, options.with_(recent_popularity=False), validate_on=self._split,
            listener=told, checkpointer=keeper, items=self._items,
        )  # fmt: skip


def _write(result: TuneResult) -> None:
    """Write the table and the best options, each whole or not at all."""
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(
        ["trial", "ending", result.metric, "best_epoch", "epochs", "seconds", *result.spaces,
         "reason"]
    )  # fmt: skip
    for t in result.trials:
        figure = "" if t.figure is None else repr(t.figure)
        values = [t.values.get(name, "") for name in result.spaces]
        rows.writerow([t.number, t.ending, figure, t.best_epoch, t.epochs, f"{t.seconds:.2f}",
                       *values, t.reason])  # fmt: skip
    write_whole(result.folder / TABLE, lambda path: path.write_bytes(table.getvalue().encode()))
    if result.best is not None:
        text = (
            f"# attrec tune: trial {result.best.number} of {len(result.trials)}, "
            f"{result.metric} {result.best.figure:.4f} on validation\n"
            f"{result.options.to_toml(*result.spaces)}"
        )
        write_whole(result.folder / BEST, lambda path: path.write_text(text, encoding="utf-8"))
