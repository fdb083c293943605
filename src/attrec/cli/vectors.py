"""A model's vectors for other engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attrec.cli.arguments import Json, Model, app, print_json
from attrec.cli.places import check_file
from attrec.screen import busy, console


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to; an earlier export there is "
                                      "replaced.", show_default=False)],
    index: Annotated[str | None, typer.Option(metavar="KIND", help="Build a FAISS index, too: "
                     "flat, ivf or hnsw.", show_default=False)] = None,
    recall: Annotated[float | None, typer.Option(metavar="SHARE", help="What share of the 50 "
                      "nearest items the index must find: its parameters are chosen by it; 0.99 "
                      "unless given.", show_default=False)] = None,
    items_only: Annotated[bool, typer.Option("--items-only", help="Leave out the users' queries "
                                             "and what they took.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write item keys and user queries for numpy, FAISS, DuckDB, PostgreSQL and others."""
    from attrec.export import export as write
    from attrec.recommender import Recommender

    check_file("--out", out)
    served = Recommender.load(model)
    with busy(f"writing {out} …"):
        manifest = write(served, out, users=not items_only, index=index, recall=recall)
    if as_json:
        print_json(manifest)
        return
    users, built = manifest["users"], manifest["index"]
    lines = [f"{out}: {_counted(manifest['items'], 'items')}, {manifest['dimension']} numbers each"]
    if users is not None:
        lines.append(f"{_counted(users, 'users')}, {users['seen']:,} pairs of seen items")
    if built is not None:
        found, chosen = built["recall"], built["parameters"]
        settings = ", ".join(f"{name} {value}" for name, value in chosen.items())
        lines.append(
            f"{built['kind']} index{f' ({settings})' if settings else ''}: recall@{found['k']} "
            f"{found['recall']:.4f} over {found['queries']:,} queries"
        )
    console().print("\n".join(lines), highlight=False, markup=False)


def _counted(part: dict[str, Any], noun: str) -> str:
    left_out = f" ({part['left_out']:,} left out: nothing is known of them)"
    return f"{part['count']:,} {noun}{left_out if part['left_out'] else ''}"
