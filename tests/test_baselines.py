import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attrec.baselines import Markov, Popularity, item_counts, recent_item_counts
from attrec.data.cases import Cases
from attrec.data.interactions import InteractionLog
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.data.vocabulary import Vocabulary


def cases_of(*histories):
    return Cases(
        np.zeros(len(histories), dtype=np.int64),
        Ragged.from_lists(histories),
        Ragged.from_lists([[0]] * len(histories)),
    )


def order(distances):
    """Each row as a list of items, nearest first; equal distances are an error."""
    rows = distances.tolist()
    assert all(len(set(row)) == len(row) for row in rows)
    return [sorted(range(len(row)), key=row.__getitem__) for row in rows]


def made_of(histories, times=None):
    users = [u for u, history in enumerate(histories) for _ in history]
    items = [item for history in histories for item in history]
    log = InteractionLog.from_columns(users, items, times)
    vocabulary = Vocabulary.fit(log)
    return log, vocabulary, Sequences.from_log(log, vocabulary)


def test_popularity_by_hand():
    log, vocabulary, _ = made_of([[0, 1, 2], [2, 1], [2, 3]])
    counts = item_counts(log, vocabulary)
    assert counts.tolist() == [1, 2, 3, 1]
    # 0 and 3 tie: item order.
    assert order(Popularity(counts)(cases_of([0], [1]))) == [[2, 1, 0, 3]] * 2


def test_recent_popularity_with_times_counts_the_latest_events():
    log, vocabulary, _ = made_of([[0, 1], [2, 1], [3, 0]], [1, 9, 2, 8, 3, 10])
    recent = recent_item_counts(log, vocabulary, share=0.5)
    assert recent.tolist() == [1, 2, 0, 0]
    # Among the items without a recent event all events decide, then item order.
    counts = item_counts(log, vocabulary)
    assert order(Popularity(recent, counts)(cases_of([]))) == [[1, 0, 2, 3]]


def test_recent_popularity_without_times_counts_each_users_latest():
    log, vocabulary, _ = made_of([[0, 1, 2, 3], [3, 2], [0]])
    # Half of 4, 2 and 1 events: 2 and 3; 2; and at least one event, 0.
    assert recent_item_counts(log, vocabulary, share=0.5).tolist() == [1, 0, 2, 1]


def test_markov_by_hand():
    log, vocabulary, sequences = made_of([[0, 1, 0, 1, 0, 2], [3, 3], [2, 4]])
    markov = Markov(sequences, item_counts(log, vocabulary))
    found = order(markov(cases_of([2, 0], [4], [], [3])))
    # After 0 came 1 twice and 2 once; the rest by popularity 3, 2, 2, 2, 1 of the items 0 … 4.
    assert found[0] == [1, 2, 0, 3, 4]
    # Nothing ever followed 4, and an empty history has no last item: popularity.
    assert found[1] == found[2] == [0, 1, 2, 3, 4]
    assert found[3] == [3, 0, 1, 2, 4]


@given(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=8), min_size=1, max_size=6))
def test_baselines_equal_counting_by_hand(histories):
    log, vocabulary, sequences = made_of(histories)
    counts = item_counts(log, vocabulary)
    ids = vocabulary.item_ids.tolist()
    popular = Counter(item for history in histories for item in history)
    assert counts.tolist() == [popular[item] for item in ids]
    followers = Counter((a, b) for history in histories for a, b in itertools.pairwise(history))
    markov = Markov(sequences, counts)
    for place, last in enumerate(ids):
        expected = sorted(
            range(len(ids)),
            key=lambda item, last=last: (
                -followers[last, ids[item]],
                -popular[ids[item]],
                item,
            ),
        )
        assert order(markov(cases_of([place])))[0] == expected


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_a_share_of_one_is_everything_and_at_least_one_event_counts(share):
    log, vocabulary, _ = made_of([[0, 1, 2]], [1, 2, 3])
    recent = recent_item_counts(log, vocabulary, share=share)
    assert recent.tolist() == ([0, 0, 1] if share < 1 else [1, 1, 1])
