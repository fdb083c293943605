"""Figures of two models on the same cases, with their intervals and what lies between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from attrec.evaluation.intervals import bootstrap_means, interval

WITHOUT, WITH, DIFFERENCE = "without attributes", "with attributes", "difference"

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def summary(
    values: Mapping[str, Floats], names: Sequence[str], units: Ints
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the figures of both models, and `WITH` − `WITHOUT`.

    Units are drawn with replacement, each with all of its cases, by the same draws for both models:
    cases of one item (or user) are alike, and count as one observation.

    Parameters
    ----------
    values : {`WITHOUT`: (n, m) float64, `WITH`: (n, m) float64}
        Of n cases, the same ones in the same order.
    names : m str
        What was measured.
    units : (n,) int64, ≥ 0
        The unit that each case is of.

    Examples
    --------
    >>> hits = {WITHOUT: np.array([[0.0], [1.0], [0.0]]), WITH: np.array([[1.0], [1.0], [0.0]])}
    >>> found = summary(hits, ["hit_rate@10"], np.array([0, 0, 1]))
    >>> [round(found[name]["hit_rate@10"]["mean"], 3) for name in (WITHOUT, WITH, DIFFERENCE)]
    [0.333, 0.667, 0.333]
    """
    sums = [np.bincount(units, column) for name in (WITHOUT, WITH) for column in values[name].T]
    drawn = bootstrap_means(np.column_stack([*sums, np.bincount(units)]))
    means = dict(zip((WITHOUT, WITH), np.split(drawn[:, :-1] / drawn[:, -1:], 2, 1), strict=True))
    columns = {name: (values[name], means[name]) for name in (WITHOUT, WITH)}
    columns[DIFFERENCE] = (values[WITH] - values[WITHOUT], means[WITH] - means[WITHOUT])
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, (cases, draws) in columns.items():
        for at, metric in enumerate(names):
            low, high = interval(draws[:, at])
            figure = {"mean": float(cases[:, at].mean()), "low": low, "high": high}
            if name == DIFFERENCE:
                figure["excludes_zero"] = low > 0 or high < 0
            found.setdefault(name, {})[metric] = figure
    return found
