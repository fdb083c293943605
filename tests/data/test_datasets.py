"""Fetching without a network: a server on this machine, a folder, a wheel made here."""

import functools
import hashlib
import http.server
import os
import subprocess
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from attrec.data import datasets
from attrec.data.datasets import NAMES, REGISTRY, File, Registered, fetch
from attrec.data.items import read_item_titles
from attrec.data.reading import read_interactions
from attrec.errors import FetchError

EVENTS = b"1\t10\t5\t100\n1\t11\t4\t101\n2\t10\t3\t102\n"
TITLES = b"10::Ten (1910)::Drama\n11::Eleven (1911)::Comedy\n"
HEADER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
NOWHERE = "http://127.0.0.1:9/nothing"


def entry(url=NOWHERE, *, member=None, wheel=None, events=EVENTS):
    digest = hashlib.sha256(events).hexdigest()
    return Registered(
        "The terms.",
        File("events.tsv", "toy/events.tsv", f"{url}/events.tsv", digest, None, wheel),
        File("titles.dat", "toy/titles.dat", f"{url}/titles.dat", None, None, "in/titles.dat"),
    )


@pytest.fixture
def register(monkeypatch):
    monkeypatch.delenv(datasets.OFFLINE_VARIABLE, raising=False)

    def add(given):
        monkeypatch.setitem(REGISTRY, "toy", given)

    return add


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def put(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "events.tsv").write_bytes(EVENTS)
    (folder / "titles.dat").write_bytes(TITLES)


def test_the_official_address(register, server, tmp_path):
    folder, url = server
    put(folder)
    register(entry(url))
    told = []
    found = fetch("toy", cache=tmp_path / "cache", echo=told.append)
    assert len(read_interactions(found.interactions)) == 3
    assert read_item_titles(found.items) == {"10": "Ten (1910)", "11": "Eleven (1911)"}
    assert found.sha256 == hashlib.sha256(EVENTS).hexdigest()
    assert "The terms." in told
    # The second time nothing is asked and the terms are not told again.
    (folder / "events.tsv").unlink()
    told.clear()
    assert fetch("toy", cache=tmp_path / "cache", echo=told.append) == found
    assert told == []


def test_an_archive_is_downloaded_once(register, server, tmp_path):
    folder, url = server
    with zipfile.ZipFile(folder / "toy.zip", "w") as archive:
        archive.writestr("in/events", EVENTS)
        archive.writestr("in/titles", TITLES)
    given = entry()
    register(
        Registered(
            given.terms,
            replace(given.interactions, url=f"{url}/toy.zip", member="in/events"),
            replace(given.items, url=f"{url}/toy.zip", member="in/titles"),
        )
    )
    found = fetch("toy", cache=tmp_path / "cache")
    assert found.interactions.read_bytes() == EVENTS
    assert found.items.read_bytes() == TITLES


def test_the_offline_folder_comes_first(register, monkeypatch, tmp_path):
    put(tmp_path / "mirror" / "toy")
    monkeypatch.setenv(datasets.OFFLINE_VARIABLE, str(tmp_path / "mirror"))
    monkeypatch.setenv(datasets.CACHE_VARIABLE, str(tmp_path / "cache"))
    register(entry())
    told = []
    found = fetch("toy", echo=told.append)
    assert found.interactions == tmp_path / "cache" / "toy" / "events.tsv"
    assert "offline folder" in told[0]


def test_a_damaged_file_is_fetched_again(register, server, tmp_path):
    folder, url = server
    put(folder)
    register(entry(url))
    found = fetch("toy", cache=tmp_path)
    found.interactions.write_bytes(b"damaged")
    assert fetch("toy", cache=tmp_path).interactions.read_bytes() == EVENTS


def test_a_wrong_checksum_goes_on_to_the_next_source(register, server, monkeypatch, tmp_path):
    folder, url = server
    put(folder)
    put(tmp_path / "mirror" / "toy")
    (tmp_path / "mirror" / "toy" / "events.tsv").write_bytes(b"other bytes")
    monkeypatch.setenv(datasets.OFFLINE_VARIABLE, str(tmp_path / "mirror"))
    register(entry(url))
    told = []
    assert fetch("toy", cache=tmp_path / "cache", echo=told.append).sha256
    assert url in told[0]


