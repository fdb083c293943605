"""Histories are cut and packed so that every position is trained once."""

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.packing import Pieces
from attrec.data.ragged import Ragged
from attrec.data.sequences import PADDING, Sequences


def positions(batches):
    """Count each trained position as (context, target), its context from the piece's start."""
    found = Counter()
    for batch in batches:
        start = 0
        for length in batch.lengths:
            items, targets = batch.items[start : start + length], batch.targets[start:][:length]
            for place, target in enumerate(targets):
                if target != PADDING:
                    found[(items[place], target)] += 1
                if place + 1 < length:
                    assert target in (PADDING, items[place + 1])
            start += length
        assert start == len(batch.items) == len(batch.targets)
    return found


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=8),
    st.integers(1, 7),
    st.integers(1, 40),
    st.integers(0, 99),
)
def test_every_position_is_trained_once(lengths, longest, most, seed):
    # All items are different, so a position is known by its item.
    numbers = iter(range(sum(lengths)))
    lists = [[next(numbers) for _ in range(length)] for length in lengths]
    sequences = Sequences(Ragged.from_lists(lists))
    rng = np.random.default_rng(seed)
    pieces = Pieces.cut(sequences, longest, rng)
    batches = list(pieces.batches(sequences, most, rng)) if len(pieces) else []
    expected = Counter(pair for items in lists for pair in pairwise(items))
    assert positions(batches) == expected
    assert sum(batch.size for batch in batches) == sequences.num_windows
    for batch in batches:
        assert batch.lengths.max() <= longest
        assert len(batch.lengths) * batch.lengths.max() <= max(most, longest)


def test_cuts_and_batches_follow_from_the_generator():
    sequences = Sequences(Ragged.from_lists([range(50), range(20), range(7)]))

    def drawn(seed):
        rng = np.random.default_rng(seed)
        pieces = Pieces.cut(sequences, 9, rng)
        return [tuple(batch.items) for batch in pieces.batches(sequences, 27, rng)]

    assert drawn(1) == drawn(1)
    assert sorted(drawn(1)) != sorted(drawn(2))


def test_a_long_history_has_context_in_its_newest_piece():
    sequences = Sequences(Ragged.from_lists([range(10)]))
    pieces = Pieces.cut(sequences, 4, np.random.default_rng(0))
    assert pieces.starts[0] == 5
    assert pieces.stops[0] == 9
    assert 5 <= pieces.trained_from[0] < 9
