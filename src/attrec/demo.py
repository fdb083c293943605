"""The main job on real data, end to end; what `attrec demo` and `make demo` show."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from attrec.api import FitResult, fit
from attrec.config import Options
from attrec.data.datasets import fetch
from attrec.data.items import read_item_titles
from attrec.data.reading import read_interactions
from attrec.errors import ArtifactError
from attrec.evaluation.evaluate import Evaluation
from attrec.pictures import draw_training, draw_window
from attrec.progress import ConsoleListener
from attrec.recommender import Recommender
from attrec.screen import print_counts, print_evaluation, print_recommendations

DATA = "ml-100k"
MADE_UP_HISTORY = ("Star Wars", "Empire Strikes Back", "Raiders of the Lost Ark", "Alien")
LIST_LENGTH = 5
NAMES_SHOWN = 8
MAX_EPOCHS = 6
"""Where validation stood still on this log; the default would go on for another minute or two."""


def run(folder: Path, screen: Console) -> None:
    """Fetch MovieLens 100K, train, judge, recommend, explain, draw and save.

    A second run finds the model that the first one saved and only shows it again.
    """
    started = time.perf_counter()
    _headline(screen, "AttRec", ": next-item recommendation on MovieLens 100K\n")
    data = fetch(DATA, echo=lambda line: screen.print(line, highlight=False, style="dim"))
    options = Options.of(max_epochs=MAX_EPOCHS)
    model = folder / "model"
    recommender = _saved(model, options, str(data.sha256))
    if recommender is None:
        result = _train(data.interactions, data.items, options, screen)
        recommender = result.recommender
        recommender.record["demo_data"] = str(data.sha256)
        recommender.save(model)
        draw_training(
            result.validation_run.epochs, result.best_epoch, folder / "training.png",
            metric=options.train.selection_metric,
        )  # fmt: skip
        draw_window(recommender, folder / "attention.png")
        print_evaluation(screen, result.evaluation)
        print_counts(screen, result)
    else:
        screen.print(f"Found the model of an earlier run in {model}; remove it to train again.")
        figures = Evaluation.from_dict(recommender.record["test"])
        print_evaluation(screen, figures)
    _show_lists(recommender, screen)
    someone = recommender.vocabulary.user_ids[0]
    screen.print(f"\nDone in {time.perf_counter() - started:.0f} s. In {folder}/:", highlight=False)
    screen.print("  model/          the artifact      training.png  attention.png", highlight=False)
    first = recommender.recommend(someone, k=1)[0]
    screen.print("\nNext, three commands to try:", style="bold")
    for line in (
        f"attrec explain {model} {first.item_id} --user {someone}",
        f"attrec recommend {model} --all --out recommendations.csv",
        "attrec train YOUR_LOG.csv",
    ):
        screen.print(f"  {line}", highlight=False)


def _train(interactions: Path, items: Path | None, options: Options, screen: Console) -> FitResult:
    began = time.perf_counter()
    log = read_interactions(interactions)
    titles = None if items is None else read_item_titles(items)
    reading = time.perf_counter() - began
    screen.print(
        f"{len(log):,} events of {log.num_users:,} users and {log.num_items:,} films; training, "
        f"preset {options.preset}\n",
        highlight=False,
    )
    with ConsoleListener(screen) as listener:
        result = fit(log, options=options, titles=titles, listener=listener)
    result.recommender.record["seconds"]["reading"] += reading
    return result


def _saved(model: Path, options: Options, data: str) -> Recommender | None:
    """Load what an earlier run saved, if it was made of the same data with the same options."""
    if not model.exists():
        return None
    try:
        recommender = Recommender.load(model)
    except ArtifactError:
        return None
    same = recommender.options == options and recommender.record.get("demo_data") == data
    return recommender if same else None


def _show_lists(recommender: Recommender, screen: Console) -> None:
    """Three users with histories of different lengths, and a history that was made up."""
    lengths = recommender.histories.histories.lengths
    order = np.argsort(lengths, kind="stable")
    for place in (0.1, 0.5, 0.9):
        index = int(order[int(place * (len(order) - 1))])
        user = recommender.vocabulary.user_ids[index]
        last = recommender.histories.histories[index][-NAMES_SHOWN:]
        names = "; ".join(recommender.title(item) or "" for item in last)
        screen.print()
        _headline(screen, f"User {user}", f", {lengths[index]} films, at last: {names}")
        answers = recommender.recommend(user, k=LIST_LENGTH)
        print_recommendations(screen, recommender, answers, user, None)
    history = _made_up(recommender)
    names = "; ".join(recommender.titles[str(item)] for item in history)
    screen.print()
    _headline(screen, "Somebody new", f", who took: {names}")
    answers = recommender.recommend(history=history, k=LIST_LENGTH)
    print_recommendations(screen, recommender, answers, None, history)


def _headline(screen: Console, bold: str, rest: str) -> None:
    screen.print(Text.assemble((bold, "bold"), rest))


def _made_up(recommender: Recommender) -> list[int | str]:
    """Find the films of the made-up history by the beginning of their titles."""
    ids = recommender.vocabulary.item_ids
    return [
        next(i for i in ids if recommender.titles.get(str(i), "").startswith(wanted))
        for wanted in MADE_UP_HISTORY
    ]
