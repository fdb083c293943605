"""Everything a log can lie in: compressed, split over files, in a database, behind an address."""

import gzip
import json
import sqlite3
from datetime import UTC, datetime

import duckdb
import fsspec
import numpy as np
import pytest
from tests.closed import closed

import attrec
from attrec.data import databases, store
from attrec.data.reading import read_interactions
from attrec.errors import DataError, MissingExtraError

ROWS = [("u1", "a", 1_700_000_000), ("u2", "b", 1_700_000_060), ("u1", "c", 1_700_000_120)]
CSV = "user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in ROWS)
NUMBERS = [(7, 10, 1_700_000_000), (8, 11, 1_700_000_060)]


def events(log):
    times = [None] * len(log) if log.timestamps is None else log.timestamps.tolist()
    users, items = log.user_ids[log.user_codes], log.item_ids[log.item_codes]
    return list(zip(users.tolist(), items.tolist(), times, strict=True))


def zstd(path, text):
    """Write lines compressed by zstd, with duckdb's own encoder."""
    rows = ", ".join("('" + line.replace("'", "''") + "')" for line in text.splitlines())
    duckdb.execute(
        f"COPY (SELECT * FROM (VALUES {rows})) TO '{path}' "
        "(FORMAT csv, HEADER false, DELIMITER '\x02', QUOTE '', ESCAPE '', COMPRESSION zstd)"
    )


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_compressed_files_are_read_and_name_the_bad_line(tmp_path, format_):
    lines = [json.dumps({"user": u, "item": i, "time": t}) for u, i, t in ROWS]
    text = CSV if format_ == "csv" else "\n".join(lines) + "\n"
    (tmp_path / f"log.{format_}.gz").write_bytes(gzip.compress(text.encode()))
    zstd(tmp_path / f"log.{format_}.zst", text)
    for suffix in ("gz", "zst"):
        assert events(read_interactions(tmp_path / f"log.{format_}.{suffix}")) == ROWS
    bad = f"{text}u9,,5\n" if format_ == "csv" else f'{text}{{"user": "u9", "time": 5}}\n'
    (tmp_path / f"bad.{format_}.gz").write_bytes(gzip.compress(bad.encode()))
    zstd(tmp_path / f"bad.{format_}.zst", bad)
    line = len(bad.splitlines())
    for suffix in ("gz", "zst"):
        with pytest.raises(DataError, match=rf"bad\.\w+\.{suffix}, line {line}: the item is empty"):
            read_interactions(tmp_path / f"bad.{format_}.{suffix}")


def test_json_lines_keep_the_type_of_ids(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps({"user": u, "item": i, "ts": t}) for u, i, t in NUMBERS))
    assert events(read_interactions(path)) == NUMBERS
    path.write_text('{"user": 1, "item": 2}\n{"user": "a", "item": 3}\n')
    with pytest.raises(DataError, match="holds text and whole numbers, and ids are all whole"):
        read_interactions(path)
    path.write_text('{"user": 1, "item": 2, "at": "2024-05-01T12:00:00+02:00"}\n{"user": 1\n[3]\n')
    with pytest.raises(DataError, match=r"log\.jsonl, line 2: the line is no JSON object"):
        read_interactions(path, time="at")
    log = read_interactions(path, time="at", on_bad_row="skip")
    assert log.timestamps.tolist() == [datetime(2024, 5, 1, 10, tzinfo=UTC).timestamp()]
    assert [step.removed for step in log.steps[:2]] == [0, 2]


