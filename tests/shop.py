"""A small shop for tests: users who stay with one of four kinds of items."""

import numpy as np

import attrec

NUM_ITEMS = 60


def shop_log():
    """Return the log, of items 0 to 59, and the kind of each item."""
    rng = np.random.default_rng(1)
    kinds = np.arange(NUM_ITEMS) % 4
    users, things = [], []
    for user in range(200):
        mine = np.flatnonzero(kinds == rng.integers(4))
        users += [user] * 10
        things += rng.permutation(mine)[:10].tolist()
    return attrec.InteractionLog.from_columns(users, things, np.arange(len(users))), kinds
