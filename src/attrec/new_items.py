"""Vectors of items that came after the training, from trained rows alone, without a gradient.

`fold_in_items` gives them to a network. The paper's items get the mean of those who took them,
pushed away from everybody (`item_factors`); the additive network's what ridge regression expects
(`expected_rows`), keys as long as their share of the lists says (`scaled_to_share`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize

from attrec.data.late import LateEvents, late_events
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences, last_items
from attrec.data.vocabulary import Vocabulary
from attrec.errors import ConfigError
from attrec.foldin import into_ball
from attrec.model.additive import AdditiveNetwork
from attrec.model.choice import Network
from attrec.model.network import AttRecNetwork
from attrec.model.prior import Attributes
from attrec.popularity import Moment, at_moment
from attrec.retrieval.vectors import item_keys, query_vectors, user_vectors

PUSHES = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95)
"""β of the paper's new items that are tried; see `item_factors`."""
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""Of the ridge regression, tried; see `expected_rows`."""
LONGEST = 4.0
"""Length of the longest key that a new item may get."""
_LEAST = 1e-12
_HALVINGS = 40
_SAMPLE = 50_000
"""Trained events that say what events say of an item."""
_QUERIES, _PLACES = 2048, 10
_NUMBERS = (1, 2, 5, 20)
"""An item of n events is compared with trained items seen through as many, or through fewer."""
_FEWEST_ROWS = 20
_DOUBT = 50.0
"""Events that stand against a few events of new items, when their share of the lists is set."""

Ints = npt.NDArray[np.int64]


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
    return _paper(network, taken, old_users, count, share)


def _paper(
    network: AttRecNetwork, taken: LateEvents, old_users: Ragged, count: int, share: float
) -> tuple[AttRecNetwork, Ints]:
    """Push new items away from everybody until they take no more of the lists than of events."""
    trained = network.with_items(network.item_short[:0], network.item_long[:0])
    d = network.config.embedding_dim
    short = trained.item_short.new_zeros(count, d, dtype=torch.float64)
    long = torch.zeros_like(short)
    placed, events = np.unique(taken.items, return_counts=True)
    if len(placed) == 0 or len(old_users) == 0:
        return trained.with_items(short, long), placed[:0]
    windows = last_items(taken.before, network.config.window_length)
    device = network.item_short.device
    intents = trained.intent(torch.as_tensor(windows, device=device), dtype=torch.float64)
    users = user_vectors(trained, taken.users, taken.before)
    some = last_items(old_users, network.config.window_length)
    intent_mean = trained.intent(torch.as_tensor(some, device=device), dtype=torch.float64).mean(0)
    user_mean = trained.user_long.double().mean(dim=0)
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
    return found, placed


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
    targets, before = trained_events(trained, old_users)
    keys, contexts = trained.keys(), trained.contexts()
    events = np.bincount(taken.items, minlength=count)
    new_keys = torch.zeros(count, keys.shape[1], dtype=torch.float64, device=keys.device)
    new_contexts = torch.zeros_like(new_keys)
    old_prior, new_prior, told = _priors(network, described, count)
    means = _means(taken.items, intents, count)
    seen = np.bincount(targets, minlength=len(keys))
    for number in (0, *_NUMBERS):
        rows = np.flatnonzero(seen >= max(1, number))
        if len(rows) < (_FEWEST_ROWS if number else 1):
            break
        known = mean_of_first(targets, before, rows, number)
        # An item without attributes is not one whose attributes are 0.
        for group, width in ((told, old_prior.shape[1]), (~told, 0)):
            asked = np.flatnonzero((events >= number) & group)
            if len(asked) == 0:
                continue
            z = torch.cat([known, old_prior[rows, :width]], dim=1)
            at = torch.cat([means[asked, : known.shape[1]], new_prior[asked, :width]], dim=1)
            new_keys[asked] = predicted_keys(keys[rows], z, at)
            new_contexts[asked] = expected_rows(contexts[rows], z, at)
    # From no trained event at all nothing can be predicted.
    placed = np.flatnonzero((told | (events > 0)) & (len(before) > 0))
    unknown = np.setdiff1d(np.arange(count), placed)
    new_keys[unknown], new_contexts[unknown] = 0.0, 0.0
    folded = at_moment(trained.with_items(new_contexts, new_keys, described), sequences, moment)
    if len(placed):
        shown = np.append(np.arange(len(keys)), len(keys) + placed)
        new_keys[placed] = scaled_to_share(
            new_keys[placed], keys.double(), before[:_QUERIES].double(), share,
            offset=folded.offset[torch.as_tensor(shown)],
        )  # fmt: skip
        offset = folded.offset
        folded = folded.with_items(new_contexts, new_keys, described).with_offset(offset)
    return folded, placed


@torch.no_grad()
def trained_events(network: AdditiveNetwork, histories: Ragged) -> tuple[Ints, torch.Tensor]:
    """Return the items of trained events in any order, and the intents that preceded them.

    Parameters
    ----------
    network : AdditiveNetwork
    histories : Ragged of int

    Returns
    -------
    items : (E,) int64
    intents : (E, d) tensor
    """
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


def mean_of_first(targets: Ints, intents: torch.Tensor, items: Ints, number: int) -> torch.Tensor:
    """Return the mean of the first ``number`` intents of each item; nothing (n, 0) of none.

    Parameters
    ----------
    targets : (E,) int64
        The item of each event.
    intents : (E, d) tensor
    items : (n,) int64
        Each with ``number`` events at least.

    Returns
    -------
    (n, d) float64 tensor
    """
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
) -> tuple[torch.Tensor, torch.Tensor, npt.NDArray[np.bool_]]:
    """Return what attributes say of trained and of new items, and of which of these they do."""
    first = network.num_trained_items
    if network.prior is None or described is None:
        nothing = network.item_key.new_zeros(first + count, 0, dtype=torch.float64)
        return nothing[:first], nothing[first:], np.zeros(count, dtype=bool)
    rows = network.prior.followed_by(first, described).rows("key")
    directions = normalize(rows.double(), dim=1)
    return directions[:first], directions[first:], described.told


def _share_of_new(sequences: Sequences, trained: int) -> float:
    """Return which share of events new items have taken since the first of them came."""
    late = sequences.histories.values >= trained
    since = len(late)
    if sequences.times is not None and late.any():
        since = int((sequences.times >= sequences.times[late].min()).sum())
    return float(late.sum()) / (since + _DOUBT)


@torch.no_grad()
def item_factors(
    users: torch.Tensor,
    intents: torch.Tensor,
    offsets: npt.NDArray[np.int64] | torch.Tensor,
    user_mean: torch.Tensor,
    intent_mean: torch.Tensor,
    beta: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return X_i and V_i of new items of the paper's network, from those who took them.

    V_i = (Σ₊ U − β Σ₋ U) / (n − β n′), X_i the same of the intents m that preceded the events
    (without √ω and √(1 − ω): each has a ball of its own), both projected to their unit ball. It
    minimises Σ₊ ‖V_i − U‖² − β Σ₋ ‖V_i − U‖² there, which is convex as long as β n′ < n.

    Without β it is the mean of those who took the item. That lies near the centre of everybody, the
    nearer the more there are, and so the item stands near everybody. Each event therefore has one
    negative, n′ = n, and this is the expected one, the population's mean: Σ₋ = n ū. A sample of
    others would add its noise and nothing else. So V_i = (mean₊ − β ū) / (1 − β).

    Parameters
    ----------
    users : (E, d) tensor
        U of each event's taker: a trained row, or `user_factors` of the trained V. Never of a user
        whose own row came from new items.
    intents : (E, d) tensor
        m before each event, from trained X. An event with nothing before it has none: leave it out.
    offsets : (n + 1,) int64
        The events of new item r are the rows ``offsets[r]`` to ``offsets[r + 1]``; at least one.
    user_mean, intent_mean : (d,) tensors
        Means over the population that is pushed away from: all users, all trained events.
    beta : float, 0 ≤ β < 1
        How far the item is pushed away from everybody.

    Returns
    -------
    two (n, d) float64 tensors
        X, V. Of length 1 at most.

    Raises
    ------
    ConfigError
        ``beta`` is out of range, shapes do not fit, or an item has no event.

    Examples
    --------
    >>> U, m = torch.tensor([[0.6, 0.0], [0.4, 0.2]]), torch.tensor([[0.0, 0.2], [0.0, 0.4]])
    >>> offsets, mean = np.array([0, 2]), torch.tensor([0.4, 0.0])
    >>> X, V = item_factors(U, m, offsets, mean, torch.tensor([0.0, 0.1]), beta=0.5)
    >>> [[round(x, 6) for x in rows[0].tolist()] for rows in (X, V)]
    [[0.0, 0.5], [0.6, 0.2]]
    """
    if not 0 <= beta < 1:
        raise ConfigError(f"beta = {beta!r}: the push away must be at least 0 and less than 1")
    edges = torch.as_tensor(offsets, dtype=torch.int64, device=users.device)
    counts = edges.diff()
    if users.shape != intents.shape or not edges[0] == 0 or not edges[-1] == len(users):
        raise ConfigError(
            f"{tuple(users.shape)} users, {tuple(intents.shape)} intents, offsets from "
            f"{int(edges[0])} to {int(edges[-1])}: expected a user and an intent for each event"
        )
    if bool((counts < 1).any()):
        raise ConfigError(
            f"new item {int((counts < 1).nonzero()[0])} has no event: "
            "an item can only be folded in once somebody has taken it"
        )
    return (
        _away_from(intent_mean, intents, counts, beta),
        _away_from(user_mean, users, counts, beta),
    )


