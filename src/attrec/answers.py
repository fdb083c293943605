"""What a recommender answers, in external ids and titles: lists, tables and explanations."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt

from attrec.data.interactions import IdArray
from attrec.errors import RequestError
from attrec.files import write_whole

_OFFSET_NAME = "popularity of the moment"


@dataclass(frozen=True)
class Recommendation:
    """One place of a list.

    Attributes
    ----------
    rank : int
        1 is nearest.
    item_id : int or str
    title : str or None
    distance : float
        y of (10), smaller is better; ``long_term`` + ``short_term`` but for rounding.
    long_term : float
        ω ‖U_u − V_i‖²; 0 of the additive network.
    short_term : float
        (1 − ω) ‖m − X_i‖²; of the additive network ‖m − k_i‖² + o_i.
    """

    rank: int
    item_id: int | str
    title: str | None
    distance: float
    long_term: float
    short_term: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping."""
        return asdict(self)


@dataclass(frozen=True)
class GroupRecommendation(Recommendation):
    """One place of a group's list.

    ``distance``, ``long_term`` and ``short_term`` are the weighted means Σ_r w_r y_r / Σ_r w_r of
    the members'; below 0 they may be where a weight is.

    Attributes
    ----------
    members : tuple of float
        Each member's own distance y_r, in the order of the request.
    """

    members: tuple[float, ...]


@dataclass(frozen=True)
class AudienceMember:
    """One user whom an item suits.

    Attributes
    ----------
    rank : int
        1 is nearest.
    user_id : int or str
    distance, long_term, short_term : float
        As in `Recommendation`, of this user and the item.
    """

    rank: int
    user_id: int | str
    distance: float
    long_term: float
    short_term: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping."""
        return asdict(self)


class Row(NamedTuple):
    """One place of one user's list; see `Recommendation`."""

    user_id: int | str
    rank: int
    item_id: int | str
    title: str | None
    distance: float
    long_term: float
    short_term: float


@dataclass(frozen=True, eq=False)
class RecommendationTable:
    """The lists of many users: one row per user and rank, all columns of length R.

    Attributes
    ----------
    user_id : (R,) int64 or object (str)
        The users in the order in which they were asked for. For lists made from histories alone,
        the number of the history, from 0.
    rank : (R,) int64
        From 1 within each user.
    item_id : (R,) int64 or object (str)
    title : (R,) object (str or None), or None
        None where the model knows no titles at all.
    distance, long_term, short_term : (R,) float64
        As in `Recommendation`.
    left_out : (n,) int64 or object (str)
        Users asked for of whom nothing is known to rank by, or for whom no item was left.
    """

    user_id: IdArray
    rank: npt.NDArray[np.int64]
    item_id: IdArray
    title: IdArray | None
    distance: npt.NDArray[np.float64]
    long_term: npt.NDArray[np.float64]
    short_term: npt.NDArray[np.float64]
    left_out: IdArray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rank)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the columns by name; ``title`` only where there are titles."""
        named = {name: getattr(self, name) for name in Row._fields}
        return {name: column for name, column in named.items() if column is not None}

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the columns as lists of plain Python values."""
        return {name: column.tolist() for name, column in self.columns().items()}

    def rows(self) -> Iterator[Row]:
        """Yield the rows in plain Python values."""
        for place in range(len(self)):
            yield self._row(place)

    def write(self, path: str | Path, *, for_spreadsheets: bool = False) -> None:
        """Write a file: CSV, JSON Lines or Parquet by its suffix. It appears whole or not at all.

        Parameters
        ----------
        path : path
        for_spreadsheets : bool
            In CSV, put an apostrophe before text that a spreadsheet would run as a formula
            (it begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return).

        Raises
        ------
        RequestError
            The suffix is another one, or the file cannot be written.
        """
        path = Path(path)
        writers: dict[str, Callable[[Path], None]] = {
            ".csv": self._write_safe_csv if for_spreadsheets else self._write_csv,
            ".jsonl": self._write_lines,
            ".ndjson": self._write_lines,
            ".parquet": self._write_parquet,
        }
        if path.suffix.lower() not in writers:
            raise RequestError(
                f"{path}: a table is written to {', '.join(writers)}; give one of these suffixes"
            )
        write_whole(path, writers[path.suffix.lower()])

    def _row(self, place: int) -> Row:
        values = {name: column[place] for name, column in self.columns().items()}
        plain = {name: v.item() if isinstance(v, np.generic) else v for name, v in values.items()}
        return Row(**{"title": None, **plain})

    def _records(self) -> Iterator[dict[str, Any]]:
        columns = self.columns()
        for start in range(0, len(self), 4096):
            block = [column[start : start + 4096].tolist() for column in columns.values()]
            for values in zip(*block, strict=True):
                yield dict(zip(columns, values, strict=True))

    def _write_csv(self, path: Path, cell: Callable[[Any], Any] = lambda value: value) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns())
            writer.writerows(map(cell, record.values()) for record in self._records())

    def _write_safe_csv(self, path: Path) -> None:
        self._write_csv(path, _harmless)

    def _write_lines(self, path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in self._records())

    def _write_parquet(self, path: Path) -> None:
        # duckdb scans numpy columns only where pandas is installed; its own JSON reader is always
        # there, and reads back every float64 that Python wrote.
        lines = path.with_name(f"{path.name}.jsonl")
        kinds = {"i": "BIGINT", "f": "DOUBLE", "O": "VARCHAR"}
        types = {name: kinds[column.dtype.kind] for name, column in self.columns().items()}
        try:
            self._write_lines(lines)
            with duckdb.connect() as connection:
                connection.read_json(
                    str(lines), columns=types, format="newline_delimited"
                ).write_parquet(str(path))
        finally:
            lines.unlink(missing_ok=True)


