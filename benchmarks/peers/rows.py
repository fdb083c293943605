"""What rows.toml declares: which peer is run on which split, how, and what is published of it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROWS = Path(__file__).with_name("rows.toml")
PATIENCE = 10


@dataclass(frozen=True)
class Row:
    """One peer on one split.

    Attributes
    ----------
    name : str
        ``data.split.peer``.
    split : str
        ``data.split``.
    data : str
        As `benchmarks.data.load_split` names it.
    options : dict
        Of the protocol.
    attrec : str
        The row of the accuracy benchmark that it stands beside.
    cap_seconds : float
        For each of the two trainings.
    peer, environment, worker, model, source : str
        Who, in which environment, by which file of ``workers``, as what, with whose settings.
    floor : bool
        Fitted in one go: there is no epoch and no curve.
    max_epochs : int
    settings : dict
    published : dict or None
        What is published of this model.
    revision : int
        Goes up when what the peer's worker does is changed, so that its rows are measured again.
    """

    name: str
    split: str
    data: str
    options: dict[str, Any]
    attrec: str
    cap_seconds: float
    peer: str
    environment: str
    worker: str
    model: str
    source: str
    floor: bool
    max_epochs: int
    settings: dict[str, Any]
    published: dict[str, Any] | None
    revision: int = 0

    @property
    def revision_if_any(self) -> dict[str, int]:
        """What tells a row of a changed worker from one of the first."""
        return {"revision": self.revision} if self.revision else {}


def read_rows(path: Path = ROWS) -> dict[str, Row]:
    """Read the rows, in the order in which they are run."""
    declared = tomllib.loads(path.read_text(encoding="utf-8"))
    rows = {}
    for name, split in declared["splits"].items():
        for peer_name in split["peers"]:
            peer = declared["peers"][peer_name]
            of = [p for p in published(name, path) if peer_name in p.get("of", [])]
            row = Row(
                name=f"{name}.{peer_name}",
                split=name,
                data=split["data"],
                options=split.get("options", {}),
                attrec=split["attrec"],
                cap_seconds=60.0 * split["cap_minutes"],
                peer=peer_name,
                environment=peer["environment"],
                worker=peer["worker"],
                model=peer["model"],
                source=peer["source"],
                floor=peer.get("floor", False),
                max_epochs=peer.get("max_epochs", 1),
                settings={**peer["settings"], **peer.get(split["data"], {})},
                published=of[0] if of else None,
                revision=peer.get("revision", 0),
            )
            rows[row.name] = row
    return rows


def published(split: str, path: Path = ROWS) -> list[dict[str, Any]]:
    """Return all published figures of a split."""
    declared = tomllib.loads(path.read_text(encoding="utf-8"))
    return [one for one in declared.get("published", []) if one["split"] == split]
