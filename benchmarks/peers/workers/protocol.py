"""What all workers do alike, whatever library they drive: read, watch the clock, rank, write.

A worker runs in its library's own environment: nothing of attrec is there, and only NumPy is
needed here. It never sees a test target. Call: ``python WORKER.py SPEC.json``.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

LIST_LENGTH = 50
BLOCK = 256
"""Users scored at once."""
JUDGEMENTS = 20
"""An epoch longer than this part of the cap is judged on its way too, …"""
SPARING = 10.0
"""… but only after so many times the seconds that the last judging took."""

Lists = list[np.ndarray]
Score = Callable[[list[str], Lists], np.ndarray]
"""Users and histories (places in the catalogue) to (B, N) float32 scores, larger is better; the
array is the caller's to change."""


@dataclass(frozen=True)
class Questions:
    """Users to be answered: their histories, oldest first, and what came (validation only)."""

    users: list[str]
    histories: Lists
    targets: list[int]


@dataclass(frozen=True)
class Material:
    """Everything a worker may know."""

    items: list[str]
    users: list[str]
    histories: Lists
    validation: Questions
    test: Questions

    @classmethod
    def read(cls, folder: Path, training: str) -> Material:
        """Read the files that `benchmarks.peers.material` wrote; train on ``training``."""
        rows = [line.split() for line in _lines(folder / f"{training}.txt")]
        items = list(dict.fromkeys(item for row in rows for item in row[1:]))
        place = {item: index for index, item in enumerate(items)}

        def encoded(ids: Iterable[str]) -> np.ndarray:
            return np.array([place[i] for i in ids if i in place], dtype=np.int64)

        def questions(name: str, targets: bool) -> Questions:
            found = [line.split("\t") for line in _lines(folder / f"{name}.txt")]
            return Questions(
                [row[0] for row in found],
                [encoded(row[1].split()) for row in found],
                [place.get(row[2], -1) for row in found] if targets else [],
            )

        return cls(
            items,
            [row[0] for row in rows],
            [encoded(row[1:]) for row in rows],
            questions("validation", True),
            questions("test", False),
        )


@dataclass
class Watch:
    """Keeps the time of a training, judges it, and says when it is over.

    Parameters
    ----------
    cap_seconds : float
        Most seconds from the first step on, the judging included.
    patience, max_epochs : int
        Epochs without a better validation NDCG@10; epochs at most.
    epochs : float, optional
        Train exactly so many (a part of one counts as its part of the steps), and judge nothing.
    clock : callable
        Gives seconds.
    """

    cap_seconds: float
    patience: int = 10
    max_epochs: int = 300
    epochs: float | None = None
    clock: Callable[[], float] = time.perf_counter
    capped: bool = False
    train_seconds: float = 0.0
    validation_seconds: float = 0.0
    last_judging: float = 0.0
    reached: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None
    best_state: Any = None

    def start(self, judge: Callable[[], dict[str, float]], save: Callable[[], Any]) -> None:
        """Begin the count; ``judge`` gives the validation figures, ``save`` a copy of the state."""
        self._judge, self._save = judge, save
        self._since = self.clock()

    def step(self, epoch: float) -> bool:
        """Hear that a step ended, ``epoch`` epochs into the training; answer whether to stop."""
        self._count(epoch)
        if self.epochs is not None and epoch >= self.epochs - 1e-9:
            return True
        if self.train_seconds + self.validation_seconds >= self.cap_seconds:
            self.capped = True
            self._look(epoch)
            return True
        since = self.train_seconds - (self.curve[-1]["seconds"] if self.curve else 0.0)
        if epoch % 1 and since >= max(self.cap_seconds / JUDGEMENTS, SPARING * self.last_judging):
            self._look(epoch)
        return False

    def epoch_ended(self, epoch: int) -> bool:
        """Hear that an epoch ended; answer whether to stop."""
        self._count(epoch)
        if self.epochs is not None:
            return epoch >= self.epochs - 1e-9
        self._look(epoch)
        assert self.best is not None
        return epoch - self.best["epoch"] >= self.patience or epoch >= self.max_epochs

    def _count(self, epoch: float) -> None:
        now = self.clock()
        self.train_seconds += now - self._since
        self._since, self.reached = now, epoch

    def _look(self, epoch: float) -> None:
        if self.epochs is not None or (self.curve and self.curve[-1]["epoch"] == epoch):
            return
        figures = self._judge()
        if self.best is None or figures["ndcg@10"] > self.best["ndcg@10"]:
            self.best_state = self._save()
        now = self.clock()
        self.last_judging = now - self._since
        self.validation_seconds += self.last_judging
        self._since = now
        point = {
            "epoch": epoch,
            "seconds": self.train_seconds,
            "wall_seconds": self.train_seconds + self.validation_seconds,
            **figures,
        }
        self.curve.append(point)
        if self.best is None or point["ndcg@10"] > self.best["ndcg@10"]:
            self.best = point
        print(" ".join(f"{name} {value:.4f}" for name, value in point.items()), flush=True)


