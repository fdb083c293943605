"""The windows of an epoch: each once, with what a user did not take."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from attrec.config import TrainConfig
from attrec.data.sequences import Sequences, Windows
from attrec.native.batches import make_windows, step_over
from attrec.native.library import available
from attrec.training.negatives import sample_negatives

Ints = npt.NDArray[np.int64]


Parts = tuple[Ints, Ints, Ints, Ints]
"""Users (B,), inputs (B, L), targets (B, T) and negatives (B, T) of B windows."""


def epoch_windows(
    sequences: Sequences,
    window_length: int,
    num_targets: int,
    num_items: int,
    config: TrainConfig,
    epoch: int,
    skip: int = 0,
) -> Iterator[Parts]:
    """Yield every window once, in an order and with negatives that (seed, epoch) determine.

    The first ``skip`` batches are drawn and left out: those after them stay the same.
    """
    rng = np.random.default_rng([config.seed, epoch])
    order = rng.permutation(sequences.num_windows)
    for start in range(0, len(order), config.batch_size):
        numbers = order[start : start + config.batch_size]
        parts = draw(sequences, numbers, window_length, num_targets, num_items, rng)
        if start >= skip * config.batch_size:
            yield parts


def draw(
    sequences: Sequences,
    numbers: Ints,
    window_length: int,
    num_targets: int,
    num_items: int,
    rng: np.random.Generator,
) -> Parts:
    """Return users, inputs, targets and negatives of the windows with the given numbers.

    By the compiled kernels where they are: the same as `Sequences.windows` and `sample_negatives`,
    to the bit, in half the time.
    """
    lists = sequences.histories
    if not available() or lists.values.dtype != np.int32 or not lists.values.flags.c_contiguous:
        found = sequences.windows(numbers, window_length, num_targets)
        return *found, sample_negatives(found.targets, num_items, rng)
    numbers = np.ascontiguousarray(numbers, dtype=np.int64)  # NumPy 1 on Windows draws int32
    *parts, ascending, free = make_windows(
        lists.values, lists.offsets, sequences.windows_before, numbers, window_length,
        num_targets, num_items,
    )  # fmt: skip
    found = Windows(*parts)
    draws = rng.integers(0, free[:, None], size=found.targets.shape)
    return *found, step_over(draws, ascending)


def step_positions(config: TrainConfig, positions: int) -> int:
    """Return how many positions a step of the additive network may have, of an epoch of so many.

    Examples
    --------
    >>> step_positions(TrainConfig(batch_size=6400, min_steps=100), 120_000)
    1200
    """
    most = positions // config.min_steps if config.min_steps else config.batch_size
    return max(1, min(config.batch_size, most))