@dataclass(frozen=True)
class EventReason:
    """What one event of the window does for a candidate.

    Attributes
    ----------
    item_id : int or str
    title : str or None
    share : float
        Of the intent; the same for every candidate. For max and min: mean over the dimensions.
    part : float
        Of the short-term distance; ≥ 0, but for the additive network. Never a reason by itself.
    pull : float
        Above 0: the event brings the candidate nearer than an average item.
    """

    item_id: int | str
    title: str | None
    share: float
    part: float
    pull: float


@dataclass(frozen=True)
class Contrast:
    """Why the explained item stands above (or below) another.

    Attributes
    ----------
    item_id, title
        The other item.
    difference : float
        Its distance less that of the explained item = Σ ``events`` + ``excess`` + ``long_term`` +
        ``offset``; above 0 where the explained item is nearer.
    events : tuple of float
        What each event of the window adds to the difference, oldest first.
    excess : float
        The same of the excess term (sum aggregation only).
    long_term, offset : float
        The same of the long-term distance, and of the popularity of the moment.
    """

    item_id: int | str
    title: str | None
    difference: float
    events: tuple[float, ...]
    excess: float
    long_term: float
    offset: float = 0.0


@dataclass(frozen=True)
class Absence:
    """Where the explained item would stand if the history lacked one event of the window.

    Computed without the event, from the start: the window then reaches one event further back, all
    shares are others, and who has no trained row is folded in without it.

    Attributes
    ----------
    item_id, title
        The event that is taken out.
    distance : float or None
        The explained item's distance then. None where nothing would be left to rank by, which the
        additive network has for an empty history too.
    rank : int or None
        Its place then, counted as ``Explanation.rank`` is.
    """

    item_id: int | str
    title: str | None
    distance: float | None
    rank: int | None


