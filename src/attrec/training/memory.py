"""How much memory a training needs, said before it begins."""

from __future__ import annotations

from pathlib import Path

import psutil

from attrec.config import Options
from attrec.errors import MemoryNeededError

FLOAT = 4
COPIES = 4
"""Of the tables: weights, Adagrad's state, the best epoch's, the first training's or a snapshot."""
BYTES_AN_EVENT = 64
"""Codes, times and order of a log, its split, histories and windows' order."""
PROGRAM = 300_000_000
"""PyTorch and the blocks of the evaluation."""

_CGROUP = Path("/sys/fs/cgroup")


def needed_bytes(num_users: int, num_items: int, num_events: int, options: Options) -> int:
    """Estimate the peak of `attrec.fit`.

    Bytes ≈ 4 copies of the tables (M + 2N) d, the item keys 2Nd, 64 for each event, and the
    program's own.

    Examples
    --------
    >>> needed_bytes(1_000_000, 1_000_000, 0, Options.of(embedding_dim=100)) // 10**9
    5
    """
    d = options.model.embedding_dim
    tables = (num_users + 2 * num_items) * d * FLOAT
    return COPIES * tables + 2 * num_items * d * FLOAT + BYTES_AN_EVENT * num_events + PROGRAM


def check_memory(num_users: int, num_items: int, num_events: int, options: Options) -> None:
    """Refuse a training that cannot fit.

    Raises
    ------
    MemoryNeededError
        The estimate is above what the machine, or the container, has left.
    """
    needed = needed_bytes(num_users, num_items, num_events, options)
    there = available_bytes()
    if needed > there:
        raise MemoryNeededError(
            f"training {num_users:,} users and {num_items:,} items with embedding_dim = "
            f"{options.model.embedding_dim} needs about {needed / 1e9:.1f} GB of memory, and "
            f"{there / 1e9:.1f} GB are free; lower embedding_dim, or raise min_user_events or "
            "min_item_events"
        )


def available_bytes() -> int:
    """Return what this process can still take, a container's limit included."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)
