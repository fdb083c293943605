"""A model brought up to date: new events, new users and new items, without training.

New events go into the histories where their time says; the newest count at once. A new user needs
nothing: the intent is made of the history, and the paper's long-term factor is folded in from it.
A new item gets vectors from the events that took it, read from trained rows alone: a new user and a
new item never define each other. The popularity of the moment is reckoned anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize

from attrec.data.features import ItemFeatures
from attrec.data.interactions import IdArray, InteractionLog
from attrec.data.items import Items
from attrec.data.late import LateEvents, late_events
from attrec.data.merging import check_times, merge_events, with_missing
from attrec.data.ragged import Ragged
from attrec.data.reading import read_interactions
from attrec.data.sequences import Sequences, last_items
from attrec.data.vocabulary import Vocabulary
from attrec.errors import RequestError
from attrec.foldin import item_factors, predicted_keys, predicted_rows, scaled_to_share
from attrec.model.additive import AdditiveNetwork
from attrec.model.choice import Network
from attrec.model.network import AttRecNetwork
from attrec.model.prior import Attributes
from attrec.popularity import Moment, at_moment
from attrec.recommender import Recommender
from attrec.retrieval.vectors import item_keys, query_vectors, user_vectors

PUSHES = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95)
"""β of the paper's new items that are tried; see `item_factors`."""
_SHOWN = 5
"""Ids that a summary names."""
_SAMPLE = 50_000
"""Trained events that say what events say of an item."""
_QUERIES, _PLACES = 2048, 10
_NUMBERS = (1, 2, 5, 20)
"""An item of n events is compared with trained items seen through as many, or through fewer."""
_FEWEST_ROWS = 20
_DOUBT = 50.0
"""Events that stand against a few events of new items, when their share of the lists is set."""