def test_no_part_of_a_folder_is_passed_over(tmp_path):
    for name in ("day=1", "day=2", "_temporary"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.csv").write_text(CSV)
    with closed(tmp_path / "_temporary"):
        assert len(read_interactions(tmp_path)) == len(ROWS)  # one file's, the other has the same
    with closed(tmp_path / "day=2"), pytest.raises(DataError, match="day=2: the file cannot be op"):
        read_interactions(tmp_path)


def test_patterns_and_folders_are_read_in_the_order_of_their_names(tmp_path):
    for place, row in enumerate(ROWS):
        folder = tmp_path / f"day={place + 1}"
        folder.mkdir()
        (folder / "part.csv").write_text("user,item,time\n{},{},{}\n".format(*row))
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".hidden.csv").write_text("what is this")
    for _ in range(10):  # several files are scanned at once, and their order must not depend on it
        many = "item IN ('a', 'b', 'c', 'd', 'e', 'f', 'g')"
        assert events(read_interactions(tmp_path)) == ROWS
        assert events(read_interactions(tmp_path, where=many)) == ROWS
    assert events(read_interactions(str(tmp_path / "day=*" / "*.csv"))) == ROWS
    assert events(read_interactions(tmp_path, time="day")) == [
        (u, i, day) for day, (u, i, _) in enumerate(ROWS, start=1)
    ]
    assert len(read_interactions(tmp_path, where="day < '3'")) == 2
    (tmp_path / "day=2" / "part.csv").write_text("user,item,time\nu1,x,soon\n")
    with pytest.raises(DataError, match=r"day=2/part\.csv, line 2: timestamp 'soon'"):
        read_interactions(tmp_path)
    (tmp_path / "day=2" / "part.csv").write_text("who,what\nu1,x\n")
    with pytest.raises(DataError, match="its columns are who, what where"):
        read_interactions(tmp_path)
    (tmp_path / "day=2" / "part.csv").write_text("\nuser,item,time\nu1,x,3\n")
    with pytest.raises(DataError, match=r"part\.csv, line 2: its columns are user"):
        read_interactions(tmp_path)
    (tmp_path / "day=2" / "part.jsonl").write_text('{"user": 1}')
    with pytest.raises(DataError, match=r"several formats \(csv, jsonl\)"):
        read_interactions(tmp_path)
    with pytest.raises(DataError, match="no file has a name of this pattern"):
        read_interactions(tmp_path / "*.tsv")
    duckdb.execute(
        "COPY (SELECT i AS user_id, i AS item_id, i AS ts, i % 2 AS day FROM range(10) t(i)) "
        f"TO '{tmp_path / 'parquet'}' (FORMAT parquet, PARTITION_BY (day))"
    )
    assert len(read_interactions(tmp_path / "parquet")) == 10


