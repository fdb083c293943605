"""The search for better options: what is searched, that it goes on, that it never sees the test."""

import contextlib
import csv
import io
import itertools
import pathlib
import sqlite3
import sys
import tomllib
from unittest import mock

import numpy as np
import optuna
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

import attrec
from attrec import api, tuning
from attrec.config import PRESETS, Among, Between, Options, option_specs
from attrec.data.reading import write_csv
from attrec.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    InterruptedTraining,
    MissingExtraError,
    RequestError,
)
from attrec.retrieval.vectors import NetworkScorer
from attrec.screen import trials_table
from attrec.signals import StopWish
from attrec.tuning import run, study
from attrec.tuning.picture import draw_tuning
from attrec.tuning.spaces import spaces_of
from attrec.tuning.study import Study, Trial, best_of
from tests.command_line import run_cli

SMALL = {
    "preset": "paper-sparse", "embedding_dim": 4, "max_epochs": 14, "batch_size": 64,
    "init_std": 0.3,
}  # fmt: skip
SEARCH = ["margin", "dropout", "norm_clipping", "num_targets=1..4"]
FLAGS = ["--preset", "paper-sparse", "--embedding-dim", "4", "--max-epochs", "2", "--batch-size",
         "64", "--init-std", "0.3", "--search", "margin", "--search", "l2"]  # fmt: skip


