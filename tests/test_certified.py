"""Kept answers are those of the recommender, whatever happens to the histories in between."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attrec
from attrec.certified import CertifiedCache
from attrec.errors import RequestError, UnknownIdError
from attrec.updating import update

OPTIONS = {"embedding_dim": 8, "max_epochs": 2, "retrain": False}


def log():
    return attrec.simulate("mixed", num_users=40, num_items=120, events_per_user=12, seed=3)


@pytest.fixture(scope="module", params=["accurate", "paper-sparse"])
def model(request):
    return attrec.fit(log(), preset=request.param, **OPTIONS).recommender


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 119), min_size=4, max_size=14),
    st.integers(1, 12),
    st.sampled_from([1, 5, 40, 200]),
    st.booleans(),
    st.data(),
)
def test_a_history_that_grows_event_by_event(model, items, k, margin, exclude_seen, data):
    cache = CertifiedCache(model, margin=margin)
    ids = model.vocabulary.item_ids
    for length in range(1, len(items) + 1):
        history = ids[np.array(items[:length]) % len(ids)].tolist()
        asked = {"k": k, "exclude_seen": exclude_seen, "deny": ids[:2] if length % 3 else None}
        if data.draw(st.booleans()):
            asked["user"] = model.vocabulary.user_ids[3]
        else:
            asked["session"] = "s"
        found = cache.recommend(history=history, **asked)
        asked.pop("session", None)
        assert found.recommendations == model.recommend(history=history, **asked)


def test_answers_are_reused_and_say_so(model):
    cache = CertifiedCache(model, margin=60)
    user = model.vocabulary.user_ids[5]
    history = model.vocabulary.decode_items(model.histories.histories[5]).tolist()
    first = cache.recommend(user, k=3)
    assert first.certificate.moved is None
    assert not first.certificate.reused
    again = cache.recommend(user, k=3)
    assert again.certificate.reused
    assert again.certificate.moved == 0.0
    assert again.recommendations == first.recommendations == model.recommend(user, k=3)
    moved = cache.recommend(user, history=[*history, first.recommendations[0].item_id], k=3)
    assert moved.certificate.moved > 0
    assert len(cache) == 1


def test_everything_that_can_be_asked(model):
    cache = CertifiedCache(model, margin=40)
    user, items = model.vocabulary.user_ids[2], model.vocabulary.item_ids
    requests = [
        {"like": items[:2]},
        {"like": items[:2], "unlike": items[5:6], "strength": 0.5},
        {"allow": items[10:60]},
        {"allow": items[10:50], "k": 3},
        {"exclude_seen": False},
    ]
    if hasattr(model.network, "user_long"):
        requests += [{"long_term_weight": w} for w in (0.0, 0.4, 0.4, 1.0)]
    for asked in requests + requests:
        assert cache.recommend(user, **asked).recommendations == model.recommend(user, **asked)
        again = cache.recommend(user, **asked)
        assert again.certificate.reused
        assert again.recommendations == model.recommend(user, **asked)


def test_sessions_and_users_are_kept_apart(model):
    cache = CertifiedCache(model)
    user, history = model.vocabulary.user_ids[0], model.vocabulary.item_ids[:3].tolist()
    cache.recommend(user)
    assert not cache.recommend(history=history, session=0).certificate.reused
    assert not cache.recommend(user, session="evening").certificate.reused
    assert cache.recommend(user).certificate.reused
    assert len(cache) == 3


def test_events_that_are_observed_count_at_once(model):
    parts = (model.network, model.vocabulary, model.histories, model.options)
    live = attrec.Recommender(*parts)
    cache = CertifiedCache(live, margin=60)
    user = live.vocabulary.user_ids[4]
    time = 1e9 if live.histories.times is not None else None
    for step in range(5):
        found = cache.recommend(user, k=4)
        assert found.recommendations == live.recommend(user, k=4)
        assert (found.certificate.moved is None) == (step == 0)
        live.observe(user, found.recommendations[0].item_id, time)


def test_other_keys_make_what_is_kept_void(model):
    cache = CertifiedCache(model, margin=30, users=7)
    user = model.vocabulary.user_ids[1]
    cache.recommend(user)
    new = attrec.InteractionLog.from_columns([user, user], [7, 10_000], timestamps=[1e9, 1e9 + 1])
    cache.recommender = update(model, new).recommender
    found = cache.recommend(user)
    assert found.certificate.moved is None
    assert found.recommendations == cache.recommender.recommend(user)
    assert cache.recommend(user).certificate.reused


def test_the_popularity_of_the_moment_is_a_coordinate_that_never_moves(model):
    lifted = model
    if hasattr(model.network, "with_offset"):
        offsets = np.random.default_rng(0).random(model.vocabulary.num_items)
        network = model.network.with_offset(model.network.offset.new_tensor(offsets))
        parts = (model.vocabulary, model.histories, model.options)
        lifted = attrec.Recommender(network, *parts)
    cache = CertifiedCache(lifted, margin=40)
    items = lifted.vocabulary.item_ids
    for length in range(2, 20):
        history = items[np.arange(length) * 5 % len(items)].tolist()
        found = cache.recommend(history=history, session=1, k=4)
        assert found.recommendations == lifted.recommend(history=history, k=4)


def test_requests_that_cannot_be_answered(model):
    cache = CertifiedCache(model)
    with pytest.raises(RequestError, match="give a session"):
        cache.recommend(history=model.vocabulary.item_ids[:2])
    with pytest.raises(UnknownIdError, match="not in the model"):
        cache.recommend(987_654)
    with pytest.raises(RequestError, match="nothing is left to rank"):
        cache.recommend(history=model.vocabulary.item_ids, session=1)
    for wrong in ({"margin": 0}, {"margin": 2.5}, {"users": "7"}, {"users": True}):
        with pytest.raises(RequestError, match=r"(margin|users) = .*: give a whole number"):
            CertifiedCache(model, **wrong)


def test_a_model_that_is_replaced_in_the_middle_answers_to_its_end(model):
    cache = CertifiedCache(model, margin=30)
    user = model.vocabulary.user_ids[1]
    new = attrec.InteractionLog.from_columns([user, user], [7, 10_000], timestamps=[1e9, 1e9 + 1])
    later = update(model, new).recommender
    cache.recommender = early = Replacing(cache, model, later)
    found = cache.recommend(user)
    assert found.recommendations == model.recommend(user)
    assert early.replaced
    assert cache.recommend(user).recommendations == later.recommend(user)


class Replacing:
    """A recommender in whose place another one comes while it is asked."""

    def __init__(self, cache, model, later):
        self.cache, self.model, self.later, self.replaced = cache, model, later, False

    def __getattr__(self, name):
        return getattr(self.model, name)

    def _recommend(self, search, *given, **asked):
        def replaced_meanwhile(*queries, **limits):
            self.cache.recommender, self.replaced = self.later, True
            return search(*queries, **limits)

        return self.model._recommend(replaced_meanwhile, *given, **asked)
