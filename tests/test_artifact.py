import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from attrec import artifact
from attrec.artifact import MANIFEST, load_artifact, read_manifest, save_artifact
from attrec.errors import ArtifactError
from tests.closed import closed


def content(value=1.0):
    return {
        "summary": {"metrics": {"hit_rate@10": value}},
        "tensors": {"tables": {"X": torch.full((3, 2), value), "empty": torch.zeros(0, 2)}},
        "documents": {"vocabulary": {"ids": ["007", "ä\ud800"], "value": value}},
    }


def value_of(folder):
    """The one number that a whole artifact repeats in each of its files."""
    loaded = load_artifact(folder)
    values = {
        loaded.summary["metrics"]["hit_rate@10"],
        loaded.documents["vocabulary"]["value"],
        *loaded.tensors["tables"]["X"].flatten().tolist(),
    }
    assert len(values) == 1
    return values.pop()


def rewrite_manifest(folder, change):
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def data_file(folder, part):
    (found,) = folder.glob(f"{part}-*")
    return found


def test_what_is_saved_is_loaded(tmp_path):
    folder = tmp_path / "new" / "model"
    save_artifact(folder, **content())
    loaded = load_artifact(folder)
    assert torch.equal(loaded.tensors["tables"]["X"], torch.ones(3, 2))
    assert loaded.tensors["tables"]["empty"].shape == (0, 2)
    assert loaded.documents["vocabulary"]["ids"] == ["007", "ä\ud800"]
    assert loaded.manifest["format_version"] == 1
    assert loaded.manifest["attrec_version"] == artifact.attrec_version()
    assert loaded.manifest["created"].endswith("+00:00")
    assert sorted(p.name.split("-")[0] for p in folder.iterdir()) == [
        "manifest.json",
        "tables",
        "vocabulary",
    ]


def test_equal_content_has_equal_names_and_other_files_stay(tmp_path):
    save_artifact(tmp_path / "a", **content())
    save_artifact(tmp_path / "b", **content())
    names = [{p.name for p in (tmp_path / x).iterdir()} for x in "ab"]
    assert names[0] == names[1]
    (tmp_path / "a" / "notes.txt").write_text("mine")
    save_artifact(tmp_path / "a", **content(2.0))
    assert value_of(tmp_path / "a") == 2.0
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"
    assert len(list((tmp_path / "a").iterdir())) == 4


@pytest.mark.parametrize("read_before", [0, 1])
def test_a_model_that_is_replaced_while_it_is_read_is_read_anew(tmp_path, monkeypatch, read_before):
    save_artifact(tmp_path / "m", **content(1.0))
    check, calls = artifact._checked_file, []

    def replaced_before(*args):
        calls.append(args)
        if len(calls) == 1 + read_before:
            save_artifact(tmp_path / "m", **content(2.0))
        return check(*args)

    monkeypatch.setattr(artifact, "_checked_file", replaced_before)
    assert value_of(tmp_path / "m") == 2.0


def test_a_model_that_is_replaced_again_and_again_is_not_called_damaged(tmp_path, monkeypatch):
    save_artifact(tmp_path / "m", **content(1.0))
    check, values = artifact._checked_file, iter(range(2, 99))

    def replaced_before(*args):
        save_artifact(tmp_path / "m", **content(float(next(values))))
        return check(*args)

    monkeypatch.setattr(artifact, "_checked_file", replaced_before)
    with pytest.raises(ArtifactError, match="was replaced 10 times while it was read; load it"):
        load_artifact(tmp_path / "m")


