"""Small pictures as inline SVG. Colours come from the page's style, by class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from attrec.page.markup import Html, tag, together

WIDTH, HEIGHT = 360, 220
"""Units of a small picture: pixels on a narrow telephone, so that its words can be read there."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 38
_ROW = 24
_LETTER = 6.2
"""Width of a letter of 11 units, about."""

Write = Callable[[float], str]


@dataclass(frozen=True)
class Scale:
    """Brings values to places: ``low`` to ``start``, ``high`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round values from ``low`` to ``high``.

    Examples
    --------
    >>> ticks(0, 1, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(0, 870)
    [0.0, 200.0, 400.0, 600.0, 800.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) + 0.0 for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten from ``low`` to ``high``, with their doubles and halves where few.

    Examples
    --------
    >>> log_ticks(1, 1000)
    [1.0, 10.0, 100.0, 1000.0]
    >>> log_ticks(20, 700)
    [20.0, 50.0, 100.0, 200.0, 500.0]
    """
    powers = [10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    few = sum(low <= p <= high for p in powers) < 3
    found = [m * p for p in powers for m in ((1, 2, 5) if few else (1,))]
    return [value for value in found if low <= value <= high] or [low]


def short(value: float) -> str:
    """Write a number on an axis.

    Examples
    --------
    >>> short(1500), short(0.25), short(20.0), short(0.00012), short(2500000)
    ('1,500', '0.25', '20', '0.00012', '2.5M')
    """
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"


class Line(NamedTuple):
    """One line of a chart."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]


def picture(
    title: str, *content: Any, width: float = WIDTH, height: float = HEIGHT, legend: Any = ""
) -> Html:
    """Return a figure: its title above, a legend below; a reader of screens hears the title."""
    drawing = tag(
        "svg", tag("title", title), *content, viewBox=f"0 0 {width:g} {height:g}", role="img"
    )
    return tag("figure", tag("figcaption", title), drawing, legend)


def legend(names: Sequence[str]) -> Html:
    """Name the colours, in their order."""
    marks = (
        tag("li", tag("span", class_=f"mark c{place}", aria_hidden="true"), name)
        for place, name in enumerate(names)
    )
    return tag("ul", *marks, class_="legend")


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    log_x: bool = False,
    mark: float | None = None,
    write: Write = short,
    from_zero: bool = False,
    dots: bool = True,
) -> Html:
    """Draw lines over a common axis; a dotted vertical line marks one place."""
    points = [(x, y) for line in lines for x, y in zip(line.xs, line.ys, strict=True)]
    xs, ys = zip(*points, strict=True)
    low = min(0.0, *ys) if from_zero else min(ys)
    high = max(ys)
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    y = Scale(low if from_zero else low - room, high + room, HEIGHT - _BOTTOM, _TOP)
    x = Scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT, log=log_x)
    drawn = []
    for place, line in enumerate(lines):
        path = "M" + "L".join(
            f"{x(a):.1f} {y(b):.1f}" for a, b in zip(line.xs, line.ys, strict=True)
        )
        drawn.append(tag("path", d=path, class_=f"line c{place}"))
        if dots:
            drawn += [
                tag("circle", tag("title", f"{line.name} {short(a)}: {b:.5g}"), cx=x(a), cy=y(b),
                    r=2.6, class_=f"dot c{place}")
                for a, b in zip(line.xs, line.ys, strict=True)
            ]  # fmt: skip
    marked = [] if mark is None else [_vertical(x(mark), "mark-line")]
    whole = x.high - x.low >= 1 and not log_x
    places = log_ticks(x.low, x.high) if log_x else ticks(x.low, x.high, 6)
    if whole and all(float(v).is_integer() for v in xs):
        places = [v for v in places if float(v).is_integer()]
    axes = _axes(x, y, places, ticks(y.low, y.high, 4), x_label, write)
    named = legend([line.name for line in lines]) if len(lines) > 1 else ""
    return picture(title, axes, *marked, *drawn, legend=named)


def histogram(
    title: str, values: npt.NDArray[np.integer[Any]], *, x_label: str, y_label: str
) -> Html:
    """Draw how many values lie in each of some bins, which grow by a constant factor."""
    low, high = max(1, int(values.min())), max(1, int(values.max()))
    edges = np.unique(np.round(np.geomspace(low, high + 1, 21)).astype(np.int64))
    heights, _ = np.histogram(np.maximum(values, 1), bins=edges)
    x = Scale(float(edges[0]), float(edges[-1]), _LEFT, WIDTH - _RIGHT, log=True)
    y = Scale(0.0, float(heights.max()) * 1.05, HEIGHT - _BOTTOM, _TOP)
    bars = []
    for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True):
        words = f"{left:,}" if right == left + 1 else f"{left:,} to {right - 1:,}"
        bars.append(
            tag("rect", tag("title", f"{words} {x_label}: {height:,} {y_label}"),
                x=x(left) + 0.5, y=y(height), width=max(0.5, x(right) - x(left) - 1.0),
                height=max(0.0, y(0) - y(height)), class_="bar c0")
        )  # fmt: skip
    axes = _axes(x, y, log_ticks(x.low, x.high), ticks(0, y.high, 4), x_label, short)
    return picture(title, axes, *bars)


def columns(
    title: str, names: Sequence[str], stacks: Sequence[tuple[str, Sequence[float]]], *,
    x_label: str, write: Write = short
) -> Html:  # fmt: skip
    """Draw a column for each name, of parts that stand one on the other."""
    totals = [sum(parts) for parts in zip(*(values for _, values in stacks), strict=True)]
    y = Scale(0.0, max(totals) * 1.05 or 1.0, HEIGHT - _BOTTOM, _TOP)
    step = (WIDTH - _LEFT - _RIGHT) / len(names)
    drawn = []
    below = [0.0] * len(names)
    for place, (what, values) in enumerate(stacks):
        for at, value in enumerate(values):
            top = y(below[at] + value)
            drawn.append(
                tag("rect", tag("title", f"{names[at]}: {what} {write(value)}"),
                    x=_LEFT + step * (at + 0.12), y=top, width=step * 0.76,
                    height=max(0.0, y(below[at]) - top), class_=f"bar c{place}")
            )  # fmt: skip
            below[at] += value
    every = math.ceil(len(names) / 10)
    labels = [
        tag("text", name, x=_LEFT + step * (at + 0.5), y=HEIGHT - _BOTTOM + 15, class_="middle")
        for at, name in enumerate(names)
        if at % every == 0
    ]
    empty = Scale(0, 1, _LEFT, WIDTH - _RIGHT)
    axes = _axes(empty, y, [], ticks(0, y.high, 4), x_label, write)
    named = legend([what for what, _ in stacks]) if len(stacks) > 1 else ""
    return picture(title, axes, *drawn, *labels, legend=named)


def bars(
    title: str, names: Sequence[str], values: Sequence[float], *, write: Write = short
) -> Html:
    """Draw a bar for each name, one above the other, with its value written at its end."""
    words = [write(value) for value in values]
    left = 12 + _LETTER * max(map(len, names))
    room = 8 + _LETTER * max(map(len, words))
    height = _TOP + _ROW * len(names)
    x = Scale(0.0, max(values) or 1.0, left, WIDTH - _RIGHT - room)
    drawn = []
    for place, (name, value, word) in enumerate(zip(names, values, words, strict=True)):
        y = _TOP + _ROW * (place + 0.5)
        drawn += [
            tag("text", name, x=left - 8, y=y + 4, class_="end"),
            tag("rect", tag("title", f"{name}: {word}"), x=left, y=y - 7,
                width=max(0.5, x(value) - left), height=14.0, class_="bar c0"),
            tag("text", word, x=max(left + 0.5, x(value)) + 6, y=y + 4),
        ]  # fmt: skip
    axis = tag("line", x1=left, x2=left, y1=float(_TOP), y2=float(height), class_="axis")
    return picture(title, *drawn, axis, height=height + 4)


class Interval(NamedTuple):
    """A figure with its interval; both ends None where it has none."""

    name: str
    value: float
    low: float | None
    high: float | None


def intervals(title: str, rows: Sequence[Interval], *, write: Write = short) -> Html:
    """Draw figures with their intervals, one above the other; the first is set off."""
    left = 12 + _LETTER * max(len(row.name) for row in rows)
    height = _TOP + _ROW * len(rows) + _BOTTOM - 10
    ends = [e for row in rows for e in (row.value, row.low, row.high) if e is not None]
    x = Scale(0.0, max(ends) * 1.04 or 1.0, left, WIDTH - _RIGHT)
    drawn = [_grid(x, ticks(0, x.high, 4), _TOP, height - _BOTTOM + 10, write)]
    for place, row in enumerate(rows):
        y = _TOP + _ROW * (place + 0.5)
        kind = "c0" if place == 0 else "c9"
        drawn.append(
            tag("text", row.name, x=left - 8, y=y + 4, class_=f"end {'strong' * (not place)}")
        )
        if row.low is not None and row.high is not None:
            drawn.append(
                tag("line", x1=x(row.low), x2=x(row.high), y1=y, y2=y, class_=f"whisker {kind}")
            )
        words = f"{row.name}: {row.value:.4f}"
        if row.low is not None and row.high is not None:
            words += f", 95 % interval {row.low:.4f} to {row.high:.4f}"
        drawn.append(tag("circle", tag("title", words), cx=x(row.value), cy=y, r=4.2,
                         class_=f"dot {kind}"))  # fmt: skip
    return picture(title, *drawn, height=height)


def dots(
    title: str, rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], *,
    write: Write = short
) -> Html:  # fmt: skip
    """Draw the figures of several systems for each row, as dots on one line."""
    left = 12 + _LETTER * max(len(name) for name, _ in rows)
    height = _TOP + _ROW * len(rows) + _BOTTOM - 10
    x = Scale(0.0, max(max(values) for _, values in rows) * 1.05 or 1.0, left, WIDTH - _RIGHT)
    drawn = [_grid(x, ticks(0, x.high, 4), _TOP, height - _BOTTOM + 10, write)]
    for place, (name, values) in enumerate(rows):
        y = _TOP + _ROW * (place + 0.5)
        drawn.append(tag("text", name, x=left - 8, y=y + 4, class_="end"))
        drawn.append(
            tag("line", x1=x(min(values)), x2=x(max(values)), y1=y, y2=y, class_="whisker c9 thin")
        )
        # The first system is drawn last: it must not be covered.
        for at in reversed(range(len(values))):
            words = tag("title", f"{name}, {names[at]}: {values[at]:.4f}")
            size = 3.6 if at else 4.6
            drawn.append(tag("circle", words, cx=x(values[at]), cy=y, r=size, class_=f"dot c{at}"))
    return picture(title, *drawn, height=height, legend=legend(names))


def heat(
    title: str, values: npt.NDArray[np.float64], rows: Sequence[str], across: Sequence[str], *,
    x_label: str, y_label: str
) -> Html:  # fmt: skip
    """Draw a matrix: the stronger a cell, the larger its value; NaN stays empty."""
    left, top = 58, 8
    size = min(40.0, (WIDTH - left - _RIGHT) / len(across))
    height = top + size * len(rows) + _BOTTOM
    most = float(np.nanmax(values)) or 1.0
    turned = f"translate(14 {top + size * len(rows) / 2:.1f}) rotate(-90)"
    drawn = [tag("text", y_label, class_="label middle", transform=turned)]
    spoken = len(across) <= 12
    for row, name in enumerate(rows):
        y = top + size * row
        drawn.append(tag("text", name, x=left - 6, y=y + size / 2 + 4, class_="end"))
        for column, other in enumerate(across):
            value = float(values[row, column])
            if math.isnan(value):
                continue
            x = left + size * column
            drawn.append(
                tag("rect", tag("title", f"{name}, {other}: {value:.3f}"), x=x + 0.5, y=y + 0.5,
                    width=size - 1, height=size - 1, class_="cell",
                    fill_opacity=round(0.06 + 0.94 * value / most, 3))
            )  # fmt: skip
            if spoken and size >= 26:
                kind = "middle on-cell" if value > 0.68 * most else "middle in-cell"
                drawn.append(
                    tag("text", f"{value:.2f}", x=x + size / 2, y=y + size / 2 + 4, class_=kind)
                )
    every = math.ceil(len(across) / 12)
    for column, other in enumerate(across):
        if (len(across) - 1 - column) % every == 0:
            drawn.append(
                tag("text", other, x=left + size * (column + 0.5), y=top + size * len(rows) + 15,
                    class_="middle")
            )  # fmt: skip
    drawn.append(
        tag("text", x_label, x=left + size * len(across) / 2, y=top + size * len(rows) + 31,
            class_="label middle")
    )  # fmt: skip
    return picture(title, *drawn, height=height)


def pull_bar(value: float, low: float, high: float, *, grey: bool = False) -> Html:
    """Draw a bar that goes right from the place of 0 where ``value`` is above it, else left.

    ``low`` ≤ 0 ≤ ``high`` are the least and the largest value that is drawn beside it.
    """
    x = Scale(low, high, 1.0, 99.0)
    zero, end = (x(0.0), x(value)) if high > low else (1.0, 1.0)
    start, length = min(zero, end), abs(end - zero)
    kind = "bar c9" if grey else "bar c0" if value >= 0 else "bar c1"
    return tag(
        "svg",
        tag("rect", x=start, y=1.0, width=length, height=8.0, class_=kind),
        tag("line", x1=zero, x2=zero, y1=0.0, y2=10.0, class_="axis"),
        viewBox="0 0 100 10", preserveAspectRatio="none", class_="pull", aria_hidden="true",
    )  # fmt: skip


def _axes(
    x: Scale, y: Scale, across: Sequence[float], up: Sequence[float], x_label: str, write: Write
) -> Html:
    parts = [tag("line", x1=x.start, x2=x.end, y1=y(v), y2=y(v), class_="grid") for v in up]
    parts += [tag("text", write(v), x=x.start - 6, y=y(v) + 4, class_="end") for v in up]
    parts += [tag("text", short(v), x=x(v), y=y.start + 15, class_="middle") for v in across]
    parts.append(tag("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis"))
    middle = (x.start + x.end) / 2
    parts.append(tag("text", x_label, x=middle, y=y.start + 31, class_="label middle"))
    return together(parts)


def _grid(x: Scale, places: Sequence[float], top: float, bottom: float, write: Write) -> Html:
    parts = [
        tag("line", x1=x(v), x2=x(v), y1=float(top), y2=float(bottom), class_="grid")
        for v in places
    ]
    parts += [tag("text", write(v), x=x(v), y=bottom + 16, class_="middle") for v in places]
    return together(parts)


def _vertical(x: float, kind: str) -> Html:
    return tag("line", x1=x, x2=x, y1=float(_TOP), y2=float(HEIGHT - _BOTTOM), class_=kind)
