"""Rows of a duckdb relation, checked and encoded into an `InteractionLog`.

Each distinct id becomes one Python string; no event does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from attrec.config import DataConfig
from attrec.data.interactions import NO_IDS, CleaningStep, IdArray, InteractionLog
from attrec.data.locations import damaged, first_sentence
from attrec.data.sorting import stable_order
from attrec.data.units import LARGEST_SECONDS, SMALLEST_SECONDS, UNITS
from attrec.errors import DataError

EXAMPLES = 5
"""Bad rows that a summary shows."""

_INTEGERS = re.compile(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT)")
_NUMBERS = re.compile(rf"{_INTEGERS.pattern}|U?HUGEINT|FLOAT|DOUBLE|DECIMAL.*")
_DATES = re.compile(r"DATE|TIMESTAMP.*")
_TEXTS = re.compile(r"VARCHAR|UUID|ENUM.*")
_NO_ID = f"lower({{text}}) IN {NO_IDS}"
_DAY = 86400.0


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: where it is, and the sentence about it.

    A row that swallowed others cannot be left out: nobody would know what went with it.
    """

    place: str
    what: str
    swallows: bool = False

    def __str__(self) -> str:
        """Return the whole sentence."""
        return f"{self.place}: {self.what}"


@dataclass(frozen=True)
class Source:
    """The duckdb relation ``source`` of a connection, and how to speak about it.

    Parameters
    ----------
    name : str
        Where the rows come from, for messages.
    user, item, time, rating : str
        Its columns, quoted for SQL; ``time`` and ``rating`` are None where there are none.
    notes : tuple of str
        What was assumed.
    place : callable
        Row (from 0, of those that the relation gives) to where a person finds it.
    rejected : callable
        The rows that the relation could not give, after it was read once.
    ordered_by : str, optional
        What to call ``time`` where it holds plain numbers, such as a score: no unit, no date.
    """

    name: str
    user: str
    item: str
    time: str | None
    rating: str | None
    notes: tuple[str, ...]
    place: Callable[[int], str]
    rejected: Callable[[], list[BadRow]] = field(default=list)
    ordered_by: str | None = None


def encode(db: duckdb.DuckDBPyConnection, source: Source, config: DataConfig) -> InteractionLog:
    """Check every row of the relation ``source`` in ``db`` and turn ids into codes.

    Raises
    ------
    DataError
        A column has a type that cannot be used; a row cannot be parsed, an id is empty, a time or
        a rating is not a number, and ``config.on_bad_row`` is "error"; or no row is left.
    """
    try:
        return _encode(db, source, config)
    except duckdb.Error as error:
        raise unreadable(source.name, error) from error


def _encode(db: duckdb.DuckDBPyConnection, source: Source, config: DataConfig) -> InteractionLog:
    steps: list[CleaningStep] = []
    _read_events(db, source, config)
    count = _number(db, "SELECT count(*) FROM events")
    rejected = source.rejected()
    stops = [row for row in rejected if row.swallows or config.on_bad_row == "error"]
    if stops:
        raise DataError(str(stops[0]))
    if count + len(rejected) == 0:
        raise DataError(f"{source.name}: there are no rows; give at least one interaction")
    if config.where is not None:
        _keep(db, steps, f"rows for which {config.where} does not hold", "holds")
        _some_left(source, steps, f"no row is left where {config.where}; change the condition")
    bad = [*rejected, *_bad_rows(db, source, config)]
    if bad and config.on_bad_row == "error":
        raise DataError(str(bad[0]))
    if config.min_rating is not None:
        if source.rating is None:
            raise DataError(
                f"{source.name}: min_rating = {config.min_rating:g} needs a column of ratings and "
                "none is known; name it with rating= (--rating)"
            )
        least = config.min_rating
        _keep(db, steps, f"ratings below {least:g}", f"rating IS NULL OR rating >= {least!r}")
    if bad:
        _keep(db, steps, "rows that cannot be read", f"NOT ({_bad(source, config)})")
        removed = steps[-1].removed + len(rejected)
        steps[-1] = CleaningStep(
            steps[-1].what, removed, steps[-1].left, tuple(map(str, bad[:EXAMPLES]))
        )
    _some_left(source, steps, "no row is left; lower min_rating, or look at the rows left out")
    for role in ("user", "item"):
        _number_ids(db, role)
    user_ids, item_ids = _ids(db, "user"), _ids(db, "item")
    user_codes, item_codes, times = _encoded(db, source.time is not None)
    notes = list(source.notes)
    if times is not None and source.ordered_by is None:
        times, said = _in_seconds(times)
        notes += said
    read = CleaningStep("rows read", 0, count + len(rejected))
    return InteractionLog(
        user_ids, item_ids, user_codes, item_codes, times, source.name, tuple(notes),
        (read, *steps),
    )  # fmt: skip


