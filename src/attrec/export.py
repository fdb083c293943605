"""Keys and queries as files for any engine: numpy, FAISS, DuckDB, PostgreSQL, whatever reads them.

::

    vectors/
    ├── manifest.json        what the vectors are, and SHA-256 and size of every other file
    ├── items.parquet        item_id, vector
    ├── items.npy            the vectors again, float32 (N, D)
    ├── items.ids.json       the id of each row of items.npy; the row is the id in items.faiss
    ├── items.faiss          by choice, with items.faiss.json: its parameters and measured recall
    ├── users.parquet        user_id, vector: the query of every user; with users.npy and .ids.json
    └── seen.parquet         user_id, item_id: what each user took of these items, once

The squared Euclidean distance of a user's vector and an item's is what AttRec ranks by.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.artifact import MANIFEST, attrec_version
from attrec.data.interactions import IdArray
from attrec.errors import ArtifactError, MissingExtraError, RequestError, in_one_line
from attrec.files import real_path
from attrec.recommender import Recommender
from attrec.request import Asked
from attrec.retrieval.approximate import KINDS, check_recall, need_faiss, tune_recall
from attrec.retrieval.index import ExactIndex
from attrec.retrieval.vectors import item_keys, long_term_width, query_vectors
from attrec.stored_model import StoredModel, to_artifact

FORMAT, FORMAT_VERSION = "attrec-vectors", 1
NAMES = frozenset({
    MANIFEST, "items.parquet", "items.npy", "items.ids.json", "items.faiss", "items.faiss.json",
    "users.parquet", "users.npy", "users.ids.json", "seen.parquet",
})  # fmt: skip
"""All that a folder of vectors ever holds."""
LEFT_OVER = re.compile(r"\..+\.[0-9a-f]{32}\.(tmp|old)")
"""Names of folders that an export which was killed may have left beside its own."""
_USERS_AT_ONCE = 1024
_BLOCKS_A_GROUP = 16
_NUMBERS_AT_ONCE = 1 << 23
_RECALL = 0.99
_TUNED_ON = 1000
"""Queries, drawn from all of them, by which recall is measured."""

Floats = npt.NDArray[np.float32]


def export(
    recommender: Recommender,
    folder: str | Path,
    *,
    users: bool = True,
    index: str | None = None,
    recall: float | None = None,
) -> dict[str, Any]:
    """Write the vectors of a model, whole or not at all.

    An earlier export in that folder is replaced, and stays as it was where the writing fails. What
    is written lies beside it until then, in a hidden folder ``.NAME.….tmp``: a process that is
    killed leaves that behind, users' queries and all, and nothing removes it. One that is killed
    between the two renamings at the end leaves the earlier export there too, as ``.NAME.….old``.

    Parameters
    ----------
    recommender : Recommender
    folder : path
    users : bool
        Write the users' queries and what they took, too. Users of whom nothing is known to rank by
        are left out; so are, always, new items of which nothing is known yet.
    index : {"flat", "ivf", "hnsw"}, optional
        Build this FAISS index.
    recall : float, 0 < recall ≤ 1, optional
        What share of the 50 nearest items the index must find; its parameters are chosen so, on
        queries of this model. 0.99 unless given.

    Returns
    -------
    dict
        The manifest: dimension, metric, long-term width, fingerprint of the model, counts, files.

    Raises
    ------
    RequestError
        There is no such index, it does not reach the recall, or a recall is given without one.
    ArtifactError
        The folder holds something else, or cannot be written.
    MissingExtraError
        PyArrow or FAISS is not installed.
    """
    _arrow()
    if index is not None:
        if index not in KINDS:
            raise RequestError(f"index = {index!r}: choose one of {', '.join(KINDS)}")
        need_faiss()
    if recall is not None:
        if index is None:
            raise RequestError(f"recall = {recall!r}: is of an index; choose one with it, as ivf")
        check_recall(recall)
    try:
        path = real_path(folder)
        _check_target(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise _unwritable(folder, error) from error
    with _replaced_whole(path) as unfinished:
        manifest = _manifest(recommender)
        placed = _placed(recommender)
        keys = item_keys(recommender.network).cpu()[torch.from_numpy(placed)]
        manifest["dimension"] = keys.shape[1]
        manifest["items"] = _items(unfinished, recommender, placed, keys)
        asked = _everybody(recommender)
        if users:
            manifest["users"] = _users(unfinished, recommender, asked, keys.shape[1])
            seen = _write_seen(unfinished / "seen.parquet", recommender, placed)
            manifest["users"]["seen"] = seen
        if index is not None:
            built = KINDS[index](keys)
            wanted = _RECALL if recall is None else recall
            tune_recall(built, ExactIndex(keys), _drawn(recommender, asked, keys), wanted)
            manifest["index"] = {"file": "items.faiss", **built.save(unfinished / "items.faiss")}
        manifest["files"] = {file.name: _entry(file) for file in sorted(unfinished.iterdir())}
        _write_json(unfinished / MANIFEST, manifest, indent=2)
    return manifest


def fingerprint(recommender: Recommender) -> str:
    """Return the SHA-256 of what decides a model's vectors: tables, options, ids and histories."""
    parts = to_artifact(
        StoredModel(
            recommender.network,
            recommender.vocabulary,
            recommender.histories,
            recommender.options,
            titles={},
            record={},
        )
    )
    digest = hashlib.sha256()
    for part, tensors in sorted(parts["tensors"].items()):
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{part} {name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
    vocabulary = parts["documents"]["vocabulary"]
    for document in (parts["summary"]["options"]["model"], vocabulary):
        digest.update(json.dumps(document, sort_keys=True).encode())
    return digest.hexdigest()


def _manifest(recommender: Recommender) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "attrec_version": attrec_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": fingerprint(recommender),
        "architecture": recommender.options.model.architecture,
        "metric": "squared Euclidean",
        "metric_note": "smaller is nearer; engines that return the Euclidean distance itself "
        "(array_distance, <->) give its root, in the same order",
        "dimension": 0,
        "long_term_width": long_term_width(recommender.network),
        "items": None,
        "users": None,
        "index": None,
    }