@pytest.fixture(scope="module")
def log():
    return attrec.simulate("mixed", num_users=40, num_items=30, events_per_user=8, seed=2)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes longer than the searches here; the fixture `whole` draws."""
    monkeypatch.setattr(run, "draw_tuning", lambda *arguments: None)


def search(log, folder, trials=4, **options):
    return attrec.tune(log, folder=folder, trials=trials, **{"search": SEARCH, **SMALL, **options})


@pytest.fixture(scope="module")
def whole(log, tmp_path_factory):
    """A search that nothing interrupted."""
    return search(log, tmp_path_factory.mktemp("whole") / "tuning", trials=7)


def told(trials):
    """What has to be the same, however often a search was interrupted."""
    return [(t.number, t.values, t.ending, t.figure, t.best_epoch, t.epochs) for t in trials]


# What is searched.


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_spaces_and_begins_inside_them(preset):
    options = Options.of(preset)
    spaces = spaces_of(options)
    assert {"embedding_dim", "window_length", "dropout", "learning_rate"} <= spaces.keys()
    for name, space in spaces.items():
        value = options.value(name)
        assert (
            value in space.values
            if isinstance(space, Among)
            else (space.low <= value <= space.high)
        )
        for end in space.values if isinstance(space, Among) else (space.low, space.high):
            assert options.with_(**{name: end}).value(name) == end


def test_given_options_stay_and_named_ones_begin_where_the_file_is(tmp_path):
    options = Options.of("paper-sparse", margin=3.0)
    assert "margin" not in spaces_of(options, ["margin"])
    assert spaces_of(options, search=["margin"]) == {"margin": Between(0.1, 3.0, log=True)}
    assert spaces_of(options, search=["window_length=3,9"]) == {"window_length": Among((3, 5, 9))}
    assert spaces_of(options, search=["margin=0.2..0.5:linear"])["margin"] == Between(0.2, 3.0)
    assert list(spaces_of(options, search=["margin", "dropout"])) == ["dropout", "margin"]
    file = tmp_path / "run.toml"
    file.write_text('preset = "paper-sparse"\n[train]\nmargin = 0.4\n')
    options = Options.of(file=file)
    check = {"folder": tmp_path / "t", "config_file": file}
    assert "margin" not in tuning.check_search(options, **check)
    assert list(tuning.check_search(options, search=["margin"], **check)) == ["margin"]


def test_a_space_that_other_options_rule_out_is_not_searched():
    options = Options.of("accurate", embedding_dim=50, heads=2)
    assert "heads" not in spaces_of(options, ["embedding_dim"])
    with pytest.raises(ConfigError, match="must be a multiple of heads"):
        spaces_of(options, ["embedding_dim"], ["heads"])
    # Ends that go with an end of another space are searched.
    assert list(spaces_of(options, search=["embedding_dim=30,60", "heads=5"])) == [
        "embedding_dim", "heads"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "asked", "words"),
    [
        ("paper-sparse", "margn", "did you mean 'margin'"),
        ("paper-sparse", "seed", "how a training runs or is judged"),
        ("paper-sparse", "architecture=paper,additive", "is not searched"),
        ("paper-sparse", "cutoffs", "is not searched"),
        ("paper-sparse", "heads", "take a preset of the additive architecture"),
        ("accurate", "margin", "take a preset of the paper architecture"),
        ("paper-sparse", "init_std", "no space of its own; give one, such as init_std=0.1..0.9"),
        ("paper-sparse", "margin=1..0.1", "the range is empty"),
        ("paper-sparse", "margin=0.1..1:square", "expected margin=0.1..0.9 or margin=0.1,0.5"),
        ("paper-sparse", "margin=much", "'much' is no value of margin"),
        ("paper-sparse", "margin=0..1:log", "does not hold 0; list values instead"),
        ("paper-sparse", "l2=0.001..0.1:log", "does not hold 0; list values instead"),
        ("paper-sparse", "dropout=0..2", "must be at least 0 and at most 0.99"),
        ("paper-sparse", "window_length=0,3", "must be at least 1"),
        ("paper-sparse", "window_length=1.5,3", "expected window_length=2..8 or"),
        ("paper-sparse", "norm_clipping=1..2", "expected norm_clipping=true,false"),
        ("paper-sparse", "aggregation=mean,median", "expected aggregation=mean,sum,max,min"),
        ("paper-sparse", "embedding_dim=16..64", "expected embedding_dim=32,64,128"),
        ("paper-sparse", "embedding_dim=16,33", "must be even"),
    ],
)
def test_a_search_that_cannot_be_is_one_sentence(preset, asked, words):
    with pytest.raises(ConfigError) as caught:
        spaces_of(Options.of(preset), search=[asked])
    assert words in str(caught.value)


def test_contradictions_are_refused():
    options = Options.of("paper-sparse")
    with pytest.raises(ConfigError, match="margin is given a value too"):
        spaces_of(options, ["margin"], ["margin=0.1,0.2"])
    with pytest.raises(ConfigError, match="asked for twice"):
        spaces_of(options, search=["margin", "margin=0.1,0.2"])
    with pytest.raises(ConfigError, match="nothing is to be searched"):
        spaces_of(options, search=[])
    with pytest.raises(ConfigError, match="every option that could be searched is given"):
        spaces_of(options, [spec.name for spec in option_specs()])


@given(
    st.floats(1e-6, 0.5), st.floats(0.6, 0.99), st.integers(1, 10**9), st.booleans(),
    st.lists(st.integers(1, 50), min_size=1, max_size=5, unique=True),
)  # fmt: skip
def test_a_space_is_written_as_it_is_read(low, high, size, log, values):
    options = Options.of("paper-sparse", dropout=low, window_length=values[0])
    between = Between(low, high, log)
    assert spaces_of(
        options.with_(dropout=between.low), search=[f"dropout={between}{'' if log else ':linear'}"]
    ) == {"dropout": between}
    whole = Between(size, 2 * size, log)
    assert spaces_of(
        options.with_(batch_size=size), search=f"batch_size={whole}{'' if log else ':linear'}"
    ) == {"batch_size": whole}
    among = Among(tuple(values))
    assert spaces_of(options, search=[f"window_length={among}"]) == {"window_length": among}


# What a search gives.


def test_the_first_trial_is_the_options_as_they_are_and_the_best_is_never_worse(log, whole):
    first = whole.trials[0]
    assert first.values == {name: Options.of(**SMALL).value(name) for name in whole.spaces}
    assert whole.best.figure >= first.figure
    assert whole.best == best_of(whole.trials)
    usual = attrec.fit(log, **SMALL)
    figures = [epoch.validation["ndcg@10"] for epoch in usual.validation_run.epochs]
    assert (first.figure, first.best_epoch) == (max(figures), usual.best_epoch)
    assert len({str(t.values) for t in whole.trials}) == 7
    assert all(1 <= t.values["num_targets"] <= 4 for t in whole.trials)
    assert {t.ending for t in whole.trials} == {"finished", "pruned"}
    assert whole.best.ending == "finished"


def test_best_toml_trains_what_the_trial_trained(log, whole):
    again = attrec.fit(log, config_file=whole.folder / "best.toml")
    figures = [epoch.validation["ndcg@10"] for epoch in again.validation_run.epochs]
    assert max(figures) == whole.best.figure
    assert again.best_epoch == whole.best.best_epoch
    assert again.recommender.options == whole.options
    found = tomllib.loads((whole.folder / "best.toml").read_text())
    assert found["train"]["margin"] == whole.best.values["margin"]


def test_the_table_and_the_picture_hold_the_trials(whole):
    with (whole.folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["ndcg@10"]) for row in rows] == [t.figure for t in whole.trials]
    assert [row["ending"] for row in rows] == [t.ending for t in whole.trials]
    assert [float(row["margin"]) for row in rows] == [t.values["margin"] for t in whole.trials]
    with Image.open(whole.folder / "tuning.png") as image:
        image.load()
        assert image.size[0] > image.size[1] > 300
    assert whole.to_dict()["best"]["number"] == whole.best.number


@pytest.mark.parametrize("width", [60, 200])
def test_the_table_on_the_screen_shows_every_value_at_any_width(whole, width):
    screen = Console(file=io.StringIO(), width=width)
    screen.print(trials_table(whole.trials, list(whole.spaces), whole.metric, width))
    text = screen.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for trial in whole.trials:
        assert f"{trial.figure:.4f}" in text
        assert f"{trial.values['margin']:.3g}" in text


@pytest.mark.parametrize("count", [0, 1])
def test_a_picture_of_little_can_be_drawn(count, tmp_path):
    trials = [
        Trial(1, {"margin": 0.3}, "finished", 0.1, 2, 3), Trial(2, {}, "failed", reason="why"),
        Trial(3, {"margin": 0.5}, "pruned", 0.05, 1, 1), Trial(4, {"margin": 0.5}, "stopped"),
    ][:4 * count]  # fmt: skip
    path = draw_tuning(trials, {"margin": Between(0.1, 1.0, True)}, "mrr", tmp_path / "a.svg")
    assert path.read_text().startswith("<?xml")


# The test part.


def other_test_events(log):
    """The same log with other items, one of them new, as each user's last event."""
    order = log.time_order()
    last = order[np.cumsum(np.bincount(log.user_codes, minlength=log.num_users)) - 1]
    items = log.item_ids[log.item_codes].copy()
    items[last] = 999 - items[last]
    times = log.timestamps.copy()
    times[last] += 0.5
    return attrec.InteractionLog.from_columns(log.user_ids[log.user_codes], items, times)


