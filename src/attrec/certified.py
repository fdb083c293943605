"""A recommender that searches again only where it has to, and says why where it does not."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch

from attrec.answers import Recommendation
from attrec.data.ragged import Ragged
from attrec.errors import RequestError
from attrec.model.additive import AdditiveNetwork
from attrec.recommender import Recommender
from attrec.request import Ids
from attrec.retrieval.cache import MARGIN, USERS, Certificate, CertifiedSearch
from attrec.retrieval.index import Neighbours


@dataclass(frozen=True)
class CertifiedAnswer:
    """A list, and how it is known to be right.

    Attributes
    ----------
    recommendations : list of Recommendation
        What `Recommender.recommend` returns.
    certificate : Certificate
    """

    recommendations: list[Recommendation]
    certificate: Certificate


class CertifiedCache:
    """Answers of a recommender, kept for each user and reused where that is proved to be right.

    A user's new event moves the query. The kept list, with some further candidates, is ranked
    again for the new query, and given if no item outside can have come in; see `CertifiedSearch`.
    The events may come by ``history=`` or into the recommender: only the query and the
    items left out are looked at. Where the recommender gets other keys, nothing kept is used.

    Parameters
    ----------
    recommender : Recommender
    margin : int, ≥ 1
        Candidates kept beyond the k that were asked for.
    users : int, ≥ 1
        Answers kept; the one not asked for longest goes first.

    Raises
    ------
    RequestError
        ``margin`` or ``users`` is no whole number, or below 1.

    Examples
    --------
    >>> import attrec
    >>> log = attrec.simulate("community", num_users=60, num_items=40, seed=0)
    >>> model = attrec.fit(log, max_epochs=2, embedding_dim=8).recommender
    >>> cache = CertifiedCache(model)
    >>> user = log.user_ids[0]
    >>> cache.recommend(user, k=3).certificate.reused
    False
    >>> again = cache.recommend(user, k=3)
    >>> again.certificate.reused, again.recommendations == model.recommend(user, k=3)
    (True, True)
    """

    def __init__(
        self, recommender: Recommender, *, margin: int = MARGIN, users: int = USERS
    ) -> None:
        self.recommender = recommender
        self._search = self._begun(recommender, margin, users)

    def __len__(self) -> int:
        """Return the number of answers kept."""
        return len(self._search)

    def recommend(
        self,
        user: int | str | None = None,
        *,
        history: Ids | None = None,
        session: Hashable | None = None,
        **asked: Any,
    ) -> CertifiedAnswer:
        """Return what `Recommender.recommend` would, and how it is known.

        Parameters
        ----------
        user, history, **asked
            As in `Recommender.recommend`: ``k``, ``exclude_seen``, ``allow``, ….
        session : hashable, optional
            Under what the answer is kept; the user when left out. Needed where only a history is
            given. Lists of different kinds for one user (by ``allow``, or a weight) replace each
            other unless each kind has a session of its own.

        Raises
        ------
        UnknownIdError, RequestError
            As in `Recommender.recommend`; and neither user nor session is given.
        """
        if user is None and session is None and history is not None:
            raise RequestError(
                "a history without a user has nothing to be kept under; give a session"
            )
        name = ("user", user) if session is None else ("session", session)
        recommender = self.recommender  # another one may be put in its place meanwhile
        found: list[Certificate] = []

        def search(
            queries: torch.Tensor, k: int, *, exclude: Ragged | None, **limits: Any
        ) -> Neighbours:
            seen = None if exclude is None else exclude[0]
            answer = self._over_keys_of(recommender).search(
                name, queries[0], k, exclude=seen, **limits
            )
            found.append(answer.certificate)
            return Neighbours(answer.indices[None], answer.distances[None])

        recommendations = recommender._recommend(search, user, history, **asked)
        return CertifiedAnswer(recommendations, found[0])

    def _over_keys_of(self, recommender: Recommender) -> CertifiedSearch:
        """Return the search over a recommender's keys as they are now."""
        search = self._search
        if search.index is not recommender._index:
            search = self._begun(recommender, search.margin, search.users)
            if recommender is self.recommender:
                self._search = search
        return search

    def _begun(self, recommender: Recommender, margin: int, users: int) -> CertifiedSearch:
        network, index = recommender.network, recommender._index
        # Of an additive network all queries are 0 in the coordinate that is lifted.
        moving = network.config.embedding_dim if isinstance(network, AdditiveNetwork) else None
        return CertifiedSearch(index, margin=margin, users=users, moving=moving)
