"""New events in histories: where their time says, each once."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.interactions import InteractionLog
from attrec.data.merging import merge_events
from attrec.data.sequences import Sequences
from attrec.data.vocabulary import Vocabulary
from attrec.errors import DataError

EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=25
)


def log_of(events):
    users, items, times = zip(*events, strict=True)
    return InteractionLog.from_columns(list(users), list(items), list(times), source="new.csv")


def histories_of(merged, vocabulary):
    sequences = merged.sequences
    lists = {}
    for row, history in enumerate(sequences.histories):
        start = sequences.histories.offsets[row]
        times = sequences.times[start : start + len(history)].tolist()
        lists[int(vocabulary.user_ids[row])] = list(
            zip(vocabulary.item_ids[history].tolist(), times, strict=True)
        )
    return lists


def both(first, second, repeats="keep"):
    old, new = log_of(first), log_of(second)
    trained = Vocabulary.fit(old)
    vocabulary = trained.with_users_of(new).with_items_of(new)
    return merge_events(Sequences.from_log(old, trained), new, vocabulary, repeats), vocabulary


@given(EVENTS, EVENTS)
def test_merging_is_the_obvious_loop(first, second):
    merged, vocabulary = both(first, second)
    wanted = Counter(first) | Counter(second)  # of equal events the larger number
    found = Counter(
        (user, item, int(time))
        for user, events in histories_of(merged, vocabulary).items()
        for item, time in events
    )
    assert found == wanted
    came_in = sum((Counter(second) - Counter(first)).values())
    assert int(merged.is_new.sum()) == came_in
    assert merged.known == len(second) - came_in
    for events in histories_of(merged, vocabulary).values():
        times = [time for _, time in events]
        assert times == sorted(times)
    newest = {}
    for user, _, time in first:
        newest[user] = max(newest.get(user, -1), time)
    fresh = (Counter(second) - Counter(first)).elements()
    assert merged.late == sum(time < newest.get(user, -1) for user, _, time in fresh)


@given(EVENTS, EVENTS)
def test_what_came_in_does_not_come_in_again(first, second):
    merged, vocabulary = both(first, second)
    again = merge_events(merged.sequences, log_of(second), vocabulary)
    assert not again.is_new.any()
    assert again.known == len(second)
    assert np.array_equal(again.sequences.histories.values, merged.sequences.histories.values)


@given(EVENTS, EVENTS, st.sampled_from(["first", "last"]))
def test_repeats_are_merged_as_the_log_was(first, second, repeats):
    def cleaned(events):
        kept = {}
        for user, item, time in sorted(events, key=lambda e: e[2], reverse=repeats == "first"):
            kept[user, item] = time
        return sorted((user, item, time) for (user, item), time in kept.items())

    merged, vocabulary = both(cleaned(first), cleaned(second), repeats)
    found = sorted(
        (user, item, int(time))
        for user, events in histories_of(merged, vocabulary).items()
        for item, time in events
    )
    assert found == cleaned(first + second)


def test_equal_times_keep_what_was_there_first():
    merged, vocabulary = both([(0, 1, 5), (0, 2, 5)], [(0, 3, 5), (0, 0, 1)])
    assert [item for item, _ in histories_of(merged, vocabulary)[0]] == [0, 1, 2, 3]


def test_logs_with_and_without_times_do_not_mix():
    old = InteractionLog.from_columns([0], [1])
    sequences = Sequences.from_log(old, Vocabulary.fit(old))
    with pytest.raises(DataError, match=r"new.csv: has times, and the model's events have none"):
        merge_events(sequences, log_of([(0, 1, 3)]), Vocabulary.fit(old))
    untimed = InteractionLog.from_columns([0, 0], [1, 1])
    merged = merge_events(sequences, untimed, Vocabulary.fit(old))
    # Its first event is the one that is there: the log has grown.
    assert merged.sequences.histories.values.tolist() == [0, 0]
    assert (merged.late, merged.known) == (0, 1)
