"""What a model is asked: recommendations, their reasons, what it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrec.cli.arguments import (
    COMMAS,
    Allow,
    Deny,
    Json,
    Model,
    app,
    listed_items,
    print_json,
    read_source,
)
from attrec.cli.places import check_file
from attrec.errors import RequestError
from attrec.request import DEFAULT_STRENGTH, plain
from attrec.screen import (
    console,
    print_audience,
    print_batch,
    print_group,
    print_info,
    print_recommendations,
    print_similar,
    verbatim_console,
)

if TYPE_CHECKING:
    from attrec.answers import RecommendationTable
    from attrec.recommender import Recommender

ListLength = Annotated[int, typer.Option("-k", "--k", metavar="N", help="Length of the list.")]
Item = Annotated[str, typer.Argument(metavar="ITEM", help="An item of the model.",
                                     show_default=False)]  # fmt: skip
LongTermWeight = Annotated[
    float | None,
    typer.Option(
        "--long-term-weight", metavar="X", show_default=False,
        help="Weight of the user's long-term taste for this answer, 0 to 1, in place of the "
        "model's; for models of the paper's architecture.",
    ),
]  # fmt: skip
_NO_LIST = "nothing is known of them to rank by, or no allowed item is left for them"


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
    history: Annotated[list[str] | None, typer.Option(metavar="ID,ID,…", help="A history given "
        f"now, oldest first: for somebody the model has never met; {COMMAS}.")] = None,
    k: ListLength = 10,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Rank what the user took "
                                               "before, too.")] = False,
    allow: Allow = None,
    deny: Deny = None,
    like: Annotated[list[str] | None, typer.Option(metavar="ID,ID,…", help="More like these items, "
        f"for one answer; {COMMAS}.")] = None,
    unlike: Annotated[list[str] | None, typer.Option(metavar="ID,ID,…", help="Less like these "
        f"items, for one answer; {COMMAS}.")] = None,
    strength: Annotated[float, typer.Option(metavar="X", help="Weight of --like and of --unlike, "
        "where the user has 1; below 1 with --unlike.")] = DEFAULT_STRENGTH,
    long_term_weight: LongTermWeight = None,
    together: Annotated[bool, typer.Option("--together", help="One list for all the users named "
        "(and --history): by the mean of their distances.")] = False,
    weights: Annotated[str | None, typer.Option(metavar="X,X,…", help="How much each of them "
        "counts, with --together; below 0 is away from.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to a .csv, .jsonl or "
                                             ".parquet file.")] = None,
    for_spreadsheets: Annotated[bool, typer.Option("--for-spreadsheets", help="In a .csv file, "
        "disarm text that a spreadsheet would run as a formula.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Recommend to known users, to a history given now, or to everybody into a file."""
    from attrec.data.databases import shown

    served = _load(model)
    vocabulary = served.vocabulary
    limits: dict[str, Any] = {
        "k": k,
        "exclude_seen": not include_seen,
        "allow": listed_items("--allow", allow, vocabulary),
        "deny": listed_items("--deny", deny, vocabulary),
        "long_term_weight": long_term_weight,
    }
    critique: dict[str, Any] = {
        "like": listed_items("--like", like, vocabulary),
        "unlike": listed_items("--unlike", unlike, vocabulary),
        "strength": strength,
    }
    asked = [vocabulary.parse_user(text) for text in users or []]
    taken = listed_items("--history", history, vocabulary)
    named = bool(asked) or taken is not None
    _check_whom(log, named=named, everybody=everybody, as_of_log=as_of_log)
    if strength != DEFAULT_STRENGTH and not (like or unlike):
        raise RequestError("--strength is of --like and --unlike; give one of them with it")
    _check_output(out, log, for_spreadsheets=for_spreadsheets, as_json=as_json)
    whole = everybody or log is not None or out is not None
    several = whole or together or len(asked) > 1
    if several and (like or unlike):
        raise RequestError(
            "--like and --unlike are for one answer on the screen; leave out --all, --log, --out, "
            "--together and further users"
        )
    if weights is not None and not together:
        raise RequestError("--weights are those of a group; give --together with them")
    if together:
        if whole:
            raise RequestError(
                "--together makes one list on the screen; leave out --all, --log and --out"
            )
        shares = _numbers("--weights", weights)
        _answer_together(served, asked, taken, shares, limits, as_json=as_json)
    elif several:
        if taken is not None:
            raise RequestError(
                "--history is for one answer on the screen; leave out --all, --out and "
                "further users"
            )
        if not asked and not everybody and log is None:
            raise RequestError("say whom to recommend to: name users, or give --all or --log")
        # As of LOG is as the model's own log was, k-core and all.
        reading = served.options.data if as_of_log else served.options.data.uncut()
        given = None if log is None else read_source(log, None, reading)[0]
        if as_of_log and given is not None:
            served = served.as_of(given)
        table = served.recommend_batch(asked or None, log=given, **limits)
        if len(table) == 0:
            raise RequestError(
                f"{model if log is None else shown(log)}: nobody is left of "
                f"{len(table.left_out):,} users: {_NO_LIST} (item ids are "
                f"{vocabulary.item_kind}s); give users or a log with items of the model, widen "
                "--allow or narrow --deny"
            )
        _answer_several(table, out, for_spreadsheets=for_spreadsheets, as_json=as_json)
    else:
        user = asked[0] if asked else None
        _answer_one(served, user, taken, {**critique, **limits}, as_json=as_json)


