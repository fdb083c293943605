"""The map of the catalogue: the plane that shows most of how the items' keys differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.model.additive import AdditiveNetwork
from attrec.model.choice import Network
from attrec.page.markup import Html, count, paragraph, percent, tag, together
from attrec.page.names import item_name
from attrec.recommender import Recommender
from attrec.retrieval.vectors import item_keys

MOST_POINTS = 2000
"""Of a larger catalogue, the more popular half of these and a sample of the others are drawn."""
_ROWS_AT_ONCE = 8192
_WIDTH, _HEIGHT, _EDGE = 720, 500, 14
_LETTER, _LINE, _SIZE = 6.1, 14.0, 9.0
"""Of a label of 11 units, about; and the radius of the most popular item's point."""
_LABELS = 26


@dataclass(frozen=True, eq=False)
class Plane:
    """Principal components of the keys.

    Attributes
    ----------
    places : (N, 2) float64
        Of every item; NaN where nothing is known of it.
    shares : (2,) float64
        Of the variance of the keys, along either direction.
    """

    places: npt.NDArray[np.float64]
    shares: npt.NDArray[np.float64]


@torch.no_grad()
def plane_of(network: Network) -> Plane:
    """Find the plane of the largest variance, over all items of which something is known.

    Offsets of the distances are left out: they say how popular an item is, not what it is like.
    """
    keys = network.keys() if isinstance(network, AdditiveNetwork) else item_keys(network)
    unplaced = network.unplaced
    if len(unplaced):  # their keys are 0, and no item is there
        known = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
        known[unplaced] = False
        keys = keys[known]
    blocks = [slice(a, a + _ROWS_AT_ONCE) for a in range(0, len(keys), _ROWS_AT_ONCE)]
    centre = sum(keys[b].double().sum(dim=0) for b in blocks) / max(1, len(keys))
    width = keys.shape[1]
    scatter = torch.zeros(width, width, dtype=torch.float64, device=keys.device)
    for block in blocks:
        rows = keys[block].double() - centre
        scatter += rows.T @ rows
    values, vectors = torch.linalg.eigh(scatter)
    axes = vectors[:, [-1, -2]]
    # A direction has no sign of its own: its largest entry is made positive.
    largest = axes.gather(0, axes.abs().argmax(dim=0)[None])
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    places = torch.cat([(keys[b].double() - centre) @ axes for b in blocks])
    if len(unplaced):
        everywhere = places.new_full((len(known), 2), torch.nan)
        everywhere[known] = places
        places = everywhere
    shares = values[[-1, -2]].clamp(min=0) / values.clamp(min=0).sum().clamp(min=1e-300)
    return Plane(places.cpu().numpy(), shares.cpu().numpy())