def test_the_test_part_changes_nothing(log, whole, tmp_path):
    changed = other_test_events(log)
    assert changed.fingerprint() != log.fingerprint()
    found = search(changed, tmp_path / "other", trials=7)
    assert told(found.trials) == told(whole.trials)
    assert (found.folder / "best.toml").read_text() == (whole.folder / "best.toml").read_text()
    # To the search it is the same log: it takes what is there as its own.
    assert told(search(changed, whole.folder, trials=7).trials) == told(whole.trials)


def test_a_given_test_file_changes_nothing(log, tmp_path):
    results = [
        search(log, tmp_path / str(seed), trials=2, test=attrec.simulate(
            "mixed", num_users=40, num_items=30, events_per_user=4, seed=seed))
        for seed in (7, 8)
    ]  # fmt: skip
    assert told(results[0].trials) == told(results[1].trials)


# Going on.


class Ends(attrec.TuningListener):
    """Ends a search in the middle: asks to stop, or breaks, after so many steps."""

    def __init__(self, steps, breaks=False):
        self.left, self.breaks = steps, breaks

    def progress(self, progress):
        self.left -= 1
        if self.breaks and self.left <= 0:
            raise OSError("the machine is gone")

    def stop_requested(self):
        return not self.breaks and self.left <= 0


@pytest.mark.parametrize("breaks", [False, True])
def test_a_search_that_was_ended_again_and_again_finds_what_an_uninterrupted_one_finds(
    log, whole, tmp_path, breaks
):
    folder = tmp_path / "tuning"
    for steps in (2, 19, 23):
        listener = Ends(steps, breaks)
        with pytest.raises(OSError if breaks else InterruptedTraining, match=r"gone|kept in"):
            search(log, folder, trials=7, listener=listener, checkpoint_seconds=0.0)
    found = search(log, folder, trials=7, checkpoint_seconds=0.0)
    assert told(found.trials) == told(whole.trials)
    assert not (folder / "running").exists()


