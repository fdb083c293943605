"""Files of every format that was ever written load for ever, and answer as they did."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

import attrec
from attrec.config import PRESETS
from attrec.native.library import available
from attrec.training.native_step import NativeStep
from attrec.training.step import FusedStep, PlainStep
from tests.formats.make import OPTIONS, answers, log

HERE = Path(__file__).parent
NATIVE = pytest.param(
    NativeStep,
    marks=pytest.mark.skipif(not available(), reason="this installation has no compiled kernels"),
)
PAPER = {
    "architecture": "paper", "embedding_dim": 100, "window_length": 5, "dropout": 0.0,
    "learning_rate": 0.05, "batch_size": 1000, "max_epochs": 50, "patience": 10,
    "long_term_weight": 0.2, "init_std": 0.001, "aggregation": "mean", "num_targets": 3,
    "margin": 0.3, "pairing": "all", "initial_accumulator": 0.05, "adagrad": "full",
    "selection_metric": "ndcg@10", "retrain": True, "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize("version", [1])
@pytest.mark.parametrize("kind", ["model", "additive-model"])
def test_a_model_of_an_earlier_format_answers_as_it_did(kind, version):
    served = attrec.load(HERE / f"{kind}-{version}")
    assert served.vocabulary.num_users == 12
    assert served.titles == {"0": "Zero"}
    assert served.explain(served.vocabulary.user_ids[0], served.vocabulary.item_ids[0])
    kept = json.loads((HERE / "answers.json").read_text())[f"{kind}-{version}"]
    found = answers(served)
    assert found.keys() == kept.keys()
    for who, then in kept.items():
        assert [item for item, _ in found[who]] == [item for item, _ in then], who
        distances = [distance for _, distance in then]
        assert [distance for _, distance in found[who]] == pytest.approx(distances, abs=1e-6)
    now = attrec.evaluate(served, log()).to_dict()["systems"]["attrec"]
    for metric, then in served.record["test"]["systems"]["attrec"].items():
        assert now[metric]["mean"] == pytest.approx(then["mean"], abs=1e-9), metric


@pytest.mark.parametrize("step", [PlainStep, FusedStep, NATIVE])
@pytest.mark.parametrize(
    ("preset", "tables"),
    [
        ("paper-sparse", "model-1/tables-69ff9b23b706b795.safetensors"),
        ("paper-dense", "paper-dense-1.safetensors"),
    ],
    ids=["paper-sparse", "paper-dense"],
)
def test_a_training_of_the_papers_network_ends_where_it_did(monkeypatch, preset, tables, step):
    """The start, the shuffling, the negatives, the equations and the rule of the step together.

    Within a tolerance, not to the bit: another processor or PyTorch rounds and sums otherwise. Few
    steps from a large start, since from a small one Adagrad multiplies rounding (decision 3). Here
    a start that is moved by 3e-8, a rounding of its numbers, ends less than 1e-6 away.
    """
    monkeypatch.setattr("attrec.training.trainer.make_step", step)
    found = attrec.fit(log(), preset=preset, **OPTIONS).recommender
    assert found.record["step"] == step.__name__
    log_then = attrec.load(HERE / "model-1").record["log_fingerprint"]
    assert found.record["log_fingerprint"] == log_then, "the simulated log is another one"
    assert_close(found.network.state_dict(), load_file(HERE / tables), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("preset", "own"),
    [
        ("paper-sparse", {"norm_clipping": True, "l2": 0.0}),
        ("paper-dense", {"norm_clipping": False, "l2": 0.001}),
    ],
    ids=["paper-sparse", "paper-dense"],
)
def test_the_papers_presets_are_what_they_were(preset, own):
    options = attrec.Options.of(preset)
    assert PRESETS[preset].keys() <= PAPER.keys() | own.keys()
    assert {name: options.value(name) for name in PAPER | own} == PAPER | own


@pytest.mark.parametrize("version", [1])
def test_a_checkpoint_of_an_earlier_format_is_gone_on_from(version, tmp_path):
    kept = tmp_path / "checkpoint"
    shutil.copytree(HERE / f"checkpoint-{version}", kept)
    went_on = []

    class Watch(attrec.Listener):
        def going_on(self, epoch, steps):
            went_on.append((epoch, steps))

    result = attrec.fit(log(), checkpoint=kept, listener=Watch(), **OPTIONS)
    assert went_on == [(1, 1)]
    assert result.evaluation.systems
