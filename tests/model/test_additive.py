"""The additive network against its equations, written as loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attrec.config import ModelConfig
from attrec.model.additive import AdditiveNetwork

N = 11


def network(blocks=2, heads=2, dropout=0.0, seed=0, tied=True):
    config = ModelConfig(
        architecture="additive", embedding_dim=6, window_length=8, heads=heads, blocks=blocks,
        dropout=dropout, tied_embeddings=tied,
    )  # fmt: skip
    model = AdditiveNetwork(config, 0, N, seed=seed, dtype=torch.float64).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(3)) * 0.3)
    return model


def packed(histories):
    lengths = torch.tensor([len(history) for history in histories])
    return torch.tensor([item for history in histories for item in history]), lengths


def softmax(values):
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


def norm(row, layer):
    centred = row - row.mean()
    return centred / (centred.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias


def by_loops(model, history):
    """Compute m at every position of one history, one number at a time where it matters."""
    H, d = model.config.heads, model.config.embedding_dim
    c = d // H
    table = model.item_key if model.config.tied_embeddings else model.item_context
    x = [table[item] for item in history]
    states = list(x)
    for block in model.blocks:
        rows = [norm(state, block.first) @ block.inputs for state in states]
        after = []
        for t in range(len(rows)):
            heads = []
            for h in range(H):
                q = rows[t][h * c : (h + 1) * c]
                keys = [rows[j][d + h * c : d + (h + 1) * c] for j in range(t + 1)]
                values = [rows[j][2 * d + h * c : 2 * d + (h + 1) * c] for j in range(t + 1)]
                weights = softmax(
                    [
                        float(q @ keys[j]) / math.sqrt(c) + float(block.recency[h, t - j])
                        for j in range(t + 1)
                    ]
                )
                heads.append(sum(w * v for w, v in zip(weights, values, strict=True)))
            state = states[t] + torch.cat(heads) @ block.output
            wide = torch.nn.functional.gelu(norm(state, block.second) @ block.inner)
            after.append(state + wide @ block.outer)
        states = after
    looked = [norm(state, model.norm) @ model.look for state in states]
    intents, parts = [], None
    for t in range(len(history)):
        m, parts = torch.zeros(d, dtype=torch.float64), [0.0] * (t + 1)
        for h in range(H):
            q = looked[t][h * c : (h + 1) * c]
            keys = [looked[j][d + h * c : d + (h + 1) * c] for j in range(t + 1)]
            weights = softmax(
                [
                    float(q @ keys[j]) / math.sqrt(c) + float(model.recency[h, t - j])
                    for j in range(t + 1)
                ]
            )
            for j in range(t + 1):
                part = weights[j] * (x[j] @ model.maps[h * d : (h + 1) * d])
                m, parts[j] = m + part, parts[j] + part
        length = math.sqrt(sum(float(entry) ** 2 for entry in m))
        intents.append(m / length)
        parts = [part / length for part in parts]
    return torch.stack(intents), torch.stack(parts)


histories = st.lists(
    st.lists(st.integers(0, N - 1), min_size=1, max_size=8), min_size=1, max_size=4
)


@torch.no_grad()
@settings(max_examples=25)
@given(histories, st.integers(0, 2), st.sampled_from([1, 2, 3]), st.booleans())
def test_it_computes_its_equations(lists, blocks, heads, tied):
    model = network(blocks, heads, tied=tied)
    found = model.intents(*packed(lists))
    expected = [by_loops(model, history) for history in lists]
    torch.testing.assert_close(found, torch.cat([m for m, _ in expected]), rtol=1e-9, atol=1e-11)
    last = model.last_intents(*packed(lists))
    newest = torch.stack([m[-1] for m, _ in expected])
    torch.testing.assert_close(last, newest, rtol=1e-9, atol=1e-11)


@torch.no_grad()
@settings(max_examples=25)
@given(st.lists(st.integers(0, N - 1), min_size=1, max_size=8))
def test_an_intent_is_the_sum_of_its_events(history):
    model = network()
    weights, parts = model.contributions(torch.tensor(history))
    _, expected = by_loops(model, history)
    torch.testing.assert_close(parts, expected, rtol=1e-9, atol=1e-11)
    last = model.last_intents(*packed([history]))[0]
    torch.testing.assert_close(parts.sum(dim=0), last, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(weights.sum(dim=1), 1.0, rtol=1e-12)


@torch.no_grad()
def test_no_position_sees_what_comes_later_or_what_others_took():
    model = network()
    first = model.intents(*packed([[1, 2, 3, 4], [5, 6]]))
    other = model.intents(*packed([[1, 2, 9, 9], [7, 7]]))
    assert torch.equal(first[:2], other[:2])
    assert not torch.allclose(first[2], other[2])


@torch.no_grad()
def test_intents_and_keys_have_length_one():
    model = network()
    assert model.intents(*packed([[1, 2, 3], [4]])).norm(dim=1).tolist() == pytest.approx([1.0] * 4)
    keys = model.keys()
    assert keys.norm(dim=1).tolist() == pytest.approx([1.0] * N)
    cosines = (keys * model.item_key).sum(dim=1) / model.item_key.norm(dim=1)
    assert cosines.tolist() == pytest.approx([1.0] * N)
    chosen = torch.tensor([7, 2, 7])
    assert torch.equal(model.keys(chosen), keys[chosen])


@torch.no_grad()
def test_an_empty_history_gets_the_intent_nearest_to_all_events():
    model = network()
    counts = torch.arange(N)
    model.settle(counts)
    assert float(model.start.norm()) == pytest.approx(1.0)

    def summed(intent):
        return float((counts * (intent - model.keys()).square().sum(dim=1)).sum())

    generator = torch.Generator().manual_seed(2)
    for _ in range(50):
        other = model.start + 0.3 * torch.randn(6, dtype=torch.float64, generator=generator)
        assert summed(other / other.norm()) > summed(model.start)


def test_dropout_only_in_training():
    model = network(dropout=0.5)
    lists = packed([[1, 2, 3], [4, 5]])
    assert torch.equal(model.intents(*lists), model.intents(*lists))
    model.train()
    assert not torch.equal(model.intents(*lists), model.intents(*lists))


def test_dropout_is_of_the_embeddings_alone(monkeypatch):
    model = network(dropout=0.5)
    items, lengths = packed([[1, 2, 3], [4, 5]])
    model.train()
    torch.manual_seed(7)
    found = model.intents(items, lengths)
    torch.manual_seed(7)
    left = model._drop(model.contexts(items))
    assert (left == 0).any()
    model.eval()
    monkeypatch.setattr(model, "contexts", lambda items: left)
    assert torch.equal(model.intents(items, lengths), found)


def test_an_item_has_one_row_unless_two_are_asked_for():
    tied, apart = network(), network(tied=False)
    names = {name for name, _ in apart.named_parameters()}
    assert names - {name for name, _ in tied.named_parameters()} == {"item_context"}
    chosen = torch.tensor([3, 0])
    rows = tied.contexts(chosen)
    torch.testing.assert_close(tied.keys(chosen), rows / rows.norm(dim=1, keepdim=True))
    assert torch.equal(tied.contexts(), tied.item_key)
    assert torch.equal(apart.contexts(), apart.item_context)
    for model in (tied, apart):
        fewer = model.keeping(torch.arange(0), chosen.sort().values)
        assert torch.equal(fewer.contexts(), model.contexts()[[0, 3]])
        assert torch.equal(fewer.keys(), model.keys()[[0, 3]])


@torch.no_grad()
def test_before_training_an_event_adds_its_item_itself():
    def untrained(**options):
        config = ModelConfig(embedding_dim=6, window_length=8, heads=2, **options)
        return AdditiveNetwork(config, 0, N, dtype=torch.float64)

    model = untrained()
    alone = model.intents(torch.arange(N), torch.ones(N, dtype=torch.int64))
    torch.testing.assert_close(alone, model.keys())
    weights, parts = model.contributions(torch.tensor([3, 7]))
    rows = weights.sum(dim=0)[:, None] * model.contexts(torch.tensor([3, 7]))
    torch.testing.assert_close(parts, rows / rows.sum(dim=0).norm())
    as_before = untrained(identity_maps=False)
    assert torch.equal(as_before.item_key, model.item_key)
    before = as_before.intents(torch.arange(N), torch.ones(N, dtype=torch.int64))
    assert float((before * as_before.keys()).sum(dim=1).abs().mean()) < 0.8


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lists", [[[1, 2, 3], [4, 5, 6]], [[1, 2, 3, 7], [4]]])
def test_gradients_reach_every_parameter(lists, tied):
    model = network(tied=tied)
    towards = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (model.intents(*packed(lists)) @ towards).sum().backward()
    without = {name for name, value in model.named_parameters() if value.grad is None}
    assert without == (set() if tied else {"item_key"})
    assert all(
        bool(value.grad.abs().sum() > 0)
        for name, value in model.named_parameters()
        if name not in without
    )


def test_dropout_keeps_the_mean_and_drops_the_share():
    model = network(blocks=0, dropout=0.3)
    model.train()
    rows = torch.ones(1000, 1000, dtype=torch.float64)
    torch.manual_seed(5)
    left = model._drop(rows)
    assert left.unique().tolist() == [0.0, pytest.approx(1 / 0.7, rel=1e-4)]
    assert float((left == 0).double().mean()) == pytest.approx(0.3, abs=0.002)
    assert float(left.mean()) == pytest.approx(1.0, abs=0.003)
    together = float((left[:, :-1] * left[:, 1:]).mean())  # neighbours are drawn independently
    assert together == pytest.approx(1.0, abs=0.005)
    torch.manual_seed(5)
    assert torch.equal(model._drop(rows), left)
    model.eval()
    assert torch.equal(model._drop(rows), rows)
