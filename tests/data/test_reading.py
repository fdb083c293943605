"""Reading interactions: every format, against the obvious Python reader; and what is refused."""

import csv
import datetime
import re
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attrec.data.interactions import InteractionLog
from attrec.data.reading import read_interactions, write_csv
from attrec.errors import DataError, MissingExtraError


def events(log):
    """The rows of a log in external ids."""
    users = log.user_ids[log.user_codes].tolist()
    items = log.item_ids[log.item_codes].tolist()
    if log.timestamps is None:
        return list(zip(users, items, strict=True))
    return list(zip(users, items, log.timestamps.tolist(), strict=True))


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def check_contract(log):
    assert log.user_codes.dtype == log.item_codes.dtype == np.int32
    for ids, codes in ((log.user_ids, log.user_codes), (log.item_ids, log.item_codes)):
        assert ids.tolist() == sorted(set(ids.tolist()))
        assert set(codes.tolist()) == set(range(len(ids)))
        assert ids.dtype in (np.int64, object)
    if log.timestamps is not None:
        assert type(log.timestamps) is np.ndarray
        assert log.timestamps.dtype == np.float64


TABLE = [("007", "b", 5.0), ("7", "a", 6.0), ("007", "a", 4.5)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.csv", "user_id,item_id,timestamp\n007,b,5\n7,a,6\n007,a,4.5\n"),
        ("log.csv", "007,b,5\n7,a,6\n007,a,4.5"),
        ("log.csv", "\ufeffuserId,movieId,rating,ts\n007,b,x,5\n7,a,,6\n007,a,1,4.5\n"),
        ("log.csv", "\n\nitem;time;user\nb;5;007\n\na;6;7\na;4.5;007\n"),
        ("log.csv", '"user","item","timestamp"\r\n"007","b","5"\r\n7,a,6\r\n007,a,4.5\r\n'),
        ("log.csv", '"the\nnote",user,item,time\n"1\n2",007,b,5\n,7,a,6\n,007,a,4.5\n'),
        ("log.tsv", "user\titem\tts\n007\tb\t5\n7\ta\t6\n007\ta\t4.5\n"),
        ("u.data", "007\tb\t3\t5\n7\ta\t3\t6\n007\ta\t3\t4.5\n"),
        ("ratings.dat", "007::b::3::5\n7::a::3::6\n007::a::3::4.5\n"),
        ("log.txt", "007|b|5\n7|a|6\n007|a|4.5\n"),
        (
            "x.inter",
            "user_id:token\titem_id:token\ttimestamp:float\n007\tb\t5\n7\ta\t6\n007\ta\t4.5",
        ),
        ("x", "item_id:token\tuser_id:token\ttimestamp:float\nb\t007\t5\na\t7\t6\na\t007\t4.5"),
        ("log.csv", "session_id,item,position\n007,b,5\n7,a,6\n007,a,4.5\n"),
    ],
)
def test_text_formats_give_the_same_log(tmp_path, name, text):
    log = read_interactions(write(tmp_path, name, text))
    check_contract(log)
    assert events(log) == TABLE
    assert log.source == name
    assert any("no header" in note for note in log.notes) == ("007" in text.split("\n")[0])
    assert any("'session_id' is a user" in note for note in log.notes) == ("session" in text)


def test_lines_of_items(tmp_path):
    path = write(tmp_path, "Beauty.txt", "2 9  8 9\r\n\r\n   \r\n10 8\t7 \r\n2 1\r\n")
    log = read_interactions(path)
    check_contract(log)
    assert log.timestamps is None
    assert events(log) == [
        *(("2", item) for item in "989"),
        *(("10", item) for item in "87"),
        ("2", "1"),
    ]
    assert log.item_ids.tolist() == ["1", "7", "8", "9"]
    assert "oldest first" in log.notes[0]


def test_file_order_is_said_where_there_is_no_time(tmp_path):
    log = read_interactions(write(tmp_path, "log.csv", "user,item\n2,1\n1,1\n"))
    assert log.timestamps is None
    assert log.notes == (
        "columns by their names: user = user, item = item",
        "no time column: the order of the rows is the order in time",
    )


