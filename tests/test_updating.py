"""A model brought up to date: what came in, where it went, and that nobody else is touched."""

import json
import sys
from dataclasses import replace
from threading import Thread

import numpy as np
import polars
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attrec
from attrec.config import DataConfig
from attrec.data.cleaning import clean
from attrec.data.interactions import InteractionLog, concatenate
from attrec.data.sequences import Sequences
from attrec.data.vocabulary import Vocabulary
from attrec.errors import DataError, RequestError, UnknownIdError
from attrec.popularity import Moment, at_moment
from attrec.retrieval.vectors import item_keys
from attrec.updating import update
from tests.command_line import run_cli

PRESETS = {
    "accurate": {"embedding_dim": 16, "window_length": 12, "max_epochs": 4, "min_steps": 60},
    "paper-sparse": {"embedding_dim": 16, "window_length": 5, "max_epochs": 12},
}
BASE = 1_000_000.0


def community_log():
    """Users who stay in their community of items, at times that are known."""
    log = attrec.simulate("community", num_users=150, num_items=60, events_per_user=16, seed=3)
    return InteractionLog.from_columns(
        [f"u{code}" for code in log.user_codes],
        [f"i{code}" for code in log.item_codes],
        BASE + np.arange(len(log)),
    )


@pytest.fixture(scope="module", params=list(PRESETS))
def served(request):
    return attrec.fit(community_log(), preset=request.param, **PRESETS[request.param]).recommender


def events_of(recommender, user):
    row = recommender.vocabulary.encode_users([user])[0]
    return recommender.vocabulary.item_ids[recommender.histories.histories[row]].tolist()


def batch(served, size=4):
    """Events after all others: an old user, a new one, and a new item among old ones."""
    like = events_of(served, served.vocabulary.user_ids[0])[:3]
    rows = []
    now = BASE + 1e6
    for number in range(size):
        for user in (f"new{number}", served.vocabulary.user_ids[number]):
            rows += [(user, item, now := now + 1) for item in [*like, "novelty"]]
    users, items, times = zip(*rows, strict=True)
    return InteractionLog.from_columns(list(users), list(items), list(times), source="new.csv")


def test_new_users_and_items_come_in_and_can_be_asked(served):
    before = [a.item_id for a in served.recommend(served.vocabulary.user_ids[9], k=60)]
    found = update(served, batch(served))
    now, summary = found.recommender, found.summary
    assert (summary.events, summary.known, summary.late) == (32, 0, 0)
    assert (summary.new_users, summary.new_items, summary.users) == (4, 1, 8)
    assert (summary.folded_in, summary.unplaced) == (1, 0)
    assert "new users: 4 (new0, new1, new2, new3), new items: 1 (novelty)" in str(summary)
    assert (summary.new_item_ids, summary.unplaced_ids) == (("novelty",), ())
    assert events_of(now, "new0")[-1] == "novelty"
    # The new item is near those who are like its takers, and can be explained.
    like = events_of(served, served.vocabulary.user_ids[0])[:3]
    places = [a.item_id for a in now.recommend(history=like, k=61, exclude_seen=False)]
    assert places.index("novelty") < 30, places.index("novelty")
    found = now.explain("new1", "novelty")
    parts = sum(e.part for e in found.events) + found.excess + found.constant + found.offset
    assert parts + found.long_term == pytest.approx(found.distance, abs=1e-9)
    # Nobody else's order among the items that were there has changed.
    after = [a.item_id for a in now.recommend(served.vocabulary.user_ids[9], k=61)]
    assert [item for item in after if item != "novelty"] == before
    assert served.vocabulary.num_items == now.vocabulary.num_items - 1  # the old model is as it was


def test_the_same_events_come_in_once(served):
    once = update(served, batch(served)).recommender
    again = update(once, concatenate(community_log(), batch(served)))
    assert again.summary.events == 0
    assert again.summary.known == len(community_log()) + 32
    assert np.array_equal(
        again.recommender.histories.histories.values, once.histories.histories.values
    )
    assert torch.equal(item_keys(again.recommender.network), item_keys(once.network))


