"""What is taken out of a log, each step by hand and against a slow twin."""

import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attrec.config import DataConfig
from attrec.data.cleaning import clean
from attrec.data.interactions import InteractionLog
from attrec.data.reading import read_interactions
from attrec.errors import DataError


def log_of(rows):
    users, items, times = zip(*rows, strict=True)
    return InteractionLog.from_columns(users, items, times)


def events(log):
    users, items = log.user_ids[log.user_codes], log.item_ids[log.item_codes]
    return list(zip(users.tolist(), items.tolist(), log.timestamps.tolist(), strict=True))


ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40
)


@given(ROWS)
def test_exact_duplicates_equal_the_slow_way(rows):
    assert events(clean(log_of(rows), DataConfig())) == list(dict.fromkeys(rows))
    assert events(clean(log_of(rows), DataConfig(duplicates="keep"))) == rows


@given(ROWS, st.sampled_from(["first", "last"]))
def test_repeats_equal_the_slow_way(rows, which):
    kept = {}
    ordered = sorted(range(len(rows)), key=lambda row: (rows[row][2], row))
    for row in ordered if which == "last" else reversed(ordered):
        kept[rows[row][:2]] = row
    found = clean(log_of(rows), DataConfig(duplicates="keep", repeats=which))
    assert events(found) == [rows[row] for row in sorted(kept.values())]


@given(ROWS, st.integers(1, 4), st.integers(1, 4))
def test_the_core_equals_the_slow_way(rows, least_user, least_item):
    left = list(rows)
    while True:
        still = [
            (u, i, t) for u, i, t in left
            if sum(r[0] == u for r in left) >= least_user
            and sum(r[1] == i for r in left) >= least_item
        ]  # fmt: skip
        if still == left:
            break
        left = still
    config = DataConfig(duplicates="keep", min_user_events=least_user, min_item_events=least_item)
    if not left:
        with pytest.raises(DataError, match="no event is left when every user"):
            clean(log_of(rows), config)
        return
    found = clean(log_of(rows), config)
    assert events(found) == left
    assert found.num_users == len({row[0] for row in left})
    assert found.num_items == len({row[1] for row in left})


def test_each_step_is_counted_with_the_first_bad_rows(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "user,item,time,rating,event\n"
        "a,x,100,5,buy\na,x,100,5,buy\na,y,200,1,buy\na,z,300,4,view\n"
        "b,x,oh,5,buy\nb,,400,5,buy\nb,x\nb,z,500,ok,buy\nb,y,600,5,buy\n"
    )
    options = {"where": "event = 'buy'", "min_rating": 3, "on_bad_row": "skip"}
    log = read_interactions(path, **options)
    assert events(log) == [("a", "x", 100.0), ("b", "y", 600.0)]
    assert [(step.removed, step.left) for step in log.steps] == [
        (0, 9), (1, 7), (1, 6), (4, 3), (1, 2)
    ]  # fmt: skip
    bad = log.steps[3]
    assert bad.what == "rows that cannot be read"
    assert [re.sub(r";.*", "", example) for example in bad.examples] == [
        "log.csv, line 8: 2 columns where the first row has 5",
        "log.csv, line 6: timestamp 'oh' is not a number",
        "log.csv, line 7: the item is empty",
        "log.csv, line 9: rating 'ok' is not a number",
    ]
    with pytest.raises(DataError, match=r"log\.csv, line 8: 2 columns"):
        read_interactions(path, min_rating=3)


@pytest.mark.parametrize(("factor", "unit"), [(1e3, "milliseconds"), (1e6, "microseconds"),
                                              (1e9, "nanoseconds")])  # fmt: skip
def test_units_of_time_are_told_and_become_seconds(tmp_path, factor, unit):
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,time\na,x,{1_700_000_000 * factor:.0f}\na,y,0\n")
    log = read_interactions(path)
    assert log.timestamps.tolist() == [1_700_000_000.0, 0.0]
    assert f"times are in {unit} since 1970; kept as seconds" in log.notes


def test_mixed_units_and_unlikely_times(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\na,x,1700000000\na,y,1700000060000\na,z,1700000120\n")
    with pytest.raises(DataError, match=r"line 3: timestamp 1700000060000 is in milliseconds wh"):
        read_interactions(path)
    assert len(read_interactions(path, on_bad_row="skip")) == 2
    later = int(time.time()) + 10 * 86400
    path.write_text(f"user,item,time\na,x,{later}\na,y,1700000060\na,z,-500000000\n")
    notes = " ".join(read_interactions(path).notes)
    assert "WARNING: 1 events lie in the future" in notes
    assert "WARNING: 1 events lie before 1970" in notes


def test_a_where_that_means_nothing(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,event\na,x,buy\n")
    with pytest.raises(DataError, match="cannot be understood"):
        read_interactions(path, where="evnt = 'buy'")
    with pytest.raises(DataError, match="cannot be understood"):
        read_interactions(path, where="event = ")
    with pytest.raises(DataError, match="no row is left where event = 'sell'"):
        read_interactions(path, where="event = 'sell'")
    with pytest.raises(DataError, match="needs a column of ratings and none is known"):
        read_interactions(path, min_rating=3)


def test_codes_are_compact_after_cleaning():
    log = clean(log_of([(1, 5, 0), (1, 6, 1), (2, 6, 2)]), DataConfig(min_user_events=2))
    assert log.user_ids.tolist() == [1]
    assert log.item_ids.tolist() == [5, 6]
    assert log.item_codes.dtype == np.int32
