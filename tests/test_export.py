"""Vectors as files: what they hold, that they appear whole, what is refused."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import attrec
from attrec import export as export_module
from attrec.data.vocabulary import Vocabulary
from attrec.errors import ArtifactError, MissingExtraError, RequestError
from attrec.export import NAMES, export, fingerprint
from attrec.recommender import Recommender
from attrec.retrieval.approximate import load_faiss
from attrec.retrieval.vectors import item_keys, query_vectors
from attrec.updating import update
from tests.command_line import run_cli

SMALL = {"embedding_dim": 8, "window_length": 5, "batch_size": 200, "max_epochs": 1}
OPTIONS = {"paper": {"preset": "paper-sparse"}, "additive": {"architecture": "additive"}}


def trained(architecture):
    log = attrec.simulate("mixed", num_users=70, num_items=50, events_per_user=9, seed=1)
    return attrec.fit(log, **SMALL, **OPTIONS[architecture]).recommender


@pytest.fixture(scope="module", params=OPTIONS)
def model(request):
    return trained(request.param)


@pytest.fixture(scope="module")
def one():
    return trained("additive")


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def table(folder, name):
    return pq.read_table(folder / name).to_pydict()


def test_the_files_hold_keys_queries_and_what_was_taken(model, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "_USERS_AT_ONCE", 8)
    monkeypatch.setattr(export_module, "_BLOCKS_A_GROUP", 3)
    monkeypatch.setattr(export_module, "_NUMBERS_AT_ONCE", 100)
    folder = tmp_path / "deep" / "vectors"
    manifest = export(model, folder)
    assert manifest == read(folder, "manifest.json")
    keys = item_keys(model.network).numpy()
    everybody = np.arange(model.vocabulary.num_users)
    queries = query_vectors(model.network, everybody, model.histories.histories).float().numpy()
    for role, ids, vectors in (
        ("item", model.vocabulary.item_ids, keys),
        ("user", model.vocabulary.user_ids, queries),
    ):
        array, rows = np.load(folder / f"{role}s.npy"), table(folder, f"{role}s.parquet")
        assert array.dtype == np.float32
        assert np.array_equal(array, vectors)
        assert np.array_equal(np.array(rows["vector"], dtype=np.float32), vectors)
        assert rows[f"{role}_id"] == read(folder, f"{role}s.ids.json") == ids.tolist()
    seen = table(folder, "seen.parquet")
    pairs = list(zip(seen["user_id"], seen["item_id"], strict=True))
    assert sorted(pairs) == sorted(
        {
            (user, model.vocabulary.item_ids[item])
            for user, taken in zip(
                model.vocabulary.user_ids.tolist(), model.histories.histories, strict=True
            )
            for item in taken
        }
    )
    assert manifest["users"]["seen"] == len(pairs)
    assert manifest["dimension"] == keys.shape[1]
    assert manifest["long_term_width"] == (8 if manifest["architecture"] == "paper" else 0)
    assert manifest["metric"] == "squared Euclidean"
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert {*manifest["files"], "manifest.json"} == {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_an_index_of_the_keys_with_its_measured_recall(model, tmp_path, kind):
    manifest = export(model, tmp_path / "v", users=False, index=kind, recall=0.9)
    assert manifest["users"] is None
    assert {file.name for file in (tmp_path / "v").iterdir()} == {
        name for name in NAMES if not name.startswith(("users", "seen"))
    }
    found = load_faiss(tmp_path / "v" / "items.faiss", item_keys(model.network))
    assert found.kind == kind
    assert manifest["index"]["parameters"] == found.parameters
    assert manifest["index"]["recall"]["recall"] == found.recall.recall >= 0.9
    assert manifest["index"]["recall"]["queries"] == model.vocabulary.num_users


def test_users_of_whom_nothing_is_known_are_left_out(one, tmp_path):
    known = one.vocabulary
    users = np.array([*map(str, known.user_ids), "zzz"], dtype=object)
    vocabulary = Vocabulary(users, known.item_ids, known.num_trained_users)
    lists = [*one.histories.histories, []]
    histories = type(one.histories)(type(one.histories.histories).from_lists(lists))
    extended = Recommender(one.network, vocabulary, histories, one.options)
    manifest = export(extended, tmp_path / "v")
    assert manifest["users"]["left_out"] == 1
    assert manifest["users"]["id"] == "string"
    assert "zzz" not in read(tmp_path / "v", "users.ids.json")
    assert manifest["fingerprint"] != fingerprint(one)


def test_items_that_came_later_are_there_and_those_nothing_is_known_of_are_not(model, tmp_path):
    user = model.vocabulary.user_ids[0]
    known = model.vocabulary.item_ids[model.histories.histories[0]][:3].tolist()
    rows = [(user, item) for item in [*known, 900]] + [(777, 901)]
    users, items = zip(*rows, strict=True)
    times = [2e9 + n for n in range(len(rows))]
    log = attrec.InteractionLog.from_columns(list(users), list(items), times)
    later = update(model, log).recommender
    assert {900, 901} <= set(later.vocabulary.item_ids.tolist())
    manifest = export(later, tmp_path / "v", index="flat")
    items = read(tmp_path / "v", "items.ids.json")
    assert 900 in items
    assert 901 not in items
    assert manifest["items"]["left_out"] == 1
    assert manifest["items"]["count"] == len(items) == later.vocabulary.num_items - 1
    assert set(table(tmp_path / "v", "seen.parquet")["item_id"]) <= set(items)
    keys, queries = (np.load(tmp_path / "v" / f"{name}.npy") for name in ("items", "users"))
    assert keys.shape == (len(items), queries.shape[1])
    index = load_faiss(tmp_path / "v" / "items.faiss", torch.from_numpy(keys))
    for place, asked in enumerate(read(tmp_path / "v", "users.ids.json")[:20]):
        query = torch.from_numpy(queries[place : place + 1]).double()
        found = [items[row] for row in index.search(query, 8).indices[0]]
        assert found == [a.item_id for a in later.recommend(asked, k=8, exclude_seen=False)]
    assert manifest["fingerprint"] != fingerprint(model)


def test_the_fingerprint_is_that_of_the_vectors(one, tmp_path):
    one.save(tmp_path / "model")
    again = attrec.load(tmp_path / "model")
    assert fingerprint(again) == fingerprint(one)
    titled = Recommender(
        one.network, one.vocabulary, one.histories, one.options, {"1": "A title"}, {"a": 1}
    )
    assert fingerprint(titled) == fingerprint(one)
    with torch.no_grad():
        next(iter(again.network.parameters()))[0, 0] += 1e-3
    assert fingerprint(again) != fingerprint(one)


def test_an_export_takes_the_place_of_an_earlier_one(one, tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    export(one, folder, index="flat")
    export(one, folder, users=False)
    assert not (folder / "items.faiss").exists()
    assert not (folder / "users.npy").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["v"]


@pytest.mark.parametrize("stage", ["_write_vectors", "_write_seen", "tune_recall", "_entry"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_writer_that_stops_anywhere_leaves_what_was_there(
    one, tmp_path, monkeypatch, stage, earlier
):
    folder = tmp_path / "v"
    if earlier:
        export(one, folder, users=False)
    before = {file.name: file.read_bytes() for file in folder.glob("*")}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, stage, full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        export(one, folder, index="flat")
    assert {file.name: file.read_bytes() for file in folder.glob("*")} == before
    assert [entry.name for entry in tmp_path.iterdir()] == (["v"] if earlier else [])


def test_when_the_new_cannot_take_its_place_the_old_comes_back(one, tmp_path, monkeypatch):
    folder = tmp_path / "v"
    export(one, folder, users=False)
    rename = type(folder).rename

    def sometimes(self, target):
        if self.name.endswith(".tmp"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(type(folder), "rename", sometimes)
    with pytest.raises(ArtifactError, match="Input/output error"):
        export(one, folder)
    assert [entry.name for entry in tmp_path.iterdir()] == ["v"]
    assert not (folder / "users.npy").exists()


def test_what_is_somebody_elses_is_left_alone(one, tmp_path):
    one.save(tmp_path / "model")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    export(one, tmp_path / "v", users=False)
    (tmp_path / "v" / "mine.txt").write_text("mine")
    for name, message in (
        ("model", "no export of vectors"), ("file", "is a file"),
        ("notes", "no export of vectors"), ("v", r"no export of vectors \(mine.txt\)"),
    ):  # fmt: skip
        with pytest.raises(ArtifactError, match=message):
            export(one, tmp_path / name)
    assert (tmp_path / "v" / "mine.txt").read_text() == "mine"
    with pytest.raises(ArtifactError, match="cannot be written"):
        export(one, tmp_path / "file" / "v")


def test_what_cannot_be_had_is_told_before_anything_is_written(one, tmp_path, monkeypatch):
    for arguments, error, message in (
        ({"index": "tree"}, RequestError, "choose one of flat, ivf, hnsw"),
        ({"index": "ivf", "recall": 2.0}, RequestError, "above 0 and at most 1"),
        ({"recall": 0.99}, RequestError, "recall = 0.99: is of an index; choose one with it"),
    ):
        with pytest.raises(error, match=message):
            export(one, tmp_path / "v", **arguments)
    for module, arguments in (("faiss", {"index": "flat"}), ("pyarrow", {})):
        with monkeypatch.context() as patch:
            patch.setitem(__import__("sys").modules, module, None)
            with pytest.raises(MissingExtraError, match=r"pip install 'attrec\[vectors\]'"):
                export(one, tmp_path / "v", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_wrote(one, tmp_path):
    one.save(tmp_path / "model")
    code, text = run_cli(
        tmp_path, ["export", "model", "--out", "v", "--index", "ivf", "--recall", "0.8"],
        columns=100,
    )  # fmt: skip
    manifest = read(tmp_path / "v", "manifest.json")
    assert code == 0
    assert f"50 items, {manifest['dimension']} numbers each" in text
    assert "70 users, " in text
    assert "nprobe" in text
    shutil.rmtree(tmp_path / "v")
    command = ["export", "model", "--out", "v", "--items-only", "--json"]
    code, text = run_cli(tmp_path, command, columns=100)
    assert code == 0
    assert json.loads(text[text.index("{") :]) == read(tmp_path / "v", "manifest.json")
    code, text = run_cli(tmp_path, ["export", "model", "--out", "model"], columns=200)
    assert code == 2
    assert "no export of vectors" in text
    command = ["export", "model", "--out", "other", "--recall", "0.99"]
    code, text = run_cli(tmp_path, command, columns=200)
    assert code == 2
    assert "recall = 0.99: is of an index; choose one with it" in text
    assert not (tmp_path / "other").exists()
    for inside, noun in (("model/vectors", "model"), ("v/more", "vectors")):
        code, text = run_cli(tmp_path, ["export", "model", "--out", inside], columns=200)
        assert code == 2
        assert f"is for the {noun} alone; give --out a place outside of it" in text
        assert not (tmp_path / inside).exists()


def test_the_folder_one_is_in_is_not_replaced(tmp_path, monkeypatch):
    log = attrec.simulate("community", num_users=20, num_items=20, events_per_user=8, seed=1)
    model = attrec.fit(log, preset="paper-sparse", max_epochs=1, embedding_dim=4).recommender
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    for place in (".", "..", tmp_path / "a"):
        with pytest.raises(ArtifactError, match="is the folder you are in"):
            export(model, place)
    export(model, "vectors")
    assert (tmp_path / "a" / "b" / "vectors" / "items.npy").exists()


def test_a_path_that_can_be_none_is_told(one, tmp_path):
    for name, reason in (("a" * 300, "File name too long"), ("a\0b", "embedded null")):
        with pytest.raises(ArtifactError, match=rf"vectors cannot be written \({reason}"):
            export(one, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_links_that_lead_in_a_circle_are_told(one, tmp_path):
    one.save(tmp_path / "model")
    (tmp_path / "round").symlink_to("round")
    for place in ("round", "round/v"):
        with pytest.raises(ArtifactError, match="vectors cannot be written"):
            export(one, tmp_path / place)
        code, text = run_cli(tmp_path, ["export", "model", "--out", place], columns=200)
        assert code == 2
        assert "vectors cannot be written" in text
    code, text = run_cli(tmp_path, ["update", "model", "new.csv", "--out", "round"], columns=200)
    assert code == 2
    assert "the model cannot be written" in text
    log = "user,item,time\n" + "".join(f"{n % 9},{n % 7},{n}\n" for n in range(99))
    (tmp_path / "log.csv").write_text(log)
    for command in (["train", "log.csv", "--out"], ["data", "simulate", "mixed", "--out"]):
        code, text = run_cli(tmp_path, [*command, "round/x"], columns=200)
        assert code == 2
        assert "cannot be written" in text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.csv", "model", "round"]