def test_of_equal_events_as_many_come_in_as_are_not_there(served):
    user = served.vocabulary.user_ids[3]
    item = events_of(served, user)[-1]
    twice = update(served, InteractionLog.from_columns([user] * 2, [item] * 2, [BASE + 1e6] * 2))
    assert (twice.summary.events, twice.summary.known) == (2, 0)
    more = InteractionLog.from_columns([user] * 5, [item] * 5, [BASE + 1e6] * 5)
    found = update(twice.recommender, more)
    assert (found.summary.events, found.summary.known) == (3, 2)
    assert events_of(found.recommender, user) == events_of(served, user) + [item] * 5


@pytest.mark.parametrize("repeats", ["first", "last"])
def test_repeats_are_kept_as_the_training_log_was_cleaned(repeats):
    log = clean(community_log(), DataConfig(repeats=repeats))
    served = attrec.fit(
        log, preset="paper-sparse", repeats=repeats, embedding_dim=4, window_length=3, max_epochs=1
    ).recommender
    user = served.vocabulary.user_ids[3]
    before = events_of(served, user)
    item = before[0]
    found = update(served, InteractionLog.from_columns([user], [item], [BASE + 1e6]))
    assert found.summary.known == (repeats == "first")
    expected = before if repeats == "first" else [*before[1:], item]
    assert events_of(found.recommender, user) == expected


def test_the_popularity_of_the_moment_is_reckoned_anew():
    served = attrec.fit(
        community_log(), preset="accurate", **{**PRESETS["accurate"], "max_epochs": 1}
    ).recommender
    moment = Moment(half_life=50.0, scale=0.1)
    network = at_moment(served.network, served.histories, moment)
    served = attrec.Recommender(
        network, served.vocabulary, served.histories, served.options, moment=moment
    )
    item = served.vocabulary.item_ids[7]
    users = served.vocabulary.user_ids[:60].tolist()
    now = update(
        served, InteractionLog.from_columns(users, [item] * 60, BASE + 1e6 + np.arange(60.0))
    ).recommender
    histories = now.histories
    expected = moment.offsets(histories.histories.values, histories.times, 60)
    assert np.allclose(now.network.offset.numpy(), expected, atol=1e-6)
    assert now.network.offset[7] == 0.0
    assert served.network.offset[7] > 0.0


def test_in_one_lot_or_in_several_it_is_the_same(served):
    log = batch(served)
    whole = update(served, log).recommender
    parts = served
    for rows in np.array_split(np.random.default_rng(0).permutation(len(log)), 3):
        parts = update(parts, log.take(np.sort(rows))).recommender
    for user in [*whole.vocabulary.user_ids[:6].tolist(), "new0", "new3"]:
        assert events_of(parts, user) == events_of(whole, user)
        ours, theirs = (r.recommend(user, k=10) for r in (parts, whole))
        assert [a.item_id for a in ours] == [a.item_id for a in theirs]
        assert [a.distance for a in ours] == pytest.approx([a.distance for a in theirs], abs=1e-6)


def test_late_events_go_where_their_time_says(served):
    user = served.vocabulary.user_ids[5]
    before = events_of(served, user)
    other = next(i for i in served.vocabulary.item_ids.tolist() if i not in before)
    found = update(served, InteractionLog.from_columns([user], [other], [BASE - 5]))
    assert found.summary.late == 1
    assert events_of(found.recommender, user) == [other, *before]


def test_a_new_user_is_answered_as_the_same_history_given_now(served):
    now = update(served, batch(served)).recommender
    known = events_of(now, "new2")
    answers = [now.recommend("new2", k=5), now.recommend(history=known, k=5)]
    assert answers[0] == answers[1]


def test_updated_models_are_saved_and_updated_again(served, tmp_path):
    now = update(served, batch(served)).recommender
    now.save(tmp_path / "model")
    loaded = attrec.load(tmp_path / "model")
    assert loaded.vocabulary.num_trained_items == served.vocabulary.num_items
    assert [a.item_id for a in loaded.recommend("new0")] == [
        a.item_id for a in now.recommend("new0")
    ]
    assert update(loaded, batch(served)).summary.events == 0
    more = InteractionLog.from_columns(["later"], ["second novelty"], [BASE + 3e6])
    found = update(loaded, more)
    assert (found.summary.unplaced, found.summary.folded_in) == (1, 1)
    again = update(found.recommender, InteractionLog.from_columns(
        ["new0"], ["second novelty"], [BASE + 4e6]
    ))  # fmt: skip
    assert (again.summary.unplaced, again.summary.folded_in) == (0, 2)


