"""An epoch of ML-1M with the paper's preset, batches and all.

python -m benchmarks.speed.epochs THREADS prints one line of JSON.
"""

from __future__ import annotations

import json
import sys

import torch

from attrec.config import Options
from attrec.data.sequences import Sequences
from attrec.data.vocabulary import Vocabulary
from attrec.model.network import AttRecNetwork
from attrec.training.trainer import train
from benchmarks.data import load_split

EPOCHS = 4


def main() -> None:
    """Train and print the seconds of each epoch."""
    torch.set_num_threads(int(sys.argv[1]))
    options = Options.of("paper-sparse")
    log = load_split("ml-1m", options.protocol).train
    vocabulary = Vocabulary.fit(log)
    network = AttRecNetwork(options.model, vocabulary.num_users, vocabulary.num_items)
    sequences = Sequences.from_log(log, vocabulary)
    run = train(network, sequences, options.train, num_epochs=EPOCHS)
    print(
        json.dumps(
            {
                "seconds": [epoch.train_seconds for epoch in run.epochs],
                "windows": sequences.num_windows,
                "step": run.step,
            }
        )
    )


if __name__ == "__main__":
    main()
