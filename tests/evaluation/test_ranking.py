import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.cases import Cases
from attrec.data.ragged import Ragged
from attrec.errors import TrainingError
from attrec.evaluation import ranking
from attrec.evaluation.metrics import MISSED
from attrec.evaluation.ranking import rank_targets
from attrec.native.library import available


def cases_of(histories, targets):
    return Cases(
        np.arange(len(targets)),
        Ragged.from_lists(histories),
        Ragged.from_lists(targets),
    )


def fixed(table):
    """A scorer that looks its distances up by user_index."""
    values = torch.tensor(table, dtype=torch.float32)
    return lambda cases: values[torch.from_numpy(cases.user_index)]


def naive(row, history, targets, ties, filter_seen):
    """One user's ranks, by building the whole list."""
    candidates = [i for i in range(len(row)) if not (filter_seen and i in history)]

    def key(item):
        target = item in targets
        order = {"pessimistic": target, "optimistic": not target, "item-order": 0}[ties]
        return (row[item], order, item)

    listed = sorted(candidates, key=key)
    return [listed.index(target) + 1 if target in listed else MISSED for target in targets]


NUMBERS = st.sampled_from([0.0, 1.0, 1.0, 2.0, 3.0, math.inf])


@given(
    st.integers(1, 8).flatmap(
        lambda n: st.lists(
            st.tuples(
                st.lists(NUMBERS, min_size=n, max_size=n),
                st.lists(st.integers(0, n - 1), max_size=3),
                st.lists(st.integers(-1, n - 1), min_size=1, max_size=3, unique=True),
            ),
            min_size=1,
            max_size=6,
        )
    ),
    st.sampled_from(["pessimistic", "optimistic", "item-order"]),
    st.booleans(),
    st.sampled_from([1, 64, 1 << 20]),
)
def test_ranks_equal_the_obvious_list(users, ties, filter_seen, block_bytes):
    table, histories, targets = zip(*users, strict=True)
    found = rank_targets(
        fixed(table),
        cases_of(histories, targets),
        len(table[0]),
        filter_seen=filter_seen,
        ties=ties,
        top_k=4,
        block_bytes=block_bytes,
    )
    for row in range(len(users)):
        expected = naive(table[row], histories[row], targets[row], ties, filter_seen)
        assert found.ranks[row].tolist() == expected
        seen = histories[row] if filter_seen else []
        listed = [i for i in range(len(table[row])) if i not in seen]
        if filter_seen:
            listed = [i for i in listed if table[row][i] < math.inf]
        listed = sorted(listed, key=lambda item: (table[row][item], item))[:4]
        top = found.top_items[row].tolist()
        assert top == listed + [-1] * (min(4, len(table[row])) - len(listed))


def test_ties_by_hand():
    row = [[1.0, 1.0, 1.0, 0.0, 2.0]]
    ranks = {
        ties: rank_targets(fixed(row), cases_of([[]], [[1]]), 5, ties=ties).ranks[0].tolist()
        for ties in ("pessimistic", "optimistic", "item-order")
    }
    assert ranks == {"pessimistic": [4], "optimistic": [2], "item-order": [3]}


def test_a_target_that_the_filter_removes_is_missed():
    row = [[0.0, 1.0, 2.0]]
    cases = cases_of([[0]], [[0, 2]])
    assert rank_targets(fixed(row), cases, 3).ranks[0].tolist() == [MISSED, 2]
    assert rank_targets(fixed(row), cases, 3, filter_seen=False).ranks[0].tolist() == [1, 3]


def test_the_scorers_tensor_is_left_alone():
    values = torch.zeros(1, 3)
    rank_targets(lambda cases: values, cases_of([[0]], [[1]]), 3)
    assert values.tolist() == [[0, 0, 0]]


def test_nan_is_refused():
    with pytest.raises(TrainingError, match="NaN"):
        rank_targets(fixed([[0.0, math.nan]]), cases_of([[]], [[0]]), 2)


def test_a_constant_scorer_gains_nothing():
    cases = cases_of([[]] * 5, [[i] for i in range(5)])
    ranks = rank_targets(lambda c: torch.zeros(len(c), 5), cases, 5).ranks
    assert ranks.values.tolist() == [5] * 5


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic", "item-order"])
@pytest.mark.parametrize("filter_seen", [True, False])
def test_kernels_and_operators_rank_alike(ties, filter_seen, monkeypatch):
    random = np.random.default_rng(4)
    table = random.integers(0, 30, (60, 90)) / 7
    table[random.random(table.shape) < 0.1] = np.inf
    histories = [random.integers(0, 90, 12).tolist() for _ in range(60)]
    targets = [random.choice(90, random.integers(0, 4), replace=False) for _ in range(60)]
    found = []
    for readable in (ranking.readable, lambda block: False):
        monkeypatch.setattr(ranking, "readable", readable)
        found.append(
            rank_targets(
                fixed(table), cases_of(histories, targets), 90,
                filter_seen=filter_seen, ties=ties, top_k=20, block_bytes=90 * 4 * 17,
            )
        )  # fmt: skip
    assert found[0].ranks.values.tolist() == found[1].ranks.values.tolist()
    assert found[0].top_items.tolist() == found[1].top_items.tolist()


