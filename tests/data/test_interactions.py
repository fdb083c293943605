"""The interaction log: codes and tables, order in time, joining two logs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.interactions import InteractionLog, concatenate
from attrec.errors import DataError

IDS = st.one_of(
    st.lists(st.integers(-5, 5), min_size=1, max_size=12),
    st.lists(st.text("ab1é😀", min_size=1, max_size=3), min_size=1, max_size=12),
)


def users(log):
    return log.user_ids[log.user_codes].tolist()


def items(log):
    return log.item_ids[log.item_codes].tolist()


@given(ids=IDS)
def test_columns_survive_encoding(ids):
    log = InteractionLog.from_columns(ids, list(reversed(ids)))
    assert users(log) == ids
    assert items(log) == ids[::-1]
    assert log.user_ids.tolist() == sorted(set(ids))
    assert log.user_codes.dtype == log.item_codes.dtype == np.int32
    assert (log.num_users, log.num_items, len(log)) == (len(set(ids)), len(set(ids)), len(ids))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (([1, 2], [1], None), "2 users, 1 items and 1 timestamps"),
        (([1, 2], [1, 2], [1.0]), "2 users, 2 items and 1 timestamps"),
    ],
)
def test_columns_of_unequal_length_are_refused(columns, said):
    with pytest.raises(DataError, match=said):
        InteractionLog.from_columns(*columns)


def test_time_order_keeps_ties_in_row_order():
    log = InteractionLog.from_columns(["b", "a", "b", "a"], [1, 2, 3, 4], [5, 7, 5, 6])
    assert log.time_order().tolist() == [3, 1, 0, 2]
    untimed = InteractionLog.from_columns(["b", "a", "b", "a"], [1, 2, 3, 4])
    assert untimed.time_order().tolist() == [1, 3, 0, 2]


def test_take_keeps_the_tables():
    log = InteractionLog.from_columns(["b", "a", "b"], [1, 2, 3], [5, 7, 6])
    part = log.take(np.array([2, 0]))
    assert (users(part), items(part), part.timestamps.tolist()) == (["b", "b"], [3, 1], [6.0, 5.0])
    assert part.user_ids is log.user_ids
    assert log.take(np.array([True, False, False])).timestamps.tolist() == [5.0]
    untimed = InteractionLog.from_columns([1], [1])
    assert untimed.take(np.array([0])).timestamps is None


def test_fingerprint_sees_every_part():
    base = InteractionLog.from_columns(["a", "b"], ["x", "y"], [1, 2])
    same = InteractionLog.from_columns(["a", "b"], ["x", "y"], [1, 2], source="elsewhere")
    others = [
        InteractionLog.from_columns(["a", "c"], ["x", "y"], [1, 2]),
        InteractionLog.from_columns(["a", "b"], ["x", "z"], [1, 2]),
        InteractionLog.from_columns(["b", "a"], ["x", "y"], [1, 2]),
        InteractionLog.from_columns(["a", "b"], ["y", "x"], [1, 2]),
        InteractionLog.from_columns(["a", "b"], ["x", "y"], [1, 3]),
        InteractionLog.from_columns(["a", "b"], ["x", "y"]),
    ]
    assert base.fingerprint() == same.fingerprint()
    assert len({log.fingerprint() for log in [base, *others]}) == len(others) + 1


@given(data=st.data(), kind=st.sampled_from([st.integers(0, 9), st.text("ab1", min_size=1)]))
def test_concatenate_appends_rows_over_one_table(data, kind):
    def draw():
        return data.draw(st.lists(kind, min_size=1, max_size=6))

    one, two = draw(), draw()
    first = InteractionLog.from_columns(one, one, range(len(one)), source="f")
    second = InteractionLog.from_columns(two, two[::-1], range(len(two)), source="g")
    both = concatenate(first, second)
    assert users(both) == one + two
    assert items(both) == one + two[::-1]
    assert both.user_ids.tolist() == sorted({*one, *two})
    assert both.timestamps.tolist() == [*range(len(one)), *range(len(two))]
    assert both.user_codes.dtype == np.int32
    assert both.source == "f, g"
    assert concatenate(first, first).source == "f"


def test_concatenate_refuses_what_does_not_fit():
    log = InteractionLog.from_columns([1], [1], [1], source="f")
    with pytest.raises(DataError, match="g: its item ids are not of the kind"):
        concatenate(log, InteractionLog.from_columns([1], ["1"], [1], source="g"))
    untimed = InteractionLog.from_columns([1], [1], source="g")
    with pytest.raises(DataError, match="one of the two logs has timestamps"):
        concatenate(log, untimed)
    assert concatenate(untimed, untimed).timestamps is None


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (([1.0, 2.0], [1, 2]), r"users\[0\] is 1.0, of type float"),
        (([1, 2], ["a", None]), r"items\[1\] is None, of type NoneType"),
        (([True, False], [1, 2]), r"users\[0\] is True, of type bool"),
        ((np.array([1, "b"], dtype=object), [1, 2]), r"users\[1\] is 'b', of type str"),
        (([1, 2], [1, 2], [5, np.nan]), r"timestamps\[1\] is nan; give numbers"),
        (([1, 2], [1, 2], [-np.inf, 5]), r"timestamps\[0\] is -inf"),
    ],
)
def test_what_could_not_be_kept_is_refused(columns, said):
    with pytest.raises(DataError, match=said):
        InteractionLog.from_columns(*columns)


def test_a_column_of_objects_may_hold_whole_numbers():
    log = InteractionLog.from_columns(np.array([3, 1], dtype=object), ["a", "b"])
    assert log.user_ids.dtype == np.int64
    assert log.user_ids[log.user_codes].tolist() == [3, 1]
    assert len(InteractionLog.from_columns([], [], [])) == 0


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ((["a", 7], ["x", "y"]), r"users\[1\] is 7, of type int"),
        ((["a", float("nan")], ["x", "y"]), r"users\[1\] is nan"),
        ((["a", "b"], ["x", True]), r"items\[1\] is True"),
        ((np.array([2**63 + 1], np.uint64), ["x"]), "beyond the integers of 64 bits"),
        (([2**70], ["x"]), "beyond the integers of 64 bits"),
        ((["a", "b"], ["x", "y"], [1, "2024-01-02"]), r"timestamps\[\d\] is '"),
    ],
)
def test_nothing_becomes_an_id_or_a_time_that_is_none(columns, words):
    with pytest.raises(DataError, match=words):
        InteractionLog.from_columns(*columns)
