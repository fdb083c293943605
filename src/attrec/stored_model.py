"""What of a model is stored where: its parts as tensors and documents of an artifact, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import nn

from attrec.artifact import Artifact
from attrec.config import ModelConfig, Options, option_specs
from attrec.data.interactions import IdArray, InteractionLog
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.data.vocabulary import Vocabulary
from attrec.errors import ArtifactError, ConfigError
from attrec.model.additive import AdditiveNetwork
from attrec.model.choice import Network, make_network
from attrec.model.network import AttRecNetwork
from attrec.model.prior import Attributes
from attrec.popularity import Moment

_ROWS_OF = {
    "paper": {"item_short": "item_short", "item_long": "item_short", "user_long": "user_long"},
    "additive": dict.fromkeys(("item_context", "item_key"), "item_key"),
}
"""The tables with a row for each item or user, and the one that says how many there are."""


@dataclass(frozen=True, eq=False)
class StoredModel:
    """The parts of a recommender, which documents them."""

    network: Network
    vocabulary: Vocabulary
    histories: Sequences
    options: Options
    titles: Mapping[str, str]
    record: Mapping[str, Any]
    moment: Moment | None = None
    waiting: InteractionLog | None = None


def to_artifact(model: StoredModel) -> dict[str, Any]:
    """Return the arguments ``summary``, ``tensors`` and ``documents`` of `save_artifact`."""
    vocabulary = model.vocabulary
    histories = model.histories.histories
    return {
        "summary": {
            "options": model.options.to_dict(),
            "record": dict(model.record),
            "moment": None if model.moment is None else asdict(model.moment),
        },
        "tensors": {
            "tables": model.network.state_dict(),
            "histories": {
                "values": torch.as_tensor(np.ascontiguousarray(histories.values)),
                "offsets": torch.as_tensor(np.ascontiguousarray(histories.offsets)),
                **_times(model.histories),
            },
        },
        "documents": {
            "vocabulary": {
                "num_trained_users": vocabulary.num_trained_users,
                "num_trained_items": vocabulary.num_trained_items,
                "users": {"kind": vocabulary.user_kind, "ids": vocabulary.user_ids.tolist()},
                "items": {"kind": vocabulary.item_kind, "ids": vocabulary.item_ids.tolist()},
            },
            "titles": dict(model.titles),
            **_waiting_document(model.waiting),
        },
    }


def from_artifact(artifact: Artifact, place: str) -> StoredModel:
    """Read the parts back, and check that they fit together.

    Parameters
    ----------
    artifact : Artifact
    place : str
        Where it was read, for messages.

    Raises
    ------
    ArtifactError
        A part is missing or does not fit the options or another part.
    """
    try:
        options = Options.from_dict(_as_of_today(artifact.summary["options"]))
        vocabulary = _vocabulary(artifact.documents["vocabulary"])
        network = _network(options.model, artifact.tensors["tables"])
        if isinstance(network, AttRecNetwork):
            network.num_trained_items = vocabulary.num_trained_items
        histories = _histories(artifact.tensors["histories"], vocabulary)
        titles = {str(key): str(title) for key, title in artifact.documents["titles"].items()}
        record = dict(artifact.summary["record"])
        found = artifact.summary.get("moment")
        moment = None if found is None else Moment(**found)
        waiting = _waiting(artifact.documents.get("waiting"), vocabulary, histories)
    except ConfigError as error:
        raise ArtifactError(
            f"{place}: its options cannot be read by this version ({error}); retrain the model"
        ) from error
    except KeyError as error:
        raise ArtifactError(
            f"{place}: is damaged (there is no {error}); retrain the model"
        ) from None
    except (TypeError, ValueError, OverflowError, AttributeError, IndexError) as error:
        raise ArtifactError(f"{place}: is damaged ({error}); retrain the model") from error
    return StoredModel(network, vocabulary, histories, options, titles, record, moment, waiting)


_GONE = ("retrain_share",)
"""Options of the training that earlier versions had."""


def _as_of_today(options: Mapping[str, Any]) -> dict[str, Any]:
    """Read options that an earlier version wrote.

    The paper's network has no name where there was no other; what the network is by an option that
    came since, it was by what that came as. Options of the training that are gone since mean
    nothing to what was learnt.
    """
    came_as = {
        spec.name: spec.came_as
        for spec in option_specs()
        if spec.section == "model" and spec.came_as is not None
    }
    train = {name: value for name, value in options["train"].items() if name not in _GONE}
    return {
        **options,
        "model": {"architecture": "paper", **came_as, **options["model"]},
        "train": train,
    }


def _network(config: ModelConfig, tables: Mapping[str, torch.Tensor]) -> Network:
    # Built without rows, so that no table is drawn only to be replaced.
    network = make_network(config, 0, 0, attributes=_attributes(tables))
    if isinstance(network, AdditiveNetwork):
        _read_buffers(network, tables)
    rows_of = _ROWS_OF[config.architecture]
    for name, empty in network.named_parameters():
        found = tables[name]
        rows = len(tables[rows_of[name]]) if name in rows_of else None
        shape = empty.shape if rows is None else (rows, *empty.shape[1:])
        if found.shape != shape or not found.is_floating_point():
            raise ValueError(
                f"{name} is {found.dtype} of shape {tuple(found.shape)} where floating-point "
                f"numbers of shape {tuple(shape)} belong"
            )
        owner, _, last = name.rpartition(".")
        setattr(network.get_submodule(owner), last, nn.Parameter(found))
    return network


def _read_buffers(network: AdditiveNetwork, tables: Mapping[str, torch.Tensor]) -> None:
    """Read what is no parameter; a model that was saved earlier has only ``start``."""
    network.start = tables["start"].reshape(network.start.shape)
    width = len(network.start)
    for name in ("folded_context", "folded_key"):
        setattr(network, name, tables.get(name, network.folded_key[:0]).reshape(-1, width))
    count = len(tables["item_key"]) + len(network.folded_key)
    offset = tables.get("offset", torch.zeros(count, dtype=torch.float64))
    if len(network.folded_context) != len(network.folded_key) or len(offset) != count:
        raise ValueError("the rows of items that came after training do not fit one another")
    if not bool((offset >= 0).all()):
        raise ValueError("an item's offset is below 0")
    network.offset = offset


def _attributes(tables: Mapping[str, torch.Tensor]) -> Attributes | None:
    """Read what a network with a prior knows of its items."""
    if "prior.entries" not in tables:
        return None
    entries, offsets = tables["prior.entries"].numpy(), tables["prior.offsets"].numpy()
    vectors = tables["prior.vectors"].numpy()
    trained, count = len(tables["item_key"]), len(tables["prior.category_key"])
    rows = trained + len(tables.get("folded_key", ()))
    if len(vectors) == trained and len(offsets) == trained + 1:
        # A model that was saved earlier keeps nothing of items that came after the training.
        offsets = np.pad(offsets, (0, rows - trained), mode="edge")
        vectors = np.pad(vectors, ((0, rows - trained), (0, 0)))
    if not len(offsets) - 1 == len(vectors) == rows or offsets[-1] != len(entries):
        raise ValueError("the attributes of the items do not fit the items")
    if len(entries) and not 0 <= entries.min() <= entries.max() < count:
        raise ValueError("an item has a category that the model lacks")
    return Attributes(count, entries, offsets, vectors)


def _vocabulary(document: Mapping[str, Any]) -> Vocabulary:
    users, items = _ids(document["users"]), _ids(document["items"])
    trained = document["num_trained_users"]
    if type(trained) is not int or not 0 <= trained <= len(users):
        raise ValueError(f"num_trained_users is {trained!r} with {len(users)} users")
    # A model that was saved before items could come later has none of these.
    trained_items = document.get("num_trained_items", len(items))
    if type(trained_items) is not int or not 0 <= trained_items <= len(items):
        raise ValueError(f"num_trained_items is {trained_items!r} with {len(items)} items")
    return Vocabulary(users, items, trained, trained_items)


def _ids(entry: Mapping[str, Any]) -> IdArray:
    kind, ids = entry["kind"], entry["ids"]
    expected = {"integer": int, "string": str}[kind]
    if any(type(identity) is not expected for identity in ids):
        raise ValueError(f"an id in the vocabulary is no {kind}")
    return np.array(ids, dtype=np.int64 if kind == "integer" else object)


def _histories(tensors: Mapping[str, torch.Tensor], vocabulary: Vocabulary) -> Sequences:
    values, offsets = tensors["values"].numpy(), tensors["offsets"].numpy().astype(np.int64)
    whole = len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == len(values)
    if not whole or (np.diff(offsets) < 0).any():
        raise ValueError("the offsets of the histories do not cut their values into lists")
    if len(values) and not 0 <= values.min() <= values.max() < vocabulary.num_items:
        raise ValueError("a history holds an item that the vocabulary lacks")
    times = tensors["times"].numpy() if "times" in tensors else None
    if times is not None and (times.shape != values.shape or not np.isfinite(times).all()):
        raise ValueError("the times of the events do not fit the events")
    return Sequences(Ragged(values, offsets), times)


def _waiting_document(waiting: InteractionLog | None) -> dict[str, Any]:
    """Return the document ``waiting``, of a model in which observed events wait for an update."""
    if waiting is None or len(waiting) == 0:
        return {}
    times = waiting.timestamps
    return {
        "waiting": {
            "users": waiting.user_ids[waiting.user_codes].tolist(),
            "items": waiting.item_ids[waiting.item_codes].tolist(),
            "times": None if times is None else times.tolist(),
        }
    }


def _waiting(
    document: Mapping[str, Any] | None, vocabulary: Vocabulary, histories: Sequences
) -> InteractionLog | None:
    if document is None:
        return None
    users, items, times = (document[name] for name in ("users", "items", "times"))
    users = _ids({"kind": vocabulary.user_kind, "ids": users})
    items = _ids({"kind": vocabulary.item_kind, "ids": items})
    if (times is None) != (histories.times is None):
        raise ValueError("only one of the histories and the waiting events has times")
    if times is not None and not all(type(time) is float and isfinite(time) for time in times):
        raise ValueError("the time of a waiting event is no finite number")
    return InteractionLog.from_columns(users, items, times, source="the observed events")


def _times(histories: Sequences) -> dict[str, torch.Tensor]:
    if histories.times is None:
        return {}
    return {"times": torch.as_tensor(np.ascontiguousarray(histories.times))}
