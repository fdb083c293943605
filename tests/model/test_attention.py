"""The attention by hand, and against the obvious loop."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.paper import paper_model

from attrec.errors import ConfigError
from attrec.model.attention import aggregate, attention_weights, intent_shares, project
from attrec.model.network import AttRecNetwork
from attrec.model.positions import time_signal


def network(L=3, d=4, aggregation="mean", num_items=6, seed=0, **options):
    config = paper_model(
        embedding_dim=d, window_length=L, aggregation=aggregation, init_std=0.7, **options
    )
    return AttRecNetwork(config, 5, num_items, seed=seed, dtype=torch.float64).requires_grad_(False)


def test_the_time_signal_by_hand():
    signal = time_signal(3, 4, dtype=torch.float64)
    expected = [
        [math.sin(t), math.cos(t), math.sin(t / 100.0), math.cos(t / 100.0)] for t in range(3)
    ]
    torch.testing.assert_close(signal, torch.tensor(expected, dtype=torch.float64))
    assert signal[2].norm().item() == pytest.approx(math.sqrt(4 / 2))


def test_query_and_key_carry_the_signal_and_the_relu():
    rows = torch.tensor([[[1.0, -2.0], [0.5, 0.0]]])
    signal = time_signal(2, 2)  # (0, 1) and (sin 1, cos 1)
    W = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    expected = [[1.0, 0.0], [0.5 + math.sin(1), 2 * math.cos(1)]]
    torch.testing.assert_close(project(rows, signal, W), torch.tensor([expected]))


def test_two_items_share_by_halves_whatever_they_are():
    model = network()
    windows = torch.tensor([[-1, 2, 5]])
    weights = model.attention(windows)
    assert weights[0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert model.shares(windows)[0].tolist() == [0, 0.5, 0.5]
    torch.testing.assert_close(model.intent(windows)[0], model.item_short[[2, 5]].mean(dim=0))


@pytest.mark.parametrize("windows", [[[-1, -1, 4]], [[4]]])
@pytest.mark.parametrize("aggregation", ["mean", "sum", "max", "min"])
def test_one_item_is_its_own_intent(windows, aggregation):
    model = network(L=len(windows[0]), aggregation=aggregation)
    torch.testing.assert_close(model.intent(torch.tensor(windows))[0], model.item_short[4])


def test_an_empty_window_has_the_intent_zero():
    for aggregation in ("mean", "sum", "max", "min"):
        model = network(aggregation=aggregation)
        assert model.intent(torch.full((1, 3), -1)).tolist() == [[0.0] * 4]


def test_three_items_by_hand():
    # Queries and keys one-dimensional after the ReLU: affinities 2·1, 2·3, 1·3 over √1.
    queries = torch.tensor([[[2.0], [1.0], [3.0]]], dtype=torch.float64)
    mask = torch.ones(1, 3, dtype=torch.bool)
    weights = attention_weights(queries, queries, mask)[0]
    e = math.exp
    expected = [
        [0, e(2) / (e(2) + e(6)), e(6) / (e(2) + e(6))],
        [e(2) / (e(2) + e(3)), 0, e(3) / (e(2) + e(3))],
        [e(6) / (e(6) + e(3)), e(3) / (e(6) + e(3)), 0],
    ]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64))
    # Masked to −∞, not multiplied to a score of 0: no weight leaks to the diagonal.
    assert weights.diagonal().tolist() == [0, 0, 0]
    assert weights.sum(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-15)


def test_the_four_aggregations_by_hand():
    attended = torch.tensor([[[0.0, 0.0], [1.0, -4.0], [3.0, 2.0]]])
    mask = torch.tensor([[False, True, True]])
    values = {name: aggregate(attended, mask, name)[0].tolist() for name in ("mean", "sum")}
    assert values == {"mean": [2.0, -1.0], "sum": [4.0, -2.0]}
    assert aggregate(attended, mask, "max")[0].tolist() == [3.0, 2.0]
    assert aggregate(attended, mask, "min")[0].tolist() == [1.0, -4.0]


def naive_intent(model, window):
    """Equations (2) to (6), one number at a time."""
    items = [item for item in window if item >= 0]
    slots = [slot for slot, item in enumerate(window) if item >= 0]
    d = model.config.embedding_dim
    signal = time_signal(len(window), d, dtype=torch.float64)
    X = model.item_short
    Q = [
        torch.relu((X[i] + signal[t]) @ model.projection) for i, t in zip(items, slots, strict=True)
    ]
    rows = []
    for query in range(len(items)):
        others = [j for j in range(len(items)) if j != query] or [query]
        scores = [math.exp(float(Q[query] @ Q[j]) / math.sqrt(d)) for j in others]
        rows.append(sum(s / sum(scores) * X[items[j]] for s, j in zip(scores, others, strict=True)))
    stacked = torch.stack(rows)
    return {
        "mean": stacked.mean(dim=0),
        "sum": stacked.sum(dim=0),
        "max": stacked.amax(dim=0),
        "min": stacked.amin(dim=0),
    }[model.config.aggregation]


@given(
    st.integers(1, 6).flatmap(
        lambda L: st.tuples(st.lists(st.integers(0, 5), min_size=1, max_size=L), st.just(L))
    ),
    st.sampled_from(["mean", "sum", "max", "min"]),
    st.integers(0, 99),
)
def test_the_intent_equals_the_obvious_loop(window_and_length, aggregation, seed):
    items, L = window_and_length
    model = network(L, 6, aggregation, seed=seed)
    window = [-1] * (L - len(items)) + items
    intent = model.intent(torch.tensor([window]))[0]
    torch.testing.assert_close(intent, naive_intent(model, window), rtol=1e-10, atol=1e-12)
    if aggregation in ("mean", "sum"):
        shares = model.shares(torch.tensor([window]))[0]
        total = 1.0 if aggregation == "mean" else len(items)
        assert shares.sum().item() == pytest.approx(total)
        assert (shares >= 0).all()
        rows = model.item_short[torch.tensor(window).clamp(min=0)]
        torch.testing.assert_close(shares @ rows, intent, rtol=1e-10, atol=1e-12)
    else:
        with pytest.raises(ConfigError, match="no share"):
            model.shares(torch.tensor([window]))


def test_padding_is_masked_everywhere():
    # The slots differ, so the time signal does; without it padding must change nothing at all.
    short, long = network(L=2), network(L=5)
    for model in (short, long):
        model.project = lambda rows, model=model: (torch.relu(rows @ model.projection),) * 2
    tight = short.intent(torch.tensor([[1, 3]]))
    padded = long.intent(torch.tensor([[-1, -1, -1, 1, 3]]))
    torch.testing.assert_close(tight, padded, rtol=0, atol=0)


def test_the_value_is_the_bare_embedding():
    model = network(L=4)
    windows = torch.tensor([[0, 1, 2, 3]])
    rows = model.item_short[windows[0]]
    torch.testing.assert_close(
        model.intent(windows)[0], (model.attention(windows)[0] @ rows).mean(dim=0)
    )


def test_order_matters_only_through_the_time_signal():
    model = network(L=4)
    forward, backward = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[3, 2, 1, 0]])
    assert not torch.allclose(model.intent(forward), model.intent(backward))
    model.project = lambda rows: (torch.relu(rows @ model.projection),) * 2
    torch.testing.assert_close(model.intent(forward), model.intent(backward))


def test_a_dtype_asked_for_is_the_one_computed_in():
    config = paper_model(embedding_dim=4, window_length=3)
    model = AttRecNetwork(config, 1, 4).requires_grad_(False)
    window = torch.tensor([[0, 1, 2]])
    assert model.intent(window, dtype=torch.float64).dtype == torch.float64
    assert model.shares(window, dtype=torch.float64).dtype == torch.float64
    assert model.attention(window).dtype == torch.float32


def test_shares_of_padding_are_zero():
    weights = attention_weights(*(torch.ones(1, 3, 2),) * 2, torch.tensor([[False, True, True]]))
    assert intent_shares(weights, torch.tensor([[False, True, True]]), "mean").tolist() == [
        [0.0, 0.5, 0.5]
    ]
