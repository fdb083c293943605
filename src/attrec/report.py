"""What a person looks at: tables for the terminal, pictures of a training and of an attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table

from attrec.config import Among, Space
from attrec.data.sequences import last_items
from attrec.errors import RequestError
from attrec.evaluation.evaluate import Evaluation
from attrec.files import write_whole
from attrec.model.additive import AdditiveNetwork
from attrec.model.choice import Network
from attrec.study import Trial, best_of

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
_PANELS_IN_A_ROW = 4
_FIGURES_WIDTH, _OPTION_WIDTH = 44, 8
"""Of the table of trials: its figures, and an option, whose longest word and 1e-05 fit."""
_TICKS = 4
"""On a panel with a logarithmic axis."""


def evaluation_table(evaluation: Evaluation, title: str) -> Table:
    """Lay the main metrics of all systems out, each with its 95 % interval.

    A figure from which the first system differs (the paired 95 % interval excludes zero) is marked.
    """
    metrics = evaluation.main_metrics()
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
    for place, (name, result) in enumerate(evaluation.systems.items()):
        cells = []
        for metric in metrics:
            figures = result.metrics[metric]
            difference = evaluation.differences.get(name, {}).get(metric)
            mark = "*" if difference and difference["excludes_zero"] else " "
            half = (figures["high"] - figures["low"]) / 2
            cells.append(f"{figures['mean']:.4f} ±{half:.4f}{mark}")
        table.add_row(name, *cells, style="bold" if place == 0 else "")
    return table


def trials_table(trials: Sequence[Trial], names: Sequence[str], metric: str, width: int) -> Table:
    """Lay the trials of a search out, the best one bold.

    Each option has a column where the ``width`` of the screen has room for them; otherwise they
    share one.
    """
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("trial", metric, "best epoch", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    apart = len(names) * (_OPTION_WIDTH + 2) + _FIGURES_WIDTH <= width
    for name in names if apart else ():
        table.add_column(name.replace("_", " "), justify="right", min_width=_OPTION_WIDTH)
    if not apart:
        table.add_column("options")
    best = best_of(trials)
    for trial in trials:
        figure = "" if trial.figure is None else f"{trial.figure:.4f}"
        ending = "" if trial.ending == "finished" else f" {trial.ending}"
        values = {name: _short(value) for name, value in trial.values.items()}
        cells = [values.get(name, "") for name in names]
        if not apart:
            cells = [", ".join(f"{name} {value}" for name, value in values.items())]
        table.add_row(
            str(trial.number), f"{figure}{ending}", f"{trial.best_epoch} of {trial.epochs}",
            f"{trial.seconds:.1f}", *cells, style="bold" if trial == best else "",
        )  # fmt: skip
    return table


def slices_table(evaluation: Evaluation, metric: str) -> Table:
    """Lay one metric out by length of history and popularity of the target."""
    table = Table(
        title=f"{metric} by slice", title_justify="left", header_style="bold", box=None,
        pad_edge=False,
    )  # fmt: skip
    table.add_column("", no_wrap=True)
    table.add_column("users", justify="right")
    for name in evaluation.systems:
        table.add_column(name, justify="right")
    for words, row in evaluation.slices.items():
        values = [f"{row[name][metric]:.4f}" for name in evaluation.systems]
        table.add_row(words, f"{row['users']:,}", *values)
    return table


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
    return _save(figure, path)


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
    return _save(figure, path)


def draw_tuning(
    trials: Sequence[Trial], spaces: Mapping[str, Space], metric: str, path: str | Path
) -> Path:
    """Draw a search: every trial and the best so far, and the figure over each searched option.

    Parameters
    ----------
    trials : sequence of Trial
    spaces : mapping of Space
        Searched options, a small panel each.
    metric : str
        The validation figure.
    path : path
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = -(-len(spaces) // _PANELS_IN_A_ROW)
    figure = Figure(figsize=(10.0, 3.6 + 2.3 * rows), layout="constrained")
    grid = figure.add_gridspec(rows + 1, _PANELS_IN_A_ROW, height_ratios=[1.5, *[1.0] * rows])
    top = figure.add_subplot(grid[0, :])
    _plain(top)
    finished = [t for t in trials if t.ending == "finished" and t.epochs]
    pruned = [t for t in trials if t.ending == "pruned" and t.epochs]
    title, best = f"Validation {metric} by trial", best_of(trials)
    if best is not None:
        figures = np.maximum.accumulate(_figures(finished))
        numbers = [*(t.number for t in finished), trials[-1].number]
        top.step(numbers, [*figures, figures[-1]], where="post", color=BLUE, label="best so far")
        at = (best.number, figures[-1])
        top.plot(*at, "o", markersize=11, markerfacecolor="none", color=INK)
        title += f": best {figures[-1]:.4f}, trial {best.number}"
    _draw_trials(top, finished, pruned, [t.number for t in finished], [t.number for t in pruned])
    top.set_title(title, loc="left", fontsize=11)
    top.set_xlabel("trial")
    top.xaxis.set_major_locator(MaxNLocator(integer=True))
    if finished or pruned:
        top.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=9)
    for place, (name, space) in enumerate(spaces.items()):
        row, column = divmod(place, _PANELS_IN_A_ROW)
        axes = figure.add_subplot(grid[1 + row, column], sharey=top)
        _plain(axes)
        axes.set_title(name, fontsize=10)
        axes.tick_params(labelsize=8, labelleft=column == 0)
        _draw_option(axes, name, space, finished, pruned)
    return _save(figure, path)


