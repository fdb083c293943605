"""What Python is given, as what it stands for: paths and frames are read, logs and items taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrec.config import DataConfig
from attrec.data.interactions import InteractionLog
from attrec.data.items import Items, read_items
from attrec.data.reading import read_interactions


def as_log(source: InteractionLog | Any, config: DataConfig) -> InteractionLog:
    """Return ``source`` as a log; what is none yet is read and cleaned as ``config`` says."""
    if isinstance(source, InteractionLog):
        return source
    return read_interactions(source, config=config)


def as_test(source: InteractionLog | Any, config: DataConfig) -> InteractionLog | None:
    """Return a given test part as a log, or None; the k-core is cut of the log beside it alone."""
    return None if source is None else as_log(source, config.uncut())


def as_items(source: Items | str | Path | None) -> Items | None:
    """Return ``source`` as items; a path is read."""
    return read_items(source) if isinstance(source, str | Path) else source
