import csv
import json
import subprocess
import sys

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attrec
from attrec import artifact, recommender
from attrec.answers import Recommendation
from attrec.config import Options
from attrec.data.interactions import InteractionLog
from attrec.data.sequences import Sequences, last_items
from attrec.data.vocabulary import Vocabulary
from attrec.errors import ArtifactError, DeviceError, RequestError, UnknownIdError
from attrec.explain import read_intent
from attrec.foldin import user_factors
from attrec.model.network import AttRecNetwork
from attrec.recommender import Recommender

NUM_ITEMS = 30
FRAMES = [pl.DataFrame, pd.DataFrame, pa.table]


def build(*, integer=False, titles=True, seed=4, **options):
    """Twelve trained users, two that came later; the second of those took only unknown items."""
    random = np.random.default_rng(seed)
    user_name = (lambda u: u) if integer else (lambda u: f"u{u:02}")
    item_name = (lambda i: i + 100) if integer else (lambda i: f"{i:03}")
    users = [u for u in range(12) for _ in range(random.integers(1, 9))]
    items = [int(i) for i in random.integers(0, NUM_ITEMS, len(users))]
    users, items = [*users, *([0] * NUM_ITEMS)], [*items, *range(NUM_ITEMS)]
    log = InteractionLog.from_columns([user_name(u) for u in users], [item_name(i) for i in items])
    late = InteractionLog.from_columns(
        [user_name(u) for u in (20, 20, 20, 21)], [item_name(i) for i in (4, 7, 500, 501)]
    )
    vocabulary = Vocabulary.fit(log)
    extended = vocabulary.with_users_of(late)
    first, second = Sequences.from_log(log, extended), Sequences.from_log(late, extended)
    lists = [[*a, *b] for a, b in zip(first.histories, second.histories, strict=True)]
    chosen = Options.of(
        **{
            "embedding_dim": 8,
            "window_length": 4,
            "architecture": "paper",
            "init_std": 0.5,
            **options,
        }
    )
    network = AttRecNetwork(chosen.model, vocabulary.num_users, NUM_ITEMS, seed=seed)
    return Recommender(
        network,
        extended,
        Sequences(type(first.histories).from_lists(lists)),
        chosen,
        {str(item_name(i)): f"Film {i}" if i % 3 else None for i in range(NUM_ITEMS)}
        if titles
        else None,
        {"metrics": {"hit_rate@10": 0.25}},
    )


@pytest.fixture(scope="module")
def model():
    return build()


def naive(model, user_vector, history, k, hidden=(), allowed=None):
    """Items by the model's own equations, in float64, one item at a time."""
    net = model.network
    window = torch.full((1, net.config.window_length), -1)
    recent = history[-net.config.window_length :]
    if len(recent):
        window[0, -len(recent) :] = torch.as_tensor(recent)
    intent = net.intent(window, dtype=torch.float64)[0]
    weight = net.config.long_term_weight
    ranked = []
    for item in range(NUM_ITEMS):
        long_term = weight * (user_vector - net.item_long[item]).square().sum().item()
        short_term = (1 - weight) * (intent - net.item_short[item]).square().sum().item()
        if item not in hidden and (allowed is None or item in allowed):
            ranked.append((long_term + short_term, item, long_term, short_term))
    return sorted(ranked)[:k]


def check(found, expected, model):
    assert [r.rank for r in found] == list(range(1, len(expected) + 1))
    for place, (distance, item, long_term, short_term) in zip(found, expected, strict=True):
        assert place.item_id == model.vocabulary.item_ids[item]
        assert place.distance == pytest.approx(distance, abs=1e-5)
        assert place.long_term == pytest.approx(long_term, abs=1e-5)
        assert place.short_term == pytest.approx(short_term, abs=1e-5)
        assert place.long_term + place.short_term == pytest.approx(place.distance, abs=1e-12)


# Ranking


