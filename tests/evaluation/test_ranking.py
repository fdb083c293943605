import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.cases import Cases
from attrec.data.ragged import Ragged
from attrec.errors import DataError
from attrec.evaluation.metrics import MISSED
from attrec.evaluation.ranking import rank_targets


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
        assert top == listed + [-1] * (4 - len(listed))


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
    with pytest.raises(DataError, match="NaN"):
        rank_targets(fixed([[0.0, math.nan]]), cases_of([[]], [[0]]), 2)


def test_a_constant_scorer_gains_nothing():
    cases = cases_of([[]] * 5, [[i] for i in range(5)])
    ranks = rank_targets(lambda c: torch.zeros(len(c), 5), cases, 5).ranks
    assert ranks.values.tolist() == [5] * 5
