"""Whom the page shows, and what pulls their recommendations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attrec.answers import Explanation, Recommendation
from attrec.errors import RequestError
from attrec.page.charts import pull_bar
from attrec.page.markup import Html, count, paragraph, signed, tag, together
from attrec.page.names import item_name, user_id
from attrec.recommender import Recommender

SHOWN_USERS = 10
_LIST, _NEWEST = 4, 4
"""Recommendations of each user, and newest events, that are shown."""


@dataclass(frozen=True)
class Pull:
    """What brings an item nearer (above 0) than an average item, or keeps it farther."""

    name: str
    value: float
    rest: bool = False
    """All further events together."""


def chosen_users(recommender: Recommender, most: int = SHOWN_USERS) -> list[int]:
    """Choose users that can be recommended to, evenly from the shortest history to the longest.

    Returns
    -------
    list of int
        User indices, by the length of the history, ties by index.
    """
    lengths = recommender.histories.histories.lengths
    users = np.flatnonzero(recommender.answerable)
    users = users[np.argsort(lengths[users], kind="stable")]
    if len(users) == 0:
        return []
    places = np.unique(np.linspace(0, len(users) - 1, most).round().astype(np.int64))
    return [int(user) for user in users[places]]


def listed(recommender: Recommender, user: int, k: int) -> list[Recommendation]:
    """Return the recommendations of a user index; none where nothing is left to rank."""
    try:
        return recommender.recommend(user_id(recommender, user), k=k)
    except RequestError:
        return []


def pulls_of(explanation: Explanation, most: int = 3) -> list[Pull]:
    """Name the strongest pulls; together with the rest they add up to the whole advantage.

    The pulls of an item that occurs twice are added up.

    Parameters
    ----------
    explanation : Explanation
    most : int
        Pulls that are named.
    """
    gathered: dict[int | str, Pull] = {}
    for event in explanation.events:
        before = gathered.get(event.item_id)
        name = event.title or str(event.item_id)
        gathered[event.item_id] = Pull(name, event.pull + (before.value if before else 0.0))
    found = list(gathered.values())
    if explanation.aggregation != "additive":
        found.append(Pull("long-term taste", explanation.long_term_pull))
    if explanation.offset_pull:
        found.append(Pull("popularity of the moment", explanation.offset_pull))
    if explanation.excess_pull:
        name = "no history" if not explanation.events else "excess of the sum"
        found.append(Pull(name, explanation.excess_pull))
    found.sort(key=lambda pull: -abs(pull.value))
    named, others = found[:most], found[most:]
    if others:
        named.append(Pull(f"{len(others):,} more", sum(p.value for p in others), rest=True))
    return named


def advantage(explanation: Explanation) -> float:
    """Return how much nearer than an average item the explained one is."""
    return explanation.short_term_advantage + explanation.long_term_pull


def people_section(recommender: Recommender, users: list[int]) -> Html:
    """Show the users' first recommendations with their pulls."""
    if not users:
        return paragraph("The model knows no user that it could recommend to.")
    paper = recommender.options.model.architecture == "paper"
    taste = " and of the user’s long-term taste" if paper else ""
    words = paragraph(
        f"{_number(len(users))}, evenly from the shortest history to the longest. A bar is the "
        f"pull of one event{taste}: to the right it brings the item nearer than an average item of "
        "the catalogue, to the left it keeps it farther. The grey bar is all others together. The "
        "bars of an item add up exactly to the figure beside its title, which says how much nearer "
        "it is in all."
    )
    cards = (_card(recommender, user) for user in users)
    return together([words, tag("div", *cards, class_="cards")])


def _card(recommender: Recommender, user: int) -> Html:
    identity = user_id(recommender, user)
    history = recommender.histories.histories[user]
    answers = listed(recommender, user, _LIST)
    found = [recommender.explain(identity, answer.item_id) for answer in answers]
    pulls = [pulls_of(explanation) for explanation in found]
    values = [pull.value for each in pulls for pull in each]
    ends = min([0.0, *values]), max([0.0, *values])
    newest = [item_name(recommender, int(item)) for item in history[-_NEWEST:][::-1]]
    items = [
        tag(
            "li",
            tag("p", tag("b", answer.title or answer.item_id), " ",
                tag("span", signed(advantage(explanation), 3), class_="sum"), class_="name"),
            *(_bar(pull, *ends) for pull in each),
        )
        for answer, explanation, each in zip(answers, found, pulls, strict=True)
    ]  # fmt: skip
    took = f"Took last: {'; '.join(newest)}" if newest else "Has no history that the model knows."
    events = "1 event" if len(history) == 1 else f"{count(len(history))} events"
    return tag(
        "article",
        tag("h3", f"User {identity}", tag("span", events, class_="aside")),
        paragraph(took, note=True),
        tag("ol", *items) if items else paragraph("No item is left to recommend."),
        class_="card",
    )


def _bar(pull: Pull, low: float, high: float) -> Html:
    return tag(
        "div",
        tag("span", pull.name, class_="what"),
        pull_bar(pull.value, low, high, grey=pull.rest),
        tag("span", signed(pull.value, 3), class_="sum"),
        class_="pulled rest" if pull.rest else "pulled",
    )


def _number(users: int) -> str:
    return "One user" if users == 1 else f"{users} users"
