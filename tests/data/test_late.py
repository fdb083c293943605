"""What is known of items that came after the training: events with something before them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attrec.data import late
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences

TRAINED = 4

events = st.lists(
    st.lists(st.tuples(st.integers(0, TRAINED + 2), st.integers(0, 40)), max_size=8), max_size=9
)


@given(events, st.integers(1, 3), st.integers(1, 4))
def test_the_newest_that_say_something_are_read(histories, most, length):
    histories = [sorted(history, key=lambda event: event[1]) for history in histories]
    wanted = {}
    for user, history in enumerate(histories):
        for place, (item, time) in enumerate(history):
            before = [other for other, _ in history[:place] if other < TRAINED]
            if item >= TRAINED and before:
                wanted.setdefault(item - TRAINED, []).append((time, user, before[-length:]))
    lists = [[item for item, _ in history] for history in histories]
    times = np.array([float(time) for history in histories for _, time in history])
    sequences = Sequences(Ragged.from_lists(lists, dtype=np.int32), times)
    read, late.EVENTS_OF_AN_ITEM = late.EVENTS_OF_AN_ITEM, most
    try:
        found = late.late_events(sequences, TRAINED, length)
    finally:
        late.EVENTS_OF_AN_ITEM = read
    assert [len(found.items[found.items == item]) for item in sorted(wanted)] == [
        min(most, len(wanted[item])) for item in sorted(wanted)
    ]
    for item, user, before in zip(found.items, found.users, found.before, strict=True):
        # Of equal times either may be among the newest.
        least = sorted((time for time, *_ in wanted[item]), reverse=True)[:most][-1]
        assert any(
            (other, known) == (user, before.tolist()) and time >= least
            for time, other, known in wanted[item]
        )
