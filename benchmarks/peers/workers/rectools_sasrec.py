"""RecTools' SASRec, trained through its own door: Lightning, with a callback that watches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from protocol import Lists, Material, Score, Watch, judged, main
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class Watching(Callback):
    """Tells the watch of every step and epoch, and stops the trainer when it says so."""

    def __init__(self, watch: Watch, material: Material, model: SASRecModel) -> None:
        self.watch, self.material, self.model = watch, material, model

    def __deepcopy__(self, memo: dict[int, Any]) -> Watching:
        """Stay the one that the worker holds: RecTools copies its trainer before the fit."""
        return self

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Begin the count."""
        score = scorer(self.model, len(self.material.items))

        def judge() -> dict[str, float]:
            module.eval()
            figures = judged(score, self.material.validation)
            module.train()
            return figures

        self.watch.start(judge, lambda: copied(module.torch_model))

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step."""
        done = (batch_idx + 1) / trainer.num_training_batches
        trainer.should_stop |= self.watch.step(trainer.current_epoch + done)

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        """Count the epoch."""
        if not trainer.should_stop:
            trainer.should_stop = self.watch.epoch_ended(trainer.current_epoch + 1)


def copied(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copy a network's state."""
    return {name: value.clone() for name, value in network.state_dict().items()}


def scorer(model: SASRecModel, num_items: int) -> Score:
    """Score as `SASRecModel.recommend` does: last position times all items."""
    prepared, module = model.data_preparator, model.lightning_model
    known = prepared.get_known_item_ids().astype(np.int64)
    inner = torch.from_numpy(prepared.get_known_items_sorted_internal_ids().astype(np.int64))
    place = np.zeros(num_items, dtype=np.int64)
    place[known] = inner.numpy()

    @torch.no_grad()
    def score(users: list[str], histories: Lists) -> np.ndarray:
        x = torch.zeros(len(users), model.session_max_len, dtype=torch.long)
        for row, history in enumerate(histories):
            ids = place[history]
            ids = ids[ids > 0][-model.session_max_len :]
            if len(ids):
                x[row, -len(ids) :] = torch.from_numpy(ids)
        network = module.torch_model
        items = network.item_model.get_all_embeddings()
        sessions = network.encode_sessions({"x": x}, items)[:, -1, :]
        similarity = network.similarity_module
        products = (
            similarity.session_tower_forward(sessions) @ similarity.item_tower_forward(items).T
        )
        scores = np.full((len(users), num_items), -np.inf, dtype=np.float32)
        scores[:, known] = products[:, inner].numpy()
        return scores

    return score


def train(material: Material, spec: dict[str, Any], watch: Watch) -> Score:
    """Fit, and keep the state that was best on validation."""
    torch.set_num_threads(spec["threads"])
    seed_everything(spec["seed"], verbose=False)
    lengths = [len(history) for history in material.histories]
    items = np.concatenate(material.histories)
    frame = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(lengths)), lengths),
            Columns.Item: items,
            Columns.Weight: 1.0,
            # Only the order counts, and the rows are in order.
            Columns.Datetime: pd.Timestamp("2000-01-01")
            + pd.to_timedelta(np.arange(len(items)), unit="s"),
        }
    )
    model = SASRecModel(**spec["settings"], recommend_torch_device="cpu")
    model._trainer = Trainer(
        max_epochs=spec["max_epochs"],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Watching(watch, material, model)],
    )
    model.fit(Dataset.construct(frame))
    network = model.lightning_model.torch_model
    if watch.best_state is not None:
        network.load_state_dict(watch.best_state)
    network.eval()
    return scorer(model, len(material.items))


if __name__ == "__main__":
    main(train, "rectools", "torch", "numpy")
