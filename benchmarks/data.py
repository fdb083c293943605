"""The splits that figures are measured on. All files come through the product's own registry."""

from __future__ import annotations

import os
from pathlib import Path

from attrec import read_interactions
from attrec.config import ProtocolConfig
from attrec.data.datasets import fetch
from attrec.data.splits import Split, split_log


def load_split(data: str, protocol: ProtocolConfig) -> Split:
    """Return a data set, split; ``ml-100k.author-split`` is the author's own two files."""
    if data == "ml-100k.author-split":
        folder = _offline() / "ml-100k" / "author_split"
        return split_log(
            read_interactions(folder / "train.dat", format="tsv"),
            protocol,
            read_interactions(folder / "test.dat", format="tsv"),
        )
    return split_log(read_interactions(fetch(data).interactions), protocol)


def _offline() -> Path:
    folder = os.environ.get("ATTREC_OFFLINE_DATA")
    if not folder:
        raise SystemExit(
            "the author's split of ML-100K is in no public registry: set ATTREC_OFFLINE_DATA to a "
            "folder that holds ml-100k/author_split/train.dat and test.dat"
        )
    return Path(folder)
