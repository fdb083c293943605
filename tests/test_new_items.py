"""Vectors of new items: the paper's, pushed away; the additive network's, expected; their room."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from attrec.errors import ConfigError
from attrec.new_items import (
    LONGEST,
    expected_rows,
    item_factors,
    predicted_keys,
    scaled_to_share,
)


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


def unit(generator, *shape):
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from([0.1, 1.0, 10.0]))
def test_predicted_keys_are_those_of_ridge_regression(seed, width, penalty):
    generator = torch.Generator().manual_seed(seed)
    keys, known = unit(generator, 12, 4), unit(generator, 12, 5)[:, :width]
    asked = unit(generator, 3, 5)[:, :width]
    found = predicted_keys(keys, known, asked, penalties=(penalty,))
    z, y = known - known.mean(dim=0), keys - keys.mean(dim=0)
    scale = float(z.square().sum()) / max(1, width)
    system = z.T @ z + (penalty * scale + 1e-12) * torch.eye(width, dtype=torch.float64)
    expected = keys.mean(dim=0) + (asked - known.mean(dim=0)) @ torch.linalg.solve(system, z.T @ y)
    expected = expected / expected.norm(dim=1, keepdim=True).clamp(min=1.0)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_rows_of_any_length_are_expected_where_they_are_and_keys_end_at_length_one():
    generator = torch.Generator().manual_seed(5)
    known, asked = unit(generator, 30, 4), unit(generator, 6, 4)
    way = 3.0 * torch.randn(4, 5, generator=generator, dtype=torch.float64)
    rows = expected_rows(known @ way, known, asked, penalties=(1e-12,))
    torch.testing.assert_close(rows, asked @ way, rtol=1e-6, atol=1e-6)
    assert float(rows.norm(dim=1).max()) > 1.0
    keys = predicted_keys(known @ way, known, asked, penalties=(1e-12,))
    torch.testing.assert_close(keys, rows / rows.norm(dim=1, keepdim=True).clamp(min=1.0))


def test_the_penalty_is_the_one_that_predicts_items_left_out_best():
    generator = torch.Generator().manual_seed(3)
    known = unit(generator, 40, 6)
    noisy = unit(generator, 40, 6)
    keys = 0.6 * known + 0.4 * noisy
    keys = keys / keys.norm(dim=1, keepdim=True)
    penalties = (0.001, 0.1, 10.0, 1000.0)

    def left_out(penalty):
        error = 0.0
        for row in range(40):
            rest = torch.arange(40) != row
            # The spread of what is known is that of all 40, as in the closed form.
            spread = (known - known.mean(dim=0)).square().sum()
            without = known[rest] - known[rest].mean(dim=0)
            share = penalty * float(spread / without.square().sum())
            found = predicted_keys(keys[rest], known[rest], known[[row]], penalties=(share,))[0]
            error += float((found - keys[row]).square().sum())
        return error

    best = min(penalties, key=left_out)
    asked = unit(generator, 3, 6)
    torch.testing.assert_close(
        predicted_keys(keys, known, asked, penalties=penalties),
        predicted_keys(keys, known, asked, penalties=(best,)),
    )


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_new_items_take_the_share_of_the_lists_that_they_are_given(share):
    generator = torch.Generator().manual_seed(4)
    keys, queries = unit(generator, 50, 8), unit(generator, 300, 8)
    new = 0.2 * unit(generator, 20, 8)
    scaled = scaled_to_share(new, keys, queries, share)
    lists = (queries @ torch.cat([keys, scaled]).T).topk(10, dim=1).indices
    assert float((lists >= 50).double().mean()) == pytest.approx(share, abs=0.01)
    torch.testing.assert_close(normalize(scaled, dim=1), normalize(new, dim=1))


def test_flat_keys_of_new_items_get_longer_than_those_of_trained_ones():
    generator = torch.Generator().manual_seed(5)
    keys, queries = unit(generator, 50, 32), unit(generator, 300, 32)
    new = 0.1 * unit(generator, 3, 32)
    new[1] *= 0.5
    scaled = scaled_to_share(new, keys, queries, 0.08)
    lists = (queries @ torch.cat([keys, scaled]).T).topk(10, dim=1).indices
    assert float((lists >= 50).double().mean()) == pytest.approx(0.08, abs=0.01)
    lengths = scaled.norm(dim=1)
    assert 1 < lengths.max() <= LONGEST
    assert lengths[1] == pytest.approx(float(lengths[0]) / 2)
    everything = scaled_to_share(new, keys, queries, 1.0)
    assert float(everything.norm(dim=1).max()) == pytest.approx(LONGEST)
    nothing = scaled_to_share(new, keys, queries, 0.0)
    assert float(nothing.norm(dim=1).max()) < 1e-6