def test_newcomers_do_not_push_out_what_is_known_of_a_new_item(served):
    """Whoever takes it first of all says nothing of it, however many do."""
    before = update(served, batch(served)).recommender
    users = [f"first{number}" for number in range(120)]
    times = BASE + 5e6 + np.arange(len(users))
    first = InteractionLog.from_columns(users, ["novelty"] * len(users), times)
    found = update(before, first)
    assert (found.summary.folded_in, found.summary.unplaced) == (1, 0)
    assert found.recommender.recommend("first0", k=5)
    assert "novelty" in [answer.item_id for answer in found.recommender.recommend("u149", k=99)]


def test_nothing_known_is_the_same_for_everybody_without_a_row(served):
    log = InteractionLog.from_columns(
        ["u0", "nobody"], ["unheard of"] * 2, BASE + 5e6 + np.arange(2)
    )
    found = served.recommend_batch(log=log, k=2)
    has_row = hasattr(served.network, "user_long")
    assert found.left_out.tolist() == (["nobody"] if has_row else ["nobody", "u0"])
    assert set(found.user_id) == ({"u0"} if has_row else set())


def test_what_is_left_without_an_event_may_say_nothing(served):
    events = InteractionLog.from_columns(["later"] * 2, ["secret", "i3"], [BASE + 3e6, BASE + 4e6])
    found = update(served, events).recommender.explain("later", "i5", without=True)
    without_secret, without_the_other = found.without
    assert without_secret.rank is not None
    assert (without_the_other.distance, without_the_other.rank) == (None, None)
    alone = served.explain(history=["i3"], item="i5", without=True).without[0]
    assert (alone.rank is None) is hasattr(served.network, "user_long")


@pytest.mark.parametrize("room", ["0.5", float("nan"), True])
def test_a_room_that_is_no_share_is_refused(served, room):
    with pytest.raises(RequestError, match="room"):
        update(served, batch(served), room=room)


def test_a_room_of_any_kind_of_number_is_saved(served, tmp_path):
    update(served, batch(served), room=np.float32(0.25)).recommender.save(tmp_path / "model")
    assert attrec.load(tmp_path / "model").record["room"] == 0.25


def test_an_item_of_which_nothing_is_known_is_in_no_list(served):
    found = update(served, InteractionLog.from_columns(["later"], ["secret"], [BASE + 3e6]))
    assert (found.summary.unplaced, found.summary.unplaced_ids) == (1, ("secret",))
    some = served.vocabulary.user_ids[0]
    before, after = (r.explain(some, "i7", versus="i8") for r in (served, found.recommender))
    assert [e.pull for e in after.events] == pytest.approx([e.pull for e in before.events])
    with pytest.raises(RequestError, match="nothing is known of it yet"):
        found.recommender.explain(served.vocabulary.user_ids[0], "secret")
    with pytest.raises(RequestError, match="nothing is known of it yet"):
        found.recommender.reasons(served.vocabulary.user_ids[0], ["secret"])
    with pytest.raises(RequestError, match="none of the user's items is known"):
        found.recommender.recommend("later")
    with pytest.raises(RequestError, match="none of them is known"):
        found.recommender.recommend(history=["secret"])
    assert "later" not in {a.user_id for a in found.recommender.audience("i3", k=999)}
    for user in served.vocabulary.user_ids[:5].tolist():
        assert "secret" not in [a.item_id for a in found.recommender.recommend(user, k=99)]


