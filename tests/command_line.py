"""Running a command line inside the tests' process, as `attrec` would."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from attrec import cli


def run_cli(folder: Path, arguments: Sequence[str], *, columns: int) -> tuple[int, str]:
    """Run ``attrec`` in ``folder``; return its exit code and all it printed, errors first."""
    out, err = io.StringIO(), io.StringIO()
    environment = {"ATTREC_CACHE": str(folder / "cache"), "COLUMNS": str(columns)}
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", ["attrec", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(folder),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    if code > 128:  # a signal to this process, which the command took for a wish of its own
        raise KeyboardInterrupt(f"stopped by signal {code - 128}")
    return code, err.getvalue() + out.getvalue()