@dataclass(frozen=True)
class Explanation:
    """The distance of one item to one query, taken apart exactly (in float64).

    A split is not a counterfactual: it says how what was computed is made up, and an event with a
    large pull is not an event without which the item would fall (the others would weigh more, or
    pull the same way). What would happen without an event is in ``without``.

    ``distance = long_term + short_term``;
    ``short_term = Σ events.part + excess + constant + offset``;
    ``short_term_advantage = Σ events.pull + excess_pull + offset_pull``: how much nearer,
    short-term, than an average item of the catalogue; ``long_term_pull`` is the same of the
    long-term part.

    Attributes
    ----------
    user_id : int, str or None
        None for a history given at the call.
    item_id, title
        The explained item.
    distance, long_term, short_term : float
        As in `Recommendation`.
    events : tuple of EventReason
        The window, oldest first.
    constant : float
        The same for every candidate of this query.
    excess, excess_pull : float
        0, but for sum aggregation, and for the additive network, where it is the item's ‖k_i‖².
    long_term_pull, short_term_advantage : float
    aggregation : str
        ``additive`` for the additive network.
    versus : Contrast or None
    offset, offset_pull : float
        The popularity of the moment, where a model of the additive network has one; else 0.
    rank : int or None
        The item's place among all items outside the history; only where ``without`` was asked for.
    without : tuple of Absence, or None
        What changes without an event, for each of ``events``; None where it was not asked for.
        The ranks are among the items outside the whole history, the event that is taken out
        included, so they compare with ``rank``.
    """

    user_id: int | str | None
    item_id: int | str
    title: str | None
    distance: float
    long_term: float
    short_term: float
    events: tuple[EventReason, ...]
    constant: float
    excess: float
    excess_pull: float
    long_term_pull: float
    short_term_advantage: float
    aggregation: str
    versus: Contrast | None = None
    offset: float = 0.0
    offset_pull: float = 0.0
    rank: int | None = None
    without: tuple[Absence, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping; ``rank`` and ``without`` only where they were asked for."""
        values = asdict(self)
        values["events"] = [asdict(event) for event in self.events]
        if self.without is None:
            del values["rank"], values["without"]
        else:
            values["without"] = [asdict(absence) for absence in self.without]
        if self.versus is not None:
            values["versus"]["events"] = list(self.versus.events)
        return values

    def __str__(self) -> str:
        """Return the explanation as a small text table."""
        both = f" = long-term {self.long_term:.4g} + short-term {self.short_term:.4g}"
        lines = [
            f"{_name(self.item_id, self.title)}: distance {self.distance:.4g}"
            f"{both if self._has_long_term else ''}",
            f"  {'event (oldest first)':<40} {'share':>7} {'part':>10} {'pull':>10}",
            *(
                _line(_name(e.item_id, e.title), f"{e.share:.1%}", e.part, e.pull)
                for e in self.events
            ),
        ]
        if self.excess or self.excess_pull:
            lines.append(_line(self._excess_name, "", self.excess, self.excess_pull))
        if self.offset or self.offset_pull:
            lines.append(_line(_OFFSET_NAME, "", self.offset, self.offset_pull))
        lines += [
            _line("constant, the same for every item", "", self.constant),
            _line(
                f"{'short-term' if self._has_long_term else 'together'}, against an average item",
                "",
                self.short_term,
                self.short_term_advantage,
            ),
        ]
        if self._has_long_term:
            long = self.long_term, self.long_term_pull
            lines.append(_line("long-term, against an average item", "", *long))
        return "\n".join(lines + self._contrast_lines() + self._absence_lines())

    def _contrast_lines(self) -> list[str]:
        other = self.versus
        if other is None:
            return []
        relation = "nearer" if other.difference > 0 else "farther"
        lines = [
            f"{relation} than {_name(other.item_id, other.title)} "
            f"by {abs(other.difference):.4g}; above 0 is for the first"
        ]
        for event, value in zip(self.events, other.events, strict=True):
            lines.append(_line(_name(event.item_id, event.title), pull=value))
        if other.excess:
            lines.append(_line(self._excess_name, pull=other.excess))
        if other.offset:
            lines.append(_line(_OFFSET_NAME, pull=other.offset))
        if self._has_long_term:
            lines.append(_line("long-term", pull=other.long_term))
        return lines

    def _absence_lines(self) -> list[str]:
        if self.without is None:
            return []
        lines = [
            f"without an event, computed again; with all of them: rank {self.rank}",
            f"  {'without (oldest first)':<40} {'rank':>7} {'distance':>10} {'change':>10}",
        ]
        for each in self.without:
            change = None if each.distance is None else each.distance - self.distance
            rank = "nothing to rank by" if each.rank is None else str(each.rank)
            lines.append(_line(_name(each.item_id, each.title), rank, each.distance, change))
        return lines

    @property
    def _excess_name(self) -> str:
        return "no history" if self.aggregation == "additive" else "excess of the sum"

    @property
    def _has_long_term(self) -> bool:
        return self.aggregation != "additive"


def _line(name: str, share: str = "", part: float | None = None, pull: float | None = None) -> str:
    short = name if len(name) <= 40 else f"{name[:39]}…"
    number = "" if part is None else f"{part:.4g}"
    signed = "" if pull is None else f"{pull:+.4g}"
    return f"  {short:<40} {share:>7} {number:>10} {signed:>10}".rstrip()


def _harmless(value: Any) -> Any:
    """Keep a spreadsheet from taking text for a formula."""
    runs = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if runs else value


def _name(item_id: int | str, title: str | None) -> str:
    return str(item_id) if title is None else f"{title} [{item_id}]"
