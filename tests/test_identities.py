"""What the algebra of the distance promises, held through the verbs of `Recommender`.

Small models with random tables; every claim is compared with the plain formula in float64.
"""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attrec.config import Options
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.data.vocabulary import Vocabulary
from attrec.errors import RequestError, UnknownIdError
from attrec.model.choice import make_network
from attrec.recommender import Recommender

NUM_ITEMS, TRAINED, USERS = 25, 7, 9
KINDS = ["mean", "sum", "max", "min", "additive", "lifted", "raised"]
PAPER = KINDS[:4]
FOLDED = {"lifted": 0.2, "raised": 1.5}
"""Kinds with items that came after training, and how large the entries of their keys are."""
OMEGAS = [0.0, 0.2, 0.5, 0.9, 1.0]
EXACT = {"abs": 1e-9, "rel": 0}


@cache
def model(kind, seed=0, omega=0.3):
    """Seven users with a row, two that came later; each with one to eight events.

    ``lifted`` is the additive network with a popularity of the moment and two later items.
    """
    random = np.random.default_rng(seed)
    histories = [random.integers(0, NUM_ITEMS, random.integers(1, 9)) for _ in range(USERS)]
    histories[0] = histories[0][:1]
    first = NUM_ITEMS - 2 if kind in FOLDED else NUM_ITEMS
    vocabulary = Vocabulary(
        np.array([f"u{u}" for u in range(USERS)], dtype=object),
        np.array([f"i{i:02}" for i in range(NUM_ITEMS)], dtype=object),
        TRAINED,
        first,
    )
    if kind not in PAPER:
        options = Options.of(embedding_dim=8, heads=2, blocks=1, window_length=5)
    else:
        options = Options.of(
            "paper-sparse", embedding_dim=6, window_length=4, init_std=0.5, aggregation=kind,
            long_term_weight=omega,
        )  # fmt: skip
    network = make_network(options.model, TRAINED, first, seed=seed)
    if kind not in PAPER:
        network.settle(torch.as_tensor(random.integers(1, 9, first)))
    if kind in FOLDED:
        later = torch.as_tensor(random.normal(size=(2, 2, 8)) * FOLDED[kind], dtype=torch.float32)
        network = network.with_items(*later)
        network = network.with_offset(torch.as_tensor(random.random(NUM_ITEMS)))
    lists = Sequences(Ragged.from_lists([each.tolist() for each in histories]))
    return Recommender(network, vocabulary, lists, options)


models = st.builds(model, st.sampled_from(KINDS), st.integers(0, 3))
paper_models = st.builds(model, st.sampled_from(PAPER), st.integers(0, 3))
users = st.integers(0, USERS - 1).map(lambda u: f"u{u}")
items = st.integers(0, NUM_ITEMS - 1).map(lambda i: f"i{i:02}")
histories = st.lists(items, min_size=1, max_size=6)
omegas = st.sampled_from(OMEGAS)
weights = st.floats(-0.9, 3.0).filter(lambda w: abs(w) > 1e-3)


def number(name):
    return int(name[1:])


def has_row(served, user):
    return user is not None and number(user) < served.vocabulary.num_trained_users


def additive(served):
    return served.options.model.architecture == "additive"


def keys_of(served, rounded=True):
    """k (N, d) of the additive network, and the square of the coordinate that lifts it."""
    keys, lift = served.network.keys(dtype=torch.float64), served.network.lift()
    return (keys.float().double(), lift.sqrt().float().double() ** 2) if rounded else (keys, lift)


def history_of(served, user):
    return [f"i{i:02}" for i in served.histories.histories[number(user)]]


def formula(served, user=None, history=None, omega=None, rounded=True):
    """(N, 2): long- and short-term part of y of (10) for every item, written out.

    The index rounds the unit-length keys of the additive network to float32, once; what is not
    ranked by it is compared with ``rounded=False``.
    """
    history = history_of(served, user) if history is None else history
    events = torch.tensor([number(item) for item in history], dtype=torch.int64)
    network, L = served.network, served.network.config.window_length
    with torch.no_grad():
        if additive(served):
            newest = events[-L:]
            m = network.start.double()
            if len(newest):
                m = network.last_intents(newest, torch.tensor([len(newest)]), dtype=torch.float64)
            keys, lift = keys_of(served, rounded)
            short = (m - keys).square().sum(dim=1) + lift
            return torch.stack([torch.zeros_like(short), short], dim=1).numpy()
        V, X = network.item_long.double(), network.item_short.double()
        window = torch.full((1, L), -1)
        if len(events):
            window[0, -len(events[-L:]) :] = events[-L:]
        m = network.intent(window, dtype=torch.float64)[0]
        U = V[events].mean(dim=0) if len(events) else torch.zeros(V.shape[1])
        if has_row(served, user):
            U = network.user_long[number(user)].double()
        omega = network.config.long_term_weight if omega is None else omega
        long, short = (U - V).square().sum(dim=1), (m - X).square().sum(dim=1)
        return torch.stack([omega * long, (1 - omega) * short], dim=1).numpy()


