"""Attributes of items: read, turned into numbers, learnt from, kept, and what a new item gets."""

import dataclasses
import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

import attrec
from attrec.api import item_features, train_on
from attrec.config import ModelConfig, Options
from attrec.data.features import ItemFeatures
from attrec.data.items import Items, read_items
from attrec.data.splits import split_log
from attrec.errors import (
    ArtifactError,
    CheckpointError,
    ConfigError,
    DataError,
    InterruptedTraining,
    RequestError,
)
from attrec.model.additive import AdditiveNetwork
from attrec.model.prior import Attributes
from attrec.new_items import fold_in_items, predicted_keys
from tests.shop import shop_log

SMALL = {
    "embedding_dim": 16, "window_length": 12, "learning_rate": 0.01, "warmup_steps": 10,
    "dropout": 0.1, "max_epochs": 2, "min_steps": 20,
}  # fmt: skip


def test_categories_of_text_files(tmp_path):
    csv = tmp_path / "items.csv"
    csv.write_text("item_id,title,genre,shelf\n1,A,War|Drama,x y\n2,B,Drama,\n3,C,,z\n")
    found = read_items(csv)
    assert found.categories("genre") == {"1": ["War", "Drama"], "2": ["Drama"]}
    assert found.categories("shelf") == {"1": ["x y"], "3": ["z"]}
    atomic = tmp_path / "x.item"
    atomic.write_text("item_id:token\ttitle:token\tclass:token_seq\n1\tA\tWar Drama\n")
    assert read_items(atomic).categories("class") == {"1": ["War", "Drama"]}
    bare = tmp_path / "movies.dat"
    bare.write_text("1::A (1999)::War|Drama\n2::B (2000)::Drama\n")
    assert read_items(bare).categories("3") == {"1": ["War", "Drama"], "2": ["Drama"]}


def test_a_parquet_file_of_items(tmp_path):
    path = tmp_path / "items.parquet"
    frame = {
        "item_id": ["a", "b", "c"], "title": ["A", None, "C"],
        "made": [[0.0, 3.0], None, [2.0, 1.0]],
        "tags": [["x", "y"], ["x"], None], "year": [1999, None, 2001],
    }  # fmt: skip
    pl.DataFrame(frame).write_parquet(path)
    found = read_items(path)
    assert found.titles == {"a": "A", "c": "C"}
    assert found.categories("tags") == {"a": ["x", "y"], "b": ["x"]}
    assert found.categories("year") == {"a": ["1999"], "c": ["2001"]}
    ids, rows = found.vectors_of("made")
    assert (ids, rows.tolist()) == (["a", "c"], [[0.0, 3.0], [2.0, 1.0]])


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ({"thing": ["a"], "v": [[1.0]]}, "no column is known to hold ids"),
        ({"item_id": ["a", "b"], "v": [[1.0], [1.0, 2.0]]}, "vectors of 1 and 2 numbers"),
        ({"item_id": ["a"], "v": [[math.nan]]}, "not finite"),
    ],
)
def test_a_parquet_file_that_cannot_be_taken(tmp_path, frame, words):
    pl.DataFrame(frame).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=words):
        read_items(tmp_path / "items.parquet").vectors_of("v")


def test_a_column_that_nobody_asks_for_stops_no_other(tmp_path):
    frame = {
        "item_id": ["a", "b", "c"], "title": ["A", "B", "C"], "genre_ids": [[1, 2], [2], []],
        "pair": [[1, 2], [3, 4], []], "v": [[1.0], [1.0, 2.0], None],
    }  # fmt: skip
    pl.DataFrame(frame).write_parquet(tmp_path / "items.parquet")
    found = read_items(tmp_path / "items.parquet")
    assert found.titles == {"a": "A", "b": "B", "c": "C"}
    assert found.categories("genre_ids") == {"a": ["1", "2"], "b": ["2"]}
    with pytest.raises(DataError, match="'genre_ids': vectors of 1 and 2 numbers"):
        found.vectors_of("genre_ids")
    assert found.categories("pair") == {"a": ["1", "2"], "b": ["3", "4"]}
    assert found.vectors_of("pair")[1].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_a_column_that_is_not_there():
    items = Items({}, {"genre": {"1": "War"}})
    with pytest.raises(ConfigError, match=r"item_categories: .* no column 'genres'; it has genre"):
        ItemFeatures.of(items, np.array([1]), "genres")
    with pytest.raises(ConfigError, match=r"item_vectors: .* no column 'v'"):
        ItemFeatures.of(items, np.array([1]), None, "v")
    with pytest.raises(ConfigError, match="name the item file"):
        item_features(None, np.array([1]), Options.of(item_categories="genre"))