def _away_from(
    mean: torch.Tensor, rows: torch.Tensor, counts: torch.Tensor, beta: float
) -> torch.Tensor:
    # unsafe: the lengths have been looked at, and no item at all is no error here.
    taken = torch.segment_reduce(rows.double(), "mean", lengths=counts, unsafe=True)
    return into_ball((taken - beta * mean.to(taken)) / (1.0 - beta))


@torch.no_grad()
def predicted_keys(
    keys: torch.Tensor,
    known: torch.Tensor,
    asked: torch.Tensor,
    *,
    penalties: tuple[float, ...] = PENALTIES,
) -> torch.Tensor:
    """Return the expected keys of new items of the additive network, of length 1 at most.

    k̂ is shorter than 1, the less is known the shorter: an item nobody can say anything about
    stands behind, where a key of full length from a single event would stand before everything. As
    E ‖m − k‖² = 2 − 2 m · k̂, its distance is that to [k̂ ; √(1 − ‖k̂‖²)], in a coordinate where
    queries are 0. The regression knows nothing of that length: what it makes longer is cut.

    Parameters
    ----------
    keys : (N, d) tensor
        Of length 1, of trained items.
    known, asked, penalties
        As in `expected_rows`.

    Returns
    -------
    (n, d) float64 tensor

    Examples
    --------
    >>> trained = torch.eye(3)
    >>> predicted_keys(trained, trained[:, :1], torch.tensor([[0.0], [1.0]])).shape
    torch.Size([2, 3])
    """
    return into_ball(expected_rows(keys, known, asked, penalties=penalties))


