"""A search's trials in a folder: kept by Optuna in one SQLite file, whole after every step."""

from __future__ import annotations

import sqlite3
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from attrec.config import Among, OptionSpec, Space, option_specs
from attrec.errors import ArtifactError, MissingExtraError, RequestError, in_one_line
from attrec.files import UNFINISHED, locked
from attrec.listeners import Listener, Listeners

if TYPE_CHECKING:
    import optuna
    from filelock import BaseFileLock

STUDY = "study.db"
_LOCK = "study.lock"
STUDY_FILES = (STUDY, f"{STUDY}-journal", _LOCK)
_NAME = "attrec"
_STUDIES = """
    SELECT study_name,
        study_id IN (SELECT study_id FROM study_user_attributes WHERE key = 'identity')
        OR study_id NOT IN (SELECT study_id FROM trials)
    FROM studies
"""
"""Name of each study of a database, and whether `Study` may have written it: it keeps an identity,
before any trial."""
_WARMUP_EPOCHS = 8
"""The first epoch at which a trial may be pruned."""
_FINISHED_BEFORE_PRUNING = 5
"""Trials that have to have finished, and to have reached an epoch, before one is pruned at it."""
_DRAWN_AT_FIRST = 10
"""Trials drawn evenly before the sampler learns from them; the defaults are the first."""

