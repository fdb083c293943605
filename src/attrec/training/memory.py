"""How much memory a training needs, said before it begins."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from attrec.config import Options
from attrec.errors import MemoryNeededError
from attrec.training.batches import step_positions

FLOAT = 4
COPIES = 3
"""Of the tables, beside Adagrad's state: weights, the best epoch's, and one that is being made:
the next best, a snapshot, the first training's."""
BYTES_AN_EVENT = 64
"""Codes, times and order of a log, its split, histories and windows' order."""
BLOCK, SMALL_BLOCK, ROWS_OF_A_BLOCK = 64 << 20, 8 << 20, 256
"""A block of distances, as the evaluation takes them: small, or so many rows where those need more,
up to a limit."""
BLOCKS = 6.5
"""What ranking needs at once, measured in such blocks: distances, filtered ones, comparisons."""
PROGRAM = 300_000_000
"""Python, PyTorch and what they load."""

_CGROUP = Path("/sys/fs/cgroup")


def needed_bytes(num_users: int, num_items: int, num_events: int, options: Options) -> int:
    """Estimate the peak of `attrec.fit`.

    Bytes ≈ 3 copies of the tables, (M + 2N) d or N d, and the optimizer's state (Adagrad's is of
    their size, or a d-th of it, row-wise), the item keys 2Nd, 64 for each event, what a step works
    on, the blocks in which the evaluation ranks, and the program's own. `attrec doctor --plan`
    shows it, and a test holds it against trainings.

    Examples
    --------
    >>> needed_bytes(1_000_000, 1_000_000, 0, Options.of("paper-sparse")) // 10**9
    6
    """
    d = options.model.embedding_dim
    additive = options.model.architecture == "additive"
    tables_of_items = 1 if additive and options.model.tied_embeddings else 2
    rows = tables_of_items * num_items + (0 if additive else num_users)
    state = rows * FLOAT * (d if options.train.adagrad == "full" else 1)
    if (
        additive
    ):  # AdamW's two moments, the average and what it displaces, the gradient and its scaled copy
        state = 6 * rows * FLOAT * d
    block = min(BLOCK, max(SMALL_BLOCK, ROWS_OF_A_BLOCK * FLOAT * num_items))
    blocks = BLOCKS * min(block, FLOAT * num_users * num_items)
    keys = 2 * num_items * d * FLOAT
    tables = COPIES * rows * d * FLOAT + state
    events = BYTES_AN_EVENT * num_events
    return int(tables + keys + events + step_bytes(num_events, options) + blocks) + PROGRAM


def step_bytes(num_events: int, options: Options) -> int:
    """Estimate what one step works on beside the tables.

    W, its gradient and state, d² each, and for each window of the batch, at most: 5 rows of d for
    each of its L items (themselves, projected, and gradients), 4 for each target and 4 more.

    The additive network keeps for each position and block about 24 rows of d and 4 weights of each
    head for each slot, until the gradient has come back.
    """
    d, L, T = options.model.embedding_dim, options.model.window_length, options.train.num_targets
    if options.model.architecture == "additive":
        layers, heads = options.model.blocks + 1, options.model.heads
        return FLOAT * step_positions(options.train, num_events) * layers * (24 * d + 4 * heads * L)
    return FLOAT * (5 * d * d + options.train.batch_size * (5 * L + 4 * T + 4) * d)


def peak_bytes() -> int:
    """Return the most memory that this process has had so far."""
    try:
        import resource
    except ImportError:  # Windows
        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
            f"{there / 1e9:.1f} GB are free; lower embedding_dim or batch_size, or raise "
            "min_user_events or min_item_events"
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
