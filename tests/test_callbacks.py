"""What TensorBoard and MLflow are given, read back by their own libraries."""

import errno
import math
import sys
import warnings

import pytest

import attrec
from attrec.callbacks import MLflow, TensorBoard
from attrec.data.reading import write_csv
from attrec.errors import DataError, InterruptedTraining, MissingExtraError, RequestError
from tests.command_line import run_cli

OPTIONS = {
    "preset": "paper-sparse", "embedding_dim": 4, "max_epochs": 3, "patience": 0, "batch_size": 64,
    "init_std": 0.3, "checkpoint_seconds": 0.0,
}  # fmt: skip
FLAGS = ["--preset", "paper-sparse", "--embedding-dim", "4", "--max-epochs", "2", "--init-std",
         "0.3"]  # fmt: skip
# MLflow's store and SQLAlchemy do not yet agree about each other's deprecations.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def log():
    return attrec.simulate("mixed", num_users=40, num_items=30, events_per_user=8, seed=2)


@pytest.fixture(scope="module")
def usual(log):
    return attrec.fit(log, **OPTIONS)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A folder with an MLflow store: making its tables takes seconds, so all tests share it."""
    return tmp_path_factory.mktemp("mlflow")


class StopAt(attrec.Listener):
    """Asks to stop after so many steps."""

    def __init__(self, steps):
        self.left = steps

    def progress(self, progress):
        self.left -= 1

    def stop_requested(self):
        return self.left <= 0


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {
        tag: {event.step: event.value for event in found.Scalars(tag)}
        for tag in found.Tags()["scalars"]
    }


def near(found, wanted):
    return found.keys() == wanted.keys() and all(
        math.isclose(found[step], wanted[step], rel_tol=1e-6, abs_tol=1e-7) for step in wanted
    )


def losses(result):
    return {epoch.number: epoch.loss for epoch in result.validation_run.epochs}


def validation(result, name):
    return {epoch.number: epoch.validation[name] for epoch in result.validation_run.epochs}


def test_tensorboard_reads_every_epoch_the_test_figures_and_the_options(log, usual, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = attrec.fit(log, listener=TensorBoard(tmp_path), **OPTIONS)
    training = scalars(tmp_path / "training")
    assert near(training["loss"], losses(usual))
    for name in ("ndcg@10", "hit_rate@50", "mrr"):
        assert near(training[f"validation/{name}"], validation(usual, name))
    assert set(scalars(tmp_path / "retraining")["loss"]) == set(range(1, result.best_epoch + 1))
    test = scalars(tmp_path / "test")
    metrics = result.evaluation.systems["attrec"].metrics
    assert near(test["test/ndcg@10"], {result.best_epoch: metrics["ndcg@10"]["mean"]})
    written = EventAccumulator(str(tmp_path / "training"))
    written.Reload()
    (text,) = written.Tensors("options/text_summary")
    table = text.tensor_proto.string_val[0].decode()
    assert "| embedding_dim | 4 |" in table
    assert log.fingerprint() in table


def test_tensorboard_shows_a_stopped_training_as_one(log, usual, tmp_path):
    kept, folder = tmp_path / "kept", tmp_path / "runs"
    for steps in (7, 5):
        with pytest.raises(InterruptedTraining):
            attrec.fit(
                log, checkpoint=kept, listener=[TensorBoard(folder), StopAt(steps)], **OPTIONS
            )
    attrec.fit(log, checkpoint=kept, listener=TensorBoard(folder), **OPTIONS)
    assert near(scalars(folder / "training")["loss"], losses(usual))


def test_a_new_training_hides_an_earlier_one_in_the_same_folder(log, tmp_path):
    attrec.fit(log, listener=TensorBoard(tmp_path), **OPTIONS)
    other = attrec.fit(
        log, listener=TensorBoard(tmp_path), **{**OPTIONS, "max_epochs": 2, "seed": 1}
    )
    assert near(scalars(tmp_path / "training")["loss"], losses(other))


def runs(store, experiment):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])

    def history(run, name):
        return {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)}

    return found, history


def test_mlflow_reads_options_data_every_epoch_and_the_test_figures(log, usual, store):
    listener = MLflow(store, experiment="whole", run_name="first")
    result = attrec.fit(log, listener=listener, **OPTIONS)
    (run,), history = runs(store, "whole")
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.info.run_id == listener.run_id
    assert run.data.params["embedding_dim"] == "4"
    assert run.data.params["preset"] == "paper-sparse"
    assert "heads" not in run.data.params
    assert run.data.tags["data.fingerprint"] == log.fingerprint()
    assert near(history(run, "training/loss"), losses(usual))
    assert near(history(run, "training/validation/ndcg_at_10"), validation(usual, "ndcg@10"))
    assert set(history(run, "retraining/loss")) == set(range(1, result.best_epoch + 1))
    metrics = result.evaluation.systems["attrec"].metrics
    assert run.data.metrics["test/ndcg_at_10"] == pytest.approx(metrics["ndcg@10"]["mean"])
    assert run.data.metrics["best_epoch"] == result.best_epoch


def test_mlflow_goes_on_with_the_run_of_a_stopped_training(log, usual, store, tmp_path):
    kept = tmp_path / "kept"
    with pytest.raises(InterruptedTraining):
        attrec.fit(
            log, checkpoint=kept, listener=[MLflow(store, experiment="stopped"), StopAt(7)],
            **OPTIONS,
        )  # fmt: skip
    (run,), _ = runs(store, "stopped")
    assert run.info.status == "KILLED"
    attrec.fit(log, checkpoint=kept, listener=MLflow(store, experiment="stopped"), **OPTIONS)
    (run,), history = runs(store, "stopped")
    assert run.info.status == "FINISHED"
    assert near(history(run, "training/loss"), losses(usual))
    attrec.fit(log, listener=MLflow(store, experiment="stopped"), **OPTIONS)
    assert len(runs(store, "stopped")[0]) == 2


def test_mlflow_goes_on_with_one_run_where_that_changes_which_may(log, store, tmp_path):
    kept = tmp_path / "kept"
    with pytest.raises(InterruptedTraining):
        attrec.fit(
            log, checkpoint=kept, listener=[MLflow(store, experiment="freely"), StopAt(7)],
            threads=1, **OPTIONS,
        )  # fmt: skip
    free = {"threads": 2, "device": "auto", "checkpoint_seconds": 60.0}
    listener = MLflow(store, experiment="freely")
    attrec.fit(log, checkpoint=kept, listener=listener, **{**OPTIONS, **free})
    (run,), _ = runs(store, "freely")
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize("how", ["writing", "closing"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_folder_of_tensorboard_that_is_full_ends_no_training(log, usual, tmp_path, how):
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Fill(attrec.Listener):
        def epoch(self, epoch):
            if epoch.number == 2 and how == "writing":
                patched.setattr(RecordWriter, "write", full)

        def judged(self, evaluation, best_epoch):
            patched.setattr(RecordWriter, "close", full)

    with (
        pytest.MonkeyPatch.context() as patched,
        pytest.warns(UserWarning, match=r"TensorBoard keeps nothing more .*No space left") as said,
    ):
        result = attrec.fit(log, listener=[Fill(), TensorBoard(tmp_path)], **OPTIONS)
    assert len([w for w in said if w.category is UserWarning]) == 1
    assert losses(result) == losses(usual)
    assert 1 in scalars(tmp_path / "training")["loss"]


@pytest.mark.parametrize("name", ["ml?g", "ml%20g"])
def test_a_folder_that_mlflow_would_put_elsewhere_is_refused(tmp_path, monkeypatch, name):
    with pytest.raises(RequestError, match=r"cannot keep anything in a folder with '[?%]'"):
        MLflow(tmp_path / name)
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(RequestError, match=r"^inside: MLflow cannot keep anything"):
        MLflow("inside")
    assert not list((tmp_path / name).iterdir())


def test_a_store_that_breaks_ends_no_training(log, store):
    listener = MLflow(store, experiment="breaks")

    class Break(attrec.Listener):
        def epoch(self, epoch):
            def gone(*arguments, **options):
                raise ConnectionError("the server is gone\nand more")

            if epoch.number == 2:
                listener._client.log_batch = gone

    with pytest.warns(UserWarning, match=r"keeps nothing more .*the server is gone\); the") as told:
        result = attrec.fit(log, listener=[Break(), listener], **OPTIONS)
    assert len([w for w in told if w.category is UserWarning]) == 1
    assert len(result.validation_run.epochs) == 3
    (run,), history = runs(store, "breaks")
    assert set(history(run, "training/loss")) == {1}


def test_a_store_that_cannot_be_reached_is_told_before_the_training(log, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    seen = []

    class Watch(attrec.Listener):
        def epoch(self, epoch):
            seen.append(epoch)

    with pytest.raises(RequestError, match="cannot be used as an MLflow store"):
        attrec.fit(log, listener=[MLflow(file), Watch()], **OPTIONS)
    with pytest.raises(RequestError, match="is a file; name a folder for TensorBoard"):
        TensorBoard(file)
    with pytest.raises(RequestError, match=r"file/x: cannot be written \(Not a directory\)"):
        attrec.fit(log, listener=[Watch(), TensorBoard(file / "x")], **OPTIONS)
    assert not seen


@pytest.mark.parametrize(("make", "library"), [(TensorBoard, "tensorboard"), (MLflow, "mlflow")])
def test_a_missing_extra_is_named(make, library, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'attrec\[{library}\]'"):
        make(tmp_path / "new")
    assert not (tmp_path / "new").exists()


class Told(attrec.Listener):
    def __init__(self, into, name=""):
        self.into, self.name = into, name

    def begin(self, options, data):
        self.into.append((self.name, "begin", options.model.embedding_dim, data["events"]))

    def phase(self, name):
        self.into.append((self.name, "phase", name))

    def epoch(self, epoch):
        self.into.append((self.name, "epoch", epoch.number))

    def judged(self, evaluation, best_epoch):
        self.into.append((self.name, "judged", best_epoch, next(iter(evaluation.systems))))

    def end(self, error):
        self.into.append((self.name, "end", type(error).__name__))


def test_several_listeners_are_told_everything_in_their_order(log, usual):
    told = []
    attrec.fit(log, listener=[Told(told, "a"), Told(told, "b")], **OPTIONS)
    assert [row[1:] for row in told[::2]] == [row[1:] for row in told[1::2]]
    assert [row[0] for row in told] == ["a", "b"] * (len(told) // 2)
    assert [row[1:] for row in told if row[0] == "a"] == [
        ("phase", "splitting"),
        ("begin", 4, len(log)),
        ("phase", "training"),
        *[("epoch", number) for number in (1, 2, 3)],
        ("phase", "retraining"),
        *[("epoch", number) for number in range(1, usual.best_epoch + 1)],
        ("phase", "judging"),
        ("judged", usual.best_epoch, "attrec"),
        ("end", "NoneType"),
    ]


@pytest.mark.parametrize(("at", "error"), [("epoch", "KeyError"), ("end", "NoneType")])
@pytest.mark.parametrize("first", [True, False])
def test_the_end_is_told_to_all_whatever_ends_the_training(log, at, error, first):
    def fail(*_):
        raise KeyError("mine")

    told, breaks = [], attrec.Listener()
    setattr(breaks, at, fail)
    listeners = [breaks, Told(told)] if first else [Told(told), breaks]
    with pytest.raises(KeyError, match="mine"):
        attrec.fit(log, listener=listeners, **OPTIONS)
    assert told[-1] == ("", "end", error)


def test_a_search_keeps_each_trial_for_both(log, store, tmp_path):
    from mlflow import MlflowClient

    attrec.tune(
        log, folder=tmp_path / "tuning", trials=2, search=["margin"],
        listener=[TensorBoard(tmp_path / "runs"), mlflow := MLflow(store, experiment="search")],
        **OPTIONS,
    )  # fmt: skip
    for trial in (1, 2):
        assert list(scalars(tmp_path / "runs" / f"trial {trial}")["loss"]) == [1, 2, 3]
    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    run = client.get_run(mlflow.run_id)
    assert run.info.status == "FINISHED"
    assert {"trial 1/loss", "trial 2/loss"} <= set(run.data.metrics)


def test_the_command_line_keeps_both(log, store, tmp_path):
    write_csv(log, tmp_path / "log.csv")
    where = ["--tensorboard", "runs/a", "--mlflow", str(store)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        code, text = run_cli(tmp_path, ["train", "log.csv", *FLAGS, *where], columns=200)
    assert code == 0, text
    assert set(scalars(tmp_path / "runs" / "a" / "training")["loss"]) == {1, 2}
    (run,), history = runs(store, "attrec")
    assert set(history(run, "training/loss")) == {1, 2}
    code, text = run_cli(
        tmp_path, ["train", "nowhere.csv", "--mlflow", "other", "--tensorboard", "more"],
        columns=200,
    )  # fmt: skip
    assert code == 2
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "more").exists()


def test_what_ends_before_it_began_leaves_an_earlier_run_alone(log, store, tmp_path):
    listener = MLflow(store, experiment="reused")
    attrec.fit(log, listener=listener, **OPTIONS)
    with pytest.raises(DataError):
        attrec.fit(tmp_path / "missing.csv", listener=listener, **OPTIONS)
    (run,), _ = runs(store, "reused")
    assert run.info.status == "FINISHED"