def test_a_writer_stopped_anywhere_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    """Stop before each call that changes the folder, one after the other."""

    class Stopped(BaseException):
        pass

    stops, outcomes = 0, []
    while True:
        folder = tmp_path / str(stops)
        save_artifact(folder, **content(1.0))
        calls = iter(range(stops))

        def step(original, calls=calls):
            def stepped(*args, **kwargs):
                if next(calls, None) is None:
                    raise Stopped
                return original(*args, **kwargs)

            return stepped

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", step(Path.replace))
            patch.setattr(Path, "unlink", step(Path.unlink))
            patch.setattr(os, "fsync", step(os.fsync))
            patch.setattr(artifact, "save_file", step(artifact.save_file))
            try:
                save_artifact(folder, **content(2.0))
                finished = True
            except Stopped:
                finished = False
        outcomes.append(value_of(folder))
        save_artifact(folder, **content(3.0))
        assert value_of(folder) == 3.0
        assert len(list(folder.iterdir())) == 3
        if finished:
            break
        stops += 1
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {1.0, 2.0}
    assert outcomes[0] == 1.0


def test_a_first_save_that_was_stopped_can_be_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "_flush_folder", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_artifact(tmp_path / "m", **content())
    with pytest.raises(ArtifactError, match="no saved model"):
        load_artifact(tmp_path / "m")
    monkeypatch.undo()
    save_artifact(tmp_path / "m", **content())
    assert value_of(tmp_path / "m") == 1.0


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device"),
    ],
)
def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path, monkeypatch, error):
    def full(_, path):
        path.write_bytes(b"half a fi")
        raise error

    monkeypatch.setattr(artifact, "save_file", full)
    with pytest.raises(ArtifactError, match=r"cannot be written \(.*No space left"):
        save_artifact(tmp_path / "m", **content())
    assert list(tmp_path.iterdir()) == []


def test_a_save_stopped_at_a_renaming_leaves_no_unfinished_file(tmp_path, monkeypatch):
    def stopped(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_artifact(tmp_path / "model", **content())
    assert list((tmp_path / "model").iterdir()) == []


def test_what_is_something_else_is_not_touched(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="is a file"):
        save_artifact(tmp_path / "file", **content())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    with pytest.raises(ArtifactError, match=r"not an AttRec model \(cat.jpg"):
        save_artifact(tmp_path / "photos", **content())
    (tmp_path / "photos" / MANIFEST).write_text('{"name": "a web page"}')
    with pytest.raises(ArtifactError, match="another folder"):
        save_artifact(tmp_path / "photos", **content())
    assert (tmp_path / "photos" / MANIFEST).read_text() == '{"name": "a web page"}'


@pytest.mark.parametrize(
    ("name", "reason"), [("a" * 300, "File name too long"), ("a\0b", "embedded null")]
)
def test_a_path_that_can_be_none_is_told(tmp_path, name, reason):
    for write in (
        lambda folder: save_artifact(folder, **content()),
        artifact.check_target,
        lambda folder: save_artifact(folder / "m", **content()),
    ):
        with pytest.raises(ArtifactError, match=rf"the model cannot be written \({reason}"):
            write(tmp_path / name)
    with pytest.raises(ArtifactError, match=rf"cannot be opened \({reason}.*; give the folder"):
        load_artifact(tmp_path / name)
    with pytest.raises(ArtifactError, match=rf"the model cannot be removed \({reason}"):
        artifact.remove_artifact(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_this_account_may_not_read_is_not_called_damaged(tmp_path):
    folder = tmp_path / "sec" / "m"
    save_artifact(folder, **content())
    with closed(folder / MANIFEST):
        with pytest.raises(ArtifactError, match=r"manifest.json: this account may not read it"):
            load_artifact(folder)
        with pytest.raises(ArtifactError, match=r"may not read it.*; or save to another folder"):
            save_artifact(folder, **content())
    with closed(tmp_path / "sec"):
        with pytest.raises(ArtifactError, match="this account may not read it"):
            load_artifact(folder)
        for name in ("m", "new"):
            with pytest.raises(ArtifactError, match=r"cannot be written \(Permission denied\)"):
                save_artifact(tmp_path / "sec" / name, **content())
    assert value_of(folder) == 1.0


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_a_record_that_is_no_json_is_refused(tmp_path, value):
    with pytest.raises(ArtifactError, match="cannot be written as JSON"):
        save_artifact(tmp_path / "m", **{**content(), "summary": {"loss": value}})


def test_missing_folder_names_the_remedy(tmp_path):
    with pytest.raises(ArtifactError, match="there is no saved model"):
        load_artifact(tmp_path / "nowhere")


def test_a_newer_format_names_the_version_that_reads_it(tmp_path):
    save_artifact(tmp_path, **content())
    rewrite_manifest(tmp_path, lambda m: m.update(format_version=2, attrec_version="9.1"))
    with pytest.raises(ArtifactError, match=r"format 2 .* attrec 9.1.*'attrec>=9.1'"):
        load_artifact(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version="1"), "format_version is '1'"),
        (lambda m: m.update(format_version=True), "format_version is True"),
        (lambda m: m.update(format="zip"), "not the manifest"),
        (lambda m: m.pop("summary"), "is damaged"),
        (lambda m: m.update(files=[]), "is damaged"),
        (lambda m: m["files"].update(tables=3), "is damaged"),
        (lambda m: m["files"]["tables"].update(sha256="0" * 64), "SHA-256 is not"),
        (lambda m: m["files"]["tables"].update(bytes=None), "is damaged"),
    ],
)
def test_a_damaged_manifest_is_told(tmp_path, change, message):
    save_artifact(tmp_path, **content())
    rewrite_manifest(tmp_path, change)
    with pytest.raises(ArtifactError, match=message):
        load_artifact(tmp_path)


