import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attrec import explain
from attrec.explain import (
    CatalogueMeans,
    attention_profile,
    compare,
    read_intent,
    split_distances,
)
from attrec.model.network import AttRecNetwork
from tests.paper import paper_model

AGGREGATIONS = ["mean", "sum", "max", "min"]
NUM_ITEMS = 11


def network(aggregation="mean", *, length=5, dtype=torch.float64, **options):
    config = paper_model(
        embedding_dim=6, window_length=length, init_std=0.6, aggregation=aggregation, **options
    )
    return AttRecNetwork(config, 3, NUM_ITEMS, seed=7, dtype=dtype)


def padded(items, length=5):
    return np.array([-1] * (length - len(items)) + list(items))


def split(net, items, candidates, user=1):
    intent = read_intent(net, padded(items, net.config.window_length))
    means = CatalogueMeans.of(net)
    return intent, split_distances(net, net.user_long[user], intent, candidates, means)


def weighted(net, items, user=1):
    """Long- and short-term distance of every item, weighted, from the model's own equations."""
    window = torch.as_tensor(padded(items, net.config.window_length))[None]
    weight = net.config.long_term_weight
    long_term = net.compare(net.user_long[user], net.item_long)
    short_term = net.compare(net.intent(window), net.item_short)
    parts = (weight * long_term, (1 - weight) * short_term)
    return [part.detach().numpy() for part in parts]


requests = {
    "aggregation": st.sampled_from(AGGREGATIONS),
    "items": st.lists(st.integers(0, NUM_ITEMS - 1), max_size=5),
    "weight": st.sampled_from([0.0, 0.3, 1.0]),
}


@settings(max_examples=120, deadline=None)
@given(**requests)
def test_parts_and_constant_sum_to_the_distance_of_every_item(aggregation, items, weight):
    net = network(aggregation, long_term_weight=weight)
    long_term, short_term = weighted(net, items)
    intent, splits = split(net, items, np.arange(NUM_ITEMS))
    assert intent.items.tolist() == items
    for item, found in enumerate(splits):
        assert found.item == item
        assert found.long_term == pytest.approx(long_term[item], abs=1e-9)
        assert found.short_term == pytest.approx(short_term[item], abs=1e-9)
        assert found.distance == pytest.approx(long_term[item] + short_term[item], abs=1e-9)
        total = found.parts.sum() + found.excess + found.constant
        assert total == pytest.approx(short_term[item], abs=1e-9)
        assert found.dimensions.sum() == pytest.approx(short_term[item], abs=1e-9)
        assert (found.parts >= 0).all()
        assert found.constant == splits[0].constant


