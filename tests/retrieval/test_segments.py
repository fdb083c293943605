"""Adding and removing: the lists are those of an index built anew over what remains."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.ragged import Ragged
from attrec.errors import RequestError
from attrec.retrieval.approximate import FaissFlat
from attrec.retrieval.index import ExactIndex
from attrec.retrieval.segments import SegmentedIndex

STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 99)), max_size=8)


@pytest.mark.parametrize("base", [ExactIndex, FaissFlat])
@given(start=st.integers(0, 25), steps=STEPS, k=st.integers(1, 40), seed=st.integers(0, 999),
       which=st.sets(st.sampled_from(["exclude", "allow", "deny"])))  # fmt: skip
def test_any_way_of_adding_and_removing_equals_an_index_built_anew(
    base, start, steps, k, seed, which
):
    random = np.random.default_rng(seed)

    def some(n):
        return torch.from_numpy(random.integers(-2, 3, (n, 3))).float()

    every, there = some(start), list(range(start))
    index = SegmentedIndex(base(every))
    for what, number in steps:
        if what == "add":
            new = some(number % 6)
            assert index.add(new).tolist() == list(range(len(every), len(every) + len(new)))
            there += range(len(every), len(every) + len(new))
            every = torch.cat([every, new])
        elif len(every):
            gone = random.integers(0, len(every), number % 5).tolist()
            index.remove(gone)
            there = [item for item in there if item not in gone]
    assert len(index) == len(there)
    assert index.removed.tolist() == sorted(set(range(len(every))) - set(there))
    anew, there = ExactIndex(every[there]), np.array(there, dtype=np.int64)
    queries = torch.from_numpy(random.integers(-2, 3, (3, 3))).double()
    picks = {
        "exclude": [random.integers(0, max(1, len(every)), 4).tolist() for _ in range(3)],
        "allow": random.integers(0, len(every), 15).tolist() if len(every) else [],
        "deny": random.integers(0, len(every), 4).tolist() if len(every) else [],
    }
    limits = {name: picks[name] for name in which}
    place = {int(item): at for at, item in enumerate(there)}
    moved = {
        name: [[place[i] for i in row if i in place] for row in value]
        if name == "exclude"
        else [place[i] for i in value if i in place]
        for name, value in limits.items()
    }
    for lists in (limits, moved):
        if "exclude" in lists:
            lists["exclude"] = Ragged.from_lists(lists["exclude"])
    found, expected = index.search(queries, k, **limits), anew.search(queries, k, **moved)
    real = expected.indices >= 0
    assert (found.indices >= 0).tolist() == real.tolist()
    assert found.indices[real].tolist() == there[expected.indices[real]].tolist()
    assert found.distances.tolist() == expected.distances.tolist()


def test_what_cannot_be_added_or_removed_is_told():
    index = SegmentedIndex(ExactIndex(torch.ones(3, 2)))
    with pytest.raises(RequestError, match="item index 3 cannot be removed"):
        index.remove([1, 3])
    assert len(index) == 3
    for fresh in (index, SegmentedIndex(index), SegmentedIndex(FaissFlat(torch.ones(3, 2)))):
        with pytest.raises(RequestError, match="keys of 5 numbers are added to keys of 2"):
            fresh.add(torch.zeros(1, 5))
        assert len(fresh) == 3
    index.add(torch.zeros(1, 2))
    with pytest.raises(RequestError, match="keys of 5 numbers are added to keys of 2"):
        index.add(torch.zeros(1, 5))
    with pytest.raises(RequestError, match="diverged"):
        index.add(torch.full((1, 2), torch.nan))
    assert len(index) == 4
    index.remove([0, 0])
    index.remove([0])
    assert len(index) == 3


def test_over_a_base_that_has_lost_items_no_index_is_given_twice():
    base = SegmentedIndex(ExactIndex(torch.arange(10.0)[:, None]))
    base.remove([0])
    index = SegmentedIndex(base)
    assert index.add(torch.tensor([[50.0]])).tolist() == [10]
    assert len(index) == 10
    queries = torch.tensor([[9.0], [50.0]], dtype=torch.float64)
    assert index.search(queries, 2).indices.tolist() == [[9, 8], [10, 9]]
    index.remove([0, 9])
    assert len(index) == 9
    assert index.search(queries, 2).indices.tolist() == [[8, 7], [10, 8]]
