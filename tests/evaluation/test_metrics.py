import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.ragged import Ragged
from attrec.errors import ConfigError
from attrec.evaluation.metrics import (
    MISSED,
    average_precision,
    coverage,
    hit_rate,
    metric_names,
    mrr,
    ndcg,
    novelty,
    per_user,
    precision,
    recall,
)


def ranks_of(*lists):
    return Ragged.from_lists(lists, dtype=np.int64)


def test_one_target_by_hand():
    ranks = ranks_of([1], [3], [10], [11], [MISSED])
    assert hit_rate(ranks, 10).tolist() == [1, 1, 1, 0, 0]
    assert recall(ranks, 10).tolist() == [1, 1, 1, 0, 0]
    assert precision(ranks, 10).tolist() == [0.1, 0.1, 0.1, 0, 0]
    assert ndcg(ranks, 10).tolist() == pytest.approx([1, 1 / 2, 1 / math.log2(11), 0, 0])
    assert mrr(ranks).tolist() == pytest.approx([1, 1 / 3, 1 / 10, 1 / 11, 0])
    assert mrr(ranks, 10).tolist() == pytest.approx([1, 1 / 3, 1 / 10, 0, 0])
    assert average_precision(ranks, 10).tolist() == pytest.approx([1, 1 / 3, 1 / 10, 0, 0])


def test_several_targets_by_hand():
    # Targets at 4, 1 and nowhere; k = 5.
    ranks = ranks_of([4, 1, MISSED])
    assert hit_rate(ranks, 5).tolist() == [1]
    assert recall(ranks, 5).tolist() == pytest.approx([2 / 3])
    assert precision(ranks, 5).tolist() == pytest.approx([2 / 5])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert ndcg(ranks, 5).tolist() == pytest.approx([(1 + 1 / math.log2(5)) / ideal])
    assert average_precision(ranks, 5).tolist() == pytest.approx([(1 / 1 + 2 / 4) / 3])
    assert mrr(ranks).tolist() == [1]
    # With more targets than places the best list is full of targets.
    assert ndcg(ranks_of([1, 2, 3]), 2).tolist() == pytest.approx([1])
    assert average_precision(ranks_of([1, 2, 3]), 2).tolist() == pytest.approx([1])


@given(
    st.lists(
        st.lists(st.integers(1, 30), min_size=1, max_size=5, unique=True), min_size=1, max_size=6
    ),
    st.integers(1, 25),
    st.booleans(),
)
def test_all_metrics_equal_the_obvious_loops(lists, k, one_missed):
    if one_missed:
        lists = [*lists, [MISSED]]
    ranks = ranks_of(*lists)
    for row, own in enumerate(lists):
        within = sorted(rank for rank in own if rank <= k)
        best = min(own)
        dcg = sum(1 / math.log2(1 + rank) for rank in within)
        ideal = sum(1 / math.log2(1 + j) for j in range(1, min(len(own), k) + 1))
        expected = {
            "hit_rate": float(bool(within)),
            "recall": len(within) / len(own),
            "precision": len(within) / k,
            "ndcg": dcg / ideal,
            "map": sum((j + 1) / r for j, r in enumerate(within)) / min(len(own), k),
            "mrr": 1 / best if best <= k else 0.0,
        }
        for name, value in expected.items():
            assert per_user(f"{name}@{k}", ranks)[row] == pytest.approx(value), name
        assert per_user("mrr", ranks)[row] == pytest.approx(0 if best == MISSED else 1 / best)


def test_metrics_by_name():
    assert metric_names((5, 10))[-1] == "mrr"
    assert len(metric_names((5, 10))) == 13
    for wrong in ("accuracy", "ndcg", "ndcg@", "ndcg@0", "ndcg@x", "hit_rate@-1", "",
                  "ndcg@²", "ndcg@१", "ndcg@1000000000000", "ndcg@" + 5000 * "1"):  # fmt: skip
        with pytest.raises(ConfigError, match="no metric"):
            per_user(wrong, ranks_of([1]))


def test_a_cutoff_beyond_every_list_costs_nothing():
    ranks = ranks_of([4, 1, MISSED], [3])
    for metric in ("hit_rate", "ndcg", "recall", "map", "mrr"):
        most, whole = (per_user(f"{metric}@{k}", ranks).tolist() for k in (2**31 - 1, 100))
        assert most == whole


def test_coverage_and_novelty_by_hand():
    top = np.array([[0, 1, 2], [0, 3, -1]])
    assert coverage(top, 1, 10) == pytest.approx(0.1)
    assert coverage(top, 3, 10) == pytest.approx(0.4)
    counts = np.array([2, 0, 0, 0])  # with one added to each: 3, 1, 1, 1 of 6
    assert novelty(top, 1, counts) == pytest.approx(math.log2(6 / 3))
    assert novelty(top, 2, counts) == pytest.approx((2 * math.log2(2) + 2 * math.log2(6)) / 4)
    assert novelty(np.full((1, 2), -1), 2, counts) == 0.0
