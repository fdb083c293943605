"""The command line: thin. It reads arguments, calls the library and prints."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from attrec.errors import AttRecError, InterruptedTraining, RequestError
from attrec.flags import as_flags, with_options
from attrec.screen import (
    console,
    print_batch,
    print_counts,
    print_evaluation,
    print_info,
    print_inspection,
    print_log,
    print_pairs,
    print_plan,
    print_profile,
    print_recommendations,
    print_slices,
    print_tuning,
)

EXIT_USER_ERROR = 2

app = typer.Typer(
    name="attrec",
    help="Next-item recommendation with self-attention: from an event log to recommendations, "
    "how good they are, and why each was made.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(
    help="Public data sets and simulated logs.", no_args_is_help=True, rich_markup_mode="rich"
)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Log = Annotated[
    str,
    typer.Argument(
        metavar="LOG",
        help="Events: a file (CSV, TSV, ::, JSON Lines, Parquet, .inter, lines 'user item …'), a "
        "pattern or folder of such files, a database's address, or a public data set's name such "
        "as ml-100k.",
        show_default=False,
    ),
]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A folder that train wrote.", show_default=False)
]
TestFile = Annotated[
    Path | None,
    typer.Option("--test", metavar="FILE", help="A given test file; LOG is then for training."),
]


def main() -> None:
    """Run the command line; a user's error is one sentence and exit code 2."""
    try:
        app()
    except AttRecError as error:
        Console(stderr=True).print(f"attrec: {error}", style="red", markup=False, highlight=False)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:
        # The reader of the pipe (head, say) has had enough.
        sys.stderr.close()
        sys.exit(0)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="ml-100k, ml-1m, movietweetings-100k, amazon-beauty "
                                        "or amazon-video-games.")],
    as_json: Json = False,
) -> None:  # fmt: skip
    """Fetch a public data set: checksum-verified, cached, from wherever it can be had."""
    from attrec.data.datasets import fetch

    out = console()
    found = fetch(name, echo=None if as_json else lambda line: out.print(line, highlight=False))
    if as_json:
        _print_json(
            {
                "name": found.name,
                "interactions": str(found.interactions),
                "items": None if found.items is None else str(found.items),
            }
        )
        return
    out.print(f"{found.interactions}", highlight=False, soft_wrap=True)
    if found.items is not None:
        out.print(f"{found.items}", highlight=False, soft_wrap=True)
    out.print(f"Next: attrec train {name}", highlight=False)


@data_app.command("simulate")
def data_simulate(
    kind: Annotated[str, typer.Argument(help="community, tastes, mixed, attention, directed or "
                                        "random.")] = "mixed",
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="CSV file to write.")] = Path(
        "simulated.csv"
    ),
    users: Annotated[int, typer.Option(metavar="N", help="Users.")] = 1000,
    items: Annotated[int, typer.Option(metavar="N", help="Items.")] = 500,
    events_per_user: Annotated[int, typer.Option(metavar="N", help="Events of each user.")] = 20,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same log.")] = 0,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write a log of any size with planted structure, to see what a model can find."""
    from attrec.data.reading import write_csv
    from attrec.data.simulate import simulate

    log = simulate(kind, num_users=users, num_items=items, events_per_user=events_per_user,
                   seed=seed)  # fmt: skip
    write_csv(log, out)
    if as_json:
        _print_json({"file": str(out), "kind": kind, "events": len(log), "users": log.num_users,
                     "items": log.num_items})  # fmt: skip
        return
    console().print(
        f"{out}: {len(log):,} events of {log.num_users:,} users and {log.num_items:,} items\n"
        f"Next: attrec train {out}",
        highlight=False,
    )


