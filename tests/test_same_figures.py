"""A test figure again: lists by the command line into a file, scored by a few plain lines."""

import ast
import csv
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from benchmarks.foldin.additive_users import Agreement
from benchmarks.independent import score
from benchmarks.independent.score import cut, scored

import attrec
from attrec.data.reading import write_csv
from attrec.data.sequences import Sequences
from attrec.data.vocabulary import Vocabulary
from attrec.errors import RequestError
from tests.command_line import run_cli
from tests.test_calibration import fashionable

SMALL = ["--embedding-dim", "16", "--window-length", "12", "--max-epochs", "3"]


def mixed():
    return attrec.simulate("mixed", num_users=120, num_items=60, events_per_user=14, seed=6)


def in_fashion():
    return fashionable(num_users=120, num_items=60, events=2400)


def write(path, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_the_plain_scorer_by_hand(tmp_path):
    places = {"a": 1, "b": 3, "c": 11}
    rows = [
        (user, rank, "taken" if rank == place else f"other {rank}")
        for user, place in places.items()
        for rank in range(1, 13)
    ]
    header, stranger = ("user_id", "rank", "item_id"), ("nobody's", 1, "taken")
    lists = write(tmp_path / "lists.csv", header, *rows, stranger)
    # The fourth user has no list.
    assert scored(lists, dict.fromkeys("abcd", "taken")) == pytest.approx(
        {
            "hit_rate@10": 2 / 4,
            "ndcg@10": (1 + 1 / 2) / 4,
            "hit_rate@50": 3 / 4,
            "ndcg@50": (1 + 1 / 2 + 1 / math.log2(12)) / 4,
        },
        abs=1e-15,
    )


def test_the_plain_cut_by_hand(tmp_path):
    header = ("user", "item", "time")
    rows = [("a", "x", 1), ("b", "y", 1), ("a", "w", 2), ("a", "z", 2), ("b", "x", 3)]
    log = write(tmp_path / "log.csv", header, *rows)
    before = tmp_path / "before.csv"
    # Of equal times the later row is the last event; b's two events are too few to be judged.
    assert cut(log, before, "leave-last-out") == {"a": "z"}
    kept = [header, *(row for row in rows if row[1] != "z")]
    assert before.read_text() == write(tmp_path / "kept.csv", *kept).read_text()
    # A tenth of five events is none but those of the last moment; c was not there before it.
    log = write(tmp_path / "log.csv", header, *rows, ("c", "x", 3), ("c", "y", 3))
    assert cut(log, before, "global-time") == {"b": "x"}
    assert before.read_text() == write(tmp_path / "kept.csv", header, *rows[:4]).read_text()
    # Without times the order of the rows is that in time.
    log = write(tmp_path / "log.csv", header[:2], *(row[:2] for row in rows))
    assert cut(log, before, "leave-last-out") == {"a": "z"}


def test_the_plain_scorer_is_independent():
    tree = ast.parse(Path(score.__file__).read_text(encoding="utf-8"))
    names = {
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names == {"__future__", "collections", "collections.abc", "csv", "math", "pathlib"}


@pytest.mark.parametrize(
    ("make", "preset", "split"),
    [
        (mixed, "accurate", "leave-last-out"),
        (mixed, "paper-sparse", "leave-last-out"),
        (mixed, "paper-sparse", "global-time"),
        (in_fashion, "accurate", "leave-last-out"),
        (in_fashion, "accurate", "global-time"),
    ],
)
def test_the_figures_of_a_training_are_those_of_its_lists_in_a_file(tmp_path, make, preset, split):
    write_csv(make(), tmp_path / "log.csv")
    targets = cut(tmp_path / "log.csv", tmp_path / "before.csv", split)
    options = [*SMALL, "--preset", preset, "--split", split]
    options += ["--min-steps", "30"] if preset == "accurate" else []
    asked = ["recommend", "model", "--log", "before.csv", "--as-of-log", "-k", "50"]
    for words in (["train", "log.csv", *options], [*asked, "--out", "lists.csv"]):
        code, said = run_cli(tmp_path, words, columns=200)
        assert code == 0, said
    served = attrec.load(tmp_path / "model")
    if make is in_fashion:  # without a moment nobody would see that --as-of-log was left out
        assert served.moment is not None
    with (tmp_path / "lists.csv").open() as file:
        rows = list(csv.DictReader(file))
    reached = Counter()
    for row in rows:
        reached[row["user_id"]] += 1
        assert int(row["rank"]) == reached[row["user_id"]]
    figures = served.record["test"]["systems"]["attrec"]
    found = scored(tmp_path / "lists.csv", targets)
    wanted = {metric: figures[metric]["mean"] for metric in found}
    assert found == pytest.approx(wanted, abs=1e-9)


def test_users_held_out_of_training_get_what_users_of_the_training_get(tmp_path):
    log = attrec.simulate("mixed", num_users=100, num_items=40, events_per_user=14, seed=7)
    held_out = np.arange(0, 100, 10)
    rest = log.take(np.flatnonzero(~np.isin(log.user_codes, held_out)))
    served = attrec.fit(
        rest, embedding_dim=16, window_length=12, max_epochs=2, min_steps=30
    ).recommender
    table = served.recommend_batch(log=log, k=8)
    assert len(np.unique(table.user_id)) == 100
    histories = Sequences.from_log(log, Vocabulary.fit(log)).histories
    for row, user in enumerate(log.user_ids.tolist()):
        anew = served.recommend(history=log.item_ids[histories[row]].tolist(), k=8)
        together = table.user_id == user
        others = [(table.item_id[together].tolist(), table.distance[together].tolist())]
        if row not in held_out:
            named = served.recommend(user, k=8)
            others.append(([a.item_id for a in named], [a.distance for a in named]))
        for items, distances in others:
            assert items == [answer.item_id for answer in anew]
            assert distances == pytest.approx([answer.distance for answer in anew], abs=1e-9)


def test_lists_that_differ_are_seen():
    log = attrec.simulate("mixed", num_users=30, num_items=60, events_per_user=8, seed=8)
    served = attrec.fit(
        log, embedding_dim=8, window_length=5, max_epochs=1, min_steps=5
    ).recommender
    codes = Sequences.from_log(log, Vocabulary.fit(log)).histories
    users = log.user_ids.tolist()
    histories = {user: log.item_ids[row].tolist() for user, row in zip(users, codes, strict=True)}
    table, same, planted = served.recommend_batch(k=50), Agreement(), Agreement()
    same.compare(served, table, histories)
    assert (same.lists, same.unequal) == (30, 0)
    assert same.largest_difference < 1e-9
    table.item_id[[0, 1]] = table.item_id[[1, 0]]
    table.distance[-1] += 0.5
    planted.compare(served, table, histories)
    assert (planted.lists, planted.unequal) == (30, 1)
    assert planted.largest_difference == pytest.approx(0.5, abs=1e-9)


def test_a_log_and_others_are_not_both_asked(tmp_path):
    log = attrec.simulate("mixed", num_users=30, num_items=20, events_per_user=8, seed=8)
    served = attrec.fit(log, embedding_dim=8, window_length=5, max_epochs=1, min_steps=5)
    with pytest.raises(RequestError, match="a log brings its users"):
        served.recommender.recommend_batch([log.user_ids[0]], log=log)
    served.recommender.save(tmp_path / "model")
    write_csv(log, tmp_path / "log.csv")
    code, said = run_cli(tmp_path, ["recommend", "model", "--all", "--log", "log.csv"], columns=200)
    assert code == 2
    assert "--log brings its users" in said