def check(found, parts, hidden=(), k=NUM_ITEMS):
    """The list is that of the formula: same items, and each number to 1e-9.

    Two items may change places only where float64 cannot tell the formula's two values apart: the
    mean of two points is as far from the one as from the other.
    """
    y = parts.sum(axis=1)
    order = [i for i in np.lexsort([np.arange(len(y)), y]) if f"i{i:02}" not in hidden][:k]
    chosen = [number(place.item_id) for place in found]
    assert len(chosen) == len(set(chosen)) == len(order)
    for one, other in zip(chosen, order, strict=True):
        assert one == other or abs(y[one] - y[other]) < 1e-13 * (1 + abs(y[other]))
    assert [place.rank for place in found] == list(range(1, len(order) + 1))
    for place, i in zip(found, chosen, strict=True):
        assert place.item_id not in hidden
        assert place.distance == pytest.approx(y[i], **EXACT)
        assert place.long_term == pytest.approx(parts[i, 0], **EXACT)
        assert place.short_term == pytest.approx(parts[i, 1], **EXACT)


# One search


@given(models, users, st.integers(1, NUM_ITEMS))
def test_the_search_ranks_as_the_formula(served, user, k):
    parts = formula(served, user)
    check(served.recommend(user, k=k, exclude_seen=False), parts, k=k)
    check(served.recommend(user, k=k), parts, hidden=history_of(served, user), k=k)


@given(models, histories)
def test_so_it_does_for_a_history_given_now(served, history):
    parts = formula(served, history=history)
    check(served.recommend(history=history, k=NUM_ITEMS), parts, hidden=history)


@given(paper_models, users, omegas)
def test_any_weight_of_the_long_term_from_one_index(served, user, omega):
    parts = formula(served, user, omega=omega)
    found = served.recommend(user, k=NUM_ITEMS, exclude_seen=False, long_term_weight=omega)
    check(found, parts)


@given(st.sampled_from(PAPER), users, items, items, omegas)
def test_a_weight_asked_for_is_that_of_a_model_which_has_it(kind, user, item, other, omega):
    asked, trained = model(kind, 1), model(kind, 1, omega)
    weight = {"long_term_weight": omega}
    assert asked.recommend(user, **weight) == trained.recommend(user)
    assert asked.recommend_batch(**weight).to_dict() == trained.recommend_batch().to_dict()
    assert asked.explain(user, item, versus=other, without=True, **weight) == trained.explain(
        user, item, versus=other, without=True
    )
    assert asked.audience(item, **weight) == trained.audience(item)
    assert asked.reasons(user, [item], **weight) == trained.reasons(user, [item])
    group = asked.recommend_group([user, [item]], **weight)
    assert group == trained.recommend_group([user, [item]])


@given(paper_models, users, omegas)
def test_the_same_order_by_inner_products_over_one_table(served, user, omega):
    """[2ωU ; 2(1−ω)m ; −ω ; −(1−ω)] · [V ; X ; ‖V‖² ; ‖X‖²] = −y + a constant of the query."""
    network = served.network
    with torch.no_grad():
        V, X = network.item_long.double(), network.item_short.double()
        index = served.histories.histories[number(user)]
        L = network.config.window_length
        window = torch.full((1, L), -1)
        window[0, -len(index[-L:]) :] = torch.as_tensor(index[-L:].astype(np.int64))
        m = network.intent(window, dtype=torch.float64)[0]
        U = V[index].mean(dim=0)
        if has_row(served, user):
            U = network.user_long[number(user)].double()
        tail = torch.tensor([-omega, omega - 1], dtype=torch.float64)
        query = torch.cat([2 * omega * U, 2 * (1 - omega) * m, tail])
        squares = torch.stack([V.square().sum(dim=1), X.square().sum(dim=1)], dim=1)
        products = (torch.cat([V, X, squares], dim=1) @ query).numpy()
    found = served.recommend(user, k=NUM_ITEMS, exclude_seen=False, long_term_weight=omega)
    chosen = [number(place.item_id) for place in found]
    sums = products[chosen] + [place.distance for place in found]
    np.testing.assert_allclose(sums, sums[0], rtol=0, atol=1e-9)


