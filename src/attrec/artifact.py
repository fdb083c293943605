"""A saved model: one folder of safetensors and JSON, switched from old to new in one step.

::

    model/
    ├── manifest.json                     what it is, and the name and SHA-256 of every data file
    ├── tables-<hash>.safetensors         tensors
    ├── …
    └── vocabulary-<hash>.json            documents

A data file's name holds the start of its content's hash, so a new file never replaces a different
one. Data files are written first; replacing ``manifest.json`` is the single switch; then files that
it no longer names are removed. Whoever stops the writer at any moment leaves the old model or the
new one, whole. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from attrec.errors import ArtifactError, CheckpointError, in_one_line
from attrec.files import UNFINISHED, Writer, locked, try_writing, unfinished

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PAGE = "report.html"
"""What `attrec report` writes into the folder of a model; it goes when another model comes."""
LOCK = ".attrec-lock"
"""Stands in the folder of a checkpoint while a training is at work there."""
_LOADS = 10
"""How often the reading begins, where a writer replaces what is read."""
_DATA_NAME = re.compile(r"[a-z]+-[0-9a-f]{16}\.(safetensors|json)")

Tensors = Mapping[str, torch.Tensor]
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """What a folder is for: the name of its format, and how a person speaks of it."""

    format: str
    noun: str
    writer: str
    remedy: str


MODEL = Kind(
    "attrec-model", "model", "`attrec train` or Recommender.save",
    "copy the whole folder again, or retrain",
)  # fmt: skip
CHECKPOINT = Kind(
    "attrec-checkpoint", "checkpoint", "a training that was stopped",
    "remove it, and the training starts again",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Artifact:
    """What a folder holds.

    Attributes
    ----------
    manifest : dict
        ``format``, ``format_version``, ``attrec_version``, ``created`` (UTC), the caller's
        ``summary``, and ``files``.
    tensors : dict of dict of tensor
        By part, then by name.
    documents : dict of dict
        JSON, by part.
    """

    manifest: dict[str, Any]
    tensors: dict[str, dict[str, torch.Tensor]]
    documents: dict[str, dict[str, Any]]

    @property
    def summary(self) -> dict[str, Any]:
        """What the caller of `save_artifact` wrote about the model."""
        summary: dict[str, Any] = self.manifest["summary"]
        return summary


def attrec_version() -> str:
    """Return the installed version of this package."""
    return importlib.metadata.version("attrec")


def save_artifact(
    folder: str | Path,
    *,
    summary: Document,
    tensors: Mapping[str, Tensors],
    documents: Mapping[str, Document],
    kind: Kind = MODEL,
) -> None:
    """Write a folder, or replace the artifact that it holds.

    Parameters
    ----------
    folder : path
        Made where it is missing.
    summary : JSON-able mapping
        Stands in the manifest.
    tensors : mapping of mapping of tensor
        A safetensors file for each part; part names are lower-case letters.
    documents : mapping of JSON-able mapping
        A JSON file for each part.
    kind : Kind
        Model or checkpoint.

    Raises
    ------
    ArtifactError
        The folder holds something else, or cannot be written.
    """
    path = Path(folder)
    _check_ours(path, kind)
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        files = {
            part: _put(path, part, "safetensors", _tensor_writer(content))
            for part, content in tensors.items()
        }
        for part, document in documents.items():
            files[part] = _put(path, part, "json", _json_writer(document))
        manifest = {
            "format": kind.format,
            "format_version": FORMAT_VERSION,
            "attrec_version": attrec_version(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "summary": dict(summary),
            "files": files,
        }
        _flush_folder(path)
        if kind is MODEL:
            (path / PAGE).unlink(missing_ok=True)
        with unfinished(path, _json_writer(manifest, indent=2)) as written:
            written.replace(path / MANIFEST)
        _flush_folder(path)
        _remove_unnamed(path, {entry["name"] for entry in files.values()})
    except OSError as error:
        remove_remnants(path)
        if made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise _unwritable(path, kind, error) from error
    except (TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: the {kind.noun}'s record cannot be written as JSON ({error}); "
            "give texts, finite numbers, lists and mappings"
        ) from error


@contextmanager
def alone_in(folder: str | Path | None) -> Iterator[None]:
    """Keep every other training out of the folder of a checkpoint, where there is one.

    Nothing is left behind, and a process that is killed lets go. On a file system without locks
    nobody is kept out; what else is wrong with the folder is for its writer to say.

    Raises
    ------
    CheckpointError
        Another training is at work there.
    """
    if folder is None:
        yield
        return
    path = Path(folder)
    busy = CheckpointError(
        f"{path}: another training keeps its checkpoint there; wait for it, or name another folder"
    )
    lock, made = None, False
    with contextlib.suppress(OSError, ValueError, NotImplementedError):
        made = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        lock = locked(path / LOCK, busy)
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):  # Windows: not while it is held
                (path / LOCK).unlink()
            lock.release()
        if made:
            with contextlib.suppress(OSError):  # a checkpoint is in it
                path.rmdir()


def check_target(folder: str | Path, kind: Kind = MODEL) -> None:
    """Raise unless `save_artifact` could write there: asked before long work, not after it.

    Raises
    ------
    ArtifactError
        The folder holds something else, or cannot be written.
    """
    path = Path(folder)
    _check_ours(path, kind)
    try:
        try_writing(path)
    except OSError as error:
        raise _unwritable(path, kind, error) from error


def remove_artifact(folder: str | Path, kind: Kind = MODEL) -> None:
    """Remove what `save_artifact` wrote, also where it is damaged; nothing else is ever removed.

    Raises
    ------
    ArtifactError
        The folder holds something else, or cannot be removed.
    """
    path = Path(folder)
    manifest = path / MANIFEST
    try:
        path.stat()
        if not path.is_dir() or _format_of(manifest) not in (None, kind.format):
            raise ArtifactError(
                f"{path}: is no {kind.noun}, and is not removed; name another folder"
            )
        manifest.unlink(missing_ok=True)
        _remove_unnamed(path, set())
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: the {kind.noun} cannot be removed ({in_one_line(error)}); remove it "
            "yourself, or name another folder"
        ) from error
    with contextlib.suppress(OSError):  # something of somebody else's is in it
        path.rmdir()


def _format_of(manifest: Path) -> Any:
    """Return what a manifest says it is of; None where it cannot be read."""
    try:
        return json.loads(manifest.read_bytes()).get("format", "another")
    except (OSError, ValueError, RecursionError, AttributeError):
        return None


def kept_in(folder: Path) -> str | None:
    """Return what AttRec keeps in a folder (model, checkpoint, vectors); None where nothing."""
    kind = str(_format_of(folder / MANIFEST))
    return kind.removeprefix("attrec-") if kind.startswith("attrec-") else None


def load_artifact(folder: str | Path, kind: Kind = MODEL) -> Artifact:
    """Read what `save_artifact` wrote, and check every byte of it.

    Where a writer replaces it meanwhile, the new one is read.

    Raises
    ------
    ArtifactError
        There is no artifact, it is damaged, or its format is newer than this version reads.
    """
    path = Path(folder)
    manifest = read_manifest(path, kind)
    for _ in range(_LOADS):
        try:
            return _read_parts(path, manifest, kind)
        except ArtifactError:
            before, manifest = manifest, read_manifest(path, kind)
            if manifest == before:  # it is no writer who took a file away
                raise
    raise ArtifactError(
        f"{path}: the {kind.noun} was replaced {_LOADS} times while it was read; load it again "
        "when that is over"
    )


def _read_parts(path: Path, manifest: dict[str, Any], kind: Kind) -> Artifact:
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    documents: dict[str, dict[str, Any]] = {}
    for part, entry in manifest["files"].items():
        file = _checked_file(path, entry, kind)
        try:
            if file.suffix == ".json":
                documents[part] = _object(json.loads(file.read_bytes()))
            else:
                tensors[part] = load_file(file)
        except (SafetensorError, ValueError, OSError, RecursionError) as error:
            raise _damaged(file, f"cannot be read: {error}", kind) from error
    return Artifact(manifest, tensors, documents)


def read_manifest(folder: str | Path, kind: Kind = MODEL) -> dict[str, Any]:
    """Read ``manifest.json`` alone and check format, version and the form of its entries.

    Raises
    ------
    ArtifactError
        As for `load_artifact`.
    """
    file = Path(folder) / MANIFEST
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{folder}: there is no saved {kind.noun} ({MANIFEST} is missing); give the folder "
            f"that {kind.writer} wrote"
        ) from None
    except PermissionError as error:
        raise _closed(file) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise ArtifactError(
            f"{folder}: cannot be opened ({in_one_line(error)}); give the folder that "
            f"{kind.writer} wrote"
        ) from error
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(file, f"cannot be read: {error}", kind) from error
    if not isinstance(manifest, dict) or manifest.get("format") != kind.format:
        raise ArtifactError(
            f"{file}: is not the manifest of an AttRec {kind.noun} (no format {kind.format!r}); "
            f"give the folder that {kind.writer} wrote"
        )
    _check_version(file, manifest, kind)
    entries = manifest.get("files")
    if not (
        isinstance(entries, dict)
        and isinstance(manifest.get("summary"), dict)
        and all(_is_entry(entry) for entry in entries.values())
    ):
        raise _damaged(file, "its summary or its list of files has not the form of format 1", kind)
    return manifest


def _check_version(file: Path, manifest: dict[str, Any], kind: Kind) -> None:
    version = manifest.get("format_version")
    if type(version) is not int or version < 1:
        raise _damaged(file, f"format_version is {version!r}, not a whole number from 1", kind)
    if version > FORMAT_VERSION:
        writer = manifest.get("attrec_version", "a later version")
        raise ArtifactError(
            f"{file}: format {version} was written by attrec {writer}, and this attrec "
            f"{attrec_version()} reads up to format {FORMAT_VERSION}; "
            f"run: pip install --upgrade 'attrec>={writer}'"
        )


def _is_entry(entry: Any) -> bool:
    """Tell whether an entry names a plain data file inside the folder, with hash and size."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and _DATA_NAME.fullmatch(entry["name"]) is not None
        and isinstance(entry.get("sha256"), str)
        and type(entry.get("bytes")) is int
    )


