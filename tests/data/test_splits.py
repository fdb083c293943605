from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attrec.config import ProtocolConfig
from attrec.data.interactions import InteractionLog
from attrec.data.splits import given_files, global_time, leave_last_out, split_log
from attrec.errors import DataError


def log_of(rows):
    users, items, times = zip(*rows, strict=True)
    return InteractionLog.from_columns(list(users), list(items), list(times))


def as_dict(log, held_out):
    """{user: (history, targets)} in external ids."""
    return {
        str(log.user_ids[user]): (
            "".join(log.item_ids[held_out.histories[row]]),
            "".join(log.item_ids[held_out.targets[row]]),
        )
        for row, user in enumerate(held_out.user_codes)
    }


def events(log):
    rows = zip(log.user_ids[log.user_codes], log.item_ids[log.item_codes], strict=True)
    return sorted(rows)


ROWS = [
    ("u", "c", 3), ("u", "a", 1), ("v", "x", 9), ("u", "b", 2), ("u", "d", 4),
    ("v", "y", 10), ("w", "a", 5), ("w", "b", 6), ("w", "c", 6),
]  # fmt: skip


def test_leave_last_out_by_hand():
    log = log_of(ROWS)
    split = leave_last_out(log)
    assert as_dict(log, split.test) == {"u": ("abc", "d"), "w": ("ab", "c")}
    assert as_dict(log, split.validation) == {"u": ("ab", "c"), "w": ("a", "b")}
    # v has two events: too short to be judged, kept for training whole.
    assert events(split.train) == [("u", "a"), ("u", "b"), ("v", "x"), ("v", "y"), ("w", "a")]
    assert split.counts["users_too_short"] == 1
    assert split.counts["tied_events"] == 1
    assert split.counts["last_item_tie_dependent_share"] == pytest.approx(1 / 3)
    assert split.counts["test_tie_dependent_share"] == pytest.approx(1 / 2)


def test_leave_last_two_out_by_hand():
    log = log_of([("u", item, t) for t, item in enumerate("abcdef")] + ROWS[2:3])
    split = leave_last_out(log, 2)
    assert as_dict(log, split.test) == {"u": ("abcd", "ef")}
    assert as_dict(log, split.validation) == {"u": ("ab", "cd")}
    assert "leave-last-2-out" in split.protocol


def test_ties_keep_the_order_of_the_rows():
    log = log_of([("u", "a", 1), ("u", "b", 2), ("u", "c", 2), ("u", "d", 2)])
    assert as_dict(log, leave_last_out(log).test) == {"u": ("abc", "d")}
    swapped = log_of([("u", "a", 1), ("u", "d", 2), ("u", "c", 2), ("u", "b", 2)])
    assert as_dict(swapped, leave_last_out(swapped).test) == {"u": ("adc", "b")}


def test_without_times_the_rows_are_the_order():
    log = InteractionLog.from_columns(["u"] * 4, ["d", "c", "b", "a"])
    assert as_dict(log, leave_last_out(log).test) == {"u": ("dcb", "a")}
    with pytest.raises(DataError, match="no timestamps"):
        global_time(log)


def test_global_time_by_hand():
    # Validation holds t = 8, test t = 9 and 10; events at the moment of a cut fall behind it.
    rows = [("u", "abcdefgh"[t - 1], t) for t in range(1, 9)]
    rows += [("v", "abcdefgh"[t - 1], t) for t in range(1, 8)]
    rows += [("u", "i", 9), ("u", "j", 10), ("n", "a", 9), ("n", "b", 10), ("o", "c", 10)]
    log = log_of(rows)
    split = global_time(log, 0.25, 0.05)
    # u knows the past; n is new: its first event is the history; o has one event: only counted.
    assert as_dict(log, split.test) == {"u": ("abcdefgh", "i"), "n": ("a", "b")}
    assert as_dict(log, split.validation) == {"u": ("abcdefg", "h")}
    assert split.counts["test_new_users"] == 2
    assert split.counts["test_new_users_judged"] == 1
    assert max(split.train.timestamps) < min(split.log.timestamps[split.log.timestamps >= 8])


def test_one_moment_cannot_be_cut():
    with pytest.raises(DataError, match="one moment holds too many"):
        global_time(log_of([("u", "a", 1), ("v", "b", 1), ("u", "c", 1)]), 0.4, 0.2)


@pytest.mark.parametrize(
    ("fractions", "words"),
    [
        ((0.5, 0.5), "test_fraction = 0.5 and validation_fraction = 0.5 leave 0 to train on"),
        ((0.2, 0.01), "of its 20 events .* leave 16 to train on and 0 for validation; choose"),
    ],
)
def test_fractions_that_leave_nothing_of_a_part_are_told(fractions, words):
    log = log_of([("u", "abcdefghij"[t % 10], t) for t in range(20)])
    with pytest.raises(DataError, match=words):
        global_time(log, *fractions)
    assert "the last 12.5% of events, validation = the 30% before" in (
        global_time(log, 0.125, 0.3).protocol
    )


