"""Encoded logs kept on disk, memory-mapped, and reused while their sources have not changed.

::

    <cache>/logs/<key>/
    ├── user-codes.npy, item-codes.npy, times.npy     (E,)
    ├── user-ids.npy, item-ids.npy                    integers; or text as UTF-8 bytes, and
    ├── user-ends.npy, item-ends.npy                  where each id ends in them
    └── log.json                                      written last: a folder without it is none

The key is a SHA-256 over the paths of the sources and all options of reading and cleaning; their
sizes and times of change stand in ``log.json``: a changed source takes the place of what it was.
Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attrec.config import DataConfig
from attrec.data.datasets import cache_folder
from attrec.data.interactions import CleaningStep, IdArray, InteractionLog
from attrec.data.locations import Location

FORMAT_VERSION = 1
SMALLEST = 10_000_000
"""Bytes of sources below which reading again is as quick."""


@dataclass(frozen=True)
class LogStore:
    """The place of one log, and the state of its sources now."""

    folder: Path
    state: list[list[int]]

    @classmethod
    def of(cls, files: list[Location], config: DataConfig) -> LogStore | None:
        """Return the place for a log of these files, or None where keeping it is not worth it."""
        if any(file.remote for file in files):
            return None
        states = [Path(file.path).stat() for file in files]
        if sum(state.st_size for state in states) < SMALLEST:
            return None
        said = [FORMAT_VERSION, config.to_dict(), *([file.path, file.name] for file in files)]
        key = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        now = [[state.st_size, state.st_mtime_ns, state.st_ino] for state in states]
        return cls(cache_folder() / "logs" / key[:32], now)

    def load(self) -> InteractionLog | None:
        """Return the log as memory maps, or None where it is not there or not whole."""
        try:
            record = json.loads((self.folder / "log.json").read_bytes())
            if record["state"] != self.state:
                return None
            codes = [self._map(f"{role}-codes") for role in ("user", "item")]
            ids = [self._ids(role, record["kinds"][role]) for role in ("user", "item")]
            times = self._map("times") if record["timed"] else None
        except (OSError, ValueError, KeyError, EOFError):
            return None
        steps = tuple(
            CleaningStep(**{**step, "examples": tuple(step["examples"])})
            for step in record["steps"]
        )
        notes = (*record["notes"], "encoded earlier: the sources have not changed")
        return InteractionLog(
            ids[0], ids[1], codes[0], codes[1], times, record["source"], notes, steps
        )

    def save(self, log: InteractionLog) -> InteractionLog:
        """Keep the log, whole or not at all, and return it; a full disk only loses the copy."""
        unfinished = self.folder.with_name(f".{self.folder.name}-{uuid.uuid4().hex}")
        try:
            unfinished.mkdir(parents=True)
            self._write(unfinished, log)
            shutil.rmtree(self.folder, ignore_errors=True)
            unfinished.replace(self.folder)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
        return log

    def _write(self, folder: Path, log: InteractionLog) -> None:
        kinds = {}
        for role in ("user", "item"):
            np.save(folder / f"{role}-codes.npy", getattr(log, f"{role}_codes"))
            ids = getattr(log, f"{role}_ids")
            kinds[role] = "text" if ids.dtype.kind == "O" else "integer"
            if kinds[role] == "text":
                parts = [text.encode() for text in ids]
                ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
                np.save(folder / f"{role}-ends.npy", ends)
                ids = np.frombuffer(b"".join(parts), dtype=np.uint8)
            np.save(folder / f"{role}-ids.npy", ids)
        if log.timestamps is not None:
            np.save(folder / "times.npy", log.timestamps)
        record: dict[str, Any] = {
            "source": log.source, "notes": log.notes, "steps": [asdict(s) for s in log.steps],
            "kinds": kinds, "timed": log.timestamps is not None, "state": self.state,
        }  # fmt: skip
        (folder / "log.json").write_text(json.dumps(record), encoding="utf-8")

    def _map(self, name: str) -> Any:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def _ids(self, role: str, kind: str) -> IdArray:
        values: IdArray = np.load(self.folder / f"{role}-ids.npy", allow_pickle=False)
        if kind == "integer":
            return values
        ends = self._map(f"{role}-ends").tolist()
        joined, ids, start = values.tobytes(), np.empty(len(ends), dtype=object), 0
        for place, end in enumerate(ends):
            ids[place] = joined[start:end].decode()
            start = end
        return ids
