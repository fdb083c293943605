import duckdb
import numpy as np
import pytest

import attrec
from attrec.data.cases import Cases, encode_cases
from attrec.data.interactions import InteractionLog
from attrec.data.ragged import Ragged
from attrec.data.splits import leave_last_out
from attrec.data.vocabulary import Vocabulary
from attrec.errors import DataError
from attrec.evaluation.comparison import rank_in_lists, read_lists
from attrec.evaluation.metrics import MISSED
from attrec.retrieval.vectors import NetworkScorer

VOCABULARY = Vocabulary.fit(InteractionLog.from_columns(list("abc"), ["x", "y", "z"]))


def cases_of(*targets):
    indices = [VOCABULARY.encode_items(list(own)).tolist() for own in targets]
    n = len(targets)
    return Cases(np.arange(n), Ragged.from_lists([[]] * n), Ragged.from_lists(indices))


def ranked(path, cases, users=("a", "b", "c")):
    lists = read_lists(path)
    return rank_in_lists(lists, cases, np.array(users[: len(cases)], object), VOCABULARY, 3)


@pytest.mark.parametrize(
    ("header", "values"),
    [("rank", (2, 1, 1)), ("distance", (0.9, 0.1, 0.5)), ("score", (1, 7, 3))],
)
def test_each_kind_of_order(tmp_path, header, values):
    path = tmp_path / "other.csv"
    rows = zip("aab", "xyz", values, strict=True)
    text = f"user,item,{header}\n" + "".join(f"{u},{i},{v}\n" for u, i, v in rows)
    path.write_text(text)
    found = ranked(path, cases_of("x", "z"))
    assert found.ranking.ranks.values.tolist() == [2, 1]
    assert found.ranking.top_items.tolist() == [[1, 0], [2, -1]]
    assert (found.shortest, found.longest, found.missing_users) == (1, 2, 0)