def test_more_trials_go_further_and_no_more_trials_do_nothing(log, whole, tmp_path):
    three = search(log, tmp_path / "tuning", trials=3)
    assert told(three.trials) == told(whole.trials)[:3]
    trained = []

    class Watch(attrec.TuningListener):
        def searching(self, spaces, trials):
            trained.append(len(trials))

        def trial(self, trial, best):
            trained.append((trial.number, best.number))

    search(log, tmp_path / "tuning", trials=3, listener=Watch())
    assert trained == [3]
    search(log, tmp_path / "tuning", trials=4, listener=[attrec.Listener(), Watch()])
    assert trained[1:] == [3, (4, best_of(whole.trials[:4]).number)]
    search(log, tmp_path / "tuning", trials=5, listener=Watch())
    assert trained[3:] == [4, (5, best_of(whole.trials[:5]).number)]


def test_a_space_that_is_hardly_another_one_is_another_one(log, tmp_path):
    folder = tmp_path / "tuning"
    search(log, folder, trials=1, search="margin=0.1000001..0.5")
    with pytest.raises(ArtifactError, match="other searched options"):
        search(log, folder, trials=1, search="margin=0.1000002..0.5")


def test_another_search_is_not_gone_on_with(log, whole):
    other = log.take(np.arange(len(log)) > 0)
    for source, options, words in (
        (other, {}, "a search with other data"),
        (log, {"patience": 2}, r"other options \(\[train\]\)"),
        (log, {"cutoffs": (5,)}, r"other options \(\[protocol\]\)"),
        (log, {"search": ["margin"]}, "other searched options"),
    ):
        with pytest.raises(ArtifactError, match=words) as caught:
            search(source, whole.folder, **options)
        assert "--fresh" in str(caught.value)
    assert told(search(log, whole.folder, trials=7, threads=1).trials) == told(whole.trials)