def fake_pip(monkeypatch, *, members=None, code=0, stderr=""):
    def run(command, **options):
        assert command[1:4] == ["-m", "pip", "download"]
        assert "--no-deps" in command
        if members is not None:
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "some.whl", "w") as wheel:
                for name, content in members.items():
                    wheel.writestr(name, content)
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(datasets.subprocess, "run", run)


def test_the_wheel_of_the_package_index_comes_last(register, monkeypatch, tmp_path):
    fake_pip(monkeypatch, members={"in/events": HEADER + EVENTS, "in/titles.dat": TITLES})
    register(entry(wheel="in/events"))
    found = fetch("toy", cache=tmp_path)
    assert found.interactions.read_bytes() == EVENTS


@pytest.mark.parametrize(
    ("pip", "words"),
    [
        ({"code": 1, "stderr": "No module named pip\n"}, "No module named pip"),
        ({"code": 0}, "no wheel came"),
        ({"members": {"in/events": b"a\n" + EVENTS, "in/titles.dat": TITLES}}, "another header"),
        ({"members": {"elsewhere": b""}}, "in/events"),
    ],
)
def test_when_all_sources_fail_each_is_named_with_its_reason(
    register, monkeypatch, tmp_path, pip, words
):
    fake_pip(monkeypatch, **pip)
    monkeypatch.setenv(datasets.OFFLINE_VARIABLE, str(tmp_path / "empty"))
    register(entry(wheel="in/events"))
    with pytest.raises(FetchError, match="cannot be had from any source") as caught:
        fetch("toy", cache=tmp_path / "cache")
    message = str(caught.value)
    assert "offline folder" in message
    assert "no file" in message
    assert NOWHERE in message
    assert "no connection" in message
    assert words in message
    assert datasets.OFFLINE_VARIABLE in message
    assert not (tmp_path / "cache").exists()


def test_a_wrong_checksum_is_said(register, server, tmp_path):
    folder, url = server
    put(folder)
    register(entry(url, events=b"what was expected"))
    with pytest.raises(FetchError, match=r"events\.tsv has SHA-256"):
        fetch("toy", cache=tmp_path / "cache")


def test_a_slow_connection_is_said(register, monkeypatch, tmp_path):
    def slow(*arguments, **options):
        raise datasets.requests.ConnectTimeout

    monkeypatch.setattr(datasets.pooch, "retrieve", slow)
    register(entry())
    with pytest.raises(FetchError, match="no connection within 5 s"):
        fetch("toy", cache=tmp_path / "cache")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(FetchError, match="ml-100k, ml-1m"):
        fetch("ml-100")


def test_the_registry_is_pinned():
    assert NAMES == (
        "ml-100k", "ml-1m", "movietweetings-100k", "amazon-beauty", "amazon-video-games",
    )  # fmt: skip
    for given in REGISTRY.values():
        assert len(given.interactions.sha256) == 64
        assert given.terms


@pytest.mark.skipif(
    not os.environ.get(datasets.OFFLINE_VARIABLE),
    reason=f"{datasets.OFFLINE_VARIABLE} names no folder with the public data sets",
)
@pytest.mark.parametrize("name", NAMES)
def test_the_real_files_where_they_are(name, tmp_path):
    found = fetch(name, cache=tmp_path)
    log = read_interactions(found.interactions)
    sizes = {
        "ml-100k": (943, 1682, 100_000),
        "ml-1m": (6040, 3416, 999_611),
        "movietweetings-100k": (16_554, 10_506, 100_000),
        "amazon-beauty": (22_363, 12_101, 198_502),
        "amazon-video-games": (24_303, 10_672, 231_780),
    }
    assert (log.num_users, log.num_items, len(log)) == sizes[name]
    if found.items is not None:
        titles = read_item_titles(found.items)
        assert set(log.item_ids) <= set(titles) or len(titles) > 0.95 * log.num_items