def test_features_by_hand():
    rows = np.array([[2.0, 0.0], [0.0, 0.0]], np.float32)
    items = Items(
        {}, {"a": {"1": "x|y", "2": "y", "3": "x|z"}, "b": {"1": "x", "3": "x"}},
        vectors={"v": (["1", "2"], rows)},
    )  # fmt: skip
    found = ItemFeatures.of(items, np.array([3, 2, 7]), "a, b", "v")
    assert found.names == ("a=x", "a=y", "b=x")  # z is one item's alone
    assert [row.tolist() for row in found.categories] == [[0, 2], [1], []]
    np.testing.assert_allclose(found.vectors, [[0, 0], [-1, 0], [0, 0]])  # centred, of length 1
    assert len(found) == 3
    other = ItemFeatures.of(items, np.array([3, 2, 7]), "a", "v")
    assert len({found.digest(), other.digest()}) == 2


attributes = st.lists(
    st.tuples(st.lists(st.integers(0, 3), max_size=3, unique=True), st.floats(-2, 2)),
    min_size=1, max_size=6,
)  # fmt: skip


def made(rows):
    lists = [categories for categories, _ in rows]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in lists])])
    flat = np.array([each for categories in lists for each in categories], np.int64)
    vectors = np.array([[value, 1.0] for _, value in rows], np.float32)
    return Attributes(4, flat, offsets, vectors)


def network(rows, tied=True):
    config = ModelConfig(embedding_dim=6, window_length=5, heads=2, blocks=1, tied_embeddings=tied)
    return AdditiveNetwork(config, 0, len(rows), attributes=made(rows), dtype=torch.float64)


@torch.no_grad()
@settings(max_examples=40)
@given(attributes, st.booleans(), st.data())
def test_a_prior_is_the_sum_of_what_is_known(rows, tied, data):
    model = network(rows, tied)
    for side in ("context", "key"):
        of = "key" if tied else side
        table = getattr(model.prior, f"category_{of}")
        mapped = getattr(model.prior, f"vector_{of}")
        expected = torch.stack(
            [
                sum((table[c] for c in categories), torch.zeros(6, dtype=torch.float64))
                / math.sqrt(max(1, len(categories)))
                + value * mapped[0] + mapped[1]
                for categories, value in rows
            ]
        )  # fmt: skip
        found = model.prior.rows(side)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        chosen = torch.tensor(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5))).long()
        torch.testing.assert_close(model.prior.rows(side, chosen), found[chosen])
        twice = model.prior.followed_by(len(rows), made(rows))
        torch.testing.assert_close(twice.rows(side), torch.cat([found, found]))
        kept = twice.keeping(chosen.unique())
        torch.testing.assert_close(kept.rows(side), found[chosen.unique()])
        for mine, theirs in zip(twice.behind(len(rows))[1:], made(rows)[1:], strict=True):
            assert np.array_equal(mine, theirs)
    table = model.item_key if tied else model.item_context
    torch.testing.assert_close(model.contexts(), table + model.prior.rows("context"))
    whole = model.item_key + model.prior.rows("key")
    torch.testing.assert_close(model.keys(), whole / whole.norm(dim=1, keepdim=True))


@pytest.fixture(scope="module")
def shop():
    """Users stay with one of four kinds of items; the item file tells the kinds."""
    log, kinds = shop_log()
    return log, Items({}, {"kind": {str(i): f"k{kinds[i]}" for i in range(60)}}), kinds