@settings(max_examples=120, deadline=None)
@given(**requests)
def test_pulls_sum_to_the_advantage_over_the_average_item(aggregation, items, weight):
    net = network(aggregation, long_term_weight=weight)
    long_term, short_term = weighted(net, items)
    _, splits = split(net, items, np.arange(NUM_ITEMS))
    for item, found in enumerate(splits):
        advantage = short_term.mean() - short_term[item]
        assert found.pulls.sum() + found.excess_pull == pytest.approx(advantage, abs=1e-9)
        assert found.short_term_advantage == pytest.approx(advantage, abs=1e-9)
        longer = long_term.mean() - long_term[item]
        assert found.long_term_pull == pytest.approx(longer, abs=1e-9)
        assert found.advantage == pytest.approx(advantage + longer, abs=1e-9)
    assert sum(found.pulls for found in splits) == pytest.approx(np.zeros(len(items)), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(**requests, pair=st.tuples(st.integers(0, 10), st.integers(0, 10)))
def test_why_one_stands_above_another_is_an_exact_sum(aggregation, items, weight, pair):
    net = network(aggregation, long_term_weight=weight)
    long_term, short_term = weighted(net, items)
    _, (first, second) = split(net, items, np.array(pair))
    found = compare(first, second)
    total = found.events.sum() + found.excess + found.long_term
    a, b = pair
    expected = long_term[b] + short_term[b] - long_term[a] - short_term[a]
    assert total == pytest.approx(found.difference, abs=1e-9)
    assert found.difference == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_shares_mix_the_window_to_the_intent(aggregation):
    net = network(aggregation)
    items = [3, 8, 3, 1]
    window = torch.as_tensor(padded(items))[None]
    intent, _ = split(net, items, np.array([0]))
    rows = net.item_short[items].detach().numpy()
    np.testing.assert_allclose((intent.shares * rows).sum(axis=0), intent.vector, atol=1e-12)
    np.testing.assert_allclose(intent.vector, net.intent(window)[0].detach().numpy(), atol=1e-12)
    total = 4.0 if aggregation == "sum" else 1.0
    np.testing.assert_allclose(intent.shares.sum(axis=0), total, atol=1e-12)
    assert intent.event_shares.sum() == pytest.approx(total)
    if aggregation in ("mean", "sum"):
        shares = net.shares(window)[0][1:].detach().numpy()
        np.testing.assert_allclose(intent.event_shares, shares, atol=1e-12)
        assert intent.suppliers is None
        return
    attended = net.attend(net.attention(window), net.item_short[window.clamp(min=0)])[0][1:]
    choose = attended.argmax if aggregation == "max" else attended.argmin
    assert intent.suppliers.tolist() == choose(dim=0).tolist()
    supplied = intent.shares[intent.suppliers, np.arange(6)]
    assert supplied.tolist() == [0.0] * 6  # a row never looks at its own event


def test_two_events_share_by_halves_and_one_event_is_the_intent():
    net = network()
    two, _ = split(net, [4, 9], np.array([0]))
    np.testing.assert_allclose(two.event_shares, [0.5, 0.5])
    one, (found,) = split(net, [4], np.array([4]))
    assert one.event_shares.tolist() == [1.0]
    assert one.constant == 0.0
    assert found.short_term == 0.0
    assert found.pulls[0] > 0


def test_a_network_in_float32_is_explained_in_float64():
    net = network(dtype=torch.float32)
    intent, (found,) = split(net, [1, 2, 3], np.array([5]))
    assert intent.vector.dtype == np.float64
    total = found.parts.sum() + found.excess + found.constant + found.long_term
    assert total == pytest.approx(found.distance, abs=1e-14)


def test_catalogue_means_do_not_depend_on_blocks(monkeypatch):
    net = network()
    whole = CatalogueMeans.of(net)
    monkeypatch.setattr(explain, "_ROWS_AT_ONCE", 4)
    blocks = CatalogueMeans.of(net)
    for name in ("short", "short_square", "long", "long_square"):
        np.testing.assert_allclose(getattr(blocks, name), getattr(whole, name), atol=1e-14)
    np.testing.assert_allclose(whole.short, net.item_short.detach().mean(dim=0), atol=1e-14)


# The attention profile


def windows_of_every_size(length=5, count=400):
    random = np.random.default_rng(2)
    sizes = random.integers(0, length + 1, count)
    return np.stack([padded(random.integers(0, NUM_ITEMS, n), length) for n in sizes])


class Uniform(AttRecNetwork):
    def weigh(self, queries, keys, mask):
        return super().weigh(torch.zeros_like(queries), keys, mask)


class Positional(AttRecNetwork):
    def project(self, rows):
        return super().project(torch.zeros_like(rows))


class ContentOnly(AttRecNetwork):
    def project(self, rows):
        projected = torch.relu(10 * rows @ self.projection)
        return projected, projected


def profile(kind, windows, **options):
    net = kind(network().config, 3, NUM_ITEMS, seed=7, dtype=torch.float64)
    return attention_profile(net, windows, **options)


def test_profile_equals_the_plain_loop_in_any_block():
    net, windows = network(), windows_of_every_size()
    found = attention_profile(net, windows, block=7)
    entropies, by_slot, affinities = [], [[] for _ in range(5)], {}
    for window in windows:
        n = int((window >= 0).sum())
        if n < 3:
            continue
        s = net.attention(torch.as_tensor(window)[None])[0].detach().numpy()
        rows = range(5 - n, 5)
        entropies.append(
            np.mean([-sum(p * np.log(p) for p in s[r] if p > 0) / np.log(n - 1) for r in rows])
        )
        for slot in rows:
            by_slot[slot].append(s[:, slot].sum() / n)
            others = [j for j in rows if j != slot]
            logs = np.log(s[slot, others])
            for j, value in zip(others, logs - logs.mean(), strict=True):
                affinities.setdefault((n, slot, j), []).append(value)
    within = sum(((np.array(v) - np.mean(v)) ** 2).sum() for v in affinities.values())
    total = sum((np.array(v) ** 2).sum() for v in affinities.values())
    assert found["windows"] == len(entropies)
    assert found["entropy"] == pytest.approx(np.mean(entropies), abs=1e-12)
    assert found["weight_by_slot"] == pytest.approx([np.mean(w) for w in by_slot], abs=1e-12)
    assert found["content_share"] == pytest.approx(within / total, abs=1e-9)


def test_profile_tells_content_from_position():
    windows = windows_of_every_size()
    uniform = profile(Uniform, windows)
    assert uniform["entropy"] == pytest.approx(1.0)
    assert uniform["content_share"] is None
    positional = profile(Positional, windows)
    assert positional["content_share"] == pytest.approx(0.0, abs=1e-12)
    assert positional["entropy"] < 1.0
    assert profile(ContentOnly, windows)["content_share"] > 0.9


def test_profile_of_windows_too_short_for_a_choice_is_empty():
    found = attention_profile(network(), np.stack([padded([1, 2]), padded([])]))
    assert found == {
        "windows": 0,
        "entropy": None,
        "weight_by_slot": None,
        "content_share": None,
    }


def test_a_slot_that_no_window_fills_has_no_weight():
    found = attention_profile(network(), padded([1, 2, 3])[None])
    assert found["weight_by_slot"][:2] == [None, None]
    assert sum(found["weight_by_slot"][2:]) == pytest.approx(1.0)