def test_columns_can_be_named_or_counted(tmp_path):
    named = write(tmp_path, "named.csv", "buyer,thing,when,user\na,x,5,Q\nb,y,6,Q\n")
    expected = [("a", "x", 5.0), ("b", "y", 6.0)]
    assert events(read_interactions(named, user="buyer", item="thing", time="when")) == expected
    assert events(read_interactions(named, user=1, item="2", time=3)) == expected
    bare = write(tmp_path, "bare.csv", "5,z,x,a,q\n6,z,y,b,q\n")
    assert events(read_interactions(bare, user=4, item="3", time=1)) == expected
    two = write(tmp_path, "two.csv", "x,a\ny,b\n")
    assert events(read_interactions(two, user=2, item=1)) == [("a", "x"), ("b", "y")]


def test_header_and_format_can_be_forced(tmp_path):
    path = write(tmp_path, "odd.data", "user,time\nx,y\n")
    log = read_interactions(path, format="csv", header=False)
    assert events(log) == [("user", "time"), ("x", "y")]
    first = write(tmp_path, "digits.txt", "1,2\n3,4\n")
    assert events(read_interactions(first, header=True, user="1", item="2")) == [("3", "4")]


def test_a_path_is_never_a_pattern(tmp_path):
    write(tmp_path, "a1.csv", "q,q\n")
    path = write(tmp_path, "a[1]*'?.csv", "x,y\n")
    assert events(read_interactions(path)) == [("x", "y")]
    assert events(read_interactions(str(path))) == [("x", "y")]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_name_that_is_another_files_pattern(tmp_path, suffix):
    for name, item in ((f"a1.{suffix}", "other"), (f"a[1].{suffix}", "own")):
        frame = pd.DataFrame({"user": ["u"], "item": [item]})
        if suffix == "csv":
            frame.to_csv(tmp_path / name, index=False)
        else:
            frame.to_parquet(tmp_path / name)
    assert events(read_interactions(tmp_path / f"a[1].{suffix}")) == [("u", "own")]


def test_folders_give_a_parquet_file_no_column_that_it_has(tmp_path):
    folder = tmp_path / "item=3"
    folder.mkdir()
    pd.DataFrame({"user": ["u"], "item": ["own"]}).to_parquet(folder / "x.parquet")
    assert events(read_interactions(folder / "x.parquet")) == [("u", "own")]
    assert events(read_interactions(tmp_path)) == [("u", "own")]
    other = tmp_path / "parts" / "user=7"
    other.mkdir(parents=True)
    pd.DataFrame({"item": ["x"]}).to_parquet(other / "x.parquet")
    assert events(read_interactions(tmp_path / "parts")) == [(7, "x")]