@pytest.mark.parametrize("aggregation", ["mean", "sum", "max", "min"])
@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_known_users_have_the_order_of_the_equations(aggregation, weight):
    model = build(aggregation=aggregation, long_term_weight=weight)
    for index in range(1, 12):
        history = model.histories.histories[index].tolist()
        user_vector = model.network.user_long[index].double()
        found = model.recommend(model.vocabulary.user_ids[index], k=7)
        check(found, naive(model, user_vector, history, 7, hidden=history), model)
        seen_too = model.recommend(model.vocabulary.user_ids[index], k=7, exclude_seen=False)
        check(seen_too, naive(model, user_vector, history, 7), model)


def test_late_users_and_given_histories_are_folded_in(model):
    history = [4, 7]
    factors = user_factors(
        model.network.item_long, type(model.histories.histories).from_lists([history])
    )[0]
    expected = naive(model, factors, history, 5, hidden=history)
    check(model.recommend("u20", k=5), expected, model)
    check(model.recommend(history=["004", "no such item", "007"], k=5), expected, model)
    check(model.recommend(history=np.array(["004", "007"]), k=5), expected, model)


def test_a_known_user_keeps_the_trained_row_with_another_history(model):
    found = model.recommend("u03", history=["004", "007"], k=5)
    row = model.network.user_long[3].double()
    check(found, naive(model, row, [4, 7], 5, hidden=[4, 7]), model)


def test_allow_and_deny(model):
    row, history = model.network.user_long[2].double(), model.histories.histories[2].tolist()
    found = model.recommend(
        "u02", allow=["001", "005", "006", "010", "zzz"], deny=["005", "yyy"], exclude_seen=False
    )
    check(found, naive(model, row, history, 10, allowed=[1, 6, 10]), model)
    denied = model.recommend("u02", k=99, deny=["000"], exclude_seen=False)
    check(denied, naive(model, row, history, 99, hidden=[0]), model)
    assert len(denied) == NUM_ITEMS - 1


def test_titles_stand_beside_the_items(model):
    found = model.recommend("u01", k=NUM_ITEMS, exclude_seen=False)
    for place in found:
        number = int(place.item_id)
        assert place.title == (f"Film {number}" if number % 3 else None)
    assert json.loads(json.dumps(found[0].to_dict()))["rank"] == 1
    assert isinstance(found[0], Recommendation)


