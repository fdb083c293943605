"""How sure a mean over users is: 95 % intervals by the bootstrap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from attrec.evaluation.metrics import FloatArray

LEVEL = 0.95
_CHUNK = 64
_DECIMALS = 13


def bootstrap_means(
    columns: FloatArray, *, resamples: int = 2000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Draw users with replacement and return the mean of each draw.

    Parameters
    ----------
    columns : (n, c) float64
        One row per user; all columns see the same draws, so differences of columns are paired.
    resamples : int
        R.
    seed : int

    Returns
    -------
    (R, c) float64
    """
    rng = np.random.default_rng(seed)
    n = len(columns)
    means = np.empty((resamples, columns.shape[1]))
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        weights = np.empty((count, n))
        for row in range(count):
            weights[row] = np.bincount(rng.integers(0, n, n), minlength=n)
        means[start : start + count] = weights @ columns / n
    # On some processors the last bits of a product depend on a column's place among the others.
    return means.round(_DECIMALS)


def interval(means: FloatArray) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled means (R,)."""
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
