"""A saved model as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attrec.cli.arguments import Model, app
from attrec.cli.places import check_file
from attrec.files import real_path
from attrec.screen import console


@app.command()
def report(
    model: Model,
    out: Annotated[Path | None, typer.Option("--out", "--output", metavar="FILE", help="HTML file "
        "to write; report.html in the model's folder when left out.", show_default=False)] = None,
) -> None:  # fmt: skip
    """Write a picture of a model: one HTML file that asks no server for anything.

    Data, training, figures beside the floors, attention, a map of the catalogue, recommendations
    with their reasons, and a list that you weigh anew yourself.
    """
    from attrec.artifact import PAGE, read_manifest
    from attrec.page import write_page
    from attrec.recommender import Recommender

    path = model / PAGE if out is None else out
    if real_path(path) != real_path(model / PAGE):
        check_file("--out", path)
    served = Recommender.load(model)
    written = write_page(served, path, name=model.resolve().name, manifest=read_manifest(model))
    size = written.stat().st_size / 1e6
    console().print(f"{written}: {size:.2f} MB, complete in itself", highlight=False, markup=False)