def test_integer_ids_come_back_as_integers():
    model = build(integer=True)
    found = model.recommend(3, k=2)
    assert all(type(place.item_id) is int for place in found)
    assert model.recommend(history=[104, 107], k=2) == model.recommend(20, k=2)
    with pytest.raises(RequestError, match="item ids are integers"):
        model.recommend(history=["104"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, RequestError, "name a user of the model or give a history"),
        ({"user": "who"}, UnknownIdError, r"'who' is not in the model .* history of item ids"),
        ({"user": 3}, UnknownIdError, "user ids are strings"),
        ({"user": "u21"}, RequestError, "none of the user's items is known"),
        ({"user": "u01", "k": 0}, RequestError, "at least 1"),
        ({"user": "u01", "k": 2.5}, RequestError, "k = 2.5 is no whole number"),
        ({"user": "u01", "k": True}, RequestError, "k = True is no whole number"),
        ({"user": "u01", "like": {"zz"}}, UnknownIdError, "item 'zz' is not in the model"),
        ({"history": []}, RequestError, "has 0 items"),
        ({"history": ["x", "y"]}, RequestError, "2 items and none of them is known"),
        ({"user": "u01", "history": ["x"]}, RequestError, "none of them is known"),
        ({"history": "004"}, RequestError, r"write \['004'\]"),
        ({"user": "u01", "allow": ["x"]}, RequestError, "leave no item"),
        ({"user": "u01", "allow": ["001"], "deny": ["001"]}, RequestError, "leave no item"),
        ({"user": "u01", "deny": [f"{i:03}" for i in range(30)]}, RequestError, "leave no item"),
        ({"user": "u00"}, RequestError, "nothing is left to rank"),
        ({"user": "u01", "deny": [1]}, UnknownIdError, "item 1: this model's item ids are strings"),
        ({"user": "u01", "allow": ["001", None]}, UnknownIdError, "item None: this model's"),
        ({"user": "u01", "like": ["002"], "strength": "x"}, RequestError, "'x' is no number"),
        ({"user": "u01", "long_term_weight": "x"}, RequestError, "'x' is no number"),
    ],
)
def test_requests_that_cannot_be_answered(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model.recommend(**arguments)


@pytest.mark.parametrize("given", [["107"], [107.0], pd.Series([107, None]), [107, np.nan]])
def test_what_shall_be_denied_is_never_passed_over(given):
    model = build(integer=True)
    assert 107 not in [place.item_id for place in model.recommend(3, k=99, deny=[107, 99_999])]
    with pytest.raises(
        UnknownIdError, match=r"item ('107'|107.0|nan): this model's item ids are int"
    ):
        model.recommend(3, deny=given)


def test_large_integers_of_any_width_are_told_apart():
    users, items = 2**60 + np.arange(40), 2**60 + np.arange(NUM_ITEMS)
    log = InteractionLog.from_columns(np.repeat(users, 6), np.resize(items, 240))
    vocabulary = Vocabulary.fit(log)
    for width in (np.int64, np.uint64, object):
        assert vocabulary.encode_users(users.astype(width)).tolist() == list(range(40))
    assert vocabulary.encode_users([*users.tolist(), 2**63, 2**70])[-3:].tolist() == [39, -1, -1]
    assert vocabulary.encode_users(np.array([2**63, 2**60], np.uint64)).tolist() == [-1, 0]
    model = attrec.fit(log, preset="paper-sparse", embedding_dim=4, max_epochs=1).recommender
    denied = items[:20].astype(np.uint64)
    left = [place.item_id for place in model.recommend(int(users[0]), k=99, deny=denied)]
    assert set(left).isdisjoint(denied.tolist())


@pytest.mark.parametrize("k", [np.int64(3), np.int32(3)])
def test_a_count_may_be_a_number_of_numpy(model, k):
    assert model.recommend("u02", k=k) == model.recommend("u02", k=3)


# Batches


@pytest.mark.parametrize("block", [1, 3, 1024])
def test_all_users_equal_single_users(model, block, monkeypatch):
    monkeypatch.setattr(recommender, "_USERS_AT_ONCE", block)
    table = model.recommend_batch(k=6)
    assert table.left_out.tolist() == ["u00", "u21"]
    rows = list(table.rows())
    for user in model.vocabulary.user_ids:
        own = [row for row in rows if row.user_id == user]
        if user in table.left_out:
            assert own == []
            continue
        for row, place in zip(own, model.recommend(user, k=6), strict=True):
            assert row.item_id == place.item_id
            assert (row.rank, row.title) == (place.rank, place.title)
            assert row.distance == pytest.approx(place.distance, abs=1e-5)
            assert row.long_term == pytest.approx(place.long_term, abs=1e-5)


@given(
    st.lists(st.lists(st.integers(0, 29), min_size=1, max_size=6), min_size=1, max_size=5),
    st.booleans(),
)
def test_histories_in_a_batch_equal_single_histories(model, lists, exclude_seen):
    histories = [[f"{item:03}" for item in history] for history in lists]
    deny = ["003", "004"]
    table = model.recommend_batch(
        histories=histories, k=4, exclude_seen=exclude_seen, deny=deny
    ).to_dict()
    for number, history in enumerate(histories):
        single = model.recommend(history=history, k=4, exclude_seen=exclude_seen, deny=deny)
        mine = [row for row, name in enumerate(table["user_id"]) if name == number]
        assert [table["item_id"][row] for row in mine] == [place.item_id for place in single]
        np.testing.assert_allclose(
            [table["distance"][row] for row in mine], [p.distance for p in single], atol=1e-5
        )


def test_users_with_histories_and_their_order(model):
    table = model.recommend_batch(["u05", "u02"], histories=[["001"], ["002"]], k=2)
    assert table.user_id.tolist() == ["u05", "u05", "u02", "u02"]
    assert [r.item_id for r in model.recommend("u02", history=["002"], k=2)] == table.item_id[
        2:
    ].tolist()


def test_a_column_of_a_frame_names_users_by_its_values(model):
    users = pd.Series(["u01", "zz"], index=[1, 0])
    with pytest.raises(UnknownIdError, match="user 'zz' is not in the model"):
        model.recommend_batch(users)
    with pytest.raises(RequestError, match="log is a str; read it first"):
        model.recommend_batch(log="log.csv")


def test_batches_that_cannot_be_answered(model):
    with pytest.raises(UnknownIdError, match=r"'a' \(and 1 more\)"):
        model.recommend_batch(["u01", "a", "b"])
    with pytest.raises(RequestError, match="2 users and 1 histories"):
        model.recommend_batch(["u01", "u02"], histories=[["001"]])
    with pytest.raises(RequestError, match="history 1 has 1 items"):
        model.recommend_batch(histories=[["001"], ["x"]])
    with pytest.raises(RequestError, match="at least 1"):
        model.recommend_batch(k=0)
    with pytest.raises(RequestError, match="one id where a list"):
        model.recommend_batch("u01")


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame, pa.table])
def test_a_row_without_a_user_is_named(make):
    frame = make({"user_id": [3, 4, None]})
    with pytest.raises(RequestError, match="column 'user_id', row 2: there is no user"):
        build(integer=True).recommend_batch(frame)


