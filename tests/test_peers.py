"""The peers' benchmark without any peer: what it hands out, how it judges, marks and shows."""

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import kept
from benchmarks import rows as results
from benchmarks.accuracy import run as accuracy
from benchmarks.kept import Places, read_kept, with_lists, write_kept
from benchmarks.peers import run as peers
from benchmarks.peers.material import write_material
from benchmarks.peers.rows import read_rows
from benchmarks.peers.workers import protocol
from docs import peers as page
from docs import performance

import attrec
from attrec.api import train_on
from attrec.baselines import item_counts
from attrec.config import Options, ProtocolConfig
from attrec.data.cases import Cases, encode_cases
from attrec.data.interactions import InteractionLog
from attrec.data.ragged import Ragged
from attrec.data.splits import split_log
from attrec.data.vocabulary import Vocabulary
from attrec.evaluation.comparison import rank_in_lists, read_lists
from attrec.evaluation.evaluate import evaluate_systems
from attrec.evaluation.metrics import per_user
from attrec.evaluation.ranking import rank_targets
from tests.test_calibration import SMALL, fashionable

LEAVE_LAST_OUT = ProtocolConfig()
FAKE = """
import time
import numpy as np
from protocol import judged, main

def train(material, spec, watch):
    print("trained on", spec["training"])
    numbers = np.array([int(item[1:]) for item in material.items])

    def score(users, histories):
        last = np.array([numbers[h[-1]] for h in histories])
        ahead = (numbers[None, :] - last[:, None] - 1) % 60
        return -ahead.astype(np.float32)

    watch.start(lambda: judged(score, material.validation), lambda: None)
    for epoch in range(1, watch.max_epochs + 1):
        if spec["settings"]["fails"]:
            raise SystemExit("planted")
        time.sleep(0.001)
        if watch.step(epoch) or watch.epoch_ended(epoch):
            break
    return score

main(train, "numpy")
"""


def walks(users=40, length=9, items=60):
    """Everybody takes one item after the other: the next is always known."""
    return InteractionLog.from_columns(
        [f"u{user}" for user in range(users) for _ in range(length)],
        [f"i{(7 * user + step) % items}" for user in range(users) for step in range(length)],
        [1000 * user + step for user in range(users) for step in range(length)],
    )


@pytest.mark.parametrize("split", ["leave-last-out", "global-time"])
def test_a_worker_is_given_the_split_and_no_test_target(tmp_path, split):
    generator = np.random.default_rng(0)
    log = InteractionLog.from_columns(
        generator.integers(0, 50, 600), generator.integers(100, 160, 600), np.arange(600)
    )
    parts = split_log(log, ProtocolConfig(split=split))
    folder = write_material(parts, tmp_path / "split")
    for name, part in (
        ("train", parts.train),
        ("train_and_validation", parts.train_and_validation),
    ):
        material = protocol.Material.read(folder, name)
        vocabulary = Vocabulary.fit(part)
        assert sorted(material.items) == [str(item) for item in vocabulary.item_ids]
        order = part.time_order()
        taken = dict.fromkeys(map(str, vocabulary.user_ids), "")
        for user, item in zip(part.user_codes[order], part.item_codes[order], strict=True):
            taken[str(part.user_ids[user])] += f"{part.item_ids[item]} "
        found = {
            user: "".join(f"{material.items[i]} " for i in history)
            for user, history in zip(material.users, material.histories, strict=True)
        }
        assert found == taken
    lines = (folder / "test.txt").read_text().splitlines()
    histories = [parts.log.item_ids[row] for row in _lists(parts.test.histories)]
    assert [line.split("\t") for line in lines] == [
        [str(user), " ".join(map(str, history))]
        for user, history in zip(parts.log.user_ids[parts.test.user_codes], histories, strict=True)
    ]
    targets = [line.split("\t")[2] for line in (folder / "validation.txt").read_text().splitlines()]
    assert targets == [str(parts.log.item_ids[row[0]]) for row in _lists(parts.validation.targets)]


