"""A model as time goes on: new events."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from attrec.cli.arguments import Json, Model, app, print_json, read_source
from attrec.flags import with_options
from attrec.screen import console


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
        "of new items, and the attributes that the model has learnt from.")] = None,
    as_json: Json = False,
    overrides: Any = None,
) -> None:  # fmt: skip
    """Take new events, users and items into a model, without training; the old one stays whole.

    What the model has does not come in again, so a file may be given twice.
    """
    from attrec.artifact import check_target
    from attrec.recommender import Recommender
    from attrec.updating import update as take_in

    target = out or model.with_name(f"{model.name}.updated")
    check_target(target)
    served = Recommender.load(model)
    log, known = read_source(events, items, served.options.with_(**overrides).data)
    found = take_in(served, log, items=known)
    found.recommender.save(target)
    if as_json:
        print_json({"model": str(target), **asdict(found.summary)})
        return
    screen = console()
    screen.print(f"{found.summary}", highlight=False)
    screen.print(f"Saved to {target}", highlight=False, soft_wrap=True)
