"""The additive network through the public doors: the same promises as the paper's."""

import numpy as np
import pytest
import torch

import attrec
from attrec.api import retrain_on, train_on
from attrec.config import Options, identity_of
from attrec.data.splits import split_log
from attrec.model.choice import make_network
from attrec.retrieval.vectors import item_keys, query_vectors
from tests.command_line import run_cli

SMALL = {
    "architecture": "additive", "embedding_dim": 16, "window_length": 12, "learning_rate": 0.01,
    "batch_size": 400, "warmup_steps": 10, "dropout": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def log():
    return attrec.simulate("mixed", num_users=150, num_items=60, events_per_user=15, seed=2)


@pytest.fixture(scope="module")
def result(log):
    return attrec.fit(log, max_epochs=6, **SMALL)


def test_it_beats_popularity(result):
    systems = result.evaluation.to_dict()["systems"]
    ours, popular = systems["attrec"]["ndcg@10"]["mean"], systems["popularity"]["ndcg@10"]["mean"]
    assert ours > 1.3 * popular


def test_a_saved_model_answers_as_before(result, log, tmp_path):
    ours = result.recommender
    ours.save(tmp_path / "model")
    loaded = attrec.load(tmp_path / "model")
    for user in log.user_ids[:10]:
        assert [a.to_dict() for a in ours.recommend(user)] == [
            a.to_dict() for a in loaded.recommend(user)
        ]
    again = attrec.evaluate(loaded, log)
    assert again.to_dict()["systems"]["attrec"] == result.evaluation.to_dict()["systems"]["attrec"]


def test_batch_single_and_index_give_the_same_lists(result, log):
    served = result.recommender
    table = served.recommend_batch(k=7)
    for user in log.user_ids[:25]:
        rows = table.user_id == user
        single = served.recommend(user, k=7)
        assert [a.item_id for a in single] == table.item_id[rows].tolist()
        assert [a.distance for a in single] == pytest.approx(
            table.distance[rows].tolist(), abs=1e-9
        )


def test_an_unknown_user_gets_what_a_known_one_with_the_same_history_gets(result, log):
    served = result.recommender
    histories = served.histories.histories
    for row in range(20):
        user = served.vocabulary.user_ids[row]
        history = served.vocabulary.decode_items(histories[row]).tolist()
        known, unknown = served.recommend(user, k=8), served.recommend(history=history, k=8)
        assert [a.to_dict() for a in known] == [a.to_dict() for a in unknown]


def test_keys_and_queries_give_the_networks_distances(result):
    network = result.recommender.network
    histories = result.recommender.histories.histories.take(np.arange(5))
    queries = query_vectors(network, np.full(5, -1), histories)
    found = (queries[:, None] - item_keys(network, torch.float64)).square().sum(dim=2)
    with torch.no_grad():
        for row, items in enumerate(histories):
            chosen = torch.from_numpy(items[-12:].astype(np.int64))
            m = network.last_intents(chosen, torch.tensor([len(chosen)]), dtype=torch.float64)
            cosines = (m @ network.keys(dtype=torch.float64).T)[0]
            torch.testing.assert_close(found[row], 2.0 - 2.0 * cosines, rtol=1e-9, atol=1e-9)


def test_an_explanation_adds_up_and_names_its_parts(result, log):
    served = result.recommender
    user = log.user_ids[3]
    first, second = served.recommend(user, k=2)
    found = served.explain(user, first.item_id, versus=second.item_id)
    parts = sum(event.part for event in found.events) + found.excess + found.constant
    assert found.distance == pytest.approx(first.distance, abs=1e-5)
    assert parts == pytest.approx(found.short_term, abs=1e-9)
    assert found.long_term + found.short_term == pytest.approx(found.distance, abs=1e-12)
    pulls = sum(event.pull for event in found.events) + found.excess_pull
    assert pulls == pytest.approx(found.short_term_advantage, abs=1e-9)
    assert sum(event.share for event in found.events) == pytest.approx(1.0)
    contrast = found.versus
    assert contrast.difference == pytest.approx(
        sum(contrast.events) + contrast.excess + contrast.long_term, abs=1e-9
    )
    assert contrast.difference == pytest.approx(second.distance - first.distance, abs=1e-5)
    assert "long-term" not in str(found)
    assert "together, against an average item" in str(found)


def test_advantage_is_over_the_mean_of_the_catalogue(result, log):
    served = result.recommender
    user = log.user_ids[5]
    ids = served.vocabulary.item_ids
    explained = [served.explain(user, item) for item in ids]
    mean = np.mean([each.distance for each in explained])
    for each in explained[:10]:
        advantage = each.short_term_advantage + each.long_term_pull
        assert advantage == pytest.approx(mean - each.distance, abs=1e-9)


def test_reasons_are_the_events_that_pull_most(result, log):
    served = result.recommender
    user = log.user_ids[1]
    item = served.recommend(user, k=1)[0].item_id
    (names,) = served.reasons(user, [item])
    events = served.explain(user, item).events
    pulls = {}
    for event in events:
        pulls[str(event.item_id)] = pulls.get(str(event.item_id), 0.0) + event.pull
    assert names == [n for n, pull in sorted(pulls.items(), key=lambda p: -p[1])[:2] if pull > 0]


def test_the_attention_is_reported_and_drawn(result, tmp_path):
    from attrec.pictures import draw_window

    profile = result.attention
    assert 0 < profile["entropy"] <= 1
    assert 0 <= profile["content_share"] <= 1
    assert profile["windows"] > 100
    picture = draw_window(result.recommender, tmp_path / "window.png")
    assert picture.stat().st_size > 10_000


def test_a_user_with_nothing_known_is_left_out(result):
    with pytest.raises(attrec.AttRecError, match="none of them is known"):
        result.recommender.recommend(history=["no such item"])


def test_the_retraining_begins_anew_and_takes_the_best_number_of_epochs(log):
    options = {**SMALL, "max_epochs": 6, "seed": 0}
    split = split_log(log, Options.of(**options).protocol)
    first = train_on(split.train, Options.of(**options), validate_on=split)
    hardly = Options.of(**{**options, "learning_rate": 1e-12, "weight_decay": 0.0})
    again = retrain_on(split, first, hardly)
    assert len(again.run.epochs) == first.run.best_epoch
    assert not torch.allclose(again.network.item_key, first.network.item_key, atol=1e-3)
    sizes = again.vocabulary.num_users, again.vocabulary.num_items
    initial = make_network(hardly.model, *sizes, seed=0)
    torch.testing.assert_close(again.network.item_key, initial.item_key, rtol=1e-5, atol=1e-6)


def test_a_default_that_was_changed_makes_another_training():
    now, then = Options.of(), Options.of(full_rate_steps=0)
    assert identity_of(now) != identity_of(then)
    assert "full_rate_steps" not in str(identity_of(then))  # as it was written then
    paper = Options.of("paper-sparse")
    assert "full_rate_steps" not in str(identity_of(paper))


def test_an_item_that_only_validation_has_is_learnt_by_the_retraining():
    users = np.repeat(np.arange(40), 6)
    items = np.tile([1, 2, 3, 4, 5, 6], 40)
    items[4::6] = 99  # the validation event of everybody
    log = attrec.InteractionLog.from_columns(users, items, np.tile(np.arange(6), 40))
    options = Options.of(**SMALL, max_epochs=2)
    split = split_log(log, options.protocol)
    first = train_on(split.train, options, validate_on=split)
    assert 99 not in first.vocabulary.item_ids
    again = retrain_on(split, first, options)
    assert 99 in again.vocabulary.item_ids
    model = attrec.fit(log, **SMALL, max_epochs=2).recommender
    assert model.recommend(history=[1, 2, 3, 4], k=1, exclude_seen=True)[0].item_id == 99


def test_a_small_log_is_cut_into_smaller_batches(log):
    few = attrec.fit(log, **{**SMALL, "min_steps": 1}, max_epochs=1, retrain=False)
    many = attrec.fit(log, **{**SMALL, "min_steps": 40}, max_epochs=1, retrain=False)
    losses = [run.validation_run.epochs[0].loss for run in (few, many)]
    assert losses[1] < losses[0] - 0.05


def test_what_means_nothing_to_it_is_not_shown(result, tmp_path):
    result.recommender.save(tmp_path / "model")
    code, said = run_cli(tmp_path, ["info", "model"], columns=300)
    assert code == 0
    assert "temperature = 0.05" in said
    for name in ("margin", "long_term_weight", "init_std", "adagrad"):
        assert name not in said
