import time

import numpy as np
import polars as pl
import pytest
import torch

import attrec
from attrec.api import WITHOUT_RETRAINING, train_on
from attrec.config import Options
from attrec.data.interactions import InteractionLog
from attrec.data.reading import write_csv
from attrec.data.splits import leave_last_out
from attrec.errors import AttRecError, ConfigError, DataError
from attrec.native.library import available
from attrec.updating import update

SMALL = {
    "embedding_dim": 8,
    "max_epochs": 2,
    "batch_size": 64,
    "architecture": "paper",
    "init_std": 0.3,
}


@pytest.fixture(scope="module")
def log():
    return attrec.simulate("mixed", num_users=60, num_items=40, events_per_user=12, seed=3)


@pytest.fixture(scope="module")
def result(log):
    return attrec.fit(log, **SMALL)


def test_a_fit_says_how_good_it_is_beside_the_floors(result):
    assert list(result.evaluation.systems) == [
        "attrec", WITHOUT_RETRAINING, "popularity", "recent popularity", "Markov, first order",
    ]  # fmt: skip
    record = result.recommender.record
    assert record["best_epoch"] == result.best_epoch
    assert record["trained_on"] == "train + validation"
    assert record["test"] == result.evaluation.to_dict()
    assert record["step"] == ("NativeStep" if available() else "FusedStep")
    assert len(record["epochs"]) == 2
    assert set(result.attention) == {"windows", "entropy", "weight_by_slot", "content_share"}
    assert result.counts["test_users"] == 60


def test_without_retraining_there_is_one_row(log):
    once = attrec.fit(log, **SMALL, retrain=False)
    assert WITHOUT_RETRAINING not in once.evaluation.systems
    assert once.recommender.record["trained_on"] == "train"


def test_both_rows_are_what_they_say(log, result):
    once = attrec.fit(log, **SMALL, retrain=False)
    first = result.evaluation.systems[WITHOUT_RETRAINING].metrics
    alone = once.evaluation.systems["attrec"].metrics
    assert first["mrr"]["mean"] == pytest.approx(alone["mrr"]["mean"])


def test_the_recommender_knows_the_whole_log(log, result):
    histories = result.recommender.histories.histories
    assert len(histories.values) == len(log)
    user = int(log.user_ids[0])
    own = log.item_codes[log.user_codes == 0]
    answers = result.recommender.recommend(user, k=40)
    assert not {answer.item_id for answer in answers} & set(log.item_ids[own].tolist())


def test_the_same_figures_from_the_saved_model(log, result, tmp_path):
    result.recommender.save(tmp_path / "m")
    again = attrec.evaluate(attrec.load(tmp_path / "m"), log)
    for name in ("attrec", "popularity", "recent popularity", "Markov, first order"):
        assert again.systems[name].metrics == result.evaluation.systems[name].metrics
    assert "NOT the log" not in again.protocol
    alone = attrec.evaluate(result.recommender, log, with_baselines=False, cutoffs=(3,))
    assert list(alone.systems) == ["attrec"]
    assert "hit_rate@3" in alone.systems["attrec"].metrics


def test_another_log_is_named_in_the_protocol(result):
    other = attrec.simulate("mixed", num_users=60, num_items=40, events_per_user=12, seed=4)
    assert "NOT the log of the training" in attrec.evaluate(result.recommender, other).protocol


@pytest.mark.parametrize(
    "other", [{"held_out_events": 2}, {"split": "global-time", "test_fraction": 0.4}]
)
def test_another_cut_of_the_same_log_is_named_in_the_protocol(log, result, other):
    assert (
        "NOT the cut of the training" in attrec.evaluate(result.recommender, log, **other).protocol
    )


def test_a_cut_that_its_split_does_not_read_is_no_other(log, result):
    again = attrec.evaluate(result.recommender, log, test_fraction=0.4, cutoffs=(3,))
    assert "NOT the" not in again.protocol


def test_a_test_file_of_which_the_model_has_nothing_may_be_judged(log):
    order = log.time_order()
    order = order[np.argsort(log.timestamps[order], kind="stable")]
    old, known = log.take(np.sort(order[:500])), log.take(np.sort(order[:620]))
    newest = log.take(np.sort(order[620:]))
    updated = update(attrec.fit(old, **SMALL).recommender, known).recommender
    found = attrec.evaluate(updated, known, test=newest)
    assert "NOT the log" not in found.protocol
    assert found.systems["attrec"].metrics["hit_rate@10"]["mean"] > 0
    met = log.take(np.sort(order[619:]))
    assert "NOT the log" in attrec.evaluate(updated, known, test=met).protocol


def test_items_that_came_by_an_update_are_named_in_the_protocol():
    # The last event of every other user takes an item that nobody took before.
    users, steps = np.divmod(np.arange(300), 5)
    items = np.where((steps == 4) & (users % 2 == 0), 20 + users % 3, (users + steps) % 12)
    log = InteractionLog.from_columns(users, items, np.arange(300))
    model = attrec.fit(log, **SMALL).recommender
    assert "NOT the" not in attrec.evaluate(model, log).protocol
    updated = update(model, log).recommender
    words = attrec.evaluate(updated, log).protocol
    assert "NOT the catalogue of the training: test events may have been learnt from" in words
    newest = InteractionLog.from_columns(users[:40], items[40:80], 1000 + np.arange(40))
    assert "NOT the" not in attrec.evaluate(updated, log, test=newest).protocol


def test_a_model_of_the_training_part_alone_is_judged_with_its_own_baselines(log):
    once = attrec.fit(log, **SMALL, retrain=False)
    again = attrec.evaluate(once.recommender, log)
    for name, system in again.systems.items():
        assert system.metrics == once.evaluation.systems[name].metrics


