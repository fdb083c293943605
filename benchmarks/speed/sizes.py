"""Time, memory and quality of a training against the size of its tables.

python -m benchmarks.speed.sizes ITEMS THREADS prints one line of JSON. Of each item there are ten
events; users have 20 each; walks in communities of ten items, so the best possible list of ten
holds the next item nine times in ten, whatever the size.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch

from attrec import simulate
from attrec.config import Options
from attrec.data.cases import encode_cases
from attrec.data.sequences import Sequences
from attrec.data.splits import split_log
from attrec.data.vocabulary import Vocabulary
from attrec.evaluation.metrics import per_user
from attrec.evaluation.ranking import rank_targets
from attrec.model.network import AttRecNetwork
from attrec.retrieval.vectors import NetworkScorer
from attrec.training.choice import make_step
from attrec.training.memory import peak_bytes
from attrec.training.trainer import train

EVENTS_OF_A_USER = 20
EVENTS_OF_AN_ITEM = 10
EPOCHS = 3
JUDGED = 1000
TIMED_STEPS = 100


def main() -> None:
    """Train, judge and print."""
    num_items = int(sys.argv[1])
    torch.set_num_threads(int(sys.argv[2]))
    users = num_items * EVENTS_OF_AN_ITEM // EVENTS_OF_A_USER
    log = simulate("community", num_users=users, num_items=num_items,
                   events_per_user=EVENTS_OF_A_USER, seed=0)  # fmt: skip
    options = Options.of("paper-sparse", init_std=0.1)
    split = split_log(log, options.protocol)
    part = split.train_and_validation
    vocabulary = Vocabulary.fit(part)
    sequences = Sequences.from_log(part, vocabulary)
    network = AttRecNetwork(options.model, vocabulary.num_users, vocabulary.num_items)
    run = train(network, sequences, options.train, num_epochs=EPOCHS)
    step = make_step(network, options.train)
    batches = []
    for batch in step.batches(sequences, EPOCHS + 1):
        batches.append(batch)
        if len(batches) == TIMED_STEPS:
            break
    rows = [_rows(batch) for batch in batches]
    started = time.perf_counter()
    for batch in batches:
        step(batch)
    seconds = (time.perf_counter() - started) / len(batches)
    cases = encode_cases(split.test, split.log, vocabulary)
    chosen = np.sort(np.random.default_rng(0).permutation(len(cases))[:JUDGED])
    ranks = rank_targets(NetworkScorer(network), cases.take(chosen), vocabulary.num_items).ranks
    d = options.model.embedding_dim
    print(
        json.dumps(
            {
                "milliseconds_per_step": 1000 * seconds,
                "rows_touched_per_step": float(np.mean(rows)),
                "nanoseconds_per_row": 1e9 * seconds / float(np.mean(rows)),
                "epoch_seconds": [epoch.train_seconds for epoch in run.epochs],
                "windows": sequences.num_windows,
                "table_bytes": 4 * d * (vocabulary.num_users + 2 * vocabulary.num_items),
                "peak_memory_bytes": peak_bytes(),
                "hit_rate@10": float(per_user("hit_rate@10", ranks).mean()),
                "users": vocabulary.num_users,
                "events": len(part),
            }
        )
    )


def _rows(batch) -> int:
    candidates = torch.cat([batch.targets.flatten(), batch.negatives.flatten()])
    short = torch.cat([batch.windows.flatten(), candidates]).unique()
    return len(short) + len(candidates.unique()) + len(batch.users.unique())


if __name__ == "__main__":
    main()
