import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attrec.errors import DataError
from attrec.training.negatives import sample_negatives


@given(
    st.integers(1, 4).flatmap(
        lambda T: st.tuples(
            st.lists(st.lists(st.integers(-1, 7), min_size=T, max_size=T), min_size=1, max_size=20),
            st.integers(max(8, T + 1), 12),
        )
    ),
    st.integers(0, 9),
)
def test_a_negative_is_an_item_and_never_a_target(rows_and_items, seed):
    rows, num_items = rows_and_items
    targets = np.array(rows)
    drawn = sample_negatives(targets, num_items, np.random.default_rng(seed))
    assert drawn.shape == targets.shape
    assert (drawn >= 0).all()
    assert (drawn < num_items).all()
    assert not (drawn[:, :, None] == targets[:, None, :]).any()


def test_every_other_item_is_as_likely():
    # T⁺ = {1, 4} of 6 items, one of them twice: 0, 2, 3 and 5 are left.
    targets = np.tile([[4, 1, 4]], (20_000, 1))
    drawn = sample_negatives(targets, 6, np.random.default_rng(0))
    counts = np.bincount(drawn.ravel(), minlength=6)
    assert counts[[1, 4]].tolist() == [0, 0]
    # Four standard deviations around 15,000.
    assert np.abs(counts[[0, 2, 3, 5]] - 15_000).max() < 4 * np.sqrt(60_000 * 0.25 * 0.75)


def test_short_histories_get_all_their_negatives():
    drawn = sample_negatives(np.tile([[3, -1, -1]], (500, 1)), 9, np.random.default_rng(1))
    assert drawn.shape == (500, 3)
    # Padding excludes no item, the last one neither.
    assert set(drawn.ravel()) == {0, 1, 2, 4, 5, 6, 7, 8}


def test_held_out_items_are_drawn_like_any_other():
    # Only T⁺ is excluded: an item that the user takes later must not be told by its absence.
    drawn = sample_negatives(np.tile([[0]], (4000, 1)), 3, np.random.default_rng(2))
    assert set(drawn.ravel()) == {1, 2}


def test_too_few_items_are_refused():
    with pytest.raises(
        DataError, match="3 items, and windows with num_targets = 3 need at least 4"
    ):
        sample_negatives(np.array([[0, 1, 2]]), 3, np.random.default_rng(0))
    # With T + 1 items there is exactly one that can be drawn.
    drawn = sample_negatives(np.array([[0, 1, 3]]), 4, np.random.default_rng(0))
    assert drawn.tolist() == [[2, 2, 2]]