def _read_events(db: duckdb.DuckDBPyConnection, source: Source, config: DataConfig) -> None:
    """Fill the table ``events``: user, item, time, rating, and the flags ``holds`` and ``kept``."""
    used = (source.user, source.item, source.time, source.rating)
    types = {
        column: row[1]
        for column in used
        if column is not None
        for row in db.execute(f"DESCRIBE SELECT {column} FROM source").fetchall()
    }
    columns = [
        f'{_id_expression(db, source, source.user, types[source.user])} AS "user"',
        f"{_id_expression(db, source, source.item, types[source.item])} AS item",
    ]
    if source.time is not None:
        if source.ordered_by is None:
            times = _time_expression(source, source.time, types[source.time])
        else:
            times = f"TRY_CAST({_text(source.time, types)} AS DOUBLE)"
        columns.append(f'{times} AS "time"')
    if source.rating is not None and config.min_rating is not None:
        columns.append(f"TRY_CAST({_text(source.rating, types)} AS DOUBLE) AS rating")
    if config.where is not None:
        columns.append(f"coalesce(({config.where}), false) AS holds")
    try:
        db.execute(
            f"CREATE TEMP TABLE events AS SELECT {', '.join(columns)}, true AS kept FROM source"
        )
    except duckdb.Error as error:
        wrong = duckdb.BinderException | duckdb.ParserException | duckdb.ConversionException
        if config.where is not None and isinstance(error, wrong):
            raise DataError(
                f"{source.name}: the condition {config.where!r} cannot be understood "
                f"({first_sentence(error)}); write SQL over the columns, such as event = 'buy'"
            ) from error
        raise unreadable(source.name, error) from error


def _text(column: str, types: dict[str, str]) -> str:
    return f"({column} ->> '$')" if types[column] == "JSON" else column


def _id_expression(db: duckdb.DuckDBPyConnection, source: Source, column: str, kind: str) -> str:
    if _INTEGERS.fullmatch(kind):
        return f"CAST({column} AS BIGINT)"
    if _TEXTS.fullmatch(kind):
        text = f"CAST({column} AS VARCHAR)"
        return f"CASE WHEN NOT {_NO_ID.format(text=text)} THEN {text} END"
    if kind == "JSON":
        return _json_id(db, source, column)
    raise DataError(
        f"{source.name}: column {column} holds {kind}, and ids are integers or strings; "
        "cast it to one of them"
    )


def _json_id(db: duckdb.DuckDBPyConnection, source: Source, column: str) -> str:
    rows = db.execute(f"SELECT DISTINCT json_type({column}) FROM source").fetchall()
    kinds = {row[0] for row in rows} - {None, "NULL"}
    if kinds <= {"BIGINT", "UBIGINT"}:
        return f"TRY_CAST({column} ->> '$' AS BIGINT)"
    text = f"({column} ->> '$')"
    if kinds == {"VARCHAR"}:
        return f"CASE WHEN NOT {_NO_ID.format(text=text)} THEN {text} END"
    words = {"BIGINT": "whole numbers", "UBIGINT": "whole numbers", "VARCHAR": "text"}
    held = " and ".join(sorted({words.get(kind, kind.lower()) for kind in kinds}))
    raise DataError(
        f"{source.name}: column {column} holds {held}, and ids are all whole numbers or all text; "
        "write them in one way"
    )