def test_test_events_that_are_learnt_from_are_told():
    train = log_of([("u", "a", 1), ("u", "b", 2), ("v", "a", 1), ("v", "b", 3), ("v", "b", 3)])
    for behind, told in (
        ([("u", "c", 9), ("v", "b", 4)], None),  # the same items, at other times
        ([("u", "c", 9), ("v", "b", 3), ("u", "b", 3)], "; 1 of the 3 test events are learnt from"),
    ):
        words = given_files(train, log_of(behind)).protocol
        assert words.endswith("is for validation") if told is None else told in words
    most = log_of([("u", "b", 2), ("v", "b", 3), ("v", "c", 5)])
    with pytest.raises(DataError, match=r"2 of its 3 events are in .* too, .*; take them out of"):
        given_files(train, most)
    untimed = [replace(log, timestamps=None) for log in (train, most)]
    assert len(given_files(*untimed).test) == 2


def test_given_files_by_hand():
    train = log_of([("u", "b", 2), ("u", "a", 1), ("v", "x", 1), ("w", "x", 3), ("w", "y", 4)])
    test = log_of([("u", "q", 0), ("v", "y", 9), ("z", "a", 1)])
    split = given_files(train, test)
    # u's test event has an earlier time, but the file says that it is to be predicted.
    assert as_dict(split.log, split.test) == {"u": ("ab", "q"), "v": ("x", "y")}
    assert as_dict(split.log, split.validation) == {"u": ("a", "b"), "w": ("x", "y")}
    assert split.counts["test_new_users"] == 1
    with pytest.raises(DataError, match="no event to be judged on"):
        given_files(train, test.take(np.zeros(3, dtype=bool)))


def test_split_log_follows_the_configuration():
    log = log_of([("u", item, t) for t, item in enumerate("abcdef")] * 4)
    assert "leave-last-2" in split_log(log, ProtocolConfig(held_out_events=2)).protocol
    assert "global time" in split_log(log, ProtocolConfig(split="global-time")).protocol
    later = log_of([("u", "a", 9)])
    assert "given files" in split_log(log, ProtocolConfig(), later).protocol


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("u", "a", 1), ("v", "b", 2)], "no user can be judged"),
        ([("u", "a", 1), ("u", "b", 2)], "no user can be judged"),
    ],
)
def test_a_log_too_short_to_judge_is_refused(rows, words):
    with pytest.raises(DataError, match=words):
        leave_last_out(log_of(rows))


def test_an_empty_log_is_refused():
    empty = log_of(ROWS).take(np.zeros(len(ROWS), dtype=bool))
    with pytest.raises(DataError, match="holds no events"):
        leave_last_out(empty)


def test_nothing_left_to_train_on_is_refused():
    train = log_of([("u", "a", 1)])
    only_new = log_of([("z", "a", 1), ("z", "b", 2)])
    with pytest.raises(DataError, match="no user can be judged"):
        given_files(train, only_new)
    with pytest.raises(DataError, match="nothing is left to train on"):
        given_files(train.take(np.zeros(1, dtype=bool)), only_new)


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 12)), min_size=1, max_size=60
    ),
    st.integers(1, 2),
)
def test_leave_last_out_equals_the_obvious_loop(rows, held_out):
    log = log_of(rows)
    expected_test, expected_validation, expected_train = {}, {}, []
    for user in sorted({row[0] for row in rows}):
        own = [row[1] for row in sorted((r for r in rows if r[0] == user), key=lambda r: r[2])]
        if len(own) < 2 * held_out + 1:
            expected_train += [(user, item) for item in own]
            continue
        test, validation = own[-held_out:], own[-2 * held_out : -held_out]
        expected_test[user] = (own[:-held_out], list(dict.fromkeys(test)))
        expected_validation[user] = (own[: -2 * held_out], list(dict.fromkeys(validation)))
        expected_train += [(user, item) for item in own[: -2 * held_out]]
    if not expected_test:
        with pytest.raises(DataError):
            leave_last_out(log, held_out)
        return
    split = leave_last_out(log, held_out)
    for part, expected in ((split.test, expected_test), (split.validation, expected_validation)):
        found = {
            log.user_ids[user]: (
                log.item_ids[part.histories[row]].tolist(),
                log.item_ids[part.targets[row]].tolist(),
            )
            for row, user in enumerate(part.user_codes)
        }
        assert found == expected
    assert events(split.train) == sorted(expected_train)


def test_changing_the_held_out_rows_leaves_the_training_part_as_it_was():
    log = log_of(ROWS)
    changed = log_of([*ROWS[:4], ("u", "zzz", 40), *ROWS[5:8], ("w", "qqq", 7)])
    assert events(leave_last_out(log).train) == events(leave_last_out(changed).train)