def test_an_item_nobody_took_is_found_by_its_kind(shop):
    log, items, kinds = shop
    new = np.arange(0, 60, 10)
    old = log.take(np.flatnonzero(~np.isin(log.item_ids[log.item_codes], new)))
    options = Options.of(**{**SMALL, "max_epochs": 6}, item_categories="kind", retrain=False)
    split = split_log(old, options.protocol)
    trained = train_on(split.train, options, validate_on=split, items=items)
    features = item_features(items, new, options)
    known = Attributes(
        len(features.names), features.categories.values, features.categories.offsets,
        features.vectors,
    )  # fmt: skip
    with torch.no_grad():
        prior, trained_keys = trained.network.prior, trained.network.keys()
        later = prior.followed_by(len(trained_keys), known).rows("key")[len(trained_keys) :]
        keys = predicted_keys(trained_keys, prior.rows("key"), later)
        # What all keys have in common says nothing of a kind.
        common = trained_keys.double().mean(dim=0)
        cosines = (
            normalize(normalize(keys, dim=1) - common, dim=1)
            @ normalize(trained_keys.double() - common, dim=1).T
        )
    there = kinds[trained.vocabulary.item_ids]
    for row, item in zip(cosines, new, strict=True):
        same = torch.from_numpy(there == kinds[item])
        assert row[same].min() > row[~same].max()
        assert row[same].mean() > row[~same].mean() + 0.3


def test_a_model_with_a_prior_is_kept_and_answers_as_before(shop, tmp_path):
    log, items, _ = shop
    result = attrec.fit(log, items=items, item_categories="kind", **SMALL)
    without = attrec.fit(log, items=items, **SMALL)
    assert result.recommender.record["item_categories"] == [f"kind=k{k}" for k in range(4)]
    assert result.recommender.network.prior is not None
    assert without.recommender.network.prior is None
    result.recommender.save(tmp_path / "model")
    loaded = attrec.load(tmp_path / "model")
    for user in log.user_ids[:10]:
        ours = [answer.to_dict() for answer in result.recommender.recommend(user)]
        assert ours == [answer.to_dict() for answer in loaded.recommend(user)]
    torch.testing.assert_close(
        loaded.network.prior.category_key, result.recommender.network.prior.category_key
    )


def test_vectors_of_another_model_are_learnt_from(shop):
    log, items, kinds = shop
    rows = np.eye(4, dtype=np.float32)[kinds]
    known = dataclasses.replace(items, vectors={"v": ([str(i) for i in range(60)], rows)})
    result = attrec.fit(log, items=known, item_vectors="v", **SMALL)
    prior = result.recommender.network.prior
    assert prior.vector_key.shape == (4, 16)
    assert result.evaluation.systems["attrec"].metrics["hit_rate@10"]["mean"] > 0.3


def test_only_what_the_item_file_describes_is_placed_without_events(shop):
    log, items, _ = shop
    served = attrec.fit(log, items=items, item_categories="kind", **SMALL).recommender
    # Who takes them has no history that could say anything of them.
    end = float(log.timestamps.max())
    strangers = attrec.InteractionLog.from_columns([901, 902], [900, 901], [end + 1, end + 2])
    described = Items({}, {"kind": {**items.attributes["kind"], "900": "k1"}})
    found = attrec.update(served, strangers, items=described)
    assert (found.summary.folded_in, found.summary.unplaced) == (1, 1)
    assert found.summary.unplaced_ids == (901,)


def test_items_that_nobody_took_come_in_with_the_room_they_are_given(shop):
    log, items, kinds = shop
    served = attrec.fit(log, items=items, item_categories="kind", **SMALL).recommender
    file = Items({"903": "New"}, {"kind": {**items.attributes["kind"], "903": "k1", "904": "?"}})
    nothing = log.take(slice(0, 0))
    assert attrec.update(served, nothing, items=file).summary.new_items == 0
    found = attrec.update(served, nothing, items=file, untaken=True, room=0.01)
    assert found.summary.new_item_ids == (903,)  # the model knows nothing of kind "?"
    assert (found.summary.folded_in, found.summary.events) == (1, 0)
    lists = {user: found.recommender.recommend(user, k=10) for user in log.user_ids}
    holders = [user for user, places in lists.items() if 903 in [p.item_id for p in places]]
    mine = [kinds[log.item_codes[log.user_codes == user][0]] == 1 for user in log.user_ids]
    of_kind = [user for user, same in zip(log.user_ids, mine, strict=True) if same]
    assert len(holders) > 0.9 * len(of_kind) > 0
    assert len(set(holders) & set(of_kind)) > 0.9 * len(holders)
    for user in holders[:3]:
        parts = found.recommender.explain(user, 903)
        (place,) = [p for p in lists[user] if p.item_id == 903]
        assert parts.distance == pytest.approx(place.distance, abs=1e-5)
    cramped = attrec.update(served, nothing, items=file, untaken=True, room=0.0).recommender
    ranks = [
        next(p.rank for p in each.recommend(of_kind[0], k=60) if p.item_id == 903)
        for each in (found.recommender, cramped)
    ]
    assert ranks[0] < ranks[1]


