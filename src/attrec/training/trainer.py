"""The loop over epochs: shuffled windows, early stopping, the best state kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from attrec.config import TrainConfig
from attrec.data.sequences import Sequences
from attrec.errors import DataError
from attrec.model.network import AttRecNetwork
from attrec.training.negatives import check_enough_items, sample_negatives
from attrec.training.step import Batch, TrainingStep, make_step

Validate = Callable[[AttRecNetwork], dict[str, float]]


@dataclass(frozen=True)
class Progress:
    """Where a training stands; what a progress display is told."""

    epoch: int
    num_epochs: int
    windows_done: int
    windows_in_epoch: int
    loss: float
    """Mean loss of a window, in this epoch so far."""


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
    """Name of the step that ran: FusedStep or PlainStep."""


def train(
    network: AttRecNetwork,
    sequences: Sequences,
    config: TrainConfig,
    *,
    num_epochs: int | None = None,
    validate: Validate | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    step: TrainingStep | None = None,
) -> TrainingRun:
    """Train ``network`` in place.

    Parameters
    ----------
    network : AttRecNetwork
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

    Returns
    -------
    TrainingRun

    Raises
    ------
    DataError
        No history has two items, or there are too few items for negatives.
    """
    if sequences.num_windows == 0:
        raise DataError(
            "no user has two training events, so there is nothing to learn from; give longer "
            "histories, or check the user column"
        )
    check_enough_items(network.num_items, config.num_targets)
    step = step or make_step(network, config)
    epochs: list[Epoch] = []
    best_number, best_value, best_state = 0, -np.inf, None
    total = num_epochs or config.max_epochs
    for number in range(1, total + 1):
        started = time.perf_counter()
        loss = _run_epoch(network, sequences, config, step, number, total, on_progress)
        trained = time.perf_counter()
        figures = validate(network) if validate is not None else {}
        epoch = Epoch(number, loss, trained - started, figures, time.perf_counter() - trained)
        epochs.append(epoch)
        if on_epoch is not None:
            on_epoch(epoch)
        if validate is None:
            best_number = number
        elif figures[config.selection_metric] > best_value:
            best_number, best_value = number, figures[config.selection_metric]
            best_state = {name: value.clone() for name, value in network.state_dict().items()}
        elif config.patience and number - best_number >= config.patience:
            break
    if best_state is not None and best_number != epochs[-1].number:
        network.load_state_dict(best_state)
    return TrainingRun(epochs, best_number, type(step).__name__)


def _run_epoch(
    network: AttRecNetwork,
    sequences: Sequences,
    config: TrainConfig,
    step: TrainingStep,
    number: int,
    total: int,
    on_progress: Callable[[Progress], None] | None,
) -> float:
    loss, done = 0.0, 0
    for batch in epoch_batches(sequences, network, config, number):
        loss += float(step(batch))
        done += len(batch.users)
        if on_progress is not None:
            on_progress(Progress(number, total, done, sequences.num_windows, loss / done))
    return loss / done


def epoch_batches(
    sequences: Sequences, network: AttRecNetwork, config: TrainConfig, epoch: int
) -> Iterator[Batch]:
    """Yield every window once, in an order and with negatives that (seed, epoch) determine."""
    rng = np.random.default_rng([config.seed, epoch])
    order = rng.permutation(sequences.num_windows)
    device = network.item_short.device
    for start in range(0, len(order), config.batch_size):
        numbers = order[start : start + config.batch_size]
        windows = sequences.windows(numbers, network.config.window_length, config.num_targets)
        negatives = sample_negatives(windows.targets, network.num_items, rng)
        yield Batch(*(torch.from_numpy(part).to(device) for part in (*windows, negatives)))
