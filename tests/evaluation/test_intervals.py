import numpy as np
import pytest

from attrec.evaluation.intervals import bootstrap_means, interval


def test_the_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).random((400, 1))
    means = bootstrap_means(values, resamples=4000, seed=1)
    low, high = interval(means[:, 0])
    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_columns_are_drawn_together():
    values = np.random.default_rng(0).random((50, 1))
    means = bootstrap_means(np.hstack([values, values + 0.25]), resamples=130)
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 0.25)


def test_the_same_seed_gives_the_same_draws():
    values = np.random.default_rng(0).random((30, 2))
    first, again, other = (bootstrap_means(values, resamples=70, seed=s) for s in (5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()


def test_one_user_has_no_spread():
    assert interval(bootstrap_means(np.array([[0.4]]), resamples=10)[:, 0]) == (0.4, 0.4)