@data_app.command("inspect")
@with_options("protocol", "data")
def data_inspect(
    log: Log,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw lengths and "
                                                 "popularity, as .png, .svg or .pdf.")] = None,
    as_json: Json = False,
    overrides: Any = None,
) -> None:  # fmt: skip
    """Say what a log is like, what a split would lose, and which options fit it."""
    from attrec.config import Options
    from attrec.data.databases import shown
    from attrec.data.inspection import inspect_log
    from attrec.report import draw_log

    options = Options.of(**overrides)
    events, _ = _read(log, None, options.data)
    found = inspect_log(events, options.protocol)
    if picture is not None:
        draw_log(found, picture)
    if as_json:
        _print_json(found.to_dict())
        return
    screen = console()
    print_log(screen, events)
    screen.print()
    print_inspection(screen, found)
    command = f"attrec train {shlex.quote(shown(log))}{as_flags(overrides)}"
    screen.print(f"Next: {command}", highlight=False, soft_wrap=True)


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
    from attrec.artifact import CHECKPOINT, check_target, remove_artifact
    from attrec.config import Options
    from attrec.profiling import OFF, Profile
    from attrec.progress import ConsoleListener
    from attrec.signals import stop_on_signals

    options = Options.of(preset, config, **overrides)
    timed = OFF if profile is None else Profile()
    screen = Console(stderr=True, quiet=True) if as_json else console()
    kept = checkpoint or out.with_name(f"{out.name}.checkpoint")
    check_target(out)
    if fresh:
        remove_artifact(kept, CHECKPOINT)
    check_target(kept, CHECKPOINT)
    if profile is not None and (profile.is_dir() or not profile.parent.is_dir()):
        raise RequestError(f"{profile}: is no place for a trace; name a file in a folder there is")
    keeping = _callbacks(tensorboard, mlflow)
    with timed.span("reading"):
        events, known = _read(log, items, options.data)
        given = None if test is None else _read(str(test), None, options.data)[0]
    print_log(screen, events)
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
    with timed.span("saving"):
        result.recommender.save(out)
        remove_artifact(kept, CHECKPOINT)
    if pictures is not None:
        _draw(result, pictures)
    if as_json:
        found = {"model": str(out), **result.recommender.info()}
        if profile is not None:
            _write_trace(timed, profile)
            found["profile"] = timed.to_dict()
        _print_json(found)
        return
    print_evaluation(screen, result.evaluation)
    print_counts(screen, result)
    if profile is not None:
        _tell_profile(screen, timed, profile, result.recommender.record["step"])
    screen.print(f"\nSaved to {out}. Next:", highlight=False)
    someone = shlex.quote(str(result.recommender.vocabulary.user_ids[0]))
    screen.print(f"  attrec recommend {out} {someone}", highlight=False)
    screen.print(f"  attrec info {out}", highlight=False)


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
    screen = Console(stderr=True, quiet=True) if as_json else console()
    if fresh:
        remove_tuning(out)
    check_search(options, folder=out, trials=trials, seconds=seconds, search=search,
                 config_file=config, overrides=overrides)  # fmt: skip
    events, known = _read(log, items, options.data)
    given = None if test is None else _read(str(test), None, options.data)[0]
    print_log(screen, events)
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
        _print_json(result.to_dict())
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
    given = None if test is None else _read(str(test), None, config)[0]
    events, _ = _read(log, None, config)
    found = judge(served, events, test=given, compare=compare, **overrides)
    if as_json:
        _print_json(found.to_dict())
        return
    screen = console()
    print_evaluation(screen, found)
    if slices:
        print_slices(screen, found)


