"""Anything at all into every reader and the loaders: an answer or a sentence, never a crash."""

import gzip
import json
import resource
import shutil

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import attrec
from attrec.artifact import CHECKPOINT, load_artifact
from attrec.data.items import read_item_titles
from attrec.data.reading import read_interactions
from attrec.errors import AttRecError
from attrec.evaluation.comparison import read_lists
from tests.formats.test_formats import HERE

FORMATS = ("csv", "tsv", "::", "psv", "inter", "lines", "jsonl", "parquet")
SUFFIXES = ("csv", "tsv", "dat", "inter", "txt", "jsonl", "json", "parquet", "csv.gz", "csv.zst")
SEEDS = (
    b"user,item,time\na,b,1\nc,d,2\n",
    b"user_id:token\titem_id:token\ttimestamp:float\n1\t2\t3\n",
    b'{"user": 1, "item": [2], "time": {"a": null}}\n{"user": 1e400, "item": "x"}\n',
    b'"a""b","c\nd",1e308\n',
    b"1::2::3::4\n\xff\xfe\x00::::\n",
    gzip.compress(b"user,item\n1,2\n"),
    b",,\xcf\xfb\xcf\xd3,",
)
quick = settings(
    max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@st.composite
def damaged(draw):
    """Bytes of nothing, or of something good that was cut, repeated and overwritten."""
    content = bytearray(draw(st.sampled_from(SEEDS) | st.binary(max_size=200)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(len(content), 1)))
        piece = draw(st.binary(max_size=8) | st.sampled_from([b'"', b"\n", b",", b"\0", b"\r"]))
        content[at : at + draw(st.integers(0, 4))] = piece
    return bytes(content)


def read_all(path, format_=None):
    """Read with one reader after another; every failure is a sentence of ours."""
    for read in (
        lambda: read_interactions(path, format=format_, cache=False),
        lambda: read_interactions(path, format=format_, on_bad_row="skip", cache=False),
        lambda: read_item_titles(path),
        lambda: read_lists(path),
    ):
        try:
            read()
        except AttRecError as error:
            assert str(error)
            assert len(str(error)) < 2000


@quick
@given(content=damaged(), format_=st.sampled_from(FORMATS))
def test_any_bytes_into_every_format(tmp_path, content, format_):
    path = tmp_path / "log"
    path.write_bytes(content)
    read_all(path, format_)


@quick
@given(content=damaged(), suffix=st.sampled_from(SUFFIXES))
def test_any_bytes_under_every_name(tmp_path, content, suffix):
    path = tmp_path / f"log.{suffix}"
    path.write_bytes(content)
    read_all(path)


@quick
@given(data=st.data())
def test_any_damage_to_a_parquet_file(tmp_path, data):
    path = tmp_path / "log.parquet"
    duckdb.execute(f"COPY (SELECT i AS user_id, i AS item_id FROM range(9) t(i)) TO '{path}'")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    read_all(path)


def load_both(folder):
    for load in (lambda: attrec.load(folder), lambda: load_artifact(folder, CHECKPOINT)):
        try:
            load()
        except AttRecError as error:
            assert str(error)


@quick
@given(data=st.data())
def test_any_damage_to_a_model_is_told(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    shutil.copytree(HERE / "model-1", folder)
    file = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    load_both(folder)


NASTY = st.sampled_from(
    [None, -1, 0, 1e308, "", "../../etc/passwd", "/etc/passwd", [], {}, True, "x" * 1000, 10**12]
)


@quick
@given(data=st.data())
def test_a_crafted_model_cannot_escape_or_crash(tmp_path_factory, data):
    """Also where its hashes fit: whoever writes the manifest can write those."""
    import hashlib

    folder = tmp_path_factory.mktemp("fuzz") / "model"
    shutil.copytree(HERE / "model-1", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    part = data.draw(st.sampled_from(sorted(manifest["files"])))
    entry = manifest["files"][part]
    file = folder / entry["name"]
    if file.suffix == ".json" and data.draw(st.booleans()):
        document = json.loads(file.read_text())
        document[data.draw(st.sampled_from(sorted(document)))] = data.draw(NASTY)
        file.write_text(json.dumps(document))
        entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        entry["bytes"] = file.stat().st_size
    else:
        target = data.draw(st.sampled_from([manifest, manifest["summary"], entry]))
        if target:
            target[data.draw(st.sampled_from(sorted(target)))] = data.draw(NASTY)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    load_both(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_gzip_bomb_takes_no_memory(tmp_path):
    path = tmp_path / "log.csv.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(256):
            file.write(b"\0" * 1_000_000)
    assert path.stat().st_size < 300_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AttRecError):
        read_interactions(path, cache=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


@pytest.mark.soak
def test_atheris_finds_nothing_in_thousands_of_inputs(tmp_path):
    import subprocess
    import sys

    pytest.importorskip("atheris", reason="atheris has no wheel for this machine")
    program = (
        "import sys, atheris\n"
        "with atheris.instrument_imports(include=['attrec.data', 'attrec.artifact']):\n"
        "    from attrec.data.reading import read_interactions\n"
        "from pathlib import Path\n"
        "from tests.test_fuzz import FORMATS, read_all\n"
        f"path = Path({str(tmp_path)!r}) / 'log'\n"
        "def one(content):\n"
        "    if len(content) > 1:\n"
        "        path.write_bytes(content[1:])\n"
        "        read_all(path, FORMATS[content[0] % len(FORMATS)])\n"
        "atheris.Setup([sys.argv[0], '-runs=4000', '-max_len=400', '-rss_limit_mb=4000'], one)\n"
        "atheris.Fuzz()\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr[-3000:]
