import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attrec import foldin
from attrec.config import ModelConfig, TrainConfig
from attrec.data.ragged import Ragged
from attrec.errors import ConfigError
from attrec.foldin import fitted_user_factors, user_factors
from attrec.model.network import AttRecNetwork

histories_of_9_items = st.lists(st.lists(st.integers(0, 8), max_size=6), max_size=7)


def table(rows=9, d=4, dtype=torch.float64):
    return torch.randn(rows, d, dtype=dtype, generator=torch.Generator().manual_seed(3))


@settings(max_examples=60, deadline=None)
@given(histories_of_9_items, st.sampled_from([0.0, 0.7]), st.integers(1, 5))
def test_equals_the_plain_loop_also_in_small_blocks(lists, l2, block):
    V = table()
    expected = np.zeros((len(lists), 4))
    for row, history in enumerate(lists):
        for item in history:
            expected[row] += V[item].numpy() / (len(history) + l2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foldin, "_EVENTS_AT_ONCE", block)
        found = user_factors(V, Ragged.from_lists(lists), l2=l2)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=6), st.sampled_from([0.0, 0.4]))
def test_no_neighbour_has_a_smaller_summed_distance(history, l2):
    V = table()
    best = user_factors(V, Ragged.from_lists([history]), l2=l2)[0]

    def cost(u):
        return sum((u - V[j]).square().sum() for j in history) + l2 * u.square().sum()

    for direction in torch.eye(4, dtype=torch.float64):
        for step in (-1e-3, 1e-3):
            assert cost(best + step * direction) > cost(best)


def test_the_mean_stays_in_the_ball_and_an_empty_history_gives_zero():
    V = torch.nn.functional.normalize(table(), dim=1)
    found = user_factors(V, Ragged.from_lists([[0, 1, 2, 2], []]))
    assert found[0].norm() <= 1
    assert found[1].tolist() == [0.0] * 4


def test_a_batch_has_the_bits_of_single_calls_and_takes_no_gradient():
    V = torch.nn.Parameter(table(dtype=torch.float32))
    lists = [[1, 2, 3], [4], [5, 6, 7, 8, 0]]
    batch = user_factors(V, Ragged.from_lists(lists))
    assert batch.dtype == torch.float64
    assert not batch.requires_grad
    for row, history in enumerate(lists):
        assert torch.equal(batch[row], user_factors(V, Ragged.from_lists([history]))[0])


@pytest.mark.parametrize("l2", [-0.1, float("nan")])
def test_a_penalty_below_zero_is_refused(l2):
    with pytest.raises(ConfigError, match="at least 0"):
        user_factors(table(), Ragged.from_lists([[0]]), l2=l2)


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
        for other in 0.05 * table(12) + user:
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
    monkeypatch.setattr(foldin, "_HINGES_AT_ONCE", 1)
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