@app.command()
def recommend(
    model: Model,
    users: Annotated[list[str] | None, typer.Argument(metavar="[USER]...", help="Whom to recommend "
                     "to.", show_default=False)] = None,
    everybody: Annotated[bool, typer.Option("--all", help="All users of the model.")] = False,
    log: Annotated[str | None, typer.Option("--log", metavar="LOG", help="All users of this log, "
        "known or not, with their histories there.", show_default=False)] = None,
    history: Annotated[str | None, typer.Option(metavar="ID,ID,…", help="A history given now, "
                       "oldest first: for somebody the model has never met.")] = None,
    k: Annotated[int, typer.Option("-k", "--k", metavar="N", help="Length of the list.")] = 10,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Rank what the user took "
                                               "before, too.")] = False,
    allow: Annotated[str | None, typer.Option(metavar="ID,ID,…", help="Rank only these items.")] =
        None,
    deny: Annotated[str | None, typer.Option(metavar="ID,ID,…", help="Never rank these items.")] =
        None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to a .csv, .jsonl or "
                                             ".parquet file.")] = None,
    for_spreadsheets: Annotated[bool, typer.Option("--for-spreadsheets", help="In a .csv file, "
        "disarm text that a spreadsheet would run as a formula.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Recommend to known users, to a history given now, or to everybody into a file."""
    from attrec.recommender import Recommender

    served = Recommender.load(model)
    vocabulary = served.vocabulary
    limits: dict[str, Any] = {
        "k": k,
        "exclude_seen": not include_seen,
        "allow": _ids(allow, vocabulary.parse_item),
        "deny": _ids(deny, vocabulary.parse_item),
    }
    asked = [vocabulary.parse_user(text) for text in users or []]
    taken = _ids(history, vocabulary.parse_item)
    if log is not None and (asked or everybody or taken is not None):
        raise RequestError(
            "--log brings its users and histories; leave out users, --all, --history"
        )
    if everybody or log is not None or out is not None or len(asked) > 1:
        if taken is not None:
            raise RequestError(
                "--history is for one answer on the screen; leave out --all, --out and "
                "further users"
            )
        if not asked and not everybody and log is None:
            raise RequestError("say whom to recommend to: name users, or give --all or --log")
        given = None if log is None else _read(log, None, served.options.data)[0]
        table = served.recommend_batch(asked or None, log=given, **limits)
        if out is not None:
            table.write(out, for_spreadsheets=for_spreadsheets)
            console().print(f"{out}: {len(table):,} rows", highlight=False)
        elif as_json:
            _print_json([row._asdict() for row in table.rows()])
        else:
            print_batch(console(), table)
        return
    if not asked and taken is None:
        raise RequestError("say whom to recommend to: name a user, or give --history or --all")
    user = asked[0] if asked else None
    answers = served.recommend(user, history=taken, **limits)
    if as_json:
        _print_json([answer.to_dict() for answer in answers])
        return
    print_recommendations(console(), served, answers, user, taken)


@app.command()
def explain(
    model: Model,
    item: Annotated[str, typer.Argument(metavar="ITEM", help="The item to explain.")],
    user: Annotated[str | None, typer.Option(metavar="ID", help="For this user.")] = None,
    history: Annotated[str | None, typer.Option(metavar="ID,ID,…", help="For this history, oldest "
                                                "first.")] = None,
    versus: Annotated[str | None, typer.Option(metavar="ITEM", help="Say why ITEM stands above or "
                                               "below this one.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Say why an item stands where it does: exact parts of its distance, and what pulls it."""
    from attrec.recommender import Recommender

    served = Recommender.load(model)
    vocabulary = served.vocabulary
    found = served.explain(
        None if user is None else vocabulary.parse_user(user),
        vocabulary.parse_item(item),
        history=_ids(history, vocabulary.parse_item),
        versus=None if versus is None else vocabulary.parse_item(versus),
    )
    if as_json:
        _print_json(found.to_dict())
        return
    console().print(str(found), highlight=False, markup=False)


@app.command()
def info(model: Model, as_json: Json = False) -> None:
    """Say what a saved model is: data, options, figures."""
    from attrec.recommender import Recommender

    found = Recommender.load(model).info()
    if as_json:
        _print_json(found)
        return
    print_info(console(), model, found)


@app.command()
@with_options("model", "train", "protocol")
def doctor(
    plan: Annotated[tuple[int, int, int] | None, typer.Option(metavar="USERS ITEMS EVENTS",
        help="Say what memory and time a training on a log of these sizes would take here, with "
        "the options below; measured in some seconds.", show_default=False)] = None,
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="Of the plan, as in train.",
                                               show_default=False)] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file of options, of the "
                                                "plan.")] = None,
    as_json: Json = False,
    overrides: Any = None,
) -> None:  # fmt: skip
    """Check this installation: versions, threads, devices, extras, a training step.

    With --plan it measures what a training would take on this machine.
    """
    from attrec.config import Options
    from attrec.doctor import examine

    if plan is not None:
        from attrec.planning import make_plan

        options = Options.of(preset, config, **overrides)
        with Console(stderr=True).status("measuring …") as status:
            planned = make_plan(
                *plan, options, tell=lambda what: status.update(f"measuring {what} …")
            )
        if as_json:
            _print_json(planned.to_dict())
            return
        print_plan(console(), planned)
        return
    if overrides or preset or config:
        raise RequestError("options are for a plan; give --plan USERS ITEMS EVENTS with them")
    found = examine()
    if as_json:
        _print_json(found)
        return
    print_pairs(console(), found)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where everything goes.")] = Path(
        "demo"
    ),
) -> None:
    """MovieLens 100K to recommendations with reasons, figures and pictures; under three minutes."""
    from attrec.demo import run

    run(folder, console())


def _callbacks(tensorboard: Path | None, mlflow: str | None) -> list[Any]:
    """Make the listeners that were asked for."""
    if tensorboard is None and mlflow is None:
        return []
    from attrec.callbacks import MLflow, TensorBoard

    found: list[Any] = [] if tensorboard is None else [TensorBoard(tensorboard)]
    return found if mlflow is None else [*found, MLflow(mlflow)]


def _draw(result: Any, folder: Path) -> None:
    from attrec.report import draw_training, draw_window

    options = result.recommender.options
    draw_training(
        result.validation_run.epochs, result.best_epoch, folder / "training.png",
        metric=options.train.selection_metric,
    )  # fmt: skip
    draw_window(result.recommender, folder / "attention.png")


def _tell_profile(screen: Console, profile: Any, path: Path, step: str) -> None:
    from attrec.training.memory import peak_bytes

    _write_trace(profile, path)
    print_profile(screen, profile, path, step, peak_bytes())


def _write_trace(profile: Any, path: Path) -> None:
    try:
        profile.write(path)
    except OSError as error:
        raise RequestError(f"{path}: cannot be written ({error.strerror})") from error


def _read(source: str, items: Path | None, config: Any) -> tuple[Any, Any]:
    """Read a log, and an item file where there is one; a public data set by its name."""
    from attrec.data.databases import shown
    from attrec.data.datasets import NAMES, fetch
    from attrec.data.items import read_items
    from attrec.data.reading import read_interactions

    if source in NAMES and not Path(source).exists():
        found = fetch(source, echo=lambda line: Console(stderr=True).print(line, highlight=False))
        source, items = str(found.interactions), items or found.items
    with Console(stderr=True).status(f"reading {shown(source)} …"):
        log = read_interactions(source, config=config)
    return log, None if items is None else read_items(items)


def _ids(text: str | None, parse: Any) -> list[Any] | None:
    return None if text is None else [parse(part.strip()) for part in text.split(",")]


def _print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=1, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


if __name__ == "__main__":
    main()