def test_no_users_no_rows(model):
    table = model.recommend_batch([])
    assert len(table) == 0
    assert list(table.rows()) == []
    assert table.to_dict()["item_id"] == []


@pytest.mark.parametrize("make", FRAMES)
@pytest.mark.parametrize("column", ["user_id", "name"])
def test_a_frame_comes_back_as_the_kind_that_went_in(model, make, column):
    frame = make({column: ["u02", "u20"]})
    found = model.recommend_batch(frame, k=3)
    assert type(found) is type(frame)
    expected = model.recommend_batch(["u02", "u20"], k=3).to_dict()
    values = found.to_pydict() if make is pa.table else found.to_dict()
    for name, wanted in expected.items():
        got = values[name]
        got = list(got.values()) if isinstance(got, dict) else list(got)
        assert [None if pd.isna(value) else value for value in got] == wanted


def test_a_frame_of_several_columns_names_the_users(model):
    assert len(model.recommend_batch(pl.DataFrame({"a": [1], "user_id": ["u02"]}), k=2)) == 2
    with pytest.raises(RequestError, match="columns a, b; name"):
        model.recommend_batch(pl.DataFrame({"a": ["u01"], "b": [1]}))


# Files


def read_back(path):
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [tuple(v if v else None for v in row.values()) for row in csv.DictReader(file)]
    if path.suffix == ".parquet":
        with duckdb.connect() as connection:
            return connection.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
    return [tuple(json.loads(line).values()) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("titles", [False, True])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "ndjson", "parquet", "PARQUET"])
def test_tables_are_written_and_read_back(tmp_path, suffix, titles, integer):
    table = build(titles=titles, integer=integer).recommend_batch(k=3)
    path = tmp_path / f"out.{suffix}"
    path.write_text("old")
    table.write(path)
    rows = [row if titles else (*row[:3], *row[4:]) for row in table.rows()]
    if suffix == "PARQUET":
        path = path.rename(tmp_path / "out.parquet")
    found = read_back(path)
    if suffix == "csv":
        rows = [tuple(None if v is None else str(v) for v in row) for row in rows]
    assert [tuple(row) for row in rows] == found
    assert len(list(tmp_path.iterdir())) == 1


