"""One result, one file: written whole or not at all, and read by the pages that show it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attrec.config import Options, option_specs
from attrec.files import write_whole

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("attrec", "torch", "numpy", "duckdb")


def row_path(benchmark: str, row: str) -> Path:
    """Return where the row is kept."""
    return RESULTS / benchmark / f"{row}.json"


def read_row(benchmark: str, row: str) -> dict[str, Any] | None:
    """Read a row, or None where there is none yet."""
    path = row_path(benchmark, row)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_row(benchmark: str, row: str, content: dict[str, Any]) -> Path:
    """Write a row with its machine, versions, commit and date."""
    path = row_path(benchmark, row)
    whole = {
        "benchmark": benchmark,
        "row": row,
        **content,
        "versions": {"python": platform.python_version(), **{n: version(n) for n in LIBRARIES}},
        **here_and_now(),
    }
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))
    print(f"wrote {path.relative_to(RESULTS.parent)}", flush=True)
    return path


def changed_options(found: Mapping[str, Any], now: Options) -> dict[str, tuple[Any, Any]]:
    """Return what a row's options were when it was measured and are now, where they differ.

    An option that came later was what it came as. One that means nothing to the architecture
    changes nothing.
    """
    values = now.to_dict()
    changed = {}
    for spec in option_specs():
        here = values[spec.section][spec.name]
        came_as = here if spec.came_as is None else spec.came_as
        then = found["config"].get(spec.section, {}).get(spec.name, came_as)
        if spec.is_for(now.model.architecture) and then != here:
            changed[spec.name] = (then, here)
    return changed


def is_as_declared(benchmark: str, row: str, now: Options) -> bool:
    """Answer whether a row has a result with the options that it has now."""
    found = read_row(benchmark, row)
    return found is not None and not changed_options(found, now)


def each_for_itself(
    module: str, asked: Sequence[str], run_row: Callable[[str], object], *flags: str
) -> None:
    """Run rows, several in a process each: a row's peak memory is its own."""
    if len(asked) == 1:
        run_row(asked[0])
        return
    for row in asked:
        subprocess.run([sys.executable, "-m", module, *flags, row], check=True)


def here_and_now() -> dict[str, Any]:
    """Return machine, commit and date of a measurement."""
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return {"machine": machine(), "commit": commit(), "date": date}


def machine() -> dict[str, Any]:
    """Describe the machine in the words that a figure needs beside it."""
    model = platform.processor() or platform.machine()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        told = [[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]
        first = dict(reversed(told))  # of the first processor
        model = first.get("model name", model)
        # A virtual machine may call two kinds of one maker by the same name.
        if "cpu family" in first and "model" in first:
            model += f", family {first['cpu family']}, model {first['model']}"
    return {"system": platform.system(), "processor": model, "cpus": os.cpu_count()}


def commit() -> str:
    """Return the commit the figures were measured at, marked where the code had changes."""
    code = (".", ":(exclude,top)benchmarks/results")
    try:
        found = _git("describe", "--always", "--abbrev=12", check=True).stdout.strip()
        changed = _git("diff", "--quiet", "HEAD", "--", *code).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found}-dirty" if changed else found


def _git(*words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *words], cwd=RESULTS.parents[1], capture_output=True, text=True, check=check
    )
