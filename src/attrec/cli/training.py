"""Training, searching for options, judging."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from attrec.cli.arguments import (
    Json,
    Log,
    Model,
    TestFile,
    app,
    beside,
    print_json,
    read_source,
)
from attrec.cli.places import check_file, check_outside
from attrec.errors import InterruptedTraining, RequestError
from attrec.files import real_path
from attrec.flags import with_options
from attrec.screen import (
    console,
    print_counts,
    print_evaluation,
    print_log,
    print_profile,
    print_slices,
    print_tuning,
    verbatim_console,
)


@app.command()
@with_options("model", "train", "protocol", "data")
def train(
    log: Log,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the model goes.")] =
        Path("model"),
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="accurate (the additive "
        "network), or the paper's: paper-sparse (norm clipping), paper-dense (L2).",
        show_default=False)] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file of options; flags "
                                                "override it.")] = None,
    test: TestFile = None,
    items: Annotated[Path | None, typer.Option("--items", metavar="FILE", help="Item file with "
        "titles, categories or vectors.")] = None,
    pictures: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Draw the training and "
                                                  "the attention of a window into it.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where a stopped "
        "training is kept; OUT.checkpoint when left out.", show_default=False)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again, whatever was kept.")] =
        False,
    profile: Annotated[Path | None, typer.Option(metavar="FILE", help="Say where the time went, "
        "and write a trace that Perfetto opens.", show_default=False)] = None,
    tensorboard: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep the curves there "
        "for TensorBoard.", show_default=False)] = None,
    mlflow: Annotated[str | None, typer.Option(metavar="FOLDER|ADDRESS", help="Keep the training "
        "as an MLflow run: in a folder, an sqlite:/// store or a server.", show_default=False)] =
        None,
    as_json: Json = False,
    overrides: Any = None,
) -> None:  # fmt: skip
    """Train on a log, judge on its held-out part, and save a model that can be asked.

    Ctrl-C saves where the training stands; the same command goes on from there.
    """
    from attrec.api import fit
    from attrec.artifact import CHECKPOINT, alone_in, check_target, remove_artifact
    from attrec.config import Options
    from attrec.profiling import OFF, Profile
    from attrec.progress import ConsoleListener
    from attrec.signals import stop_on_signals

    options = Options.of(preset, config, **overrides)
    timed = OFF if profile is None else Profile()
    screen = verbatim_console(stderr=True, quiet=True) if as_json else console()
    kept = checkpoint or beside(out, "checkpoint")
    _check_places(
        out, kept, fresh, pictures, {"--tensorboard": tensorboard, "--mlflow": _of_store(mlflow)}
    )
    if profile is not None:
        _check_profile(profile, out, kept, reads=(log, test, items, config))
    keeping = _callbacks(tensorboard, mlflow)
    with timed.span("reading"):
        events, known, given, reading = _read(log, items, test, options.data)
    print_log(screen, events)
    if fresh:
        with alone_in(kept):
            remove_artifact(kept, CHECKPOINT)
            check_target(kept, CHECKPOINT)
    with (
        stop_on_signals(lambda said: screen.print(f"\n{said}", highlight=False)) as wish,
        ConsoleListener(screen, wish) as listener,
    ):
        try:
            result = fit(events, options=options, test=given, items=known,
                         listener=[listener, *keeping], checkpoint=kept, profile=timed)  # fmt: skip
        except InterruptedTraining as stopped:
            if profile is not None:
                _tell_profile(screen, timed, profile, "not finished")
            screen.print(f"{stopped}", highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(wish.exit_code) from None
    # `fit` was given what had been read, and timed next to nothing of it.
    result.recommender.record["seconds"]["reading"] += reading
    with timed.span("saving"):
        result.recommender.save(out)
        remove_artifact(kept, CHECKPOINT)
    if as_json:
        found = {"model": str(out), **result.recommender.info()}
        if profile is not None:
            timed.write(profile)
            found["profile"] = timed.to_dict()
        print_json(found)
    else:
        print_evaluation(screen, result.evaluation)
        print_counts(screen, result)
        if profile is not None:
            _tell_profile(screen, timed, profile, result.recommender.record["step"])
        _tell_what_next(screen, out, result.recommender)
    if pictures is not None:
        _draw(result, pictures)


def _tell_what_next(screen: Console, out: Path, recommender: Any) -> None:
    screen.print(f"\nSaved to {out}. Next:", highlight=False, soft_wrap=True)
    folder, someone = shlex.quote(str(out)), shlex.quote(str(recommender.vocabulary.user_ids[0]))
    screen.print(f"  attrec recommend {folder} {someone}", highlight=False, soft_wrap=True)
    screen.print(f"  attrec info {folder}", highlight=False, soft_wrap=True)


def _check_places(
    out: Path, kept: Path, fresh: bool, pictures: Path | None, curves: Mapping[str, Path | None]
) -> None:
    """Refuse, before any work, places that the saving would stumble over after it."""
    from attrec.artifact import CHECKPOINT, alone_in, check_target

    if real_path(out) == real_path(kept):
        raise RequestError(f"{out}: --out and --checkpoint are one folder; give each its own")
    check_outside("--checkpoint", kept, out, "model")
    for flag, folder in curves.items():
        check_outside(flag, folder, out, "model")
        check_outside(flag, folder, kept, "checkpoint")
    check_target(out)
    if pictures is not None and pictures.exists() and not pictures.is_dir():
        raise RequestError(f"{pictures}: is a file; give --pictures a folder")
    with alone_in(kept):
        if not fresh:
            check_target(kept, CHECKPOINT)


def _check_profile(
    profile: Path, out: Path, kept: Path, reads: Iterable[str | Path | None]
) -> None:
    check_outside("--profile", profile, out, "model")
    check_outside("--profile", profile, kept, "checkpoint")
    if profile.is_dir() or not profile.parent.is_dir():
        raise RequestError(f"{profile}: is no place for a trace; name a file in a folder there is")
    check_file("--profile", profile, reads=reads)


def _of_store(mlflow: str | None) -> Path | None:
    """Return where an MLflow store lies, if not on a server."""
    path = None if mlflow is None else mlflow.removeprefix("sqlite:///")
    return None if path is None or "://" in path else Path(path)


@app.command()
@with_options("model", "train", "protocol", "data")
def tune(
    log: Log,
    out: Annotated[Path, typer.Option("--out", "--output", metavar="FOLDER", help="Keeps the "
        "search: trials.csv, tuning.png, best.toml, study.db.")] = Path("tuning"),
    trials: Annotated[int, typer.Option(metavar="N", help="Trainings in all, those of earlier "
                                        "calls included.")] = 30,
    seconds: Annotated[float | None, typer.Option(metavar="S", help="Time they may take in all; "
        "whichever is spent first ends the search.", show_default=False)] = None,
    search: Annotated[list[str] | None, typer.Option(metavar="NAME[=SPACE]", help="Search only "
        "this option, and those named by further --search: NAME, NAME=low..high, "
        "NAME=low..high:log or NAME=a,b,c.", show_default=False)] = None,
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="What the search begins with, "
        "as in train.", show_default=False)] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file of options; flags "
                                                "override it.")] = None,
    test: TestFile = None,
    items: Annotated[Path | None, typer.Option("--items", metavar="FILE", help="Item file of "
        "categories or vectors that are learnt from.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again, whatever was kept.")] =
        False,
    as_json: Json = False,
    overrides: Any = None,
) -> None:  # fmt: skip
    """Search for better options on the validation part; the test part is not looked at.

    Options that are given a value stay as they are; the first trial has all as they are. Ctrl-C
    keeps everything; the same command goes on, and more --trials or --seconds go further.
    """
    from attrec.config import Options
    from attrec.progress import ConsoleTuningListener
    from attrec.signals import stop_on_signals
    from attrec.tuning import BEST, check_search, remove_tuning
    from attrec.tuning import tune as search_on

    options = Options.of(preset, config, **overrides)
    screen = verbatim_console(stderr=True, quiet=True) if as_json else console()
    check_search(options, folder=out, trials=trials, seconds=seconds, search=search,
                 config_file=config, overrides=overrides)  # fmt: skip
    events, known, given, _ = _read(log, items, test, options.data)
    print_log(screen, events)
    if fresh:
        remove_tuning(out)
    with (
        stop_on_signals(lambda said: screen.print(f"\n{said}", highlight=False)) as wish,
        ConsoleTuningListener(screen, wish) as listener,
    ):
        try:
            result = search_on(
                events, folder=out, trials=trials, seconds=seconds, search=search, preset=preset,
                config_file=config, test=given, items=known, listener=listener, **overrides,
            )  # fmt: skip
        except InterruptedTraining as stopped:
            screen.print(f"{stopped}", highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(wish.exit_code) from None
    if as_json:
        print_json(result.to_dict())
        return
    print_tuning(screen, result)
    if result.best is None:
        screen.print("No trial finished: the same command goes on with more --trials or --seconds")
        return
    screen.print(f"\nSaved to {out}. Next:", highlight=False)
    screen.print(
        f"  attrec train {shlex.quote(log)} --config {shlex.quote(str(out / BEST))}"
        f"{'' if test is None else f' --test {shlex.quote(str(test))}'}"
        f"{'' if items is None else f' --items {shlex.quote(str(items))}'}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


@app.command()
@with_options("protocol", "data")
def evaluate(
    model: Model,
    log: Log,
    test: TestFile = None,
    compare: Annotated[Path | None, typer.Option(metavar="FILE", help="Anybody's recommendations "
                       "(columns user, item, rank): judged beside, tested in pairs.")] = None,
    slices: Annotated[bool, typer.Option("--slices", help="Figures by length of history and "
                                         "popularity of the target too.")] = False,
    as_json: Json = False,
    overrides: Any = None,
) -> None:  # fmt: skip
    """Judge a model on the test part of the log it was trained on."""
    from attrec.api import evaluate as judge
    from attrec.recommender import Recommender

    served = Recommender.load(model)
    config = served.options.with_(**overrides).data
    events, _, given, _ = _read(log, None, test, config)
    found = judge(served, events, test=given, compare=compare, **overrides)
    if as_json:
        print_json(found.to_dict())
        return
    screen = console()
    print_evaluation(screen, found)
    if slices:
        print_slices(screen, found)


def _read(
    log: str, items: Path | None, test: Path | None, config: Any
) -> tuple[Any, Any, Any, float]:
    """Read a log, the item file and the test file where there are some; tell the seconds, too."""
    began = time.perf_counter()
    events, known = read_source(log, items, config)
    given = None if test is None else read_source(str(test), None, config.uncut())[0]
    return events, known, given, time.perf_counter() - began


def _callbacks(tensorboard: Path | None, mlflow: str | None) -> list[Any]:
    """Make the listeners that were asked for."""
    if tensorboard is None and mlflow is None:
        return []
    from attrec.callbacks import MLflow, TensorBoard

    found: list[Any] = [] if tensorboard is None else [TensorBoard(tensorboard)]
    return found if mlflow is None else [*found, MLflow(mlflow)]


def _draw(result: Any, folder: Path) -> None:
    from attrec.pictures import draw_training, draw_window

    options = result.recommender.options
    draw_training(
        result.validation_run.epochs, result.best_epoch, folder / "training.png",
        metric=options.train.selection_metric,
    )  # fmt: skip
    draw_window(result.recommender, folder / "attention.png")


def _tell_profile(screen: Console, profile: Any, path: Path, step: str) -> None:
    from attrec.training.memory import peak_bytes

    profile.write(path)
    print_profile(screen, profile, path, step, peak_bytes())
