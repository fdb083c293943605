"""What item files say about items, as numbers a network can learn from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from attrec.data.interactions import IdArray
from attrec.data.items import Items
from attrec.data.ragged import Ragged
from attrec.errors import ConfigError

_FEWEST = 2
"""A category that a single item has says nothing that the item does not."""
_LEAST = 1e-12


class VectorScale(NamedTuple):
    """What a column of vectors was centred by, and then divided by.

    Attributes
    ----------
    centre : tuple of D float
        Mean over the item file.
    length : float
        Mean length of the centred vectors, above 0.
    """

    centre: tuple[float, ...]
    length: float


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Categories and vectors of N items.

    Parameters
    ----------
    names : tuple of A str
        Of the categories, ``column=value``, sorted.
    categories : Ragged of N lists
        Places in ``names``, ascending.
    vectors : (N, D) float32
        Centred, of mean length 1 over the item file; 0 where an item has none. D may be 0.
    scale : VectorScale, optional
        Of the vectors, where there are any.
    """

    names: tuple[str, ...]
    categories: Ragged
    vectors: npt.NDArray[np.float32]
    scale: VectorScale | None = None

    def __len__(self) -> int:
        """Return N."""
        return len(self.categories)

    @classmethod
    def of(
        cls,
        items: Items,
        item_ids: IdArray,
        columns: str | None = None,
        vector: str | None = None,
        *,
        names: Iterable[str] | None = None,
        scale: VectorScale | None = None,
    ) -> ItemFeatures:
        """Look up what ``items`` says of ``item_ids``.

        The categories and the scale of the vectors depend on the item file alone, so that networks
        over different items of it share them; or on what is given, so that another file is read as
        that one was.

        Parameters
        ----------
        items : Items
        item_ids : (N,) int64 or str
        columns : str, optional
            Columns with categories, by commas.
        vector : str, optional
            Column of vectors.
        names : iterable of str, optional
            The categories there are; left out: those that two items of the file have.
        scale : VectorScale, optional
            Left out: that of the file.

        Raises
        ------
        ConfigError
            The item file has no such column, or vectors of another size than ``scale``.

        Examples
        --------
        >>> items = Items({}, {"genre": {"1": "War", "2": "War|Drama", "3": "Drama"}})
        >>> found = ItemFeatures.of(items, np.array([2, 9]), "genre")
        >>> found.names, [row.tolist() for row in found.categories]
        (('genre=Drama', 'genre=War'), [[0, 1], []])
        """
        keys = [str(identity) for identity in item_ids.tolist()]
        values = {name: items.categories(name) for name in _named(columns)}
        known = _names(values) if names is None else tuple(names)
        place = {name: at for at, name in enumerate(known)}
        lists = [
            sorted(
                place[name]
                for column, of_items in values.items()
                for name in (f"{column}={value}" for value in of_items.get(key, ()))
                if name in place
            )
            for key in keys
        ]
        vectors = np.zeros((len(keys), 0), np.float32)
        if vector is not None:
            ids, rows = items.vectors_of(vector)
            scale = scale or _scale(rows)
            vectors = _looked_up(keys, ids, rows, scale)
        return cls(known, Ragged.from_lists(lists, dtype=np.int64), vectors, scale)

    def digest(self) -> str:
        """Return a fingerprint."""
        found = hashlib.sha256("\n".join(self.names).encode())
        for part in (self.categories.values, self.categories.offsets, self.vectors):
            found.update(np.ascontiguousarray(part).tobytes())
        return found.hexdigest()


def _named(columns: str | None) -> list[str]:
    return [name.strip() for name in columns.split(",")] if columns else []


def _names(values: Mapping[str, Mapping[str, list[str]]]) -> tuple[str, ...]:
    counts = Counter(
        f"{column}={value}"
        for column, of_items in values.items()
        for found in of_items.values()
        for value in found
    )
    return tuple(sorted(name for name, count in counts.items() if count >= _FEWEST))


def _scale(rows: npt.NDArray[np.float32]) -> VectorScale:
    if not len(rows):
        raise ConfigError("the column of vectors has no row; give one with a vector for an item")
    centre = rows.mean(axis=0)
    length = float(np.linalg.norm(rows - centre, axis=1).mean())
    return VectorScale(tuple(centre.tolist()), max(_LEAST, length))


def _looked_up(
    keys: list[str], ids: list[str], rows: npt.NDArray[np.float32], scale: VectorScale
) -> npt.NDArray[np.float32]:
    if rows.shape[1] != len(scale.centre):
        raise ConfigError(
            f"item_vectors: the item file has vectors of {rows.shape[1]} numbers, and what was "
            f"learnt from had {len(scale.centre)}; give vectors of the model that made those"
        )
    centred = (rows - np.array(scale.centre, rows.dtype)) / scale.length
    place = {identity: at for at, identity in enumerate(ids)}
    found = np.array([place.get(key, -1) for key in keys], dtype=np.int64)
    looked: npt.NDArray[np.float32] = np.where(found[:, None] >= 0, centred[found], 0.0)
    return looked.astype(np.float32)
