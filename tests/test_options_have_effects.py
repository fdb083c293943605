"""Each declared option changes something that can be seen."""

import pytest
import torch

import attrec
from attrec.config import Options, option_specs
from attrec.errors import ConfigError, DeviceError

SMALL = {
    "embedding_dim": 8,
    "max_epochs": 2,
    "batch_size": 64,
    "window_length": 4,
    "architecture": "paper",
    "init_std": 0.3,
}
OTHER = {
    "embedding_dim": 10,
    "window_length": 3,
    "aggregation": "max",
    "long_term_weight": 0.7,
    "dropout": 0.5,
    "init_std": 0.1,
    "num_targets": 1,
    "margin": 1.5,
    "pairing": "one-to-one",
    "l2": 0.1,
    "norm_clipping": False,
    "learning_rate": 0.5,
    "initial_accumulator": 1.0,
    "adagrad": "row-wise",
    "batch_size": 32,
    "max_epochs": 1,
    "retrain": False,
    "seed": 5,
}
ADDITIVE = {
    "heads": 1,
    "blocks": 0,
    "weight_decay": 1.0,
    "averaging": 0.0,
    "softmax_samples": 8,
    "warmup_steps": 0,
    "full_rate_steps": 1,
    "label_smoothing": 0.5,
    "min_steps": 3,
    "tied_embeddings": False,
    "identity_maps": False,
    "temperature": 0.5,
}
"""Options of the additive network alone."""
SEEN_IN_FIGURES = {
    "held_out_events": 2,
    "test_fraction": 0.3,
    "validation_fraction": 0.3,
    "cutoffs": (3, 7),
    "filter_seen": False,
    "split": "global-time",
    "ties": "optimistic",
}
READING = {
    "user": "buyer",
    "item": "thing",
    "time": "hour",
    "rating": "grade",
    "min_rating": 3.0,
    "where": "event = 'buy'",
    "format": "lines",
    "header": False,
    "encoding": "latin-1",
    "quotes": False,
    "on_bad_row": "skip",
    "duplicates": "keep",
    "repeats": "last",
    "min_user_events": 3,
    "min_item_events": 3,
}
TESTED_ELSEWHERE = {"query", "cache", "checkpoint_seconds", "item_categories", "item_vectors",
                    "recent_popularity"}  # fmt: skip
"""In tests/data/test_sources.py, tests/training/test_checkpoint.py, tests/test_features.py and
tests/test_calibration.py."""
TESTED_BELOW = {"threads", "device", "patience", "selection_metric", "ties"}


@pytest.fixture(scope="module")
def log():
    return attrec.simulate("mixed", num_users=60, num_items=40, events_per_user=12, seed=3)


def fitted(log, **options):
    small = dict(SMALL)
    if options.get("architecture") == "additive":
        del small["init_std"]
    return attrec.fit(log, **{**small, "patience": 0, **options})


@pytest.fixture(scope="module")
def usual(log):
    return fitted(log, dropout=0.0)


def tables(result):
    return [value.detach() for value in result.recommender.network.parameters()]


def test_every_option_is_tried_here():
    named = (
        set(OTHER)
        | set(ADDITIVE)
        | {"architecture"}
        | set(SEEN_IN_FIGURES)
        | set(READING)
        | TESTED_BELOW
        | TESTED_ELSEWHERE
    )
    assert named == {spec.name for spec in option_specs()}


def test_the_same_options_give_the_same_model(log, usual):
    again = fitted(log)
    assert all(torch.equal(a, b) for a, b in zip(tables(usual), tables(again), strict=True))


@pytest.mark.parametrize("name", OTHER)
def test_an_option_of_the_model_or_training_changes_the_model(log, usual, name):
    changed = fitted(log, **{name: OTHER[name]})
    pairs = list(zip(tables(usual), tables(changed), strict=True))
    if name == "window_length":
        window = torch.arange(4)[None]
        assert not torch.equal(
            usual.recommender.network.intent(window),
            changed.recommender.network.intent(window[:, 1:]),
        )
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in pairs)
    assert changed.recommender.options == Options.of(**{**SMALL, "patience": 0, name: OTHER[name]})


@pytest.fixture(scope="module")
def additive(log):
    return fitted(log, architecture="additive")


def test_the_architecture_changes_the_network(usual, additive):
    assert len(tables(usual)) != len(tables(additive))
    assert additive.recommender.record["step"] == "SoftmaxStep"


