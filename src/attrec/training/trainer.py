"""The loop over epochs: shuffled windows, early stopping, the best state kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from attrec.config import TrainConfig
from attrec.data.sequences import Sequences
from attrec.errors import DataError, TrainingError
from attrec.model.choice import Network
from attrec.model.network import AttRecNetwork
from attrec.profiling import OFF, Profile
from attrec.training.checkpoint import Checkpointer, Epoch, Standing, TrainingRun
from attrec.training.choice import make_step
from attrec.training.negatives import check_enough_items
from attrec.training.step import TrainingStep

Validate = Callable[[Network], dict[str, float]]


@dataclass(frozen=True)
class Progress:
    """Where a training stands; what a progress display is told."""

    epoch: int
    num_epochs: int
    windows_done: int
    windows_in_epoch: int
    loss: float
    """Mean loss of a window, in this epoch so far."""


def train(
    network: Network,
    sequences: Sequences,
    config: TrainConfig,
    *,
    num_epochs: int | None = None,
    validate: Validate | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    step: TrainingStep | None = None,
    checkpointer: Checkpointer | None = None,
    phase: str = "training",
    profile: Profile = OFF,
) -> TrainingRun:
    """Train ``network`` in place.

    Parameters
    ----------
    network : Network
    sequences : Sequences
        Training histories; row = row of U.
    config : TrainConfig
    num_epochs : int, optional
        Exactly so many epochs; ``config.max_epochs`` when left out.
    validate : callable, optional
        Gives the validation figures after an epoch, ``config.selection_metric`` among them. With
        it, training stops after ``config.patience`` epochs without a better one, and the network
        ends in the state of the best.
    on_progress, on_epoch : callable, optional
        Told after each step and each epoch.
    step : TrainingStep, optional
        The step to take; chosen by `make_step` when left out.
    checkpointer : Checkpointer, optional
        Where the training stands is kept there, and it goes on from what is kept there of
        ``phase``.
    profile : Profile
        Times ``batches`` (the waiting for each) and ``steps``, and counts ``windows``.

    Returns
    -------
    TrainingRun

    Raises
    ------
    DataError
        No history has two items, or there are too few items for negatives.
    TrainingError
        The loss is not finite.
    InterruptedTraining
        The checkpointer was asked to stop.
    """
    if sequences.num_windows == 0:
        raise DataError(
            "no user has two training events, so there is nothing to learn from; give longer "
            "histories, or check the user column"
        )
    if isinstance(network, AttRecNetwork):
        check_enough_items(network.num_items, config.num_targets)
    step = step or make_step(network, config)
    stand = _Stand(network, step, config)
    if checkpointer is not None:
        stand.take(checkpointer.restore(phase))
    total = num_epochs or config.max_epochs
    while stand.epoch <= total and not stand.patience_is_over():
        batches = step.batches(sequences, stand.epoch, skip=stand.steps)
        for batch in profile.each("batches", batches):
            with profile.span("steps"):
                stand.after(float(step(batch)), batch.size)
            profile.count("windows", batch.size)
            if on_progress is not None:
                on_progress(stand.progress(total, sequences.num_windows))
            if checkpointer is not None:
                checkpointer.after_step(stand.freeze)
        epoch = stand.end_epoch(sequences.num_windows, validate)
        if on_epoch is not None:
            on_epoch(epoch)
    stand.return_to_best()
    return TrainingRun(stand.epochs, stand.best_epoch, type(step).__name__)


class _Stand:
    """Where a training stands; `Standing` is its frozen copy."""

    def __init__(self, network: Network, step: TrainingStep, config: TrainConfig) -> None:
        self.network, self.step, self.config = network, step, config
        self.epoch, self.steps, self.windows = 1, 0, 0
        self.loss, self.seconds = 0.0, 0.0
        self.epochs: list[Epoch] = []
        self.best_epoch, self.best_value = 0, -math.inf
        self.best: dict[str, torch.Tensor] | None = None
        self._since = time.perf_counter()

    def take(self, kept: Standing | None) -> None:
        """Go on from where a training stood."""
        if kept is None:
            return
        self.epoch, self.steps, self.windows = kept.epoch, kept.steps, kept.windows
        self.loss, self.seconds, self.epochs = kept.loss, kept.seconds, kept.epochs
        self.best_epoch, self.best = kept.best_epoch, kept.best
        self.best_value = -math.inf if kept.best_value is None else kept.best_value
        self.network.load_state_dict(kept.network)
        self.step.load_state(kept.accumulators, kept.generator)

    def freeze(self) -> Standing:
        """Copy what has to be kept."""
        accumulators, generator = self.step.state()
        return Standing(
            self.epoch, self.steps, self.windows, self.loss,
            self.seconds + time.perf_counter() - self._since,
            list(self.epochs), self.best_epoch,
            self.best_value if math.isfinite(self.best_value) else None,
            self.network.state_dict(), accumulators, generator, self.best,
        )  # fmt: skip

    def after(self, loss: float, windows: int) -> None:
        """Count a step.

        Raises
        ------
        TrainingError
            Its loss is not finite.
        """
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {self.epoch}, step {self.steps + 1}; lower "
                f"learning_rate (now {self.config.learning_rate:g}), or, of the paper's network, "
                "turn norm_clipping on; what was kept before is whole"
            )
        self.steps += 1
        self.windows += windows
        self.loss += loss

    def progress(self, total: int, windows_in_epoch: int) -> Progress:
        """Say how far it is."""
        loss = self.loss / self.windows
        return Progress(self.epoch, total, self.windows, windows_in_epoch, loss)

    def end_epoch(self, windows: int, validate: Validate | None) -> Epoch:
        """Judge the epoch, keep the best, and begin the next one."""
        trained = time.perf_counter()
        figures = self._judge(validate) if validate is not None else {}
        epoch = Epoch(
            self.epoch, self.loss / windows, self.seconds + trained - self._since, figures,
            time.perf_counter() - trained,
        )  # fmt: skip
        self.epochs.append(epoch)
        if validate is None:
            self.best_epoch = self.epoch
        self.epoch += 1
        self.steps, self.windows, self.loss, self.seconds = 0, 0, 0.0, 0.0
        self._since = time.perf_counter()
        return epoch

    def _judge(self, validate: Validate) -> dict[str, float]:
        with self.step.averaged():
            figures = validate(self.network)
            if figures[self.config.selection_metric] > self.best_value:
                self.best_epoch, self.best_value = self.epoch, figures[self.config.selection_metric]
                self.best = {name: v.clone() for name, v in self.network.state_dict().items()}
        return figures

    def patience_is_over(self) -> bool:
        """Tell whether too many epochs passed without a better one."""
        patience, since = self.config.patience, self.epoch - 1 - self.best_epoch
        return self.best is not None and bool(patience) and since >= patience

    def return_to_best(self) -> None:
        """Bring the network to the state of the best epoch, or, where none was judged, the last."""
        if self.best is None:
            self.step.finish()
        else:
            self.network.load_state_dict(self.best)