def test_new_users_and_new_items_never_define_each_other(served):
    """Who has taken nothing but new items says nothing of another new item."""
    once = update(served, batch(served)).recommender
    strange = InteractionLog.from_columns(
        ["x", "x", "new0"], ["novelty", "other", "other"], [BASE + 2e6, BASE + 3e6, BASE + 4e6]
    )
    one = update(once, strange.take(np.array([0, 1])))
    assert one.summary.unplaced == 1
    two, three = (update(once, log).recommender for log in (strange, strange.take(np.array([2]))))
    # What "x" took besides changes nothing of the vectors that "new0" gave to "other".
    rows = [r.vocabulary.encode_items(["other"])[0] for r in (two, three)]
    keys = [item_keys(r.network)[row] for r, row in zip((two, three), rows, strict=True)]
    directions = [key[:16] / key[:16].norm() for key in keys]
    assert torch.allclose(*directions, atol=1e-6)


def test_ids_of_another_kind_are_refused(served):
    log = InteractionLog.from_columns([3], ["i3"], [BASE], source="new.csv")
    with pytest.raises(DataError, match=r"new.csv: its user ids are integers, such as 3"):
        update(served, log)
    log = InteractionLog.from_columns(["a"], ["i3"], source="new.csv")
    with pytest.raises(DataError, match="has no times"):
        update(served, log)


def test_without_times_a_file_is_recognised_as_a_whole():
    log = attrec.simulate("community", num_users=40, num_items=30, events_per_user=10, seed=3)
    untimed = InteractionLog.from_columns(
        log.user_ids[log.user_codes], log.item_ids[log.item_codes]
    )
    model = attrec.fit(untimed, embedding_dim=8, window_length=5, max_epochs=1).recommender
    user, item = untimed.user_ids[0], untimed.item_ids[0]
    more = InteractionLog.from_columns([user, user], [item, item])
    once = update(model, more)
    assert (once.summary.events, events_of(once.recommender, user)[-2:]) == (2, [item, item])
    again = update(once.recommender, more)
    assert (again.summary.events, again.summary.known) == (0, 2)
    for log in (untimed, concatenate(untimed, more)):
        assert update(once.recommender, log).summary.events == 0
    # A whole log that has grown, from what was trained on and from what was taken in since.
    other = InteractionLog.from_columns([user, 999], [item, item])
    for model_before, grown, events in [
        (model, concatenate(untimed, more), 2),
        (once.recommender, concatenate(concatenate(untimed, more), other), 2),
        (once.recommender, concatenate(more, untimed), len(untimed) + 2),
    ]:
        assert update(model_before, grown).summary.events == events


def test_without_times_a_file_is_recognised_of_which_the_model_lacks_a_part():
    log = attrec.simulate("community", num_users=40, num_items=30, events_per_user=10, seed=3)
    users, items = log.user_ids[log.user_codes], log.item_ids[log.item_codes]
    small = {"embedding_dim": 8, "window_length": 5, "max_epochs": 1}
    # One event of an item that only the held-out part has, one that a k-core leaves out.
    last = InteractionLog.from_columns([*users, users[-1]], [*items, 777])
    model = attrec.fit(last, **small).recommender
    assert model.histories.num_events == len(last) - 1
    once = update(model, last)
    assert (once.summary.events, once.summary.known) == (1, len(last) - 1)
    assert events_of(once.recommender, users[-1])[-1] == 777
    assert update(once.recommender, last).summary.events == 0
    rare = InteractionLog.from_columns([*users[:5], users[5], *users[5:]],
                                       [*items[:5], 777, *items[5:]])  # fmt: skip
    cut = DataConfig(min_item_events=2)
    model = attrec.fit(clean(rare, cut), min_item_events=2, **small).recommender
    assert update(model, rare).summary.events == 1
    assert update(update(model, rare).recommender, rare).summary.events == 0
    # Files given for training and for test.
    first = np.arange(len(log)) % 10 < 8
    train = InteractionLog.from_columns(users[first], items[first])
    test = InteractionLog.from_columns(users[~first], items[~first])
    model = attrec.fit(train, test=test, **small).recommender
    for part in (train, test):
        assert update(model, part).summary.events == 0


def test_times_are_kept_by_a_training(served):
    log = community_log()
    wanted = Sequences.from_log(log, served.vocabulary)
    assert np.array_equal(served.histories.times, wanted.times)


