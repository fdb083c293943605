"""Listeners that keep a training's curves where people look at them: TensorBoard, MLflow.

``attrec.fit(log, listener=[TensorBoard("runs/first"), MLflow("tracking")])``
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrec.config import Options, identity_of, option_specs
from attrec.errors import InterruptedTraining, MissingExtraError, RequestError, in_one_line
from attrec.evaluation.evaluate import Evaluation
from attrec.files import try_writing
from attrec.listeners import Listener
from attrec.training.checkpoint import Epoch

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SYSTEM = "attrec"
"""The row of an evaluation whose figures are kept."""


class _Keeper(Listener):
    """What both share: a store that fails after the beginning ends no training.

    It is warned of once, and nothing more is kept.
    """

    _name = ""

    def __init__(self, where: str | Path) -> None:
        self._where, self._broken = where, False

    def _safely(self, work: Callable[[], Any]) -> None:
        if self._broken:
            return
        try:
            work()
        except Exception as error:  # of the store's own libraries, whatever it is
            self._broken = True
            warnings.warn(
                f"{self._where}: {self._name} keeps nothing more of this training "
                f"({in_one_line(error)}); the training goes on",
                stacklevel=2,
            )


class TensorBoard(_Keeper):
    """Keeps a training for TensorBoard: ``tensorboard --logdir FOLDER``.

    The phases are runs of their own, so that equal figures share a picture: ``FOLDER/training`` and
    ``FOLDER/retraining`` with the loss, the validation figures and the seconds of every epoch,
    ``FOLDER/test`` with the figures of the test part and the options as hyperparameters.

    A folder that cannot be written later on ends no training: it is warned of once, and nothing
    more is kept.

    Parameters
    ----------
    folder : path
        Of one training. A training that goes on from its checkpoint goes on there; a new one hides
        what an earlier one left.

    Raises
    ------
    MissingExtraError
        TensorBoard is not installed.
    """

    _name = "TensorBoard"

    def __init__(self, folder: str | Path) -> None:
        _need("tensorboard", "tensorboard", "a log for TensorBoard")
        super().__init__(folder)
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise RequestError(f"{folder}: is a file; name a folder for TensorBoard")
        self._phase, self._from = "", 0
        self._options: dict[str, Any] = {}
        self._about: dict[str, Any] = {}
        self._writers: dict[str, SummaryWriter] = {}

    def begin(self, options: Options, data: Mapping[str, Any]) -> None:
        """Try the folder, and remember what is told with the first figures.

        Raises
        ------
        RequestError
            It cannot be written.
        """
        self._options, self._broken = meant(options), False
        self._about = {**self._options, **data}
        try:
            try_writing(self.folder)
        except OSError as error:
            raise RequestError(
                f"{self.folder}: cannot be written ({in_one_line(error)}); name another "
                "folder for TensorBoard"
            ) from error

    def phase(self, name: str) -> None:
        """Begin a run."""
        self._phase, self._from = name, 0

    def going_on(self, epoch: int, steps: int) -> None:
        """Keep the epochs before."""
        self._from = epoch

    def epoch(self, epoch: Epoch) -> None:
        """Keep an epoch's figures."""
        self._safely(lambda: self._add_epoch(epoch))

    def judged(self, evaluation: Evaluation, best_epoch: int) -> None:
        """Keep the figures of the test part, and the options that led to them."""
        self._safely(lambda: self._add_judged(evaluation, best_epoch))

    def end(self, error: BaseException | None) -> None:
        """Close the files."""
        for writer in self._writers.values():
            self._safely(writer.close)
        self._writers.clear()

    def _add_epoch(self, epoch: Epoch) -> None:
        writer = self._writer(self._phase, self._from)
        for name, value in epoch_figures(epoch).items():
            writer.add_scalar(name, value, epoch.number)
        writer.flush()

    def _add_judged(self, evaluation: Evaluation, best_epoch: int) -> None:
        figures = {f"test/{name}": value for name, value in judged_figures(evaluation).items()}
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in self._options.items()
        }
        # The run's own folder: TensorBoard shows options and figures of all trainings side by side.
        self._writer("test", 0).add_hparams(plain, figures, run_name=".", global_step=best_epoch)

    def _writer(self, run: str, first_step: int) -> SummaryWriter:
        if run not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(self.folder / run), purge_step=first_step)
            rows = [f"| {name} | {value} |" for name, value in self._about.items()]
            writer.add_text("options", "\n".join(["| | |", "| --- | --- |", *rows]), first_step)
            self._writers[run] = writer
        return self._writers[run]