def test_a_column_without_a_name_is_passed_over(tmp_path):
    pd.DataFrame({"user": ["u"], "item": ["i"]}).to_csv(tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text().startswith(",user,item")
    assert events(read_interactions(tmp_path / "rows.csv", where="item = 'i'")) == [("u", "i")]
    path = write(tmp_path, "end.csv", "user,item,\nu,i,\n")
    assert events(read_interactions(path)) == [("u", "i")]


def test_keys_of_json_may_hold_any_mark(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"user": "u", "it\\"e/m~": "i", "": 1}\n')
    assert events(read_interactions(path, item='it"e/m~')) == [("u", "i")]


def test_a_file_that_cannot_be_opened_or_decoded(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_bytes("user,item\nu,i\n".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"a.csv, line 1: this is not text of the encoding"):
        read_interactions(path, encoding="utf-16")

    def refused(*given, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(DataError, match=r"cannot be opened \(Permission denied\)"):
        read_interactions(write(tmp_path, "b.csv", "user,item\nu,i\n"))


def test_text_times_may_be_iso_dates(tmp_path):
    text = (
        "user,item,date\na,x,2020-01-01\na,y,2020-01-01T00:00:01Z\na,z,2020-01-01 02:00:00.5+02\n"
    )
    log = read_interactions(write(tmp_path, "log.csv", text))
    assert log.timestamps.tolist() == [1577836800.0, 1577836801.0, 1577836800.5]


IDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\x01"), min_size=1, max_size=6
).filter(lambda text: text.lower() not in ("nan", "null", "none", "<na>"))
TIMES = st.floats(-9e7, 9e7)  # larger numbers are times of day, in one unit


@given(rows=st.lists(st.tuples(IDS, IDS, TIMES), min_size=1, max_size=20))
def test_csv_with_any_id_equals_pythons_reader(tmp_path, rows):
    path = tmp_path / "log.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
        writer.writerows([("user_id", "item_id", "timestamp"), *rows])
    log = read_interactions(path, duplicates="keep")
    check_contract(log)
    assert events(log) == rows


@given(rows=st.lists(st.tuples(IDS, IDS, TIMES), min_size=1, max_size=20), timed=st.booleans())
def test_written_csv_reads_back(tmp_path, rows, timed):
    users, items, times = zip(*rows, strict=True)
    log = InteractionLog.from_columns(users, items, times if timed else None)
    write_csv(log, tmp_path / "log.csv")
    back = read_interactions(tmp_path / "log.csv", duplicates="keep")
    assert events(back) == events(log)
    assert back.fingerprint() == log.fingerprint()


WORDS = st.text("0123456789abcXYZé😀\"',", min_size=1, max_size=4)


@given(
    lines=st.lists(st.lists(WORDS, min_size=2, max_size=6), min_size=1, max_size=12),
    delimiter=st.sampled_from(["\t", "::", " "]),
)
def test_unquoted_text_equals_split(tmp_path, lines, delimiter):
    path = tmp_path / "log.txt"
    if delimiter == " ":
        expected = [(line[0], item) for line in lines for item in line[1:]]
    else:
        lines = [line[:2] for line in lines]
        expected = [tuple(line) for line in lines]
    path.write_text("\n".join(delimiter.join(line) for line in lines), encoding="utf-8")
    kind = {"\t": "tsv", "::": "::", " ": "lines"}[delimiter]
    log = read_interactions(path, format=kind, header=False)
    check_contract(log)
    assert events(log) == expected


def test_many_rows_keep_their_order(tmp_path):
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 70_000, 300_000), rng.integers(0, 300, 300_000)
    path = tmp_path / "log.csv"
    np.savetxt(path, np.stack([users, items], 1), fmt="%d", delimiter=",")
    log = read_interactions(path)
    assert np.array_equal(log.user_ids[log.user_codes].astype(int), users)
    assert np.array_equal(log.item_ids[log.item_codes].astype(int), items)
    parquet = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user": users, "item": items}), parquet)
    typed = read_interactions(parquet)
    assert np.array_equal(typed.user_ids[typed.user_codes], users)


FRAMES = {
    "polars": pl.DataFrame,
    "lazy": lambda columns: pl.DataFrame(columns).lazy(),
    "pandas": pd.DataFrame,
    "pyarrow": pa.table,
}


@pytest.fixture(params=[*FRAMES, "parquet"])
def typed(request, tmp_path):
    """A source of typed columns: a maker of frames, or of a Parquet file."""
    if request.param != "parquet":
        return FRAMES[request.param]

    def make(columns):
        pq.write_table(pa.table(columns), tmp_path / "log.pq")
        return tmp_path / "log.pq"

    return make


def test_typed_sources_keep_integers_and_strings(typed):
    source = typed({"rating": [1, 2, 3], "user": [30, 4, 30], "item_id": ["b", "a", "007"]})
    log = read_interactions(source)
    check_contract(log)
    assert log.user_ids.dtype == np.int64
    assert events(log) == [(30, "b"), (4, "a"), (30, "007")]


def test_typed_times_become_seconds(typed):
    moment = datetime.datetime(2020, 1, 1, 0, 0, 1, 500_000)
    log = read_interactions(typed({"user": [1], "item": [2], "ts": [moment]}))
    assert log.timestamps.tolist() == [1577836801.5]
    aware = moment.replace(tzinfo=datetime.UTC)
    log = read_interactions(typed({"user": [1], "item": [2], "ts": [aware]}))
    assert log.timestamps.tolist() == [1577836801.5]
    log = read_interactions(typed({"user": [1], "item": [2], "ts": [7]}))
    assert log.timestamps.tolist() == [7.0]


def test_dates_and_categories():
    log = read_interactions(
        pl.DataFrame(
            {"user": ["b", "a"], "item": [1, 2], "day": [datetime.date(1970, 1, 2)] * 2}
        ).with_columns(pl.col("user").cast(pl.Categorical)),
        time="day",
    )
    assert events(log) == [("b", 1, 86400.0), ("a", 2, 86400.0)]


@pytest.mark.parametrize("value", [None, ""])
def test_typed_sources_name_the_row_of_an_empty_id(typed, value):
    source = typed({"user": ["a", "b"], "item": ["x", value]})
    with pytest.raises(DataError, match=r", row 2: the item is empty; "):
        read_interactions(source)


def test_typed_columns_of_a_useless_type(typed):
    with pytest.raises(DataError, match='column "user" holds DOUBLE, and ids are integers or'):
        read_interactions(typed({"user": [0.5], "item": [1]}))
    with pytest.raises(DataError, match='column "time" holds BOOLEAN, and times are numbers'):
        read_interactions(typed({"user": [1], "item": [1], "time": [True]}))
    with pytest.raises(DataError, match=r"row 2: timestamp 'late' is not a number"):
        read_interactions(typed({"user": [1, 2], "item": [1, 2], "time": ["3", "late"]}))
    with pytest.raises(DataError, match=r"row 1: timestamp 'inf' is not a number"):
        read_interactions(typed({"user": [1], "item": [1], "time": [float("inf")]}))


def test_no_rows_in_a_frame(typed):
    with pytest.raises(DataError, match="there are no rows"):
        read_interactions(
            typed({"user": pa.array([], pa.int64()), "item": pa.array([], pa.int64())})
        )


def test_what_is_no_frame():
    with pytest.raises(DataError, match="a list cannot be read as a log"):
        read_interactions([1, 2])
    with pytest.raises(DataError, match="values of several types"):
        read_interactions(pd.DataFrame({"user": [1, "a"], "item": [1, 2]}))


def test_frames_need_pyarrow(monkeypatch):
    frame = pl.DataFrame({"user": [1], "item": [2]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"attrec\[frames\]"):
        read_interactions(frame)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "a.csv: the file is empty; give a file"),
        ("a.csv", "\n\n", "a.csv: the file is empty"),
        ("a.csv", "user,item\n\n", "a.csv: there is a header and no row; add interactions"),
        ("a.csv", "u,i\n1,2\n\n3\n4,5\n", "a.csv, line 4: 1 columns where the first row has 2"),
        ("a.csv", "user,item\n1,2\n4,5,6\n", "a.csv, line 3: 3 columns where the first row has 2"),
        ("a.dat", "1::2\n3::4::5\n", "a.dat, line 2: 3 columns where the first row has 2"),
        ("a.csv", "user,item,ts\n1,2,3\n\n1,2,soon\n", "a.csv, line 4: timestamp 'soon' is not a"),
        ("a.csv", "user,item,ts\n1,2,nan\n", "a.csv, line 2: timestamp 'nan' is not a number"),
        ("a.csv", "user,item,ts\n1,2,\n", "a.csv, line 2: the timestamp is empty; "),
        ("a.csv", 'user,item\n"1\n1",2\n,3\n', "a.csv, line 4: the user is empty; write its id"),
        ("a.csv", '"","x"\n', "a.csv, line 1: the user is empty"),
        ("a.tsv", "1\t2\n3\t\n", "a.tsv, line 2: the item is empty"),
        ("a.txt", "1 2 3\n\n4\n", "a.txt, line 3: a user without an item"),
        ("a.txt", "user item\n1 2\n", "a.txt: lines 'user item item …' have no header"),
        ("a.txt", "abc\n", "a.txt: its first line, 'abc', has no delimiter that is known"),
        ("a.json", "{}", "a.json: there are no rows"),
        ("a.json", '[{"user": 1}]', "a.json: this is one JSON array; write one object on each"),
        ("a.xlsx", "PK", "a.xlsx: files that end in .xlsx are not read; convert it to one of csv"),
        ("a.pkl", "PK", "a.pkl: a pickle can run any code when it is opened, so none is"),
        ("a.db", "SQLite", "a.db: a database is read by an address and a query; give sqlite:///"),
        ("a.csv", "1,2,3,4,5\n", "pass user= with its name or position"),
        ("a.csv", "user,thing\n1,2\n", "no column is known to hold the items among user, thing"),
        ("a.csv", "item,thing\n1,2\n", "no column is known to hold the users among item, thing"),
        ("a.parquet", "user,item\n", "a.parquet: this is not a Parquet file"),
        ("a.csv", '"' + "x" * 140_000, "a.csv, line 1: the row cannot be read"),
        ("a.csv", 'user,item\n"a"b,2\n', "a.csv, line 2: a quotation mark is not closed"),
    ],
)
def test_bad_files(tmp_path, name, text, said):
    path = write(tmp_path, name, text)
    with pytest.raises(DataError, match=re.escape(said)):
        read_interactions(path)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"user": "custmer"}, "no column 'custmer'; did you mean 'customer'? the columns are cust"),
        ({"item": "%"}, "no column '%'; the columns are customer, item"),
        ({"item": 3}, "item=3 is not a column; positions run from 1 to 2"),
        ({"item": 1, "user": 1}, "column 1 cannot hold both users and items"),
        ({"format": "xls"}, "format 'xls' is unknown; choose one of csv, tsv"),
    ],
)
def test_bad_wishes(tmp_path, asked, said):
    path = write(tmp_path, "a.csv", "customer,item\n1,2\n")
    with pytest.raises(DataError, match=re.escape(said)):
        read_interactions(path, **asked)


