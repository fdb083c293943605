"""The picture of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from attrec.config import Among, Space
from attrec.pictures import BLUE, GREY, INK, ORANGE, as_text, plain, save
from attrec.tuning.spaces import short
from attrec.tuning.study import Trial, best_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS_IN_A_ROW = 4
_TICKS = 4
"""On a panel with a logarithmic axis."""


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
    plain(top)
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
        plain(axes)
        axes.set_title(name, fontsize=10)
        axes.tick_params(labelsize=8, labelleft=column == 0)
        _draw_option(axes, name, space, finished, pruned)
    return save(figure, path)


def _draw_option(
    axes: Axes, name: str, space: Space, finished: list[Trial], pruned: list[Trial]
) -> None:
    """Draw the figure over one option's values; those of a list get a place each."""
    at = [[t.values[name] for t in trials] for trials in (finished, pruned)]
    if isinstance(space, Among):
        at = [[space.values.index(value) for value in values] for values in at]
        axes.set_xticks(range(len(space.values)), [as_text(short(value)) for value in space.values])
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
