"""The popularity of the moment: how often each item was taken lately, as an offset of distances.

A softmax over the distances of the additive network gives p(i) ∝ exp(m · k_i / τ). With a prior
that knows what is taken now,

    p(i) ∝ p_i^λ exp(m · k_i / τ),   p_i = c_i + ε c̄,   c_i = Σ over the events of i of 2^(−a / h),

where a counts the events of everybody since, h is the half-life in events, and c̄ the mean of c. As
a distance that is y_i = 2 − 2 m · k_i + o_i with the offset

    o_i = 2 τ λ (max log p − log p_i) ≥ 0.

It is the same for all users and fixed until the log is brought up to date, so ranking stays a
nearest-neighbour search over fixed keys. λ and h are chosen on validation, 0 among them: a log
whose parts are not cut by time has seldom a use for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from attrec.data.sequences import Sequences
from attrec.errors import DataError
from attrec.model.additive import AdditiveNetwork

FLOOR = 0.05
"""ε: what an item without recent events has, as a share of the mean."""

HALF_LIVES = (0.002, 0.005, 0.02, 0.08, 0.32, 1.28)
"""Tried half-lives, as shares of the events."""
WEIGHTS = (0.1, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Tried λ, beside 0."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """How the popularity of the moment is reckoned.

    Attributes
    ----------
    half_life : float, > 0
        h, in events.
    scale : float, ≥ 0
        2 τ λ.
    """

    half_life: float
    scale: float

    def offsets(self, items: npt.NDArray[np.integer], times: Floats, num_items: int) -> Floats:
        """Return o (N,) float64.

        Parameters
        ----------
        items : (E,) integer
            Of all events.
        times : (E,) float64
            Of the events.
        num_items : int
            N.

        Examples
        --------
        >>> moment = Moment(half_life=1.0, scale=1.0)
        >>> moment.offsets(np.array([0, 1, 1]), np.array([5.0, 6.0, 7.0]), 3).round(2).tolist()
        [1.7, 0.0, 3.96]
        """
        if len(items) == 0 or num_items == 0:
            return np.zeros(num_items)
        counts = recent_counts(items, times, num_items, self.half_life)
        logs = np.log(counts + FLOOR * counts.mean())
        offsets: Floats = self.scale * (logs.max() - logs)
        return offsets


def at_moment(
    network: AdditiveNetwork, sequences: Sequences, moment: Moment | None
) -> AdditiveNetwork:
    """Return the network with the popularity of the moment in which ``sequences`` end.

    Raises
    ------
    DataError
        The model has such a popularity, and the events have no times to reckon it from.
    """
    if moment is None:
        return network
    if sequences.times is None:
        raise DataError(
            "the events have no times, and the model ranks by what is popular at the moment too; "
            "give the log with its times, as the model was trained on it"
        )
    items = sequences.histories.values
    offsets = moment.offsets(items, sequences.times, network.num_items)
    return network.with_offset(torch.from_numpy(offsets))


def recent_counts(
    items: npt.NDArray[np.integer], times: Floats, num_items: int, half_life: float
) -> Floats:
    """Return c (N,): events of each item, halved for every ``half_life`` events that came since.

    Events of one time have one age, so that their order in the log says nothing.
    """
    total = len(items)
    age = total - np.searchsorted(np.sort(times), times, side="right").astype(np.float64)
    weights = np.exp2(-age / half_life)
    return np.bincount(items, weights=weights, minlength=num_items).astype(np.float64)
