"""Histories that grow event by event end as those that came in one lot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.interactions import InteractionLog
from attrec.data.live import LiveHistories
from attrec.data.merging import merge_events
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.data.vocabulary import Vocabulary

EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=20
)


def log_of(events):
    users, items, times = zip(*events, strict=True)
    return InteractionLog.from_columns(list(users), list(items), list(times))


@given(EVENTS, st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 6))))
def test_one_by_one_or_in_one_lot(first, more):
    old = log_of(first)
    vocabulary = Vocabulary.fit(old)
    more = [event for event in dict.fromkeys(more) if event[1] in vocabulary.item_ids]
    live = LiveHistories(Sequences.from_log(old, vocabulary))
    new = InteractionLog.from_columns(*(list(c) for c in zip(*more, strict=True))) if more else None
    everybody = vocabulary if new is None else vocabulary.with_users_of(new)
    while live.num_users < everybody.num_users:
        live.add_user()
    came = 0
    for number, (user, item, time) in enumerate(more):
        index = [everybody.encode_users([user])[0], everybody.encode_items([item])[0]]
        came += live.add(*map(int, index), float(time))
        if number % 3 == 2:
            assert live.sequences.num_users == everybody.num_users
    if new is None:
        return
    merged = merge_events(Sequences.from_log(old, vocabulary), new, everybody)
    assert came == merged.is_new.sum()
    rows = np.arange(everybody.num_users)[::-1]
    assert [sorted(h) for h in live.take(rows)] == [
        sorted(h) for h in merged.sequences.histories.take(rows)
    ]
    found = live.sequences
    assert np.array_equal(found.times, merged.sequences.times)
    assert np.array_equal(found.histories.offsets, merged.sequences.histories.offsets)
    assert live.take(rows).values.tolist() == found.histories.take(rows).values.tolist()


def test_without_times_events_go_behind():
    live = LiveHistories(Sequences(Ragged.from_lists([[1, 2], [3]])))
    assert live.add(0, 2, None)
    assert live.add_user() == 2
    assert live[0] == [1, 2, 2] and live[2] == []
    assert [h.tolist() for h in live.sequences.histories] == [[1, 2, 2], [3], []]
    assert live.sequences.times is None
    with pytest.raises(IndexError):
        live.sequences.histories[3]
