"""What every index promises: one suite for all of them, beside brute force in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attrec.data.ragged import Ragged
from attrec.errors import RequestError
from attrec.retrieval import approximate
from attrec.retrieval.approximate import FaissFlat, FaissHNSW, FaissIVF
from attrec.retrieval.index import ExactIndex
from attrec.retrieval.segments import SegmentedIndex


def every_list(keys):
    return FaissIVF(keys, lists=min(4, max(1, len(keys))), probes=4)


def wide_graph(keys):
    return FaissHNSW(keys, neighbours=16, construction=100, ef=200)


def in_segments(base):
    def make(keys):
        half = len(keys) // 2
        index = SegmentedIndex(base(keys[:half]))
        assert index.add(keys[half : half + 1]).tolist() == list(range(half, len(keys)))[:1]
        assert index.add(keys[half + 1 :]).tolist() == list(range(half + 1, len(keys)))
        return index

    return make


EXACT = {
    "exact": ExactIndex,
    "faiss flat": FaissFlat,
    "faiss ivf, all probes": every_list,
    "segments over exact": in_segments(ExactIndex),
    "segments over flat": in_segments(FaissFlat),
}
ALL = {**EXACT, "faiss hnsw": wide_graph, "segments over hnsw": in_segments(wide_graph)}
exact_ones = pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
all_ones = pytest.mark.parametrize("make", ALL.values(), ids=ALL)


@pytest.fixture(autouse=True, params=[0, 4096], ids=["filters inside", "few are searched exactly"])
def filters(request, monkeypatch):
    """Small catalogues go the way of large ones, too."""
    monkeypatch.setattr(approximate, "_FEW_ITEMS", request.param)
    monkeypatch.setattr(approximate, "_SMALL_SHARE", 0.0)


def naive(keys, queries, k, exclude=None, allow=None, deny=()):
    """Sort all items by distance, then by index."""
    indices = np.full((len(queries), k), -1)
    distances = np.full((len(queries), k), np.inf)
    keys = keys.double().numpy()
    for row, query in enumerate(queries.numpy()):
        hidden = set(deny) | set(() if exclude is None else exclude[row].tolist())
        left = set(range(len(keys)) if allow is None else allow) - hidden
        ranked = sorted((float(((query - keys[i]) ** 2).sum()), int(i)) for i in left)
        for place, (distance, item) in enumerate(ranked[:k]):
            indices[row, place], distances[row, place] = item, distance
    return indices, distances


def grid(n, d, seed):
    """Whole numbers: distances are exact in float32, and many are equal."""
    random = np.random.default_rng(seed)
    keys = torch.from_numpy(random.integers(-2, 3, (n, d))).float()
    return keys, torch.from_numpy(random.integers(-2, 3, (4, d))).double()


def spread(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(n, d, generator=generator)
    return keys, torch.randn(4, d, generator=generator, dtype=torch.float64)


def limits_of(n, seed, which):
    random = np.random.default_rng(seed)
    exclude = [random.integers(0, n, 5).tolist(), [], list(range(n)), [0, 0, n - 1]]
    every = {
        "exclude": Ragged.from_lists(exclude),
        "allow": random.integers(0, n, max(1, n // 2)),
        "deny": random.integers(0, n, 3),
    }
    return {name: every[name] for name in which}


WHICH = st.sets(st.sampled_from(["exclude", "allow", "deny"]))


@exact_ones
@settings(max_examples=40)
@given(n=st.integers(1, 60), d=st.integers(1, 5), k=st.integers(1, 70), seed=st.integers(0, 999),
       which=WHICH)  # fmt: skip
def test_exact_ones_equal_brute_force_to_the_last_tie(make, n, d, k, seed, which):
    keys, queries = grid(n, d, seed)
    limits = limits_of(n, seed, which)
    found = make(keys).search(queries, k, **limits)
    indices, distances = naive(keys, queries, k, **limits)
    assert found.indices.tolist() == indices.tolist()
    assert found.distances.tolist() == distances.tolist()


@all_ones
@settings(max_examples=30)
@given(n=st.integers(1, 80), k=st.integers(1, 30), seed=st.integers(0, 999), which=WHICH)
def test_whatever_is_found_is_allowed_in_order_and_complete(make, n, k, seed, which):
    keys, queries = spread(n, 6, seed)
    limits = limits_of(n, seed, which)
    found = make(keys).search(queries, k, **limits)
    indices, distances = naive(keys, queries, k, **limits)
    everything, _ = naive(keys, queries, n, **limits)
    assert found.indices.dtype == np.int64
    assert found.distances.dtype == np.float64
    assert found.indices.shape == found.distances.shape == (4, k)
    assert ((found.indices >= 0) == (indices >= 0)).all()
    assert (np.isinf(found.distances) == (found.indices < 0)).all()
    for row in range(4):
        real = found.indices[row][found.indices[row] >= 0]
        assert len(set(real.tolist())) == len(real)
        assert set(real.tolist()) <= set(everything[row].tolist())
        exact = ((queries[row].numpy() - keys[real].double().numpy()) ** 2).sum(axis=1)
        np.testing.assert_allclose(found.distances[row][: len(real)], exact, rtol=1e-13)
        assert (np.diff(found.distances[row][: len(real)]) >= 0).all()
    assert (found.distances * (1 + 1e-12) >= distances).all()


@all_ones
@pytest.mark.parametrize("limited", [False, True])
def test_a_query_finds_the_same_alone_and_in_a_batch(make, limited):
    keys, _ = spread(700, 8, 1)
    queries = torch.randn(60, 8, generator=torch.Generator().manual_seed(2)).double()
    index, limits = make(keys), {}
    if limited:
        random = np.random.default_rng(3)
        sizes = random.integers(0, 90, 60)
        limits = {
            "exclude": Ragged.from_lists([random.integers(0, 700, n).tolist() for n in sizes]),
            "deny": np.arange(0, 700, 7),
        }
    together = index.search(queries, 12, **limits)
    for row in range(60):
        own = {
            name: value.take(np.array([row])) if name == "exclude" else value
            for name, value in limits.items()
        }
        alone = index.search(queries[row : row + 1], 12, **own)
        assert alone.indices[0].tolist() == together.indices[row].tolist()
        assert alone.distances[0].tolist() == together.distances[row].tolist()


@all_ones
def test_a_graph_misses_little(make):
    keys, _ = spread(3000, 12, 4)
    queries = torch.randn(50, 12, generator=torch.Generator().manual_seed(5)).double()
    limits = {"deny": np.arange(0, 3000, 3), "exclude": Ragged.from_lists([range(100)] * 50)}
    for limit in ({}, limits):
        found = make(keys).search(queries, 20, **limit)
        expected = ExactIndex(keys).search(queries, 20, **limit)
        hits = found.distances <= expected.distances[:, -1:]
        assert hits.mean() == (1.0 if make in EXACT.values() else pytest.approx(1.0, abs=0.02))


@all_ones
def test_an_empty_catalogue_an_empty_scope_and_no_queries(make):
    queries = torch.zeros(2, 3, dtype=torch.float64)
    empty = make(torch.zeros(0, 3))
    assert len(empty) == 0
    assert empty.search(queries, 2).indices.tolist() == [[-1, -1]] * 2
    index = make(torch.ones(9, 3))
    assert len(index) == 9
    for nothing in ({"allow": []}, {"allow": [4], "deny": [4]}, {"deny": range(9)},
                    {"exclude": Ragged.from_lists([range(9)] * 2)}):  # fmt: skip
        found = index.search(queries, 2, **nothing)
        assert found.indices.tolist() == [[-1, -1]] * 2
        assert np.isinf(found.distances).all()
    assert index.search(queries[:0], 2).indices.shape == (0, 2)
    assert index.search(queries, 20).indices.tolist() == [[*range(9), *[-1] * 11]] * 2


@exact_ones
def test_equal_keys_stand_in_item_order(make):
    found = make(torch.ones(300, 4)).search(torch.zeros(1, 4, dtype=torch.float64), 40, deny=[1])
    assert found.indices[0].tolist() == [0, *range(2, 41)]


@exact_ones
@pytest.mark.parametrize("kind", ["huge norms", "minute norms", "far away", "tiny differences"])
def test_keys_that_float32_hardly_tells_apart(make, kind):
    keys, queries = spread(400, 5, 6)
    if kind == "huge norms":
        keys = keys * 10.0 ** torch.arange(400)[:, None].remainder(15).float()
    keys = {
        "minute norms": keys * 1e-25, "far away": keys + 1000.0, "tiny differences":
        keys[:1] + 1e-7 * keys, "huge norms": keys,
    }[kind]  # fmt: skip
    queries[0] = keys[0].double() * (1 + 1e-9)
    queries[1] *= keys.abs().max().double()
    found, expected = make(keys).search(queries, 9), ExactIndex(keys).search(queries, 9)
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.distances.tolist() == expected.distances.tolist()


@all_ones
def test_what_cannot_be_answered_is_refused(make):
    index = make(torch.ones(4, 2))
    with pytest.raises(RequestError, match="at least 1"):
        index.search(torch.ones(1, 2, dtype=torch.float64), 0)
    with pytest.raises(RequestError, match="query vector is not finite"):
        index.search(torch.full((1, 2), torch.nan, dtype=torch.float64), 1)
    with pytest.raises(RequestError, match="diverged"):
        make(torch.full((3, 2), torch.inf))