@pytest.fixture(scope="module")
def learnt(shop):
    """A model of kinds and of vectors, and the item file."""
    log, items, kinds = shop
    rows = np.eye(4, dtype=np.float32)[kinds] + 3.0
    file = dataclasses.replace(items, vectors={"v": ([str(i) for i in range(60)], rows)})
    result = attrec.fit(log, items=file, item_categories="kind", item_vectors="v", **SMALL)
    return result.recommender, file


def described(*new):
    """An item file of these alone: their kinds, and vectors as the training's file had them."""
    kinds = {str(item): f"k{kind}" for item, kind in new}
    rows = np.array([np.eye(4)[kind] + 3.0 for _, kind in new], np.float32)
    return Items({}, {"kind": kinds}, {}, {"v": (list(kinds), rows)})


def of_all(*files):
    kinds = {item: kind for file in files for item, kind in file.attributes["kind"].items()}
    rows = np.concatenate([file.vectors["v"][1] for file in files])
    return Items({}, {"kind": kinds}, {}, {"v": (list(kinds), rows)})


def test_a_file_of_new_items_alone_says_what_the_whole_file_says(shop, learnt):
    nothing = shop[0].take(slice(0, 0))
    served, whole = learnt
    new = described((900, 1), (901, 1), (902, 3))
    keys = []
    for file in (new, of_all(whole, new), of_all(new, whole)):
        found = attrec.update(served, nothing, items=file, untaken=True, room=0.05)
        assert found.summary.new_item_ids == (900, 901, 902)
        keys.append(found.recommender.network.folded_key)
    assert torch.equal(keys[0], keys[1])
    assert torch.equal(keys[0], keys[2])
    one = attrec.update(served, nothing, items=described((902, 3)), untaken=True, room=0.05)
    cosine = torch.cosine_similarity(one.recommender.network.folded_key[0], keys[0][2], dim=0)
    assert cosine > 0.999


def test_what_an_update_was_told_of_items_stays(shop, learnt, tmp_path):
    log = shop[0]
    nothing, served = log.take(slice(0, 0)), learnt[0]
    new = described((900, 1), (901, 2))
    first = attrec.update(served, nothing, items=new, untaken=True, room=0.05).recommender
    first.save(tmp_path / "model")
    loaded = attrec.load(tmp_path / "model")
    again = attrec.update(loaded, nothing)
    assert (again.summary.folded_in, again.summary.unplaced) == (2, 0)
    assert torch.equal(again.recommender.network.folded_key, first.network.folded_key)
    # Another file tells of another item, and of one of these anew.
    more = described((902, 3), (901, 0))
    second = attrec.update(loaded, nothing, items=more, untaken=True).recommender
    at_once = attrec.update(
        served, nothing, items=described((900, 1), (901, 0), (902, 3)), untaken=True, room=0.05
    ).recommender
    assert torch.equal(second.network.folded_key, at_once.network.folded_key)
    # It goes where items go.
    somebody = served.vocabulary.user_ids[0]
    later = attrec.update(attrec.forget(second, somebody).recommender, nothing)
    assert later.summary.unplaced == 0


def test_an_item_without_attributes_is_placed_by_its_events_alone(shop, learnt):
    log, served = shop[0], learnt[0]
    end = float(log.timestamps.max())
    users = [int(user) for user in log.user_ids[:8]]
    events = attrec.InteractionLog.from_columns(users, [900] * 8, [end + n for n in range(1, 9)])
    now = attrec.update(served, events).recommender
    by_events, _ = fold_in_items(now.network, now.histories, now.vocabulary)
    torch.testing.assert_close(now.network.folded_context, by_events.folded_context)
    beside = attrec.update(served, events, items=described((901, 1)), untaken=True, room=0.05)
    assert beside.summary.folded_in == 2
    network = beside.recommender.network
    torch.testing.assert_close(network.folded_context[0], by_events.folded_context[0])
    cosine = torch.cosine_similarity(network.folded_key[0], by_events.folded_key[0], dim=0)
    assert cosine > 0.99999