@pytest.mark.parametrize("name", [*ADDITIVE, "embedding_dim", "dropout", "learning_rate", "seed"])
def test_an_option_of_the_additive_network_changes_the_model(log, additive, name):
    changed = fitted(
        log, architecture="additive", **{name: {**OTHER, **ADDITIVE, "embedding_dim": 12}[name]}
    )
    pairs = list(zip(tables(additive), tables(changed), strict=False))
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", [n for n in SEEN_IN_FIGURES if n != "ties"])
def test_an_option_of_the_protocol_changes_the_figures(log, usual, name):
    options = {name: SEEN_IN_FIGURES[name]}
    if name in ("test_fraction", "validation_fraction"):
        first = fitted(log, split="global-time")
        changed = fitted(log, split="global-time", **options)
        assert first.counts != changed.counts
        return
    changed = fitted(log, **options)
    assert changed.evaluation.to_dict()["systems"] != usual.evaluation.to_dict()["systems"]
    assert changed.evaluation.protocol != usual.evaluation.protocol or name == "cutoffs"


def test_threads_are_set_while_training_and_restored_afterwards(log):
    seen = []

    class Watch(attrec.Listener):
        def epoch(self, epoch):
            seen.append(torch.get_num_threads())

    before = torch.get_num_threads()
    fitted(log, threads=before + 1, listener=Watch())
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_the_device_is_the_one_asked_for(log):
    assert fitted(log, device="auto").recommender.network.item_short.device.type in ("cpu", "cuda")
    with pytest.raises(DeviceError, match="none that AttRec trains on"):
        fitted(log, device="mps")
    with pytest.raises(DeviceError, match="none that PyTorch knows"):
        fitted(log, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="sees no CUDA device"):
            fitted(log, device="cuda")


def test_patience_stops_and_the_selection_metric_chooses(log):
    patient = fitted(log, patience=1, max_epochs=12, learning_rate=1.0)
    epochs = patient.validation_run.epochs
    assert len(epochs) < 12
    assert len(epochs) == patient.best_epoch + 1
    for metric in ("mrr", "hit_rate@10"):
        run = fitted(log, selection_metric=metric, max_epochs=4)
        values = [epoch.validation[metric] for epoch in run.validation_run.epochs]
        assert values.index(max(values)) == run.best_epoch - 1
    with pytest.raises(ConfigError, match="no metric 'accuracy'"):
        fitted(log, selection_metric="accuracy")


def test_ties_reach_the_ranking(usual, log):
    # A model whose items all stand at one place: every distance ties with every other.
    flat = usual.recommender
    for table in (flat.network.item_short, flat.network.item_long):
        table.data.zero_()
    worst = attrec.evaluate(flat, log, ties="pessimistic", with_baselines=False)
    best = attrec.evaluate(flat, log, ties="optimistic", with_baselines=False)
    assert worst.systems["attrec"].metrics["hit_rate@10"]["mean"] < 0.5
    assert best.systems["attrec"].metrics["mrr"]["mean"] == pytest.approx(
        float((best.systems["attrec"].per_user["hit_rate@10"] > 0).mean())
    )


TABLE = """user,buyer,item,thing,time,hour,rating,grade,event
u1,b1,i1,t1,1,9,5,1,buy
u1,b1,i1,t1,1,9,5,1,buy
u1,b2,i2,t1,2,8,2,5,view
u1,b2,"i1",t2,3,7,4,4,buy
é,b2,i2,t2,4,6,3,4,buy
"""


@pytest.mark.parametrize("name", READING)
def test_every_option_of_reading_changes_the_log(tmp_path, name):
    path = tmp_path / "log.csv"
    usual = {"user": "user", "item": "item", "time": "time", "rating": "rating", "min_rating": 2.0}
    changed = {**usual, name: READING[name]}
    text = TABLE
    if name == "on_bad_row":
        text += "u2,b1\n"
    if name == "header":
        text = TABLE.split("\n", 1)[1]
        usual = {"user": "1", "item": "3", "time": "5", "rating": "7", "header": True}
        changed = {**usual, "header": False}
    if name == "format":
        text, usual, changed = "u1,i1\nu1,i2 i3\n", {}, {"format": "lines"}

    def read(options):
        path.write_text(text, encoding="utf-8")
        try:
            log = attrec.read_interactions(path, **options)
        except attrec.AttRecError as error:
            return str(error)
        users, items = log.user_ids[log.user_codes], log.item_ids[log.item_codes]
        times = None if log.timestamps is None else log.timestamps.tolist()
        return users.tolist(), items.tolist(), times

    assert read(changed) != read(usual)
