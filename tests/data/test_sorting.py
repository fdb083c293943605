"""The packed order equals NumPy's stable one, whatever the numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.sorting import stable_order


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), max_size=60))
def test_integers(values):
    keys = np.array(values, dtype=np.int64)
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()


@given(st.lists(st.floats(width=64) | st.sampled_from([0.0, -0.0, 1.0, 1.5, 2.0**60]), max_size=60))
def test_floats(values):
    keys = np.array(values, dtype=np.float64)
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, bool])
def test_other_kinds(dtype):
    keys = np.array([3, 1, 2, 1, 0, 3], dtype=dtype)
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()
