"""Pictures of a log, of a training and of an attention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.data.sequences import last_items
from attrec.errors import RequestError
from attrec.files import write_whole
from attrec.model.additive import AdditiveNetwork
from attrec.model.choice import Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from attrec.data.inspection import Inspection
    from attrec.recommender import Recommender
    from attrec.training.checkpoint import Epoch

INK, BLUE, ORANGE, GREY = "#1f2933", "#2f6fab", "#c8641b", "#8a94a0"
PICTURE_DPI = 150
_MOST_SLOTS = 20
"""Events that the picture of a window shows."""


def draw_training(
    epochs: Sequence[Epoch], best_epoch: int, path: str | Path, *, metric: str = "ndcg@10"
) -> Path:
    """Draw loss and validation figure over the epochs, the best one marked.

    Parameters
    ----------
    epochs : sequence of Epoch
    best_epoch : int
        The one whose state was kept.
    path : path
        Of the picture; its suffix (.png, .svg, .pdf) chooses the format.
    metric : str
        The validation figure to draw.
    """
    figure, (left, right) = _figure(1, 2, width=9.0, height=3.4)
    numbers = [epoch.number for epoch in epochs]
    left.plot(numbers, [epoch.loss for epoch in epochs], color=BLUE, marker="o", markersize=3)
    left.set(title="Training loss per window", xlabel="epoch")
    values = [epoch.validation.get(metric, np.nan) for epoch in epochs]
    right.plot(numbers, values, color=ORANGE, marker="o", markersize=3)
    best = values[numbers.index(best_epoch)]
    right.axvline(best_epoch, color=GREY, linewidth=1, linestyle=":")
    right.set(title=f"Validation {metric}: best {best:.4f}, epoch {best_epoch}", xlabel="epoch")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    return save(figure, path)


def draw_log(found: Inspection, path: str | Path) -> Path:
    """Draw the lengths of the histories and the popularity of the items."""
    figure, (left, right) = _figure(1, 2, width=9.0, height=3.4)
    edges = np.unique(np.geomspace(1, int(found.lengths.max()) + 1, 24).astype(int))
    left.hist(found.lengths, bins=edges, color=BLUE)
    left.set(title=f"Events of a user, {found.users:,} users", xlabel="events", ylabel="users")
    left.set_xscale("log")
    shares = np.sort(found.counts)[::-1].cumsum() / found.events
    right.plot(np.linspace(0, 100, len(shares)), 100 * shares, color=ORANGE)
    right.plot([0, 100], [0, 100], color=GREY, linewidth=1, linestyle=":")
    right.set(
        title=f"Popularity, {found.items:,} items", xlabel="most popular items, %",
        ylabel="share of events, %", xlim=(0, 100), ylim=(0, 100),
    )  # fmt: skip
    return save(figure, path)


def as_text(label: str, longest: int | None = None) -> str:
    """Return a user's text, shortened, as Matplotlib draws it: to it, ``$`` begins a formula."""
    if longest is not None and len(label) > longest:
        label = label[: longest - 1] + "…"
    return label.replace("$", r"\$")


def draw_attention(
    weights: npt.NDArray[np.floating[Any]],
    shares: npt.NDArray[np.floating[Any]] | None,
    labels: Sequence[str],
    path: str | Path,
    *,
    title: str = "What each event of the window looks at",
) -> Path:
    """Draw the attention of one window, and what the intent is made of.

    Parameters
    ----------
    weights : (n, n) array
        s of (4) over the n real slots, oldest first: row looks at column.
    shares : (n,) array or None
        c: each event's share of the intent; None where the aggregation has none.
    labels : sequence of n str
        The items' titles.
    path : path
    """
    names = [as_text(label, 28) for label in labels]
    figure, (left, right) = _figure(1, 2, width=10.5, height=4.2, ratios=(1.15, 1.0))
    n = len(names)
    left.imshow(weights, cmap="Blues", vmin=0.0, vmax=max(float(np.max(weights)), 1e-9))
    for row in range(n):
        for column in range(n):
            weight = float(weights[row, column])
            dark = weight > 0.6 * float(np.max(weights))
            text = "–" if row == column and n > 1 else f"{weight:.2f}"
            left.text(column, row, text, ha="center", va="center", color="white" if dark else INK)
    left.set(title=title, xticks=range(n), yticks=range(n), yticklabels=names)
    left.set_xticklabels([f"{place}" for place in range(1, n + 1)])
    left.set_yticklabels([f"{place}  {name}" for place, name in enumerate(names, start=1)])
    left.tick_params(length=0)
    left.spines[:].set_visible(False)
    if shares is not None:
        right.barh(range(n), shares, color=ORANGE, height=0.6)
        right.invert_yaxis()
        right.set(title="Share of each event in the intent", yticks=range(n))
        right.set_yticklabels([str(place) for place in range(1, n + 1)])
        right.set_xlim(0, max(float(np.max(shares)) * 1.18, 1e-9))
        for row, share in enumerate(shares):
            right.text(float(share), row, f" {float(share):.0%}", va="center", color=INK)
    else:
        right.set_axis_off()
    return save(figure, path)


