"""Public data sets, simulated logs, and what a log is like."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from attrec.cli.arguments import Json, Log, data_app, print_json, read_source
from attrec.cli.places import check_file
from attrec.flags import as_flags, with_options
from attrec.screen import console, print_inspection, print_log


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
        print_json(
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

    check_file("--out", out)
    log = simulate(kind, num_users=users, num_items=items, events_per_user=events_per_user,
                   seed=seed)  # fmt: skip
    write_csv(log, out)
    if as_json:
        print_json({"file": str(out), "kind": kind, "events": len(log), "users": log.num_users,
                     "items": log.num_items})  # fmt: skip
        return
    console().print(
        f"{out}: {len(log):,} events of {log.num_users:,} users and {log.num_items:,} items\n"
        f"Next: attrec train {shlex.quote(str(out))}",
        highlight=False,
        soft_wrap=True,
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
    from attrec.pictures import draw_log

    options = Options.of(**overrides)
    if picture is not None:
        check_file("--picture", picture, reads=[log])
    events, _ = read_source(log, None, options.data)
    found = inspect_log(events, options.protocol)
    if picture is not None:
        draw_log(found, picture)
    if as_json:
        print_json(found.to_dict())
        return
    screen = console()
    print_log(screen, events)
    screen.print()
    print_inspection(screen, found)
    command = f"attrec train {shlex.quote(shown(log))}{as_flags(overrides)}"
    screen.print(f"Next: {command}", highlight=False, soft_wrap=True)
