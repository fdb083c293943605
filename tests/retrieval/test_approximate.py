"""FAISS behind the contract: recall is measured, files are whole, what it misses is made up for."""

import json

import faiss
import numpy as np
import pytest
import torch

from attrec.data.ragged import Ragged
from attrec.errors import ArtifactError, MissingExtraError, RequestError
from attrec.retrieval import approximate
from attrec.retrieval.approximate import (
    KINDS,
    FaissFlat,
    FaissHNSW,
    FaissIVF,
    load_faiss,
    tune_recall,
)
from attrec.retrieval.index import ExactIndex


def clustered(n, seed, d=16):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(60, d))
    vectors = centres[random.integers(0, 60, n)] + 0.5 * random.normal(size=(n, d))
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def keys():
    return clustered(6000, 1).float()


@pytest.fixture(scope="module")
def queries():
    return clustered(120, 2)


def by_faiss_alone(index, queries, k, folder):
    index.save(folder / "items.faiss")
    return faiss.read_index(str(folder / "items.faiss")).search(queries.float().numpy(), k)[1]


def hits(found, expected):
    pairs = zip(found.tolist(), expected.tolist(), strict=True)
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs])


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_the_effort_is_the_least_that_reaches_the_asked_for_recall(keys, queries, kind, tmp_path):
    exact, index = ExactIndex(keys), KINDS[kind](keys)
    chosen = []
    for target in (0.6, 0.99):
        recall = tune_recall(index, exact, queries, target, k=30)
        assert index.recall == recall
        assert (recall.k, recall.target, recall.queries) == (30, target, 120)
        expected = exact.search(queries, 30).indices
        # What FAISS finds; the contract's own search fills short lists up.
        alone = hits(by_faiss_alone(index, queries, 30, tmp_path), expected)
        assert alone == pytest.approx(recall.recall, abs=1e-3)
        assert hits(index.search(queries, 30).indices, expected) >= recall.recall - 1e-12
        assert recall.recall >= target
        chosen.append(index.effort)
    least, most = index.efforts
    assert least <= chosen[0] < chosen[1] < most
    index.effort = chosen[1] - max(1, chosen[1] // 8)
    found = index.search(queries, 30)
    assert (found.distances <= exact.search(queries, 30).distances[:, -1:]).mean() < 0.99


def test_what_exact_search_adds_to_short_lists_is_no_recall_of_the_index(keys, queries, tmp_path):
    index, exact = FaissIVF(keys, lists=600), ExactIndex(keys)
    recall = tune_recall(index, exact, queries, 0.6)
    assert recall.recall >= 0.6
    found = by_faiss_alone(index, queries, 50, tmp_path)
    expected = exact.search(queries, 50).indices
    assert hits(found, expected) == pytest.approx(recall.recall, abs=1e-3)


def test_a_flat_index_needs_no_choice(keys, queries):
    recall = tune_recall(FaissFlat(keys), ExactIndex(keys), queries, 1.0)
    assert recall.recall == 1.0


def test_a_recall_out_of_reach_is_told(keys, queries, monkeypatch):
    monkeypatch.setattr(approximate, "_HIGHEST_EF", 32)
    index = FaissHNSW(keys, neighbours=4, construction=4, ef=20)
    with pytest.raises(RequestError, match=r"finds 0\.\d+ of the nearest items at most"):
        tune_recall(index, ExactIndex(keys), queries, 1.0)
    assert index.effort == 20
    assert index.recall is None
    with pytest.raises(RequestError, match="above 0 and at most 1"):
        tune_recall(index, ExactIndex(keys), queries, 1.5)
    with pytest.raises(RequestError, match="without queries"):
        tune_recall(index, ExactIndex(keys), queries[:0], 0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_narrow_filter_is_looked_at_more_closely(keys, queries, kind, monkeypatch):
    monkeypatch.setattr(approximate, "_FEW_ITEMS", 0)
    monkeypatch.setattr(approximate, "_SMALL_SHARE", 0.0)
    index = KINDS[kind](keys)
    allow = np.random.default_rng(3).choice(6000, 120, replace=False)
    exclude = Ragged.from_lists([allow[:60].tolist()] * len(queries))
    found = index.search(queries, 50, allow=allow, exclude=exclude)
    expected = ExactIndex(keys).search(queries, 50, allow=allow, exclude=exclude)
    assert (found.indices >= 0).all()
    hits = (found.distances <= expected.distances[:, -1:]).mean()
    # The others look at every key then; a graph of tight clusters is not wholly connected.
    assert hits > 0.95 if kind == "hnsw" else hits == 1.0


def test_long_lists_of_seen_items_leave_k(keys, queries):
    near = ExactIndex(keys).search(queries, 700).indices
    index = FaissIVF(keys, probes=1)
    found = index.search(queries, 40, exclude=Ragged.from_lists(near.tolist()))
    assert (found.indices >= 0).all()
    assert not any(set(a) & set(b) for a, b in zip(found.indices, near, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_index_finds_the_same_with_its_parameters(keys, queries, kind, tmp_path):
    index = KINDS[kind](keys)
    tune_recall(index, ExactIndex(keys), queries, 0.9, k=10)
    document = index.save(tmp_path / "items.faiss")
    assert document == json.loads((tmp_path / "items.faiss.json").read_text())
    assert document["recall"]["recall"] == index.recall.recall
    assert document["parameters"] == index.parameters
    assert sorted(f.name for f in tmp_path.iterdir()) == ["items.faiss", "items.faiss.json"]
    loaded = load_faiss(tmp_path / "items.faiss", keys)
    assert type(loaded) is type(index)
    assert (loaded.effort, loaded.recall) == (index.effort, index.recall)
    first, second = index.search(queries, 10), loaded.search(queries, 10)
    assert first.indices.tolist() == second.indices.tolist()
    assert first.distances.tolist() == second.distances.tolist()
    bare = faiss.read_index(str(tmp_path / "items.faiss"))
    items = bare.search(queries.float().numpy(), 10)[1]
    limit = ExactIndex(keys).search(queries, 10).distances[:, -1:]
    distances = ((queries[:, None].numpy() - keys.double().numpy()[items]) ** 2).sum(axis=2)
    assert (distances <= limit + 1e-9).mean() > 0.85


def test_a_file_that_does_not_belong_is_told(keys, tmp_path, monkeypatch):
    path = tmp_path / "items.faiss"
    with pytest.raises(ArtifactError, match="is missing"):
        load_faiss(path, keys)
    FaissFlat(keys).save(path)
    with pytest.raises(ArtifactError, match="other keys"):
        load_faiss(path, keys + 1)
    beside = path.with_name("items.faiss.json")
    text = beside.read_text()
    for change in ({"kind": "tree"}, {"parameters": None}, {"recall": {"recall": 1}}):
        beside.write_text(json.dumps({**json.loads(text), **change}))
        with pytest.raises(ArtifactError, match="damaged"):
            load_faiss(path, keys)
    beside.write_text(text)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="not the file that its JSON names"):
        load_faiss(path, keys)
    with pytest.raises(RequestError, match="cannot be written"):
        FaissFlat(keys).save(path / "under-a-file.faiss")


def test_a_full_disk_leaves_the_old_index(keys, tmp_path, monkeypatch):
    path = tmp_path / "items.faiss"
    FaissFlat(keys).save(path)
    before = path.read_bytes()

    def full(*_):
        raise RuntimeError("Error in faiss::write at io.cpp:1: Error: 'f' failed: No space left")

    monkeypatch.setattr(faiss, "write_index", full)
    with pytest.raises(RequestError, match=r"cannot be written \(No space left\)"):
        FaissFlat(keys[:9]).save(path)
    assert path.read_bytes() == before
    assert sorted(f.name for f in tmp_path.iterdir()) == ["items.faiss", "items.faiss.json"]


def test_the_number_of_threads_is_as_before(keys, queries):
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(2)
        FaissFlat(keys).search(queries[:1], 3)
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)


def test_without_faiss_the_install_command_is_named(keys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'attrec\[vectors\]'"):
        FaissFlat(keys)