def _lists(ragged):
    return [ragged[row] for row in range(len(ragged))]


def test_an_id_that_would_break_a_line_is_refused(tmp_path):
    log = InteractionLog.from_columns(["a b"] * 4, [1, 2, 3, 4])
    with pytest.raises(SystemExit, match="'a b' cannot stand in a plain line"):
        write_material(split_log(log, LEAVE_LAST_OUT), tmp_path / "split")


def test_a_worker_judges_and_lists_as_the_product_does(tmp_path):
    generator = np.random.default_rng(1)
    items, users = 70, 300
    scores = generator.integers(0, 40, (users, items)).astype(np.float32)
    histories = [generator.integers(0, items, generator.integers(1, 9)) for _ in range(users)]
    targets = generator.integers(-1, items, users)
    questions = protocol.Questions([f"u{u}" for u in range(users)], histories, targets.tolist())
    row_of = {user: row for row, user in enumerate(questions.users)}

    def score(asked, _):
        return scores[[row_of[user] for user in asked]].copy()

    cases = Cases(
        np.arange(users),
        Ragged.from_lists(histories),
        Ragged.from_lists([[target] for target in targets]),
    )
    ranking = rank_targets(lambda _: torch.from_numpy(-scores), cases, items, top_k=50)
    found = protocol.judged(score, questions)
    for name, value in found.items():
        assert value == pytest.approx(per_user(name, ranking.ranks).mean())

    names = [f"i{item:02d}" for item in range(items)]
    protocol.write_lists(tmp_path / "lists.csv", score, questions, names)
    vocabulary = Vocabulary.fit(InteractionLog.from_columns(["u"] * items, names))
    compared = rank_in_lists(
        read_lists(tmp_path / "lists.csv"), cases, np.array(questions.users), vocabulary, 50
    )
    assert np.array_equal(compared.ranking.top_items, ranking.top_items)


