"""RecBole's sequential models: its data, augmentation, loader and loss; the loop is its trainer's.

RecBole cannot express this split, so the whole training file is its training part, and it is
ranked by the model's own ``full_sort_predict``.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from protocol import Lists, Material, Score, Watch, judged, main
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from recbole.sampler import RepeatableSampler
from recbole.utils import get_model, init_seed

USER, ITEM, TIME = "user_id", "item_id", "timestamp"


def configured(spec: dict[str, Any], folder: Path) -> Config:
    """Put RecBole's configuration together: its own defaults but for the row's settings."""
    settings = dict(spec["settings"])
    negatives = settings.get("loss_type", "CE") != "CE"
    if not negatives:
        settings["train_neg_sample_args"] = None
    return Config(
        model=spec["model"],
        dataset="peer",
        config_dict={
            "data_path": str(folder),
            "load_col": {"inter": [USER, ITEM, TIME]},
            "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": "user",
                          "mode": "full"},
            "use_gpu": False,
            "gpu_id": "",
            "seed": spec["seed"],
            "show_progress": False,
            **settings,
        },
    )  # fmt: skip


def write_atomic_file(material: Material, folder: Path) -> None:
    """Write RecBole's ``.inter`` file; only the order of the times counts."""
    path = folder / "peer" / "peer.inter"
    path.parent.mkdir()
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{USER}:token\t{ITEM}:token\t{TIME}:float\n")
        for user, history in zip(material.users, material.histories, strict=True):
            for time, item in enumerate(history):
                file.write(f"{user}\t{item}\t{time}\n")


def scorer(model: Any, dataset: Any, config: Config, num_items: int) -> Score:
    """Score by ``full_sort_predict``; a user that training lacks is the padding user."""
    tokens = dataset.field2token_id[ITEM]
    place = np.array([tokens.get(str(item), 0) for item in range(num_items)])
    # RecBole numbers items as they come, and so does the material: then no column moves.
    in_order = np.array_equal(place, np.arange(1, num_items + 1))
    user_of = dataset.field2token_id[USER]
    length = config["MAX_ITEM_LIST_LENGTH"]

    @torch.no_grad()
    def score(users: list[str], histories: Lists) -> np.ndarray:
        sequences = torch.zeros(len(users), length, dtype=torch.long)
        lengths = torch.ones(len(users), dtype=torch.long)
        for row, history in enumerate(histories):
            ids = place[history][-length:]
            sequences[row, : len(ids)] = torch.from_numpy(ids)
            lengths[row] = max(1, len(ids))
        asked = Interaction(
            {
                USER: torch.tensor([user_of.get(user, 0) for user in users]),
                f"{ITEM}{config['LIST_SUFFIX']}": sequences,
                config["ITEM_LIST_LENGTH_FIELD"]: lengths,
            }
        )
        scores = model.full_sort_predict(asked).view(len(users), -1).numpy()
        if in_order:
            return scores[:, 1:]
        scores[:, 0] = -np.inf
        return scores[:, place]

    return score


def train(material: Material, spec: dict[str, Any], watch: Watch) -> Score:
    """Train as RecBole's trainer does, and keep the state that was best on validation."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(spec["threads"])
    with tempfile.TemporaryDirectory() as folder:
        write_atomic_file(material, Path(folder))
        config = configured(spec, Path(folder))
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        built = dataset.build()[0]
    sampler = RepeatableSampler("train", built, "uniform").set_phase("train")
    loader = TrainDataLoader(config, built, sampler, shuffle=True)
    model = get_model(config["model"])(config, built)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"]
    )
    score = scorer(model, built, config, len(material.items))

    def judge() -> dict[str, float]:
        model.eval()
        figures = judged(score, material.validation)
        model.train()
        return figures

    watch.start(judge, lambda: {name: value.clone() for name, value in model.state_dict().items()})
    model.train()
    run(model, optimizer, loader, watch)
    if watch.best_state is not None:
        model.load_state_dict(watch.best_state)
    model.eval()
    return score


def run(model: Any, optimizer: torch.optim.Optimizer, loader: Any, watch: Watch) -> None:
    """Take steps until the watch says that it is enough."""
    for epoch in range(watch.max_epochs):
        for step, batch in enumerate(loader, start=1):
            optimizer.zero_grad()
            losses = model.calculate_loss(batch)
            loss = sum(losses) if isinstance(losses, tuple) else losses
            if torch.isnan(loss):
                raise SystemExit("the loss is NaN: the training diverged")
            loss.backward()
            optimizer.step()
            if watch.step(epoch + step / len(loader)):
                return
        if watch.epoch_ended(epoch + 1):
            return


if __name__ == "__main__":
    main(train, "recbole", "torch", "numpy")