Ints = npt.NDArray[np.int64]


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
    items: Items | None = None,
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
    items : Items, optional
        Titles of new items; and their attributes, where the model has learnt from some.
    untaken : bool
        Items that nobody took come in too, where ``items`` says of them what the model has learnt
        from. They have taken nothing, so ``room`` has to be given.
    room : float, 0 ≤ room ≤ 1, optional
        Which share of all places in the lists items newer than the training get. Left out: their
        share of the events since the first of them came.

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
    """
    _check_room(untaken, room)
    if not isinstance(log, InteractionLog):
        uncut = replace(recommender.options.data, min_user_events=1, min_item_events=1)
        log = read_interactions(log, config=uncut)
    waiting = recommender.waiting
    before = recommender.vocabulary
    vocabulary = before.with_users_of(log).with_items_of(log)
    vocabulary = vocabulary.with_users_of(waiting).with_items_of(waiting)
    if untaken:
        vocabulary = _with_untaken(recommender, vocabulary, items)
    batches = list(recommender.record.get("updates", []))
    known_files = {recommender.record.get("log_fingerprint"), *batches}
    repeated = log.timestamps is None and log.fingerprint() in known_files
    new = log.take(np.zeros(0, np.int64)) if repeated else log
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
    if isinstance(network, AdditiveNetwork):
        network = at_moment(network, merged.sequences, recommender.moment)
    record = dict(recommender.record)
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


@torch.no_grad()
def fold_in_items(
    network: Network,
    sequences: Sequences,
    vocabulary: Vocabulary,
    moment: Moment | None = None,
    described: Attributes | None = None,
    room: float | None = None,
) -> tuple[Network, Ints]:
    """Give vectors to all items behind the trained ones, from their events.

    Parameters
    ----------
    network : Network
        What it has of such items is replaced.
    sequences : Sequences
        All histories.
    vocabulary : Vocabulary
    moment : Moment, optional
        The popularity of the moment, which new items take part in.
    described : Attributes, optional
        Of the new items.
    room : float, optional
        Their share of the lists; left out: that of the events since they came.

    Returns
    -------
    network : Network
    placed : (n,) int64
        New items, from 0, that something is known of.
    """
    trained = vocabulary.num_trained_items
    taken = late_events(sequences, trained, network.config.window_length)
    # Of trained users, in an order that newcomers do not change.
    old_users = taken.known.take(slice(0, vocabulary.num_trained_users))
    old_users = old_users.take(_sample(old_users, network.config.window_length))
    count = vocabulary.num_items - trained
    share = _share_of_new(sequences, trained) if room is None else room
    if isinstance(network, AdditiveNetwork):
        return _additive(network, sequences, taken, old_users, count, moment, described, share)
    return _paper(network, taken, old_users, count, share), np.unique(taken.items)


def _paper(
    network: AttRecNetwork, taken: LateEvents, old_users: Ragged, count: int, share: float
) -> AttRecNetwork:
    """Push new items away from everybody until they take no more of the lists than of events."""
    trained = network.with_items(network.item_short[:0], network.item_long[:0])
    d = network.config.embedding_dim
    windows = last_items(taken.before, network.config.window_length)
    device = network.item_short.device
    intents = trained.intent(torch.as_tensor(windows, device=device), dtype=torch.float64)
    users = user_vectors(trained, taken.users, taken.before)
    some = last_items(old_users, network.config.window_length)
    intent_mean = trained.intent(torch.as_tensor(some, device=device), dtype=torch.float64).mean(0)
    user_mean = trained.user_long.double().mean(dim=0)
    short, long = intent_mean.new_zeros(count, d), user_mean.new_zeros(count, d)
    placed, events = np.unique(taken.items, return_counts=True)
    if len(placed) == 0:
        return trained.with_items(short, long)
    offsets, rows = np.concatenate([[0], np.cumsum(events)]), torch.as_tensor(placed, device=device)
    asked = old_users.take(slice(0, _QUERIES))
    queries = query_vectors(trained, np.full(len(asked), -1), asked)
    for beta in PUSHES:
        short[rows], long[rows] = item_factors(
            users, intents, offsets, user_mean, intent_mean, beta
        )
        found = trained.with_items(short, long)
        if _share_taken(found, queries) <= share:
            break
    return found


def _share_taken(network: AttRecNetwork, queries: torch.Tensor) -> float:
    """Return which share of the lists of ``queries`` new items take; the unplaced are in none."""
    keys = item_keys(network, torch.float64)
    distances = keys.square().sum(dim=1) - 2.0 * queries @ keys.T
    distances[:, network.unplaced] = torch.inf
    nearest = distances.topk(min(_PLACES, len(keys)), dim=1, largest=False).indices
    return float((nearest >= network.num_trained_items).double().mean())


def _additive(
    network: AdditiveNetwork,
    sequences: Sequences,
    taken: LateEvents,
    old_users: Ragged,
    count: int,
    moment: Moment | None,
    described: Attributes | None,
    share: float,
) -> tuple[AdditiveNetwork, Ints]:
    trained = network.with_items(network.folded_context[:0], network.folded_key[:0])
    intents = query_vectors(trained, taken.users, taken.before)[:, : network.config.embedding_dim]
    targets, before = _trained_events(trained, old_users)
    keys, contexts = trained.keys(), trained.contexts()
    events = np.bincount(taken.items, minlength=count)
    new_keys = torch.zeros(count, keys.shape[1], dtype=torch.float64, device=keys.device)
    new_contexts = torch.zeros_like(new_keys)
    priors = _priors(network, described, count)
    seen = np.bincount(targets, minlength=len(keys))
    for number in (0, *_NUMBERS):
        rows = np.flatnonzero(seen >= max(1, number))
        asked = np.flatnonzero(events >= number)
        if number and (len(rows) < _FEWEST_ROWS or len(asked) == 0):
            break
        z = torch.cat([_few(targets, before, rows, number), *(p[0][rows] for p in priors)], dim=1)
        width = intents.shape[1] if number else 0
        mean = _means(taken.items, intents, count)[asked, :width]
        at = torch.cat([mean, *(p[1][asked] for p in priors)], dim=1)
        new_keys[asked] = predicted_keys(keys[rows], z, at)
        new_contexts[asked] = predicted_rows(contexts[rows], z, at)
    told = np.zeros(count, dtype=bool)
    for _, rows_of_new in priors:
        told |= rows_of_new.any(dim=1).cpu().numpy()
    placed = np.flatnonzero(told | (events > 0))
    new_keys[np.setdiff1d(np.arange(count), placed)] = 0.0
    folded = at_moment(trained.with_items(new_contexts, new_keys), sequences, moment)
    if len(placed) and len(before):
        shown = np.append(np.arange(len(keys)), len(keys) + placed)
        new_keys[placed] = scaled_to_share(
            new_keys[placed], keys.double(), before[:_QUERIES].double(), share,
            offset=folded.offset[torch.as_tensor(shown)],
        )  # fmt: skip
        folded = folded.with_items(new_contexts, new_keys).with_offset(folded.offset)
    return folded, placed


def _trained_events(network: AdditiveNetwork, histories: Ragged) -> tuple[Ints, torch.Tensor]:
    """Return the items of trained events in any order, and the intents that preceded them."""
    targets, intents = [np.zeros(0, np.int64)], [network.start[None, :][:0]]
    for history in histories:
        events = history[-network.config.window_length - 1 :].astype(np.int64)
        if len(events) > 1:
            before = torch.as_tensor(events[:-1], device=network.start.device)
            sizes = torch.tensor([len(before)], device=network.start.device)
            intents.append(network.intents(before, sizes))
            targets.append(events[1:])
    items = np.concatenate(targets)
    order = np.random.default_rng(0).permutation(len(items))
    return items[order], torch.cat(intents)[torch.as_tensor(order, device=network.start.device)]


def _sample(known: Ragged, length: int) -> Ints:
    """Return rows of some users, in any order, with about ``_SAMPLE`` events in their windows."""
    order = np.random.default_rng(0).permutation(len(known))
    order = order[known.lengths[order] > 0]
    together = np.cumsum(np.minimum(known.lengths[order], length))
    chosen: Ints = order[: max(1, int(np.searchsorted(together, _SAMPLE)) + 1)]
    return chosen


def _few(targets: Ints, intents: torch.Tensor, items: Ints, number: int) -> torch.Tensor:
    """Mean of the first ``number`` intents of each item; nothing (n, 0) of none."""
    if number == 0:
        return intents.new_zeros(len(items), 0).double()
    order = np.argsort(targets, kind="stable")
    starts = np.searchsorted(targets[order], items)
    chosen = order[starts[:, None] + np.arange(number)]
    return intents[torch.as_tensor(chosen)].double().mean(dim=1)


def _means(items: Ints, intents: torch.Tensor, count: int) -> torch.Tensor:
    """Mean of the intents of each new item; 0 of none."""
    place = torch.as_tensor(items, device=intents.device)
    sums = intents.new_zeros(count, intents.shape[1]).index_add(0, place, intents)
    numbers = torch.bincount(place, minlength=count).clamp(min=1)
    means: torch.Tensor = sums / numbers[:, None]
    return means


def _priors(
    network: AdditiveNetwork, described: Attributes | None, count: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return what attributes say of trained and of new items, where the model learnt from them."""
    if network.prior is None or described is None:
        return []
    assert len(described.offsets) == count + 1
    old = normalize(network.prior.rows("key").double(), dim=1)
    return [(old, normalize(network.prior.rows_of("key", described).double(), dim=1))]


