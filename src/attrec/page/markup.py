"""HTML from Python: whatever is not `Html` already is escaped where it is put in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

_EMPTY = {"meta", "link", "input", "br"}
"""Elements without content and end tag."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def html(value: Any) -> Html:
    """Return a value as HTML: escaped, but for what is HTML already.

    Examples
    --------
    >>> html("<script>")
    '&lt;script&gt;'
    >>> html(html("a < b"))
    'a &lt; b'
    """
    return value if isinstance(value, Html) else Html(escape(str(value)))


def together(parts: Iterable[Any]) -> Html:
    """Return the parts one after the other."""
    return Html("".join(map(html, parts)))


def tag(name: str, *content: Any, **attributes: Any) -> Html:
    """Return an element.

    Parameters
    ----------
    name : str
    *content
        What stands in it.
    **attributes
        An underscore stands for a hyphen, and one at the end for nothing; None and False leave an
        attribute out, True gives it no value, a float is written with two decimals at most.

    Examples
    --------
    >>> tag("p", "a & b", class_="note", hidden=False)
    '<p class="note">a &amp; b</p>'
    >>> tag("rect", x=1.0, stroke_width=0.123)
    '<rect x="1" stroke-width="0.12"></rect>'
    """
    opened = "".join(
        f" {key.rstrip('_').replace('_', '-')}{_value(value)}"
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    start = f"<{name}{opened}>"
    return Html(start if name in _EMPTY else f"{start}{together(content)}</{name}>")


def _value(value: Any) -> str:
    if value is True:
        return ""
    if isinstance(value, float):
        value = f"{value:.2f}".rstrip("0").rstrip(".")
        value = "0" if value == "-0" else value
    return f'="{escape(str(value))}"'


def paragraph(*content: Any, note: bool = False) -> Html:
    """Return a paragraph; a note is set smaller."""
    return tag("p", *content, class_="note" if note else None)


def table(
    caption: str, header: Sequence[Any], rows: Iterable[Sequence[Any]], *, kind: str | None = None
) -> Html:
    """Return a table: its first column names the rows, the others hold figures.

    A table wider than the screen is scrolled by itself, also by keyboard.
    """
    head = tag("tr", *(tag("th", cell, scope="col") for cell in header))
    body = (
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:]))
        for row in rows
    )
    whole = tag(
        "table",
        tag("caption", tag("span", caption)),
        tag("thead", head),
        tag("tbody", *body),
        class_=kind,
    )
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def definitions(pairs: Iterable[tuple[Any, Any]]) -> Html:
    """Return names and what they are, as a list of pairs."""
    entries = (tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs)
    return tag("dl", *entries, class_="pairs")


def folded(summary: str, *content: Any) -> Html:
    """Return content that opens by a click, and is printed open."""
    return tag("details", tag("summary", summary), *content)


def document(name: str, content: Any) -> Html:
    """Return JSON that the page's script reads by ``name``; nothing in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    safe = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return Html(f'<script type="application/json" id="{escape(name)}">{safe}</script>')


def count(value: Any) -> str:
    """Write a number of things: 1,682."""
    return f"{int(value):,}"


def figure(value: float | None) -> str:
    """Write a figure with four decimals."""
    return "–" if value is None else f"{value:.4f}"


def signed(value: float, decimals: int = 4) -> str:
    """Write a figure with its sign: +0.0312, −0.0100."""
    return f"{value:+.{decimals}f}".replace("-", "−")


def percent(share: float | None, decimals: int = 1) -> str:
    """Write a share: 12.3 %."""
    return "–" if share is None else f"{100 * share:.{decimals}f} %"