def test_other_bad_files(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        read_interactions(tmp_path / "missing.csv")
    with pytest.raises(DataError, match="this folder holds no file"):
        read_interactions(tmp_path)
    lines = write(tmp_path, "a.txt", "1 2\n")
    with pytest.raises(DataError, match="leave out user=, item= and time="):
        read_interactions(lines, time="ts")
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"user,item\n\xe9,2\n")
    with pytest.raises(DataError, match=r"latin\.csv, line 2: the text is not UTF-8"):
        read_interactions(latin)
    long = write(tmp_path, "long.txt", "u 1\nv" + " 12345" * 400_000)
    with pytest.raises(DataError, match=r"long\.txt, line 2: the row cannot be read \(Max"):
        read_interactions(long)
    big = pa.table({"user": pa.array([2**64 - 1], pa.uint64()), "item": [1]})
    with pytest.raises(DataError, match="cannot be read"):
        read_interactions(big)


def test_parquet_is_known_by_its_first_bytes(tmp_path):
    pq.write_table(pa.table({"user": [1], "item": [2]}), tmp_path / "log")
    assert events(read_interactions(tmp_path / "log")) == [(1, 2)]


def test_a_failed_write_leaves_nothing(tmp_path):
    log = InteractionLog.from_columns(["a", "b"], ["x", "\udc00"])
    target = write(tmp_path, "log.csv", "before")
    with pytest.raises(UnicodeEncodeError):
        write_csv(log, target)
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
    assert target.read_text() == "before"


def test_written_numbers_are_short(tmp_path):
    write_csv(InteractionLog.from_columns([1, 2], [3, 4], [5, 6]), tmp_path / "a.csv")
    rows = (tmp_path / "a.csv").read_text().split()
    assert rows == ["user_id,item_id,timestamp", "1,3,5", "2,4,6"]