class Ticking:
    """A clock that goes on by a second with every look at it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def watched(figures, steps_per_epoch=1, **options):
    """Train by a watch whose judgements are planted; return it and the states it kept."""
    watch = protocol.Watch(**{"cap_seconds": 1e6, "clock": Ticking(), **options})
    values = iter(figures)
    watch.start(lambda: {"ndcg@10": next(values), "hit_rate@10": 0.0}, lambda: len(watch.curve) + 1)
    for epoch in range(watch.max_epochs):
        for step in range(1, steps_per_epoch + 1):
            if watch.step(epoch + step / steps_per_epoch):
                return watch
        if watch.epoch_ended(epoch + 1):
            return watch
    raise AssertionError("nobody stopped it")


def test_a_training_is_over_when_no_better_epoch_came():
    watch = watched([0.1, 0.3, 0.2, 0.25, 0.9], patience=2)
    assert [point["epoch"] for point in watch.curve] == [1, 2, 3, 4]
    assert watch.best["epoch"] == 2
    assert watch.best_state == 2
    assert not watch.capped
    assert watched([0.1, 0.2, 0.3], max_epochs=3).reached == 3


def test_judging_is_no_training_time():
    watch = watched([0.1, 0.2, 0.3], max_epochs=3)
    # Of the five looks at the clock between two points one ends the judging.
    assert watch.validation_seconds == 3
    assert watch.train_seconds == 6
    assert watch.curve[-1]["wall_seconds"] == 9


def test_the_cap_cuts_in_the_middle_of_an_epoch_and_what_was_reached_is_judged():
    watch = watched([0.1, 0.4, 0.5], steps_per_epoch=4, cap_seconds=7.5)
    assert watch.capped
    assert watch.curve[-1]["epoch"] == watch.reached == 1.25
    assert watch.best is watch.curve[-1]


def test_a_long_epoch_is_judged_on_its_way():
    watch = watched([0.1] * 9, steps_per_epoch=100, cap_seconds=400.0, max_epochs=1)
    # After a twentieth of the cap; the judging itself takes a second, so that may be every 20.
    assert [point["epoch"] for point in watch.curve] == [0.2, 0.4, 0.6, 0.8, 1]
    sparing = watched([0.1] * 99, steps_per_epoch=100, cap_seconds=150.0, max_epochs=1)
    # A twentieth would be every 8 seconds, which is too often for a judging of one.
    assert np.diff([point["seconds"] for point in sparing.curve[:-1]]).min() >= 10


def test_the_retraining_takes_just_the_epochs_asked_for_and_judges_nothing():
    watch = watched([], steps_per_epoch=4, epochs=2.5)
    assert watch.reached == 2.5
    assert watch.curve == []
    assert not watch.capped
    cut = watched([], steps_per_epoch=4, epochs=2.5, cap_seconds=3.0)
    assert cut.capped
    assert cut.reached == 0.75


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A benchmark of its own: a fake peer, a small log, a quick AttRec."""
    workers = tmp_path / "workers"
    workers.mkdir()
    shutil.copy(protocol.__file__, workers / "protocol.py")
    (workers / "fake.py").write_text(FAKE)
    monkeypatch.setattr(peers, "WORKERS", workers)
    monkeypatch.setattr(peers, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(peers, "python_of", lambda environment: sys.executable)
    monkeypatch.setattr(peers, "load_split", lambda data, config: split_log(walks(), config))
    monkeypatch.setattr(accuracy, "CACHE", tmp_path / "accuracy")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(kept, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(performance, "RESULTS", tmp_path / "results")
    ours = {"walks.leave-last-out.quick": {
        "preset": "paper-sparse", "options": {"max_epochs": 2, "embedding_dim": 4}, "seeds": [0, 1],
    }}  # fmt: skip
    monkeypatch.setattr(accuracy, "read_rows", lambda: ours)
    return tmp_path


def declared(peer="good", **changes):
    row = next(iter(read_rows().values()))
    ours = {
        "name": f"walks.leave-last-out.{peer}", "split": "walks.leave-last-out", "data": "walks",
        "attrec": "walks.leave-last-out.quick", "peer": peer, "worker": "fake", "floor": False,
        "max_epochs": 3, "settings": {"fails": False}, "cap_seconds": 60.0, "published": None,
    }  # fmt: skip
    return dataclasses.replace(row, **{**ours, **changes})


PUBLISHED = {"name": "it", "hit_rate@10": 0.9, "ndcg@10": 1.2, "source": "a paper"}


def measured(name):
    return results.read_row("peers", name)


def test_a_row_holds_what_the_pages_need(place):
    peers.run_row(declared())
    row = measured("walks.leave-last-out.good")
    assert row["metrics"]["ndcg@10"]["mean"] == 1.0
    assert row["systems"]["good, not retrained"]["hit_rate@10"]["mean"] == 1.0
    assert list(row["systems"])[:2] == ["attrec", "attrec, not retrained"]
    assert {"good", "good, not retrained", "popularity", "Markov, first order"} < set(
        row["systems"]
    )
    mean = row["differences"]["good"]["ndcg@10"]["mean"]
    assert mean == pytest.approx(row["systems"]["attrec"]["ndcg@10"]["mean"] - 1.0)
    # A list of 50 does not say where the others stand.
    assert "mrr" not in row["metrics"]
    assert "mrr@10" in row["metrics"]
    assert [point["epoch"] for point in row["curve"]] == [1, 2, 3]
    assert row["best"] == row["curve"][0]
    assert row["cost"]["retraining_epochs"] == 1
    assert row["cost"]["peak_memory_bytes"] > 1e6
    assert row["cost"]["threads"] == 1
    assert row["peer"]["versions"] == {"numpy": np.__version__}
    assert not row["capped"]
    assert row["reproduced"] is None
    assert len(row["attrec"]["curves"]) == 2
    assert all(len(curve) == 2 for curve in row["attrec"]["curves"])


def test_like_is_held_against_like(place):
    peers.run_row(declared())
    row = measured("walks.leave-last-out.good")
    for ours, theirs in (("attrec", "good"), ("attrec, not retrained", "good, not retrained")):
        for metric, difference in row["differences"][theirs].items():
            of_both = [row["systems"][name][metric]["mean"] for name in (ours, theirs)]
            assert difference["mean"] == pytest.approx(of_both[0] - of_both[1])
    both = [row["systems"][name]["ndcg@10"]["mean"] for name in ("attrec", "attrec, not retrained")]
    assert both[0] != both[1]


def test_a_row_that_is_declared_otherwise_now_is_missing(place):
    peers.run_row(declared())
    assert not peers.missing(declared())
    for changed in (
        {"settings": {"fails": False, "dropout": 0.1}},
        {"cap_seconds": 30.0},
        {"max_epochs": 4},
        {"published": PUBLISHED},
    ):
        assert peers.missing(declared(**changed))


def test_a_row_that_is_judged_again_says_when_it_was_trained(place, monkeypatch):
    monkeypatch.setattr(peers, "here_and_now", lambda: {"date": "then"})
    peers.run_row(declared())
    monkeypatch.setattr(peers, "here_and_now", lambda: {"date": "now"})
    peers.run_row(declared())
    assert measured("walks.leave-last-out.good")["trained"] == {"date": "then"}


def test_a_training_that_ended_is_not_done_again(place, monkeypatch):
    peers.run_row(declared())
    logs = {path: path.stat().st_mtime_ns for path in (place / "cache" / "work").glob("*.log")}
    assert len(logs) == 2
    peers.run_row(declared())
    assert logs == {path: path.stat().st_mtime_ns for path in logs}
    assert not peers.missing(declared())
    other = {"walks.leave-last-out.quick": {
        "preset": "paper-sparse", "options": {"max_epochs": 1}, "seeds": [0],
    }}  # fmt: skip
    monkeypatch.setattr(accuracy, "read_rows", lambda: other)
    assert peers.missing(declared())
    for lists in (place / "cache" / "work").glob("*.csv"):
        lists.unlink()  # Where the targets stood is enough.
    peers.run_row(declared())
    assert logs == {path: path.stat().st_mtime_ns for path in logs}
    assert measured("walks.leave-last-out.good")["attrec"]["seeds"] == [0]
    assert not peers.missing(declared())
    monkeypatch.setattr(peers, "read_rows", lambda: {"walks.leave-last-out.good": declared()})
    monkeypatch.setattr("sys.argv", ["run", "--again", "walks.leave-last-out.good"])
    peers.main()
    assert all(before < path.stat().st_mtime_ns for path, before in logs.items())


def test_a_peer_stands_beside_another_attrec_where_something_that_matters_changed(place):
    row = declared()
    key = peers.attrec_key(row)
    assert not peers.beside_another(row, {"attrec": key})
    assert peers.beside_another(row, {"attrec": None})
    assert peers.beside_another(row, {"attrec": {**key, "row": "walks.leave-last-out.slow"}})
    assert peers.beside_another(row, {"attrec": {**key, "seeds": [0]}})
    train = key["config"]["train"]
    config = {**key["config"], "train": {**train, "learning_rate": 2 * train["learning_rate"]}}
    assert peers.beside_another(row, {"attrec": {**key, "config": config}})
    # An option that came after the measurement changed nothing.
    config = {**key["config"], "train": {n: v for n, v in train.items() if n != "learning_rate"}}
    assert not peers.beside_another(row, {"attrec": {**key, "config": config}})


def test_without_an_attrec_row_the_peer_stands_alone(place, monkeypatch):
    monkeypatch.setattr(accuracy, "read_rows", dict)
    peers.run_row(declared())
    row = measured("walks.leave-last-out.good")
    assert row["attrec"] is None
    assert row["differences"] == {}
    assert row["metrics"]["ndcg@10"]["mean"] == 1.0
    assert not peers.missing(declared())


def test_one_row_that_fails_keeps_no_other(place, monkeypatch, capsys):
    rows = [declared("bad", settings={"fails": True}), declared()]
    monkeypatch.setattr(peers, "read_rows", lambda: {row.name: row for row in rows})
    monkeypatch.setattr("sys.argv", ["run"])
    with pytest.raises(SystemExit, match=r"^failed: walks\.leave-last-out\.bad$"):
        peers.main()
    assert "planted" in capsys.readouterr().out
    assert measured("walks.leave-last-out.bad") is None
    assert measured("walks.leave-last-out.good") is not None
    monkeypatch.setattr("sys.argv", ["run", "walks.leave-last-out.ugly"])
    with pytest.raises(SystemExit, match=r"no row 'walks\.leave-last-out\.ugly'; rows: walks"):
        peers.main()


def test_the_page_marks_what_was_cut_and_what_was_not_reproduced(place, monkeypatch):
    rows = [
        declared("good", published={**PUBLISHED, "ndcg@10": 1.0}),
        declared("cut", cap_seconds=0.0),
        declared("unlike", published=PUBLISHED),
        declared("floor", floor=True, max_epochs=1),
        declared("absent"),
    ]
    for row in rows[:-1]:
        peers.run_row(row)
    assert measured("walks.leave-last-out.good")["reproduced"] is True
    assert measured("walks.leave-last-out.cut")["capped"] is True
    assert measured("walks.leave-last-out.unlike")["reproduced"] is False
    monkeypatch.setattr(page, "read_rows", lambda: {row.name: row for row in rows})
    monkeypatch.setattr(page, "published", lambda split: [{**PUBLISHED, "split": split}])
    text = page.peers_page()
    line_of = {
        cells[1].strip(): cells
        for cells in reversed([line.split("|") for line in text.splitlines() if line[:2] == "| "])
    }
    assert "Not measured yet: absent." in text
    assert re.fullmatch(
        r"cut at 0 min in epoch \S+ of \d+( and still improving)?, no published figure",
        line_of["cut"][-2].strip(),
    )
    assert line_of["good"][-2].strip() == ""
    assert line_of["unlike"][-2].strip() == "not reproduced"
    assert (
        "Nothing is claimed over unlike: not retrained it reaches 1.0000 / 1.0000 of the " in text
    )
    assert line_of["it"][-2].strip() == "published: a paper"
    assert "Best peer of this run: good, NDCG@10 1.0000; AttRec − it: -" in text
    assert "; neither retrained: -" in text
    assert "Best baseline of this run: floor" in text
    cost = {
        "train_seconds": 100.0, "epochs": [1, 2], "peak_memory_bytes": 7e9,
        "trained": [
            {"machine": {"processor": "a Z80"}, "date": "1976-07-01", "commit": "first"}
        ],
    }  # fmt: skip
    beside = measured("walks.leave-last-out.good")["attrec"]
    ours = {"config": beside["config"], "curve": beside["curves"], "cost": cost}
    results.write_row("accuracy", rows[0].attrec, ours)
    assert not peers.missing(rows[0])
    text = page.peers_page()
    (attrecs,) = [line for line in text.splitlines() if "attrec, mean of 2" in line]
    assert attrecs.endswith("| 7,000 |")
    assert attrecs.split("|")[3].strip() == "1.5"
    assert ", AttRec on one of a Z80. " in text
    # What another AttRec cost says nothing of this one.
    for other in ({"config": {}}, {"curve": beside["curves"][::-1]}):
        results.write_row("accuracy", rows[0].attrec, {**ours, **other})
        text = page.peers_page()
        assert "attrec, mean of 2" not in text
        assert "Z80" not in text
    assert peers.missing(rows[0])
    quick = {"options": {"max_epochs": 1}}
    other = {name: {**row, **quick} for name, row in accuracy.read_rows().items()}
    monkeypatch.setattr(accuracy, "read_rows", lambda: other)
    text = page.peers_page()
    assert ", beside an AttRec of other options than today's" in text
    page.draw(place / "pictures")
    picture = place / "pictures" / "walks.leave-last-out.svg"
    assert "(peers/walks.leave-last-out.svg)" in text
    drawn = picture.read_text()
    assert {"AttRec", "good", "cut (cut)"} <= {part.split("<")[0] for part in drawn.split(">")}
    page.draw(place / "pictures")
    assert picture.read_text() == drawn


def test_no_lead_is_shown_over_what_was_not_reproduced():
    lead = {"mean": 0.1, "low": 0.05, "high": 0.15, "excludes_zero": True}
    loss = {"mean": -0.1, "low": -0.15, "high": -0.05, "excludes_zero": True}

    def shown(difference, reproduced):
        row = {"differences": {"it": {"ndcg@10": difference}}, "reproduced": reproduced}
        return page.claimed(row, "it")

    assert shown(lead, True) == shown(lead, None) == r"+0.1000 [+0.0500, +0.1500] **\***"
    assert shown(lead, False) == ""
    assert shown(loss, False) == r"-0.1000 [-0.1500, -0.0500] **\***"


def test_the_page_says_in_what_attrec_is_behind(place, monkeypatch):
    row = declared(published=PUBLISHED)
    peers.run_row(row)
    monkeypatch.setattr(page, "read_rows", lambda: {row.name: row})
    assert measured(row.name)["reproduced"] is False
    assert "\n- AttRec is behind good: hit_rate@10 -" in page.peers_page()
    lead = {"mean": 0.1, "low": 0.05, "high": 0.15, "excludes_zero": True}
    loss = {"mean": -0.1, "low": -0.15, "high": -0.05, "excludes_zero": True}
    chance = {"mean": -0.1, "low": -0.25, "high": 0.05, "excludes_zero": False}
    of = {"hit_rate@10": chance, "ndcg@10": lead, "hit_rate@50": loss}
    assert page.ahead({"differences": {"it": of}}, "it") == [
        r"hit_rate@50 -0.1000 [-0.1500, -0.0500] **\***"
    ]
    assert page.ahead({"differences": {}}, "it") == []


def test_a_share_of_the_time_is_claimed_only_where_every_seed_came_there():
    found = page._to_the_same([10.0, 20.0], [10.0, 20.0], 60.0, False, None)
    assert found == ["10, 20", "0.25", "yes", "no"]
    assert page._to_the_same([3.0], [3.0], 60.0, False, None, False) == [
        "3", "0.05", "yes †", "yes †"
    ]  # fmt: skip
    assert page._to_the_same([30.0], [30.0], 60.0, False, True) == ["30", "0.50", "no", "no"]
    found = page._to_the_same([10.0, None], [10.0, None], 60.0, False, None)
    assert found == ["10, not reached", "", "no", "no"]
    assert page._to_the_same([10.0], [10.0], 60.0, False, False)[2:] == ["not reproduced"] * 2
    assert page._to_the_same([], [], 60.0, False, None) == ["not measured yet", "", "", ""]
    by_the_moment = page._to_the_same([10.0, 20.0], [10.0, None], 60.0, False, None)
    assert by_the_moment == ["10, 20 ‡", "0.25", "yes", "no"]


def test_a_score_that_only_the_popularity_of_the_moment_reaches_is_marked():
    first, second, chosen = (
        {"epoch": epoch, "ndcg@10": value, "wall_seconds": 10.0 * number, "seconds": 1.0}
        for number, (epoch, value) in enumerate([(1, 0.1), (2, 0.2), (2, 0.3)], start=1)
    )
    assert page.of_the_network([first, second, chosen]) == [first, second]
    assert page.of_the_network([first, second]) == [first, second]
    assert page.of_the_network([first]) == [first]


def test_a_lead_that_is_not_the_networks_is_told(place, monkeypatch):
    row = declared()
    peers.run_row(row)
    found = measured(row.name)
    curves = [
        [
            {"epoch": 1, "ndcg@10": 0.25},
            {"epoch": 2, "ndcg@10": 0.5},
            {"epoch": 2, "ndcg@10": 0.75},
        ],
        [{"epoch": 1, "ndcg@10": 0.125}],
    ]
    found["attrec"]["curves"] = curves
    (told,) = page._of_the_moment({"good": (found, "good")})
    assert "after 1 of 2 trainings of AttRec" in told
    assert "with it 0.7500, 0.1250, of the network alone 0.5000, 0.1250, of good" in told
    found["attrec"]["curves"] = curves[1:]
    assert page._of_the_moment({"good": (found, "good")}) == []
    # Beside the peers stands what the network reaches by itself, where that is measured.
    monkeypatch.setattr(page, "read_rows", lambda: {row.name: row})
    assert "| attrec, its network alone |" not in page.peers_page()
    systems = dict.fromkeys(page.ATTREC, found["systems"]["attrec"])
    results.write_row("accuracy", "walks.leave-last-out.network-alone", {"systems": systems})
    assert "| attrec, its network alone |" in page.peers_page()


def test_the_verdict_is_by_the_clock_with_the_judging(place, monkeypatch):
    row = declared()
    peers.run_row(row)
    monkeypatch.setattr(page, "read_rows", lambda: {row.name: row})
    found = measured(row.name)
    found["best"] |= {"ndcg@10": 0.2, "wall_seconds": 30.0, "seconds": 30.0}
    point = {"epoch": 1, "ndcg@10": 0.2, "seconds": 6.0, "wall_seconds": 12.0}
    found["attrec"]["curves"] = [[point]]
    (line,) = [line for line in page._times({"good": found}) if line.startswith("| good |")]
    assert [cell.strip() for cell in line.split("|")][5:10] == [
        "12", "0.40", "no", "no", "0.20"
    ]  # fmt: skip


def test_a_changed_worker_is_measured_again(place):
    row = declared()
    peers.run_row(row)
    assert not peers.missing(row)
    changed = dataclasses.replace(row, revision=1)
    assert peers.missing(changed)
    peers.run_row(changed)
    assert not peers.missing(changed)
    assert measured(row.name)["peer"]["revision"] == 1


def test_every_declared_row_can_be_run():
    folder = Path(peers.__file__).parent
    for name, row in read_rows().items():
        assert name == f"{row.split}.{row.peer}"
        assert (folder / "workers" / f"{row.worker}.py").exists()
        assert (folder / f"requirements-{row.environment}.txt").exists()
        assert json.dumps(row.settings)
        assert Options.of(**row.options)
        accuracy_row = accuracy.read_rows().get(row.attrec)
        assert accuracy_row is None or peers.attrec_options(row) is not None
    assert {row.published["split"] for row in read_rows().values() if row.published} == {
        "ml-1m.leave-last-out",
        "amazon-beauty.leave-last-out",
    }


def test_a_seed_is_trained_once_and_judged_as_often_as_asked(place, monkeypatch):
    split = split_log(walks(), LEAVE_LAST_OUT)
    options = Options.of(max_epochs=2, embedding_dim=4)
    vocabulary = Vocabulary.fit(split.train_and_validation)
    first = accuracy.trained_seed("old", split, options, vocabulary)
    assert [point["epoch"] for point in first["curve"]][:2] == [1, 2]
    assert first["curve"][1]["seconds"] > first["curve"][0]["seconds"]
    assert not list((place / "accuracy").glob("*.checkpoint"))
    monkeypatch.delattr(accuracy, "train_on")
    judged_again = accuracy.trained_seed("old", split, options, vocabulary)
    shutil.rmtree(place / "accuracy")
    without_networks = accuracy.trained_seed("old", split, options, vocabulary)
    for again in (judged_again, without_networks):
        assert {**again, "places": 0} == {**first, "places": 0}
        for which in ("first", "retrained"):
            kept, made = again["places"][which], first["places"][which]
            assert np.array_equal(kept.ranks.values, made.ranks.values)
            assert np.array_equal(kept.ranks.offsets, made.ranks.offsets)
            assert kept.lists == made.lists
    with pytest.raises(NameError, match="train_on"):
        accuracy.trained_seed("old", split, options.with_(seed=1), vocabulary)


def test_the_benchmark_measures_what_fit_gives(place):
    options = Options.of(split="global-time", **SMALL)
    fitted = attrec.fit(fashionable(), options=options)
    split = split_log(fashionable(), options.protocol)
    vocabulary = Vocabulary.fit(split.train_and_validation)
    run = accuracy.trained_seed("fashion", split, options, vocabulary)
    assert run["curve"][-1]["epoch"] == run["curve"][-2]["epoch"]  # popularity was taken
    assert run["curve"][-1]["ndcg@10"] > run["curve"][-2]["ndcg@10"]
    assert run["curve"][-1]["seconds"] > run["curve"][-2]["seconds"]
    evaluation = evaluate_systems(
        {name: [one.ranking for one in of] for name, of in accuracy.systems_of([run]).items()},
        encode_cases(split.test, split.log, vocabulary),
        options.protocol,
        item_counts(split.train_and_validation, vocabulary),
        split.protocol,
    )
    for name, found in evaluation.systems.items():
        for metric in ("hit_rate@10", "ndcg@10", "mrr"):
            assert found.metrics[metric] == fitted.evaluation.systems[name].metrics[metric]


@pytest.mark.parametrize("split", ["leave-last-out", "global-time"])
def test_kept_places_are_judged_as_the_ranking_was(place, split):
    generator = np.random.default_rng(2)
    users = generator.integers(0, 70, 900) + np.where(np.arange(900) < 820, 0, 35)
    log = InteractionLog.from_columns(users, generator.integers(100, 160, 900), np.arange(900))
    parts = split_log(log, ProtocolConfig(split=split))
    vocabulary = Vocabulary.fit(parts.train_and_validation)
    cases = encode_cases(parts.test, parts.log, vocabulary)
    counts = item_counts(parts.train_and_validation, vocabulary)
    assert (cases.user_index < 0).any() == (split == "global-time")

    def ranking(seed):
        scores = np.random.default_rng(seed).random((len(cases), len(counts)), dtype=np.float32)
        return rank_targets(lambda _: torch.from_numpy(scores), cases, len(counts), top_k=50)

    def judge(of_seeds):
        return evaluate_systems(
            {"it": of_seeds}, cases, LEAVE_LAST_OUT, counts, "a split", resamples=50
        ).to_dict()

    rankings = [ranking(0), ranking(1)]
    for seed, each in enumerate(rankings):
        whole = Places.of(each, cases, LEAVE_LAST_OUT.cutoffs, counts)
        write_kept("accuracy", f"it.{seed}", ["it", seed], {"told": seed}, {"first": whole})
    kept = [read_kept("accuracy", f"it.{seed}", ["it", seed]) for seed in (0, 1)]
    assert [told for told, _ in kept] == [{"told": 0}, {"told": 1}]
    places = [found["first"] for _, found in kept]
    filled = with_lists(judge([one.ranking for one in places]), {"it": places})
    assert filled == judge(rankings)
    assert read_kept("accuracy", "it.0", ["it", 1]) is None
    assert read_kept("accuracy", "it.2", ["it", 2]) is None


def test_a_row_can_be_trained_again_from_the_start(place, monkeypatch):
    monkeypatch.setattr(accuracy, "load_split", lambda data, config: split_log(walks(), config))
    ours = {name: {**row, "data": "walks"} for name, row in accuracy.read_rows().items()}
    monkeypatch.setattr(accuracy, "read_rows", lambda: ours)
    name, trained = "walks.leave-last-out.quick", []
    monkeypatch.setattr(
        accuracy, "train_on", lambda *given, **named: trained.append(1) or train_on(*given, **named)
    )
    for words, trainings in (([], 2), ([name], 2), (["--again", name], 4), ([], 4)):
        monkeypatch.setattr("sys.argv", ["run", *words])
        accuracy.main()
        assert len(trained) == trainings
    row = results.read_row("accuracy", name)
    assert row["seeds"] == [0, 1]
    assert len(row["cost"]["trained"]) == 2
