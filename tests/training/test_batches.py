"""The compiled batches are those of NumPy, to the bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.native.library import available
from attrec.training import batches
from attrec.training.batches import draw

kernels = pytest.mark.skipif(not available(), reason="this installation has no compiled kernels")
N = 9


@kernels
@given(
    st.lists(st.lists(st.integers(0, N - 1), max_size=7), min_size=1, max_size=6).filter(
        lambda lists: any(len(each) > 1 for each in lists)
    ),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(0, 1000),
)
def test_the_kernels_give_numpys_batches(histories, L, T, seed):
    data = Sequences(Ragged.from_lists(histories))
    numbers = np.random.default_rng(seed).integers(0, data.num_windows, 12)
    ours = draw(data, numbers, L, T, N, np.random.default_rng(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "available", lambda: False)
        numpys = draw(data, numbers, L, T, N, np.random.default_rng(seed))
    for one, other in zip(ours, numpys, strict=True):
        assert one.dtype == other.dtype == np.int64
        np.testing.assert_array_equal(one, other)


@kernels
def test_a_window_that_is_not_there_is_an_error():
    data = Sequences(Ragged.from_lists([[1, 2, 3]]))
    with pytest.raises(IndexError, match="not below 2"):
        draw(data, np.array([2]), 2, 2, N, np.random.default_rng(0))


@kernels
def test_numbers_of_another_type_are_taken():
    # A permutation of NumPy 1 is int32 on Windows.
    data = Sequences(Ragged.from_lists([[1, 2, 3], [4, 5]]))
    expected = draw(data, np.array([0, 1, 2]), 2, 2, N, np.random.default_rng(0))
    for numbers in (np.array([0, 1, 2], np.int32), np.array([0, 9, 1, 9, 2])[::2]):
        found = draw(data, numbers, 2, 2, N, np.random.default_rng(0))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@kernels
def test_histories_of_another_type_take_the_numpy_way():
    lists = Ragged.from_lists([[1, 2, 3], [4, 5]])
    wide = Ragged(lists.values.astype(np.int64), lists.offsets)
    numbers = np.array([0, 1, 2])
    for one, other in zip(
        draw(Sequences(lists), numbers, 2, 2, N, np.random.default_rng(0)),
        draw(Sequences(wide), numbers, 2, 2, N, np.random.default_rng(0)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
