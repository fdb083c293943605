"""make bench-foldin: users and items folded into trained models, beside trained ones.

python -m benchmarks.foldin.run            the rows that have no result as declared here
python -m benchmarks.foldin.run ROW ...    these rows again, such as items.ml-100k
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from attrec.config import Options
from benchmarks.foldin import additive_users, items, users
from benchmarks.rows import changed_options, read_row

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


def changed(found: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what the options of a result were and are now, where they differ."""
    name = found["row"]
    if name.startswith("users."):
        return changed_options(found, Options.of(name.rsplit(".", 1)[1]))
    of_additive = {"config": found["config"]["additive"]}
    return changed_options(of_additive, items.additive_options()) | changed_options(
        found, Options.of(items.PRESET)
    )


def _is_done(name: str) -> bool:
    found = read_row("foldin", name)
    return found is not None and not changed(found)


def main() -> None:
    """Run the rows asked for, or those that are missing."""
    torch.set_num_threads(1)
    for row in sys.argv[1:] or [row for row in ROWS if not _is_done(row)]:
        if row not in ROWS:
            raise SystemExit(f"no row {row!r}; rows: {', '.join(ROWS)}")
        ROWS[row]()


if __name__ == "__main__":
    main()
