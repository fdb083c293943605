import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.paper import paper_model

from attrec.model.distance import joint_distance, squared_distance
from attrec.model.loss import hinge_terms, l2_penalty, pair_mask
from attrec.model.network import AttRecNetwork


def test_the_distance_by_hand():
    first, second = torch.tensor([1.0, 2.0]), torch.tensor([[4.0, 6.0], [1.0, 2.0]])
    assert squared_distance(first, second).tolist() == [25.0, 0.0]
    assert joint_distance(torch.tensor(10.0), torch.tensor(20.0), 0.2).item() == pytest.approx(18.0)


def test_the_networks_distance_is_equation_10():
    config = paper_model(embedding_dim=4, window_length=2, long_term_weight=0.3, init_std=1.0)
    model = AttRecNetwork(config, 3, 5, dtype=torch.float64).requires_grad_(False)
    windows, candidates = torch.tensor([[1, 2], [-1, 4]]), torch.tensor([[0, 3], [4, 1]])
    found = model(torch.tensor([2, 0]), windows, candidates)
    for row, user in enumerate((2, 0)):
        m = model.intent(windows[row : row + 1])[0]
        for column, item in enumerate(candidates[row].tolist()):
            long = float((model.user_long[user] - model.item_long[item]).square().sum())
            short = float((m - model.item_short[item]).square().sum())
            assert found[row, column].item() == pytest.approx(0.3 * long + 0.7 * short)


def test_nearer_is_smaller():
    config = paper_model(embedding_dim=4, window_length=2, long_term_weight=0.0, init_std=1.0)
    model = AttRecNetwork(config, 1, 5).requires_grad_(False)
    # With one item in the window the intent is that item, which is at distance 0 from itself.
    found = model(torch.tensor([0]), torch.tensor([[-1, 4]]), torch.arange(5)[None])[0]
    assert found.argmin() == 4
    assert found[4] == 0
    assert (found[:4] > 0).all()


def test_the_double_sum_by_hand():
    targets, negatives = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.2, 3.0]])
    real = torch.tensor([[True, True]])
    every = hinge_terms(targets, negatives, 0.5, pair_mask(real, 2, "all"))
    # 1 + .5 − 1.2 = .3; 1 + .5 − 3 < 0; 2 + .5 − 1.2 = 1.3; 2 + .5 − 3 < 0
    torch.testing.assert_close(every, torch.tensor([[[0.3, 0.0], [1.3, 0.0]]]))
    paired = hinge_terms(targets, negatives, 0.5, pair_mask(real, 2, "one-to-one"))
    torch.testing.assert_close(paired, torch.tensor([[[0.3, 0.0], [0.0, 0.0]]]))
    short = hinge_terms(targets, negatives, 0.5, pair_mask(torch.tensor([[True, False]]), 2, "all"))
    torch.testing.assert_close(short, torch.tensor([[[0.3, 0.0], [0.0, 0.0]]]))


@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(0, 99), st.sampled_from(["all", "one-to-one"])
)
def test_the_loss_equals_the_obvious_loop(B, T, seed, pairing):
    generator = torch.Generator().manual_seed(seed)
    targets, negatives = (torch.rand(B, T, generator=generator) * 2 for _ in range(2))
    lengths = torch.randint(1, T + 1, (B,), generator=generator)
    real = torch.arange(T)[None] < lengths[:, None]
    expected = 0.0
    for b in range(B):
        for i in range(int(lengths[b])):
            for j in range(T):
                if pairing == "all" or i == j:
                    expected += max(0.0, float(targets[b, i]) + 0.5 - float(negatives[b, j]))
    found = hinge_terms(targets, negatives, 0.5, pair_mask(real, T, pairing)).sum().item()
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_penalty_by_hand():
    rows = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0]])]
    assert float(l2_penalty(rows, 0.1)) == pytest.approx(1.4)
