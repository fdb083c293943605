"""The files a peer is given: plain text, external ids, no test target among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attrec.data.interactions import InteractionLog
from attrec.data.splits import HeldOut, Split


def write_material(split: Split, folder: Path) -> Path:
    """Write a split into ``folder``, once; the folder is there whole or not at all.

    ``train.txt`` and ``train_and_validation.txt`` hold a user and all events in order on a line;
    ``validation.txt`` and ``test.txt`` a user, the history, and (validation only) what came, with
    tabs between the three.
    """
    if folder.exists():
        return folder
    for ids in (split.log.user_ids, split.log.item_ids):
        for one in map(str, ids):
            if not one or any(c.isspace() or c in ',"' for c in one):
                raise SystemExit(f"{split.log.source}: the id {one!r} cannot stand in a plain line")
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    for name, log in (
        ("train", split.train),
        ("train_and_validation", split.train_and_validation),
    ):
        _write(part / f"{name}.txt", _histories(log))
    _write(part / "validation.txt", _questions(split.validation, split.log, targets=True))
    _write(part / "test.txt", _questions(split.test, split.log, targets=False))
    part.replace(folder)
    return folder


def _histories(log: InteractionLog) -> list[str]:
    order = log.time_order()
    users, items = log.user_codes[order], log.item_ids[log.item_codes[order]]
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    parts = np.split(items, starts[1:])
    names = log.user_ids[users[starts]]
    return [f"{user} {_joined(part)}" for user, part in zip(names, parts, strict=True)]


def _questions(held_out: HeldOut, log: InteractionLog, *, targets: bool) -> list[str]:
    lines = []
    for row, user in enumerate(log.user_ids[held_out.user_codes]):
        line = f"{user}\t{_joined(log.item_ids[held_out.histories[row]])}"
        if targets:
            (target,) = log.item_ids[held_out.targets[row]]
            line += f"\t{target}"
        lines.append(line)
    return lines


def _joined(ids: np.ndarray) -> str:
    return " ".join(map(str, ids))


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
