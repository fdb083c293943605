"""The floors that RecTools has: EASE, and item-kNN of the library implicit that it wraps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from implicit.nearest_neighbours import CosineRecommender
from protocol import Lists, Material, Score, Watch, judged, main
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import EASEModel, ImplicitItemKNNWrapperModel
from scipy import sparse


def weights(material: Material, spec: dict[str, Any]) -> Any:
    """(N, N): what an item of the history adds to each item's score."""
    lengths = [len(history) for history in material.histories]
    frame = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(lengths)), lengths),
            Columns.Item: np.concatenate(material.histories),
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2000-01-01"),
        }
    )
    dataset = Dataset.construct(frame.drop_duplicates([Columns.User, Columns.Item]))
    if spec["model"] == "EASE":
        model = EASEModel(**spec["settings"])
        model.fit(dataset)
        found = model.weight
    else:
        model = ImplicitItemKNNWrapperModel(
            CosineRecommender(**spec["settings"], num_threads=spec["threads"])
        )
        model.fit(dataset)
        found = model.model.similarity.tocsr()
    inner = dataset.item_id_map.convert_to_internal(np.arange(len(material.items)))
    return found[inner][:, inner]


def train(material: Material, spec: dict[str, Any], watch: Watch) -> Score:
    """Fit once: there is nothing to stop early."""
    watch.start(lambda: judged(score, material.validation), lambda: None)
    found = weights(material, spec)

    def score(users: list[str], histories: Lists) -> np.ndarray:
        sets = [np.unique(history) for history in histories]
        rows = np.repeat(np.arange(len(sets)), [len(one) for one in sets])
        columns = np.concatenate(sets)
        shape = (len(sets), len(material.items))
        taken = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
        product = taken @ found
        scores = np.asarray(product.todense() if sparse.issparse(product) else product)
        return scores.astype(np.float32)

    watch.epoch_ended(1)
    return score


if __name__ == "__main__":
    main(train, "rectools", "pm-implicit", "numpy")
