"""What a model is asked: recommendations, their reasons, what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attrec.cli.arguments import Json, Model, app, listed_ids, print_json, read_source
from attrec.errors import RequestError
from attrec.screen import console, print_batch, print_info, print_recommendations


@app.command()
def recommend(
    model: Model,
    users: Annotated[list[str] | None, typer.Argument(metavar="[USER]...", help="Whom to recommend "
                     "to.", show_default=False)] = None,
    everybody: Annotated[bool, typer.Option("--all", help="All users of the model.")] = False,
    log: Annotated[str | None, typer.Option("--log", metavar="LOG", help="All users of this log, "
        "known or not, with their histories there.", show_default=False)] = None,
    as_of_log: Annotated[bool, typer.Option("--as-of-log", help="With --log: what everybody takes "
        "at the moment is reckoned from LOG too, as if nothing later were known.")] = False,
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
        "allow": listed_ids(allow, vocabulary.parse_item),
        "deny": listed_ids(deny, vocabulary.parse_item),
    }
    asked = [vocabulary.parse_user(text) for text in users or []]
    taken = listed_ids(history, vocabulary.parse_item)
    if log is not None and (asked or everybody or taken is not None):
        raise RequestError(
            "--log brings its users and histories; leave out users, --all, --history"
        )
    if as_of_log and log is None:
        raise RequestError("--as-of-log speaks of a log; give it with --log LOG")
    if everybody or log is not None or out is not None or len(asked) > 1:
        if taken is not None:
            raise RequestError(
                "--history is for one answer on the screen; leave out --all, --out and "
                "further users"
            )
        if not asked and not everybody and log is None:
            raise RequestError("say whom to recommend to: name users, or give --all or --log")
        given = None if log is None else read_source(log, None, served.options.data)[0]
        if as_of_log and given is not None:
            served = served.as_of(given)
        table = served.recommend_batch(asked or None, log=given, **limits)
        if out is not None:
            table.write(out, for_spreadsheets=for_spreadsheets)
            console().print(f"{out}: {len(table):,} rows", highlight=False)
        elif as_json:
            print_json([row._asdict() for row in table.rows()])
        else:
            print_batch(console(), table)
        return
    if not asked and taken is None:
        raise RequestError("say whom to recommend to: name a user, or give --history or --all")
    user = asked[0] if asked else None
    answers = served.recommend(user, history=taken, **limits)
    if as_json:
        print_json([answer.to_dict() for answer in answers])
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
        history=listed_ids(history, vocabulary.parse_item),
        versus=None if versus is None else vocabulary.parse_item(versus),
    )
    if as_json:
        print_json(found.to_dict())
        return
    console().print(str(found), highlight=False, markup=False)


@app.command()
def info(model: Model, as_json: Json = False) -> None:
    """Say what a saved model is: data, options, figures."""
    from attrec.recommender import Recommender

    found = Recommender.load(model).info()
    if as_json:
        print_json(found)
        return
    print_info(console(), model, found)
