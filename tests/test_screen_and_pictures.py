import html
import io
import re

import matplotlib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import attrec
from attrec.config import Among
from attrec.pictures import draw_attention, draw_heads, draw_training, draw_window
from attrec.progress import ConsoleListener
from attrec.screen import PIPE_WIDTH, console, print_counts, print_evaluation, print_slices
from attrec.training.checkpoint import Epoch
from attrec.training.trainer import Progress
from attrec.tuning.picture import draw_tuning

SMALL = {
    "embedding_dim": 8,
    "max_epochs": 2,
    "batch_size": 64,
    "architecture": "paper",
    "init_std": 0.3,
}


@pytest.fixture(scope="module")
def log():
    return attrec.simulate("mixed", num_users=50, num_items=40, events_per_user=10, seed=1)


@pytest.fixture(scope="module")
def result(log):
    return attrec.fit(log, **SMALL)


def picture(path):
    with Image.open(path) as image:
        image.load()
        return image.size, np.asarray(image.convert("RGB"))


def test_the_picture_of_a_training(tmp_path):
    epochs = [Epoch(n, 1 / n, 1.0, {"ndcg@10": 0.1 * n * (4 - n)}) for n in (1, 2, 3)]
    size, pixels = picture(draw_training(epochs, 2, tmp_path / "new" / "training.png"))
    assert size[0] > size[1] > 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("aggregation", ["mean", "sum", "max"])
def test_the_picture_of_a_real_window(log, tmp_path, aggregation):
    fitted = attrec.fit(log, aggregation=aggregation, **SMALL)
    some = fitted.recommender.vocabulary.user_ids[3]
    for user in (None, some):
        size, _ = picture(draw_window(fitted.recommender, tmp_path / "a.png", user=user))
        assert size[0] > size[1] > 300


def test_the_attention_of_a_window_of_one_can_be_drawn(tmp_path):
    one = np.ones((1, 1))
    picture(draw_attention(one, np.ones(1), ["a title that is far too long for its place"],
                           tmp_path / "one.png"))  # fmt: skip


def text_of(show, *arguments):
    screen = Console(file=io.StringIO(), width=160)
    show(screen, *arguments)
    return screen.file.getvalue()


def test_the_tables_hold_the_figures(result):
    text = text_of(print_evaluation, result.evaluation)
    for name, system in result.evaluation.systems.items():
        assert name in text
        assert f"{system.metrics['mrr']['mean']:.4f}" in text
    assert "*" in text
    assert "full ranking over" in text
    assert "best epoch" in text_of(print_counts, result)
    assert "history of" in text_of(print_slices, result.evaluation)


def test_new_users_and_the_other_filter_get_tables_of_their_own(log):
    users = np.concatenate([np.repeat(np.arange(40), 15), np.repeat(np.arange(40, 50), 3)])
    rng = np.random.default_rng(0)
    times = np.concatenate([rng.random(600), 0.93 + 0.07 * rng.random(30)])
    events = attrec.InteractionLog.from_columns(users, rng.integers(0, 12, 630), times)
    found = attrec.fit(events, split="global-time", **SMALL)
    text = text_of(print_evaluation, found.evaluation)
    assert "by fold-in" in text
    assert "seen-filter turned" in text


def test_ties_in_time_are_told():
    rng = np.random.default_rng(0)
    events = attrec.InteractionLog.from_columns(
        np.repeat(np.arange(40), 10), rng.integers(0, 30, 400), np.zeros(400)
    )
    text = text_of(print_counts, attrec.fit(events, **SMALL))
    assert "the target of 100% of the users depends on the order of rows" in text


def test_a_window_too_short_to_choose_says_nothing_of_attention(log):
    text = text_of(print_counts, attrec.fit(log, window_length=2, **SMALL))
    assert "attention" not in text


def test_in_a_pipe_there_is_a_plain_line_for_each_epoch(log):
    screen = Console(file=io.StringIO(), width=120)
    with ConsoleListener(screen) as listener:
        attrec.fit(log, listener=listener, **SMALL)
    lines = screen.file.getvalue().splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [
        ["training", "epoch", "1"], ["training", "epoch", "2"],
    ]  # fmt: skip
    assert lines[2].startswith("retraining")
    assert "\x1b" not in screen.file.getvalue()


def test_on_a_terminal_there_is_a_live_bar():
    screen = Console(file=io.StringIO(), width=120, force_terminal=True)
    with ConsoleListener(screen) as listener:
        listener.phase("training")
        listener.progress(Progress(1, 2, 50, 100, 0.5))
    text = screen.file.getvalue()
    assert "\x1b" in text
    assert "epoch 1 of at most 2" in text
    assert "loss 0.500" in text


def test_a_pipe_is_wide_enough_for_the_tables():
    assert console().width >= 80
    assert PIPE_WIDTH > 100


@pytest.mark.parametrize("architecture", ["paper", "additive"])
def test_a_long_window_is_drawn_by_its_newest_events(tmp_path, architecture):
    log = attrec.simulate("mixed", num_users=30, num_items=40, events_per_user=40, seed=4)
    result = attrec.fit(
        log, architecture=architecture, embedding_dim=8, window_length=30, max_epochs=1,
        retrain=False, batch_size=300,
    )  # fmt: skip
    path = draw_window(result.recommender, tmp_path / "window.png", user=log.user_ids[2])
    (width, height), pixels = picture(path)
    assert min(width, height) > 400
    assert (pixels < 250).mean() > 0.02


ODD = ["$$", r"$\x$", "$a_b$", "$5", r"a\$b$c$", "plain"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: draw_attention(np.eye(6), np.full(6, 1 / 6), ODD, path),
        lambda path: draw_heads(np.full((2, 6), 1 / 6), np.full(6, 1 / 6), ODD, path),
        lambda path: draw_tuning([], {"item_categories": Among(ODD)}, "ndcg@10", path),
    ],
)
def test_what_looks_like_a_formula_is_drawn_as_it_is(tmp_path, draw):
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text stays text
        draw(tmp_path / "a.svg")
    text = html.unescape((tmp_path / "a.svg").read_text())
    for label in ODD:
        assert re.search(rf"[> ]{re.escape(label)}</text>", text), label