Ending = Literal["finished", "pruned", "failed", "stopped"]
_ENDINGS: dict[str, Ending] = {
    "COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "stopped",
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes
    ----------
    number : int
        From 1; the first has the options that the search began with.
    values : dict
        Of the searched options.
    ending : {"finished", "pruned", "failed", "stopped"}
        A stopped one goes on with the next call.
    figure : float or None
        Best validation figure of its epochs; None where none ended.
    best_epoch, epochs : int
        The epoch of that figure, and how many there were.
    seconds : float
        What it took.
    reason : str
        Why it failed.
    """

    number: int
    values: dict[str, Any]
    ending: Ending
    figure: float | None = None
    best_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    reason: str = ""


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """Return the finished trial with the best figure, the earliest among equals."""
    finished = [t for t in trials if t.ending == "finished" and t.figure is not None]
    return max(finished, key=lambda t: (t.figure, -t.number), default=None)


class TuningListener(Listener):
    """Told how an `attrec.tune` gets on: what a `fit` tells of a training, and of each trial."""

    def searching(self, spaces: Mapping[str, Space], trials: list[Trial]) -> None:
        """Begin: what is searched, and the trials that are there already."""

    def trial(self, trial: Trial, best: Trial | None) -> None:
        """Tell that a trial ended, and which is the best so far."""


def of_the_trials(told: Listener) -> list[TuningListener]:
    """Return who of several listeners is told of the trials."""
    several = told.all if isinstance(told, Listeners) else (told,)
    return [each for each in several if isinstance(each, TuningListener)]


class Running:
    """The trial that is running: it reports each epoch, and is told whether it falls behind."""

    def __init__(
        self, trial: optuna.Trial, values: dict[str, Any], stopped_before: bool, folder: Path
    ) -> None:
        self._trial, self.values, self.stopped_before = trial, values, stopped_before
        self._folder = folder
        self.number = trial.number + 1
        self._began = time.monotonic() - float(trial.user_attrs.get("seconds", 0.0))
        self._figures = dict(trial.study.trials[trial.number].intermediate_values)

    def report(self, epoch: int, figure: float) -> bool:
        """Keep the best figure up to an epoch; answer whether the trial falls behind.

        An epoch that is trained again, after a crash, gives the figure that is kept already.
        """
        with keeping_in(self._folder):
            if epoch not in self._figures:
                self._figures[epoch] = max([figure, *self._figures.values()])
                self._trial.report(self._figures[epoch], epoch)
                self._keep_seconds()
            return bool(self._trial.should_prune())

    def end(self, ending: Ending, reason: str = "") -> None:
        """Keep how it ended; a stopped one stays to be gone on with."""
        from optuna.trial import TrialState

        with keeping_in(self._folder):
            self._keep_seconds()
            if reason:
                self._trial.set_user_attr("reason", reason)
            if ending == "finished":
                self._trial.study.tell(self._trial, max(self._figures.values()))
            elif ending != "stopped":
                state = TrialState.PRUNED if ending == "pruned" else TrialState.FAIL
                self._trial.study.tell(self._trial, state=state)

    def _keep_seconds(self) -> None:
        self._trial.set_user_attr("seconds", time.monotonic() - self._began)


class Study:
    """The trials in ``folder``; opened, made, or refused.

    Parameters
    ----------
    folder : path
    identity : mapping
        What must be equal for the search to go on: data, fixed options, spaces. JSON-able.
    spaces : mapping of Space
    first : mapping
        The values of the first trial.
    seed : int
        Trial ``n`` is drawn by a generator seeded with (seed, n), and by the trials before it: a
        search that was interrupted draws what it would have drawn.

    Raises
    ------
    MissingExtraError
        Optuna is not installed.
    ArtifactError
        The folder holds something else, or the search of other data or options.
    RequestError
        Another process is at work there, or it cannot be written: then, or later on.
    """

    def __init__(
        self,
        folder: str | Path,
        identity: Mapping[str, Any],
        spaces: Mapping[str, Space],
        first: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.folder, self.spaces, self.seed = Path(folder), dict(spaces), seed
        self._specs = {spec.name: spec for spec in option_specs()}
        self.identity = dict(identity)
        self._storage: Any = None
        need_optuna()
        check_folder(self.folder)
        with keeping_in(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = searching_in(self.folder)
            try:
                self._open()
                self._claim(dict(first))
            except BaseException:
                self.close()
                raise

    def _open(self) -> None:
        import optuna

        path = (self.folder / STUDY).absolute()
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=_FINISHED_BEFORE_PRUNING,
            n_warmup_steps=_WARMUP_EPOCHS,
            n_min_trials=_FINISHED_BEFORE_PRUNING,
        )
        try:
            # Opened by its path: in an address, some letters of a folder's name mean other things.
            self._storage = optuna.storages.RDBStorage(
                f"sqlite:///{STUDY}",
                {"creator": lambda: sqlite3.connect(path, check_same_thread=False)},
            )
            self._study = optuna.create_study(
                storage=self._storage, study_name=_NAME, direction="maximize",
                load_if_exists=True, pruner=pruner,
            )  # fmt: skip
        except RuntimeError as error:  # another version of Optuna wrote it
            raise _unreadable(self.folder / STUDY, error) from error

    def _claim(self, first: dict[str, Any]) -> None:
        kept = self._study.user_attrs.get("identity")
        if kept is None:
            kept = self.identity
            self._study.set_user_attr("identity", kept)
        for name in (name for name, value in self.identity.items() if kept.get(name) != value):
            raise ArtifactError(
                f"{self.folder}: holds a search with other {name}; go on with those, name another "
                "folder, or start again with --fresh"
            )
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(first)

    def close(self) -> None:
        """Let go of the file, for another process to take."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()
        self._lock.release()

    def __enter__(self) -> Study:
        """Return the study."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of the file."""
        self.close()

    def trials(self) -> list[Trial]:
        """List the trials that began, in their order."""
        return [
            self._read(trial)
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state.name in _ENDINGS
        ]

    def begin(self) -> Running:
        """Return the trial that was stopped, or else a new one."""
        from optuna.trial import Trial as Handle
        from optuna.trial import TrialState

        known = self._study.get_trials(deepcopy=False)
        stopped = [trial for trial in known if trial.state == TrialState.RUNNING]
        ended = sum(trial.state.is_finished() for trial in known)
        self._study.sampler = _sampler(self.seed, stopped[0].number if stopped else ended)
        with keeping_in(self.folder):
            trial = Handle(self._study, stopped[0]._trial_id) if stopped else self._study.ask()
            values = {
                name: _suggested(trial, self._specs[name], space)
                for name, space in self.spaces.items()
            }
        return Running(trial, values, bool(stopped), self.folder)

    def _read(self, trial: optuna.trial.FrozenTrial) -> Trial:
        figures = trial.intermediate_values
        best = max(figures.values(), default=None)
        return Trial(
            trial.number + 1,
            {name: trial.params[name] for name in self.spaces if name in trial.params},
            _ENDINGS[trial.state.name],
            best,
            min((epoch for epoch, figure in figures.items() if figure == best), default=0),
            max(figures, default=0),
            float(trial.user_attrs.get("seconds", 0.0)),
            str(trial.user_attrs.get("reason", "")),
        )


def check_folder(folder: Path) -> None:
    """Refuse a path that holds something that is no search, and touch nothing there.

    Raises
    ------
    ArtifactError
    """
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder}: is a file; give a folder for the search")
    if (folder / STUDY).exists():
        _check_ours(folder / STUDY)
    elif folder.is_dir():
        check_holds_only(folder, {_LOCK})