def draw_window(
    recommender: Recommender, path: str | Path, *, user: int | str | None = None
) -> Path:
    """Draw the attention of a user's newest window; without a user, the first full one.

    Of the additive network: each head's weights of the newest events, as the newest position sees
    them.
    """
    L = min(recommender.options.model.window_length, _MOST_SLOTS)
    histories = recommender.histories.histories
    index = (
        int(recommender.vocabulary.encode_users([user])[0])
        if user is not None
        else int(np.argmax(np.minimum(histories.lengths, L)))
    )
    if not len(histories[index]):
        raise RequestError("nothing is known of this user, so there is no window to draw")
    network = recommender.network
    window = last_items(histories.take(np.array([index])), network.config.window_length)[0]
    items = window[window >= 0]
    weights, shares = _attention(network, window)
    labels = [recommender.title(item) or str(recommender.vocabulary.item_ids[item])
              for item in items[-L:]]  # fmt: skip
    shown = None if shares is None else shares[-L:]
    if isinstance(network, AdditiveNetwork):
        return draw_heads(weights[:, -L:], weights[:, -L:].mean(axis=0), labels, path)
    return draw_attention(weights[-L:, -L:], shown, labels, path)


def draw_heads(
    weights: npt.NDArray[np.floating[Any]],
    shares: npt.NDArray[np.floating[Any]],
    labels: Sequence[str],
    path: str | Path,
) -> Path:
    """Draw what each head of the additive network looks at, and the mean of the heads.

    Parameters
    ----------
    weights : (H, n) array
        a^h of the newest n events, oldest first.
    shares : (n,) array
        Their mean over the heads.
    labels : sequence of n str
    path : path
    """
    names = [as_text(label, 28) for label in labels]
    height = 1.6 + 0.26 * len(names)
    figure, (left, right) = _figure(1, 2, width=10.5, height=height, ratios=(1.0, 1.1))
    left.imshow(weights.T, cmap="Blues", vmin=0.0, aspect="auto")
    left.set(title="Weights of the newest events, by head", yticks=range(len(names)),
             yticklabels=names, xticks=range(len(weights)))  # fmt: skip
    left.set_xticklabels([f"head {place}" for place in range(1, len(weights) + 1)])
    left.tick_params(length=0)
    left.spines[:].set_visible(False)
    right.barh(range(len(names)), shares, color=ORANGE, height=0.6)
    right.set(title="Mean over the heads", yticks=[], ylim=(len(names) - 0.5, -0.5))
    right.set_xlim(0, max(float(np.max(shares)) * 1.18, 1e-9))
    for row, share in enumerate(shares):
        right.text(float(share), row, f" {float(share):.1%}", va="center", color=INK)
    return save(figure, path)


def _attention(network: Network, window: npt.NDArray[np.integer]) -> tuple[Any, Any]:
    """Return what one window's attention is, and the events' shares (None where there are none)."""
    real = window >= 0
    device = next(network.parameters()).device
    with torch.no_grad():
        if isinstance(network, AdditiveNetwork):
            items = torch.from_numpy(window[real]).to(device)
            weights = network.contributions(items, dtype=torch.float64)[0].cpu().numpy()
            return weights, weights.mean(axis=0)
        tensor = torch.from_numpy(window)[None].to(device)
        weights = network.attention(tensor, dtype=torch.float64)[0].cpu().numpy()[real][:, real]
        if network.config.aggregation not in ("mean", "sum"):
            return weights, None
        return weights, network.shares(tensor, dtype=torch.float64)[0].cpu().numpy()[real]


def _figure(
    rows: int, columns: int, *, width: float, height: float, ratios: tuple[float, ...] | None = None
) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure  # slow to import: only where a picture is drawn

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, width_ratios=ratios)
    for one in np.atleast_1d(axes).flat:
        plain(one)
    return figure, axes


def plain(axes: Axes) -> None:
    """Give axes the look that all pictures have."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK)
    axes.title.set_fontsize(11)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a picture, whole or not at all; its suffix chooses the format.

    Raises
    ------
    RequestError
        No picture is written in it, or the file cannot be written.
    """
    form = Path(path).suffix.removeprefix(".").lower() or "png"
    if form not in figure.canvas.get_supported_filetypes():
        raise RequestError(f"{path}: no picture is written as .{form}; name a .png, .svg or .pdf")
    return write_whole(path, lambda file: figure.savefig(file, dpi=PICTURE_DPI, format=form))