class Recorder:
    """A scorer that notes how many rows it is asked for, and into whose memory."""

    def __init__(self, num_items):
        self.num_items, self.asked, self.rooms, self.memory = num_items, [], [], set()

    def __call__(self, cases):
        self.asked.append(len(cases))
        return torch.zeros(1, self.num_items).expand(len(cases), -1)


class BlockRecorder(Recorder):
    def room(self, rows):
        self.rooms.append(rows)
        return torch.empty(rows, self.num_items)

    def write(self, cases, block):
        self.asked.append(len(cases))
        self.memory.add(block.data_ptr())
        block.zero_()


@pytest.mark.parametrize("num_items", [1, 1000, 30_000, 300_000])
@pytest.mark.parametrize("kind", [Recorder, BlockRecorder])
def test_a_block_never_exceeds_its_memory_whatever_the_catalogue(num_items, kind):
    scorer, budget = kind(num_items), 1 << 20
    cases = cases_of([[0]] * 50, [[num_items - 1]] * 50)
    found = rank_targets(scorer, cases, num_items, block_bytes=budget)
    assert sum(scorer.asked) == 50
    assert max(scorer.asked) <= max(1, budget // (4 * num_items))
    assert found.ranks.values.tolist() == [max(1, num_items - 1) if num_items > 1 else MISSED] * 50
    if kind is BlockRecorder:
        # One block for the whole run: nothing is made again for every call.
        assert scorer.rooms == [max(scorer.asked)]
        assert len(scorer.memory) == 1


def test_a_view_that_a_scorer_keeps_is_not_masked():
    kept = torch.arange(4.0)
    found = rank_targets(
        lambda cases: kept.expand(len(cases), -1), cases_of([[0], [1]], [[2]] * 2), 4
    )
    assert kept.tolist() == [0, 1, 2, 3]
    assert found.ranks.values.tolist() == [2, 2]


def test_rows_that_are_not_contiguous_are_ranked():
    table = torch.rand(5, 3).T
    cases = cases_of([[]] * 3, [[1]] * 3)
    found = rank_targets(lambda cases: table, cases, 5, filter_seen=False)
    assert found.ranks.values.tolist() == ((table < table[:, 1:2]).sum(dim=1) + 1).tolist()


def test_an_item_that_does_not_exist_is_refused():
    with pytest.raises(IndexError):
        rank_targets(fixed([[0.0, 1.0]]), cases_of([[]], [[2]]), 2)


class Products:
    """A scorer of whole-numbered products, which come out the same in any order of adding."""

    def __init__(self, queries, keys):
        self.queries, self.lifted_keys, self.calls = queries, keys, 0

    def __call__(self, cases):
        self.calls += 1
        return self.lifted_queries(cases) @ self.lifted_keys.T

    def lifted_queries(self, cases):
        return self.queries[torch.from_numpy(cases.user_index)]


@pytest.mark.parametrize("spread", [0, 1, 9])
@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("top_k", [0, 7, 200])
def test_tiles_rank_as_the_whole_does(spread, filter_seen, top_k, monkeypatch):
    random = np.random.default_rng(spread)
    draw = [random.integers(-spread, spread + 1, (size, 4)) for size in (50, 150)]
    scorer = Products(*(torch.from_numpy(numbers).float() for numbers in draw))
    scorer.lifted_keys[100:120] = scorer.lifted_keys[20:40]
    histories = [random.integers(0, 150, 20).tolist() for _ in range(50)]
    targets = [random.choice(150, random.integers(0, 4), replace=False) for _ in range(50)]
    targets[3] = [-1, *histories[3][:1]]
    cases = cases_of(histories, targets)
    monkeypatch.setattr(ranking, "_TILE_ROWS", 20)
    monkeypatch.setattr(ranking, "_TILE_COLUMNS", 32)
    found = []
    for cached in (0, 1 << 30):
        monkeypatch.setattr(ranking, "_CACHED_BYTES", cached)
        found += [
            rank_targets(scorer, cases, 150, filter_seen=filter_seen, ties=ties, top_k=top_k)
            for ties in ("pessimistic", "optimistic", "item-order")
        ]
        if not cached:
            # Tiles never ask for whole rows; without kernels there are no tiles.
            assert (scorer.calls == 0) == available()
    for tiled, whole in zip(found[:3], found[3:], strict=True):
        assert tiled.ranks.values.tolist() == whole.ranks.values.tolist()
        assert tiled.top_items.tolist() == whole.top_items.tolist()


def test_nan_is_refused_in_tiles(monkeypatch):
    monkeypatch.setattr(ranking, "_CACHED_BYTES", 0)
    scorer = Products(torch.ones(1, 2), torch.ones(3000, 2))
    cases = cases_of([[]], [[5]])
    assert rank_targets(scorer, cases, 3000).ranks.values.tolist() == [3000]
    scorer.lifted_keys[2999, 0] = math.nan
    with pytest.raises(TrainingError, match="NaN"):
        rank_targets(scorer, cases, 3000)
