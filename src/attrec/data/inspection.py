"""What a log is like, before anything is trained on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from attrec.config import DEFAULT_PRESET, ModelConfig, ProtocolConfig
from attrec.data.interactions import InteractionLog
from attrec.data.sorting import stable_order
from attrec.data.splits import Split, split_log
from attrec.errors import DataError

QUANTILES = {
    "least": 0.0, "10%": 0.1, "25%": 0.25, "median": 0.5, "75%": 0.75, "90%": 0.9, "most": 1.0,
}  # fmt: skip
MANY_ITEMS = 50_000
"""From here on a softmax over a sample of the items is worth it."""
_FIRST_TIME_OF_DAY = 1e8
"""Smaller numbers may be counters: no dates are shown for them."""


@dataclass(frozen=True)
class Suggestion:
    """A value for an option, and why."""

    option: str
    value: int | str
    reason: str


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a practitioner would want to know.

    Attributes
    ----------
    source : str
    events, users, items : int
    density : float
        Share of the pairs of user and item that occur.
    history_lengths : dict of str to int
        Quantiles of the events of a user.
    item_counts : dict of str to int
        Quantiles of the events of an item.
    head_shares : dict of str to float
        Share of all events that the most popular 1, 10 and 50 % of the items have.
    repeat_share : float
        Share of events whose user took the item before.
    tied_events : int
        Events at the same time as the one before by the same user.
    tied_last_share : float
        Share of users whose last item depends on the order of rows.
    first, last : str or None
        Dates, where times are times of day.
    gaps : dict of str to float
        Quantiles of the time between two events of a user, in the log's unit.
    losses : dict of str to int or str
        What the chosen split would leave out.
    steps : list of dict
        What reading and cleaning took out.
    notes : list of str
    suggestions : list of Suggestion
    lengths, counts : arrays
        Events of each user and of each item, for the picture.
    """

    source: str
    events: int
    users: int
    items: int
    density: float
    history_lengths: dict[str, int]
    item_counts: dict[str, int]
    head_shares: dict[str, float]
    repeat_share: float
    tied_events: int
    tied_last_share: float
    first: str | None
    last: str | None
    gaps: dict[str, float]
    losses: dict[str, int | str]
    steps: list[dict[str, Any]]
    notes: list[str]
    suggestions: list[Suggestion]
    lengths: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping, without the arrays."""
        values = {k: v for k, v in self.__dict__.items() if k not in ("lengths", "counts")}
        return {**values, "suggestions": [asdict(each) for each in self.suggestions]}


def inspect_log(log: InteractionLog, protocol: ProtocolConfig) -> Inspection:
    """Look at a log.

    Parameters
    ----------
    log : InteractionLog
    protocol : ProtocolConfig
        The split whose losses are told.
    """
    lengths = np.bincount(log.user_codes, minlength=log.num_users)
    counts = np.bincount(log.item_codes, minlength=log.num_items)
    order = log.time_order()
    users, items = log.user_codes[order], log.item_codes[order]
    pairs = users.astype(np.int64) * max(log.num_items, 1) + items
    distinct = len(np.unique(pairs))
    gaps, tied, tied_last = _gaps(log, order, users)
    losses = _losses(log, protocol)
    popular = np.sort(counts)[::-1].cumsum() / max(len(log), 1)
    dated = log.timestamps is not None and np.median(log.timestamps) >= _FIRST_TIME_OF_DAY
    return Inspection(
        source=log.source,
        events=len(log),
        users=log.num_users,
        items=log.num_items,
        density=distinct / max(log.num_users * log.num_items, 1),
        history_lengths=_quantiles(lengths),
        item_counts=_quantiles(counts),
        head_shares={
            f"{share:.0%}": float(popular[max(int(share * len(counts)), 1) - 1])
            for share in (0.01, 0.1, 0.5)
        },
        repeat_share=1 - distinct / max(len(log), 1),
        tied_events=tied,
        tied_last_share=tied_last,
        first=_date(log.timestamps, np.min) if dated else None,
        last=_date(log.timestamps, np.max) if dated else None,
        gaps=gaps,
        losses=losses,
        steps=[asdict(step) for step in log.steps],
        notes=list(log.notes),
        suggestions=_suggest(lengths, log.num_items, 1 - distinct / len(log)),
        lengths=lengths,
        counts=counts,
    )


def _gaps(
    log: InteractionLog, order: npt.NDArray[np.int64], users: npt.NDArray[np.int32]
) -> tuple[dict[str, float], int, float]:
    """Return quantiles of the gaps, the number of ties, and the share of users it ends in one."""
    if log.timestamps is None or len(log) < 2:
        return {}, 0, 0.0
    times = log.timestamps[order]
    same_user = users[1:] == users[:-1]
    gaps = np.diff(times)[same_user]
    ties = same_user & (times[1:] == times[:-1])
    is_last = np.append(~same_user[1:], True)
    share = float((ties & is_last).sum() / max(log.num_users, 1))
    if len(gaps) == 0:
        return {}, 0, 0.0
    named = {name: float(np.quantile(gaps, q)) for name, q in QUANTILES.items()}
    return named, int(ties.sum()), share


def _losses(log: InteractionLog, protocol: ProtocolConfig) -> dict[str, int | str]:
    try:
        split: Split = split_log(log, protocol)
    except DataError as error:
        return {"split": f"not possible: {error}"}
    trained = split.train_and_validation
    items = np.bincount(trained.item_codes, minlength=log.num_items) > 0
    return {
        "split": split.protocol,
        "users judged": len(split.test),
        "users not judged": log.num_users - len(split.test),
        "items that training never sees": int((~items).sum()),
        "targets that training never sees": int((~items[split.test.targets.values]).sum()),
    }


def _suggest(lengths: npt.NDArray[np.int64], num_items: int, repeats: float) -> list[Suggestion]:
    """Suggest preset and options; the figures behind the rules are in the decision on presets."""
    usual = ModelConfig().window_length
    found = [
        Suggestion(
            "preset", DEFAULT_PRESET,
            "far ahead of the paper's presets on MovieLens 1M, a little on MovieLens 100K; "
            "those train in a quarter to an eighth of the time",
        ),
        Suggestion(
            "window_length", usual,
            f"{(lengths <= usual).mean():.0%} of the histories fit into it whole",
        ),
    ]  # fmt: skip
    if num_items > MANY_ITEMS:
        found.append(
            Suggestion(
                "softmax_samples", 4096,
                f"a softmax over all {num_items:,} items would take most of each step",
            )
        )  # fmt: skip
    if repeats > 0.1:
        found.append(
            Suggestion(
                "filter_seen",
                "false",
                f"{repeats:.0%} of the events repeat an item: lists without it lose them",
            )
        )
    return found


def _quantiles(values: npt.NDArray[np.int64]) -> dict[str, int]:
    ordered = values[stable_order(values)]
    return {name: int(ordered[round(q * (len(ordered) - 1))]) for name, q in QUANTILES.items()}


def _date(times: Any, which: Any) -> str:
    seconds = float(which(times))
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):  # of no year from 1 to 9999
        return f"{seconds:.0f} s"