def check_holds_only(folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder in which something lies besides ``names``, and what a killed writer left.

    Raises
    ------
    ArtifactError
    """
    found = {entry.name for entry in folder.iterdir() if not UNFINISHED.fullmatch(entry.name)}
    others = sorted(found - set(names))
    if others:
        raise ArtifactError(
            f"{folder}: holds something that is no search ({others[0]}, …); give a new or an "
            "empty folder"
        )


def _check_ours(path: Path) -> None:
    """Refuse a database that `Study` did not write; one that it only began to write is let pass."""
    try:
        # Read without Optuna, which makes its tables in any database that it opens.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as db:
            begun = db.execute("SELECT 1 FROM sqlite_master").fetchone() is not None
            studies = db.execute(_STUDIES).fetchall() if begun else []
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error
    for name, of_a_search in studies:
        if name != _NAME or not of_a_search:
            raise ArtifactError(
                f"{path}: holds something that is no search (the study {name!r}); give a new or "
                "an empty folder"
            )


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{path}: cannot be read as a search ({in_one_line(error)}); name another folder, or "
        "remove this file if nobody needs it"
    )


@contextmanager
def keeping_in(folder: Path) -> Iterator[None]:
    """Say in one sentence that a search cannot be kept in its folder.

    Raises
    ------
    RequestError
        The folder cannot be written, or its disk is full.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except (OSError, DBAPIError, StorageInternalError) as error:
        first: BaseException = error  # what Optuna and SQLAlchemy make of it says less
        while first.__cause__ is not None:
            first = first.__cause__
        raise RequestError(
            f"{folder}: the search cannot be kept there "
            f"({in_one_line(first)}); choose a folder that is writable and has room"
        ) from error


def searching_in(folder: Path) -> BaseFileLock:
    """Keep other processes out until the lock is released, at the end of a ``with`` or by name.

    Raises
    ------
    RequestError
        Another process is there.
    """
    busy = f"{folder}: another process searches there; wait for it, or name another folder"
    return locked(folder / _LOCK, RequestError(busy))


def need_optuna() -> Any:
    """Return the library, told to speak up only where something is wrong."""
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("optuna", "tune", "attrec tune") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _sampler(seed: int, number: int) -> Any:
    import optuna

    state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=state, multivariate=True, n_startup_trials=_DRAWN_AT_FIRST
        )


def _suggested(trial: Any, spec: OptionSpec, space: Space) -> Any:
    """Return the trial's value of an option: the one it has, or a drawn one."""
    if isinstance(space, Among):
        return trial.suggest_categorical(spec.name, space.values)
    if spec.kind is int:
        return trial.suggest_int(spec.name, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(spec.name, space.low, space.high, log=space.log)
