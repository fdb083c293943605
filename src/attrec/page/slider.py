"""The slider's part of the page: its words, its controls, the list as it begins, and its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attrec.page.blend import STEPS, Blend, blends_of, disagreements
from attrec.page.charts import HEIGHT, WIDTH
from attrec.page.markup import Html, count, document, paragraph, tag, together
from attrec.page.names import item_id, item_name, user_id
from attrec.recommender import Recommender

DATA = "slider-data"
"""Name of the JSON that the page's script reads."""
_LEFT, _TOP, _BOTTOM = 20, 12, 38


def slider_section(recommender: Recommender, users: Sequence[int], k: int = 10) -> Html:
    """Make the live part: a list that the reader weighs anew.

    Parameters
    ----------
    recommender : Recommender
    users : sequence of int
        User indices: the examples.
    k : int
        Length of the list.
    """
    blends = [blend for blend in blends_of(recommender, users, k) if blend.k]
    if not blends:
        return paragraph(
            "There is nothing to weigh: the model knows too few users, or leaves them no items."
        )
    paper = recommender.options.model.architecture == "paper"
    start = recommender.options.model.long_term_weight if paper else 0.5
    words = _of_weight(recommender, start) if paper else _of_pair()
    return together(
        [
            *words,
            _controls(recommender, blends, start, paper),
            _proof(recommender, blends),
            document(DATA, _data(recommender, blends, start, paper)),
        ]
    )


def _of_weight(recommender: Recommender, start: float) -> list[Html]:
    return [
        paragraph(
            "This network ranks by y = ω ‖U − V‖² + (1 − ω) ‖m − X‖²: the distance to the user’s "
            "long-term taste, and the distance to the intent of the newest events. ω says how much "
            f"of either. The model was trained with ω = {start:g}; here you can turn it, and the "
            "list is ranked anew as the recommender would rank it under that ω. (The tables stay "
            "as they were trained; another ω in training would have given others.)"
        )
    ]


def _of_pair() -> list[Html]:
    return [
        paragraph(
            "This network has no weight ω: all it knows of a person is the history. What can be "
            "weighed exactly is two people against each other, as for a list that both should "
            "like: y = w ‖q′ − k‖² + (1 − w) ‖q − k‖², with one person’s intent q and the other’s "
            "q′. At either end it is that person’s own list, without what either of them has taken."
        )
    ]


def _proof(recommender: Recommender, blends: Sequence[Blend]) -> Html:
    sizes = [len(blend.items) for blend in blends]
    held = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    wrong, compared = disagreements(recommender, blends)
    same = (
        f"all {compared:,} lists agreed"
        if not wrong
        else f"{compared - wrong:,} of {compared:,} lists agreed; in the others two distances are "
        "equal to within the rounding of the keys, and stand the other way round"
    )
    return paragraph(
        "Why this is exact: between its ends each item’s distance is a straight line, and an item "
        f"that {blends[0].k} others undercut at both ends is never listed. So of "
        f"{count(recommender.network.num_items)} items the page holds the {held} that can be "
        "listed at all, with their two distances. When the page was made, its lists were compared "
        f"with the recommender’s over the whole catalogue: {same}.",
        note=True,
    )


def _controls(recommender: Recommender, blends: Sequence[Blend], start: float, paper: bool) -> Html:
    symbol, back = ("ω", "as trained") if paper else ("w", "half and half")
    choices = [
        tag("option", _label(recommender, blend), value=str(place))
        for place, blend in enumerate(blends)
    ]
    ends = _ends(recommender, blends[0], paper)
    first = blends[0]
    rows = [
        tag("li", item_name(recommender, int(item)), data_item=str(item_id(recommender, int(item))))
        for item in first.listed(start)
    ]
    return tag(
        "div",
        tag("p", tag("label", "Example ", tag("select", *choices, id="example")),
            class_="example needs-script"),
        tag(
            "div",
            tag("label", "Weight ", tag("var", symbol), for_="weight"),
            tag("input", type="range", id="weight", min="0", max=str(STEPS), step="1",
                value=str(round(start * STEPS)), aria_describedby="ends"),
            tag("output", f"{start:.2f}", id="shown-weight", for_="weight"),
            tag("button", back, type="button", id="reset"),
            class_="turn needs-script",
        ),
        tag("p", tag("span", _mark(1), tag("span", ends[1], id="end-0")),
            tag("span", _mark(0), tag("span", ends[0], id="end-1")), id="ends",
            class_="ends needs-script"),
        tag("p", tag("span", "", id="said", aria_live="polite"),
            " The bars are the two parts of the distance, in the colours of the ends: the shorter, "
            "the nearer.", class_="needs-script note"),
        tag("div", tag("ol", *rows, id="ranking", class_="ranking"), _lines(symbol),
            class_="side-by-side"),
        class_="slider", id="slider",
    )  # fmt: skip


def _mark(place: int) -> Html:
    return tag("span", class_=f"mark c{place}", aria_hidden="true")


def _lines(symbol: str) -> Html:
    """Return the empty picture of the lines, which the script draws."""
    right, bottom = WIDTH - _LEFT, HEIGHT - _BOTTOM + 60
    title = f"How far each item is behind the nearest one, over {symbol}; the list is on top"
    places = ((0.0, "0"), (0.5, "0.5"), (1.0, "1"))
    drawing = tag(
        "svg",
        tag("title", title),
        tag("svg", x=_LEFT, y=_TOP, width=right - _LEFT, height=bottom - _TOP,
            viewBox="0 0 100 100", preserveAspectRatio="none", id="lines"),
        tag("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"),
        *(tag("text", words, x=_LEFT + at * (right - _LEFT), y=bottom + 15, class_="middle")
          for at, words in places),
        tag("text", symbol, x=WIDTH / 2, y=bottom + 31, class_="label middle"),
        tag("text", "nearer ↑", x=8.0, y=(bottom + _TOP) / 2, class_="label middle",
            transform=f"rotate(-90 10 {(bottom + _TOP) / 2:.0f})"),
        viewBox=f"0 0 {WIDTH} {bottom + 40}", role="img",
    )  # fmt: skip
    return tag("figure", tag("figcaption", title), drawing, class_="needs-script")


def _data(
    recommender: Recommender, blends: Sequence[Blend], start: float, paper: bool
) -> dict[str, Any]:
    items = np.unique(np.concatenate([blend.items for blend in blends]))
    return {
        "start": start,
        "steps": STEPS,
        "symbol": "ω" if paper else "w",
        "began": "as trained" if paper else "half and half",
        "items": [[item_id(recommender, i), recommender.title(i)] for i in items.tolist()],
        "examples": [
            {
                "k": blend.k,
                "ends": _ends(recommender, blend, paper),
                "items": np.searchsorted(items, blend.items).tolist(),
                "first": blend.first.tolist(),
                "second": blend.second.tolist(),
            }
            for blend in blends
        ],
    }


def _ends(recommender: Recommender, blend: Blend, paper: bool) -> list[str]:
    """Say what counts alone at w = 1 and at w = 0."""
    if paper:
        return ["long-term taste", "newest events"]
    first, second = (_user(recommender, user) for user in blend.users)
    return [second, first]


def _label(recommender: Recommender, blend: Blend) -> str:
    lengths = recommender.histories.histories.lengths
    return " and ".join(
        f"{_user(recommender, user)} ({lengths[user]:,} events)" for user in blend.users
    )


def _user(recommender: Recommender, user: int) -> str:
    return f"user {user_id(recommender, user)}"
