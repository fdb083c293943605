"""Where every target stood, kept beside the results: hours of training need not be done again.

A row is judged beside others in pairs of users, and that takes the places of all targets; the lists
that they come from are too large to keep, so what is told of those is kept as figures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attrec.data.cases import Cases
from attrec.data.ragged import Ragged
from attrec.evaluation.metrics import MISSED, coverage, novelty
from attrec.evaluation.ranking import Ranking
from attrec.files import write_whole
from benchmarks.rows import RESULTS

GROUPS = {"known": None, "new": "new_users"}
"""Of users, and where an evaluation has them: known to the training, and new."""


@dataclass(frozen=True, eq=False)
class Places:
    """A ranking without its lists.

    Attributes
    ----------
    ranks : Ragged
        As in `Ranking`.
    lists : dict
        Of each group of users, coverage@k and novelty@k.
    """

    ranks: Ragged
    lists: dict[str, dict[str, float]]

    @classmethod
    def of(
        cls,
        ranking: Ranking,
        cases: Cases,
        cutoffs: Sequence[int],
        item_counts: npt.NDArray[np.int64],
    ) -> Places:
        """Reduce a ranking of ``cases``."""
        new = cases.user_index < 0
        lists = {}
        for group, rows in (("known", ~new if not new.all() else new), ("new", new)):
            top = ranking.top_items[rows]
            lists[group] = {
                name: value
                for k in cutoffs
                for name, value in (
                    (f"coverage@{k}", coverage(top, k, len(item_counts))),
                    (f"novelty@{k}", novelty(top, k, item_counts)),
                )
            }
        return cls(ranking.ranks, lists)

    @property
    def ranking(self) -> Ranking:
        """The places alone, to be judged; `with_lists` fills in what hangs on the lists."""
        return Ranking(self.ranks, np.full((len(self.ranks), 0), -1, dtype=np.int32))


def with_lists(
    evaluation: dict[str, Any], systems: Mapping[str, Sequence[Places]]
) -> dict[str, Any]:
    """Put coverage and novelty of kept rankings into what was judged without their lists."""
    for group, inside in GROUPS.items():
        part = evaluation if inside is None else evaluation.get(inside)
        for name, of_seeds in systems.items() if part else ():
            for metric in of_seeds[0].lists[group]:
                values = [seed.lists[group][metric] for seed in of_seeds]
                part["systems"][name][metric] = {"mean": float(np.mean(values)), "values": values}
    return evaluation


def write_kept(
    benchmark: str, name: str, key: Any, told: dict[str, Any], places: Mapping[str, Places]
) -> None:
    """Keep what a training told and where its targets stood, whole or not at all."""
    path = kept_path(benchmark, name)
    text = {
        "key": _digest(key),
        "told": told,
        "lists": {which: one.lists for which, one in places.items()},
    }
    arrays: dict[str, npt.NDArray[Any]] = {"text": np.array(json.dumps(text))}
    for which, one in places.items():
        ranks = np.where(one.ranks.values == MISSED, 0, one.ranks.values)
        arrays[f"{which}.ranks"] = ranks.astype(np.min_scalar_type(ranks.max(initial=0)))
        arrays[f"{which}.lengths"] = one.ranks.lengths.astype(np.int32)

    def write(file: Path) -> None:
        with file.open("wb") as stream:  # a bare name would get the suffix .npz
            np.savez_compressed(stream, **arrays)

    write_whole(path, write)


def read_kept(
    benchmark: str, name: str, key: Any
) -> tuple[dict[str, Any], dict[str, Places]] | None:
    """Read what was kept of just this training; None where there is nothing, or of another."""
    path = kept_path(benchmark, name)
    if not path.exists():
        return None
    with np.load(path) as arrays:
        text = json.loads(str(arrays["text"]))
        if text["key"] != _digest(key):
            return None
        places = {}
        for which, lists in text["lists"].items():
            offsets = np.concatenate([[0], np.cumsum(arrays[f"{which}.lengths"])])
            ranks = arrays[f"{which}.ranks"].astype(np.int64)
            ranks[ranks == 0] = MISSED
            places[which] = Places(Ragged(ranks, offsets.astype(np.int64)), lists)
    return text["told"], places


def kept_path(benchmark: str, name: str) -> Path:
    """Return where it is kept."""
    return RESULTS / benchmark / "kept" / f"{name}.npz"


def _digest(key: Any) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
