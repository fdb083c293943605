"""make bench-foldin: users and items folded into trained models, beside trained ones.

python -m benchmarks.foldin.run            the rows that have no result yet
python -m benchmarks.foldin.run ROW ...    these rows again, such as items.ml-100k
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.foldin import additive_users, items, users
from benchmarks.rows import read_row

DATA = ("ml-100k", "movietweetings-100k")
ROWS: dict[str, Callable[[], None]] = {
    **{
        f"users.{data}.{preset}": partial(users.run_row, data, preset)
        for data in DATA
        for preset in users.PRESETS
    },
    **{f"users.{data}.accurate": partial(additive_users.run_row, data) for data in DATA},
    **{f"items.{data}": partial(items.run_row, data) for data in DATA},
}


def main() -> None:
    """Run the rows asked for, or those that are missing."""
    torch.set_num_threads(1)
    for row in sys.argv[1:] or [row for row in ROWS if read_row("foldin", row) is None]:
        if row not in ROWS:
            raise SystemExit(f"no row {row!r}; rows: {', '.join(ROWS)}")
        ROWS[row]()


if __name__ == "__main__":
    main()
