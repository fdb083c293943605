"""What `attrec doctor` looks at."""

from __future__ import annotations

import importlib.util
import os
import platform
import time
from importlib.metadata import version
from typing import Any

import torch

from attrec.api import fit
from attrec.data.simulate import simulate
from attrec.native.library import kernels_in_words

EXTRAS = {
    "frames": ("pandas", "polars", "pyarrow"),
    "sql": ("adbc_driver_postgresql", "adbc_driver_sqlite", "pyarrow"),
    "vectors": ("faiss", "pyarrow"),
    "tune": ("optuna",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}


def examine() -> dict[str, Any]:
    """Return versions, threads, devices, extras, and whether a tiny training runs."""
    started = time.perf_counter()
    log = simulate("community", num_users=60, num_items=40, events_per_user=10, seed=0)
    result = fit(log, max_epochs=2, embedding_dim=8, batch_size=256)
    seconds = time.perf_counter() - started
    there = {
        extra: ", ".join(lib if importlib.util.find_spec(lib) else f"no {lib}" for lib in libraries)
        for extra, libraries in EXTRAS.items()
    }
    return {
        "attrec": version("attrec"),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} CPUs",
        "kernels": kernels_in_words(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        **{f"extra {extra}": found for extra, found in there.items()},
        "training": f"works ({len(result.validation_run.epochs)} epochs of a toy log and its "
        f"evaluation in {seconds:.1f} s)",
    }