def judged(score: Score, questions: Questions) -> dict[str, float]:
    """Rank each target among all items but those of its history; ties stand before it."""
    ranks = [
        rank
        for rows, scores in _blocks(score, questions)
        for rank in _ranks(scores, [questions.targets[row] for row in rows])
    ]
    place = np.array(ranks)
    gain = np.where(place <= 10, 1 / np.log2(1 + place), 0.0)
    return {"ndcg@10": float(gain.mean()), "hit_rate@10": float((place <= 10).mean())}


def write_lists(path: Path, score: Score, questions: Questions, items: list[str]) -> None:
    """Write each user's first `LIST_LENGTH` items, best first, without those of the history."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        file.write("user,item,rank\n")
        for rows, scores in _blocks(score, questions):
            for row, values in zip(rows, scores, strict=True):
                order = np.argsort(-values, kind="stable")[:LIST_LENGTH]
                for rank, item in enumerate(order[np.isfinite(values[order])], start=1):
                    file.write(f"{questions.users[row]},{items[item]},{rank}\n")
    part.replace(path)


def main(train: Callable[[Material, dict[str, Any], Watch], Score], *libraries: str) -> None:
    """Do what the specification asks: train, write the lists, say what it cost."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    out = spec["out"]
    material = Material.read(Path(spec["material"]), spec["training"])
    watch = Watch(spec["cap_seconds"], spec["patience"], spec["max_epochs"], spec["epochs"])
    score = train(material, spec, watch)
    write_lists(Path(f"{out}.csv"), score, material.test, material.items)
    result = {
        "curve": watch.curve,
        "best": watch.best,
        "capped": watch.capped,
        "epochs": watch.reached,
        "train_seconds": watch.train_seconds,
        "validation_seconds": watch.validation_seconds,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "versions": {name: version(name) for name in libraries},
    }
    part = Path(f"{out}.part")
    part.write_text(json.dumps(result, indent=1), encoding="utf-8")
    part.replace(f"{out}.json")


def _blocks(score: Score, questions: Questions) -> Iterable[tuple[range, np.ndarray]]:
    for start in range(0, len(questions.users), BLOCK):
        rows = range(start, min(start + BLOCK, len(questions.users)))
        histories = [questions.histories[row] for row in rows]
        scores = score([questions.users[row] for row in rows], histories)
        if np.isnan(scores).any():
            raise SystemExit("a score is NaN: the training diverged")
        for values, history in zip(scores, histories, strict=True):
            values[history] = -np.inf
        yield rows, scores


def _ranks(scores: np.ndarray, targets: list[int]) -> Iterable[float]:
    for values, target in zip(scores, targets, strict=True):
        if target < 0 or not np.isfinite(values[target]):
            yield np.inf
        else:
            yield float((values >= values[target]).sum())


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
