import numpy as np
import pytest

from attrec.data.cases import encode_cases
from attrec.data.interactions import InteractionLog
from attrec.data.splits import leave_last_out
from attrec.data.vocabulary import Vocabulary
from attrec.errors import DataError, UnknownIdError


def test_strings_stay_strings_and_integers_integers():
    text = Vocabulary.fit(InteractionLog.from_columns(["007", "7"], ["b", "a"]))
    assert text.user_kind == "string"
    assert text.encode_users(["007", "7", "07", 7]).tolist() == [0, 1, -1, -1]
    assert text.parse_user("007") == "007"
    number = Vocabulary.fit(InteractionLog.from_columns([30, 5], [1, 2]))
    assert number.user_kind == "integer"
    assert number.encode_users([5, 30, 6]).tolist() == [0, 1, -1]
    assert number.encode_users(["5", 5]).tolist() == [-1, 0]
    assert number.encode_users(["5"]).tolist() == [-1]
    assert number.parse_item(" 2") == 2
    for text in ("x", "1_000", "२", "2.0", ""):
        with pytest.raises(UnknownIdError, match=f"item '{text}': this model's item ids are int"):
            number.parse_item(text)


def test_integers_are_unknown_to_a_vocabulary_of_strings():
    text = Vocabulary.fit(InteractionLog.from_columns(["a"], ["b"]))
    assert text.encode_users(np.array([1, 2])).tolist() == [-1, -1]
    assert text.encode_users([]).tolist() == []


def test_decode_undoes_encode():
    vocabulary = Vocabulary.fit(InteractionLog.from_columns(["b", "a", "c"], [3, 1, 2]))
    assert vocabulary.decode_users(vocabulary.encode_users(["c", "a"])).tolist() == ["c", "a"]
    assert vocabulary.decode_items(vocabulary.encode_items([2, 3])).tolist() == [2, 3]


def test_only_what_occurs_is_learnt():
    log = InteractionLog.from_columns(["a", "b", "c"], [1, 2, 3])
    vocabulary = Vocabulary.fit(log.take(np.array([0, 2])))
    assert vocabulary.user_ids.tolist() == ["a", "c"]
    assert vocabulary.item_ids.tolist() == [1, 3]


def test_late_users_follow_behind_the_trained_ones():
    log = InteractionLog.from_columns(["b", "d", "a", "c"], [1, 1, 1, 1])
    trained = Vocabulary.fit(log.take(np.array([0, 1])))
    both = trained.with_users_of(log)
    assert both.user_ids.tolist() == ["b", "d", "a", "c"]
    assert both.num_trained_users == 2
    assert both.encode_users(["a", "b", "c", "d", "e"]).tolist() == [2, 0, 3, 1, -1]


def test_cases_leave_unknown_items_out_of_histories_and_keep_them_as_misses():
    users = ["u"] * 4 + ["v"] * 3
    log = InteractionLog.from_columns(users, ["a", "b", "a", "z", "b", "y", "a"])
    split = leave_last_out(log)
    vocabulary = Vocabulary.fit(split.train)
    assert vocabulary.item_ids.tolist() == ["a", "b"]
    cases = encode_cases(split.test, log, vocabulary)
    assert cases.user_index.tolist() == [0, 1]
    assert [history.tolist() for history in cases.histories] == [[0, 1, 0], [1]]
    assert [target.tolist() for target in cases.targets] == [[-1], [0]]
    one = cases.take(slice(1, 2))
    assert (len(one), one.histories[0].tolist(), one.targets[0].tolist()) == (1, [1], [0])


def test_late_users_are_new_to_the_scorers():
    log = InteractionLog.from_columns(["u"] * 3 + ["v"] * 3, list("abcabc"))
    split = leave_last_out(log)
    vocabulary = Vocabulary.fit(log.take(np.arange(3))).with_users_of(log)
    assert encode_cases(split.test, log, vocabulary).user_index.tolist() == [0, -1]


def test_ids_that_come_later_in_two_lots_are_found_again():
    first = Vocabulary.fit(InteractionLog.from_columns(["b", "d"], [20, 40]))
    second = first
    for users, items in ((["e", "a"], [50, 10]), (["c", "a"], [30, 10])):
        log = InteractionLog.from_columns(users, items)
        second = second.with_users_of(log).with_items_of(log)
    assert second.user_ids.tolist() == ["b", "d", "a", "e", "c"]
    assert second.item_ids.tolist() == [20, 40, 10, 50, 30]
    assert (second.num_trained_users, second.num_trained_items) == (2, 2)
    assert second.encode_users(["a", "b", "c", "d", "e", "f"]).tolist() == [2, 0, 4, 1, 3, -1]
    assert second.encode_items([10, 20, 30, 40, 50, 60]).tolist() == [2, 0, 4, 1, 3, -1]


@pytest.mark.parametrize("names", [["b", "d", "a", "c", "x", "y"], [20, 40, 10, 30, 5, 60]])
def test_a_user_appended_is_in_the_vocabulary_that_came_of_it_alone(names):
    trained = Vocabulary.fit(InteractionLog.from_columns(names[:2], [1, 1]))
    one = trained.with_user(names[2])
    two, other = one.with_user(names[3]), one.with_user(names[4])
    again = one.with_user(names[5]).with_user(names[3])
    assert [v.user_ids.tolist() for v in (trained, one, two, other, again)] == [
        names[:2], names[:3], names[:4], [*names[:3], names[4]], [*names[:3], names[5], names[3]],
    ]  # fmt: skip
    for vocabulary in (trained, one, two, other, again):
        known = vocabulary.user_ids.tolist()
        expected = [known.index(name) if name in known else -1 for name in names]
        assert vocabulary.encode_users(names).tolist() == expected
        assert vocabulary.encode_users(np.array(names, dtype=object)).tolist() == expected
        assert vocabulary.decode_users(np.arange(len(known))).tolist() == known
        assert vocabulary.num_trained_users == 2
    wrong = [10.0, True, None, ["a"]] if names[0] == 20 else [1, None, ["a"]]
    assert again.encode_users(wrong).tolist() == [-1] * len(wrong)


def test_many_users_appended_one_by_one():
    vocabulary = Vocabulary.fit(InteractionLog.from_columns([3, 1], [1, 1]))
    for user in range(10, 3000):
        vocabulary = vocabulary.with_user(user)
    assert vocabulary.user_ids.tolist() == [1, 3, *range(10, 3000)]
    assert vocabulary.encode_users(vocabulary.user_ids).tolist() == list(range(2992))


def test_later_ids_of_another_kind_are_refused():
    vocabulary = Vocabulary.fit(InteractionLog.from_columns(["b"], [20]))
    with pytest.raises(DataError, match="bring both to one kind"):
        vocabulary.with_items_of(InteractionLog.from_columns(["b"], ["x"], source="new.csv"))