def test_odd_texts_survive_in_every_format(tmp_path):
    model = build()
    odd = 'Amélie, "the"\nfilm; ⚡'
    model.titles.update(dict.fromkeys([f"{i:03}" for i in range(30)], odd))
    table = model.recommend_batch(["u02"], k=2)
    for suffix in ("csv", "jsonl", "parquet"):
        table.write(tmp_path / f"t.{suffix}")
        assert {row[3] for row in read_back(tmp_path / f"t.{suffix}")} == {odd}


def test_an_empty_table_is_written_with_its_columns(model, tmp_path):
    model.recommend_batch([]).write(tmp_path / "t.parquet")
    assert read_back(tmp_path / "t.parquet") == []


def test_what_cannot_be_written_is_told(model, tmp_path):
    table = model.recommend_batch(["u02"], k=1)
    with pytest.raises(RequestError, match=r"\.csv, \.jsonl"):
        table.write(tmp_path / "out.xlsx")
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=r"out\.csv: cannot be written \("):
        table.write(tmp_path / "file" / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_parquet_needs_no_frame_library(tmp_path):
    build().save(tmp_path / "m")
    code = (
        "import sys\n"
        "for name in ('pandas', 'polars', 'pyarrow'): sys.modules[name] = None\n"
        "from attrec.recommender import Recommender\n"
        "Recommender.load(sys.argv[1]).recommend_batch(k=2).write(sys.argv[2])\n"
    )
    target = tmp_path / "t.parquet"
    subprocess.run([sys.executable, "-c", code, tmp_path / "m", target], check=True)
    assert len(read_back(target)) == 24


# Reasons


@pytest.mark.parametrize("aggregation", ["mean", "sum", "max", "min"])
@pytest.mark.parametrize(
    "request_", [{"user": "u03"}, {"user": "u20"}, {"history": ["001", "002", "009"]}]
)
def test_an_explanation_adds_up_and_agrees_with_the_list(aggregation, request_):
    model = build(aggregation=aggregation)
    for place in model.recommend(**request_, k=3):
        found = model.explain(**request_, item=place.item_id, versus="017")
        assert found.distance == pytest.approx(place.distance, abs=1e-5)
        assert found.long_term == pytest.approx(place.long_term, abs=1e-5)
        parts = sum(event.part for event in found.events) + found.excess + found.constant
        assert parts == pytest.approx(found.short_term, abs=1e-9)
        assert found.short_term + found.long_term == pytest.approx(found.distance, abs=1e-9)
        pulls = sum(event.pull for event in found.events) + found.excess_pull
        assert pulls == pytest.approx(found.short_term_advantage, abs=1e-9)
        everything = [model.explain(**request_, item=i) for i in model.vocabulary.item_ids]
        average = np.mean([other.short_term for other in everything])
        assert pulls == pytest.approx(average - found.short_term, abs=1e-9)
        total = sum(found.versus.events) + found.versus.excess + found.versus.long_term
        assert total == pytest.approx(everything[17].distance - found.distance, abs=1e-9)
        assert found.versus.difference == pytest.approx(total, abs=1e-9)


def test_an_explanation_names_the_window_in_order(model):
    found = model.explain(history=["001", "000", "002", "004", "000"], item="009")
    assert [event.item_id for event in found.events] == ["000", "002", "004", "000"]
    assert [event.title for event in found.events] == [None, "Film 2", "Film 4", None]
    window = last_items(type(model.histories.histories).from_lists([[1, 0, 2, 4, 0]]), 4)[0]
    shares = read_intent(model.network, window).event_shares
    assert [event.share for event in found.events] == shares.tolist()
    assert (found.user_id, found.item_id, found.title) == (None, "009", None)
    assert found.versus is None


def test_an_explanation_is_json_and_text():
    model = build(aggregation="sum")
    model.titles["004"] = "A very long title that no table of a terminal has any room for"
    found = model.explain("u20", item="008", versus="011")
    values = json.loads(json.dumps(found.to_dict()))
    assert values["events"][0]["item_id"] == "004"
    assert values["versus"]["events"] == list(found.versus.events)
    text = str(found)
    assert text.startswith("Film 8 [008]: distance ")
    for words in ("A very long title that no table of a te…", "Film 7 [007]", "excess of the sum"):
        assert text.count(words) == 2
    assert f"than Film 11 [011] by {abs(found.versus.difference):.4g}" in text
    assert ("nearer than" in text) == (found.versus.difference > 0)
    assert max(map(len, text.splitlines())) <= 100
    plain = str(build().explain("u20", item="006"))
    assert plain.startswith("006: distance ")
    assert "than" not in plain
    assert "excess" not in plain


def test_numpy_ids_come_back_plain():
    model = build(integer=True)
    user, item = model.vocabulary.user_ids[3], model.vocabulary.item_ids[4]
    found = model.explain(user, item=item, versus=item).to_dict()
    assert json.loads(json.dumps(found))["user_id"] == 3
    assert model.recommend(user, k=1) == model.recommend(3, k=1)


def test_reasons_name_the_events_that_pull_most(model):
    items = [place.item_id for place in model.recommend("u03", k=5)]
    for item, named in zip(items, model.reasons("u03", items), strict=True):
        pulls = {}
        for event in model.explain("u03", item=item).events:
            name = event.title or event.item_id
            pulls[name] = pulls.get(name, 0.0) + event.pull
        best = sorted((p, n) for n, p in pulls.items() if p > 0)[::-1]
        assert named == [name for _, name in best[:2]]
        assert model.reasons("u03", [item], top=1) == [named[:1]]
    assert model.reasons(history=["004"], items=["004"]) == [["Film 4"]]


def test_reasons_are_empty_where_no_event_pulls():
    model = build()
    far = model.recommend(history=["004"], k=30, exclude_seen=False)
    farthest = max(far, key=lambda place: place.short_term).item_id
    assert model.reasons(history=["004"], items=[farthest]) == [[]]


def test_explanations_that_cannot_be_given(model):
    with pytest.raises(RequestError, match="name the item"):
        model.explain("u01")
    with pytest.raises(UnknownIdError, match=r"item 'x' is not in the model \(item ids are str"):
        model.explain("u01", item="x")
    with pytest.raises(UnknownIdError, match="item 'y'"):
        model.explain("u01", item="001", versus="y")
    with pytest.raises(UnknownIdError, match="user 'who'"):
        model.explain("who", item="001")
    with pytest.raises(UnknownIdError, match="item 'z'"):
        model.reasons("u01", ["001", "z"])


# The artifact


@pytest.mark.parametrize("integer", [False, True])
def test_a_loaded_model_answers_as_the_saved_one(tmp_path, integer):
    model = build(integer=integer, aggregation="max", window_length=3)
    model.save(tmp_path / "m")
    loaded = Recommender.load(tmp_path / "m")
    assert loaded.recommend_batch(k=4).to_dict() == model.recommend_batch(k=4).to_dict()
    assert loaded.info() == model.info()
    assert loaded.options == model.options
    user = model.vocabulary.user_ids[3]
    item = model.vocabulary.item_ids[5]
    assert loaded.explain(user, item=item) == model.explain(user, item=item)
    for name, table in model.network.state_dict().items():
        assert torch.equal(table, loaded.network.state_dict()[name])
    loaded.save(tmp_path / "again")
    names = [{p.name for p in (tmp_path / x).iterdir()} for x in ("m", "again")]
    assert names[0] == names[1]


def test_info_is_json_and_counts(model):
    found = json.loads(json.dumps(model.info()))
    assert (found["users"], found["trained_users"], found["items"]) == (14, 12, 30)
    assert found["events"] == len(model.histories.histories.values)
    assert found["parameters"] == (30 + 30 + 12 + 8) * 8
    assert found["titles"] == 20
    assert found["record"]["metrics"] == {"hit_rate@10": 0.25}
    assert found["options"]["model"]["embedding_dim"] == 8


def test_parts_of_two_models_do_not_fit():
    model = build()
    other = AttRecNetwork(model.options.model, 3, NUM_ITEMS)
    with pytest.raises(ArtifactError, match="3 rows of U and 12 trained users"):
        Recommender(other, model.vocabulary, model.histories, model.options)


def test_a_device_that_is_not_there(tmp_path):
    build().save(tmp_path / "m")
    with pytest.raises(DeviceError, match="'abacus' cannot be used"):
        Recommender.load(tmp_path / "m", device="abacus")


def stored(tmp_path, change):
    """Save a model with one part changed, hashes and all."""
    model = build()
    model.save(tmp_path / "m")
    found = artifact.load_artifact(tmp_path / "m")
    parts = {"summary": found.summary, "tensors": found.tensors, "documents": found.documents}
    change(parts)
    artifact.save_artifact(tmp_path / "bad", **parts)
    return tmp_path / "bad"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["tensors"].pop("tables"), "there is no 'tables'"),
        (lambda p: p["tensors"]["tables"].pop("item_long"), "there is no 'item_long'"),
        (lambda p: p["summary"].pop("record"), "there is no 'record'"),
        (lambda p: p["documents"]["vocabulary"].update(users=3), "is damaged"),
        (lambda p: p["documents"]["vocabulary"]["items"].update(kind="float"), "no 'float'"),
        (lambda p: p["documents"]["vocabulary"]["items"]["ids"].pop(), "30 with 29 items"),
        (lambda p: p["documents"]["vocabulary"]["items"]["ids"].append(3), "is no string"),
        (lambda p: p["documents"]["vocabulary"].update(num_trained_users=99), "99 with 14"),
        (lambda p: p["documents"]["vocabulary"].update(num_trained_users=11), "12 rows of U"),
        (lambda p: p["summary"]["options"]["model"].update(embedding_dim=6), r"shape \(30, 8\)"),
        (lambda p: p["summary"]["options"]["model"].update(tails=6), "cannot be read by this"),
        (
            lambda p: p["tensors"]["tables"].update(projection=torch.ones(8, 8).long()),
            "projection is torch.int64",
        ),
        (
            lambda p: p["tensors"]["tables"].update(item_long=torch.ones(29, 8)),
            r"item_long is .* \(29, 8\)",
        ),
        (lambda p: p["tensors"]["histories"]["values"].fill_(30), "vocabulary lacks"),
        (lambda p: p["tensors"]["histories"]["offsets"].fill_(0), "offsets"),
        (lambda p: p["tensors"]["histories"]["offsets"][3].fill_(-1), "offsets"),
    ],
)
def test_parts_that_do_not_fit_are_told(tmp_path, change, message):
    with pytest.raises(ArtifactError, match=message):
        Recommender.load(stored(tmp_path, change))


def test_csv_for_spreadsheets_runs_no_formula(tmp_path):
    log = attrec.InteractionLog.from_columns(
        ["=cmd()", "+1", "b", "b", "=cmd()", "+1"] * 4, [f"@{i % 8}" for i in range(24)]
    )
    options = {"embedding_dim": 4, "max_epochs": 1, "architecture": "paper", "init_std": 0.3}
    table = attrec.fit(log, **options).recommender.recommend_batch(k=2, exclude_seen=False)
    table.write(tmp_path / "plain.csv")
    table.write(tmp_path / "safe.csv", for_spreadsheets=True)
    plain = (tmp_path / "plain.csv").read_text()
    safe = (tmp_path / "safe.csv").read_text()
    assert "\n=cmd()," in plain
    assert "\n'=cmd()," in safe
    assert ",'@" in safe
    assert safe.replace("'", "") == plain