# Exact reasons


@given(models, users, items, items, st.none() | omegas)
def test_reasons_add_up(served, user, item, other, omega):
    omega = None if additive(served) else omega
    found = served.explain(user, item, versus=other, long_term_weight=omega)
    parts = formula(served, user, omega=omega, rounded=False)
    i, j = number(item), number(other)
    total = sum(event.part for event in found.events) + found.excess + found.constant
    total += found.offset
    assert total == pytest.approx(found.short_term, **EXACT)
    assert found.long_term + found.short_term == pytest.approx(found.distance, **EXACT)
    assert found.distance == pytest.approx(parts[i].sum(), **EXACT)
    pulls = sum(event.pull for event in found.events) + found.excess_pull + found.offset_pull
    assert pulls == pytest.approx(found.short_term_advantage, **EXACT)
    assert pulls == pytest.approx(parts[:, 1].mean() - parts[i, 1], **EXACT)
    assert found.long_term_pull == pytest.approx(parts[:, 0].mean() - parts[i, 0], **EXACT)
    contrast = found.versus
    added = sum(contrast.events) + contrast.excess + contrast.long_term + contrast.offset
    assert contrast.difference == pytest.approx(added, **EXACT)
    assert contrast.difference == pytest.approx(parts[j].sum() - parts[i].sum(), **EXACT)


@given(models, users, items)
def test_what_changes_without_an_event_is_computed_without_it(served, user, item):
    history = history_of(served, user)
    found = served.explain(user, item, without=True)
    window = history[-served.network.config.window_length :]
    assert [each.item_id for each in found.without] == window
    assert [each.item_id for each in found.events] == window
    hidden = set(history) - {item}

    def place(parts):
        order = np.lexsort([np.arange(NUM_ITEMS), parts.sum(axis=1)])
        return [f"i{i:02}" for i in order if f"i{i:02}" not in hidden].index(item) + 1

    assert found.rank == place(formula(served, user))
    for back, absence in enumerate(reversed(found.without), start=1):
        left = [*history[: len(history) - back], *history[len(history) - back + 1 :]]
        if not (left or has_row(served, user) or additive(served)):
            assert (absence.distance, absence.rank) == (None, None)
            continue
        exact = formula(served, user, left, rounded=False)[number(item)].sum()
        assert absence.distance == pytest.approx(exact, **EXACT)
        assert absence.rank == place(formula(served, user, left))
        if left:
            again = served.explain(user, item, history=left)
            assert absence.distance == pytest.approx(again.distance, **EXACT)


# Groups and critique


@given(models, st.data())
def test_a_group_is_the_weighted_sum_of_its_members(served, data):
    members = data.draw(st.lists(users | histories, min_size=1, max_size=4))
    given_weights = data.draw(
        st.lists(weights, min_size=len(members), max_size=len(members)).filter(
            lambda each: sum(each) > 0.05
        )
    )
    omega = None if additive(served) else data.draw(omegas)
    found = served.recommend_group(
        members, given_weights, k=NUM_ITEMS, exclude_seen=False, long_term_weight=omega
    )
    own = [
        formula(served, member, omega=omega)
        if isinstance(member, str)
        else formula(served, history=member, omega=omega)
        for member in members
    ]
    check(found, sum(w * y for w, y in zip(given_weights, own, strict=True)) / sum(given_weights))
    for place in found:
        distances = [y[number(place.item_id)].sum() for y in own]
        assert place.members == pytest.approx(distances, **EXACT)


@given(models, users, users)
def test_a_group_leaves_out_what_its_positive_members_took(served, first, second):
    found = served.recommend_group([first, second], [1.0, -0.5], k=NUM_ITEMS)
    seen = set(history_of(served, first))
    assert {place.item_id for place in found} == {f"i{i:02}" for i in range(NUM_ITEMS)} - seen


@given(models, users, st.integers(1, 5))
def test_a_group_of_one_is_that_one(served, user, k):
    alone = served.recommend(user, k=k)
    for place, group in zip(alone, served.recommend_group([user], [2.5], k=k), strict=True):
        assert place.to_dict() == {k: v for k, v in group.to_dict().items() if k != "members"}
        assert group.members == (place.distance,)