def test_addresses_that_fsspec_knows(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/attrec-test/log.csv", CSV.encode())
    memory.pipe("/attrec-test/log.csv.gz", gzip.compress(CSV.encode()))
    for name in ("log.csv", "log.csv.gz"):
        assert events(read_interactions(f"memory://attrec-test/{name}")) == ROWS
    assert len(read_interactions("memory://attrec-test/*.csv")) == 3
    with pytest.raises(DataError, match="there is no such file"):
        read_interactions("memory://attrec-test/none.csv")
    memory.pipe("/attrec-test/empty.csv", b"")
    with pytest.raises(DataError, match="the file is empty"):
        read_interactions("memory://attrec-test/empty.csv")
    with pytest.raises(DataError, match="cannot be opened"):
        read_interactions("nowhere-protocol://bucket/log.csv")


def test_sqlite_by_address_and_query(tmp_path, monkeypatch):
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE events (user_id INTEGER, item_id INTEGER, at INTEGER)")
        db.executemany("INSERT INTO events VALUES (?, ?, ?)", NUMBERS)
    query = "SELECT user_id, item_id, at AS time FROM events ORDER BY at"
    assert events(read_interactions(f"sqlite:///{path}", query=query)) == NUMBERS
    with pytest.raises(DataError, match="a database needs a query"):
        read_interactions(f"sqlite:///{path}")
    with pytest.raises(DataError, match="cannot be answered"):
        read_interactions(f"sqlite:///{path}", query="SELECT nothing FROM nowhere")
    with pytest.raises(DataError, match="there is no such file"):
        read_interactions("sqlite:///missing.db", query=query)
    with pytest.raises(DataError, match="there are no rows"):
        read_interactions(f"sqlite:///{path}", query=f"SELECT * FROM ({query}) WHERE user_id < 0")
    monkeypatch.setitem(__import__("sys").modules, "adbc_driver_sqlite.dbapi", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'attrec\[sql\]'"):
        read_interactions(f"sqlite:///{path}", query=query)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    pgserver = pytest.importorskip("pgserver", reason="pgserver has no wheel for this machine")
    try:
        server = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    except Exception as error:
        pytest.skip(f"PostgreSQL does not start on this machine: {error}")
    yield server
    server.cleanup()


def test_postgresql_by_address_and_query(postgres):
    postgres.psql(
        "CREATE TABLE events (user_id bigint, item_id text, at timestamptz);"
        "INSERT INTO events SELECT i % 100, 'i' || i % 50, to_timestamp(1700000000 + i) "
        "FROM generate_series(1, 5000) i;"
    )
    address = postgres.get_uri()
    query = "SELECT user_id, item_id, at AS time FROM events ORDER BY at"
    log = read_interactions(address, query=query)
    assert len(log) == 5000
    assert events(log)[0] == (1, "i1", 1_700_000_001.0)
    assert "postgres:" not in log.source
    with pytest.raises(DataError, match="cannot be answered"):
        read_interactions(address, query="SELECT * FROM nowhere")
    result = attrec.fit(address, query=query, embedding_dim=8, max_epochs=1)
    assert result.recommender.vocabulary.user_kind == "integer"


def test_a_database_that_is_down_is_told_without_its_password():
    with pytest.raises(DataError, match="cannot be reached") as caught:
        read_interactions("postgresql://me:secret@127.0.0.1:9/shop", query="SELECT 1")
    assert "secret" not in str(caught.value).split("(")[0]
    assert databases.shown_address("postgresql://me:secret@host/shop") == "postgresql://host/shop"


def test_large_logs_are_kept_and_reused_until_a_source_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "SMALLEST", 10)
    path = tmp_path / "log.csv"
    path.write_text(CSV + "u1,a,1700000000\n")
    first = read_interactions(path)
    again = read_interactions(path)
    assert "encoded earlier" in again.notes[-1]
    assert isinstance(again.user_codes, np.memmap)
    assert events(again) == events(first)
    assert again.steps == first.steps
    assert again.fingerprint() == first.fingerprint()
    assert "encoded earlier" not in read_interactions(path, cache=False).notes[-1]
    assert "encoded earlier" not in read_interactions(path, duplicates="keep").notes[-1]
    before = len(list((tmp_path / "cache" / "logs").iterdir()))
    path.write_text(CSV)
    assert "encoded earlier" not in read_interactions(path).notes[-1]
    assert len(list((tmp_path / "cache" / "logs").iterdir())) == before
    for damage in (b"not numpy", b""):
        for kept in (tmp_path / "cache" / "logs").glob("*/user-codes.npy"):
            kept.write_bytes(damage)
        assert events(read_interactions(path)) == ROWS

    def full(*_):
        raise OSError(28, "No space left on device")

    path.write_text(CSV + "u3,a,1700000000\n")
    with monkeypatch.context() as patched:
        patched.setattr(store.np, "save", full)
        assert len(read_interactions(path)) == 4
    assert not [f for f in (tmp_path / "cache" / "logs").iterdir() if f.name.startswith(".")]
    typed = tmp_path / "log.parquet"
    duckdb.execute(f"COPY (SELECT 1 AS user_id, 2 AS item_id) TO '{typed}' (FORMAT parquet)")
    assert [events(read_interactions(typed)) for _ in range(2)] == [[(1, 2, None)]] * 2


def test_a_kept_log_trains_as_the_first_reading_does(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "SMALLEST", 10)
    path = tmp_path / "log.csv"
    log = attrec.simulate("mixed", num_users=40, num_items=30, events_per_user=8, seed=1)
    attrec.data.reading.write_csv(log, path)
    first, again = (attrec.fit(path, embedding_dim=8, max_epochs=1) for _ in range(2))
    assert first.evaluation.to_dict() == again.evaluation.to_dict()
    assert first.recommender.record["cleaning"][0]["left"] == 320


@pytest.mark.parametrize(
    ("name", "good", "bad"), [("log.jsonl", '{"user": 1, "item": 2}', "{"), ("log.txt", "1 2", "3")]
)
def test_many_bad_lines_are_all_counted_and_the_first_are_placed(tmp_path, name, good, bad):
    path = tmp_path / name
    path.write_text("\n".join([good, "", " \t", *[bad, good] * 150]) + "\n")
    log = read_interactions(path, on_bad_row="skip")
    assert (log.steps[1].removed, log.steps[1].left) == (150, 151)
    places = [example.split(":")[0] for example in log.steps[1].examples]
    assert places == [f"{name}, line {line}" for line in (4, 6, 8, 10, 12)]
