"""How the page calls users and items."""

from __future__ import annotations

from attrec.recommender import Recommender
from attrec.request import plain


def item_id(recommender: Recommender, item: int) -> int | str:
    """Return the id of an item index."""
    identity: int | str = plain(recommender.vocabulary.item_ids[item])
    return identity


def item_name(recommender: Recommender, item: int) -> str:
    """Return the title of an item index, its id where it has none."""
    return recommender.title(item) or str(item_id(recommender, item))


def user_id(recommender: Recommender, user: int) -> int | str:
    """Return the id of a user index."""
    identity: int | str = plain(recommender.vocabulary.user_ids[user])
    return identity