def points_to_draw(
    counts: npt.NDArray[np.integer[Any]], most: int = MOST_POINTS
) -> npt.NDArray[np.int64]:
    """Choose items for the map, the least popular first; the same ones every time.

    Examples
    --------
    >>> points_to_draw(np.array([3, 9, 1])).tolist()
    [2, 0, 1]
    """
    order = np.argsort(-counts, kind="stable")
    if len(order) > most:
        rest = np.random.default_rng(0).choice(order[most // 2 :], most - most // 2, replace=False)
        order = np.concatenate([order[: most // 2], rest])
        order = order[np.argsort(-counts[order], kind="stable")]
    return order[::-1].astype(np.int64)


def without_overlap(boxes: npt.NDArray[np.float64], most: int) -> list[int]:
    """Choose, in their order, boxes (left, top, right, bottom) that cover none chosen before.

    Examples
    --------
    >>> without_overlap(np.array([[0, 0, 2, 1], [1, 0, 3, 1], [5, 0, 6, 1]]), 9)
    [0, 2]
    """
    chosen: list[int] = []
    for place, (left, top, right, bottom) in enumerate(boxes):
        others = boxes[chosen]
        apart = (
            (others[:, 0] >= right)
            | (others[:, 2] <= left)
            | (others[:, 1] >= bottom)
            | (others[:, 3] <= top)
        )
        if apart.all():
            chosen.append(place)
        if len(chosen) == most:
            break
    return chosen


def catalogue_section(recommender: Recommender, counts: npt.NDArray[np.int64]) -> Html:
    """Draw the map.

    Parameters
    ----------
    recommender : Recommender
    counts : (N,) int64
        Events of each item.
    """
    plane = plane_of(recommender.network)
    placed = np.flatnonzero(~np.isnan(plane.places[:, 0]))
    drawn = placed[points_to_draw(counts[placed])]
    sample = (
        f" Of {count(len(placed))} items the {count(MOST_POINTS // 2)} most popular and a sample "
        f"of {count(MOST_POINTS - MOST_POINTS // 2)} others are drawn."
        if len(drawn) < len(placed)
        else ""
    )
    missing = len(counts) - len(placed)
    if missing:
        sample += (
            f" {count(missing)} item{'s' * (missing != 1)} that came after the training "
            f"{'are' if missing != 1 else 'is'} not drawn: nothing is known of "
            f"{'them' if missing != 1 else 'it'} yet."
        )
    words = paragraph(
        "Every point is an item, its size how often it was taken. Near points are near for the "
        "model: a person who is close to one is close to the other. The picture is the plane in "
        f"which the {len(placed):,} keys differ most; it holds "
        f"{percent(float(plane.shares.sum()))} of their variance, so what is far apart here is far "
        f"apart, and what is close may still differ in directions that are not drawn.{sample}"
    )
    finder = tag(
        "p",
        tag("label", "Find items ", tag("input", type="search", id="find", autocomplete="off")),
        tag("output", "", id="found", aria_live="polite"),
        class_="finder needs-script",
    )
    return together([words, finder, _map(recommender, plane, drawn, counts)])


def _map(
    recommender: Recommender,
    plane: Plane,
    drawn: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> Html:
    x = _placed(plane.places[:, 0], drawn, _WIDTH)
    y = _HEIGHT - _placed(plane.places[:, 1], drawn, _HEIGHT)
    radius = 1.6 + (_SIZE - 1.6) * np.sqrt(counts / max(1, counts.max()))
    names = {int(item): item_name(recommender, int(item)) for item in drawn}
    points = [
        tag("circle", tag("title", f"{names[item]}: {counts[item]:,} events"), cx=float(x[item]),
            cy=float(y[item]), r=float(radius[item]), class_="point")
        for item in names
    ]  # fmt: skip
    popular = [int(item) for item in drawn[::-1][: 4 * _LABELS]]
    at = [(float(x[item]), float(y[item]), float(radius[item])) for item in popular]
    labels = [_shortened(names[item]) for item in popular]
    title = "Map of the catalogue: the items’ keys in the plane of their largest variance"
    drawing = tag(
        "svg",
        tag("title", title),
        tag("g", *points),
        _labels(at, labels, 1.0, _LABELS, "on-wide"),
        _labels(at, labels, 2.0, _LABELS // 3, "on-narrow"),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", id="map",
    )  # fmt: skip
    caption = (
        f"Across: {percent(float(plane.shares[0]))} of the variance; up: "
        f"{percent(float(plane.shares[1]))}. The most popular items are named; point at any other."
    )
    return tag("figure", drawing, tag("figcaption", caption), class_="wide")


def _placed(
    values: npt.NDArray[np.float64], drawn: npt.NDArray[np.int64], size: int
) -> npt.NDArray[np.float64]:
    low, high = float(values[drawn].min()), float(values[drawn].max())
    return _EDGE + (values - low) / max(high - low, 1e-300) * (size - 2 * _EDGE)


def _labels(
    places: list[tuple[float, float, float]], names: list[str], scale: float, most: int, kind: str
) -> Html:
    """Write the names that have room, the most popular first; on a telephone they are larger."""
    boxes = np.array(
        [_box(*place, name, scale) for place, name in zip(places, names, strict=True)]
    ).reshape(-1, 4)
    written = (
        tag("text", names[at], x=float(boxes[at, 0]), y=float(boxes[at, 3] - 3.5 * scale),
            class_="place")
        for at in without_overlap(boxes, most)
    )  # fmt: skip
    return tag("g", *written, class_=kind, aria_hidden="true")


def _box(
    x: float, y: float, radius: float, name: str, scale: float
) -> tuple[float, float, float, float]:
    """Return the box of a label: right of its point, or left where the picture ends."""
    width, height = scale * _LETTER * len(name), scale * _LINE
    left = x + radius + 3 if x + radius + 3 + width < _WIDTH else x - radius - 3 - width
    top = min(max(y - height / 2, 0.0), _HEIGHT - height)
    return left, top, left + width, top + height


def _shortened(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25].rstrip()}…"
