"""Rows of a duckdb relation, checked and encoded into an `InteractionLog`.

Each distinct id becomes one Python string; no event does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt

from attrec.data.interactions import IdArray, InteractionLog
from attrec.errors import DataError

_INTEGERS = re.compile(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT)")
_NUMBERS = re.compile(rf"{_INTEGERS.pattern}|U?HUGEINT|FLOAT|DOUBLE|DECIMAL.*")
_DATES = re.compile(r"DATE|TIMESTAMP.*")
_TEXTS = re.compile(r"VARCHAR|UUID|ENUM.*")


@dataclass(frozen=True)
class Source:
    """The duckdb relation ``source`` of a connection, and how to speak about it.

    Parameters
    ----------
    name : str
        Where the rows come from, for messages.
    user, item, time : str
        Its columns, quoted for SQL; ``time`` is None where there is none.
    notes : tuple of str
        What was assumed.
    place : callable
        Row (from 0) to where a person finds it.
    """

    name: str
    user: str
    item: str
    time: str | None
    notes: tuple[str, ...]
    place: Callable[[int], str]


def encode(db: duckdb.DuckDBPyConnection, source: Source) -> InteractionLog:
    """Check every row of the relation ``source`` in ``db`` and turn ids into codes.

    Raises
    ------
    DataError
        A column has a type that cannot be used, a row cannot be parsed, an id is empty, a time is
        not a number, or there is no row.
    """
    types = {
        column: row[1]
        for column in (source.user, source.item, source.time)
        if column is not None
        for row in db.execute(f"DESCRIBE SELECT {column} FROM source").fetchall()
    }
    columns = [
        f'{_id_expression(source, source.user, types[source.user])} AS "user"',
        f"{_id_expression(source, source.item, types[source.item])} AS item",
    ]
    if source.time is not None:
        columns.append(f'{_time_expression(source, source.time, types[source.time])} AS "time"')
    try:
        db.execute(f"CREATE TEMP TABLE events AS SELECT {', '.join(columns)} FROM source")
    except duckdb.Error as error:
        raise unreadable(source.name, error) from error
    _check_rows(db, source)
    user_ids, user_codes = _codes(db, "user")
    item_ids, item_codes = _codes(db, "item")
    times = None
    if source.time is not None:
        times = db.execute('SELECT "time" AS t FROM events').fetchnumpy()["t"]
    return InteractionLog(
        user_ids, item_ids, user_codes, item_codes, times, source.name, source.notes
    )


def _id_expression(source: Source, column: str, kind: str) -> str:
    if _INTEGERS.fullmatch(kind):
        return f"CAST({column} AS BIGINT)"
    if _TEXTS.fullmatch(kind):
        return f"nullif(CAST({column} AS VARCHAR), '')"
    raise DataError(
        f"{source.name}: column {column} holds {kind}, and ids are integers or strings; "
        "cast it to one of them"
    )


def _time_expression(source: Source, column: str, kind: str) -> str:
    if _NUMBERS.fullmatch(kind):
        return f"CAST({column} AS DOUBLE)"
    if _DATES.fullmatch(kind):
        return f"epoch({column})"
    if _TEXTS.fullmatch(kind):
        return f"coalesce(TRY_CAST({column} AS DOUBLE), epoch(TRY_CAST({column} AS TIMESTAMPTZ)))"
    raise DataError(
        f"{source.name}: column {column} holds {kind}, and times are numbers or dates; "
        "cast it or name another column with time="
    )


def _check_rows(db: duckdb.DuckDBPyConnection, source: Source) -> None:
    timed = source.time is not None
    bad_time = 'min(rowid) FILTER ("time" IS NULL OR NOT isfinite("time"))' if timed else "NULL"
    count, no_user, no_item, no_time = db.execute(
        'SELECT count(*), min(rowid) FILTER ("user" IS NULL), min(rowid) FILTER (item IS NULL), '
        f"{bad_time} FROM events"
    ).fetchall()[0]
    if count == 0:
        raise DataError(f"{source.name}: there are no rows; give at least one interaction")
    for row, role in ((no_user, "user"), (no_item, "item")):
        if row is not None:
            raise DataError(
                f"{source.place(row)}: the {role} is empty; write its id or take the row away"
            )
    if no_time is not None:
        value = db.execute(
            f"SELECT CAST({source.time} AS VARCHAR) FROM source LIMIT 1 OFFSET {no_time}"
        ).fetchall()[0][0]
        said = "the timestamp is empty" if value is None else f"timestamp {value!r} is not a number"
        raise DataError(
            f"{source.place(no_time)}: {said}; write a number or an ISO date, or name another "
            "column with time="
        )


def _codes(db: duckdb.DuckDBPyConnection, column: str) -> tuple[IdArray, npt.NDArray[np.int32]]:
    kind = db.execute(f'DESCRIBE SELECT "{column}" FROM events').fetchall()[0][1]
    if kind == "BIGINT":
        values = db.execute(f'SELECT "{column}" AS c FROM events').fetchnumpy()["c"]
        ids, codes = np.unique(values, return_inverse=True)
        return ids, codes.astype(np.int32)
    # duckdb sorts text by its bytes in UTF-8, which is the order of code points.
    db.execute(
        f'CREATE TEMP TYPE {column}_id AS ENUM (SELECT DISTINCT "{column}" FROM events ORDER BY 1)'
    )
    ids = db.execute(f"SELECT unnest(enum_range(NULL::{column}_id)) AS c").fetchnumpy()["c"]
    codes = db.execute(
        f'SELECT enum_code(CAST("{column}" AS {column}_id)) AS c FROM events'
    ).fetchnumpy()["c"]
    return np.asarray(ids, dtype=object), codes.astype(np.int32)


def unreadable(name: str, error: duckdb.Error) -> DataError:
    """Say in one sentence where and why duckdb could not read the source ``name``."""
    text = str(error)
    line = re.search(r"CSV Error on Line: (\d+)", text)
    place = f"{name}, line {line[1]}" if line else name
    cells = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if cells:
        return DataError(
            f"{place}: {cells[2]} columns where the first row has {cells[1]}; correct the row"
        )
    if "unicode" in text.lower():
        return DataError(f"{place}: the text is not UTF-8; convert the file to UTF-8")
    return DataError(f"{place}: the row cannot be read ({first_sentence(error)}); correct it")


def first_sentence(error: duckdb.Error) -> str:
    """Return the line of duckdb's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Original Line", "Invalid Input"))]
    return (said or lines)[0]