def _time_expression(source: Source, column: str, kind: str) -> str:
    if _NUMBERS.fullmatch(kind):
        return f"CAST({column} AS DOUBLE)"
    if _DATES.fullmatch(kind):
        return f"epoch({column})"
    if _TEXTS.fullmatch(kind) or kind == "JSON":
        text = f"({column} ->> '$')" if kind == "JSON" else column
        return f"coalesce(TRY_CAST({text} AS DOUBLE), epoch(TRY_CAST({text} AS TIMESTAMPTZ)))"
    raise DataError(
        f"{source.name}: column {column} holds {kind}, and times are numbers or dates; "
        "cast it or name another column with time="
    )


def _bad(source: Source, config: DataConfig) -> str:
    """Return the condition under which a row of ``events`` cannot be used."""
    return " OR ".join(condition for condition, _, _ in _faults(source, config))


def _faults(source: Source, config: DataConfig) -> Iterator[tuple[str, str | None, str]]:
    """Yield what can be wrong with a row: a condition, the column of no number, the words."""
    for role in ("user", "item"):
        yield f'"{role}" IS NULL', None, f"the {role} is empty; write its id or take the row away"
        yield (
            f'contains(CAST("{role}" AS VARCHAR), chr(0))',
            None,
            f"the {role} holds NUL bytes; the file was not written to its end: export it again",
        )
    if source.time is not None:
        words = "timestamp {}; write a number or an ISO date, or name another column with time="
        if source.ordered_by is not None:
            words = f"{source.ordered_by} {{}}; write a number"
        yield '"time" IS NULL OR NOT isfinite("time")', source.time, words
    if source.rating is not None and config.min_rating is not None:
        yield (
            "rating IS NULL",
            source.rating,
            "rating {}; write a number, or name another column with rating=",
        )


def _bad_rows(db: duckdb.DuckDBPyConnection, source: Source, config: DataConfig) -> list[BadRow]:
    found = []
    for condition, column, words in _faults(source, config):
        rows = db.execute(
            f"SELECT rowid FROM events WHERE kept AND ({condition}) ORDER BY 1 LIMIT {EXAMPLES}"
        ).fetchall()
        for (row,) in rows:
            found.append((row, words if column is None else _no_number(db, column, row, words)))
    found.extend(_mixed_units(db, source))
    return [BadRow(source.place(row), said) for row, said in sorted(found)[:EXAMPLES]]


def _no_number(db: duckdb.DuckDBPyConnection, column: str, row: int, words: str) -> str:
    found = db.execute(
        f"SELECT CAST({column} AS VARCHAR) FROM source LIMIT 1 OFFSET {row}"
    ).fetchall()
    # A scan of one column may reject rows that the scan of all let pass.
    value = found[0][0] if found else None
    if value in (None, ""):
        return f"the {words.format('is empty')}"
    return words.format(f"{value!r} is not a number")


_UNIT = (
    f'CASE WHEN abs("time") < {LARGEST_SECONDS} THEN 0 WHEN abs("time") < 1e14 THEN 3 '
    'WHEN abs("time") < 1e17 THEN 6 ELSE 9 END'
)


