"""A model brought up to date: new events, new users and new items, without training.

New events go into the histories where their time says; the newest count at once. A new user needs
nothing: the intent is made of the history, and the paper's long-term factor is folded in from it.
A new item gets vectors from the events that took it, read from trained rows alone: a new user and a
new item never define each other. The popularity of the moment is reckoned anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attrec.data.cleaning import clean
from attrec.data.features import ItemFeatures, VectorScale
from attrec.data.given import as_items
from attrec.data.interactions import IdArray, InteractionLog
from attrec.data.items import Items
from attrec.data.merging import check_times, merge_events, with_missing
from attrec.data.ragged import Ragged
from attrec.data.reading import read_interactions
from attrec.data.vocabulary import UNKNOWN, Vocabulary
from attrec.errors import DataError, RequestError
from attrec.model.additive import AdditiveNetwork
from attrec.model.prior import Attributes, unknown
from attrec.new_items import fold_in_items
from attrec.popularity import at_moment
from attrec.recommender import Recommender
from attrec.request import number

_SHOWN = 5
"""Ids that a summary names."""


@dataclass(frozen=True)
class UpdateSummary:
    """Who and what came in.

    Attributes
    ----------
    events : int
        That came in.
    known : int
        That were there before.
    late : int
        Of those that came in: before a later event of their user.
    users, new_users : int
        With an event that came in; of these, never met before.
    new_items : int
        Never met before.
    folded_in : int
        All items after the training that events say something of.
    unplaced : int
        Items after the training that nothing is known of: nobody with a known history took them
        yet. No list holds them before.
    new_user_ids, new_item_ids, unplaced_ids : tuple of int or str
        Of these, the first few.
    """

    events: int
    known: int
    late: int
    users: int
    new_users: int
    new_items: int
    folded_in: int
    unplaced: int
    new_user_ids: tuple[int | str, ...] = ()
    new_item_ids: tuple[int | str, ...] = ()
    unplaced_ids: tuple[int | str, ...] = ()

    def __str__(self) -> str:
        """Return the summary as sentences."""
        came = (
            f"events that came in: {self.events:,}, of {self.users:,} users; new users: "
            f"{_named(self.new_users, self.new_user_ids)}, new items: "
            f"{_named(self.new_items, self.new_item_ids)}"
        )
        more = []
        if self.late:
            more.append(f"late, put where their time says: {self.late:,}")
        if self.known:
            more.append(f"there before: {self.known:,}")
        if self.folded_in:
            more.append(f"items folded in since the training: {self.folded_in:,}")
        if self.unplaced:
            named = _named(self.unplaced, self.unplaced_ids)
            more.append(f"new items that nothing is known of yet: {named}")
        return "; ".join([came, *more])


@dataclass(frozen=True, eq=False)
class Updated:
    """What `update` returns: the model as it now is, and who and what came in."""

    recommender: Recommender
    summary: UpdateSummary


def update(
    recommender: Recommender,
    log: InteractionLog | Any,
    *,
    items: Items | str | Path | None = None,
    untaken: bool = False,
    room: float | None = None,
) -> Updated:
    """Take new events in, without training; the given recommender stays as it is.

    Events that were observed and wait for an update (`Recommender.waiting`) come in too, each once
    also where ``log`` has it.

    Parameters
    ----------
    recommender : Recommender
    log : InteractionLog, path or frame
        A path or a frame is read and cleaned by the model's own options, but for the k-core, which
        would leave little of new events. A log should be cleaned as the training log was. Events
        that the model has do not come in again, so that a file, or a whole log that has grown, may
        be given twice. Without times, where nobody can tell an event from its repetition,
        recognised are the same file as a whole, and a log that begins, for everybody, with what
        the model has.
    items : Items or path, optional
        Titles of new items; and their attributes, where the model has learnt from some. They are
        kept, so that later updates need not tell them again.
    untaken : bool
        Items that nobody took come in too, where ``items`` says of them what the model has learnt
        from. They have taken nothing, so ``room`` has to be given.
    room : float, 0 ≤ room ≤ 1, optional
        Which share of all places in the lists items newer than the training get. Left out: what an
        earlier update was told, or their share of the events since the first of them came.

    Returns
    -------
    Updated

    Raises
    ------
    DataError
        Ids of another kind than the model's, times in only one of the two, or a path or a frame
        that cannot be read.
    RequestError
        ``room`` is out of range or missing, or the model has not learnt from what ``items`` says.
    ConfigError
        ``items`` lacks a column that was learnt from, or has vectors of another size.
    """
    room = recommender.record.get("room") if room is None else number("room", room)
    items = as_items(items)
    _check_room(untaken, room)
    if not isinstance(log, InteractionLog):
        log = read_interactions(log, config=recommender.options.data.uncut())
    waiting = recommender.waiting
    before = recommender.vocabulary
    vocabulary = before.with_users_of(log).with_items_of(log)
    vocabulary = vocabulary.with_users_of(waiting).with_items_of(waiting)
    if untaken:
        vocabulary = _with_untaken(recommender, vocabulary, items)
    batches = list(recommender.record.get("updates", []))
    known_files = {recommender.record.get("log_fingerprint"), *batches}
    new = _lacking(log, before) if _is_repeated(log, known_files, recommender) else log
    if len(new):
        check_times(recommender.histories, new)
    merged = merge_events(
        recommender.histories,
        with_missing(new, waiting),
        vocabulary,
        recommender.options.data.repeats,
    )
    trained, network = vocabulary.num_trained_items, recommender.network
    placed = np.zeros(0, np.int64)
    if vocabulary.num_items > trained:
        described = _described(recommender, items, vocabulary.item_ids[trained:])
        network, placed = fold_in_items(
            network, merged.sequences, vocabulary, recommender.moment, described, room
        )
    elif isinstance(network, AdditiveNetwork):
        network = at_moment(network, merged.sequences, recommender.moment)
    record = dict(recommender.record)
    if room is not None:
        record["room"] = room
    untimed = [each for each in (new, waiting) if len(each) and each.timestamps is None]
    if untimed:
        record["updates"] = list(dict.fromkeys([*batches, *(e.fingerprint() for e in untimed)]))
    users = merged.sequences.histories.row_of_value[merged.is_new]
    titles = {} if items is None else items.titles
    fresh = Recommender(
        network, vocabulary, merged.sequences, recommender.options,
        {**titles, **recommender.titles}, record, recommender.moment,
    )  # fmt: skip
    summary = UpdateSummary(
        events=int(merged.is_new.sum()),
        known=len(log) - len(new) + merged.known,
        late=merged.late,
        users=len(np.unique(users)),
        new_users=vocabulary.num_users - before.num_users,
        new_items=vocabulary.num_items - before.num_items,
        folded_in=len(placed),
        unplaced=vocabulary.num_items - trained - len(placed),
        new_user_ids=_some(vocabulary.user_ids[before.num_users :]),
        new_item_ids=_some(vocabulary.item_ids[before.num_items :]),
        unplaced_ids=_some(np.delete(vocabulary.item_ids[trained:], placed)),
    )
    return Updated(fresh, summary)


def _some(ids: IdArray) -> tuple[int | str, ...]:
    return tuple(ids[:_SHOWN].tolist())


def _named(number: int, ids: tuple[int | str, ...]) -> str:
    if not ids:
        return f"{number:,}"
    return f"{number:,} ({', '.join(map(str, ids))}{', …' if number > len(ids) else ''})"


def _is_repeated(log: InteractionLog, known: set[str | None], recommender: Recommender) -> bool:
    """Answer whether a file without times was taken in before, whole or cut to a k-core."""
    if log.timestamps is not None:
        return False
    if log.fingerprint() in known:
        return True
    data = recommender.options.data
    if data == data.uncut():
        return False
    try:
        return clean(log, data).fingerprint() in known
    except DataError:  # the k-core leaves nothing of it
        return False


def _lacking(log: InteractionLog, vocabulary: Vocabulary) -> InteractionLog:
    """Take the events of users or items that a k-core or a held-out part kept from the model."""
    items = vocabulary.encode_items(log.item_ids)[log.item_codes]
    users = vocabulary.encode_users(log.user_ids)[log.user_codes]
    return log.take(np.flatnonzero((items == UNKNOWN) | (users == UNKNOWN)))


def held_by_the_other(model: Recommender, other: Recommender) -> dict[str, int]:
    """Return how many users, items and events another model holds that this one lacks.

    Times are not compared: who took an item as often in both lacks no event of it.
    """
    ours, theirs = model.vocabulary, other.vocabulary
    users = ours.encode_users(theirs.user_ids.tolist())
    items = ours.encode_items(theirs.item_ids.tolist())
    histories = other.histories.histories
    pairs = np.stack([users[histories.row_of_value], items[histories.values]])
    pairs = pairs[:, (pairs != UNKNOWN).all(axis=0)]
    own = model.histories.histories
    width = max(ours.num_items, 1)
    found, counts = np.unique(pairs[0] * width + pairs[1], return_counts=True)
    held, own_counts = np.unique(
        own.row_of_value * width + own.values.astype(np.int64), return_counts=True
    )
    have = np.zeros_like(counts)
    _, at, of = np.intersect1d(found, held, assume_unique=True, return_indices=True)
    have[at] = own_counts[of]
    return {
        "users": int((users == UNKNOWN).sum()),
        "items": int((items == UNKNOWN).sum()),
        "events": int(len(histories.values) - np.minimum(counts, have).sum()),
    }


def _check_room(untaken: bool, room: float | None) -> None:
    if room is not None and not 0 <= room <= 1:
        raise RequestError(
            f"room = {room!r}: the share of the lists that new items get must be from 0 to 1, such "
            "as 0.05"
        )
    if untaken and room is None:
        raise RequestError(
            "untaken: items that nobody took have no share of the events; say with room how much "
            "of the lists new items get, such as 0.05"
        )


def _with_untaken(
    recommender: Recommender, vocabulary: Vocabulary, items: Items | None
) -> Vocabulary:
    """Append the items of a file that the model can say something of, in the order of their ids."""
    if items is None:
        raise RequestError("untaken: give the item file that says what these items are (items)")
    parsed = sorted(vocabulary.parse_item(text) for text in items.ids())
    ids = np.array(parsed, dtype=vocabulary.item_ids.dtype)
    network = recommender.network
    if not isinstance(network, AdditiveNetwork) or network.prior is None:
        raise RequestError(
            "untaken: the model has learnt from no attributes of items, so that nothing can be "
            "said of one that nobody took; train it with item_categories or item_vectors"
        )
    return vocabulary.with_items(ids[_read(recommender, items, ids).told])


def _described(recommender: Recommender, items: Items | None, ids: IdArray) -> Attributes | None:
    """Return the attributes of all items newer than the training, where it learnt from any.

    What ``items`` does not tell of is what an earlier update was told.
    """
    network = recommender.network
    if not isinstance(network, AdditiveNetwork) or network.prior is None:
        return None
    before = network.prior.behind(network.num_trained_items)
    came = unknown(len(ids) - len(before.vectors), before)
    categories = [*_lists(before), *_lists(came)]
    vectors = np.concatenate([before.vectors, came.vectors])
    if items is not None:
        read = _read(recommender, items, ids)
        of_file = _lists(read)
        for at in np.flatnonzero(read.told):
            categories[at], vectors[at] = of_file[at], read.vectors[at]
    kept = Ragged.from_lists(categories, dtype=np.int64)
    return Attributes(before.num_categories, kept.values, kept.offsets, vectors)


def _lists(attributes: Attributes) -> list[Any]:
    return list(Ragged(attributes.categories, attributes.offsets))


def _read(recommender: Recommender, items: Items, ids: IdArray) -> Attributes:
    """Read attributes as those of the training were read."""
    options, record = recommender.options.model, recommender.record
    scale = record.get("item_vectors")
    if options.item_vectors is not None and scale is None:
        raise RequestError(
            "the model was trained by an earlier version, which kept no scale of the items' "
            "vectors; train it again, or leave out the item file"
        )
    found = ItemFeatures.of(
        items, ids, options.item_categories, options.item_vectors,
        names=record["item_categories"], scale=None if scale is None else VectorScale(**scale),
    )  # fmt: skip
    kept = found.categories
    return Attributes(len(found.names), kept.values, kept.offsets, found.vectors)
