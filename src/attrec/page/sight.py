"""What the attention looks at: by position, by head, and whether content moves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.data.ragged import Ragged
from attrec.data.sequences import last_items, newest
from attrec.explain import attention_profile
from attrec.model.additive import AdditiveNetwork
from attrec.model.network import AttRecNetwork
from attrec.page.charts import Line, columns, heat, line_chart
from attrec.page.markup import Html, paragraph, percent, tag, together
from attrec.recommender import Recommender

Floats = npt.NDArray[np.float64]

_READ = 1000
"""Histories that the profile and the picture of the windows read."""
_READ_BY_HEAD = 250
"""Histories, evenly among all, that the picture of the heads reads: they are whole."""
_AGES = 30
"""Newest events that they show."""
_AT_ONCE = 64
_COLOURS = 6
"""Lines that can be told apart; more heads are drawn as rows of a picture."""
_UNIFORM, _MOSTLY, _HARDLY = 0.98, 0.75, 0.25
"""Of the entropy: above it attention hardly chooses; of the share of content: most, little."""


def profile_of(recommender: Recommender) -> dict[str, Any]:
    """Return the attention's profile that the record holds, or read it now."""
    found = recommender.record.get("attention")
    if isinstance(found, dict) and "windows" in found:
        return found
    some = recommender.histories.histories.take(slice(0, _READ))
    windows = last_items(some, recommender.network.config.window_length)
    return attention_profile(recommender.network, windows)


def content_or_position(profile: Mapping[str, Any]) -> str:
    """Answer in a sentence what moves the attention."""
    entropy, content = profile.get("entropy"), profile.get("content_share")
    if entropy is None:
        return "No history is long enough to leave attention a choice."
    level = f"Its weights have {percent(entropy, 0)} of the entropy of equal weights"
    if content is None:
        return f"Neither: all weights are equal. {level}."
    share = (
        f"what the events are explains {percent(content, 0)} of how the affinities vary, and where "
        "they stand the rest"
    )
    if entropy > _UNIFORM:
        return f"It hardly matters: the weights are nearly equal. {level}; {share}."
    if content > _MOSTLY:
        return f"Content. {level}; {share}."
    if content < _HARDLY:
        return f"Position. {level}; {share}."
    return f"Both. {level}; {share}."


@torch.no_grad()
def weights_by_age(network: AdditiveNetwork, histories: Ragged, ages: int = _AGES) -> Floats:
    """Return each head's mean weight of the newest event, the one before, and so on.

    Parameters
    ----------
    network : AdditiveNetwork
    histories : Ragged
    ages : int

    Returns
    -------
    (H, ages) float64
        The mean over the histories that have an event of that age; NaN where none has.
    """
    kept = newest(histories, network.config.window_length)
    total, times = np.zeros((network.config.heads, ages)), np.zeros(ages)
    rows = np.flatnonzero(kept.lengths > 0)
    rows = rows[np.argsort(kept.lengths[rows], kind="stable")]
    for start in range(0, len(rows), _AT_ONCE):
        part = kept.take(rows[start : start + _AT_ONCE])
        device = network.item_key.device
        items = torch.as_tensor(part.values.astype(np.int64), device=device)
        sizes = torch.as_tensor(part.lengths, device=device)
        found = network.newest_weights(items, sizes, dtype=torch.float64).cpu().numpy()
        for weights, size in zip(found, part.lengths.tolist(), strict=True):
            seen = min(size, ages)
            total[:, :seen] += weights[:, :size][:, ::-1][:, :seen]
            times[:seen] += 1
    return np.where(times > 0, total / np.maximum(times, 1), np.nan)


@torch.no_grad()
def weights_by_slot(network: AttRecNetwork, histories: Ragged, slots: int = _AGES) -> Floats | None:
    """Return the mean weights of full windows, query slot by key slot; None where none is full.

    Returns
    -------
    (n, n) float64
        Of the newest n ≤ ``slots`` slots, the oldest first; the diagonal is NaN where there is
        more than one slot, since no event looks at itself.
    """
    length = network.config.window_length
    full = histories.take(np.flatnonzero(histories.lengths >= length)[:_READ])
    if not len(full):
        return None
    total = np.zeros((length, length))
    windows = last_items(full, length)
    for start in range(0, len(windows), _AT_ONCE):
        part = torch.as_tensor(windows[start : start + _AT_ONCE], device=network.item_short.device)
        total += network.attention(part, dtype=torch.float64).sum(dim=0).cpu().numpy()
    mean = total / len(windows)
    if length > 1:
        np.fill_diagonal(mean, np.nan)
    return mean[-slots:, -slots:]


def attention_section(recommender: Recommender) -> Html:
    """Draw the attention and say what it reads."""
    profile, network = profile_of(recommender), recommender.network
    histories, pictures = recommender.histories.histories, _by_age(profile)
    if isinstance(network, AdditiveNetwork):
        some = np.unique(np.linspace(0, max(0, len(histories) - 1), _READ_BY_HEAD).astype(np.int64))
        pictures += _heads(network, histories.take(some[: len(histories)]))
        words = (
            "How much each event of a history gives to the intent, as the newest position sees it. "
            "Age 0 is the newest event. Every head weighs the whole history for itself, and each "
            "has a map of its own."
        )
    else:
        pictures += _slots(network, histories)
        words = (
            "How much each event of a window gives to the intent. Age 0 is the newest event; every "
            "event looks at all others of the window, never at itself."
        )
    read = f"Read from {profile['windows']:,} histories of at least three events."
    return together(
        [
            paragraph(tag("strong", "Is it content or position? "), content_or_position(profile)),
            paragraph(words, " ", read),
            tag("div", *pictures, class_="pictures"),
        ]
    )


def _by_age(profile: Mapping[str, Any]) -> list[Html]:
    weights = [w for w in (profile.get("weight_by_slot") or [])[::-1][:_AGES] if w is not None]
    if not weights:
        return []
    names = [str(age) for age in range(len(weights))]
    return [
        columns("Mean weight by age of the event", names, [("weight", weights)],
                x_label="age: events back from the newest")
    ]  # fmt: skip


def _heads(network: AdditiveNetwork, histories: Ragged) -> list[Html]:
    weights = weights_by_age(network, histories)
    ages = np.flatnonzero(~np.isnan(weights[0]))
    if not len(ages):
        return []
    lines = [
        Line(f"head {head + 1}", ages.tolist(), row[ages].tolist())
        for head, row in enumerate(weights)
    ]
    if len(lines) > _COLOURS:
        names = [line.name for line in lines]
        return [
            heat("Mean weight by age, each head for itself", weights[:, ages], names,
                 [str(age) for age in ages], x_label="age: events back from the newest", y_label="")
        ]  # fmt: skip
    return [
        line_chart("Mean weight by age, each head for itself", lines,
                   x_label="age: events back from the newest", from_zero=True)
    ]  # fmt: skip


def _slots(network: AttRecNetwork, histories: Ragged) -> list[Html]:
    weights = weights_by_slot(network, histories)
    if weights is None:
        return []
    ages = [str(age) for age in range(len(weights))][::-1]
    return [
        heat("Which event looks at which, mean over full windows", weights, ages, ages,
             x_label="age of the event that is looked at", y_label="age of the looking event")
    ]  # fmt: skip
