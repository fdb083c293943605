"""What validation decides once the network is trained: the popularity of the moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.config import Options
from attrec.data.cases import Cases
from attrec.data.sequences import Sequences
from attrec.evaluation.metrics import per_user
from attrec.evaluation.ranking import rank_targets
from attrec.model.additive import AdditiveNetwork
from attrec.popularity import HALF_LIVES, WEIGHTS, Moment
from attrec.retrieval.vectors import NetworkScorer

CASES = 4096
"""Validation events that are asked, evenly spread."""
_STANDARD_ERRORS = 2.0


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
    no use for it.

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
    if sequences.times is None or len(cases) == 0:
        return Calibration(None, [])
    asked = _Asked(network, cases, options)
    plain = asked.figures(np.zeros(network.num_items))
    tried: list[dict[str, Any]] = [
        {"half_life": None, "weight": 0.0, "figure": float(plain.mean())}
    ]
    best, best_gain = None, np.zeros_like(plain)
    items = sequences.histories.values
    for share in HALF_LIVES:
        half_life = max(1.0, share * len(items))
        unit = Moment(half_life, 1.0).offsets(items, sequences.times, network.num_items)
        for weight in WEIGHTS:
            scale = 2.0 * options.train.temperature * weight
            figures = asked.figures(scale * unit)
            figure = float(figures.mean())
            tried.append({"half_life": half_life, "weight": weight, "figure": figure})
            if (figures - plain).mean() > best_gain.mean():
                best, best_gain = Moment(half_life, scale), figures - plain
    error = best_gain.std() / np.sqrt(len(best_gain))
    certain = best_gain.mean() > _STANDARD_ERRORS * error
    return Calibration(best if certain else None, tried)


class _Asked:
    """Validation events, their queries computed once."""

    def __init__(self, network: AdditiveNetwork, cases: Cases, options: Options) -> None:
        scorer = NetworkScorer(network)
        self.queries = torch.cat(
            [
                scorer.lifted_queries(cases.take(slice(start, start + 512)))
                for start in range(0, len(cases), 512)
            ]
        )
        self.keys = scorer.lifted_keys
        # A case is found again by its row: the additive network asks nobody who they are.
        self.cases = Cases(np.arange(len(cases)), cases.histories, cases.targets)
        self.options = options

    def figures(self, offset: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the metric of each event, (n,), under an offset of the distances."""
        added = torch.as_tensor(offset, device=self.keys.device).to(self.keys)

        def scorer(cases: Cases) -> torch.Tensor:
            rows = torch.as_tensor(cases.user_index, device=self.keys.device)
            return torch.addmm(added, self.queries[rows], self.keys.T)

        ranking = rank_targets(
            scorer,
            self.cases,
            len(self.keys),
            filter_seen=self.options.protocol.filter_seen,
            ties=self.options.protocol.ties,
        )
        return per_user(self.options.train.selection_metric, ranking.ranks)
