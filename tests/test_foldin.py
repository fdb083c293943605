import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attrec import foldin
from attrec.data.ragged import Ragged
from attrec.errors import ConfigError
from attrec.foldin import item_factors, user_factors

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


def random_rows(count, d=3, seed=5, size=0.5):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(count, d, dtype=torch.float64, generator=generator)


lengths_of_new_items = st.lists(st.integers(1, 5), max_size=5)


@settings(max_examples=60, deadline=None)
@given(lengths_of_new_items, st.floats(0, 0.95), st.integers(0, 99))
def test_items_equal_the_plain_loop_over_events_and_negatives(lengths, beta, seed):
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    users, intents = random_rows(sum(lengths), seed=seed), random_rows(sum(lengths), seed=seed + 1)
    everybody, all_intents = random_rows(7, seed=seed + 2), random_rows(9, seed=seed + 3)
    found = item_factors(
        users, intents, offsets, everybody.mean(dim=0), all_intents.mean(dim=0), beta
    )
    for rows, population, result in (
        (intents, all_intents, found[0]),
        (users, everybody, found[1]),
    ):
        assert result.shape == (len(lengths), 3)
        for item, count in enumerate(lengths):
            total = np.zeros(3)
            for event in range(offsets[item], offsets[item + 1]):
                total += rows[event].numpy()
                for other in population:
                    total -= beta * other.numpy() / len(population)
            expected = total / (count - beta * count)
            expected /= max(1.0, np.linalg.norm(expected))
            np.testing.assert_allclose(result[item].numpy(), expected, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.floats(0, 0.9), st.integers(0, 99))
def test_no_point_of_the_ball_is_nearer_to_takers_and_farther_from_the_others(count, beta, seed):
    users, everybody = random_rows(count, seed=seed, size=1.0), random_rows(8, seed=seed + 1)
    mean = everybody.mean(dim=0)
    _, V = item_factors(users, users, np.array([0, count]), mean, mean, beta)

    def cost(v):
        away = sum((v - u).square().sum() for u in everybody) * count / len(everybody)
        return sum((v - u).square().sum() for u in users) - beta * away

    assert V[0].norm() <= 1 + 1e-12
    for direction in torch.cat([torch.eye(3), -torch.eye(3)]).double():
        moved = V[0] + 1e-3 * direction
        moved = moved / moved.norm().clamp(min=1.0)
        assert cost(moved) >= cost(V[0]) - 1e-12


def test_an_item_that_everybody_takes_alike_is_pushed_off_the_centre_and_keeps_to_the_ball():
    users = random_rows(40) + torch.tensor([0.3, 0.0, 0.0])
    mean = users.mean(dim=0)
    first = np.array([0, 10])
    norms = [item_factors(users[:10], users[:10], first, mean, mean, b)[1][0] for b in (0.0, 0.9)]
    assert (norms[1] - mean).norm() > 2 * (norms[0] - mean).norm()
    far = item_factors(users[:1], users[:1], np.array([0, 1]), mean, mean, 0.999)[0]
    assert far.norm() == pytest.approx(1.0, abs=1e-12)


def test_new_items_know_nothing_of_each_other():
    users, intents, mean = random_rows(6), random_rows(6, seed=8), torch.zeros(3)
    both = item_factors(users, intents, np.array([0, 4, 6]), mean, mean, 0.4)
    alone = item_factors(users[4:], intents[4:], torch.tensor([0, 2]), mean, mean, 0.4)
    assert all(torch.equal(a[1:], b) for a, b in zip(both, alone, strict=True))


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_a_push_away_that_has_no_minimum_is_refused(beta):
    rows = random_rows(2)
    with pytest.raises(ConfigError, match="less than 1"):
        item_factors(rows, rows, np.array([0, 2]), rows[0], rows[0], beta)


def test_an_item_without_events_and_events_without_intents_are_refused():
    rows, mean = random_rows(3), torch.zeros(3)
    with pytest.raises(ConfigError, match="new item 1 has no event"):
        item_factors(rows, rows, np.array([0, 2, 2, 3]), mean, mean, 0.0)
    with pytest.raises(ConfigError, match="an intent for each event"):
        item_factors(rows, rows[:2], np.array([0, 3]), mean, mean, 0.0)
    with pytest.raises(ConfigError, match="an intent for each event"):
        item_factors(rows, rows, np.array([0, 2]), mean, mean, 0.0)
