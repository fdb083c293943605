"""Titles of items in each form they come in."""

import gzip
import re

import pytest

from attrec.data.items import read_item_titles
from attrec.errors import DataError


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "m.item",
            "item_id:token\tmovie_title:token_seq\trelease_year:token\n"
            "1\tToy Story\t1995\n2\tHeat (1995)\t1995\n3\tunknown\t\n4\t\t1990\n",
            {"1": "Toy Story (1995)", "2": "Heat (1995)", "3": "unknown"},
        ),
        (
            "movies.dat",
            "0001::A, b (1910)::Drama|War\n0002::C::\n",
            {"0001": "A, b (1910)", "0002": "C"},
        ),
        (
            "items.csv",
            'title,item_id\n"Usual, Suspects",007\nX,1\n"Y",1\n',
            {"007": "Usual, Suspects", "1": "Y"},
        ),
        ("items.tsv", "item_id\tname\n1\tSoap\n", {"1": "Soap"}),
        ("bare.csv", "1,Soap\n", {"1": "Soap"}),
    ],
)
def test_titles(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert read_item_titles(path) == expected
    assert read_item_titles(str(path)) == expected


def test_movielens_u_item_is_latin_1(tmp_path):
    path = tmp_path / "u.item"
    path.write_bytes("1|Misérables, Les (1995)|01-Jan-1995||http://x/|0|1\n".encode("latin-1"))
    assert read_item_titles(path) == {"1": "Misérables, Les (1995)"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "item_id,colour\n1,red\n", "no column is known to hold titles among item_id, c"),
        ("a.csv", "name,colour\nx,red\n", "no column is known to hold ids among name, colour"),
        (
            "a.csv",
            "item_id,title\n1,x\n\n2\n",
            "a.csv, line 4: 1 columns where the first row has 2",
        ),
        ("a.csv", "item_id,title,genre\n1,Alien, the movie,Horror\n", "line 2: 4 columns where"),
        ("a.csv", 'item_id,title\n1,"Alien\n2,Heat\n', "line 2: the row cannot be read"),
        ("a.parquet", "PAR1 and no more", "cannot be read as Parquet"),
        ("a.txt", "1 Toy Story\n", "not from 'lines'"),
        ("a.csv", "", "the file is empty"),
        ("a.csv", "\n", "the file is empty"),
        ("a.csv", "single\n", "no column is known to hold ids among single"),
    ],
)
def test_bad_item_files(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(said)):
        read_item_titles(path)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_compressed_item_file_has_its_letters(tmp_path, encoding):
    path = tmp_path / "titles.csv.gz"
    path.write_bytes(gzip.compress("item_id,title\n1,Amélie\n".encode(encoding)))
    assert read_item_titles(path) == {"1": "Amélie"}


def test_missing_item_file(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        read_item_titles(tmp_path / "missing.item")