@given(models, users, st.data())
def test_a_critique_is_a_group_with_the_items_own_points(served, user, data):
    like = data.draw(st.lists(items, max_size=3))
    unlike = data.draw(st.lists(items, max_size=3))
    strength = data.draw(st.floats(0.05, 0.9))
    omega = None if additive(served) else data.draw(omegas)
    shares = {
        **{("like", n): strength / len(like) for n in range(len(like))},
        **{("unlike", n): -strength / len(unlike) for n in range(len(unlike))},
    }
    lift = 0.0
    if additive(served):
        keys, lift = keys_of(served)
        points, tables, factors = [keys_of(served, rounded=False)[0]], [keys], [1.0]
    else:
        points = tables = [served.network.item_long.double(), served.network.item_short.double()]
        omega_or_own = served.network.config.long_term_weight if omega is None else omega
        factors = [omega_or_own, 1 - omega_or_own]
    mean = formula(served, user, omega=omega)
    for (side, n), share in shares.items():
        item = number({"like": like, "unlike": unlike}[side][n])
        apart = [
            factor * ((own[item] - table).square().sum(dim=1) + lift).detach().numpy()
            for factor, own, table in zip(factors, points, tables, strict=True)
        ]
        mean = mean + share * np.stack([np.zeros(NUM_ITEMS), *apart][-2:], axis=1)
    mean /= 1.0 + sum(shares.values())
    found = served.recommend(
        user, k=NUM_ITEMS, like=like, unlike=unlike, strength=strength, exclude_seen=False,
        long_term_weight=omega,
    )  # fmt: skip
    check(found, mean)
    hidden = {*history_of(served, user), *like, *unlike}
    fresh = served.recommend(user, k=NUM_ITEMS, like=like, unlike=unlike, strength=strength)
    assert {place.item_id for place in fresh} == {f"i{i:02}" for i in range(NUM_ITEMS)} - hidden


# From the item's side


@given(models, items, st.integers(1, USERS), st.data())
def test_the_audience_has_the_distance_of_the_lists(served, item, k, data):
    omega = None if additive(served) else data.draw(omegas)
    y = {
        user: formula(served, user, omega=omega)[number(item)]
        for user in served.vocabulary.user_ids
    }
    for exclude_taken in (True, False):
        found = served.audience(item, k=k, exclude_taken=exclude_taken, long_term_weight=omega)
        left = [u for u in y if not exclude_taken or item not in history_of(served, u)]
        expected = sorted(left, key=lambda user: y[user].sum())[:k]
        assert [place.user_id for place in found] == expected
        assert [place.rank for place in found] == list(range(1, len(expected) + 1))
        for place in found:
            assert place.distance == pytest.approx(y[place.user_id].sum(), **EXACT)
            assert place.long_term == pytest.approx(y[place.user_id][0], **EXACT)
            places = served.recommend(
                place.user_id, k=NUM_ITEMS, exclude_seen=False, long_term_weight=omega
            )
            (same,) = [each for each in places if each.item_id == item]
            assert same.distance == pytest.approx(place.distance, **EXACT)


@given(models, items, st.sampled_from(["next", "short-term", "long-term"]))
def test_similar_items_are_nearest_in_the_asked_sense(served, item, sense):
    i = number(item)
    if additive(served) and sense == "long-term":
        with pytest.raises(RequestError, match="no long-term part"):
            served.similar(item, sense=sense)
        return
    if additive(served):
        own, (table, lift) = keys_of(served, rounded=False)[0], keys_of(served)
    else:
        network = served.network
        own = table = (network.item_long if sense == "long-term" else network.item_short).double()
        lift = 0.0
    apart = ((own[i] - table).square().sum(dim=1) + lift).detach().numpy()
    if additive(served) and sense == "next":
        apart = formula(served, history=[item])[:, 1]
    none = np.zeros(NUM_ITEMS)
    parts = np.stack([apart, none] if sense == "long-term" else [none, apart], axis=1)
    check(served.similar(item, k=NUM_ITEMS, sense=sense), parts, hidden=[item])


# Users that came later


