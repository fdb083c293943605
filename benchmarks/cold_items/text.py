"""Vectors of item texts: what `item_vectors` takes from any model, from the plainest there is."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from attrec.data.items import Items

COLUMN = "text"
SIZE = 64
"""Numbers in a vector."""
WORDS = 2000
"""The most frequent ones; a word of a single item says nothing of any other."""
_WORD = re.compile(r"\w+")


def text_vectors(items: Items) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Return the ids of items and a vector of each: TF-IDF of its words, by SVD cut to `SIZE`.

    w_ij = log(N / n_j) where item i has word j, which n_j of all N items have, rows brought to
    length 1; of W = U S Vᵀ the vectors are the first columns of U S.

    The words are those of title and attributes, each counted once an item. No event is read: an
    item that nobody took has its vector as all others have.

    Returns
    -------
    ids : list of N str
    vectors : (N, ≤ SIZE) float64
        0 of an item without any word that another has.
    """
    words: dict[str, set[str]] = {}
    for column in (items.titles, *items.attributes.values()):
        for item, text in column.items():
            words.setdefault(item, set()).update(_WORD.findall(text.casefold()))
    counts = Counter(word for of_item in words.values() for word in sorted(of_item))
    kept = [word for word, count in counts.most_common(WORDS) if count > 1]
    place = {word: at for at, word in enumerate(kept)}
    rows = np.zeros((len(words), len(kept)))
    for row, of_item in zip(rows, words.values(), strict=True):
        for word in of_item & place.keys():
            row[place[word]] = np.log(len(words) / counts[word])
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    basis = np.linalg.eigh(rows.T @ rows).eigenvectors[:, : -SIZE - 1 : -1]
    return list(words), rows @ basis


def write_with_vectors(items: Items, path: Path) -> None:
    """Write ids and `text_vectors` as the Parquet file that a user would give."""
    ids, vectors = text_vectors(items)
    pq.write_table(pa.table({"item_id": ids, COLUMN: list(vectors)}), path)
