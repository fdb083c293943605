import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attrec.data.ragged import Ragged
from attrec.errors import RequestError
from attrec.retrieval import index as index_module
from attrec.retrieval.index import ExactIndex, _Scope, block_distances


def naive(keys, queries, k, exclude=None, allow=None, deny=()):
    """The obvious loop in float64: sort all items by distance, then by index."""
    indices = np.full((len(queries), k), -1)
    distances = np.full((len(queries), k), np.inf)
    for row, query in enumerate(queries):
        ranked = []
        for item, key in enumerate(keys):
            seen = exclude is not None and item in exclude[row]
            if not (seen or item in deny or (allow is not None and item not in allow)):
                ranked.append((float(((query - key) ** 2).sum()), item))
        for place, (distance, item) in enumerate(sorted(ranked)[:k]):
            indices[row, place], distances[row, place] = item, distance
    return indices, distances


def check(found, keys, queries, **limits):
    """Same distances; same ids wherever float64 itself can tell two items apart."""
    keys, queries = keys.double().numpy(), queries.numpy()
    indices, distances = naive(keys, queries, found.indices.shape[1], **limits)
    scale = (np.abs(queries).max(initial=0) + np.abs(keys).max(initial=0)) ** 2 * keys.shape[1]
    np.testing.assert_allclose(found.distances, distances, rtol=0, atol=1e-14 * scale)
    for row, place in np.argwhere(found.indices != indices):
        pair = [found.indices[row, place], indices[row, place]]
        assert min(pair) >= 0
        first, second = ((queries[row] - keys[pair]) ** 2).sum(axis=1)
        assert first != second
        assert abs(first - second) <= 1e-14 * scale


def spread(generator, kind, n, d):
    keys = torch.randn(n, d, generator=generator)
    if kind == "clustered":
        keys = keys[torch.randint(min(n, 3), (n,), generator=generator)] + 1e-4 * keys
    elif kind == "duplicate":
        keys = keys[torch.randint(max(1, n // 4), (n,), generator=generator)]
    elif kind == "tiny differences":
        keys = keys[:1] + 1e-7 * keys
    elif kind == "huge norms":
        keys = keys * 10.0 ** torch.randint(-3, 13, (n, 1), generator=generator).float()
    elif kind == "minute norms":
        keys = keys * 1e-25
    elif kind == "far away":
        keys = keys + 1000.0
    return keys


KINDS = [
    "random",
    "clustered",
    "duplicate",
    "tiny differences",
    "huge norms",
    "minute norms",
    "far away",
]


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 60),
    st.integers(1, 9),
    st.integers(1, 7),
    st.integers(0, 2**16),
    st.booleans(),
)
def test_equals_the_naive_twin(kind, n, d, k, seed, limited):
    generator = torch.Generator().manual_seed(seed)
    keys = spread(generator, kind, n, d)
    queries = torch.cat(
        [torch.randn(2, d, generator=generator) * keys.abs().max(), keys[:1] * 0.999]
    ).double()
    limits = {}
    if limited:
        random = np.random.default_rng(seed)
        limits = {
            "exclude": Ragged.from_lists(
                [random.integers(0, n, 5).tolist(), [], list(range(n))][: len(queries)]
            ),
            "allow": random.integers(0, n, n) if seed % 2 else None,
            "deny": random.integers(0, n, 3),
        }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "_MARGIN", 2)
        patch.setattr(index_module, "_FEWEST_ITEMS_AT_ONCE", 8)
        patch.setattr(index_module, "_BUDGET", 64)
        patch.setattr(index_module, "_QUERIES_AT_ONCE", 2)
        found = ExactIndex(keys).search(queries, k, **limits)
    check(found, keys, queries, **limits)
    for row in range(len(queries)):
        alone = {
            name: value.take(np.array([row])) if name == "exclude" else value
            for name, value in limits.items()
        }
        single = ExactIndex(keys).search(queries[row : row + 1], k, **alone)
        assert single.indices[0].tolist() == found.indices[row].tolist()
        assert single.distances[0].tolist() == found.distances[row].tolist()


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 1e-40, 0.2, 1.0])), min_size=1,
             max_size=3),
    st.integers(1, 7),
    st.integers(0, 2**16),
)  # fmt: skip
def test_weighted_blocks_and_ranks_equal_the_naive_twin(kind, n, cut, k, seed):
    generator = torch.Generator().manual_seed(seed)
    blocks, weights = zip(*cut, strict=True)
    keys = spread(generator, kind, n, sum(blocks))
    largest = keys.abs().max() if keys.numel() else 1.0
    queries = torch.cat([torch.randn(2, sum(blocks), generator=generator) * largest, keys[:1]])
    queries = queries.double()
    random = np.random.default_rng(seed)
    exclude = Ragged.from_lists([random.integers(0, n, 5).tolist(), [], [0]])
    parts = np.zeros((3, n, len(blocks)))
    ends = np.cumsum(blocks)
    for (row, item), _ in np.ndenumerate(parts[:, :, 0]):
        gap = (queries[row] - keys[item].double()).square()
        for block, (end, weight) in enumerate(zip(ends, weights, strict=True)):
            parts[row, item, block] = weight * gap[end - blocks[block] : end].sum()
    y = parts.sum(axis=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "_MARGIN", 2)
        patch.setattr(index_module, "_FEWEST_ITEMS_AT_ONCE", 8)
        patch.setattr(index_module, "_BUDGET", 64)
        patch.setattr(index_module, "_QUERIES_AT_ONCE", 2)
        index = ExactIndex(keys, blocks)
        found = index.search(queries, k, weights=weights, exclude=exclude)
        asked = random.integers(0, n, 3)
        ranks = index.ranks(queries, asked, weights=weights, exclude=exclude)
    for row in range(3):
        left = [i for i in range(n) if i not in exclude[row]]
        reach = float(queries.abs().max() + keys.abs().max()) if keys.numel() else 0.0
        near = 1e-14 * max(weights) * reach**2 * sum(blocks)
        order = sorted(left, key=lambda i: (y[row, i], i))[:k]
        chosen = [i for i in found.indices[row].tolist() if i >= 0]
        assert len(chosen) == len(order)
        for one, other in zip(chosen, order, strict=True):
            assert one == other or abs(y[row, one] - y[row, other]) <= near
        real = found.indices[row] >= 0
        own = index.parts(queries[row : row + 1], torch.tensor([chosen]).long(), weights=weights)
        np.testing.assert_allclose(own[0], parts[row, chosen], rtol=1e-12, atol=near)
        np.testing.assert_allclose(found.distances[row, real], own[0].sum(dim=1), rtol=1e-15)
        item = asked[row]
        others = [i for i in left if i != item]
        # The twin sums in another order: what it cannot tell apart may stand on either side.
        surely = sum(y[row, i] < y[row, item] - near for i in others)
        perhaps = sum(y[row, i] <= y[row, item] + near for i in others)
        assert surely < ranks[row] <= perhaps + 1


