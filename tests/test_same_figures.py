"""A test figure again: lists by the command line into a file, scored by a few plain lines."""

import csv
import math
from collections import defaultdict

import numpy as np
import pytest

import attrec
from attrec.data.reading import write_csv
from attrec.data.sequences import Sequences
from attrec.data.vocabulary import Vocabulary
from attrec.errors import RequestError
from tests.command_line import run_cli

SMALL = ["--embedding-dim", "16", "--window-length", "12", "--max-epochs", "3", "--min-steps", "30"]


def scored(lists, answers):
    """HR@10 and NDCG@10 of {user: [item, …]} for {user: item}."""
    hits, gains = 0, 0.0
    for user, item in answers.items():
        if item in lists[user][:10]:
            hits += 1
            gains += 1 / math.log2(lists[user].index(item) + 2)
    return hits / len(answers), gains / len(answers)


@pytest.mark.parametrize("preset", ["accurate", "paper-sparse"])
def test_the_figures_of_a_training_are_those_of_its_lists_in_a_file(tmp_path, preset):
    log = attrec.simulate("mixed", num_users=120, num_items=50, events_per_user=14, seed=6)
    write_csv(log, tmp_path / "log.csv")
    with (tmp_path / "log.csv").open() as file:
        header, *rows = csv.reader(file)
    by_user = defaultdict(list)
    for user, item, time in rows:
        by_user[user].append((float(time), item))
    before, answers = [], {}
    for user, events in by_user.items():
        events.sort()
        answers[user] = events[-1][1]
        before += [(user, item, time) for time, item in events[:-1]]
    with (tmp_path / "before.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *before])
    options = SMALL if preset == "accurate" else [*SMALL[:4], "--max-epochs", "3"]
    code, said = run_cli(tmp_path, ["train", "log.csv", "--preset", preset, *options], columns=200)
    assert code == 0, said
    code, said = run_cli(
        tmp_path,
        [
            "recommend",
            "model",
            "--log",
            "before.csv",
            "--as-of-log",
            "-k",
            "10",
            "--out",
            "lists.csv",
        ],
        columns=200,
    )
    assert code == 0, said
    lists = defaultdict(list)
    with (tmp_path / "lists.csv").open() as file:
        for row in csv.DictReader(file):
            assert int(row["rank"]) == len(lists[row["user_id"]]) + 1
            lists[row["user_id"]].append(row["item_id"])
    figures = attrec.load(tmp_path / "model").record["test"]["systems"]["attrec"]
    wanted = figures["hit_rate@10"]["mean"], figures["ndcg@10"]["mean"]
    assert scored(lists, answers) == pytest.approx(wanted, abs=1e-9)


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
        history = log.item_ids[histories[row]].tolist()
        anew = [answer.item_id for answer in served.recommend(history=history, k=8)]
        assert anew == table.item_id[table.user_id == user].tolist()
        if row not in held_out:
            assert anew == [answer.item_id for answer in served.recommend(user, k=8)]


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