def _check_whom(log: str | None, *, named: bool, everybody: bool, as_of_log: bool) -> None:
    if log is not None and (named or everybody):
        raise RequestError(
            "--log brings its users and histories; leave out users, --all, --history"
        )
    if named and everybody:
        raise RequestError("--all answers everybody; leave out users and --history, or --all")
    if as_of_log and log is None:
        raise RequestError("--as-of-log speaks of a log; give it with --log LOG")


def _check_output(
    out: Path | None, log: str | None, *, for_spreadsheets: bool, as_json: bool
) -> None:
    if for_spreadsheets and (out is None or out.suffix.lower() != ".csv"):
        raise RequestError("--for-spreadsheets is for a .csv file; name one with --out")
    if as_json and out is not None:
        raise RequestError("--json prints and --out writes a file; leave out one of them")
    if out is not None:
        check_file("--out", out, reads=[log])


def _answer_one(
    served: Recommender, user: Any, history: Any, choices: dict[str, Any], *, as_json: bool
) -> None:
    if user is None and history is None:
        raise RequestError("say whom to recommend to: name a user, or give --history or --all")
    answers = served.recommend(user, history=history, **choices)
    if as_json:
        print_json([answer.to_dict() for answer in answers])
        return
    weight = choices["long_term_weight"]
    print_recommendations(console(), served, answers, user, history, weight)


def _answer_several(
    table: RecommendationTable, out: Path | None, *, for_spreadsheets: bool, as_json: bool
) -> None:
    if out is not None:
        table.write(out, for_spreadsheets=for_spreadsheets)
        console().print(f"{out}: {len(table):,} rows", highlight=False)
    elif as_json:
        print_json([row._asdict() for row in table.rows()])
    else:
        print_batch(console(), table)
    left_out = len(table.left_out)
    if left_out:
        # Not on standard output, where JSON may be.
        verbatim_console(stderr=True).print(
            f"{left_out:,} of {left_out + int((table.rank == 1).sum()):,} users left out, "
            f"{plain(table.left_out[0])!r} first: {_NO_LIST}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def _answer_together(
    served: Recommender,
    users: list[Any],
    history: Any,
    weights: list[float] | None,
    limits: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    members = [*users, *([] if history is None else [history])]
    answers = served.recommend_group(members, weights, **limits)
    if as_json:
        print_json([answer.to_dict() for answer in answers])
        return
    names = [*map(str, users), *([] if history is None else ["history"])]
    print_group(console(), answers, names)


@app.command()
def explain(
    model: Model,
    item: Annotated[str, typer.Argument(metavar="ITEM", help="The item to explain.")],
    user: Annotated[str | None, typer.Option(metavar="ID", help="For this user.")] = None,
    history: Annotated[list[str] | None, typer.Option(metavar="ID,ID,…", help="For this history, "
        f"oldest first; {COMMAS}.")] = None,
    versus: Annotated[str | None, typer.Option(metavar="ITEM", help="Say why ITEM stands above or "
                                               "below this one.")] = None,
    without: Annotated[bool, typer.Option("--without", help="Compute again where ITEM stands "
        "without each event: what the split of the distance does not say.")] = False,
    long_term_weight: LongTermWeight = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Say why an item stands where it does: exact parts of its distance, and what pulls it."""
    served = _load(model)
    vocabulary = served.vocabulary
    found = served.explain(
        None if user is None else vocabulary.parse_user(user),
        vocabulary.parse_item(item),
        history=listed_items("--history", history, vocabulary),
        versus=None if versus is None else vocabulary.parse_item(versus),
        long_term_weight=long_term_weight,
        without=without,
    )
    if as_json:
        print_json(found.to_dict())
        return
    console().print(str(found), highlight=False, markup=False)


@app.command()
def similar(
    model: Model,
    item: Item,
    k: ListLength = 10,
    sense: Annotated[str, typer.Option(metavar="next|short-term|long-term", help="What is taken "
        "after it; what its own point lies beside; what suits the same people (models of the "
        "paper's architecture only).")] = "next",
    allow: Allow = None,
    deny: Deny = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """List the items nearest to an item."""
    served = _load(model)
    chosen: Any = sense  # checked where it is used
    vocabulary = served.vocabulary
    answers = served.similar(
        vocabulary.parse_item(item),
        k=k,
        sense=chosen,
        allow=listed_items("--allow", allow, vocabulary),
        deny=listed_items("--deny", deny, vocabulary),
    )
    if as_json:
        print_json([answer.to_dict() for answer in answers])
        return
    print_similar(console(), answers)


@app.command()
def audience(
    model: Model,
    item: Item,
    k: ListLength = 10,
    include_taken: Annotated[bool, typer.Option("--include-taken", help="Rank who took it before, "
                                                "too.")] = False,
    long_term_weight: LongTermWeight = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """List the users nearest to an item: who would want it?"""
    served = _load(model)
    answers = served.audience(
        served.vocabulary.parse_item(item),
        k=k,
        exclude_taken=not include_taken,
        long_term_weight=long_term_weight,
    )
    if as_json:
        print_json([answer.to_dict() for answer in answers])
        return
    additive = served.options.model.architecture == "additive"
    print_audience(console(), answers, additive=additive)


@app.command()
def info(model: Model, as_json: Json = False) -> None:
    """Say what a saved model is: data, options, figures."""
    found = _load(model).info()
    if as_json:
        print_json(found)
        return
    print_info(console(), model, found)


def _load(model: Path) -> Recommender:
    from attrec.recommender import Recommender

    return Recommender.load(model)


def _numbers(flag: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(
            f"{flag} {text}: expected numbers with commas between, such as 2,1"
        ) from None
