"""make mutants: break the code one line at a time; the tests must notice each time.

python -m tests.mutants.run            all of mutants.toml
python -m tests.mutants.run NAME ...   these
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
MUTANTS = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text(encoding="utf-8"))


def survives(name: str) -> bool:
    """Break a copy of the sources and tell whether the tests still pass."""
    mutant = MUTANTS[name]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        broken = source / "attrec" / mutant["file"]
        text = broken.read_text(encoding="utf-8")
        if text.count(mutant["before"]) != 1:
            raise SystemExit(f"{name}: its line is not exactly once in {mutant['file']}")
        broken.write_text(text.replace(mutant["before"], mutant["after"]), encoding="utf-8")
        if broken.suffix in (".c", ".h"):
            _build(Path(folder))
        found = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-cov",
             *mutant["tests"]],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    if found.returncode not in (0, 1):
        raise SystemExit(f"{name}: the tests could not run\n{found.stdout}{found.stderr}")
    return found.returncode == 0


def _build(folder: Path) -> None:
    """Build the kernels of the copy in ``folder``: it would not use those of other sources."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder, capture_output=True, check=True,
    )  # fmt: skip


def main() -> int:
    """Try the mutants and list them."""
    names = sys.argv[1:] or list(MUTANTS)
    survivors = []
    for name in names:
        alive = survives(name)
        sys.stdout.write(f"{'SURVIVED' if alive else 'killed':<9} {name}\n")
        sys.stdout.flush()
        if alive:
            survivors.append(name)
    sys.stdout.write(f"{len(names) - len(survivors)} of {len(names)} mutants killed\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
