"""Files and frames in, one `InteractionLog` out; and a log back to CSV.

duckdb parses, checks and encodes: each distinct id becomes one Python string, no event does.
"""

from __future__ import annotations

import csv
import os
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from attrec.data.columns import Roles, Wanted, is_header, roles_by_name, roles_by_position
from attrec.data.encoding import Source, encode, first_sentence, unreadable
from attrec.data.interactions import InteractionLog
from attrec.data.text_files import FORMATS, TextFile, existing_file, open_text, sniff_format
from attrec.errors import DataError, MissingExtraError


def read_interactions(
    source: Any,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    time: str | int | None = None,
    format: str | None = None,  # noqa: A002
    header: bool | None = None,
) -> InteractionLog:
    r"""Read who took what, and when, from a file or a frame.

    Rows keep their order. Text files give string ids (``007`` stays ``007``); Parquet and frames
    keep integers or strings. Without a user column, a session column gives the users. What was
    assumed is said in the log's ``notes``.

    Parameters
    ----------
    source : path or frame
        CSV, TSV, ``::`` or ``|`` separated text, RecBole's ``.inter``, lines "user item item …"
        (oldest first; a user may have several lines), Parquet; or a frame that narwhals knows
        (Polars, also lazy, pandas, PyArrow).
    user, item, time : str or int, optional
        Name of a column, or its position from 1. Left out: known names are looked for; without a
        header, 2 columns are user, item; 3 are user, item, time; 4 are user, item, rating, time.
    format : {"csv", "tsv", "::", "psv", "inter", "lines", "parquet"}, optional
        Left out: told from the suffix, else from the first line.
    header : bool, optional
        Whether the first row names the columns. Left out: it does if it holds a known name.

    Returns
    -------
    InteractionLog
        Ids sorted by code point (strings) or value (integers). Times are numbers as they stand;
        dates, and ISO dates in text, become seconds since 1970-01-01 UTC.

    Raises
    ------
    DataError
        The source cannot be read as asked; the message names the row and the remedy.
    MissingExtraError
        A frame was given and PyArrow is not installed.

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp()) / "log.csv"
    >>> _ = path.write_text("user_id,item_id,timestamp\n007,b,5\n7,a,6\n")
    >>> log = read_interactions(path)
    >>> log.user_ids.tolist(), log.item_ids.tolist(), log.item_codes.tolist()
    (['007', '7'], ['a', 'b'], [1, 0])
    """
    wanted: Wanted = {"user": user, "item": item, "time": time}
    with _connect() as db:
        if isinstance(source, str | os.PathLike):
            return encode(db, _open_file(db, Path(source), wanted, format, header))
        return encode(db, _open_frame(db, source, wanted))


def write_csv(log: InteractionLog, path: str | Path) -> None:
    """Write a log as CSV with the header ``user_id,item_id,timestamp``, whole or not at all.

    A log without times has no ``timestamp`` column. Whole numbers are written without a point.
    """
    target = Path(path)
    names = ["user_id", "item_id"] + (["timestamp"] if log.timestamps is not None else [])
    descriptor, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as handle:  # noqa: PTH123
            # The row end of RFC 4180: only then does Python 3.11 quote a lone carriage return.
            writer = csv.writer(handle, lineterminator="\r\n")
            writer.writerow(names)
            for start in range(0, len(log), 65536):
                rows = slice(start, start + 65536)
                columns = [
                    log.user_ids[log.user_codes[rows]].tolist(),
                    log.item_ids[log.item_codes[rows]].tolist(),
                ]
                if log.timestamps is not None:
                    columns.append(_short_numbers(log.timestamps[rows]))
                writer.writerows(zip(*columns, strict=True))
        Path(partial).replace(target)
    except BaseException:
        Path(partial).unlink()
        raise


def _short_numbers(times: npt.NDArray[np.float64]) -> list[float]:
    whole = (times == np.trunc(times)) & (np.abs(times) < 2**53)
    numbers: list[float] = (times.astype(np.int64) if whole.all() else times).tolist()
    return numbers


def _connect() -> duckdb.DuckDBPyConnection:
    # Nothing is fetched, and what does not fit into memory spills beside other temporary files.
    spill = str(Path(tempfile.gettempdir()) / f"attrec-{os.getpid()}.spill")
    settings = {"autoinstall_known_extensions": "false", "temp_directory": spill}
    db = duckdb.connect(config=settings)
    db.execute("SET TimeZone = 'UTC'")
    return db


def _open_file(
    db: duckdb.DuckDBPyConnection,
    source: Path,
    wanted: Wanted,
    format_: str | None,
    header: bool | None,
) -> Source:
    path = existing_file(source)
    kind = format_ or sniff_format(path)
    if kind not in FORMATS:
        raise DataError(f"format {kind!r} is unknown; choose one of {', '.join(FORMATS)}")
    if kind == "parquet":
        return _open_parquet(db, path, wanted)
    text = open_text(path, kind)
    if kind == "lines":
        return _open_lines(db, text, wanted, header)
    return _open_table(db, text, wanted, header)


