"""A training that was stopped goes on as if it had never been: to the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests import interrupted
from tests.interrupted import OPTIONS

import attrec
from attrec.artifact import load_artifact
from attrec.errors import (
    ArtifactError,
    CheckpointError,
    InterruptedTraining,
    MemoryNeededError,
    TrainingError,
)
from attrec.training import memory

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def log():
    return interrupted.log()


class StopAfter(attrec.Listener):
    def __init__(self, steps):
        self.left = steps
        self.went_on = []

    def stop_requested(self):
        self.left -= 1
        return self.left == 0

    def going_on(self, epoch, steps):
        self.went_on.append((epoch, steps))


def fit(log, folder, listener=None, **options):
    return attrec.fit(log, checkpoint=folder, listener=listener, **{**OPTIONS, **options})


def bits(result):
    tables = [value.detach() for value in result.recommender.network.parameters()]
    return tables, result.evaluation.to_dict()


def equal(first, second):
    tables, figures = bits(first)
    others, other_figures = bits(second)
    return all(map(torch.equal, tables, others)) and figures == other_figures


@pytest.mark.parametrize("aggregation", ["mean", "max"])
def test_stopped_anywhere_it_goes_on_to_the_same_bits(log, tmp_path, aggregation):
    # 480 training windows: 12 steps an epoch, and the retraining has more.
    options = {"aggregation": aggregation, "checkpoint_seconds": 1e9}
    whole = attrec.fit(log, **{**OPTIONS, "aggregation": aggregation})
    for steps in (1, 11, 12, 13, 30, 48, 49, 60):
        folder = tmp_path / str(steps)
        with pytest.raises(InterruptedTraining, match="run the same command again to go on"):
            fit(log, folder, StopAfter(steps), **options)
        again = StopAfter(-1)
        resumed = fit(log, folder, again, **options)
        assert equal(resumed, whole), steps
        record = resumed.recommender.record
        epochs = sum(e["train_seconds"] + e["validation_seconds"] for e in record["epochs"])
        assert record["seconds"]["training"] >= epochs  # the time before the stop, too
        assert len(again.went_on) == 1


def test_stopped_again_and_again(log, tmp_path):
    whole = attrec.fit(log, **OPTIONS)
    for _ in range(100):
        try:
            found = fit(log, tmp_path / "kept", StopAfter(7))
            break
        except InterruptedTraining:
            continue
    assert equal(found, whole)


def test_a_checkpoint_of_other_data_or_options_is_refused(log, tmp_path):
    with pytest.raises(InterruptedTraining):
        fit(log, tmp_path, StopAfter(3))
    other = attrec.simulate("mixed", num_users=61, num_items=40, events_per_user=10, seed=4)
    with pytest.raises(CheckpointError, match="with other data"):
        fit(other, tmp_path)
    with pytest.raises(CheckpointError, match=r"with other options \(\[train\]\)"):
        fit(log, tmp_path, margin=0.9)
    with pytest.raises(CheckpointError, match="with other parts"):
        fit(log, tmp_path, held_out_events=2)
    fit(log, tmp_path, threads=1, checkpoint_seconds=5.0)


class Meanwhile(attrec.Listener):
    """Does something once, in the middle of a training."""

    def __init__(self, what):
        self.what = what

    def epoch(self, *told):
        what, self.what = self.what, lambda: None
        what()


def test_one_training_at_a_time_is_in_a_folder(log, tmp_path):
    said = []

    def another():
        with pytest.raises(CheckpointError) as caught:
            fit(log, tmp_path / "kept")
        said.append(str(caught.value))

    found = fit(log, tmp_path / "kept", Meanwhile(another), checkpoint_seconds=0.0)
    assert said == [
        f"{tmp_path / 'kept'}: another training keeps its checkpoint there; wait for it, or name "
        "another folder"
    ]
    assert {part.suffix for part in (tmp_path / "kept").iterdir()} == {".json", ".safetensors"}
    assert equal(fit(log, tmp_path / "kept"), found)


def test_a_file_system_without_locks_has_trainings_too(log, tmp_path, monkeypatch):
    def acquire(lock, timeout):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    with pytest.raises(InterruptedTraining):
        fit(log, tmp_path / "kept", StopAfter(3))
    again = StopAfter(-1)
    fit(log, tmp_path / "kept", again)
    assert again.went_on == [(1, 3)]


def test_a_damaged_checkpoint_is_told(log, tmp_path):
    with pytest.raises(InterruptedTraining):
        fit(log, tmp_path, StopAfter(3))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    tensors = tmp_path / manifest["files"]["network"]["name"]
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"is damaged .* remove it, and the training starts"):
        fit(log, tmp_path)
    tensors.write_bytes(whole)
    del manifest["files"]["accumulators"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="it lacks 'accumulators'"):
        fit(log, tmp_path)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(log, tmp_path):
    options = {"learning_rate": 1e30, "norm_clipping": False, "checkpoint_seconds": 0.0}
    with pytest.raises(TrainingError, match="lower learning_rate"):
        fit(log, tmp_path, **options)
    kept = load_artifact(tmp_path, kind=attrec.artifact.CHECKPOINT)
    assert kept.documents["standing"]["loss"] < float("inf")


def test_what_cannot_fit_is_refused_before_it_begins(log, monkeypatch):
    with pytest.raises(MemoryNeededError, match=r"needs about [\d.]+ GB .* lower embedding_dim"):
        attrec.fit(log, embedding_dim=2 * 10**9)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("M", (), {"available": 10}))
    with pytest.raises(MemoryNeededError, match=r"0\.0 GB are free"):
        attrec.fit(log)


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    free = memory.available_bytes()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.available_bytes() == pytest.approx(free, rel=0.2)
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory.available_bytes() == 4000


def start(*arguments):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.interrupted", *map(str, arguments)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def killed_training_equals_whole(folder, kills, seed):
    rng = random.Random(seed)
    for _ in range(kills):
        with start("train", folder) as process:
            while not (folder / "checkpoint" / "manifest.json").exists():
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.5))
            process.kill()
    with start("train", folder) as process:
        assert process.wait() == 0
    whole = attrec.fit(interrupted.log(), **OPTIONS)
    expected = [value.detach() for value in whole.recommender.network.parameters()]
    assert all(map(torch.equal, interrupted.tables(folder), expected))


def killed_saving_leaves_a_whole_model(folder, kills, seed):
    rng = random.Random(seed)
    expected = [[p.detach() for p in m.network.parameters()] for m in interrupted.two_models()]
    for _ in range(kills):
        with start("save", folder) as process:
            assert process.stdout.readline() == "saving\n"
            while not (folder / "model" / "manifest.json").exists():
                time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.1))
            process.kill()
        found = interrupted.tables(folder)
        assert any(all(map(torch.equal, found, one)) for one in expected)


def test_kill_9_during_training(tmp_path):
    killed_training_equals_whole(tmp_path, kills=2, seed=1)


def test_kill_9_during_saving(tmp_path):
    killed_saving_leaves_a_whole_model(tmp_path, kills=2, seed=1)


@pytest.mark.soak
def test_ten_kills_during_training(tmp_path):
    killed_training_equals_whole(tmp_path, kills=10, seed=2)


@pytest.mark.soak
def test_ten_kills_during_saving(tmp_path):
    killed_saving_leaves_a_whole_model(tmp_path, kills=10, seed=2)


@pytest.mark.parametrize(("asked", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, asked, code):
    csv = tmp_path / "log.csv"
    attrec.data.reading.write_csv(interrupted.log(), csv)
    command = [
        sys.executable, "-m", "attrec.cli", "train", str(csv), "--out", str(tmp_path / "model"),
        "--embedding-dim", "8", "--max-epochs", "100000", "--patience", "0", "--no-retrain",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    streams = {"env": environment, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **streams) as process:
        for line in process.stdout:
            if "epoch   2" in line:
                break
        process.send_signal(asked)
        out = process.stdout.read()
    assert process.returncode == code
    assert "finishing the step and saving" in out
    assert "run the same command again to go on" in out
    assert not (tmp_path / "model").exists()
    with subprocess.Popen(command, **streams) as process:
        assert any("goes on from its checkpoint" in line for line in process.stdout)
        process.kill()


def test_a_place_that_can_hold_no_checkpoint_is_told_before_the_training(log, tmp_path):
    class NoTraining(attrec.Listener):
        def phase(self, name):
            assert name != "training"

    (tmp_path / "thesis.txt").touch()
    for folder, words in (
        (tmp_path / ("a" * 300), "the checkpoint cannot be written .File name too long"),
        (tmp_path, r"something that is not an AttRec checkpoint \(thesis.txt"),
    ):
        with pytest.raises(ArtifactError, match=words):
            fit(log, folder, NoTraining())