def test_a_folder_of_something_else_is_left_alone(log, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(ArtifactError, match=r"holds something that is no search \(thesis.txt"):
        search(log, tmp_path)
    with pytest.raises(ArtifactError, match="no search"):
        tuning.remove_tuning(tmp_path)
    with pytest.raises(ArtifactError, match="is a file"):
        search(log, tmp_path / "thesis.txt")
    running = tmp_path / "running"
    search(log, running, trials=1)
    lock = FileLock(running / "study.lock")
    with lock, pytest.raises(RequestError, match="another process searches there"):
        tuning.remove_tuning(running)
    assert search(log, running, trials=1).best is not None


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused_untouched(log, folder, words):
    """The search, and starting it again, are refused, and nothing there is touched."""
    before = contents(folder)
    for work in (lambda: search(log, folder), lambda: tuning.remove_tuning(folder)):
        with pytest.raises(ArtifactError, match=words):
            work()
    assert contents(folder) == before


@pytest.mark.parametrize("theirs", ["mine", "attrec"])
def test_a_study_of_somebody_else_is_left_alone(log, tmp_path, theirs):
    kept = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", study_name=theirs)
    kept.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    for name in ("best.toml", "trials.csv", "notes.txt"):
        (tmp_path / name).write_text("mine")
    refused_untouched(log, tmp_path, rf"holds something that is no search \(the study '{theirs}'")


@pytest.mark.parametrize("text", ["no database " * 100, None])
def test_a_file_named_as_a_search_that_is_none_is_left_alone(log, tmp_path, text):
    if text is None:
        with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as db, db:
            db.execute("CREATE TABLE shop (item)")
    else:
        (tmp_path / "study.db").write_text(text)
    refused_untouched(log, tmp_path, r"study\.db: cannot be read as a search .* nobody needs it")


def test_starting_again_beside_something_else_removes_nothing(log, tmp_path):
    search(log, tmp_path, trials=1)
    (tmp_path / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ArtifactError, match=r"holds something that is no search \(notes.txt"):
        tuning.remove_tuning(tmp_path)
    assert contents(tmp_path) == before
    assert len(search(log, tmp_path, trials=2).trials) == 2
    (tmp_path / "notes.txt").unlink()
    tuning.remove_tuning(tmp_path)
    assert not contents(tmp_path)


def test_a_search_that_was_killed_at_its_very_beginning_goes_on(log, tmp_path):
    (tmp_path / "study.db").touch()
    (tmp_path / ".attrec-1.tmp").touch()
    assert search(log, tmp_path, trials=1).best is not None


@pytest.mark.parametrize("name", ["tu?ning", "tu%20 é#n{i}ng"])
def test_a_folder_may_have_any_name(log, tmp_path, name):
    found = search(log, tmp_path / name, trials=1)
    assert {"study.db", "best.toml", "trials.csv"} <= {path.name for path in found.folder.iterdir()}
    assert len(search(log, tmp_path / name, trials=2).trials) == 2
    assert [path.name for path in tmp_path.iterdir()] == [name]


def fill(folder):
    """Let the search's file have no further page, as on a full disk."""
    connect = sqlite3.connect

    def full(*arguments, **options):
        db = connect(*arguments, **options)
        db.execute("PRAGMA max_page_count = 1")  # what it has already stays
        return db

    return mock.patch.object(study.sqlite3, "connect", full)


@pytest.mark.parametrize("trials", [0, 1])
def test_a_full_disk_is_told_in_one_sentence_and_loses_nothing(log, tmp_path, monkeypatch, trials):
    folder = tmp_path / "tuning"
    monkeypatch.setattr("optuna.storages._rdb.storage.time.sleep", lambda seconds: None)
    before = search(log, folder, trials=trials).trials if trials else []
    words = r"tuning: the search cannot be kept there \(database or disk is full\); choose"
    with fill(folder), pytest.raises(RequestError, match=words):
        search(log, folder, trials=40)
    assert told(search(log, folder, trials=max(1, trials)).trials[:trials]) == told(before)


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(log, tmp_path):
    folder = tmp_path / "tuning"
    search(log, folder, trials=1)
    before = contents(folder)
    for place, error in (
        (FileLock, PermissionError(13, "Permission denied")),
        (pathlib.Path, OSError(30, "Read-only file system")),
    ):
        name = "acquire" if place is FileLock else "unlink"
        with (
            mock.patch.object(place, name, side_effect=error),
            pytest.raises(RequestError, match=rf"cannot be kept there \({error.strerror}\)"),
        ):
            tuning.remove_tuning(folder)
    assert contents(folder).keys() >= before.keys()


def test_two_processes_do_not_search_in_one_folder(log, whole):
    with (
        FileLock(whole.folder / "study.lock", is_singleton=False),
        pytest.raises(RequestError, match="another process searches there"),
    ):
        search(log, whole.folder)


# The budget.


def test_time_ends_a_search_in_the_middle_of_a_trial_which_goes_on(
    log, whole, tmp_path, monkeypatch
):
    clock = itertools.count()
    monkeypatch.setattr(run.time, "monotonic", lambda: float(next(clock)))
    found = search(log, tmp_path / "tuning", trials=7, seconds=35)
    assert found.trials[-1].ending == "stopped"
    assert found.trials[-1].seconds > 0
    spent = sum(t.seconds for t in found.trials)
    assert spent < 60
    nothing = search(log, tmp_path / "tuning", trials=7, seconds=spent)
    assert told(nothing.trials) == told(found.trials)
    again = search(log, tmp_path / "tuning", trials=7, seconds=10_000)
    assert told(again.trials) == told(whole.trials)


def test_where_no_trial_finished_the_options_stay_as_they_are(log, tmp_path):
    found = search(log, tmp_path / "tuning", seconds=1e-9)
    assert (found.best, found.trials) == (None, [])
    assert found.options == Options.of(**SMALL)
    assert not (found.folder / "best.toml").exists()


@pytest.mark.parametrize("budget", [{"trials": 0}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_an_empty_budget_is_refused(log, tmp_path, budget):
    with pytest.raises(RequestError, match="must be"):
        search(log, tmp_path / "tuning", **budget)
    assert not (tmp_path / "tuning").exists()


# Trials that do not finish.


def test_values_that_do_not_go_together_fail_one_trial_and_no_search(log, tmp_path):
    options = Options.of(
        architecture="additive", embedding_dim=4, heads=2, blocks=0, window_length=8, max_epochs=1,
        batch_size=256, min_steps=0,
    )  # fmt: skip
    asked = ["heads=2,4", "embedding_dim=4,6"]
    found = attrec.tune(log, folder=tmp_path / "tuning", trials=6, search=asked, options=options)
    failed = [t for t in found.trials if t.ending == "failed"]
    assert failed
    assert all(t.values == {"embedding_dim": 6, "heads": 4} for t in failed)
    assert "must be a multiple of heads = 4" in failed[0].reason
    assert len(found.trials) == 6
    assert found.best is not None


def test_values_that_nothing_can_be_reckoned_with_fail_one_trial_and_no_search(log, tmp_path):
    with pytest.raises(ConfigError, match=r"learning_rate = 1e[+]300: must be above 0 and at most"):
        search(log, tmp_path / "beyond", trials=6, search="learning_rate=0.01,1e300", max_epochs=1)
    asked = ["learning_rate=0.01,1e29"]
    found = search(log, tmp_path / "tuning", trials=6, search=asked, max_epochs=1)
    reasons = {t.values["learning_rate"]: (t.ending, t.reason) for t in found.trials}
    assert reasons.keys() == {0.01, Options.of(**SMALL).train.learning_rate, 1e29}
    ending, reason = reasons.pop(1e29)
    assert ending == "failed"
    assert "lower" in reason
    assert set(reasons.values()) == {("finished", "")}


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (MemoryError(), "MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory.\nAnd more."), "CUDA out of memory."),
        (None, "a distance is NaN, so nothing can be ranked; the training diverged: lower"),
    ],
)
def test_a_trial_that_fails_is_told_and_the_search_goes_on(
    log, tmp_path, monkeypatch, raised, said
):
    def fails(scorer, network):
        make(scorer, network)
        failed.append(1)
        if len(failed) <= 2:
            scorer.lifted_keys[0, 0] = torch.nan
            if raised is not None:
                raise raised

    failed, make, seen = [], NetworkScorer.__init__, []
    monkeypatch.setattr(NetworkScorer, "__init__", fails)
    listener = attrec.TuningListener()
    listener.trial = lambda trial, best: seen.append((trial.number, trial.ending, trial.reason))
    search(log, tmp_path / "tuning", search=["margin"], listener=listener, trials=3, max_epochs=1)
    assert [(number, ending) for number, ending, _ in seen] == [
        (1, "failed"), (2, "failed"), (3, "finished"),
    ]  # fmt: skip
    assert seen[0][2].startswith(said)
    assert "\n" not in seen[0][2]