def _placed(recommender: Recommender) -> npt.NDArray[np.int64]:
    """(n,) int64: the items that a list may hold; of the others nothing is known yet."""
    unplaced = recommender.network.unplaced.cpu().numpy()
    return np.setdiff1d(np.arange(recommender.vocabulary.num_items), unplaced)


def _items(
    folder: Path, recommender: Recommender, placed: npt.NDArray[np.int64], keys: torch.Tensor
) -> dict[str, Any]:
    vocabulary = recommender.vocabulary
    ids = vocabulary.item_ids[placed]
    step = max(1, _NUMBERS_AT_ONCE // keys.shape[1])
    blocks = (keys[start : start + step].numpy() for start in range(0, len(keys), step))
    _write_vectors(folder, "item", ids, blocks, keys.shape[1])
    return {
        "count": len(ids),
        "id": vocabulary.item_kind,
        "left_out": vocabulary.num_items - len(ids),
    }


def _everybody(recommender: Recommender) -> Asked:
    """Return all users of whom something is known to rank by."""
    rows = np.flatnonzero(recommender.answerable)
    names, histories = recommender.vocabulary.user_ids[rows], recommender.histories.histories
    return Asked(names, rows, histories.take(rows))


def _users(folder: Path, recommender: Recommender, asked: Asked, width: int) -> dict[str, Any]:
    vocabulary = recommender.vocabulary
    _write_vectors(folder, "user", asked.names, _queries(recommender, asked), width)
    return {
        "count": len(asked.names),
        "id": vocabulary.user_kind,
        "left_out": vocabulary.num_users - len(asked.names),
    }


def _queries(recommender: Recommender, asked: Asked) -> Iterator[Floats]:
    """Yield the queries of users, many at a time."""
    rows = np.arange(len(asked.names))
    for start in range(0, len(rows), _USERS_AT_ONCE * _BLOCKS_A_GROUP):
        group = rows[start : start + _USERS_AT_ONCE * _BLOCKS_A_GROUP]
        yield np.concatenate([
            _query_vectors(recommender, asked.take(part)).float().numpy()
            for part in np.split(group, range(_USERS_AT_ONCE, len(group), _USERS_AT_ONCE))
        ])  # fmt: skip


def _query_vectors(recommender: Recommender, asked: Asked) -> torch.Tensor:
    return query_vectors(recommender.network, asked.user_index, asked.histories).cpu()


def _drawn(recommender: Recommender, asked: Asked, keys: torch.Tensor) -> torch.Tensor:
    """Return queries of users, drawn from all; where there are no users, keys of items."""
    count = len(asked.names)
    if not count:
        return keys[:_TUNED_ON].double()
    drawn = np.random.default_rng(0).permutation(count)[:_TUNED_ON]
    return _query_vectors(recommender, asked.take(np.sort(drawn)))


def _write_vectors(
    folder: Path, role: str, ids: IdArray, blocks: Iterable[Floats], width: int
) -> None:
    """Write a table, an array and its ids side by side, one block in memory at a time."""
    pa, pq = _arrow()
    kind = _arrow_kind(pa, ids)
    schema = pa.schema([(f"{role}_id", kind), ("vector", pa.list_(pa.float32()))])
    _write_json(folder / f"{role}s.ids.json", ids.tolist())
    first = 0
    with (
        (folder / f"{role}s.npy").open("wb") as array,
        pq.ParquetWriter(folder / f"{role}s.parquet", schema) as table,
    ):
        np.lib.format.write_array_header_1_0(
            array, {"descr": "<f4", "fortran_order": False, "shape": (len(ids), width)}
        )
        for block in blocks:
            numbers = np.ascontiguousarray(block, dtype="<f4")
            array.write(numbers.data)
            edges = np.arange(0, numbers.size + 1, width, dtype=np.int32)
            vectors = pa.ListArray.from_arrays(pa.array(edges), pa.array(numbers.ravel()))
            part = pa.array(ids[first : first + len(block)].tolist(), type=kind)
            table.write_table(pa.Table.from_arrays([part, vectors], schema=schema))
            first += len(block)


def _write_seen(path: Path, recommender: Recommender, placed: npt.NDArray[np.int64]) -> int:
    """Write each user's distinct items, of those exported; return how many pairs there are."""
    pa, pq = _arrow()
    vocabulary, histories = recommender.vocabulary, recommender.histories.histories
    kinds = [_arrow_kind(pa, ids) for ids in (vocabulary.user_ids, vocabulary.item_ids)]
    schema = pa.schema(list(zip(("user_id", "item_id"), kinds, strict=True)))
    items = vocabulary.num_items
    is_placed = np.zeros(items, dtype=bool)
    is_placed[placed] = True
    step, count = _USERS_AT_ONCE * _BLOCKS_A_GROUP, 0
    with pq.ParquetWriter(path, schema) as table:
        for start in range(0, len(histories), step):
            part = histories.take(slice(start, start + step))
            part = part.where(is_placed[part.values])
            pairs = np.unique(part.row_of_value * items + part.values.astype(np.int64))
            users, taken = start + pairs // items, pairs % items
            columns = [
                pa.array(ids.tolist(), type=kind)
                for ids, kind in zip(
                    (vocabulary.decode_users(users), vocabulary.decode_items(taken)),
                    kinds,
                    strict=True,
                )
            ]
            table.write_table(pa.Table.from_arrays(columns, schema=schema))
            count += len(pairs)
    return count


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("PyArrow", "vectors", "writing vectors as Parquet") from error
    return pyarrow, pyarrow.parquet


def _arrow_kind(pa: Any, ids: IdArray) -> Any:
    return pa.int64() if ids.dtype.kind in "iu" else pa.string()


def _write_json(path: Path, content: Any, indent: int | None = None) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=indent, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def _entry(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"sha256": digest, "bytes": file.stat().st_size}


def _check_target(folder: Path) -> None:
    """Refuse a place that holds something that `export` did not write, or that one is in."""
    if not folder.exists():
        return
    if Path.cwd().resolve().is_relative_to(folder):
        raise ArtifactError(
            f"{folder}: is the folder you are in, and an export replaces its folder as a whole; "
            "name another, such as vectors"
        )
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: is a file; give a folder for the vectors")
    names = {entry.name for entry in folder.iterdir()}
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes()) if names else {"format": FORMAT}
        ours = manifest.get("format") == FORMAT
    except (OSError, ValueError, AttributeError, RecursionError):
        ours = False
    if not ours or names - NAMES:
        strange = min(names - NAMES, default=MANIFEST)
        raise ArtifactError(
            f"{folder}: holds something that is no export of vectors ({strange}); give a new or an "
            "empty folder"
        )


@contextlib.contextmanager
def _replaced_whole(folder: Path) -> Iterator[Path]:
    """Give a new folder beside; it takes the place of the old one when all is written.

    Two renamings: whoever stops the process between them leaves both folders whole beside the
    place, the old one under a name that ends in ``.old``.
    """
    own = uuid.uuid4().hex
    unfinished, old = (folder.with_name(f".{folder.name}.{own}.{end}") for end in ("tmp", "old"))
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        for file in unfinished.iterdir():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        if folder.exists():
            folder.rename(old)
            try:
                unfinished.rename(folder)
            except BaseException:
                old.rename(folder)
                raise
            shutil.rmtree(old)
        else:
            unfinished.rename(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unwritable(folder: str | Path, error: OSError | ValueError) -> ArtifactError:
    return ArtifactError(
        f"{folder}: the vectors cannot be written ({in_one_line(error)}); "
        "choose a place that is writable and has room"
    )