def test_an_observed_event_counts_at_once(served):
    served = update(served, batch(served)).recommender
    like = events_of(served, "new0")
    for number, item in enumerate(like):
        assert served.observe("stranger", item, BASE + 2e6 + number)
    assert not served.observe("stranger", like[0], BASE + 2e6)  # it is there
    assert events_of(served, "stranger") == like
    answers = [served.recommend(user, k=8) for user in ("stranger", "new0")]
    assert answers[0] == answers[1] == served.recommend(history=like, k=8)
    found = served.audience("novelty", k=200, exclude_taken=False)
    assert "stranger" in [member.user_id for member in found]


def test_threads_observe_at_once(served):
    served = update(served, batch(served)).recommender
    before, items = served.histories.num_events, served.vocabulary.item_ids.tolist()
    audience = served.audience(items[0], k=999, exclude_taken=False)
    faults = []

    def observing(first):
        try:
            for number in range(first, 200, 2):
                time = BASE + 2e6 + number
                # Each stranger comes by both threads.
                served.observe(f"stranger {number // 2}", items[number % len(items)], time)
        except Exception as fault:
            faults.append(fault)

    def asking():
        try:
            for _ in range(20):
                served.recommend("u1")
                served.audience(items[0], k=99)
        except Exception as fault:
            faults.append(fault)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [Thread(target=observing, args=(first,)) for first in (0, 1)]
        threads += [Thread(target=asking) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert faults == []
    users = served.vocabulary.user_ids.tolist()
    assert len(users) == len(set(users))
    assert served.histories.num_events == before + 200
    after = served.audience(items[0], k=999, exclude_taken=False)
    assert len(after) == len(audience) + 100
    distance = {member.user_id: member.distance for member in after}
    for user in ("stranger 0", "stranger 99"):
        (alone,) = served.recommend(user, k=1, allow=[items[0]], exclude_seen=False)
        assert distance[user] == pytest.approx(alone.distance, abs=1e-12)


def test_observed_one_by_one_or_updated_in_one_lot(served):
    log = batch(served)
    known = log.take(np.flatnonzero(log.item_ids[log.item_codes] != "novelty"))
    once = update(served, known).recommender
    live = update(served, known.take(np.zeros(0, np.int64))).recommender
    rows = np.random.default_rng(1).permutation(len(known))
    for row in rows:
        user, item = (known.user_ids[known.user_codes[row]], known.item_ids[known.item_codes[row]])
        assert live.observe(user, item, float(known.timestamps[row]))
    for user in known.user_ids.tolist():
        assert events_of(live, user) == events_of(once, user)
        ours, theirs = (r.recommend(user, k=10) for r in (live, once))
        if live.moment is None:
            assert ours == theirs
    assert live.histories.num_events == once.histories.num_events


def test_an_event_of_an_unknown_item_waits_for_the_update(served):
    live = update(served, batch(served, size=1)).recommender
    assert not live.observe("new0", "yet another", BASE + 5e6)
    assert len(live.waiting) == len(live.as_of(batch(served, size=1)).waiting) == 1
    found = update(live, live.waiting)
    assert (found.summary.new_items, found.summary.folded_in) == (1, 2)
    assert events_of(found.recommender, "new0")[-1] == "yet another"
    with pytest.raises(RequestError, match="this model's events need a time"):
        live.observe("new0", "i3")
    with pytest.raises(UnknownIdError, match="item ids are strings"):
        live.observe("new0", 3, BASE)
    with pytest.raises(RequestError, match="time = nan is not a finite number"):
        live.observe("new0", "i3", float("nan"))


def test_an_event_that_waits_waits_once(served):
    live = update(served, batch(served, size=1)).recommender
    for _ in range(2):
        for user, item in (("new0", "yet another"), ("stranger", "yet another"), ("new0", "more")):
            assert not live.observe(user, item, BASE + 5e6)
    assert len(live.waiting) == 3
    assert not live.observe("new0", "more", BASE + 6e6)
    found = update(live, live.waiting)
    assert (found.summary.events, found.summary.known) == (4, 0)
    assert events_of(found.recommender, "new0")[-3:] == ["yet another", "more", "more"]


def test_what_waits_comes_in_with_any_log(served):
    live = update(served, batch(served, size=1)).recommender
    for user in ("new0", "stranger"):
        live.observe(user, "yet another", BASE + 5e6)
    log = InteractionLog.from_columns(
        ["new0", "new0"], ["yet another", "i3"], [BASE + 5e6, BASE + 6e6]
    )
    found = update(live, log)
    assert (found.summary.events, found.summary.known) == (3, 0)
    assert (found.summary.users, found.summary.new_items) == (2, 1)
    assert events_of(found.recommender, "new0")[-2:] == ["yet another", "i3"]
    assert events_of(found.recommender, "stranger") == ["yet another"]
    assert (len(found.recommender.waiting), len(live.waiting)) == (0, 2)
    assert events_of(live, "new0")[-1] == "novelty"
    assert update(found.recommender, live.waiting).summary.known == 2
    # Nothing else needs to come; and what does not fit is refused as ever.
    for empty in (log.take(np.zeros(0, np.int64)), InteractionLog.from_columns([], [])):
        assert update(live, empty).summary.events == 2
    with pytest.raises(DataError, match=r"new.csv: has no times, and the model's events have"):
        update(live, InteractionLog.from_columns(["a"], ["i3"], source="new.csv"))
    with pytest.raises(DataError, match=r"new.csv: its item ids are integers"):
        update(live, InteractionLog.from_columns(["a"], [3], [BASE], source="new.csv"))


def test_what_waits_is_saved_and_can_be_forgotten(served, tmp_path):
    live = update(served, batch(served, size=1)).recommender
    for user in ("new0", "stranger"):
        live.observe(user, "yet another", BASE + 5e6)
    live.save(tmp_path / "model")
    loaded = attrec.load(tmp_path / "model")
    assert list(loaded.waiting.events()) == list(live.waiting.events())
    with pytest.raises(RequestError, match="none of the user's items is known"):
        loaded.recommend("stranger")
    assert update(loaded, batch(served)).summary.new_items == 1
    attrec.forget(loaded, "stranger").recommender.save(tmp_path / "model")
    left = attrec.load(tmp_path / "model")
    assert [event[0] for event in left.waiting.events()] == ["new0"]
    update(left, left.waiting).recommender.save(tmp_path / "model")
    assert not any("waiting" in file.name for file in (tmp_path / "model").iterdir())


def test_what_waits_without_times():
    log = attrec.simulate("community", num_users=40, num_items=30, events_per_user=10, seed=3)
    untimed = InteractionLog.from_columns(
        log.user_ids[log.user_codes], log.item_ids[log.item_codes]
    )
    live = attrec.fit(untimed, embedding_dim=8, window_length=5, max_epochs=1).recommender
    user, item = int(untimed.user_ids[0]), int(untimed.item_ids[0])
    for _ in range(2):
        assert not live.observe(user, 999, None)  # nobody can tell it from its repetition
    assert update(live, live.waiting).summary.events == 2
    found = update(live, InteractionLog.from_columns([user], [item]))
    assert found.summary.events == 3
    assert events_of(found.recommender, user)[-3:] == [item, 999, 999]
    assert update(found.recommender, live.waiting).summary.known == 2


EVENT = st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 6))
ANCHOR = (9, 0, 3)
"""An event of somebody who takes nothing more: without times no log then begins with all others."""