def test_what_a_listener_raises_is_no_fault_of_a_trial(log, tmp_path):
    class Breaks(attrec.Listener):
        def epoch(self, epoch):
            raise RuntimeError("my own fault")

    with pytest.raises(RuntimeError, match="my own fault"):
        search(log, tmp_path / "tuning", listener=Breaks(), trials=1)
    assert search(log, tmp_path / "tuning", trials=1).best is not None


def falls_behind(figures, finished):
    """The rule, by an obvious loop: the epoch at which a trial is ended, or None."""
    best = 0.0
    for epoch, figure in enumerate(figures, start=1):
        best = max(best, figure)
        others = [max(other[:epoch]) for other in finished if len(other) >= epoch]
        if epoch >= 8 and len(others) >= 5 and best < np.median(others):
            return epoch
    return None


def test_a_trial_is_ended_where_it_falls_behind_the_median_of_the_finished(tmp_path):
    rng = np.random.default_rng(3)
    space = {"margin": Between(0.1, 1.0, log=True)}
    finished, pruned_at = [], []
    with Study(tmp_path, {}, space, {"margin": 0.3}, seed=0) as kept:
        for number in range(16):
            # Some rise, some begin high and stay: those are overtaken later.
            high = 1.2 + 1.2 * rng.random()
            start, slope = (0.1, 0.1) if number < 7 or number % 2 else (high, 0.01)
            curve = start + 0.1 * rng.random() + slope * (1 + rng.random()) * np.arange(17)
            curve = curve[: rng.integers(14, 18)]
            running, ended = kept.begin(), None
            for epoch, figure in enumerate(curve, start=1):
                if running.report(epoch, figure):
                    ended = epoch
                    break
            assert ended == falls_behind(curve, finished)
            running.end("finished" if ended is None else "pruned")
            pruned_at += [] if ended is None else [ended]
            finished += [curve] if ended is None else []
        trials = kept.trials()
    assert [t.figure for t in trials if t.ending == "finished"] == [max(c) for c in finished]
    assert len(set(pruned_at)) > 1