def _checked_file(folder: Path, entry: dict[str, Any], kind: Kind) -> Path:
    file: Path = folder / entry["name"]
    try:
        size = file.stat().st_size
        if size != entry["bytes"]:
            raise _damaged(file, f"has {size} bytes where {entry['bytes']} were written", kind)
        if _sha256(file) != entry["sha256"]:
            raise _damaged(file, "its SHA-256 is not the one in the manifest", kind)
    except PermissionError as error:
        raise _closed(file) from error
    except OSError as error:
        raise _damaged(file, f"cannot be read: {in_one_line(error)}", kind) from error
    return file


def _closed(file: Path) -> ArtifactError:
    return ArtifactError(
        f"{file}: this account may not read it; give it leave, as with chmod -R a+rX {file.parent}"
    )


def _object(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ValueError("it holds no JSON object")
    return document


def _unwritable(folder: Path, kind: Kind, error: OSError | ValueError) -> ArtifactError:
    return ArtifactError(
        f"{folder}: the {kind.noun} cannot be written ({in_one_line(error)}); "
        "choose a folder that is writable and has room"
    )


def _damaged(file: Path, what: str, kind: Kind) -> ArtifactError:
    return ArtifactError(f"{file}: is damaged ({what}); {kind.remedy}")


def _check_ours(folder: Path, kind: Kind) -> None:
    """Refuse a path that holds something that `save_artifact` did not write, or cannot be one."""
    try:
        folder.stat()  # unlike exists(), it says what is wrong with any path
        if not folder.is_dir():
            raise ArtifactError(f"{folder}: is a file; give a folder for the {kind.noun}")
        names = [entry.name for entry in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise _unwritable(folder, kind, error) from error
    if MANIFEST in names:
        try:
            read_manifest(folder, kind)
        except ArtifactError as error:
            raise ArtifactError(f"{error}; or save to another folder") from error
    elif foreign := [name for name in names if name != LOCK and not _is_data(name)]:
        raise ArtifactError(
            f"{folder}: holds something that is not an AttRec {kind.noun} ({min(foreign)}, …); "
            "give a new or an empty folder"
        )


def _is_data(name: str) -> bool:
    """Tell whether a file is named as `save_artifact` names one, finished or not."""
    return bool(_DATA_NAME.fullmatch(name) or UNFINISHED.fullmatch(name))


def _put(folder: Path, part: str, suffix: str, write: Writer) -> dict[str, Any]:
    """Write one data file under the name of its content; return its manifest entry."""
    with unfinished(folder, write) as written:
        digest = _sha256(written)
        name = f"{part}-{digest[:16]}.{suffix}"
        size = written.stat().st_size
        written.replace(folder / name)
    return {"name": name, "sha256": digest, "bytes": size}


def _tensor_writer(tensors: Tensors) -> Writer:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def write(path: Path) -> None:
        try:
            save_file(plain, path)
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(str(error)) from error

    return write


def _json_writer(document: Document, indent: int | None = None) -> Writer:
    text = json.dumps(document, indent=indent, allow_nan=False)

    def write(path: Path) -> None:
        path.write_text(text + "\n", encoding="ascii")

    return write


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can (not on Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_remnants(folder: str | Path) -> None:
    """Take away what a writer left that failed or was stopped; the artifact stays whole."""
    path = Path(folder)
    with contextlib.suppress(OSError, ValueError):
        manifest = path / MANIFEST
        named = json.loads(manifest.read_bytes())["files"] if manifest.exists() else {}
        _remove_unnamed(path, {entry["name"] for entry in named.values()})


def foreign_files(folder: str | Path) -> list[Path]:
    """Return what lies in the folder of an artifact and is no part of it."""
    path = Path(folder)
    ours = {MANIFEST, *(entry["name"] for entry in read_manifest(path)["files"].values())}
    return sorted(entry for entry in path.iterdir() if entry.name not in ours)


def _remove_unnamed(folder: Path, keep: set[str]) -> None:
    for entry in list(folder.iterdir()):
        if _is_data(entry.name) and entry.name not in keep:
            entry.unlink()