@pytest.fixture(scope="module")
def trained():
    """A model of users 0 to 3 and 9, and of items 0 to 4."""
    users = np.repeat([0, 1, 2, 3, 9], 5)
    items = np.add.outer(np.arange(5), np.arange(5)).ravel() % 5
    return attrec.fit(
        InteractionLog.from_columns(users, items, np.arange(25.0)),
        preset="paper-sparse", embedding_dim=2, window_length=2, max_epochs=1,
    ).recommender  # fmt: skip


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("repeats", ["keep", "first", "last"])
@pytest.mark.parametrize("duplicates", ["drop", "keep"])
@given(
    first=st.lists(EVENT, max_size=8), more=st.lists(EVENT, min_size=1, max_size=12),
    saved=st.integers(0, 12),
)  # fmt: skip
def test_observed_one_by_one_the_histories_are_those_of_an_update(
    trained, timed, repeats, duplicates, first, more, saved
):
    def cleaned(events):
        users, items, times = (list(column) for column in zip(*events, strict=True))
        log = InteractionLog.from_columns(users, items, times if timed else None)
        return clean(log, DataConfig(repeats=repeats, duplicates=duplicates))

    def model():
        known = trained.vocabulary
        log = cleaned([*(event for event in first if event[0] in known.user_ids), ANCHOR])
        data = replace(trained.options.data, repeats=repeats, duplicates=duplicates)
        histories = Sequences.from_log(log, known)
        return attrec.Recommender(
            trained.network, known, histories, replace(trained.options, data=data)
        )

    expected, live = update(model(), cleaned(more)).recommender, model()
    for number, (user, item, time) in enumerate(more):
        live.observe(user, item, time if timed else None)
        if number == saved:
            assert live.histories.num_users == live.vocabulary.num_users
    assert sorted(live.vocabulary.user_ids) == sorted(expected.vocabulary.user_ids)
    for user in expected.vocabulary.user_ids.tolist():
        assert events_and_times(live, user) == events_and_times(expected, user)