def test_a_cut_in_time_scores_new_users_apart():
    rng = np.random.default_rng(0)
    users = np.concatenate([np.repeat(np.arange(40), 15), np.repeat(np.arange(40, 50), 3)])
    times = np.concatenate([rng.random(600), 0.93 + 0.07 * rng.random(30)])
    log = InteractionLog.from_columns(users, rng.integers(0, 30, 630), times)
    result = attrec.fit(log, split="global-time", **SMALL)
    new = result.evaluation.new_users
    assert new.counts["users"] == new.counts["new_users"] > 0
    assert result.evaluation.counts["new_users"] == 0
    assert result.counts["test_new_users"] >= new.counts["users"]
    # Users who came after training are in the recommender all the same, by fold-in.
    assert result.recommender.vocabulary.num_users == 50
    assert result.recommender.vocabulary.num_trained_users < 50
    assert len(result.recommender.recommend(49, k=3)) == 3


def test_a_given_test_file(log, tmp_path):
    last = np.zeros(len(log), dtype=bool)
    last[log.time_order().reshape(60, 12)[:, -1]] = True
    paths = tmp_path / "train.csv", tmp_path / "test.csv"
    for path, rows in zip(paths, (~last, last), strict=True):
        write_csv(log.take(rows), path)
    result = attrec.fit(paths[0], test=paths[1], **SMALL)
    assert "given files" in result.evaluation.protocol
    assert result.counts["test_users"] == 60
    again = attrec.evaluate(result.recommender, paths[0], test=paths[1])
    assert "NOT the" not in again.protocol
    assert again.systems["attrec"].metrics == result.evaluation.systems["attrec"].metrics
    # The same events held out by position give the same figures.
    write_csv(log, tmp_path / "whole.csv")
    whole = attrec.fit(tmp_path / "whole.csv", **SMALL)
    mrr = whole.evaluation.systems["attrec"].metrics["mrr"]["mean"]
    assert result.evaluation.systems["attrec"].metrics["mrr"]["mean"] == pytest.approx(mrr)


def test_paths_and_frames_are_logs(log, tmp_path):
    write_csv(log, tmp_path / "log.csv")
    from_file = attrec.fit(tmp_path / "log.csv", **SMALL)
    frame = pl.DataFrame(
        {
            "user_id": log.user_ids[log.user_codes],
            "item_id": log.item_ids[log.item_codes],
            "timestamp": log.timestamps,
        }
    )
    from_frame = attrec.fit(frame, **SMALL)
    assert from_file.recommender.vocabulary.item_kind == "string"
    assert from_frame.recommender.vocabulary.item_kind == "integer"


def test_a_listener_is_told_in_order(log):
    told = []

    class Listener(attrec.Listener):
        def phase(self, name):
            told.append(name)

        def epoch(self, epoch):
            told.append(epoch.number)

    attrec.fit(log, **SMALL, listener=Listener())
    best = told.index("retraining") - 2
    assert told[:4] == ["splitting", "training", 1, 2]
    assert told[4] == "retraining"
    assert told[-1] == "judging"
    assert best == 2


def test_the_record_says_how_long_each_phase_took(log):
    began = time.perf_counter()
    record = attrec.fit(log, **SMALL).recommender.record
    took = time.perf_counter() - began
    assert list(record["seconds"]) == [
        "reading", "splitting", "training", "retraining", "judging", "assembling",
    ]  # fmt: skip
    assert 0 < sum(record["seconds"].values()) <= took
    epochs = sum(e["train_seconds"] + e["validation_seconds"] for e in record["epochs"])
    assert record["seconds"]["training"] >= epochs
    assert "retraining" not in attrec.fit(log, **SMALL, retrain=False).recommender.record["seconds"]


@pytest.mark.parametrize("part", ["validation", "test"])
def test_changing_held_out_rows_leaves_every_training_tensor_as_it_was(log, part):
    place = {"validation": -2, "test": -1}[part]
    items = log.item_codes.copy()
    rows = log.time_order().reshape(60, 12)[:, place]
    items[rows] = (items[rows] + 7) % 40
    changed = InteractionLog(log.user_ids, log.item_ids, log.user_codes, items, log.timestamps)
    options = Options.of(**SMALL)
    # The same epochs for both: which one is best may hang on validation, the weights may not.
    first, second = (
        train_on(leave_last_out(each).train, options, num_epochs=2).network
        for each in (log, changed)
    )
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_options_come_from_a_file_too(log, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('preset = "paper-dense"\n[model]\nembedding_dim = 6\n[train]\nmax_epochs = 1\n')
    result = attrec.fit(log, config_file=file)
    assert result.recommender.options.preset == "paper-dense"
    assert result.recommender.network.config.embedding_dim == 6


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"windows": 3}, ConfigError, "no option 'windows'"),
        ({"preset": "acurate"}, ConfigError, "no preset 'acurate'"),
        ({"selection_metric": "auc"}, ConfigError, "no metric 'auc'"),
    ],
)
def test_mistakes_are_told_before_any_work(log, options, kind, words):
    with pytest.raises(kind, match=words):
        attrec.fit(log, **options)


def test_every_error_is_one_of_ours(tmp_path):
    with pytest.raises(AttRecError, match="no such file"):
        attrec.fit(tmp_path / "none.csv")
    few = InteractionLog.from_columns(["a"] * 6 + ["b"] * 6, ["x", "y", "z"] * 4)
    with pytest.raises(DataError, match="num_targets"):
        attrec.fit(few, preset="paper-sparse")
