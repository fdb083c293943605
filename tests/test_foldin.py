import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attrec import foldin
from attrec.data.ragged import Ragged
from attrec.errors import ConfigError
from attrec.foldin import user_factors

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