def _share_of_new(sequences: Sequences, trained: int) -> float:
    """Return which share of events new items have taken since the first of them came."""
    late = sequences.histories.values >= trained
    since = len(late)
    if sequences.times is not None and late.any():
        since = int((sequences.times >= sequences.times[late].min()).sum())
    return float(late.sum()) / (since + _DOUBT)


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
    described = _described(recommender, items, ids)
    if described is None:
        raise RequestError(
            "untaken: the model has learnt from no attributes of items, so that nothing can be "
            "said of one that nobody took; train it with item_categories or item_vectors"
        )
    told = (np.diff(described.offsets) > 0) | described.vectors.any(axis=1)
    return vocabulary.with_items(ids[told])


def _described(recommender: Recommender, items: Items | None, ids: Any) -> Attributes | None:
    """Return the attributes of new items, numbered as the model numbers them."""
    network, options = recommender.network, recommender.options.model
    if items is None or not isinstance(network, AdditiveNetwork) or network.prior is None:
        return None
    found = ItemFeatures.of(items, ids, options.item_categories, options.item_vectors)
    names = {name: at for at, name in enumerate(recommender.record["item_categories"])}
    number = np.array([names.get(name, -1) for name in found.names], dtype=np.int64)
    values = number[found.categories.values] if len(number) else found.categories.values
    kept = replace(found.categories, values=values).where(values >= 0)
    return Attributes(len(names), kept.values, kept.offsets, found.vectors)