def _open_table(
    db: duckdb.DuckDBPyConnection, text: TextFile, wanted: Wanted, header: bool | None
) -> Source:
    name = text.path.name
    first_line, cells = text.first_row()
    named = text.format == "inter" or is_header(cells, wanted) if header is None else header
    if named:
        if len(list(islice(text.rows(), 2))) < 2:
            raise DataError(f"{name}: there is a header and no row; add interactions")
        names = [cell.split(":", 1)[0] if text.format == "inter" else cell for cell in cells]
        roles = roles_by_name([cell.strip() for cell in names], wanted, name)
    else:
        roles = roles_by_position(len(cells), wanted, f"{name} (without a header)")
    columns = [f"c{position}" for position in range(len(cells))]
    # duckdb would take an empty line for the header; it counts a quoted row as one line.
    _scan_text(db, text, columns, skip=first_line - 1 + named)
    time = None if roles.time is None else columns[roles.time]
    return Source(
        name, columns[roles.user], columns[roles.item], time, roles.notes,
        lambda row: f"{name}, line {text.line_of_row(row + named)}",
    )  # fmt: skip


def _open_lines(
    db: duckdb.DuckDBPyConnection, text: TextFile, wanted: Wanted, header: bool | None
) -> Source:
    name = text.path.name
    _, cells = text.first_row()
    if header or is_header(cells, wanted):
        raise DataError(
            f"{name}: lines 'user item item …' have no header; take its first line away, "
            "or separate the columns by commas and pass format='csv'"
        )
    if any(value is not None for value in wanted.values()):
        raise DataError(
            f"{name}: in lines 'user item item …' the first word is the user and the others are "
            "items; leave out user=, item= and time="
        )
    _scan_text(db, text, ["line"], view="scanned")
    words = "list_filter(string_split(translate(line, chr(9), ' '), ' '), lambda word: word <> '')"
    try:
        db.execute(
            f"CREATE TEMP TABLE lines AS SELECT {words} AS words FROM scanned "
            "WHERE trim(line) <> ''"
        )
    except duckdb.Error as error:
        raise unreadable(name, error) from error
    lonely = db.execute("SELECT min(rowid) FROM lines WHERE len(words) < 2").fetchall()[0][0]
    if lonely is not None:
        raise DataError(
            f"{name}, line {text.line_of_row(lonely)}: a user without an item; "
            "write 'user item item …' or take the line away"
        )
    db.execute(
        'CREATE TEMP VIEW source AS SELECT words[1] AS "user", unnest(words[2:]) AS item FROM lines'
    )
    notes = ("lines 'user item item …', oldest first: the order of the file is the order in time",)
    return Source(name, "user", "item", None, notes, lambda row: f"{name}, event {row + 1}")


def _scan_text(
    db: duckdb.DuckDBPyConnection,
    text: TextFile,
    columns: list[str],
    *,
    view: str = "source",
    skip: int = 0,
) -> None:
    delimiter = "\x01" if text.format == "lines" else text.delimiter
    quote = '"' if text.quoted else ""
    types = ", ".join(f"'{column}': 'VARCHAR'" for column in columns)
    db.execute(
        f"CREATE TEMP VIEW {view} AS SELECT * FROM read_csv({_literal(text.path.resolve())}, "
        f"delim = {_literal(delimiter)}, quote = '{quote}', escape = '{quote}', "
        f"header = false, skip = {skip}, auto_detect = false, columns = {{{types}}})"
    )


def _open_parquet(db: duckdb.DuckDBPyConnection, path: Path, wanted: Wanted) -> Source:
    try:
        db.execute(
            f"CREATE TEMP VIEW source AS SELECT * FROM read_parquet({_literal(path.resolve())})"
        )
    except duckdb.Error as error:
        raise DataError(
            f"{path.name}: this is not a Parquet file that can be read "
            f"({first_sentence(error)}); check it or pass format="
        ) from error
    names = [row[0] for row in db.execute("DESCRIBE source").fetchall()]
    return _named_source(path.name, names, roles_by_name(names, wanted, path.name))


def _open_frame(db: duckdb.DuckDBPyConnection, frame: Any, wanted: Wanted) -> Source:
    import narwhals as nw

    place = "the frame"
    try:
        known = nw.from_native(frame)
    except TypeError as error:
        raise DataError(
            f"a {type(frame).__name__} cannot be read as a log; give the path of a file, or a "
            "frame of Polars, pandas or PyArrow"
        ) from error
    names = known.collect_schema().names()
    roles = roles_by_name([str(name) for name in names], wanted, place)
    chosen = [names[at] for at in (roles.user, roles.item, roles.time) if at is not None]
    narrow = known.select(*dict.fromkeys(chosen))
    try:
        whole = narrow.collect() if isinstance(narrow, nw.LazyFrame) else narrow
        table = whole.to_arrow()
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "frames", "reading a frame") from error
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{place}: a column holds values of several types ({error}); cast it to one"
        ) from error
    db.register("source", table)
    return _named_source(place, names, roles)


def _named_source(place: str, names: list[str], roles: Roles) -> Source:
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    time = None if roles.time is None else quoted[roles.time]
    return Source(
        place, quoted[roles.user], quoted[roles.item], time, roles.notes,
        lambda row: f"{place}, row {row + 1}",
    )  # fmt: skip


def _literal(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
