import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attrec import fitted_users
from attrec.config import ModelConfig, TrainConfig
from attrec.data.ragged import Ragged
from attrec.errors import ConfigError
from attrec.fitted_users import fitted_user_factors
from attrec.foldin import user_factors
from attrec.model.network import AttRecNetwork


def small_network(seed=0, items=8, d=4):
    config = ModelConfig(
        architecture="paper", embedding_dim=d, window_length=3, long_term_weight=0.4, dropout=0.0,
        init_std=0.4, heads=1,
    )  # fmt: skip
    return AttRecNetwork(config, 3, items, seed=seed, dtype=torch.float64)


def training(clipping=True):
    return TrainConfig(num_targets=2, margin=0.3, norm_clipping=clipping)


def plain_loss(network, history, config, user, centre, l2):
    """Loop over windows, targets and all other items, as the docstring reads."""
    X, V = network.item_short.detach(), network.item_long.detach()
    omega, total = network.config.long_term_weight, l2 * (user - centre).square().sum()
    for t in range(1, len(history)):
        window = [-1] * 3 + list(history[:t])
        m = network.intent(torch.tensor([window[-3:]]))[0].detach()
        targets = history[t : t + config.num_targets]

        def y(item, m=m):
            long_term, short_term = (user - V[item]).square(), (m - X[item]).square()
            return omega * long_term.sum() + (1 - omega) * short_term.sum()

        others = [item for item in range(network.num_items) if item not in targets]
        for i in targets:
            total = total + sum((y(i) + config.margin - y(j)).relu() for j in others) / len(others)
    return total


histories_of_8_items = st.lists(st.integers(0, 7), max_size=6)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(histories_of_8_items, min_size=1, max_size=4),
    st.sampled_from([0.0, 0.05, 2.0]),
    st.sampled_from(["mean", "zero"]),
    st.booleans(),
)
def test_the_fit_is_the_least_of_the_plain_loss_and_its_gap_says_so(lists, l2, towards, clipping):
    network, config = small_network(), training(clipping or l2 == 0)
    found = fitted_user_factors(
        network, Ragged.from_lists(lists), config, l2=l2, towards=towards, tolerance=1e-5,
        max_iterations=3000,
    )  # fmt: skip
    means = user_factors(network.item_long, Ragged.from_lists(lists))
    centres = means if towards == "mean" else torch.zeros_like(means)
    for user, loss, gap, centre, history in zip(
        found.factors, found.loss, found.gap, centres, lists, strict=True
    ):

        def plain(u, history=history, centre=centre):
            return float(plain_loss(network, history, config, u, centre, l2))

        assert plain(user) == pytest.approx(float(loss), abs=1e-9)
        assert 0 <= gap <= 1e-4 * max(1.0, plain(centre))
        if config.norm_clipping:
            assert user.norm() <= 1 + 1e-12
        around = torch.randn(12, 4, generator=torch.Generator().manual_seed(3)).double()
        for other in 0.05 * around + user:
            inside = other / other.norm().clamp(min=1.0)
            assert plain(inside if config.norm_clipping else other) >= loss - gap - 1e-12


def test_a_long_plain_descent_does_not_get_below_the_bound_and_nearly_reaches_it():
    network, config, history, l2 = small_network(3), training(), [0, 5, 2, 7, 1, 2], 0.05
    found = fitted_user_factors(
        network, Ragged.from_lists([history]), config, l2=l2, tolerance=1e-6, max_iterations=5000
    )
    centre = user_factors(network.item_long, Ragged.from_lists([history]))[0]
    user, best = torch.zeros(4, dtype=torch.float64), np.inf
    for step in range(1, 400):
        user.requires_grad_(True)
        loss = plain_loss(network, history, config, user, centre, l2)
        best = min(best, float(loss.detach()))
        (slope,) = torch.autograd.grad(loss, user)
        user = user.detach() - 0.3 / step**0.5 * slope
        user = user / user.norm().clamp(min=1.0)
    bound = float(found.loss - found.gap)
    assert bound - 1e-12 <= best
    assert best - bound <= 0.01 * best
    assert best < 0.97 * float(plain_loss(network, history, config, centre, centre, l2))


def test_a_batch_fits_each_user_alone_also_in_blocks_of_one(monkeypatch):
    network, config = small_network(), training()
    lists = [[1, 2, 3], [4], [5, 6, 7, 0, 1, 3], []]
    fit = {"tolerance": 1e-8, "max_iterations": 4000, "negatives": 5, "seed": 2}
    batch = fitted_user_factors(network, Ragged.from_lists(lists), config, **fit)
    monkeypatch.setattr(fitted_users, "_HINGES_AT_ONCE", 1)
    blocks = fitted_user_factors(network, Ragged.from_lists(lists), config, **fit)
    torch.testing.assert_close(batch.factors, blocks.factors, atol=1e-4, rtol=0)
    only = network.item_long[4].detach()
    torch.testing.assert_close(batch.factors[1], only / only.norm().clamp(min=1.0))
    assert batch.factors[3].tolist() == [0.0] * 4
    for row, history in enumerate(lists):
        alone = fitted_user_factors(network, Ragged.from_lists([history]), config, **fit)
        torch.testing.assert_close(alone.factors[0], blocks.factors[row], atol=1e-9, rtol=0)
    other = fitted_user_factors(network, Ragged.from_lists(lists), config, **{**fit, "seed": 5})
    assert not torch.allclose(other.factors[2], batch.factors[2], atol=1e-3)


def test_a_heavy_penalty_gives_the_centre_and_few_steps_leave_a_gap():
    network, config, one = small_network(), training(), Ragged.from_lists([[1, 2, 3, 6, 5]])
    mean = user_factors(network.item_long, one)
    heavy = fitted_user_factors(network, one, config, l2=1e6, tolerance=1e-9)
    torch.testing.assert_close(heavy.factors, mean, atol=1e-5, rtol=0)
    hasty = fitted_user_factors(network, one, config, l2=0.01, max_iterations=1, tolerance=1e-9)
    patient = fitted_user_factors(network, one, config, l2=0.01, tolerance=1e-9)
    assert hasty.gap > patient.gap
    assert hasty.loss >= patient.loss - 1e-12


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"l2": -1.0}, "at least 0"),
        ({"l2": 0.0}, "without norm_clipping"),
        ({"negatives": 0}, "negatives = 0"),
        ({"max_iterations": 0}, "max_iterations = 0"),
        ({"tolerance": 0.0}, "tolerance"),
    ],
)
def test_a_fit_out_of_range_is_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        fitted_user_factors(
            small_network(), Ragged.from_lists([[0, 1]]), training(clipping=False), **given
        )