def events_and_times(recommender, user):
    sequences = recommender.histories
    row = int(recommender.vocabulary.encode_users([user])[0])
    place = slice(*sequences.histories.offsets[row : row + 2])
    times = None if sequences.times is None else sequences.times[place].tolist()
    return sequences.histories.values[place].tolist(), times


def test_an_observed_event_is_read_as_a_row_is(served):
    known = served.vocabulary.num_users
    for user, item, time, said in [
        ("u1", "i3", "x", "event of user 'u1': time = 'x' is not a number; give a number"),
        ("u1", "i3", True, "time = True is not a number"),
        ("u1", "i3", 10**400, "is not a finite number"),
        ("u1", "i3", float("-inf"), "time = -inf is not a finite number"),
        ("", "i3", BASE, "event of user '': the user is empty; give its id"),
        ("u1", "", BASE, "event of user 'u1': the item is empty; give its id"),
        ("NaN", "i3", BASE, "the user is 'NaN', which stands for none; give its id"),
        ("u1", "a\0b", BASE, "the item holds NUL bytes"),
    ]:
        with pytest.raises(RequestError, match=said):
            served.observe(user, item, time)
    assert (served.vocabulary.num_users, len(served.waiting)) == (known, 0)


def test_an_observed_time_in_another_unit_is_refused(trained):
    now = 1_700_000_000
    log = InteractionLog.from_columns([0, 1], [0, 1], [now, 7])
    vocabulary = Vocabulary(trained.vocabulary.user_ids, trained.vocabulary.item_ids, 5)
    live = attrec.Recommender(
        trained.network, vocabulary, Sequences.from_log(log, vocabulary), trained.options
    )
    said = "time = 1700000000000 is in milliseconds where the model's events are in seconds"
    with pytest.raises(RequestError, match=said):
        live.observe(0, 1, now * 1000)
    with pytest.raises(RequestError, match="give a number of seconds"):
        live.observe(0, 1, "yesterday")
    with pytest.raises(RequestError, match="the user 9223372036854775808 does not fit"):
        live.observe(2**63, 1, now)
    assert live.observe(0, 1, now) and live.observe(0, 1, np.int64(8))