def test_an_earlier_model_with_later_items_is_read(shop, learnt, tmp_path):
    nothing, served = shop[0].take(slice(0, 0)), learnt[0]
    new = described((900, 1), (901, 2))
    now = attrec.update(served, nothing, items=new, untaken=True, room=0.05).recommender
    # Earlier versions kept neither what they were told of later items, nor a scale.
    short = now.network.prior.keeping(torch.arange(60))
    now.network._modules["prior"] = short
    now.record.pop("item_vectors")
    now.save(tmp_path / "model")
    loaded = attrec.load(tmp_path / "model")
    assert torch.equal(loaded.network.folded_key, now.network.folded_key)
    assert attrec.update(loaded, nothing).summary.unplaced_ids == (900, 901)
    with pytest.raises(RequestError, match="kept no scale of the items' vectors; train it again"):
        attrec.update(loaded, nothing, items=new)


def test_vectors_of_another_size_are_refused(shop, learnt):
    wide = Items({}, {"kind": {"900": "k1"}}, {}, {"v": (["900"], np.ones((1, 5), np.float32))})
    with pytest.raises(ConfigError, match="vectors of 5 numbers, and what was learnt from had 4"):
        attrec.update(learnt[0], shop[0].take(slice(0, 0)), items=wide, untaken=True, room=0.1)


def test_untaken_items_need_room_a_file_and_attributes_that_were_learnt_from(shop):
    log, items, _ = shop
    served = attrec.fit(log, items=items, item_categories="kind", **SMALL).recommender
    plain = attrec.fit(log, **SMALL).recommender
    for recommender, arguments, message in (
        (served, {"untaken": True, "items": items}, "say with room how much"),
        (served, {"untaken": True, "room": 0.1}, "give the item file"),
        (plain, {"untaken": True, "room": 0.1, "items": items}, "learnt from no attributes"),
        (plain, {"room": 1.5}, r"room = 1.5: .* from 0 to 1"),
    ):
        with pytest.raises(RequestError, match=message):
            attrec.update(recommender, log, **arguments)


def test_a_checkpoint_of_other_attributes_is_refused(shop, tmp_path):
    log, items, _ = shop

    class Stop(attrec.Listener):
        def stop_requested(self):
            return True

    options = {**SMALL, "item_categories": "kind", "checkpoint": tmp_path / "kept"}
    with pytest.raises(InterruptedTraining):
        attrec.fit(log, items=items, listener=Stop(), **options)
    other = Items({}, {"kind": {str(i): f"k{i % 3}" for i in range(60)}})
    with pytest.raises(CheckpointError, match="other attributes of items"):
        attrec.fit(log, items=other, **options)
    assert attrec.fit(log, items=items, **options).best_epoch >= 1


def test_the_command_line_takes_an_item_file(shop, tmp_path, monkeypatch):
    log, items, _ = shop
    attrec.data.reading.write_csv(log, tmp_path / "log.csv")
    text = "item_id,title,kind\n" + "".join(
        f"{item},Thing {item},{kind}\n" for item, kind in items.attributes["kind"].items()
    )
    (tmp_path / "items.csv").write_text(text)
    result = attrec.fit(
        tmp_path / "log.csv", items=tmp_path / "items.csv", item_categories="kind", **SMALL
    )
    assert result.recommender.titles["7"] == "Thing 7"
    assert result.recommender.network.prior is not None


def test_a_search_learns_from_attributes_too(shop, tmp_path):
    log, items, _ = shop
    options = {**SMALL, "max_epochs": 1, "item_categories": "kind"}
    found = attrec.tune(
        log, items=items, folder=tmp_path / "t", trials=1, search=["temperature"], **options
    )
    assert found.best.figure > 0
    other = Items({}, {"kind": {str(i): f"k{i % 3}" for i in range(60)}})
    with pytest.raises(ArtifactError, match="attributes of items"):
        attrec.tune(
            log, items=other, folder=tmp_path / "t", trials=2, search=["temperature"], **options
        )
