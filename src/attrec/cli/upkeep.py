"""A model as time goes on: new events, and users who want to be forgotten."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from attrec.cli.arguments import Json, Model, app, beside, print_json, read_source
from attrec.files import real_path
from attrec.flags import with_options
from attrec.screen import console, print_log


@app.command()
@with_options("data")
def update(
    model: Model,
    events: Annotated[str, typer.Argument(metavar="NEW_EVENTS", help="A log as train takes it: new "
        "events alone, or a whole log that has grown.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Where the new model "
        "goes; MODEL.updated when left out. MODEL itself is replaced in one step.",
        show_default=False)] = None,
    items: Annotated[Path | None, typer.Option("--items", metavar="FILE", help="Item file: titles "
        "of new items, and the attributes that the model has learnt from; of new items alone will "
        "do. Later updates remember them.")] = None,
    untaken: Annotated[bool, typer.Option("--untaken", help="Items of the item file that nobody "
        "took come in too, placed by what the model has learnt of their attributes.")] = False,
    room: Annotated[float | None, typer.Option("--room", metavar="SHARE", help="Share of all "
        "places in the lists that items newer than the training get, 0 to 1; left out: what an "
        "earlier update was told, or their share of the events since the first of them came.",
        show_default=False)] = None,
    as_json: Json = False,
    overrides: Any = None,
) -> None:  # fmt: skip
    """Take new events, users and items into a model, without training; the old one stays whole.

    What the model has does not come in again, so a file may be given twice. Without times only a
    whole file is recognised, or a whole log that begins with what the model has.
    """
    from attrec.artifact import check_target
    from attrec.recommender import Recommender
    from attrec.updating import held_by_the_other
    from attrec.updating import update as take_in

    target = out or beside(model, "updated")
    check_target(target)
    served = Recommender.load(model)
    # New events alone are few: the k-core that the training log was cut to would leave none.
    uncut = replace(served.options, data=served.options.data.uncut())
    log, known = read_source(events, items, uncut.with_(**overrides).data)
    found = take_in(served, log, items=known, untaken=untaken, room=room)
    before = None if real_path(target) == real_path(model) else _standing(target)
    replaced = None if before is None else held_by_the_other(found.recommender, before)
    found.recommender.save(target)
    if as_json:
        left_out = [
            {"what": step.what, "events": step.removed} for step in log.steps if step.removed
        ]
        print_json({"model": str(target), **asdict(found.summary), "left_out": left_out,
                    "replaced": replaced})  # fmt: skip
        return
    screen = console()
    print_log(screen, log)
    screen.print(f"{found.summary}", highlight=False, markup=False)
    screen.print(f"Saved to {target}", highlight=False, soft_wrap=True)
    if replaced is not None and any(replaced.values()):
        held = ", ".join(f"{number:,} {noun}" for noun, number in replaced.items() if number)
        screen.print(
            f"The model that stood there held what this one lacks ({held}), since the update began "
            f"with {model}: to go on from an earlier update, update that one.",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip


def _standing(target: Path) -> Any:
    """Return the model that an update will replace; None where there is none to be read."""
    from attrec.errors import ArtifactError
    from attrec.recommender import Recommender

    try:
        return Recommender.load(target)
    except ArtifactError:
        return None


@app.command()
def forget(
    model: Model,
    users: Annotated[list[str], typer.Argument(metavar="USER …", help="Whom.",
                                               show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Where the model "
        "without them goes; MODEL itself when left out.", show_default=False)] = None,
    drop_lone_items: Annotated[bool, typer.Option("--drop-lone-items", help="Take away the items "
        "too that nobody else took: their vectors were learnt from these users alone.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Take users out of a model: ids, histories and whatever is theirs alone.

    The folder holds nothing of the old model then. What the shared tables learnt stays until the
    next training, and is named.
    """
    from attrec.artifact import check_target, remove_remnants
    from attrec.erasure import forget as take_out
    from attrec.recommender import Recommender

    target = out or model
    check_target(target)
    served = Recommender.load(model)
    if target.exists():
        remove_remnants(target)  # of a command that was killed: they may be in there
    found = take_out(
        served, [served.vocabulary.parse_user(user) for user in users],
        drop_lone_items=drop_lone_items,
    )  # fmt: skip
    found.recommender.save(target)
    others = [str(path) for path in _beside(model, target)]
    if as_json:
        print_json({"model": str(target), **asdict(found.summary), "not_looked_into": others})
        return
    screen = console()
    screen.print(f"{found.summary}", highlight=False, markup=False)
    screen.print(f"Saved to {target}", highlight=False, soft_wrap=True)
    if others:
        screen.print(
            f"Not looked into, and they may be in there: {', '.join(others)}.",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip


def _beside(model: Path, target: Path) -> list[Path]:
    """Return where else what belongs to a model may be: other commands', and in its own folder.

    Beside it lies, too, what commands left that were killed while they wrote.
    """
    from attrec.artifact import foreign_files
    from attrec.export import LEFT_OVER
    from attrec.files import UNFINISHED

    first = [] if target == model else [model]
    others = [beside(model, ending) for ending in ("checkpoint", "updated", "vectors")]
    names: list[str] = []
    with contextlib.suppress(OSError):  # the folder may be closed to this account
        names = sorted(entry.name for entry in others[0].parent.iterdir())
    left = [
        others[0].with_name(name)
        for name in names
        if LEFT_OVER.fullmatch(name) or UNFINISHED.fullmatch(name)
    ]
    there = [*first, *(path for path in others if path.name in names), *left]
    return [*(path for path in there if path != target), *foreign_files(target)]
