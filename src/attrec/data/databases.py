"""SQLite and PostgreSQL by address and query, streamed as Arrow batches into duckdb."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb

from attrec.data.locations import unopened
from attrec.errors import DataError, MissingExtraError

DRIVERS = {
    "sqlite": "adbc_driver_sqlite",
    "postgresql": "adbc_driver_postgresql",
    "postgres": "adbc_driver_postgresql",
}
"""Scheme of an address to the driver that opens it."""


def is_database(source: Any) -> bool:
    """Tell whether a source is the address of a database."""
    return str(source).split("://", 1)[0] in DRIVERS and "://" in str(source)


def shown(source: str) -> str:
    """Return a source as a person may see it: a database without user and password."""
    return shown_address(source) if is_database(source) else source


def shown_address(address: str) -> str:
    """Return the address without user and password, for messages and records."""
    parts = urlsplit(address)
    host = parts.netloc.rsplit("@", 1)[-1]
    return f"{parts.scheme}://{host}{parts.path}"


def query_into(db: duckdb.DuckDBPyConnection, address: str, query: str | None) -> None:
    """Run ``query`` in the database at ``address``; its rows become the table ``source`` of ``db``.

    Raises
    ------
    DataError
        There is no query, the database cannot be reached, or it refuses the query.
    MissingExtraError
        The driver is not installed.
    """
    name = shown_address(address)
    if not query:
        raise DataError(
            f"{name}: a database needs a query; pass query= (--query), such as "
            "'SELECT user_id, item_id, time FROM events'"
        )
    scheme = urlsplit(address).scheme
    connect = _driver(scheme)
    target = address
    if scheme == "sqlite":
        target = address.removeprefix("sqlite://").removeprefix("/") or ":memory:"
        try:
            is_file = Path(target).is_file()
        except OSError as error:
            raise unopened(name, error) from error
        if not is_file:
            raise DataError(
                f"{name}: there is no such file; write sqlite:///file.db, or four strokes before "
                "an absolute path"
            )
    try:
        connection = connect(target)
    except Exception as error:  # the driver's own tree of errors is no part of its contract
        raise DataError(f"{name}: cannot be reached ({_said(error)}); check the address") from error
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(query)
            batches = cursor.fetch_record_batch()
            db.register("batches", batches)
            db.execute("CREATE TEMP TABLE source AS SELECT * FROM batches")
            db.unregister("batches")
    except Exception as error:
        raise DataError(
            f"{name}: the query {query!r} cannot be answered ({_said(error)}); correct it"
        ) from error


def _driver(scheme: str) -> Any:
    library = DRIVERS[scheme]
    try:
        import pyarrow  # noqa: F401

        if scheme == "sqlite":
            from adbc_driver_sqlite.dbapi import connect
        else:
            from adbc_driver_postgresql.dbapi import connect
    except ImportError as error:
        raise MissingExtraError(library.replace("_", "-"), "sql", f"reading {scheme}") from error
    return connect


def _said(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
