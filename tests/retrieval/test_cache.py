"""Reuse is claimed only where a search finds the same: queries move to the bound and beyond it."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attrec.data.ragged import Ragged
from attrec.errors import RequestError
from attrec.retrieval.cache import CertifiedSearch
from attrec.retrieval.index import ExactIndex


def naive(keys, query, k, candidates):
    """The obvious loop in float64."""
    ranked = sorted((float(((query - keys[i]) ** 2).sum()), i) for i in candidates)[:k]
    ranked += [(np.inf, -1)] * (k - len(ranked))
    return [i for _, i in ranked], [y for y, _ in ranked]


def vector(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def line(*places):
    """Keys on a line: there every bound is reached."""
    return ExactIndex(torch.tensor(places, dtype=torch.float32)[:, None])


def make_keys(kind, n, d, generator):
    keys = torch.randn(n, d, generator=generator)
    if kind == "duplicates":
        keys = keys[torch.randint(max(1, n // 3), (n,), generator=generator)]
    elif kind == "grid":
        keys = keys.round()
    elif kind == "unit":
        keys = torch.nn.functional.normalize(keys, dim=1)
    elif kind == "near ties":
        keys = keys[:1] + 1e-6 * keys
    elif kind == "far away":
        keys = keys + 300.0
    elif kind == "huge and minute":
        keys = keys * 10.0 ** torch.randint(-20, 9, (n, 1), generator=generator).float()
    return keys


KINDS = ["random", "duplicates", "grid", "unit", "near ties", "far away", "huge and minute"]

steps = st.lists(
    st.tuples(
        st.sampled_from(["radius", "allowed"]),
        st.sampled_from([0.0, 0.3, 0.9, 1 - 1e-9, 1.0, 1 + 1e-9, 1.2, 1.9, 2.1, 5.0]),
        st.sampled_from(["over the edge", "to the far ones", "anywhere"]),
        st.sampled_from(["no", "no", "nearest", "last", "next", "some", "back"]),
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=200)
@given(
    st.sampled_from(KINDS),
    st.integers(2, 40),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 12),
    st.integers(0, 2**16),
    steps,
)
def test_whatever_moves_the_answer_is_that_of_a_search(kind, n, d, k, margin, seed, walk):
    generator = torch.Generator().manual_seed(seed)
    keys = make_keys(kind, n, d, generator)
    index = ExactIndex(keys)
    exact = keys.double().numpy()
    cache = CertifiedSearch(index, margin=margin)
    random = np.random.default_rng(seed)
    scale = float(keys.abs().max())
    query = torch.randn(d, generator=generator).double() * scale
    barred = set()
    for bound, share, direction, removal in [("radius", 0.0, "anywhere", "no"), *walk]:
        before = cache.search("u", query, k, exclude=sorted(barred))
        listed = before.indices[before.indices >= 0]
        ranked = naive(exact, query.numpy(), n, set(range(n)) - barred)[0]
        ranked = [item for item in ranked if item >= 0]
        beyond = ranked[len(listed) :]
        if removal == "back":
            barred = set(list(barred)[1:])
        elif removal == "some":
            barred |= set(random.integers(0, n, 3).tolist())
        elif removal != "no" and ranked:
            place = {"nearest": 0, "last": len(listed) - 1, "next": len(listed)}[removal]
            barred |= set(ranked[place : place + 1])
        way = torch.as_tensor(random.standard_normal(d))
        if direction != "anywhere" and len(listed) and beyond:
            far = beyond[0] if direction == "over the edge" else beyond[-1]
            way = torch.as_tensor(exact[far] - exact[listed[-1]]) + 1e-30 * way
        length = getattr(before.certificate, bound)
        if length is None or not np.isfinite(length):
            length = scale
        query = query + way / way.norm().clamp(min=1e-300) * (share * length)

        found = cache.search("u", query, k, exclude=sorted(barred))
        expected = index.search(query[None], k, exclude=Ragged.from_lists([sorted(barred)]))
        assert found.indices.tolist() == expected.indices[0].tolist()
        assert found.distances.tolist() == expected.distances[0].tolist()
        size = (np.abs(exact).max() + float(query.abs().max())) ** 2 * d
        distances = naive(exact, query.numpy(), k, set(range(n)) - barred)[1]
        np.testing.assert_allclose(found.distances, distances, rtol=1e-9, atol=1e-14 * size)
        certificate = found.certificate
        if certificate.moved is not None:
            proved = certificate.moved < certificate.allowed or certificate.moved == 0.0
            assert certificate.reused <= proved
            assert certificate.reused >= (certificate.moved < certificate.allowed)
        else:
            assert not certificate.reused


@settings(max_examples=200)
@given(
    st.sampled_from(KINDS),
    st.integers(2, 40),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(0, 2**16),
    st.sampled_from([0.5, 0.999999, 1 - 1e-12]),
    st.booleans(),
)
def test_within_the_radius_the_set_stays(kind, n, d, k, margin, seed, share, moved_before):
    generator = torch.Generator().manual_seed(seed)
    keys = make_keys(kind, n, d, generator)
    index = ExactIndex(keys)
    cache = CertifiedSearch(index, margin=margin)
    query = (torch.randn(d, generator=generator) * keys.abs().max()).double()
    found = cache.search("u", query, k)
    if moved_before and np.isfinite(found.certificate.radius):
        query = query + found.certificate.radius / 2 / np.sqrt(d)
        found = cache.search("u", query, k)
    if not np.isfinite(found.certificate.radius):
        assert k >= n
        return
    allowed = share * found.certificate.radius
    order = index.search(query[None], n).indices[0]
    inside, outside = order[:k], order[k:]
    ways = torch.cat([(keys[o] - keys[i])[None] for o in outside[:3] for i in inside]).double()
    ways = torch.cat([ways, torch.randn(3, d, generator=generator).double()])
    for way in ways[ways.norm(dim=1) > 0]:
        there = query + way / way.norm() * allowed
        assert set(index.search(there[None], k).indices[0]) == set(inside)


def test_half_the_gap_by_hand():
    # The nearest key is 0.9 away, the next 1.1: when q has moved by 0.1 they are equally near.
    index = line(1.0, -1.0)
    cache = CertifiedSearch(index, margin=1)
    found = cache.search("u", vector(0.1), 1)
    assert found.certificate.radius == pytest.approx(0.1, abs=1e-8)
    assert found.certificate.radius < 0.1
    assert cache.search("u", vector(0.1 - 0.0999), 1).indices.tolist() == [0]
    assert cache.search("u", vector(0.1 - 0.1001), 1).indices.tolist() == [1]


def test_the_certificate_by_hand():
    cache = CertifiedSearch(line(0.0, 1.0, 3.0, 10.0, 20.0), margin=2)
    first = cache.search("u", vector(0.25), 1)
    assert first.certificate.reused is False
    assert first.certificate.moved is None
    assert first.certificate.radius == pytest.approx(0.25)  # (0.75 - 0.25) / 2
    again = cache.search("u", vector(0.75), 1)
    # What is not kept was 2.75 away or more (the third is kept); the nearest is now 0.25 away.
    assert again.indices.tolist() == [1]
    assert again.distances.tolist() == [0.0625]
    assert again.certificate.reused is True
    assert again.certificate.moved == 0.5
    assert again.certificate.allowed == pytest.approx(2.5)
    far = cache.search("u", vector(9.0), 1)
    assert far.certificate.reused is False
    assert far.certificate.moved == 8.75
    assert far.indices.tolist() == [3]


def test_long_distances_are_bounded_by_the_longest_key():
    # Far from all keys: (a) allows half of 1.0, (b) twice that and more.
    keys = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    index = ExactIndex(keys)
    query = vector(100.0, 0.5)
    found = CertifiedSearch(index, margin=1).search("u", query, 1)
    assert found.certificate.radius == pytest.approx(0.5, rel=1e-6)
    roots = (query - keys.double()).norm(dim=1)
    assert float(roots[1] - roots[0]) / 2 < 0.006


@settings(max_examples=60)
@given(st.integers(3, 40), st.integers(1, 5), st.integers(1, 10), st.integers(0, 2**16))
def test_a_coordinate_that_never_moves_costs_nothing(n, k, margin, seed):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
    keys = torch.cat([keys, 3 * torch.rand(n, 1, generator=generator)], dim=1)
    index = ExactIndex(keys)
    cache = CertifiedSearch(index, margin=margin, moving=3)
    query = torch.cat([torch.randn(3, generator=generator), torch.zeros(1)]).double()
    anywhere = CertifiedSearch(index, margin=margin).search("u", query, k).certificate.radius
    assert cache.search("u", query, k).certificate.radius >= anywhere
    for _ in range(6):
        found = cache.search("u", query, k)
        expected = index.search(query[None], k)
        assert found.indices.tolist() == expected.indices[0].tolist()
        assert found.distances.tolist() == expected.distances[0].tolist()
        inside = set(found.indices.tolist())
        for item in set(range(n)) - inside:
            way = (keys[item] - keys[found.indices[-1]]).double()
            way[3] = 0.0
            there = query + way / way.norm() * min(100.0, found.certificate.radius) * (1 - 1e-9)
            assert set(index.search(there[None], k).indices[0].tolist()) == inside
        query[:3] += 0.1 * torch.randn(3, generator=generator).double()
    query[3] = 1e-3
    assert cache.search("u", query, k).certificate.moved is None
    assert cache.search("u", query, k).certificate.reused


@settings(max_examples=100)
@given(
    st.integers(3, 40), st.integers(1, 4), st.integers(1, 8), st.integers(0, 2**16),
    st.lists(st.sampled_from([0.0, 1e-9, 0.2, 0.5, 1.0]), min_size=4, max_size=4),
)  # fmt: skip
def test_with_weights_of_the_blocks(n, k, margin, seed, weights):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(n, 5, generator=generator)
    index = ExactIndex(keys, blocks=(2, 3))
    cache = CertifiedSearch(index, margin=margin)
    query = torch.randn(5, generator=generator).double()
    for step, weight in enumerate(np.repeat(weights, 2).tolist()):
        given = None if weight == 0.5 else (weight, 1 - weight)
        found = cache.search("u", query, k, weights=given)
        expected = index.search(query[None], k, weights=given)
        assert found.indices.tolist() == expected.indices[0].tolist()
        assert found.distances.tolist() == expected.distances[0].tolist()
        inside, radius = set(found.indices.tolist()), min(9.0, found.certificate.radius)
        scale = torch.tensor([weight] * 2 + [1 - weight] * 3).double()
        for item in (set(range(n)) - inside) if given else ():
            way = (keys[item] - keys[found.indices[-1]]).double()
            length = (way.square() * scale).sum().sqrt()
            if length > 0:
                there = query + way / length * radius * (1 - 1e-9)
                answer = index.search(there[None], k, weights=given).indices[0]
                assert set(answer.tolist()) == inside
        query = query + (0.05 if step % 3 else 0.0) * torch.randn(5, generator=generator).double()


def test_taking_candidates_away_keeps_what_is_kept_and_giving_them_back_does_not():
    cache = CertifiedSearch(line(*range(30)), margin=5)
    query = vector(0.1)
    assert not cache.search("u", query, 3, exclude=[7]).certificate.reused
    fewer = cache.search("u", query, 3, exclude=[7, 0], deny=[2])
    assert fewer.certificate.reused
    assert fewer.indices.tolist() == [1, 3, 4]
    assert not cache.search("u", query, 3, exclude=[0]).certificate.reused
    # Too few are left of those kept.
    assert not cache.search("u", query, 3, exclude=list(range(12))).certificate.reused


def test_an_allowed_set_may_shrink():
    cache = CertifiedSearch(line(*range(30)), margin=3)
    query = vector(4.1)
    assert cache.search("u", query, 2, allow=[1, 5, 9, 12]).indices.tolist() == [5, 1]
    assert cache.search("u", query, 2, allow=[1, 9, 12]).certificate.reused
    assert cache.search("u", query, 2, allow=[1, 5, 8], deny=[8]).indices.tolist() == [5, 1]
    assert not cache.search("u", query, 2, allow=[1, 5, 8]).certificate.reused
    assert not cache.search("u", query, 2).certificate.reused
    assert cache.search("u", query, 2, allow=[4, 3]).certificate.reused


def test_where_all_candidates_are_kept_nothing_moves_too_far():
    cache = CertifiedSearch(line(0.0, 1.0, 2.0), margin=10)
    assert cache.search("u", vector(0.1), 5).indices.tolist() == [0, 1, 2, -1, -1]
    found = cache.search("u", vector(1e6), 5, deny=[1])
    assert found.certificate.reused
    assert found.certificate.allowed == np.inf
    assert found.certificate.radius == np.inf
    assert found.indices.tolist() == [2, 0, -1, -1, -1]
    assert found.distances[-1] == np.inf


def test_the_very_same_query_is_reused_among_ties():
    cache = CertifiedSearch(ExactIndex(torch.ones(9, 2)), margin=2)
    assert cache.search("u", vector(0.0, 0.0), 3, deny=[1]).indices.tolist() == [0, 2, 3]
    found = cache.search("u", vector(0.0, 0.0), 3, deny=[1, 2])
    assert found.certificate.reused
    assert found.indices.tolist() == [0, 3, 4]
    assert not cache.search("u", vector(0.0, 1e-9), 3, deny=[1]).certificate.reused


def test_a_longer_list_is_searched_for_and_a_shorter_one_is_not():
    cache = CertifiedSearch(line(*range(50)), margin=4)
    assert not cache.search("u", vector(0.2), 3).certificate.reused
    assert cache.search("u", vector(0.2), 2).certificate.reused
    assert not cache.search("u", vector(0.2), 40).certificate.reused
    assert cache.search("u", vector(0.2), 3).certificate.reused


def test_each_name_has_its_own_and_the_one_longest_unasked_goes():
    cache = CertifiedSearch(line(*range(50)), margin=4, users=2)
    for name in ("a", "b", "a", "c"):
        cache.search(name, vector(3.2), 2)
    assert len(cache) == 2
    assert cache.search("a", vector(3.2), 2).certificate.reused
    assert not cache.search("b", vector(3.2), 2).certificate.reused
    cache.forget("b")
    cache.forget("nobody")
    assert len(cache) == 1


def test_what_is_kept_does_not_follow_the_callers_tensor():
    cache = CertifiedSearch(line(*range(50)), margin=4)
    query = vector(3.2)
    cache.search("u", query, 2)
    query += 30.0
    found = cache.search("u", query, 2)
    assert found.certificate.moved == pytest.approx(30.0)
    assert found.indices.tolist() == [33, 34]


def test_several_threads_share_it():
    index = ExactIndex(torch.randn(500, 6, generator=torch.Generator().manual_seed(1)))
    cache = CertifiedSearch(index, margin=30, users=3)
    wrong = []

    def ask(seed):
        generator = torch.Generator().manual_seed(seed)
        query = torch.randn(6, generator=generator).double()
        for step in range(60):
            query = query + 0.02 * torch.randn(6, generator=generator).double()
            found = cache.search(step % 5, query, 4)
            if found.indices.tolist() != index.search(query[None], 4).indices[0].tolist():
                wrong.append((seed, step))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(cache) == 3


def test_what_cannot_be_asked_is_refused():
    index = line(0.0, 1.0)
    for wrong in ({"margin": 0}, {"users": 0}):
        with pytest.raises(RequestError, match="at least 1"):
            CertifiedSearch(index, **wrong)
    cache = CertifiedSearch(index)
    cache.search("u", vector(0.0), 1)
    with pytest.raises(RequestError, match="at least 1 item"):
        cache.search("u", vector(0.0), 0)
    for number in (np.inf, np.nan):
        with pytest.raises(RequestError, match="query vector is not finite"):
            cache.search("u", vector(number), 1)
    empty = CertifiedSearch(ExactIndex(torch.zeros(0, 1)))
    assert empty.search("u", vector(0.0), 2).indices.tolist() == [-1, -1]