@torch.no_grad()
def expected_rows(
    rows: torch.Tensor,
    known: torch.Tensor,
    asked: torch.Tensor,
    *,
    penalties: tuple[float, ...] = PENALTIES,
) -> torch.Tensor:
    """Return the expected rows of new items, their keys or their contexts.

    x̂ = x̄ + (z − z̄) W, with W from ridge regression of the trained rows on the same knowledge of
    the trained items: the mean of some intents that preceded their events, their prior, or both.
    The penalty is the one with the least leave-one-out error, which has a closed form.

    Parameters
    ----------
    rows : (N, d) tensor
        Of trained items.
    known : (N, f) tensor
        What is known of these.
    asked : (n, f) tensor
        What is known of the new items.
    penalties : tuple of float, > 0
        Tried, as shares of the mean square of what is known.

    Returns
    -------
    (n, d) float64 tensor
    """
    z, y = known.double(), rows.double()
    centre, mean = z.mean(dim=0), y.mean(dim=0)
    z, y = z - centre, y - mean
    values, basis = torch.linalg.eigh(z.T @ z)
    rotated, along = z @ basis, basis.T @ (z.T @ y)
    scale = float(values.clamp(min=0).sum()) / max(1, z.shape[1])
    best, weights = torch.inf, torch.zeros_like(along)
    for penalty in penalties:
        shrunk = 1.0 / (values.clamp(min=0) + penalty * scale + _LEAST)
        found = shrunk[:, None] * along
        leverage = (rotated.square() * shrunk).sum(dim=1) + 1.0 / len(z)
        errors = (y - rotated @ found) / (1.0 - leverage).clamp(min=_LEAST)[:, None]
        error = float(errors.square().sum())
        if error < best:
            best, weights = error, found
    expected: torch.Tensor = mean + (asked.double() - centre) @ basis @ weights
    return expected


@torch.no_grad()
def scaled_to_share(
    new: torch.Tensor,
    keys: torch.Tensor,
    queries: torch.Tensor,
    share: float,
    *,
    k: int = 10,
    offset: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scale the keys of new items so that they take a given share of the lists.

    From few events it cannot be known how often an item will be taken; how much room new items get
    is a decision. With one factor for all of them, m · k of new and of trained items is compared
    so that of all places in the lists of ``queries`` they take ``share``. Expected keys are flat,
    so the longest may have to be longer than 1, that of a trained item; none gets longer than
    `LONGEST`, where float32 still tells distances apart.

    Parameters
    ----------
    new : (n, d) tensor
        Keys of new items, such as `predicted_keys` gives.
    keys : (N, d) tensor
        Of trained items.
    queries : (Q, d) tensor
        Intents of users.
    share : float, 0 ≤ share ≤ 1
        Where even the longest keys take less, it is less.
    k : int
        Length of the lists.
    offset : (N + n,) tensor, optional
        Added to the distances of trained and new items.

    Returns
    -------
    (n, d) tensor
        Of length `LONGEST` at most.
    """
    longest = float(new.norm(dim=1).max()) if len(new) else 0.0
    if longest < _LEAST:
        return new
    half = keys.new_zeros(len(keys) + len(new)) if offset is None else offset.to(keys) / 2.0
    old = (queries.to(keys) @ keys.T - half[: len(keys)]).topk(min(k, len(keys)), dim=1).values
    fresh, behind = queries.to(keys) @ new.to(keys).T, half[len(keys) :]
    low, high = 0.0, LONGEST / longest
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        taken = _share(old, fresh * middle - behind, k)
        low, high = (middle, high) if taken < share else (low, middle)
    return new * high


def _share(old: torch.Tensor, new: torch.Tensor, k: int) -> float:
    """Which share of the k best of both is new."""
    places = torch.cat([old, new], dim=1).topk(min(k, old.shape[1] + new.shape[1]), dim=1).indices
    return float((places >= old.shape[1]).double().mean())
