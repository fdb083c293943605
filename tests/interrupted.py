"""A program that is killed by the tests: trains, or saves again and again.

python -m tests.interrupted train FOLDER [STEPS]   trains with checkpoints at every step
python -m tests.interrupted save FOLDER            saves two models in turn until it is killed
"""

import sys
import time
from pathlib import Path

import torch

import attrec
from attrec.recommender import Recommender

OPTIONS = {
    "embedding_dim": 8, "max_epochs": 4, "patience": 0, "batch_size": 40,
    "architecture": "paper", "init_std": 0.3,
    "dropout": 0.2, "checkpoint_seconds": 0.0,
}  # fmt: skip


def log():
    return attrec.simulate("mixed", num_users=60, num_items=40, events_per_user=10, seed=4)


class Slow(attrec.Listener):
    """Leaves the tests time to kill."""

    def progress(self, progress):
        time.sleep(0.005)


def train(folder, listener=None):
    result = attrec.fit(log(), checkpoint=Path(folder) / "checkpoint", listener=listener, **OPTIONS)
    result.recommender.save(Path(folder) / "model")
    return result


def two_models():
    models = []
    for seed in (0, 1):
        options = {**OPTIONS, "max_epochs": 1, "retrain": False, "seed": seed}
        models.append(attrec.fit(log(), **options).recommender)
    return models


def save_for_ever(folder):
    models = two_models()
    sys.stdout.write("saving\n")
    sys.stdout.flush()
    while True:
        for model in models:
            model.save(Path(folder) / "model")


def tables(folder):
    return [p.detach() for p in Recommender.load(Path(folder) / "model").network.parameters()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "train":
        train(sys.argv[2], Slow())
    else:
        save_for_ever(sys.argv[2])
