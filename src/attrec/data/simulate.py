"""Logs of any size whose structure is known, to see what a model can find and what it cannot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from attrec.data.interactions import InteractionLog
from attrec.errors import RequestError

IntArray = npt.NDArray[np.int64]

COMMUNITY_SIZE = 10
STAY = 0.9
"""Chance that a walk stays in its community."""
TASTES_OF_A_USER = 2
STREAMS = 3
"""Walks that a user of the attention log does in turn."""


def simulate(
    kind: str = "mixed",
    *,
    num_users: int = 1000,
    num_items: int = 500,
    events_per_user: int = 20,
    seed: int = 0,
) -> InteractionLog:
    """Simulate a log with planted structure; the same seed gives the same log.

    Parameters
    ----------
    kind : str
        ``community``
            Short-term: walks on an undirected graph of communities of 10 items. The next item is
            uniform in the last one's community with probability 0.9, else uniform anywhere. All
            items are equally popular, so popularity finds nothing; knowing the communities, the
            best list of 10 holds the next item 9 times in 10.
        ``tastes``
            Long-term: each user has 2 of the communities and draws every item from them, in no
            order.
        ``mixed``
            Walks that, when they leave a community, go to one that the user likes.
        ``attention``
            Only attention reads it: each user does three community walks in turn, so the next item
            goes on from the one three places back, and the events between belong to other walks.
            Equal weights point to the two walks that are not due. With ``num_targets`` = 1 (three
            targets would belong to all three walks alike) attention finds the place; the best list
            of 10 holds the next item 9 times in 10.
        ``directed``
            Each community is a ring that is walked in one direction: b follows a, a never follows
            b. The paper's single table X makes nearness symmetric and cannot express it: the model
            ranks the item before as high as the item after. This is its documented limit.
        ``random``
            Uniform items: nothing to learn.
    num_users, num_items, events_per_user : int
        M, N and the length of each history.
    seed : int

    Returns
    -------
    InteractionLog
        Integer ids 0 … M - 1 and 0 … N - 1; timestamps are the positions in the histories.

    Raises
    ------
    RequestError
        The kind is unknown, a size is too small for it, or the seed is below 0.

    Examples
    --------
    >>> log = simulate("community", num_users=3, num_items=20, events_per_user=4, seed=1)
    >>> len(log), log.num_users
    (12, 3)
    """
    if kind not in _KINDS:
        raise RequestError(f"no simulated log {kind!r}; known: {', '.join(_KINDS)}")
    smallest = 2 * COMMUNITY_SIZE
    if num_users < 1 or events_per_user < 1 or num_items < smallest:
        raise RequestError(
            f"users = {num_users}, items = {num_items}, events_per_user = {events_per_user}: a "
            f"{kind} log needs at least 1 user, {smallest} items and 1 event a user"
        )
    if seed < 0:
        raise RequestError(f"seed = {seed} is below 0; give a whole number from 0")
    rng = np.random.default_rng(seed)
    items = _KINDS[kind](rng, num_users, num_items, events_per_user)
    users = np.repeat(np.arange(num_users), events_per_user)
    times = np.tile(np.arange(events_per_user, dtype=np.float64), num_users)
    return InteractionLog.from_columns(
        users, items.ravel(), times, source=f"simulated {kind} log (seed {seed})"
    )


def _members(rng: np.random.Generator, communities: IntArray, num_items: int) -> IntArray:
    """Draw an item of each community; the last community holds the remainder too."""
    count = num_items // COMMUNITY_SIZE
    sizes = np.where(communities == count - 1, num_items - (count - 1) * COMMUNITY_SIZE,
                     COMMUNITY_SIZE)  # fmt: skip
    return communities * COMMUNITY_SIZE + rng.integers(0, sizes)


def _community_of(items: IntArray, num_items: int) -> IntArray:
    return np.minimum(items // COMMUNITY_SIZE, num_items // COMMUNITY_SIZE - 1)


def _tastes_of(rng: np.random.Generator, num_users: int, num_items: int) -> IntArray:
    """(M, 2) two different communities of each user."""
    count = num_items // COMMUNITY_SIZE
    first = rng.integers(0, count, num_users)
    second = (first + rng.integers(1, count, num_users)) % count
    return np.stack([first, second], axis=1)


def _walks(
    rng: np.random.Generator,
    shape: tuple[int, int],
    num_items: int,
    elsewhere: Callable[[], IntArray],
) -> IntArray:
    """(M, E) walks: stay in the community, or go where ``elsewhere`` says."""
    items = np.empty(shape, dtype=np.int64)
    items[:, 0] = elsewhere()
    for place in range(1, shape[1]):
        inside = _members(rng, _community_of(items[:, place - 1], num_items), num_items)
        items[:, place] = np.where(rng.random(shape[0]) < STAY, inside, elsewhere())
    return items


def _community(rng: np.random.Generator, users: int, items: int, events: int) -> IntArray:
    return _walks(rng, (users, events), items, lambda: rng.integers(0, items, users))


def _mixed(rng: np.random.Generator, users: int, items: int, events: int) -> IntArray:
    tastes = _tastes_of(rng, users, items)

    def liked() -> IntArray:
        return _members(rng, tastes[np.arange(users), rng.integers(0, 2, users)], items)

    return _walks(rng, (users, events), items, liked)


def _tastes(rng: np.random.Generator, users: int, items: int, events: int) -> IntArray:
    tastes = _tastes_of(rng, users, items)
    chosen = rng.integers(0, TASTES_OF_A_USER, (users, events))
    return _members(rng, tastes[np.arange(users)[:, None], chosen], items)


def _random(rng: np.random.Generator, users: int, items: int, events: int) -> IntArray:
    return rng.integers(0, items, (users, events))


def _directed(rng: np.random.Generator, users: int, items: int, events: int) -> IntArray:
    """Each community a ring, walked one step at a time; a jump with probability 0.1."""
    result = np.empty((users, events), dtype=np.int64)
    result[:, 0] = rng.integers(0, items, users)
    whole = items // COMMUNITY_SIZE * COMMUNITY_SIZE
    for place in range(1, events):
        last = result[:, place - 1]
        base = last // COMMUNITY_SIZE * COMMUNITY_SIZE
        following = np.where(last < whole, base + (last - base + 1) % COMMUNITY_SIZE, last)
        jump = rng.integers(0, items, users)
        result[:, place] = np.where(rng.random(users) < STAY, following, jump)
    return result


def _attention(rng: np.random.Generator, users: int, items: int, events: int) -> IntArray:
    """Let each user do `STREAMS` community walks in turn, one event of each at a time.

    The next event goes on from the one `STREAMS` places back. Of a window of 5 the walk that is due
    has one event and the two others have two each, so equal weights point to the wrong ones.
    """
    rounds = -(-events // STREAMS)
    walks = [_community(rng, users, items, rounds) for _ in range(STREAMS)]
    return np.stack(walks, axis=2).reshape(users, -1)[:, :events]


_KINDS: dict[str, Callable[[np.random.Generator, int, int, int], IntArray]] = {
    "community": _community,
    "tastes": _tastes,
    "mixed": _mixed,
    "attention": _attention,
    "directed": _directed,
    "random": _random,
}
