"""make bench-ablations: the paper's model with one thing changed, each on its own.

python -m benchmarks.ablations.run            the rows that have no result yet
python -m benchmarks.ablations.run ROW ...    these rows again, such as ml-100k.uniform-weights
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attrec.api import Trained, train_on
from attrec.baselines import item_counts
from attrec.config import Options
from attrec.data.cases import encode_cases
from attrec.data.ragged import Ragged
from attrec.data.splits import Split
from attrec.data.vocabulary import Vocabulary
from attrec.evaluation.evaluate import evaluate_systems
from attrec.evaluation.ranking import Ranking
from benchmarks.ablations.variants import OPTIONS, VARIANTS, VariantScorer
from benchmarks.data import load_split
from benchmarks.rows import read_row, write_row

DATA = {"ml-100k": "ml-100k.author-split", "ml-1m": "ml-1m"}
MAX_EPOCHS = {"ml-100k": 40, "ml-1m": 15}
PRESET = "paper-sparse"
CACHE = Path(__file__).parents[2] / ".cache" / "ablations"
NAMES = [*OPTIONS, *VARIANTS]


def train_variant(name: str, split: Split, data: str) -> tuple[Trained, Options]:
    """Train on the training part; the epoch is chosen on validation."""
    options = Options.of(PRESET, max_epochs=MAX_EPOCHS[data], **OPTIONS.get(name, {}))
    if name in VARIANTS:
        trained = train_on(
            split.train, options, validate_on=split,
            network_class=VARIANTS[name], make_scorer=VariantScorer,
        )  # fmt: skip
    else:
        trained = train_on(split.train, options, validate_on=split)
    return trained, options


def run_row(data: str, name: str) -> None:
    """Measure a variant against the paper's model on the same users."""
    torch.set_num_threads(1)
    split = load_split(DATA[data], Options.of(PRESET).protocol)
    reference = reference_ranking(data, split)
    started = time.perf_counter()
    trained, options = train_variant(name, split, data)
    seconds = time.perf_counter() - started
    vocabulary = Vocabulary.fit(split.train)
    ranking = trained.ranking(split, options.protocol)
    systems = {name: ranking} if name == "paper" else {name: ranking, "paper": reference}
    evaluation = evaluate_systems(
        systems,
        encode_cases(split.test, split.log, vocabulary),
        options.protocol,
        item_counts(split.train, vocabulary),
        f"{split.protocol}; trained on the training part alone, at most {MAX_EPOCHS[data]} epochs, "
        "one seed",
    )
    found = evaluation.to_dict()
    write_row(
        "ablations",
        f"{data}.{name}",
        {
            "data": {"name": DATA[data], "log_sha256": split.log.fingerprint()},
            "protocol": found["protocol"],
            "config": options.to_dict(),
            "seeds": [0],
            "metrics": found["systems"][name],
            "minus_paper": found["differences"].get("paper", {}),
            "cost": {
                "train_seconds": seconds,
                "epochs": len(trained.run.epochs),
                "best_epoch": trained.run.best_epoch,
                "step": trained.run.step,
                "threads": 1,
            },
            "valid": trained.run.epochs[trained.run.best_epoch - 1].validation,
        },
    )


def reference_ranking(data: str, split: Split) -> Ranking:
    """Return the ranks of the paper's model, trained once and kept."""
    options = Options.of(PRESET, max_epochs=MAX_EPOCHS[data])
    path = CACHE / f"{data}.{split.log.fingerprint()[:12]}.{_digest(options)}.npz"
    if not path.exists():
        trained, _ = train_variant("paper", split, data)
        ranking = trained.ranking(split, options.protocol)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, ranks=ranking.ranks.values, offsets=ranking.ranks.offsets,
                 top=ranking.top_items)  # fmt: skip
    with np.load(path) as found:
        return Ranking(Ragged(found["ranks"], found["offsets"]), found["top"])


def _digest(options: Options) -> str:
    import hashlib
    import json

    return hashlib.sha256(json.dumps(options.to_dict()).encode()).hexdigest()[:12]


def main() -> None:
    """Run the rows asked for, or those that are missing."""
    every = [f"{data}.{name}" for data in DATA for name in NAMES]
    asked: list[Any] = sys.argv[1:]
    for row in asked or [row for row in every if read_row("ablations", row) is None]:
        if row not in every:
            raise SystemExit(f"no row {row!r}; rows: {', '.join(every)}")
        data, name = row.split(".", 1)
        run_row(data, name)


if __name__ == "__main__":
    main()