@pytest.mark.parametrize("outside", ["../{}", "{}"])
def test_a_manifest_names_no_file_outside_its_folder(tmp_path, outside):
    save_artifact(tmp_path / "m", **content())
    moved = data_file(tmp_path / "m", "tables").rename(tmp_path / "tables-0123456789abcdef.json")
    name = outside.format(moved.name if outside.startswith("..") else moved)
    rewrite_manifest(tmp_path / "m", lambda m: m["files"]["tables"].update(name=name))
    with pytest.raises(ArtifactError, match="list of files has not the form"):
        load_artifact(tmp_path / "m")


@pytest.mark.parametrize("text", ["{", "[]", "\xff", "[" * 100_000, "null"])
def test_a_manifest_that_is_no_json_object_is_told(tmp_path, text):
    (tmp_path / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError):
        read_manifest(tmp_path)


@pytest.mark.parametrize("part", ["tables", "vocabulary"])
def test_damaged_files_are_told(tmp_path, part):
    save_artifact(tmp_path, **content())
    file = data_file(tmp_path, part)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match="bytes where"):
        load_artifact(tmp_path)
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(ArtifactError, match="SHA-256"):
            load_artifact(tmp_path)
    file.unlink()
    with pytest.raises(ArtifactError, match="No such file"):
        load_artifact(tmp_path)


@pytest.mark.parametrize(
    ("part", "text"), [("tables", b"no tensors"), ("vocabulary", b"[1]"), ("vocabulary", b"{")]
)
def test_files_that_match_their_hash_but_are_no_such_file(tmp_path, part, text):
    save_artifact(tmp_path, **content())
    file = data_file(tmp_path, part)
    file.write_bytes(text)
    entry = {"bytes": len(text), "sha256": artifact._sha256(file)}
    rewrite_manifest(tmp_path, lambda m: m["files"][part].update(entry))
    with pytest.raises(ArtifactError, match="is damaged"):
        load_artifact(tmp_path)


def test_only_what_was_saved_is_removed(tmp_path):
    save_artifact(tmp_path / "m", **content())
    (tmp_path / "m" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="is no checkpoint, and is not removed"):
        artifact.remove_artifact(tmp_path / "m", artifact.CHECKPOINT)
    artifact.remove_artifact(tmp_path / "m")
    assert [file.name for file in (tmp_path / "m").iterdir()] == ["notes.txt"]
    save_artifact(tmp_path / "damaged", **content())
    (tmp_path / "damaged" / MANIFEST).write_text("{")
    artifact.remove_artifact(tmp_path / "damaged")
    artifact.remove_artifact(tmp_path / "damaged")
    assert not (tmp_path / "damaged").exists()