def test_a_rank_is_the_place_in_the_whole_list():
    keys = torch.randn(3000, 12, generator=torch.Generator().manual_seed(1))
    keys[2000:] = keys[:1000]  # ties, which the index of the item decides
    queries = torch.randn(5, 12, generator=torch.Generator().manual_seed(2)).double()
    index = ExactIndex(keys, (5, 7))
    weights = (0.3, 0.7)
    exclude = Ragged.from_lists([[1, 2, 3]] * 5)
    whole = index.search(queries, 3000, weights=weights, exclude=exclude).indices
    for place in (0, 1, 17, 2996):
        ranks = index.ranks(queries, whole[:, place], weights=weights, exclude=exclude)
        assert ranks.tolist() == [place + 1] * 5


@pytest.mark.parametrize("weights", [(0.5,), (0.5, -0.1), (0.5, float("nan")), (2.0, 0.5)])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(RequestError, match="2 blocks of the index a weight from 0 to 1"):
        ExactIndex(torch.ones(3, 4), (1, 3)).search(torch.ones(1, 4), 1, weights=weights)


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_and_operators_find_the_same_bits(kind, monkeypatch):
    generator = torch.Generator().manual_seed(5)
    keys = spread(generator, kind, 3000, 12)
    queries = (torch.randn(30, 12, generator=generator) * keys.abs().max()).double()
    limits = {
        "exclude": Ragged.from_lists([torch.randint(3000, (9,)).tolist() for _ in range(30)]),
        "deny": [5, 2999],
    }
    monkeypatch.setattr(index_module, "_BUDGET", 1 << 15)
    found = []
    for readable in (index_module.readable, lambda tensor: False):
        monkeypatch.setattr(index_module, "readable", readable)
        found.append(ExactIndex(keys).search(queries, 40, **limits))
    assert np.array_equal(found[0].indices, found[1].indices)
    assert np.array_equal(found[0].distances, found[1].distances)


def test_the_margin_widens_where_float32_cannot_tell_the_items_apart():
    keys = torch.full((400, 3), 100.0)
    keys[:, 0] += torch.linspace(1e-3, 2e-3, 400)
    keys[250] = 100.0
    queries = torch.full((1, 3), 100.0, dtype=torch.float64)
    found = ExactIndex(keys).search(queries, 1)
    assert found.indices.tolist() == [[250]]
    assert found.distances.tolist() == [[0.0]]


