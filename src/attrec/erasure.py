"""A model that forgets somebody: their history, their id and whatever is theirs alone.

What the shared tables learnt from them stays until the model is trained again without them; see
docs/forgetting.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attrec.config import Options
from attrec.data.late import late_events
from attrec.data.sequences import Sequences
from attrec.data.vocabulary import UNKNOWN
from attrec.errors import RequestError, UnknownIdError
from attrec.model.additive import AdditiveNetwork
from attrec.model.network import AttRecNetwork
from attrec.recommender import Recommender
from attrec.request import Ids, listed, plain

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ForgetSummary:
    """What went, and what only a retraining takes away.

    Attributes
    ----------
    users : int
        That were forgotten.
    events : int
        Of their histories.
    trained_users : int
        Of these users: those that the training learnt from, not only later updates.
    user_rows : int
        Rows of U that went; the additive network has none.
    lone_items : tuple of int or str
        Ids of the items that nobody else has taken: their vectors were learnt from these users
        alone.
    dropped_items : int
        How many of those went too.
    unplaced_items : tuple of int or str
        Ids of the items that stay without vectors: they came after the training, and what was known
        of them came from these users alone, whoever else took them.
    updates : int
        Fingerprints of files that went from the record; see `forget`.
    mentions : tuple of str
        Options of the reading (``where``, say) in whose text one of the ids stands: it was written
        by whoever trained the model, and stays, there and in the record of the cleaning.
    shared : str
        What stays and has learnt from these users; empty where nothing has.
    """

    users: int
    events: int
    trained_users: int
    user_rows: int
    lone_items: tuple[int | str, ...]
    dropped_items: int
    unplaced_items: tuple[int | str, ...]
    updates: int
    mentions: tuple[str, ...]
    shared: str

    def __str__(self) -> str:
        """Return the summary as sentences."""
        rows = f", and {_count(self.user_rows, 'row')} of U" if self.user_rows else ""
        lines = [
            f"{_count(self.users, 'user')} forgotten, with {_count(self.events, 'event')}{rows}."
        ]
        if self.shared:
            lines.append(f"{self.shared[0].upper()}{self.shared[1:]}.")
        if self.lone_items:
            lines.append(self._of_lone_items())
        others = [item for item in self.unplaced_items if item not in self.lone_items]
        if others:
            lines.append(
                f"{_count(len(others), 'item')} that others took too ({_some(others)}) had vectors "
                "that were made of them alone: in no list, and passed over in the histories of "
                "those others, until the next update."
            )
        if self.updates:
            lines.append(
                "Files of events without times that were given to update before are no longer "
                "recognised: do not give them again."
            )
        if self.mentions:
            lines.append(f"An id of theirs may stand in {', '.join(self.mentions)}: look there.")
        return "\n".join(lines)

    def _of_lone_items(self) -> str:
        items = _count(len(self.lone_items), "item")
        named = f"{items} that nobody else took ({_some(self.lone_items)})"
        if self.dropped_items:
            return f"With them went {named}."
        unplaced = len(set(self.lone_items) & set(self.unplaced_items))
        kept = len(self.lone_items) - unplaced
        states = []
        if kept:
            states.append(f"{kept:,} with vectors that were learnt from them alone")
        if unplaced:
            states.append(f"{unplaced:,} in no list until somebody takes them")
        return f"There stay {named}: {', '.join(states)}; --drop-lone-items takes them away too."


@dataclass(frozen=True, eq=False)
class Forgotten:
    """What `forget` returns: the model without these users, and what went with them."""

    recommender: Recommender
    summary: ForgetSummary


def forget(
    recommender: Recommender, users: Ids | int | str, *, drop_lone_items: bool = False
) -> Forgotten:
    """Take users out of a model; the given recommender stays as it is.

    Their ids, their histories with all times, and their rows of U go. Of an item that came after
    the training the vectors go if they were made of these users alone, whoever else took it; no
    list holds it, and it says nothing of whoever took it, until an update knows more of it.
    Everybody else is answered bit for bit as before, but for those items and those who took one
    (with ``drop_lone_items``, for all items that went). The tables that all share have learnt from
    these users, as the offsets of the popularity of the moment and the vectors of later items have
    counted them: an update reckons those anew, a retraining the tables.

    Whose events made the vectors of a later item is told from today's histories. An event that was
    observed since the last update passes for one that they were made of, so where events are
    observed, update first and forget then.

    From the record go the fingerprints of files without times: of a file with one event anybody
    could find out by trying what stands in it. Such a file is then no longer recognised when it is
    given to an update again.

    Parameters
    ----------
    recommender : Recommender
    users : user id, or a sequence of them
        All known; if one is not, nobody is forgotten.
    drop_lone_items : bool
        Take away the items too that nobody else took.

    Returns
    -------
    Forgotten

    Raises
    ------
    UnknownIdError
        The model lacks a user.
    RequestError
        No user is named, or ``drop_lone_items`` would leave no item.
    """
    vocabulary, sequences = recommender.vocabulary, recommender.histories
    names = [users] if isinstance(users, int | str | np.integer) else users
    if not hasattr(names, "__len__"):
        raise RequestError(f"{users!r} is no user and no list of users; name whom to forget")
    going = _known(recommender, names)
    staying = np.setdiff1d(np.arange(vocabulary.num_users), going)
    lone = _taken_by_nobody_else(sequences, going)
    dropped = lone if drop_lone_items else lone[:0]
    if len(dropped) == vocabulary.num_items:
        raise RequestError(
            "nobody else took any item, so that none would be left, and nobody was forgotten; "
            "leave out drop_lone_items (--drop-lone-items), or remove the whole model"
        )
    unplaced = np.setdiff1d(_known_from_nobody_else(recommender, going), dropped)
    kept = np.setdiff1d(np.arange(vocabulary.num_items), dropped)
    trained = staying[staying < vocabulary.num_trained_users]
    network = recommender.network
    device = next(network.parameters()).device
    record = dict(recommender.record)
    updates = record.pop("updates", [])
    fresh = Recommender(
        network.unplacing(torch.as_tensor(unplaced, device=device)).keeping(
            torch.as_tensor(trained, device=device), torch.as_tensor(kept, device=device)
        ),
        replace(
            vocabulary,
            user_ids=vocabulary.user_ids[staying],
            item_ids=vocabulary.item_ids[kept],
            num_trained_users=len(trained),
            num_trained_items=int((kept < vocabulary.num_trained_items).sum()),
        ),
        _without(sequences, staying, kept),
        recommender.options,
        _without_titles(recommender, dropped),
        record,
        recommender.moment,
    )
    ids = set(_ids(vocabulary.user_ids[going]))
    fresh._waiting = [event for event in recommender._waiting if event[0] not in ids]
    trained_users = int((going < vocabulary.num_trained_users).sum())
    summary = ForgetSummary(
        users=len(going),
        events=int(sequences.histories.lengths[going].sum()),
        trained_users=trained_users,
        user_rows=trained_users if isinstance(network, AttRecNetwork) else 0,
        lone_items=tuple(_ids(vocabulary.item_ids[lone])),
        dropped_items=len(dropped),
        unplaced_items=tuple(_ids(vocabulary.item_ids[unplaced])),
        updates=len(updates),
        mentions=tuple(_mentions(fresh.options, ids)),
        shared=_shared(recommender, trained_users),
    )
    return Forgotten(fresh, summary)


def _known(recommender: Recommender, users: Ids) -> Ints:
    users = listed(users)
    if len(users) == 0:
        raise RequestError("name at least one user to forget")
    index = recommender.vocabulary.encode_users(users)
    unknown = np.flatnonzero(index == UNKNOWN)
    if len(unknown):
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise UnknownIdError(
            f"user {plain(users[unknown[0]])!r}{more} is not in the model, and nobody was "
            "forgotten; name users that the model has"
        )
    return np.unique(index)


def _taken_by_nobody_else(sequences: Sequences, going: Ints) -> Ints:
    histories = sequences.histories
    theirs = np.isin(histories.row_of_value, going)
    return np.setdiff1d(histories.values[theirs], histories.values[~theirs]).astype(np.int64)


def _known_from_nobody_else(recommender: Recommender, going: Ints) -> Ints:
    """Return the late items whose vectors were made of these users alone, whoever took them.

    Who takes such an item with no history before it says nothing of it.
    """
    trained = recommender.vocabulary.num_trained_items
    length = recommender.network.config.window_length
    events = late_events(recommender.histories, trained, length)
    theirs = np.isin(events.users, going)
    placed = np.setdiff1d(events.items[theirs], events.items[~theirs]) + trained
    lone = _taken_by_nobody_else(recommender.histories, going)
    return np.union1d(placed, lone[lone >= trained]).astype(np.int64)


def _without(sequences: Sequences, staying: Ints, kept_items: Ints) -> Sequences:
    """Return the histories of those who stay; none of them has an item that is not kept."""
    histories = sequences.histories.take(staying)
    values = np.searchsorted(kept_items, histories.values).astype(histories.values.dtype)
    times = sequences.times
    if times is not None:
        times = times[np.isin(sequences.histories.row_of_value, staying)]
    return Sequences(replace(histories, values=values), times)


def _without_titles(recommender: Recommender, dropped: Ints) -> dict[str, str]:
    gone = {str(item) for item in _ids(recommender.vocabulary.item_ids[dropped])}
    return {item: title for item, title in recommender.titles.items() if item not in gone}


def _shared(recommender: Recommender, trained_users: int) -> str:
    network = recommender.network
    additive = isinstance(network, AdditiveNetwork)
    parts = []
    if trained_users:
        tables = "the vectors of the items and the attention" if additive else "X, V and W"
        parts.append(f"{tables} have learnt from them, which only a training without them undoes")
    counted = isinstance(network, AdditiveNetwork) and bool(network.offset.any())
    if counted or network.num_items > network.num_trained_items:
        what = "the popularity of the moment" if counted else ""
        late = "the vectors of items that came after the training"
        if network.num_items > network.num_trained_items:
            what = f"{what} and {late}" if what else late
        parts.append(f"{what} may have counted them, until the next update")
    return "; ".join(parts)


def _mentions(options: Options, ids: Iterable[int | str]) -> Iterator[str]:
    """Yield the options in whose text one of the ids stands as a word."""
    sought = re.compile("|".join(rf"(?<!\w){re.escape(str(identity))}(?!\w)" for identity in ids))
    for name, value in options.to_dict()["data"].items():
        if isinstance(value, str) and sought.search(value):
            yield name


def _ids(ids: npt.NDArray[Any]) -> list[int | str]:
    found: list[int | str] = ids.tolist()
    return found


def _some(ids: Sequence[int | str]) -> str:
    return f"{', '.join(map(str, ids[:5]))}{', …' if len(ids) > 5 else ''}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