def test_an_update_reads_what_a_training_reads(tmp_path):
    rows = {
        "who": [n % 30 for n in range(600)],
        "what": [(n * 7 + n // 30) % 25 for n in range(600)],
        "when": [1000 + n for n in range(600)],
    }
    data = {"user": "who", "item": "what", "time": "when", "min_user_events": 5}
    small = {"max_epochs": 1, "embedding_dim": 4, "preset": "paper-sparse", "repeats": "last"}
    model = attrec.fit(polars.DataFrame(rows), **data, **small).recommender
    new = polars.DataFrame({"who": [3, 77, 3], "what": [4, 99, 99], "when": [5000, 5001, 5002]})
    new.write_csv(tmp_path / "new.csv")
    found = attrec.update(model, new)
    assert (found.summary.events, found.summary.new_users, found.summary.new_items) == (3, 1, 1)
    assert events_of(found.recommender, 3)[-2:] == [4, 99]
    assert events_of(found.recommender, 3).count(4) == 1
    with pytest.raises(DataError, match=r"new.csv: its user ids are strings"):
        attrec.update(model, str(tmp_path / "new.csv"))  # text files give text
    with pytest.raises(DataError, match="there is no column 'when'"):
        attrec.update(model, new.drop("when"))


def test_the_command_says_who_came_in_and_what_was_left_out(tmp_path):
    rows = [(f"u{n % 30}", f"i{(n * 7 + n // 30) % 25}", 1000 + n) for n in range(600)]
    new = [("u3", "i4", 5000), ("[b]new[/b]", "fresh", 5001), ("u4", "fresh", 5002)]
    for name, events in (("log.csv", rows), ("new.csv", new)):
        lines = [",".join(map(str, row)) for row in events]
        (tmp_path / name).write_text("user,item,time\n" + "\n".join(lines) + "\n")
    with (tmp_path / "new.csv").open("a") as file:
        file.write("u5,i6,when\n")
    options = ["--min-user-events", "5", "--min-item-events", "5", "--on-bad-row", "skip"]
    small = ["--max-epochs", "1", "--embedding-dim", "4", "--preset", "paper-sparse"]
    code, said = run_cli(tmp_path, ["train", "log.csv", *options, *small], columns=200)
    assert code == 0, said
    code, said = run_cli(tmp_path, ["update", "model", "new.csv"], columns=200)
    assert code == 0, said
    assert "events that came in: 3, of 3 users" in said
    assert "new users: 1 ([b]new[/b]), new items: 1 (fresh)" in said
    assert "left out 1" in said
    code, said = run_cli(tmp_path, ["update", "model", "new.csv", "--json"], columns=200)
    told = json.loads(said)
    assert [step["events"] for step in told["left_out"]] == [1]
    assert told["new_user_ids"] == ["[b]new[/b]"]
    cut = ["update", "model", "new.csv", "--min-user-events", "2"]
    code, said = run_cli(tmp_path, cut, columns=200)
    assert (code, "no event is left" in said) == (2, True)


def test_the_command_says_what_an_update_lacks_that_stood_there(tmp_path):
    rows = [(f"u{n % 30}", f"i{(n * 7 + n // 30) % 25}") for n in range(300)]
    log = InteractionLog.from_columns(*zip(*rows, strict=True), range(300))
    small = {"max_epochs": 1, "embedding_dim": 4, "preset": "paper-sparse"}
    attrec.fit(log, **small).recommender.save(tmp_path / "model")
    head, now, someone, taken = "user,item,time\n", 1000, "u0", "i0"
    for name, rows in (
        ("day1.csv", [(someone, taken), (someone, taken), ("late comer", "late item")]),
        ("day2.csv", [(someone, taken)]),
    ):
        lines = [f"{user},{item},{now + at}\n" for at, (user, item) in enumerate(rows)]
        (tmp_path / name).write_text(head + "".join(lines))
    said = [
        run_cli(tmp_path, ["update", *words.split()], columns=400)[1]
        for words in (
            "model day1.csv",
            "model day2.csv",
            "model day1.csv",
            "model.updated day2.csv --out model.updated",
        )
    ]
    told = "held what this one lacks (1 users, 1 items, 2 events), since the update began with mode"
    assert [told in each for each in said] == [False, True, False, False], said
    assert not any("what this one lacks" in each for each in (said[0], *said[2:]))
    code, text = run_cli(tmp_path, ["update", "model", "day2.csv", "--json"], columns=400)
    assert code == 0
    assert json.loads(text)["replaced"] == {"users": 1, "items": 1, "events": 2}


def test_where_everybody_was_forgotten_nothing_is_known_of_new_items(served, tmp_path):
    emptied = attrec.forget(served, served.vocabulary.user_ids.tolist()).recommender
    found = update(emptied, batch(served))
    assert found.summary.folded_in == 0
    assert found.summary.unplaced_ids == ("novelty",)
    found.recommender.save(tmp_path / "model")
    answers = attrec.load(tmp_path / "model").recommend("new0", k=60)
    assert len(answers) == 57  # of 60 items three were taken; the new one is in no list
    assert all(np.isfinite(place.distance) for place in answers)
