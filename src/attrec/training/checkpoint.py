"""Where a training stands, saved so that it goes on bit for bit as if it had never stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from attrec.artifact import (
    CHECKPOINT,
    MANIFEST,
    Artifact,
    check_target,
    load_artifact,
    save_artifact,
)
from attrec.errors import ArtifactError, CheckpointError, InterruptedTraining
from attrec.profiling import OFF, Profile

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Epoch:
    """What one pass over the windows cost and gave."""

    number: int
    loss: float
    """Mean over the windows, penalty included."""
    train_seconds: float
    validation: dict[str, float] = field(default_factory=dict)
    validation_seconds: float = 0.0


@dataclass(frozen=True)
class TrainingRun:
    """All epochs, and which one the network now holds."""

    epochs: list[Epoch]
    best_epoch: int
    step: str
    """Name of the step that ran; see `attrec.training.choice`."""


@dataclass(frozen=True, eq=False)
class Standing:
    """Where one training stands, between two steps.

    The order of the windows and their negatives follow from (seed, epoch), so the number of steps
    taken is all that has to be kept of them.

    Attributes
    ----------
    epoch, steps : int
        The running epoch, from 1, and how many of its steps were taken.
    windows : int
        How many these steps learnt from.
    loss : float
        Summed over the windows of these steps.
    seconds : float
        Spent in this epoch.
    epochs : list of Epoch
        Those that ended.
    best_epoch : int
        0 while there is none.
    best_value : float or None
        Its validation figure.
    network, accumulators, generator : tensors
        Weights, the optimisers' state by table, and where the randomness of the steps stands.
    best : tensors or None
        Weights of the best epoch.
    """

    epoch: int
    steps: int
    windows: int
    loss: float
    seconds: float
    epochs: list[Epoch]
    best_epoch: int
    best_value: float | None
    network: State
    accumulators: State
    generator: torch.Tensor
    best: State | None


@dataclass(frozen=True, eq=False)
class FirstTraining:
    """What the training that chose the number of epochs leaves to the retraining."""

    network: State
    run: TrainingRun


class Checkpointer:
    """Keeps the newest state of a training in a folder.

    Parameters
    ----------
    folder : path
        Holds one checkpoint, replaced whole.
    identity : mapping
        What must be equal for a training to go on: its data and options.
    every : float
        Seconds between two checkpoints.
    stop_requested : callable
        Asked after each step.
    profile : Profile
        Times ``checkpoints``.

    Raises
    ------
    CheckpointError
        The folder holds a checkpoint of another training.
    ArtifactError
        It is damaged, of a newer format, or something else, or cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        identity: Mapping[str, Any],
        every: float,
        stop_requested: Callable[[], bool] = lambda: False,
        profile: Profile = OFF,
    ) -> None:
        self.folder = Path(folder)
        self.identity = dict(identity)
        self.every = every
        self.stop_requested = stop_requested
        self.profile = profile
        self.first: FirstTraining | None = None
        self.phase = "training"
        self._restored: Standing | None = None
        self._saved_at = time.monotonic()
        check_target(self.folder, CHECKPOINT)
        if (self.folder / MANIFEST).exists():
            self._load()

    def standing_of(self, phase: str) -> tuple[int, int] | None:
        """Return epoch and step that a phase will go on from, or None if it begins."""
        found = self._restored if self.phase == phase else None
        return None if found is None else (found.epoch, found.steps)

    def restore(self, phase: str) -> Standing | None:
        """Begin a phase; return where it stood, if the checkpoint is of this phase."""
        found = self._restored if self.phase == phase else None
        self.phase, self._restored = phase, None
        return found

    def after_step(self, standing: Callable[[], Standing]) -> None:
        """Save now and then; save and raise where the training was asked to stop.

        Raises
        ------
        InterruptedTraining
        """
        stop = self.stop_requested()
        if not stop and time.monotonic() - self._saved_at < self.every:
            return
        with self.profile.span("checkpoints"):
            now = standing()
            self.save(now)
        if stop:
            raise InterruptedTraining(
                f"stopped as asked in epoch {now.epoch} of the {self.phase}, after {now.steps} "
                f"steps; everything is kept in {self.folder}: run the same command again to go on"
            )

    def save(self, standing: Standing) -> None:
        """Replace the checkpoint, whole or not at all."""
        tensors = {
            "network": standing.network,
            "accumulators": standing.accumulators,
            "generator": {"state": standing.generator},
        }
        if standing.best is not None:
            tensors["best"] = standing.best
        document: dict[str, Any] = {
            "identity": self.identity,
            "epoch": standing.epoch,
            "steps": standing.steps,
            "windows": standing.windows,
            "loss": standing.loss,
            "seconds": standing.seconds,
            "epochs": [asdict(epoch) for epoch in standing.epochs],
            "best_epoch": standing.best_epoch,
            "best_value": standing.best_value,
        }
        if self.first is not None:
            tensors["first"] = self.first.network
            document["first"] = asdict(self.first.run)
        summary = {"phase": self.phase, "epoch": standing.epoch, "steps": standing.steps}
        save_artifact(
            self.folder, summary=summary, tensors=tensors, documents={"standing": document},
            kind=CHECKPOINT,
        )  # fmt: skip
        self._saved_at = time.monotonic()

    def _load(self) -> None:
        artifact = load_artifact(self.folder, CHECKPOINT)
        try:
            self._read(artifact)
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{self.folder}: is damaged (it lacks {error}); {CHECKPOINT.remedy}"
            ) from error

    def _read(self, artifact: Artifact) -> None:
        document, tensors = artifact.documents["standing"], artifact.tensors
        for name, value in self.identity.items():
            if document["identity"].get(name) != value:
                raise CheckpointError(
                    f"{self.folder}: holds a checkpoint of a training with other {name}; go on "
                    "with those, name another folder, or start again with --fresh"
                )
        self.phase = artifact.summary["phase"]
        if "first" in tensors:
            self.first = FirstTraining(tensors["first"], _run(document["first"]))
        self._restored = Standing(
            document["epoch"], document["steps"], document.get("windows", 0), document["loss"],
            document["seconds"],
            [Epoch(**epoch) for epoch in document["epochs"]],
            document["best_epoch"], document["best_value"],
            tensors["network"], tensors["accumulators"], tensors["generator"]["state"],
            tensors.get("best"),
        )  # fmt: skip


def _run(values: Mapping[str, Any]) -> TrainingRun:
    epochs = [Epoch(**epoch) for epoch in values["epochs"]]
    return TrainingRun(epochs, values["best_epoch"], values["step"])