def test_a_score_is_a_number_of_any_size_and_never_a_time(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("user,item,score\na,x,0.5\na,y,1e12\na,z,2e9\n")
    found = ranked(path, cases_of("xyz"))
    assert found.ranking.ranks.values.tolist() == [3, 1, 2]
    for cell, words in (("high", "'high' is not a number"), ("2024-01-01", "not a number"),
                        ("", "is empty")):  # fmt: skip
        path.write_text(f"user,item,score\na,x,0.5\na,y,{cell}\n")
        with pytest.raises(DataError, match=f"line 3: .*score .*{words}; write a number"):
            read_lists(path)


def test_without_an_order_column_the_rows_are_the_order(tmp_path):
    path = tmp_path / "other.tsv"
    path.write_text("user_id\titem_id\na\ty\na\tx\n")
    assert ranked(path, cases_of("x")).ranking.ranks.values.tolist() == [2]
    path.write_text("a\tx\t9\na\ty\t1\n")
    found = ranked(path, cases_of("x"))
    assert found.ranking.ranks.values.tolist() == [1]
    assert "(no header: column 1 = user, column 2 = item" in found.in_words
    assert "in the order of its rows" in found.in_words
    assert "order in time" not in found.in_words


def test_lists_are_read_in_the_encoding_that_is_asked_for(tmp_path):
    log = InteractionLog.from_columns(list("aabbcc") * 2, ["é", "x", "y", "z"] * 3)
    recommender = attrec.fit(log, max_epochs=1, embedding_dim=8, cutoffs=(2,)).recommender
    path = tmp_path / "other.csv"
    path.write_bytes(b"user,item,rank\na,\xe9,1\na,x,2\n")
    with pytest.raises(DataError, match="--encoding latin-1"):
        attrec.evaluate(recommender, log, compare=path)
    found = attrec.evaluate(recommender, log, compare=path, encoding="latin-1")
    assert found.systems["other.csv"].metrics["coverage@2"]["mean"] == 2 / 4


def test_lists_of_other_ids_are_told(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("user,item,rank\na,1.0,1\nb,2.0,1\n")
    with pytest.raises(DataError, match=r"none of its 2 items, such as 1.0, .* such as x; write"):
        ranked(path, cases_of("x", "z"))
    path.write_text("user,item,rank\na,1.0,1\na,x,2\nb,2.0,1\nb,1.0,2\n")
    found = ranked(path, cases_of("x", "z"))
    assert found.in_words.endswith(", 2 of its 3 items are not in the catalogue")
    assert found.ranking.ranks.values.tolist() == [2, MISSED]
    path.write_text("user,item,rank\na,y,1\na,x,2\n")
    assert "not in the catalogue" not in ranked(path, cases_of("x")).in_words


def test_unknown_items_keep_their_place_and_repeats_their_first(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("user,item,rank\na,q,1\na,w,2\na,y,3\na,y,4\na,x,5\n")
    found = ranked(path, cases_of("xz"))
    assert found.ranking.ranks.values.tolist() == [4, MISSED]
    assert found.ranking.top_items.tolist() == [[-1, -1, 1]]


def test_users_without_a_list_are_counted_as_misses(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("user,item,rank\nb,x,1\n")
    found = ranked(path, cases_of("x", "x", "x"))
    assert found.ranking.ranks.values.tolist() == [MISSED, 1, MISSED]
    assert found.missing_users == 2
    assert "2 judged users have no list" in found.in_words


def test_ids_are_read_as_the_kind_the_model_has(tmp_path):
    numbers = Vocabulary.fit(InteractionLog.from_columns([1, 2], [10, 20]))
    cases = Cases(np.arange(1), Ragged.from_lists([[]]), Ragged.from_lists([[1]]))
    text = tmp_path / "text.csv"
    text.write_text("user,item,rank\n1,weird,1\n1,20,2\n")
    found = rank_in_lists(read_lists(text), cases, np.array([1]), numbers, 2)
    assert found.ranking.ranks.values.tolist() == [2]
    typed = tmp_path / "typed.parquet"
    duckdb.execute(f"COPY (SELECT 1 AS user, 20 AS item, 1 AS rank) TO '{typed}'")
    found = rank_in_lists(read_lists(typed), cases, np.array([1]), numbers, 2)
    assert found.ranking.ranks.values.tolist() == [1]
    words = Vocabulary.fit(InteractionLog.from_columns(["1"], ["10"]))
    cases = Cases(np.arange(1), Ragged.from_lists([[]]), Ragged.from_lists([[0]]))
    duckdb.execute(f"COPY (SELECT 1 AS user, 10 AS item, 1 AS rank) TO '{typed}'")
    found = rank_in_lists(read_lists(typed), cases, np.array(["1"], object), words, 2)
    assert found.ranking.ranks.values.tolist() == [1]


def test_what_is_no_list_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_lists(tmp_path / "none.csv")


@pytest.fixture(scope="module")
def fitted():
    log = attrec.simulate("community", num_users=30, num_items=20, events_per_user=6, seed=1)
    return log, attrec.fit(log, max_epochs=1, embedding_dim=8, cutoffs=(5,)).recommender


def test_unknown_items_cover_nothing(fitted, tmp_path):
    log, recommender = fitted
    path = tmp_path / "other.csv"
    rows = [
        (user, f"{'new' * (rank <= 5)}{log.item_ids[rank % 20]}", rank)
        for user in log.user_ids
        for rank in range(1, 11)
    ]
    path.write_text("user,item,rank\n" + "".join(f"{u},{i},{r}\n" for u, i, r in rows))
    found = attrec.evaluate(recommender, log, compare=path, with_baselines=False, cutoffs=(5, 8))
    theirs = found.systems["other.csv"].metrics
    assert theirs["hit_rate@5"]["mean"] == theirs["coverage@5"]["mean"] == 0
    assert theirs["coverage@8"]["mean"] == 3 / 20


def test_a_cutoff_beyond_the_catalogue_takes_no_memory(fitted, tmp_path):
    log, recommender = fitted
    path = tmp_path / "other.csv"
    path.write_text(f"user,item,rank\n{log.user_ids[0]},{log.item_ids[0]},1\n")
    found = attrec.evaluate(recommender, log, compare=path, cutoffs=(20, 2**31 - 1))
    for name in ("attrec", "popularity", "other.csv"):
        figures = found.systems[name].metrics
        for metric in ("hit_rate", "ndcg", "coverage", "novelty"):
            assert figures[f"{metric}@2147483647"] == figures[f"{metric}@20"], metric


@pytest.mark.parametrize("name", ["attrec", "popularity"])
def test_a_file_named_like_a_system_stands_beside_it(fitted, tmp_path, name):
    log, recommender = fitted
    path = tmp_path / name
    path.write_text(f"user,item,rank\n{log.user_ids[0]},{log.item_ids[0]},1\n")
    alone = attrec.evaluate(recommender, log).systems
    found = attrec.evaluate(recommender, log, compare=path).systems
    assert set(found) == {*alone, f"{name} (compared)"}
    for system, result in alone.items():
        assert found[system].metrics == result.metrics


def test_attrecs_own_lists_reach_attrecs_own_figures(tmp_path):
    log = attrec.simulate("community", num_users=50, num_items=30, events_per_user=10, seed=1)
    # The lists below know no date, and the model not either.
    options = {"recent_popularity": False, "max_epochs": 2, "embedding_dim": 8}
    result = attrec.fit(log, cutoffs=(5,), **options)
    split = leave_last_out(log)
    vocabulary = result.recommender.vocabulary
    cases = encode_cases(split.test, split.log, vocabulary)
    distances = NetworkScorer(result.recommender.network)(cases)
    path = tmp_path / "own.csv"
    with path.open("w") as file:
        file.write("user_id,item_id,rank\n")
        for row, user in enumerate(split.test.user_codes):
            seen = set(cases.histories[row].tolist())
            nearest = [i for i in distances[row].argsort().tolist() if i not in seen][:5]
            for rank, item in enumerate(nearest, start=1):
                file.write(f"{log.user_ids[user]},{vocabulary.item_ids[item]},{rank}\n")
    found = attrec.evaluate(result.recommender, log, compare=path)
    ours, theirs = found.systems["attrec"].metrics, found.systems["own.csv"].metrics
    for metric in ("hit_rate@5", "ndcg@5", "coverage@5", "novelty@5"):
        assert ours[metric]["mean"] == pytest.approx(theirs[metric]["mean"])
    assert found.differences["own.csv"]["hit_rate@5"]["excludes_zero"] is False
    assert "lists of 5 to 5 items" in found.protocol
