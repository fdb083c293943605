"""Anybody's recommendations, read from a file and judged on the same users."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attrec.config import Encoding
from attrec.data.cases import Cases
from attrec.data.columns import plain
from attrec.data.interactions import IdArray, InteractionLog
from attrec.data.ragged import Ragged
from attrec.data.reading import column_names, read_ordered
from attrec.data.text_files import existing_file
from attrec.data.vocabulary import UNKNOWN, Vocabulary
from attrec.errors import DataError, UnknownIdError
from attrec.evaluation.metrics import MISSED
from attrec.evaluation.ranking import Ranking

ORDER_COLUMNS = {"rank": 1, "position": 1, "distance": 1, "score": -1, "prediction": -1}
"""Columns that order a list, best first, and whether smaller (1) or larger (-1) is better."""


@dataclass(frozen=True, eq=False)
class ComparedLists:
    """Somebody's lists as a ranking of the cases.

    Attributes
    ----------
    ranking : Ranking
        A target outside its user's list is missed, so mrr is cut at the list's length.
    shortest, longest : int
        Lengths of the lists; above the shortest, cut-offs are not comparable.
    missing_users : int
        Judged users without a list: all their targets are missed.
    in_words : str
        What a reader of the figures should know.
    """

    ranking: Ranking
    shortest: int
    longest: int
    missing_users: int
    in_words: str


def read_lists(path: str | Path, encoding: Encoding = "utf-8") -> InteractionLog:
    """Read a recommendation file: one row for each user and item, in a log ordered best first.

    CSV, TSV, JSON Lines or Parquet with columns for user and item, and one of `ORDER_COLUMNS`
    (without one the rows of a user are in order). `attrec recommend --all --out` writes such
    a file.

    Raises
    ------
    DataError
        The file cannot be read as that.
    """
    file = existing_file(path)
    order = _order_column(file, encoding)
    log = read_ordered(file, order, encoding)
    if order is None or log.timestamps is None:
        return log
    return replace(log, timestamps=log.timestamps * ORDER_COLUMNS[plain(order)])


def rank_in_lists(
    lists: InteractionLog, cases: Cases, user_ids: IdArray, vocabulary: Vocabulary, top_k: int
) -> ComparedLists:
    """Find each target's place in its user's list.

    Parameters
    ----------
    lists : InteractionLog
        As `read_lists` gives it. Items that the catalogue lacks take up their place.
    cases : Cases
    user_ids : (n,) external ids
        Of the cases' users.
    vocabulary : Vocabulary
        Ids of a text file are read as its kind.
    top_k : int
        Length of the lists kept for coverage and novelty, that of the longest list at most; -1
        stands for an unknown item there.

    Raises
    ------
    DataError
        The vocabulary has none of the items.
    """
    order = lists.time_order()
    items_of = _as_items(lists.item_ids, vocabulary)
    unknown = int((items_of == UNKNOWN).sum())
    if 0 < unknown == len(items_of):
        raise DataError(
            f"{lists.source}: the model has none of its {unknown:,} items, such as "
            f"{lists.item_ids[0]!s}, while its own are such as {vocabulary.item_ids[0]!s}; write "
            "the ids as the log has them"
        )
    by_user = Ragged.from_lengths(
        items_of[lists.item_codes[order]],
        np.bincount(lists.user_codes, minlength=lists.num_users),
    )
    # As text: the file may hold as numbers what the log holds as strings, or the other way round.
    row_of_user = {str(user): row for row, user in enumerate(lists.user_ids)}
    rows = np.array([row_of_user.get(str(user), -1) for user in user_ids])
    ranks = np.full(len(cases.targets.values), MISSED, dtype=np.int64)
    top_k = min(top_k, int(by_user.lengths.max(initial=0)))
    top = np.full((len(cases), top_k), -1, dtype=np.int32)
    lengths = np.zeros(len(cases), dtype=np.int64)
    for case, row in enumerate(rows):
        if row < 0:
            continue
        items = _first_places(by_user[row])
        lengths[case] = len(items)
        top[case, : len(items)] = items[:top_k]
        place = {int(item): rank for rank, item in enumerate(items, start=1) if item >= 0}
        start = cases.targets.offsets[case]
        for offset, target in enumerate(cases.targets[case]):
            ranks[start + offset] = place.get(int(target), MISSED)
    given = lengths[rows >= 0]
    missing = int((rows < 0).sum())
    shortest, longest = (int(given.min()), int(given.max())) if len(given) else (0, 0)
    by_rows = "" if lists.timestamps is not None else " in the order of its rows"
    assumed = f" ({', '.join(lists.notes)})" if lists.notes else ""
    words = (
        f"{lists.source}{assumed}: lists of {shortest} to {longest} items{by_rows}, a target "
        "outside is a miss"
    )
    if missing:
        words += f", {missing:,} judged users have no list and count as misses"
    if unknown:
        words += f", {unknown:,} of its {len(items_of):,} items are not in the catalogue"
    return ComparedLists(
        Ranking(Ragged(ranks, cases.targets.offsets), top), shortest, longest, missing, words
    )


def _order_column(file: Path, encoding: Encoding) -> str | None:
    by_plain_name = {plain(name): name for name in column_names(file, encoding)}
    return next((by_plain_name[name] for name in ORDER_COLUMNS if name in by_plain_name), None)


def _as_items(ids: IdArray, vocabulary: Vocabulary) -> npt.NDArray[np.int64]:
    if vocabulary.item_kind == "integer" and ids.dtype.kind == "O":
        parsed = []
        for text in ids:
            try:
                parsed.append(vocabulary.parse_item(text))
            except UnknownIdError:
                parsed.append(text)
        return vocabulary.encode_items(parsed)
    if vocabulary.item_kind == "string" and ids.dtype.kind != "O":
        return vocabulary.encode_items([str(value) for value in ids])
    return vocabulary.encode_items(ids)


def _first_places(items: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Drop repeats of an item, keeping the first; unknown items all stay."""
    _, first = np.unique(items, return_index=True)
    keep = np.zeros(len(items), dtype=bool)
    keep[first] = True
    return np.asarray(items[keep | (items == UNKNOWN)])