class MLflow(_Keeper):
    """Keeps a training as a run of MLflow: options, the figures of every epoch, the test figures.

    A failure of the store after the beginning ends no training: it is warned of once, and nothing
    more is kept.

    Parameters
    ----------
    where : str or path
        The address of a tracking server (``http://…``) or store (``sqlite:///…``), or a folder,
        which then holds an SQLite store: ``mlflow ui --backend-store-uri sqlite:///…`` shows it.
        No ``?`` or ``%`` may be in the folder's path.
    experiment : str
        Made where it is missing.
    run_name : str, optional
        MLflow makes one up.

    Raises
    ------
    MissingExtraError
        MLflow is not installed.
    RequestError
        The folder's path has a letter that such an address gives another meaning.
    """

    _name = "MLflow"

    def __init__(
        self, where: str | Path, *, experiment: str = "attrec", run_name: str | None = None
    ) -> None:
        _need("mlflow", "mlflow", "a log for MLflow")
        super().__init__(where)
        self._address, self._folder = _store(where)
        self.run_id: str | None = None
        self._going = False
        self._experiment_name, self._run_name = experiment, run_name
        self._phase, self._identity, self._experiment = "", "", ""
        self._options: dict[str, Any] = {}
        self._data: dict[str, Any] = {}
        self._client: Any = None

    def begin(self, options: Options, data: Mapping[str, Any]) -> None:
        """Reach the store, and remember what the run is told of when it begins.

        Raises
        ------
        RequestError
            The store cannot be reached.
        """
        self._options, self._data = meant(options), dict(data)
        # Of what lets a training go on, so that its run does too.
        told = json.dumps([identity_of(options), self._data["fingerprint"]], sort_keys=True)
        self._identity = hashlib.sha256(told.encode()).hexdigest()
        self.run_id, self._broken, self._going = None, False, True
        try:
            self._open()
        except ImportError as error:
            purpose = f"the MLflow store {self._where}"
            raise MissingExtraError(error.name or "a library", "mlflow", purpose) from error
        except Exception as error:  # of the store's own libraries, whatever it is
            raise RequestError(
                f"{self._where}: cannot be used as an MLflow store ({in_one_line(error)}); give a "
                "server's address, sqlite:///FILE or a folder"
            ) from error

    def phase(self, name: str) -> None:
        """Begin a phase."""
        self._phase = name

    def going_on(self, epoch: int, steps: int) -> None:
        """Go on with the run of the training that was stopped."""
        self._safely(self._find)

    def epoch(self, epoch: Epoch) -> None:
        """Keep an epoch's figures."""
        figures = {f"{self._phase}/{n}": value for n, value in epoch_figures(epoch).items()}
        self._safely(lambda: self._log(figures, epoch.number))

    def judged(self, evaluation: Evaluation, best_epoch: int) -> None:
        """Keep the figures of the test part."""
        figures = {f"test/{name}": value for name, value in judged_figures(evaluation).items()}
        self._safely(lambda: self._log({**figures, "best_epoch": best_epoch}, best_epoch))

    def end(self, error: BaseException | None) -> None:
        """End the run: finished, killed (it can go on), or failed."""
        run = self.run_id if self._going else None  # what ends may not have begun
        self._going = False
        if run is not None:
            asked = isinstance(error, InterruptedTraining | KeyboardInterrupt)
            status = "FINISHED" if error is None else "KILLED" if asked else "FAILED"
            self._safely(lambda: self._client.set_terminated(run, status))

    def _open(self) -> None:
        from mlflow import MlflowClient

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it makes tables
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        artifacts = None if self._folder is None else (self._folder / "artifacts").as_uri()
        self._client = MlflowClient(tracking_uri=self._address)
        found = self._client.get_experiment_by_name(self._experiment_name)
        self._experiment = (
            self._client.create_experiment(self._experiment_name, artifact_location=artifacts)
            if found is None
            else found.experiment_id
        )

    def _find(self) -> None:
        found = self._client.search_runs(
            [self._experiment],
            f"tags.`attrec.training` = '{self._identity}' and attributes.status != 'FINISHED'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        if found:
            self.run_id = found[0].info.run_id
            self._client.update_run(self.run_id, status="RUNNING")

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric, Param

        params = []
        if self.run_id is None:
            tags = {"attrec.training": self._identity, **{
                f"data.{name}": str(value) for name, value in self._data.items()
            }}  # fmt: skip
            run = self._client.create_run(self._experiment, tags=tags, run_name=self._run_name)
            self.run_id = run.info.run_id
            params = [Param(name, str(value)) for name, value in self._options.items()]
        now = int(1000 * time.time())
        # MLflow's names have no @; LightGBM's ndcg@10 is ndcg_at_10 there too.
        metrics = [
            Metric(name.replace("@", "_at_"), value, now, step) for name, value in figures.items()
        ]
        self._client.log_batch(self.run_id, metrics=metrics, params=params)


def meant(options: Options) -> dict[str, Any]:
    """Return the preset and the options that mean something to the architecture, by name."""
    return {"preset": options.preset} | {
        spec.name: options.value(spec.name)
        for spec in option_specs()
        if spec.is_for(options.model.architecture) and options.value(spec.name) is not None
    }


def epoch_figures(epoch: Epoch) -> dict[str, float]:
    """Return what is kept of an epoch."""
    return {
        "loss": epoch.loss,
        "train_seconds": epoch.train_seconds,
        **{f"validation/{name}": value for name, value in epoch.validation.items()},
    }


def judged_figures(evaluation: Evaluation) -> dict[str, float]:
    """Return the means of the model's figures on the test part."""
    return {
        name: float(figures["mean"]) for name, figures in evaluation.systems[SYSTEM].metrics.items()
    }


def _store(where: str | Path) -> tuple[str, Path | None]:
    """Return the store's address, and its folder; None where it is in none of ours."""
    if "://" in str(where) or str(where) == "databricks":
        return str(where), None
    folder = Path(where).absolute()
    for letter in "?%":
        if letter in str(folder):
            raise RequestError(
                f"{where}: MLflow cannot keep anything in a folder with {letter!r} in its path "
                f"({folder}); name another one"
            )
    return f"sqlite:///{folder / 'mlflow.db'}", folder


def _need(library: str, extra: str, purpose: str) -> None:
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise MissingExtraError(library, extra, purpose) from error
