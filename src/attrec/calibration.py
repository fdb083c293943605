"""What validation decides once the network is trained: the popularity of the moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.config import Options
from attrec.data.cases import Cases
from attrec.data.sequences import Sequences
from attrec.evaluation.metrics import per_user
from attrec.evaluation.ranking import BLOCK_BYTES, rank_targets
from attrec.model.additive import AdditiveNetwork
from attrec.popularity import HALF_LIVES, WEIGHTS, Moment
from attrec.retrieval.vectors import NetworkScorer

CASES = 4096
"""Validation events that are asked, evenly spread."""
_FEWEST = 30
"""Validation events, of which a standard error can be told."""
_STANDARD_ERRORS = 2.0
_ROWS = 64
"""Events whose distances stay in cache while offset after offset is added."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What was tried, and what won.

    Attributes
    ----------
    moment : Moment or None
        None where nothing was better than no popularity by two standard errors.
    tried : list of dict
        ``half_life`` (in events), ``weight`` (λ) and the validation ``figure``; first that without.
    """

    moment: Moment | None
    tried: list[dict[str, Any]]


def calibrate(
    network: AdditiveNetwork, sequences: Sequences, cases: Cases, options: Options
) -> Calibration:
    """Choose the popularity of the moment on validation; see `attrec.popularity`.

    Every half-life is tried with every weight. The best is taken if its gain over no popularity, in
    pairs of events, is more than two standard errors: chance alone then seldom moves a log that has
    no use for it. Fewer than 30 events say nothing of that, and nothing is tried.

    Parameters
    ----------
    network : AdditiveNetwork
        Without an offset.
    sequences : Sequences
        Of the training part, with times.
    cases : Cases
        Of the validation part; see `validation_events`.
    options : Options
        The metric is ``selection_metric``.
    """
    if sequences.times is None or len(cases) < _FEWEST:
        return Calibration(None, [])
    items = sequences.histories.values
    moments, offsets = [], [np.zeros(network.num_items)]
    for share in HALF_LIVES:
        half_life = max(1.0, share * len(items))
        unit = Moment(half_life, 1.0).offsets(items, sequences.times, network.num_items)
        for weight in WEIGHTS:
            moments.append((weight, Moment(half_life, 2.0 * options.train.temperature * weight)))
            offsets.append(moments[-1][1].scale * unit)
    plain, *found = _figures(network, cases, offsets, options)
    tried: list[dict[str, Any]] = [
        {"half_life": None, "weight": 0.0, "figure": float(plain.mean())}
    ]
    best, best_gain = None, np.zeros_like(plain)
    for (weight, moment), figures in zip(moments, found, strict=True):
        figure = float(figures.mean())
        tried.append({"half_life": moment.half_life, "weight": weight, "figure": figure})
        if (figures - plain).mean() > best_gain.mean():
            best, best_gain = moment, figures - plain
    error = best_gain.std() / np.sqrt(len(best_gain))
    certain = best_gain.mean() > _STANDARD_ERRORS * error
    return Calibration(best if certain else None, tried)


def _figures(
    network: AdditiveNetwork, cases: Cases, offsets: Sequence[Floats], options: Options
) -> Floats:
    """Return the metric of each event under each offset of the distances: (offsets, n).

    A block's product with the keys is the same under all offsets, and is made once.
    """
    scorer, protocol = NetworkScorer(network), options.protocol
    added = torch.as_tensor(np.stack(offsets), device=scorer.lifted_keys.device)
    added = added.to(scorer.lifted_keys)
    rows = max(1, min(_ROWS, BLOCK_BYTES // (4 * network.num_items)))
    queries, room = scorer.lifted_queries(cases), scorer.room(rows)
    found = np.empty((len(offsets), len(cases)))
    for start in range(0, len(cases), rows):
        part = slice(start, start + rows)
        moved, block = _Moved(queries[part] @ scorer.lifted_keys.T, room), cases.take(part)
        # A case is found again by its row: the additive network asks nobody who they are.
        block = Cases(np.arange(len(block)), block.histories, block.targets)
        for row, offset in zip(found, added, strict=True):
            moved.offset = offset
            ranking = rank_targets(
                moved, block, network.num_items,
                filter_seen=protocol.filter_seen, ties=protocol.ties,
            )  # fmt: skip
            row[part] = per_user(options.train.selection_metric, ranking.ranks)
    return found


class _Moved:
    """Distances of a block of cases, moved by an offset; see `BlockScorer`."""

    offset: torch.Tensor

    def __init__(self, distances: torch.Tensor, room: torch.Tensor) -> None:
        self.distances, self._room = distances, room

    def __call__(self, cases: Cases) -> torch.Tensor:
        return self.distances[torch.as_tensor(cases.user_index)] + self.offset

    def room(self, rows: int) -> torch.Tensor:
        return self._room[:rows]

    def write(self, cases: Cases, block: torch.Tensor) -> None:
        first = int(cases.user_index[0])
        torch.add(self.distances[first : first + len(block)], self.offset, out=block)