def _mixed_units(db: duckdb.DuckDBPyConnection, source: Source) -> list[tuple[int, str]]:
    """Mark times that stand in another unit than most, and return the first of them."""
    if source.time is None or source.ordered_by is not None:
        return []
    telling = f'kept AND isfinite("time") AND abs("time") >= {SMALLEST_SECONDS}'
    units = db.execute(
        f"SELECT {_UNIT} AS unit, count(*) FROM events WHERE {telling} "
        "GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    if len(units) < 2:
        return []
    usual = units[0][0]
    rows = db.execute(
        f'SELECT rowid, "time", {_UNIT} FROM events WHERE {telling} AND {_UNIT} <> {usual} '
        f"ORDER BY 1 LIMIT {EXAMPLES}"
    ).fetchall()
    # A missing time is a bad row like any other: no second mechanism.
    db.execute(f'UPDATE events SET "time" = NULL WHERE {telling} AND {_UNIT} <> {usual}')
    return [
        (
            row,
            f"timestamp {value:.0f} is in {UNITS[unit]} where most are in {UNITS[usual]}; "
            "bring the column to one unit",
        )
        for row, value, unit in rows
    ]


def _in_seconds(times: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Bring times to seconds; say which unit was read, and which times cannot be."""
    sizes = np.abs(times)
    notes: list[str] = []
    telling = sizes[sizes >= SMALLEST_SECONDS]
    if len(telling) == 0:
        return times, notes
    largest = float(telling.max())
    digits = next((d for d in (0, 3, 6) if largest < LARGEST_SECONDS * 10**d), 9)
    if digits:
        times = times / 10.0**digits
        notes.append(f"times are in {UNITS[digits]} since 1970; kept as seconds")
    if len(telling) < len(times) / 2:
        return times, notes
    future, early = times > time.time() + _DAY, times < 0
    if future.any():
        latest = datetime.fromtimestamp(min(float(times.max()), 2.5e11), UTC).date()
        notes.append(
            f"WARNING: {int(future.sum()):,} events lie in the future, the last on {latest}; "
            "check the column of times"
        )
    if early.any():
        notes.append(
            f"WARNING: {int(early.sum()):,} events lie before 1970; check the column of times"
        )
    return times, notes


def _keep(
    db: duckdb.DuckDBPyConnection, steps: list[CleaningStep], what: str, condition: str
) -> None:
    before = _number(db, "SELECT count(*) FILTER (kept) FROM events")
    db.execute(f"UPDATE events SET kept = false WHERE kept AND NOT ({condition})")
    left = _number(db, "SELECT count(*) FILTER (kept) FROM events")
    steps.append(CleaningStep(what, before - left, left))


def _some_left(source: Source, steps: list[CleaningStep], words: str) -> None:
    if steps and steps[-1].left == 0:
        raise DataError(f"{source.name}: {words}")


def _number(db: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(db.execute(query).fetchall()[0][0])


def _number_ids(db: duckdb.DuckDBPyConnection, role: str) -> None:
    # duckdb sorts text by its bytes in UTF-8, which is the order of code points.
    db.execute(
        f"CREATE TEMP TABLE {role}_ids AS "
        "SELECT id, CAST(row_number() OVER (ORDER BY id) - 1 AS INTEGER) AS code "
        f'FROM (SELECT DISTINCT "{role}" AS id FROM events WHERE kept)'
    )


def _ids(db: duckdb.DuckDBPyConnection, role: str) -> IdArray:
    ids = db.execute(f"SELECT id FROM {role}_ids ORDER BY code").fetchnumpy()["id"]
    return np.asarray(ids, dtype=None if ids.dtype.kind == "i" else object)


def _encoded(
    db: duckdb.DuckDBPyConnection, timed: bool
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64] | None]:
    """Replace ids by codes; return the columns in the order of the rows.

    A join is several times as quick as a look-up per row, but leaves the rows in any order: each
    takes its number along.
    """
    time_column = ', "time"' if timed else ""
    db.execute(
        "CREATE TEMP TABLE encoded AS SELECT user_ids.code AS u, item_ids.code AS i"
        f"{time_column}, events.rowid AS row FROM events "
        'JOIN user_ids ON "user" = user_ids.id JOIN item_ids ON item = item_ids.id WHERE kept'
    )
    db.execute("DROP TABLE events")
    order = stable_order(np.asarray(db.execute("SELECT row FROM encoded").fetchnumpy()["row"]))

    def column(name: str) -> npt.NDArray[Any]:
        values = db.execute(f'SELECT "{name}" AS c FROM encoded').fetchnumpy()["c"]
        return np.asarray(values)[order]

    return column("u"), column("i"), column("time") if timed else None


def unreadable(name: str, error: duckdb.Error) -> DataError:
    """Say in one sentence where and why duckdb could not read the source ``name``."""
    if "GZIP" in str(error) or "ZSTD" in str(error).upper():
        return damaged(name, error)
    if "state machine reached an invalid state" in str(error):
        return DataError(
            f"{name}: some rows end in \\r\\n and some in \\n alone, or a quotation mark is left "
            "open; bring all rows to one form (lines added by hand are often of the other)"
        )
    return DataError(f"{name}: it cannot be read ({first_sentence(error)}); correct or convert it")
