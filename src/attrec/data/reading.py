"""Files, frames and databases in, one clean `InteractionLog` out; and a log back to CSV.

duckdb parses, checks and encodes: each distinct id becomes one Python string, no event does.
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from attrec.config import DataConfig, Encoding
from attrec.data.cleaning import clean
from attrec.data.columns import (
    NO_TIME,
    Roles,
    Wanted,
    is_header,
    roles_by_name,
    roles_by_position,
)
from attrec.data.databases import is_database, query_into, shown_address
from attrec.data.encoding import EXAMPLES, BadRow, Source, encode, unreadable
from attrec.data.interactions import InteractionLog
from attrec.data.locations import Location, find_files, first_sentence, literal
from attrec.data.store import LogStore
from attrec.data.text_files import FORMATS, TextFile, open_text, sniff_format
from attrec.errors import DataError, MissingExtraError
from attrec.files import write_whole

_JSON_HEAD = 1000
"""Lines of JSON whose keys are taken for the columns."""


def read_interactions(
    source: Any, *, config: DataConfig | None = None, **options: Any
) -> InteractionLog:
    r"""Read who took what, and when, from files, a frame or a database, and clean it.

    Rows keep their order. Text files give string ids (``007`` stays ``007``); JSON, Parquet,
    databases and frames keep integers or strings. Without a user column, a session column gives
    the users. What was assumed is said in the log's ``notes``, what was taken out in its ``steps``.

    Parameters
    ----------
    source : path, address or frame
        CSV, TSV, ``::`` or ``|`` separated text, RecBole's ``.inter``, lines "user item item …"
        (oldest first; a user may have several lines), JSON Lines, Parquet; text also as ``.gz`` or
        ``.zst``. A pattern (``logs/*.csv``) or a folder names many files of one format, in the
        order of their names; folders called ``day=1`` give a column ``day``. Addresses that fsspec
        knows (``s3://…``); ``sqlite:///file.db`` and ``postgresql://…`` with ``query``. Or a frame
        that narwhals knows (Polars, also lazy, pandas, PyArrow).
    config : DataConfig, optional
        How to read and clean.
    **options
        Fields of `DataConfig` by their names, in place of those of ``config``: ``user``, ``item``,
        ``time`` (a column's name, or its position from 1), ``where``, ``min_rating``, … Left out,
        known column names are looked for; without a header, 2 columns are user, item; 3 are user,
        item, time; 4 are user, item, rating, time.

    Returns
    -------
    InteractionLog
        Ids sorted by code point (strings) or value (integers). Times of day are seconds since
        1970-01-01 UTC, whatever unit they were in; smaller numbers stay as they are.

    Raises
    ------
    DataError
        The source cannot be read as asked; the message names the row and the remedy.
    ConfigError
        An option has a value that it cannot have.
    MissingExtraError
        A frame or a database was given and PyArrow or a driver is not installed.

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp()) / "log.csv"
    >>> _ = path.write_text("user_id,item_id,timestamp\n007,b,5\n7,a,6\n")
    >>> log = read_interactions(path)
    >>> log.user_ids.tolist(), log.item_ids.tolist(), log.item_codes.tolist()
    (['007', '7'], ['a', 'b'], [1, 0])
    """
    DataConfig.from_dict(options)  # an unknown name gets the nearest one offered
    chosen = replace(config or DataConfig(), **options)
    with _connect() as db:
        store = None
        if not isinstance(source, str | os.PathLike):
            opened = _open_frame(db, source, chosen)
        elif is_database(source):
            opened = _open_database(db, str(source), chosen)
        else:
            files = find_files(os.fspath(source), db)
            store = LogStore.of(files, chosen) if chosen.cache else None
            kept = store.load() if store is not None else None
            if kept is not None:
                return kept
            opened = _open_files(db, files, chosen)
        log = clean(encode(db, opened, chosen), chosen)
    return log if store is None else store.save(log)


def read_ordered(file: str | Path, by: str | None, encoding: Encoding = "utf-8") -> InteractionLog:
    """Read a file of users and items whose rows a column of plain numbers orders.

    As `read_interactions` reads it, but that the log's ``timestamps`` are these numbers, whatever
    their size; and every row is kept.

    Parameters
    ----------
    file : path
    by : str, optional
        The column, such as a rank or a score; left out: the rows are in order.
    encoding : str
        How its text is written.

    Raises
    ------
    DataError
        The file cannot be read as that.
    """
    config = DataConfig(time=by, duplicates="keep", encoding=encoding)
    with _connect() as db:
        opened = _open_files(db, find_files(file, db), config)
        # No order in time is spoken of here.
        notes = tuple(note for note in opened.notes if note != NO_TIME)
        opened = replace(opened, time=opened.time if by else None, ordered_by=by, notes=notes)
        return clean(encode(db, opened, config), config)


_COLUMNS = ("user", "item", "time", "rating")


def column_names(source: str | Path, encoding: Encoding = "utf-8") -> list[str]:
    """Return the names of a file's columns; of text without a header the cells of its first row."""
    with _connect() as db:
        first = find_files(source, db)[0]
        kind = sniff_format(first, db, encoding)
        if kind == "parquet":
            return _scan_parquet(db, [first], first.name)
        if kind == "jsonl":
            text = TextFile(first, db, "lines", "\x01", encoding)
            return _json_keys(db, [text], first.name)
        return [cell.strip() for cell in open_text(first, db, kind, encoding).first_row()[1]]


def write_csv(log: InteractionLog, path: str | Path) -> None:
    """Write a log as CSV with the header ``user_id,item_id,timestamp``, whole or not at all.

    A log without times has no ``timestamp`` column. Whole numbers are written without a point.

    Raises
    ------
    RequestError
        The file cannot be written.
    """
    write_whole(path, partial(_write_csv, log))


def _write_csv(log: InteractionLog, path: Path) -> None:
    names = ["user_id", "item_id"] + (["timestamp"] if log.timestamps is not None else [])
    with path.open("w", encoding="utf-8", newline="") as handle:
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
    db.execute("SET enable_progress_bar = false")
    # From five values on it makes a join of IN (…), and a join does not keep the order of the rows.
    db.execute("SET disabled_optimizers = 'in_clause'")
    return db


def _wanted(config: DataConfig) -> Wanted:
    return {role: getattr(config, role) for role in _COLUMNS}


def _open_files(db: duckdb.DuckDBPyConnection, files: list[Location], config: DataConfig) -> Source:
    kinds = {config.format or sniff_format(file, db, config.encoding) for file in files}
    if len(kinds) > 1:
        raise DataError(
            f"{files[0].name}, …: these files are of several formats ({', '.join(sorted(kinds))}); "
            "name those of one format by a pattern such as logs/*.csv"
        )
    kind = kinds.pop()
    if kind not in FORMATS:
        raise DataError(f"format {kind!r} is unknown; choose one of {', '.join(FORMATS)}")
    if kind == "parquet":
        return _open_parquet(db, files, config)
    if kind == "jsonl":
        return _open_json(db, files, config)
    texts = [open_text(file, db, kind, config.encoding, config.quotes) for file in files]
    return (_open_lines if kind == "lines" else _open_table)(db, texts, config)


def _together(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _open_table(db: duckdb.DuckDBPyConnection, texts: list[TextFile], config: DataConfig) -> Source:
    text, wanted = texts[0], _wanted(config)
    name = _together([each.name for each in texts])
    first_line, cells = text.first_row()
    if len(cells) == 1:
        raise DataError(
            f"{name}: its first line is one column, {cells[0][:60]!r}, when it is split at "
            f"{text.delimiter!r}; pass format= (--format csv, tsv, ::, psv) of the separator it has"
        )
    header = config.header
    named = text.format == "inter" or is_header(cells, wanted) if header is None else header
    if named and all(len(list(islice(each.rows(), 2))) < 2 for each in texts):
        raise DataError(f"{name}: there is a header and no row; add interactions")
    for each in texts[1:]:
        line, others = each.first_row()
        if line != first_line or len(others) != len(cells) or (named and others != cells):
            raise DataError(
                f"{each.name}, line {line}: its columns are {', '.join(others)} where {text.name}, "
                f"line {first_line}, has {', '.join(cells)}; give files of one form"
            )
    columns = [f"c{position}" for position in range(len(cells))]
    if named:
        names = [cell.split(":", 1)[0] if text.format == "inter" else cell for cell in cells]
        names = [cell.strip() for cell in names]
        # A table saved with its row numbers has a column without a name.
        called = [name or column for name, column in zip(names, columns, strict=True)]
        columns = called if len(set(map(str.lower, called))) == len(called) else columns
    partitions = _partitions(texts[0].location, columns)
    known = [*(names if named else ()), *partitions]
    if named:
        roles = roles_by_name(known, wanted, name)
    else:
        roles = roles_by_position(len(cells), wanted, f"{name} (without a header)")
    # duckdb would take an empty line for the header; it counts a quoted row as one line.
    _scan_text(db, texts, columns, skip=first_line - 1 + named, partitioned=bool(partitions))
    return _table_source(
        name, [*columns, *partitions], roles,
        lambda row: _places_in(db, texts, [row], skipped=named)[0], lambda: _rejects(db, texts),
    )  # fmt: skip


def _partitions(location: Location, columns: Sequence[str]) -> list[str]:
    """Return the columns that folders called ``name=value`` give."""
    parts = Path(location.name).parts[:-1]
    names = [part.split("=", 1)[0] for part in parts if "=" in part]
    return [name for name in names if name not in columns]


def _places_in(
    db: duckdb.DuckDBPyConnection, texts: list[TextFile], rows: Sequence[int], *, skipped: int = 0
) -> list[str]:
    """Say in which file and line ``rows`` (ascending) of a scan stand, reading the files once.

    The scan left out the rejected lines.
    """
    rejected = {reject.place for reject in _rejects(db, texts)}
    places = (
        place
        for text in texts
        for line, _ in islice(text.rows(), skipped, None)
        if (place := f"{text.name}, line {line}") not in rejected
    )
    found, passed = [], 0
    for row in rows:
        found.append(next(islice(places, row - passed, None), texts[-1].name))
        passed = row + 1
    return found


def _told(
    db: duckdb.DuckDBPyConnection, texts: list[TextFile], rows: Sequence[int], what: str
) -> list[BadRow]:
    """Make bad rows of all ``rows`` of a scan, the first of them with their places."""
    places = _places_in(db, texts, rows[:EXAMPLES])
    places += [texts[0].name] * (len(rows) - len(places))
    return [BadRow(place, what) for place in places]


def _rejects(db: duckdb.DuckDBPyConnection, texts: list[TextFile]) -> list[BadRow]:
    """Say which lines duckdb could not take apart, and why, in the order of the files."""
    rows = db.execute(
        "SELECT file_path, line, min(error_type)::VARCHAR, min(error_message), "
        "bool_or(error_type = 'UNQUOTED VALUE' OR "
        "(contains(csv_line, '\"') AND contains(rtrim(csv_line, chr(13) || chr(10)), chr(10)))) "
        "FROM reject_errors JOIN reject_scans USING (scan_id, file_id) GROUP BY 1, 2 ORDER BY 2"
    ).fetchall()
    order = {text.location.path: place for place, text in enumerate(texts)}
    found = []
    for path, line, kind, message, swallows in sorted(
        rows, key=lambda row: (order.get(row[0], 0), row[1])
    ):
        text = texts[order.get(path, 0)]
        words = _QUOTE_LEFT_OPEN if swallows else _reject_in_words(text, kind, message)
        found.append(BadRow(f"{text.name}, line {line}", words, swallows))
    return found


_QUOTE_LEFT_OPEN = (
    "a quotation mark is not closed and takes the lines after it for one cell; close it, or pass "
    "quotes = false (--no-quotes) if marks are plain text in this file"
)


def _reject_in_words(text: TextFile, kind: str, message: str) -> str:
    if kind in ("MISSING COLUMNS", "TOO MANY COLUMNS"):
        numbers = [word for word in message.replace(":", " ").split() if word.isdigit()]
        if len(numbers) >= 2:
            return f"{numbers[1]} columns where the first row has {numbers[0]}; correct the row"
    if kind == "INVALID ENCODING":
        return (
            f"the text is not {text.encoding.upper()}; convert the file to UTF-8, "
            "or pass encoding= (--encoding latin-1)"
        )
    return f"the row cannot be read ({message.splitlines()[0]}); correct it"


def _open_lines(db: duckdb.DuckDBPyConnection, texts: list[TextFile], config: DataConfig) -> Source:
    text, wanted = texts[0], _wanted(config)
    name = _together([each.name for each in texts])
    _, cells = text.first_row()
    if config.header or is_header(cells, wanted):
        raise DataError(
            f"{name}: lines 'user item item …' have no header; take its first line away, "
            "or separate the columns by commas and pass format='csv'"
        )
    if any(value is not None for value in wanted.values()):
        raise DataError(
            f"{name}: in lines 'user item item …' the first word is the user and the others are "
            "items; leave out user=, item= and time="
        )
    _scan_text(db, texts, ["line"], view="scanned")
    words = "list_filter(string_split(translate(line, chr(9), ' '), ' '), lambda word: word <> '')"
    try:
        db.execute(
            f"CREATE TEMP TABLE lines AS SELECT {words} AS words FROM scanned "
            "WHERE trim(line, ' ' || chr(9)) <> ''"
        )
    except duckdb.Error as error:
        raise unreadable(name, error) from error
    lonely = [row[0] for row in db.execute(
        "SELECT rowid FROM lines WHERE len(words) < 2 ORDER BY 1"
    ).fetchall()]  # fmt: skip
    db.execute(
        'CREATE TEMP VIEW source AS SELECT words[1] AS "user", unnest(words[2:]) AS item FROM lines'
    )

    def rejected() -> list[BadRow]:
        alone = "a user without an item; write 'user item item …' or take the line away"
        return [*_rejects(db, texts), *_told(db, texts, lonely, alone)]

    notes = ("lines 'user item item …', oldest first: the order of the file is the order in time",)
    return Source(
        name, "user", "item", None, None, notes, lambda row: f"{name}, event {row + 1}", rejected
    )


def _scan_text(
    db: duckdb.DuckDBPyConnection,
    texts: list[TextFile],
    columns: list[str],
    *,
    view: str = "source",
    skip: int = 0,
    partitioned: bool = False,
) -> None:
    text = texts[0]
    delimiter = "\x01" if text.format == "lines" else text.delimiter
    quote = '"' if text.quoted else ""
    types = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in columns)
    db.execute(
        f"CREATE TEMP VIEW {view} AS SELECT * FROM read_csv({_paths(texts)}, "
        f"delim = {literal(delimiter)}, quote = '{quote}', escape = '{quote}', "
        f"header = false, skip = {skip}, auto_detect = false, columns = {{{types}}}, "
        f"encoding = {literal(text.encoding)}, store_rejects = true, "
        f"compression = {literal(text.location.compression)}, "
        f"hive_partitioning = {str(partitioned).lower()}, hive_types_autocast = false)"
    )


def _paths(texts: list[TextFile]) -> str:
    return f"[{', '.join(text.location.in_sql for text in texts)}]"


def _open_json(db: duckdb.DuckDBPyConnection, files: list[Location], config: DataConfig) -> Source:
    texts = [TextFile(file, db, "lines", "\x01", config.encoding) for file in files]
    name = _together([file.name for file in files])
    names = _json_keys(db, texts, name)

    def rejected() -> list[BadRow]:
        rows = db.execute("SELECT rowid FROM lines WHERE NOT good ORDER BY 1").fetchall()
        what = 'the line is no JSON object; write one such as {"user": 1, "item": 2} on each line'
        return [*_rejects(db, texts), *_told(db, texts, [row for (row,) in rows], what)]

    if not names:
        wrong = rejected()
        raise DataError(str(wrong[0]) if wrong else f"{name}: there are no rows; add interactions")
    picked = ", ".join(f"json_extract(line, {_pointer(key)}) AS {_quoted(key)}" for key in names)
    db.execute(f"CREATE TEMP VIEW source AS SELECT {picked} FROM lines WHERE good")
    good = "SELECT rowid FROM lines WHERE good LIMIT 1 OFFSET "
    return _table_source(
        name, names, roles_by_name(names, _wanted(config), name),
        lambda row: _places_in(
            db, texts, db.execute(good + str(row)).fetchall()[0]
        )[0],
        rejected,
    )  # fmt: skip


def _pointer(key: str) -> str:
    """Say where a key stands in an object, as RFC 6901 does; it may hold any mark."""
    return literal("/" + key.replace("~", "~0").replace("/", "~1"))


def _json_keys(db: duckdb.DuckDBPyConnection, texts: list[TextFile], name: str) -> list[str]:
    """Scan lines into the table ``lines`` (line, good) and return the keys of the first ones."""
    _scan_text(db, texts, ["line"], view="scanned")
    try:
        db.execute(
            "CREATE TEMP TABLE lines AS SELECT line, json_valid(line) AND "
            "json_type(CASE WHEN json_valid(line) THEN line END) = 'OBJECT' AS good FROM scanned "
            "WHERE trim(line, ' ' || chr(9)) <> ''"
        )
    except duckdb.Error as error:
        raise unreadable(name, error) from error
    return [row[0] for row in db.execute(
        "SELECT key FROM (SELECT unnest(json_keys(line)) AS key FROM "
        f"(SELECT line FROM lines WHERE good LIMIT {_JSON_HEAD})) WHERE key <> '' "
        "GROUP BY key ORDER BY key"
    ).fetchall()]  # fmt: skip


def _open_parquet(
    db: duckdb.DuckDBPyConnection, files: list[Location], config: DataConfig
) -> Source:
    name = _together([file.name for file in files])
    names = _scan_parquet(db, files, name)
    return _table_source(name, names, roles_by_name(names, _wanted(config), name))


def _scan_parquet(db: duckdb.DuckDBPyConnection, files: list[Location], name: str) -> list[str]:
    paths = f"[{', '.join(file.in_sql for file in files)}], union_by_name = true"
    try:
        bare = f"SELECT * FROM read_parquet({paths}, hive_partitioning = false)"
        own = [str(row[0]) for row in db.execute(f"DESCRIBE {bare}").fetchall()]
        if _partitions(files[0], own):
            bare = f"SELECT * FROM read_parquet({paths}, hive_partitioning = true)"
        db.execute(f"CREATE TEMP VIEW source AS {bare}")
        return [str(row[0]) for row in db.execute("DESCRIBE source").fetchall()]
    except duckdb.Error as error:
        raise DataError(
            f"{name}: this is not a Parquet file that can be read "
            f"({first_sentence(error)}); check it or pass format="
        ) from error


def _open_database(db: duckdb.DuckDBPyConnection, address: str, config: DataConfig) -> Source:
    name = shown_address(address)
    query_into(db, address, config.query)
    names = [row[0] for row in db.execute("DESCRIBE source").fetchall()]
    return _table_source(name, names, roles_by_name(names, _wanted(config), name))


def _open_frame(db: duckdb.DuckDBPyConnection, frame: Any, config: DataConfig) -> Source:
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
    roles = roles_by_name([str(name) for name in names], _wanted(config), place)
    used = (roles.user, roles.item, roles.time, roles.rating)
    chosen = [names[at] for at in used if at is not None]
    narrow = known if config.where else known.select(*dict.fromkeys(chosen))
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
    return _table_source(place, [str(name) for name in names], roles)


def _table_source(
    place: str,
    names: Sequence[str],
    roles: Roles,
    row_place: Callable[[int], str] | None = None,
    rejected: Callable[[], list[BadRow]] = list,
) -> Source:
    user, item, time, rating = (
        None if at is None else _quoted(names[at])
        for at in (roles.user, roles.item, roles.time, roles.rating)
    )
    assert user is not None
    assert item is not None
    return Source(
        place, user, item, time, rating, roles.notes,
        row_place or (lambda row: f"{place}, row {row + 1}"), rejected,
    )  # fmt: skip


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
