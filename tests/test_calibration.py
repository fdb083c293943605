"""The popularity of the moment: reckoned by hand, chosen where it helps, and nowhere else."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attrec
from attrec.config import ProtocolConfig
from attrec.data.cases import encode_cases, validation_events
from attrec.data.interactions import InteractionLog
from attrec.data.splits import split_log
from attrec.data.vocabulary import Vocabulary
from attrec.errors import DataError
from attrec.popularity import FLOOR, Moment, recent_counts
from attrec.retrieval.vectors import item_keys, query_vectors

SMALL = {"embedding_dim": 16, "window_length": 10, "max_epochs": 4, "min_steps": 40}


def fashionable(num_users=400, num_items=60, events=5000, seed=0):
    """A log in which everybody takes what is in fashion, and fashions follow one another."""
    rng = np.random.default_rng(seed)
    times = np.arange(events)
    fashion = times * num_items // events
    items = np.minimum(num_items - 1, fashion + rng.integers(0, 4, events))
    return InteractionLog.from_columns(rng.integers(0, num_users, events), items, times)


@pytest.mark.parametrize(("users", "tried"), [(29, False), (30, True)])
def test_a_handful_of_events_chooses_nothing(users, tried):
    log = fashionable(num_users=users, events=40 * users)
    result = attrec.fit(log, **{**SMALL, "max_epochs": 1}, retrain=False)
    assert result.counts["validation_users"] == users
    assert bool(result.recommender.record["recent_popularity"]) is tried


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=30),
    st.floats(0.5, 20),
)
def test_counts_are_those_of_the_obvious_loop(events, half_life):
    items, times = (np.array(column) for column in zip(*events, strict=True))
    wanted = np.zeros(5)
    for item, time in events:
        since = sum(other > time for _, other in events)
        wanted[item] += 0.5 ** (since / half_life)
    found = recent_counts(items, times.astype(float), 5, half_life)
    assert found == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("protocol", ["leave-last-out", "global-time"])
def test_validation_events_are_asked_before_each_of_them(protocol):
    log = fashionable(num_users=40, events=600)
    split = split_log(log, ProtocolConfig(split=protocol))
    vocabulary = Vocabulary.fit(split.train)
    found = validation_events(split, vocabulary, 10**6)
    histories, wanted = {}, []
    learnt = Counter(split.train.user_codes.tolist())
    known = split.train_and_validation
    for row in np.argsort(known.timestamps, kind="stable"):
        user, item = int(known.user_codes[row]), known.item_ids[known.item_codes[row]]
        index = int(vocabulary.encode_items([item])[0])
        before = histories.setdefault(user, [])
        if len(before) >= learnt[user]:
            wanted.append((user, [i for i in before if i >= 0], index))
        before.append(index)
    wanted.sort(key=lambda event: event[0])
    ours = [(h.tolist(), t.tolist()[0])
            for h, t in zip(found.histories, found.targets, strict=True)]  # fmt: skip
    assert ours == [(history, target) for _, history, target in wanted]
    if protocol == "leave-last-out":
        judged = encode_cases(split.validation, split.log, vocabulary)
        assert np.array_equal(judged.targets.values, found.targets.values)
        assert np.array_equal(judged.histories.values, found.histories.values)
    assert len(validation_events(split, vocabulary, 10)) <= 10


def test_offsets_by_hand():
    # Counts 1/4 and 1/2 + 1, their mean over 3 items.
    found = Moment(1.0, 2.0).offsets(np.array([1, 0, 1]), np.array([8.0, 7.0, 9.5]), 3)
    prior = np.array([0.25, 1.5, 0.0]) + FLOOR * 1.75 / 3
    assert found == pytest.approx(2.0 * np.log(prior.max() / prior), abs=1e-12)


@pytest.fixture(scope="module")
def in_fashion():
    return attrec.fit(fashionable(), split="global-time", **SMALL)


def test_it_is_chosen_where_fashions_follow_one_another(in_fashion):
    served = in_fashion.recommender
    assert served.moment is not None
    tried = served.record["recent_popularity"]
    assert tried[0]["weight"] == 0.0
    assert max(t["figure"] for t in tried[1:]) > tried[0]["figure"] + 0.05
    without = attrec.fit(fashionable(), split="global-time", recent_popularity=False, **SMALL)
    assert without.recommender.moment is None
    figures = [
        result.evaluation.systems["attrec"].metrics["hit_rate@10"]["mean"]
        for result in (in_fashion, without)
    ]
    assert figures[0] > figures[1] + 0.1, figures


def test_without_times_there_is_no_moment_to_reckon(in_fashion):
    log, served = fashionable(), in_fashion.recommender
    timeless = InteractionLog.from_columns(
        log.user_ids[log.user_codes], log.item_ids[log.item_codes], None
    )
    for ask in (
        lambda: served.as_of(timeless),
        lambda: attrec.evaluate(served, timeless, split="leave-last-out"),
    ):
        with pytest.raises(DataError, match=r"have no times, .* give the log with its times"):
            ask()


def test_it_is_left_out_where_nothing_is_in_fashion():
    log = attrec.simulate("community", num_users=200, num_items=60, events_per_user=12, seed=1)
    served = attrec.fit(log, **SMALL).recommender
    assert served.moment is None
    assert not served.network.is_lifted


def test_ranking_stays_one_distance_and_the_reasons_add_up(in_fashion):
    served = in_fashion.recommender
    user = served.vocabulary.user_ids[0]
    histories = served.histories.histories.take(np.array([0]))
    query = query_vectors(served.network, np.array([0]), histories)[0]
    keys = item_keys(served.network, torch.float64)
    distances = (query - keys).square().sum(dim=1)
    intent = query[:-1]
    network = served.network
    plain = 2.0 - 2.0 * network.keys(dtype=torch.float64) @ intent + network.offset
    assert torch.allclose(distances, plain, atol=1e-9)
    best = served.recommend(user, k=5, exclude_seen=False)
    assert [b.item_id for b in best] == served.vocabulary.item_ids[distances.argsort()[:5]].tolist()
    found = served.explain(user, best[0].item_id, versus=best[4].item_id)
    parts = sum(e.part for e in found.events) + found.excess + found.constant + found.offset
    assert parts == pytest.approx(found.distance, abs=1e-9)
    pulls = sum(e.pull for e in found.events) + found.excess_pull + found.offset_pull
    assert pulls == pytest.approx(found.short_term_advantage, abs=1e-9)
    mean = float(distances.mean())
    assert found.short_term_advantage == pytest.approx(mean - found.distance, abs=1e-9)
    other = found.versus
    together = sum(other.events) + other.excess + other.long_term + other.offset
    assert together == pytest.approx(other.difference, abs=1e-9)
    assert "popularity of the moment" in str(found)


def test_it_is_saved_and_the_test_part_is_judged_without_itself(in_fashion, tmp_path):
    served = in_fashion.recommender
    served.save(tmp_path / "model")
    loaded = attrec.load(tmp_path / "model")
    assert loaded.moment == served.moment
    assert torch.equal(loaded.network.offset, served.network.offset)
    again = attrec.evaluate(loaded, fashionable(), with_baselines=False)
    for metric, figures in in_fashion.evaluation.systems["attrec"].metrics.items():
        assert again.systems["attrec"].metrics[metric]["mean"] == figures["mean"], metric
