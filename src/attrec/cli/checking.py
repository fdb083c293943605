"""The installation, a plan, and the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attrec.cli.arguments import Json, app, print_json
from attrec.errors import RequestError
from attrec.flags import with_options
from attrec.screen import busy, console, print_pairs, print_plan


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
        with busy("measuring …") as status:
            planned = make_plan(
                *plan, options, tell=lambda what: status.update(f"measuring {what} …")
            )
        if as_json:
            print_json(planned.to_dict())
            return
        print_plan(console(), planned)
        return
    if overrides or preset or config:
        raise RequestError("options are for a plan; give --plan USERS ITEMS EVENTS with them")
    found = examine()
    if as_json:
        print_json(found)
        return
    print_pairs(console(), found)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where everything goes.")] = Path(
        "demo"
    ),
) -> None:
    """MovieLens 100K to recommendations with reasons, figures and pictures; a few minutes."""
    from attrec.demo import run

    run(folder, console())
