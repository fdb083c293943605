"""The variants of `make bench-ablations`: each changes one thing, and nothing else."""

import dataclasses
import json

import pytest
import torch
from benchmarks import kept, rows
from benchmarks.ablations import run
from benchmarks.ablations.variants import ADDITIVE

import attrec
from attrec.calibration import Calibration
from attrec.config import Options
from attrec.data.splits import split_log

SMALL = {"embedding_dim": 8, "window_length": 6, "max_epochs": 2, "min_steps": 30, "blocks": 1}
SMALL |= {"warmup_steps": 5, "learning_rate": 0.01}
FAMILY = {family.name: family for family in run.FAMILIES}


def small_log(num_users=60):
    return attrec.simulate("mixed", num_users=num_users, num_items=40, events_per_user=9, seed=2)


@pytest.fixture
def place(tmp_path, monkeypatch):
    for module in (rows, kept):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "load_split", lambda name, protocol: split_log(small_log(), protocol))
    run.first_training.cache_clear()
    return tmp_path


def trained(name):
    options = Options.of("accurate", **SMALL, recent_popularity=False)
    split = split_log(small_log(), options.protocol)
    return run.train_variant(FAMILY["accurate"], name, split, options).network


def test_a_row_belongs_to_one_family():
    names = [
        f"{log}.{name}" for family in run.FAMILIES for log in family.logs for name in family.rows
    ]
    assert len(names) == len(set(names))
    assert all(next(iter(family.variants)) == family.name for family in run.FAMILIES)


def test_the_networks_change_what_they_say_and_learn_the_rest():
    network = trained("bare-values")
    assert torch.equal(network.maps, torch.eye(8).repeat(4, 1))
    network = trained("no-recency")
    assert not network.recency.any() and not network.blocks[0].recency.any()
    lengths = trained("any-length").keys().norm(dim=1)
    assert lengths.max() > 1.1 * lengths.min()
    plain = trained("accurate")
    assert torch.allclose(plain.keys().norm(dim=1), torch.ones(40))
    assert not torch.equal(plain.maps, torch.eye(8).repeat(4, 1))
    assert plain.recency.any()
    begun = {name: type_(Options.of("accurate", **SMALL).model, 0, 40)
             for name, type_ in ADDITIVE.items()}  # fmt: skip
    for name, network in begun.items():
        after = trained(name)
        assert not torch.equal(network.item_key, after.item_key)
        assert not torch.equal(network.look, after.look)


def test_a_retraining_is_judged_on_a_second_cut(place, monkeypatch):
    family = FAMILY["retraining"]
    monkeypatch.setitem(family.logs, "walks", "walks")
    monkeypatch.setitem(family.options, "walks", {**SMALL, "recent_popularity": False})
    for name in family.variants:
        run.run_row(family, "walks", name)
    found = {
        name: json.loads((place / "ablations" / f"walks.{name}.json").read_text())
        for name in family.variants
    }
    # The last event of each of the 60 users is in no part of the second cut.
    second = run.split_of(family, "walks", Options.of("accurate"))
    assert len(second.log) == len(small_log()) - 60
    assert len(second.test) == 60
    figures = {name: row["metrics"]["ndcg@10"]["mean"] for name, row in found.items()}
    epochs = {name: row["cost"]["epochs"] for name, row in found.items()}
    best = found["retraining"]["cost"]["best_epoch"]
    assert epochs["retraining"] == best
    assert epochs["not-retrained"] == 2
    assert figures["not-retrained"] != figures["retraining"]
    assert found["retraining"]["minus_preset"] == {}
    told = found["not-retrained"]["minus_preset"]["ndcg@10"]["mean"]
    assert told == pytest.approx(figures["not-retrained"] - figures["retraining"])
    assert "cut again in the same way" in found["retraining"]["protocol"]


def test_the_popularity_of_the_moment_is_chosen_before_it_is_judged(place, monkeypatch):
    family = FAMILY["moment"]
    monkeypatch.setitem(family.logs, "walks", "walks")
    monkeypatch.setitem(family.options, "walks", SMALL)
    asked = []
    monkeypatch.setattr(
        "attrec.api.calibrate", lambda *given, **more: asked.append(given) or Calibration(None, [])
    )
    for name in family.variants:
        run.run_row(family, "walks", name)
    assert len(asked) == 1  # of the preset, and not where it is left out
    row = json.loads((place / "ablations" / "walks.no-moment.json").read_text())
    assert row["minus_preset"]["ndcg@10"]["mean"] == 0.0


def test_the_accurate_preset_is_judged_on_validation(place, monkeypatch):
    family = FAMILY["accurate"]
    monkeypatch.setitem(family.logs, "walks", "walks")
    monkeypatch.setitem(family.options, "walks", {**SMALL, "recent_popularity": False})
    run.run_row(family, "walks", "accurate")
    row = json.loads((place / "ablations" / "walks.accurate.json").read_text())
    assert row["metrics"]["ndcg@10"]["mean"] == pytest.approx(row["valid"]["ndcg@10"], abs=1e-6)
    assert dataclasses.asdict(family)["judged_on"] == "validation"