def test_equal_keys_stand_in_item_order():
    keys = torch.ones(500, 4)
    found = ExactIndex(keys).search(torch.zeros(1, 4, dtype=torch.float64), 100)
    assert found.indices[0].tolist() == list(range(100))
    denied = ExactIndex(keys).search(torch.zeros(1, 4, dtype=torch.float64), 3, deny=[0, 2])
    assert denied.indices[0].tolist() == [1, 3, 4]


def test_fewer_items_than_k_are_padded():
    keys = torch.arange(3, dtype=torch.float32)[:, None]
    queries = torch.zeros(2, 1, dtype=torch.float64)
    found = ExactIndex(keys).search(queries, 5, exclude=Ragged.from_lists([[0], [0, 1, 2]]))
    assert found.indices.tolist() == [[1, 2, -1, -1, -1], [-1] * 5]
    assert found.distances.tolist() == [[1, 4, *[np.inf] * 3], [np.inf] * 5]
    nothing = ExactIndex(keys).search(queries, 2, allow=[1], deny=[1])
    assert nothing.indices.tolist() == [[-1, -1]] * 2


def test_no_queries_and_no_keys():
    index = ExactIndex(torch.zeros(0, 4))
    assert len(index) == 0
    assert index.search(torch.zeros(1, 4, dtype=torch.float64), 2).indices.tolist() == [[-1, -1]]
    some = ExactIndex(torch.zeros(3, 4))
    assert some.search(torch.zeros(0, 4, dtype=torch.float64), 2).indices.shape == (0, 2)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(0, 2**16),
    st.sampled_from([1e-3, 1.0, 1e4, 1e13]),
    st.sampled_from([0.0, 1e-60, 1e-38, 0.3, 1.0]),
)
def test_the_bound_never_exceeds_the_true_distance(d, seed, size, weight):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(50, d, generator=generator) * size
    queries = (keys[:5] + 1e-3 * size * torch.randn(5, d, generator=generator)).double()
    blocks = (d - d // 2, d // 2)
    index = ExactIndex(keys, blocks)
    scope = _Scope(index, (weight, 1.0 - weight), None, None)
    bounds, items = scope.nearest_bounds(queries, 50, None)
    apart = block_distances(queries, keys, items, blocks)
    assert (bounds <= weight * apart[:, :, 0] + (1.0 - weight) * apart[:, :, 1]).all()


def test_one_index_answers_each_weight_as_a_new_index_would():
    generator = torch.Generator().manual_seed(3)
    keys = torch.randn(400, 12, generator=generator)
    queries = torch.randn(7, 12, generator=generator).double()
    index = ExactIndex(keys, (5, 7))
    for weights in ((1.0, 1.0), (0.2, 0.8), (0.0, 1.0), (0.2, 0.8), (1.0, 1.0)):
        for deny in (None, [3, 5]):
            found = index.search(queries, 9, weights=weights, deny=deny)
            fresh = ExactIndex(keys, (5, 7)).search(queries, 9, weights=weights, deny=deny)
            assert np.array_equal(found.indices, fresh.indices)
            assert np.array_equal(found.distances, fresh.distances)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_reduced_matmul_precision_is_known_to_the_bound(precision):
    keys = torch.randn(300, 64, generator=torch.Generator().manual_seed(1))
    queries = keys[:3].double()
    expected = ExactIndex(keys).search(queries, 5)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        found = ExactIndex(keys).search(queries, 5)
    finally:
        torch.set_float32_matmul_precision(before)
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.distances.tolist() == expected.distances.tolist()


def test_the_number_of_threads_changes_no_bit():
    keys = torch.randn(3000, 40, generator=torch.Generator().manual_seed(2))
    queries = torch.randn(9, 40, generator=torch.Generator().manual_seed(3)).double()
    before = torch.get_num_threads()
    answers = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            answers.append(ExactIndex(keys).search(queries, 20))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(answers[0].indices, answers[1].indices)
    np.testing.assert_array_equal(answers[0].distances, answers[1].distances)


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(RequestError, match=r"keys of 1 items .* diverged"):
        ExactIndex(torch.tensor([[float("nan")], [1.0]]))
    index = ExactIndex(torch.ones(2, 1))
    with pytest.raises(RequestError, match="at least 1"):
        index.search(torch.ones(1, 1), 0)
    with pytest.raises(RequestError, match="query vector is not finite"):
        index.search(torch.tensor([[float("inf")]]), 1)
