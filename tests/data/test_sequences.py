import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.interactions import InteractionLog
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences, last_items
from attrec.data.vocabulary import Vocabulary


def test_the_windows_of_a_short_history_by_hand():
    windows = Sequences(Ragged.from_lists([[10, 11, 12, 13]])).windows(np.arange(3), 3, 2)
    assert windows.inputs.tolist() == [[-1, -1, 10], [-1, 10, 11], [10, 11, 12]]
    assert windows.targets.tolist() == [[11, 12], [12, 13], [13, -1]]


def test_the_number_of_windows_by_hand():
    # Histories of 0, 1, 2 and 8 items give 0, 0, 1 and 7 windows.
    sequences = Sequences(Ragged.from_lists([[], [5], [1, 2], list(range(8))]))
    assert sequences.num_windows == 8
    assert sequences.num_events == 11
    windows = sequences.windows(np.arange(8), 5, 3)
    assert windows.users.tolist() == [2] + [3] * 7
    # L + T = 8: of the seven windows three have their full input and five their full target.
    assert (windows.inputs[1:] >= 0).all(axis=1).sum() == 3
    assert (windows.targets[1:] >= 0).all(axis=1).sum() == 5


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=7), min_size=1, max_size=6),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_windows_equal_the_obvious_loop(histories, L, T):
    expected = []
    for user, history in enumerate(histories):
        for t in range(1, len(history)):
            window, targets = history[max(0, t - L) : t], history[t : t + T]
            expected.append(
                (user, [-1] * (L - len(window)) + window, targets + [-1] * (T - len(targets)))
            )
    sequences = Sequences(Ragged.from_lists(histories))
    assert sequences.num_windows == len(expected)
    windows = sequences.windows(np.arange(len(expected)), L, T)
    assert list(zip(*(part.tolist() for part in windows), strict=True)) == expected
    assert last_items(sequences.histories, L).tolist() == [
        [-1] * max(0, L - len(h)) + h[-L:] for h in histories
    ]


def test_from_log_orders_by_time_and_leaves_the_unknown_out():
    log = InteractionLog.from_columns(
        ["v", "u", "u", "u", "w"], ["a", "c", "a", "b", "a"], [5, 3, 1, 2, 1]
    )
    vocabulary = Vocabulary.fit(log.take(np.array([0, 2, 3])))
    sequences = Sequences.from_log(log, vocabulary)
    assert [history.tolist() for history in sequences.histories] == [[0, 1], [0]]