def _draw_option(
    axes: Axes, name: str, space: Space, finished: list[Trial], pruned: list[Trial]
) -> None:
    """Draw the figure over one option's values; those of a list get a place each."""
    at = [[t.values[name] for t in trials] for trials in (finished, pruned)]
    if isinstance(space, Among):
        at = [[space.values.index(value) for value in values] for values in at]
        axes.set_xticks(
            range(len(space.values)), [_as_text(_short(value)) for value in space.values]
        )
        axes.set_xlim(-0.5, len(space.values) - 0.5)
    elif space.log:
        axes.set_xscale("log")
        ticks = np.geomspace(space.low, space.high, _TICKS)
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(space.low / 1.15, space.high * 1.15)
    _draw_trials(axes, finished, pruned, *at)


def _draw_trials(
    axes: Axes,
    finished: list[Trial],
    pruned: list[Trial],
    finished_at: list[Any],
    pruned_at: list[Any],
) -> None:
    axes.plot(finished_at, _figures(finished), "o", markersize=4.5, color=ORANGE,
              label="finished")  # fmt: skip
    axes.plot(pruned_at, _figures(pruned), "x", markersize=4.5, color=GREY,
              label="pruned: the best until then")  # fmt: skip


def _figures(trials: list[Trial]) -> npt.NDArray[np.float64]:
    return np.array([t.figure for t in trials], dtype=np.float64)


def _short(value: Any) -> str:
    return f"{value:.3g}" if type(value) is float else str(value).lower()


def _as_text(label: str, longest: int | None = None) -> str:
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
    names = [_as_text(label, 28) for label in labels]
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
    return _save(figure, path)


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
    names = [_as_text(label, 28) for label in labels]
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
    return _save(figure, path)


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
        _plain(one)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK)
    axes.title.set_fontsize(11)


def _save(figure: Figure, path: str | Path) -> Path:
    form = Path(path).suffix.removeprefix(".").lower() or "png"
    if form not in figure.canvas.get_supported_filetypes():
        raise RequestError(f"{path}: no picture is written as .{form}; name a .png, .svg or .pdf")
    return write_whole(path, lambda file: figure.savefig(file, dpi=PICTURE_DPI, format=form))
