"""Lists of unequal length, against lists of lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.ragged import Ragged

LISTS = st.lists(st.lists(st.integers(-9, 9), max_size=5), max_size=8)


def plain(ragged):
    return [row.tolist() for row in ragged]


@given(lists=LISTS)
def test_holds_what_it_was_given(lists):
    ragged = Ragged.from_lists(lists)
    assert plain(ragged) == lists
    assert len(ragged) == len(lists)
    assert ragged.lengths.tolist() == [len(row) for row in lists]
    assert ragged.row_of_value.tolist() == [r for r, row in enumerate(lists) for _ in row]
    assert ragged.values.dtype == np.int32
    assert ragged.offsets.dtype == ragged.row_of_value.dtype == np.int64
    again = Ragged.from_lengths(ragged.values, ragged.lengths)
    assert plain(again) == lists


@given(data=st.data(), lists=LISTS.filter(len))
def test_take_equals_indexing_lists(data, lists):
    ragged = Ragged.from_lists(lists)
    rows = data.draw(st.lists(st.integers(-len(lists), len(lists) - 1), max_size=10))
    assert plain(ragged.take(np.array(rows, dtype=np.int64))) == [lists[row] for row in rows]
    flags = data.draw(st.lists(st.booleans(), min_size=len(lists), max_size=len(lists)))
    kept = [row for row, flag in zip(lists, flags, strict=True) if flag]
    assert plain(ragged.take(np.array(flags))) == kept
    assert plain(ragged.take(slice(1, None, 2))) == lists[1::2]
    for row in (-1, 0):
        assert ragged[row].tolist() == lists[row]


@given(lists=LISTS)
def test_where_equals_filtering_each_list(lists):
    ragged = Ragged.from_lists(lists)
    kept = ragged.where(ragged.values > 0)
    assert plain(kept) == [[value for value in row if value > 0] for row in lists]


@pytest.mark.parametrize("row", [2, -3])
def test_rows_outside_are_refused(row):
    with pytest.raises(IndexError):
        Ragged.from_lists([[1], [2]])[row]