@given(paper_models, histories, st.integers(0, TRAINED - 1))
def test_the_fold_in_minimises_the_summed_long_term_distance(served, history, trained):
    """Σ_j ‖U − V_j‖² = Σ_j ‖Ū − V_j‖² + n ‖U − Ū‖² for whatever U, Ū being the fold-in."""

    def summed(user):
        places = served.recommend(
            user, history=history, k=NUM_ITEMS, exclude_seen=False, long_term_weight=1.0
        )
        y = {place.item_id: place.distance for place in places}
        return sum(y[item] for item in history)

    V = served.network.item_long.detach().double()
    mean = V[[number(item) for item in history]].mean(dim=0)
    away = (served.network.user_long[trained].detach().double() - mean).square().sum().item()
    best, other = summed(None), summed(f"u{trained}")
    assert other == pytest.approx(best + len(history) * away, **EXACT)
    assert best <= other
    assert summed(f"u{TRAINED}") == pytest.approx(best, **EXACT)


# What cannot be answered


@pytest.mark.parametrize("kind", ["mean", "additive"])
@pytest.mark.parametrize(
    ("verb", "arguments", "error", "message"),
    [
        ("recommend", {"user": "u1", "long_term_weight": 1.5}, RequestError, "weight = 1.5"),
        ("explain", {"user": "u1", "item": "i01", "long_term_weight": -1}, RequestError, "= -1"),
        ("recommend_batch", {"long_term_weight": float("nan")}, RequestError, "= nan"),
        ("recommend", {"user": "u1", "unlike": ["zz"]}, UnknownIdError, "'zz' is not in the model"),
        ("recommend", {"user": "u1", "unlike": "i01"}, RequestError, r"write \['i01'\]"),
        ("recommend", {"user": "u1", "unlike": ["i01"], "strength": 1.0}, RequestError, "below 1"),
        ("recommend", {"user": "u1", "like": ["i01"], "strength": 0.0}, RequestError, "above 0"),
        ("recommend_group", {"members": []}, RequestError, "no members"),
        ("recommend_group", {"members": "u1"}, RequestError, r"write \['u1'\]"),
        ("recommend_group", {"members": ["who"]}, UnknownIdError, "'who' is not in the model"),
        ("recommend_group", {"members": [["zz"]]}, RequestError, "none of them is known"),
        ("recommend_group", {"members": ["u1"], "weights": [1, 2]}, RequestError, "2 weights for"),
        ("recommend_group", {"members": ["u1", "u2"], "weights": [1, -1]}, RequestError, "above 0"),
        (
            "recommend_group",
            {"members": ["u1", "u2", "u3"], "weights": [0.1, 0.2, -0.3]},
            RequestError,
            "above 0",
        ),
        (
            "recommend_group",
            {"members": ["u1"], "weights": [float("inf")]},
            RequestError,
            "finite",
        ),
        ("similar", {"item": "zz"}, UnknownIdError, "'zz' is not in the model"),
        ("similar", {"item": "i01", "sense": "taste"}, RequestError, "one of next, short-term"),
        ("similar", {"item": "i01", "allow": ["i01"]}, RequestError, "nothing is left"),
        ("audience", {"item": "zz"}, UnknownIdError, "'zz' is not in the model"),
        ("audience", {"item": "i01", "k": 0}, RequestError, "at least 1 user"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_answered(kind, verb, arguments, error, message):
    if kind == "additive" and "long_term_weight" in arguments:
        message = "no long-term part to weigh"
    with pytest.raises(error, match=message):
        getattr(model(kind), verb)(**arguments)


def test_an_item_of_which_nothing_is_known_stands_nowhere():
    known = model("lifted")
    network = known.network.with_items(known.network.folded_context, torch.eye(8)[:2] * 0.5)
    network.folded_key[1] = 0.0
    served = Recommender(network, known.vocabulary, known.histories, known.options)
    assert all(place.item_id != "i24" for place in served.recommend("u1", k=NUM_ITEMS))
    group = served.recommend_group(["u1", "u2"], k=NUM_ITEMS, exclude_seen=False)
    assert [place.item_id for place in group if place.item_id == "i24"] == []
    for verb in (served.similar, served.audience):
        with pytest.raises(RequestError, match="'i24' came after training and nothing is known"):
            verb("i24")
    with pytest.raises(RequestError, match="nothing is known"):
        served.recommend("u1", unlike=["i24"])
    for item in served.vocabulary.item_ids[:24]:
        if item not in history_of(served, "u1"):
            places = served.recommend("u1", k=NUM_ITEMS)
            (place,) = [each.rank for each in places if each.item_id == item]
            assert served.explain("u1", item, without=True).rank == place


def test_nobody_may_be_left_for_an_audience():
    served = model("mean")
    for item in served.vocabulary.item_ids:
        taken = [u for u in served.vocabulary.user_ids if item in history_of(served, u)]
        assert len(served.audience(item, k=99)) == USERS - len(taken)