def test_a_trial_that_a_crash_ended_has_taken_time(tmp_path):
    space = {"margin": Between(0.1, 1.0)}
    with Study(tmp_path, {}, space, {"margin": 0.3}, seed=0) as kept:
        kept.begin().report(1, 0.1)
    with Study(tmp_path, {}, space, {"margin": 0.3}, seed=0) as kept:
        (trial,) = kept.trials()
        assert trial.seconds > 0
        kept.begin().report(2, 0.2)
        assert kept.trials()[0].seconds > trial.seconds


def test_a_trial_chooses_no_popularity_of_the_moment_that_nobody_would_use(
    log, tmp_path, monkeypatch
):
    monkeypatch.delattr(api, "calibrate")
    small = {"max_epochs": 1, "embedding_dim": 8, "heads": 2, "search": ["dropout"]}
    found = attrec.tune(log, folder=tmp_path / "tuning", trials=2, **small)
    assert [trial.ending for trial in found.trials] == ["finished"] * 2
    assert found.options.model.recent_popularity


# The command line.


def test_the_command_line_searches_says_what_is_next_and_goes_on(log, tmp_path):
    write_csv(log, tmp_path / "log.csv")
    command = ["tune", "log.csv", "--output", "found", *FLAGS]
    code, text = run_cli(tmp_path, [*command, "--trials", "2"], columns=250)
    assert code == 0, text
    assert "searching margin=0.1..1:log" in text
    assert "trial   2  finished" in text
    assert "with the options as they were" in text
    assert "margin" in text.split("best epoch")[1]
    (following,) = [line.split()[1:] for line in text.splitlines() if line.startswith("  attrec ")]
    code, trained = run_cli(tmp_path, following, columns=250)
    assert code == 0, trained
    code, text = run_cli(tmp_path, [*command, "--trials", "3", "--json"], columns=250)
    assert code == 0, text
    assert '"number": 3' in text
    code, text = run_cli(tmp_path, [*command, "--trials", "3"], columns=250)
    assert code == 0, text
    assert "going on; trials so far: 3" in text
    code, text = run_cli(tmp_path, [*command, "--seed", "4"], columns=250)
    assert code == 2
    assert "a search with other options ([train])" in text
    code, text = run_cli(tmp_path, [*command, "--search", "nonsense", "--fresh"], columns=250)
    assert code == 2
    assert (tmp_path / "found" / "study.db").exists()
    code, text = run_cli(tmp_path, [*command, "--seed", "4", "--trials", "1", "--fresh"],
                         columns=250)  # fmt: skip
    assert code == 0, text
    assert "trial   1  finished" in text
    assert "trial   2" not in text


def test_ctrl_c_keeps_everything_and_the_same_command_goes_on(log, tmp_path, monkeypatch):
    write_csv(log, tmp_path / "log.csv")
    command = ["tune", "log.csv", "--trials", "1", *FLAGS]
    with monkeypatch.context() as patched:
        patched.setattr(StopWish, "__call__", lambda self: True)
        code, text = run_cli(tmp_path, command, columns=250)
    assert code == 128
    assert "stopped as asked in trial 1; everything is kept in tuning" in text
    code, text = run_cli(tmp_path, [*command, "--seconds", "0.000001"], columns=250)
    assert code == 0
    assert "No trial finished" in text
    code, text = run_cli(tmp_path, command, columns=250)
    assert code == 0, text
    assert "goes on from its checkpoint: epoch 1, after 1 steps" in text
    code, text = run_cli(tmp_path, [*command, "--seconds", "0.000001", "--fresh"], columns=250)
    assert code == 0, text
    assert "No trial finished" in text


def test_a_missing_extra_is_named_before_anything_is_read(log, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'attrec\[tune\]'"):
        attrec.tune(tmp_path / "nowhere.csv", folder=tmp_path / "tuning")
    assert not list(tmp_path.iterdir())
    assert study.STUDY == "study.db"


def test_values_for_which_the_log_is_too_small_fail_their_trial(tmp_path):
    few = attrec.InteractionLog.from_columns([1] * 8 + [2] * 8, [0, 1, 2, 3] * 4, list(range(16)))
    found = search(few, tmp_path / "few", trials=5, search=["num_targets=3,6,7"])
    failed = [trial for trial in found.trials if trial.ending == "failed"]
    assert {trial.values["num_targets"] for trial in failed} <= {6, 7}
    assert failed
    assert found.best is not None
    with pytest.raises(DataError, match="lower num_targets or give more data"):
        search(few, tmp_path / "fewer", search=["margin"], num_targets=7)
