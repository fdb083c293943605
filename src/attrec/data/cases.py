"""Held-out users in the indices of one vocabulary: what every scorer is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from attrec.data.interactions import InteractionLog
from attrec.data.ragged import Ragged
from attrec.data.splits import HeldOut, Split
from attrec.data.vocabulary import UNKNOWN, Vocabulary


@dataclass(frozen=True, eq=False)
class Cases:
    """``n`` questions "what comes next?".

    Parameters
    ----------
    user_index : (n,) int64
        -1 where the vocabulary lacks the user, who is then scored by fold-in.
    histories : Ragged of int32
        ``item_index`` of all events before the target, oldest first; items that the vocabulary
        lacks are left out.
    targets : Ragged of int32
        ``item_index`` of what came; -1 where the vocabulary lacks the item (a miss).
    """

    user_index: npt.NDArray[np.int64]
    histories: Ragged
    targets: Ragged

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.user_index)

    def take(self, rows: npt.NDArray[Any] | slice) -> Cases:
        """Return the cases ``rows`` (positions, flags or a slice)."""
        return Cases(self.user_index[rows], self.histories.take(rows), self.targets.take(rows))


def validation_events(split: Split, vocabulary: Vocabulary, most: int) -> Cases:
    """Return events of the validation part, each with all that its user had taken before it.

    A split by time judges each user's first event there; a service is asked before every one.

    Parameters
    ----------
    split : Split
    vocabulary : Vocabulary
    most : int
        At most about so many events, evenly spread.
    """
    log = split.train_and_validation
    order = log.time_order()
    users, items = log.user_codes[order], log.item_codes[order]
    starts = np.searchsorted(users, np.arange(log.num_users + 1))
    seen = np.bincount(split.train.user_codes, minlength=log.num_users)
    places = np.flatnonzero(np.arange(len(users)) - starts[users] >= seen[users])
    places = places[:: max(1, -(-len(places) // most))]
    lengths = places - starts[users[places]]
    before = np.repeat(starts[users[places]] - (np.cumsum(lengths) - lengths), lengths)
    histories = items[before + np.arange(lengths.sum())]
    targets = Ragged(items[places], np.arange(len(places) + 1))
    return encode_cases(
        HeldOut(users[places], Ragged.from_lengths(histories, lengths), targets), log, vocabulary
    )


def encode_cases(held_out: HeldOut, log: InteractionLog, vocabulary: Vocabulary) -> Cases:
    """Turn held-out users from the codes of ``log`` into the indices of ``vocabulary``."""
    user_of_code = vocabulary.encode_users(log.user_ids)
    user_of_code[user_of_code >= vocabulary.num_trained_users] = UNKNOWN
    item_of_code = vocabulary.encode_items(log.item_ids).astype(np.int32)
    histories = item_of_code[held_out.histories.values]
    return Cases(
        user_of_code[held_out.user_codes],
        Ragged(histories, held_out.histories.offsets).where(histories != UNKNOWN),
        Ragged(item_of_code[held_out.targets.values], held_out.targets.offsets),
    )
