"""The artifact that is saved, loaded and served. It speaks external ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args, overload

import narwhals as nw
import numpy as np
import numpy.typing as npt
import torch
from narwhals.typing import IntoDataFrameT

from attrec.answers import (
    Absence,
    AudienceMember,
    Contrast,
    EventReason,
    Explanation,
    GroupRecommendation,
    Recommendation,
    RecommendationTable,
)
from attrec.artifact import FORMAT_VERSION, attrec_version, load_artifact, save_artifact
from attrec.config import Options
from attrec.data.interactions import IdArray, InteractionLog
from attrec.data.live import LiveHistories
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences, last_items
from attrec.data.vocabulary import UNKNOWN, Vocabulary
from attrec.errors import ArtifactError, DeviceError, RequestError
from attrec.explain import CatalogueMeans, Intent, Split, compare, read_intent, split_distances
from attrec.model.additive import AdditiveNetwork
from attrec.model.choice import Network
from attrec.model.network import AttRecNetwork
from attrec.popularity import Moment, at_moment
from attrec.request import (
    DEFAULT_STRENGTH,
    Asked,
    Floats,
    Ids,
    Indices,
    Limits,
    Member,
    RequestReader,
    as_frame,
    check_count,
    number,
    plain,
    user_column,
)
from attrec.retrieval.index import ExactIndex, Neighbours, distances_to_key
from attrec.retrieval.vectors import (
    bare_keys,
    bare_queries,
    item_points,
    long_term_width,
    user_vectors,
)
from attrec.stored_model import StoredModel, from_artifact, to_artifact

Sense = Literal["next", "short-term", "long-term"]
"""In which sense one item is near another; see `Recommender.similar`."""

Search = Callable[..., Neighbours]
"""Called as `ExactIndex.search` is, and answering as that does."""

_USERS_AT_ONCE = 1024
_NUMBERS_AT_ONCE = 1 << 22


class Recommender:
    """A trained model with everything that a request needs.

    Parameters
    ----------
    network : Network
        A row of the item tables for each item of the vocabulary; the paper's network has one of U
        for each trained user too.
    vocabulary : Vocabulary
        Users behind ``num_trained_users`` came after training and are folded in.
    histories : Sequences
        The whole log: a history for each user of the vocabulary.
    options : Options
    titles : mapping, optional
        Title of an item by the text of its id; None or absent where there is none.
    record : mapping, optional
        JSON-able: protocol, metrics, counts of the data.
    moment : Moment, optional
        How the popularity of the moment, which the network has as its offset, is reckoned.

    Raises
    ------
    ArtifactError
        The parts do not fit together.
    """

    def __init__(
        self,
        network: Network,
        vocabulary: Vocabulary,
        histories: Sequences,
        options: Options,
        titles: Mapping[str, str | None] | None = None,
        record: Mapping[str, Any] | None = None,
        moment: Moment | None = None,
    ) -> None:
        _check_fit(network, vocabulary, histories)
        self.network = network
        self.vocabulary = vocabulary
        self._live = LiveHistories(histories, options.data.repeats, options.data.duplicates)
        self._waiting: list[tuple[int | str, int | str, float | None]] = []
        self._observing = Lock()
        self._audience: tuple[int, Indices, torch.Tensor] | None = None
        self.options = options
        self.titles = {key: title for key, title in (titles or {}).items() if title is not None}
        self.record = dict(record or {})
        self.moment = moment

    # Ranking

    def recommend(
        self,
        user: int | str | None = None,
        *,
        history: Ids | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Ids | None = None,
        deny: Ids | None = None,
        long_term_weight: float | None = None,
        like: Ids | None = None,
        unlike: Ids | None = None,
        strength: float = DEFAULT_STRENGTH,
    ) -> list[Recommendation]:
        """Rank the catalogue for one user or one history.

        Parameters
        ----------
        user : int or str, optional
            A user of the model. One that came after training is folded in from the history.
        history : sequence of item ids, optional
            Oldest first. Takes the place of the user's own history, also in what counts as seen;
            items that the model lacks are left out. Without ``user`` the long-term factor is
            folded in from it.
        k : int, ≥ 1
            Length of the list; it is shorter where fewer items are left.
        exclude_seen : bool
            Leave out the items of the history.
        allow, deny : sequence of item ids, optional
            Rank only these; never rank these. Items that the model lacks are ignored.
        long_term_weight : float, 0 … 1, optional
            ω of (10) for this request, in place of the model's own. One index serves every ω. The
            additive network has no long-term part to weigh.
        like, unlike : sequence of item ids, optional
            "More like these", "less like these": each named item takes part with its own point in
            the key space as if it were somebody asking, see Notes. They count as seen.
        strength : float, > 0
            The weight of all liked items together, each having the same, and of all unliked ones
            together, where the user has 1; below 1 where ``unlike`` names items. The default,
            0.15, turns a list visibly (docs/choices.md says how far); towards 1 "less like these"
            outweighs the user, and lists hold whatever is far from what was named.

        Returns
        -------
        list of Recommendation
            Nearest first; ties go to the item whose id comes first.

        Raises
        ------
        UnknownIdError
            The model lacks the user, or an item of ``like`` or ``unlike``.
        RequestError
            Neither user nor history, k below 1, no known item in the history, nothing to rank, or
            a weight outside its range.

        Notes
        -----
        With weights w_r of the user (1), the liked items (above 0) and the unliked (below 0), and
        W = Σ_r w_r > 0, the distance is the weighted mean

            Σ_r w_r ‖q_r − k_i‖² / W = ‖q̄ − k_i‖² + a constant,   q̄ = Σ_r w_r q_r / W:

        one exact search from q̄. It may come out below 0 where ``unlike`` is given.
        """
        return self._recommend(
            self._index.search, user, history, k=k, exclude_seen=exclude_seen, allow=allow,
            deny=deny, long_term_weight=long_term_weight, like=like, unlike=unlike,
            strength=strength,
        )  # fmt: skip

    def _recommend(
        self,
        search: Search,
        user: int | str | None,
        history: Ids | None,
        *,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Ids | None = None,
        deny: Ids | None = None,
        long_term_weight: float | None = None,
        like: Ids | None = None,
        unlike: Ids | None = None,
        strength: float = DEFAULT_STRENGTH,
    ) -> list[Recommendation]:
        """Do what `recommend` does, by any search; see `attrec.certified`."""
        asked = self._requests.one(user, history)
        named, shares = self._requests.critique(like, unlike, strength)
        limits = self._requests.limits(k, exclude_seen, allow, deny)
        weights = self._weights(long_term_weight)
        queries = self._queries(asked)
        if len(named) == 0:
            found, parts = self._nearest(queries, asked.histories, limits, weights, search)
            return self._list(found.indices[0], parts[0])
        points = torch.cat([queries, item_points(self.network, self._placed(named))])
        seen = np.concatenate([asked.histories[0], named])
        shares = np.append(1.0, shares)
        items, parts = self._search_mean(points, shares, seen, limits, weights, search)
        return self._list(items, _mean(parts, shares))

    def recommend_group(
        self,
        members: Sequence[Member],
        weights: Sequence[float] | None = None,
        *,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Ids | None = None,
        deny: Ids | None = None,
        long_term_weight: float | None = None,
    ) -> list[GroupRecommendation]:
        """Rank the catalogue for several users or histories together.

        The distance is the weighted mean of the members' own, with W = Σ_r w_r:

            Σ_r w_r ‖q_r − k_i‖² / W = ‖q̄ − k_i‖² + a constant,   q̄ = Σ_r w_r q_r / W.

        So one exact search from q̄ ranks all items for everybody at once.

        Parameters
        ----------
        members : sequence of user ids and histories
            A history is a sequence of item ids, oldest first.
        weights : sequence of float, optional
            w_r of each member, 1 for all without it. Below 0: away from what the member is near
            to. Their sum must be above 0.
        k, allow, deny, long_term_weight
            As in `recommend`.
        exclude_seen : bool
            Leave out what any member with a weight above 0 took.

        Returns
        -------
        list of GroupRecommendation
            With each member's own distance.

        Raises
        ------
        UnknownIdError, RequestError
            As in `recommend`; there is no member, or the weights do not fit.
        """
        asked, shares = self._requests.group(members, weights)
        limits = self._requests.limits(k, exclude_seen, allow, deny)
        seen = asked.histories.take(np.flatnonzero(shares > 0)).values
        items, parts = self._search_mean(
            self._queries(asked), shares, seen, limits, self._weights(long_term_weight)
        )
        own = parts.sum(axis=2).T
        return [
            GroupRecommendation(**place.to_dict(), members=tuple(each))
            for place, each in zip(
                self._list(items, _mean(parts, shares)), own.tolist(), strict=True
            )
        ]

    def similar(
        self,
        item: int | str,
        *,
        k: int = 10,
        sense: Sense = "next",
        allow: Ids | None = None,
        deny: Ids | None = None,
    ) -> list[Recommendation]:
        """Rank the catalogue by its distance to one item.

        Parameters
        ----------
        item : int or str
        k, allow, deny
            As in `recommend`; the item itself is left out.
        sense : {'next', 'short-term', 'long-term'}
            ``next``: ‖m − X_j‖², of the additive network ‖m − k_j‖² + o_j, m being the intent after
            a history of the item alone: what is taken after it. ``short-term``: ‖X_i − X_j‖² or
            ‖k_i − k_j‖² + o_j, the items' own points. In the paper's network that is the same,
            because the intent after one item is the item: its nearness has no direction. In the
            additive network it is not: ``next`` goes through the heads' maps. With
            ``tied_embeddings = false`` its keys are learnt only as seen from intents, and what lies
            beside one may be anything. ``long-term``: ‖V_i − V_j‖²: what suits the same people; the
            additive network has none.

        Returns
        -------
        list of Recommendation
            The distance bare, without ω.

        Raises
        ------
        UnknownIdError
            The model lacks the item.
        RequestError
            The network lacks the sense, k is below 1, or nothing is left to rank.
        """
        if sense not in get_args(Sense):
            raise RequestError(f"sense = {sense!r}: expected one of {', '.join(get_args(Sense))}")
        if sense == "long-term" and isinstance(self.network, AdditiveNetwork):
            raise RequestError(
                "sense = 'long-term': the additive network has no long-term part; take "
                "'short-term' or 'next', or train with architecture = 'paper'"
            )
        index = self._placed(self._requests.items([item]))
        limits = self._requests.limits(k, True, allow, deny)
        itself = Ragged.from_lists([index.tolist()])
        if sense == "next":
            query = bare_queries(self.network, np.array([-1]), itself)
        else:
            query = item_points(self.network, index)
        weights = (1.0, 0.0) if sense == "long-term" else (0.0, 1.0)
        found, parts = self._nearest(query, itself, limits, weights)
        return self._list(found.indices[0], parts[0])

    def audience(
        self,
        item: int | str,
        *,
        k: int = 10,
        exclude_taken: bool = True,
        long_term_weight: float | None = None,
    ) -> list[AudienceMember]:
        """Rank the users by their distance to one item: who would want it?

        The distance is the one that `recommend` ranks by, seen from the item's side. The queries
        of all users are computed once and kept: 8 D bytes for each user.

        Parameters
        ----------
        item : int or str
        k : int, ≥ 1
            At most so many users.
        exclude_taken : bool
            Leave out who took the item before.
        long_term_weight : float, optional
            As in `recommend`.

        Returns
        -------
        list of AudienceMember
            Nearest first; ties go to the user whom the model has known longer. Empty where nobody
            is left. Users of whom nothing is known to rank by are left out.

        Raises
        ------
        UnknownIdError
            The model lacks the item.
        RequestError
            ``k`` is below 1, or the weight is out of its range.
        """
        (index,) = self._placed(self._requests.items([item]))
        weights = self._weights(long_term_weight)
        check_count(k, "user")
        rows, queries = self._queries_of_all()
        apart = distances_to_key(queries, self._index.keys[int(index)], self._index.blocks)
        parts = apart.cpu().numpy() * weights
        kept = np.ones(len(rows), dtype=bool)
        if exclude_taken:
            histories = self.histories.histories
            taken = np.flatnonzero(histories.values == index)
            kept = ~np.isin(rows, np.searchsorted(histories.offsets, taken, side="right") - 1)
        users, parts = rows[kept], parts[kept]
        distances = parts.sum(axis=1)
        nearest = np.argsort(distances, kind="stable")[:k]
        return [
            AudienceMember(rank, plain(name), *numbers)
            for rank, (name, numbers) in enumerate(
                zip(
                    self.vocabulary.decode_users(users[nearest]),
                    np.column_stack([distances, parts])[nearest].tolist(),
                    strict=True,
                ),
                start=1,
            )
        ]

    @overload
    def recommend_batch(
        self,
        users: Ids | None = None,
        *,
        histories: Sequence[Ids] | None = None,
        log: InteractionLog | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Ids | None = None,
        deny: Ids | None = None,
        long_term_weight: float | None = None,
    ) -> RecommendationTable: ...

    @overload
    def recommend_batch(
        self,
        users: IntoDataFrameT,
        *,
        histories: Sequence[Ids] | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Ids | None = None,
        deny: Ids | None = None,
        long_term_weight: float | None = None,
    ) -> IntoDataFrameT: ...

    def recommend_batch(
        self,
        users: Any = None,
        *,
        histories: Sequence[Ids] | None = None,
        log: InteractionLog | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Ids | None = None,
        deny: Ids | None = None,
        long_term_weight: float | None = None,
    ) -> Any:
        """Rank the catalogue for many users or histories; the lists are those of `recommend`.

        Many queries at once are rounded otherwise than one alone: distances agree to 1e-15, and
        two items nearer to each other than that may change places.

        Parameters
        ----------
        users : sequence of user ids, or a frame, optional
            A Polars, pandas or PyArrow frame has them in its column ``user_id``, or in its only
            column. Without users and histories: all users of the model.
        histories : sequence of sequences of item ids, optional
            One for each user; or, without ``users``, each a list of its own.
        log : InteractionLog, optional
            All users of this log, known to the model or not, each with the history there; in place
            of users and histories.
        k, exclude_seen, allow, deny, long_term_weight
            As in `recommend`.

        Returns
        -------
        RecommendationTable, or a frame of the kind that ``users`` is
            Users without a list stand in the table's ``left_out``.

        Raises
        ------
        UnknownIdError, RequestError
            As in `recommend`, naming the first user or history concerned.
        """
        frame = as_frame(users)
        if log is not None:
            if users is not None or histories is not None:
                raise RequestError("a log brings its users and histories; leave out the others")
            if not isinstance(log, InteractionLog):
                raise RequestError(
                    f"log is a {type(log).__name__}; read it first, with attrec.read_interactions"
                )
            asked = self._requests.of_log(log)
        else:
            asked = self._requests.many(users if frame is None else user_column(frame), histories)
        limits = self._requests.limits(k, exclude_seen, allow, deny)
        weights = self._weights(long_term_weight)
        table = self._table(asked.names, list(self._blocks(asked, limits, weights)))
        if frame is None:
            return table
        return nw.from_dict(table.columns(), backend=frame.implementation).to_native()

    def as_of(self, log: InteractionLog) -> Recommender:
        """Return this model with the popularity of the moment in which ``log`` ends.

        To judge it as if nothing later were known, say, or to rank for another market. Users,
        histories and vectors are this model's.

        Raises
        ------
        DataError
            The model has a popularity of the moment, and ``log`` no times.
        """
        network = self.network
        if isinstance(network, AdditiveNetwork):
            known = Sequences.from_log(log, self.vocabulary.with_users_of(log))
            network = at_moment(network, known, self.moment)
        other = Recommender(
            network, self.vocabulary, self.histories, self.options, self.titles, self.record,
            self.moment,
        )  # fmt: skip
        other._waiting = list(self._waiting)
        return other

    # Reasons

    def explain(
        self,
        user: int | str | None = None,
        item: int | str | None = None,
        *,
        history: Ids | None = None,
        versus: int | str | None = None,
        long_term_weight: float | None = None,
        without: bool = False,
    ) -> Explanation:
        """Take the distance of an item apart, and say why it stands above another.

        Parameters
        ----------
        user, history
            As in `recommend`.
        item : int or str
            Any item of the model, recommended or not.
        versus : int or str, optional
            The item to compare with.
        long_term_weight : float, optional
            As in `recommend`.
        without : bool
            Compute again what distance and rank the item has without each event of the window. A
            split does not say that: see `Explanation`.

        Raises
        ------
        UnknownIdError, RequestError
            As in `recommend`, and for items that the model lacks or knows nothing of.
        """
        if item is None:
            raise RequestError("name the item that is to be explained")
        named = self._placed(self._requests.items([item] if versus is None else [item, versus]))
        asked, weights = self._requests.one(user, history), self._weights(long_term_weight)
        intent, splits = self._splits(asked, named, weights)
        first = splits[0]
        rank, absences = self._absences(asked, first.item, weights) if without else (None, None)
        return Explanation(
            user_id=plain(user),
            item_id=self._item_id(first.item),
            title=self.title(first.item),
            distance=first.distance,
            long_term=first.long_term,
            short_term=first.short_term,
            events=tuple(
                EventReason(
                    self._item_id(event), self.title(event), float(c), float(part), float(pull)
                )
                for event, c, part, pull in zip(
                    intent.items, intent.event_shares, first.parts, first.pulls, strict=True
                )
            ),
            constant=first.constant,
            excess=first.excess,
            excess_pull=first.excess_pull,
            long_term_pull=first.long_term_pull,
            short_term_advantage=first.short_term_advantage,
            aggregation=self._aggregation,
            versus=None if versus is None else self._contrast(first, splits[1]),
            offset=first.offset,
            offset_pull=first.offset_pull,
            rank=rank,
            without=absences,
        )

    def reasons(
        self,
        user: int | str | None = None,
        items: Ids = (),
        *,
        history: Ids | None = None,
        top: int = 2,
        long_term_weight: float | None = None,
    ) -> list[list[str]]:
        """Name, for each of ``items``, the events that pull most towards it.

        Returns
        -------
        list of list of str
            At most ``top`` titles (ids where there is no title), the strongest first, the pulls of
            an item that occurs twice added up. Empty where no event pulls: the item then stands
            where it does for the user's long-term taste.

        Raises
        ------
        UnknownIdError, RequestError
            As in `explain`.
        """
        asked, weights = self._requests.one(user, history), self._weights(long_term_weight)
        intent, splits = self._splits(asked, self._placed(self._requests.items(items)), weights)
        events, place = np.unique(intent.items, return_inverse=True)
        answer = []
        for split in splits:
            pulls = np.bincount(place, weights=split.pulls, minlength=len(events))
            best = np.argsort(-pulls, kind="stable")[:top]
            answer.append([self._name(events[e]) for e in best if pulls[e] > 0])
        return answer

    def title(self, item_index: int) -> str | None:
        """Return the title of an item index, None where there is none."""
        return self.titles.get(str(self._item_id(item_index)))

    # As time goes on

    @property
    def histories(self) -> Sequences:
        """The whole log: a history for each user, observed events included."""
        return self._live.sequences

    @property
    def waiting(self) -> InteractionLog:
        """Observed events of items that the model lacks, each once; as many as came without times.

        The next `attrec.update` takes them in, whatever it is given besides; `save` keeps them.
        """
        once = self._live.has_times and self.options.data.duplicates == "drop"
        events = list(dict.fromkeys(self._waiting)) if once else self._waiting
        users, items, times = zip(*events, strict=True) if events else ((), (), ())
        known = times if self._live.has_times else None
        return InteractionLog.from_columns(
            list(users), list(items), known, source="the observed events"
        )

    def observe(self, user: int | str, item: int | str, time: float | None = None) -> bool:
        """Take one event in: the user's next list knows it. Nothing else changes.

        Threads may call it at once, and beside `recommend`, `audience` and `save`.

        One by one, events make the histories that one `attrec.update` makes of the same log: each
        goes where its time says, and the model's ``repeats`` and ``duplicates`` hold for it.

        Parameters
        ----------
        user : int or str
            Known or not; of the kind that the model's ids have. A new one is known from now on.
        item : int or str
        time : float
            In the unit of the log, where the model's events have times; else left out. Times of
            day are seconds since 1970 in a model whose log was read from a file.

        Returns
        -------
        bool
            Whether the event came in. Not where it is there already or ``repeats`` keeps another,
            and not where the model lacks the item: such an event waits in `waiting` for the next
            `attrec.update`.

        Raises
        ------
        RequestError
            There is no time, or one too many, or it is no finite number, or (where its size says
            so) in another unit than the model's; or an id is empty.
        UnknownIdError
            An id is of the other kind.

        Examples
        --------
        >>> import attrec
        >>> log = attrec.simulate("community", num_users=30, num_items=20, events_per_user=8)
        >>> served = attrec.fit(log, max_epochs=1, embedding_dim=8, min_steps=5).recommender
        >>> served.observe(0, 3, time=10_000.0), served.observe(0, 3, time=10_000.0)
        (True, False)
        """
        with self._observing:
            event = self._requests.event(user, item, time)
            user_index = event.user_index
            if user_index == UNKNOWN:
                # A history first: whoever finds the user in the vocabulary finds it there.
                user_index = self._live.add_user()
                self.vocabulary = self.vocabulary.with_user(event.user)
            if event.item_index == UNKNOWN:
                self._waiting.append((event.user, event.item, event.time))
                return False
            return self._live.add(user_index, event.item_index, event.time)

    # The artifact

    def info(self) -> dict[str, Any]:
        """Return what this model is, JSON-able: sizes, options and the record of its making."""
        return {
            "attrec_version": attrec_version(),
            "format_version": FORMAT_VERSION,
            "users": self.vocabulary.num_users,
            "trained_users": self.vocabulary.num_trained_users,
            "items": self.vocabulary.num_items,
            "events": self.histories.num_events,
            "titles": sum(str(item) in self.titles for item in self.vocabulary.item_ids.tolist()),
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "options": self.options.to_dict(),
            "record": self.record,
        }

    def save(self, path: str | Path) -> None:
        """Write the folder of this model, atomically; see `attrec.artifact`.

        Observed events are in it, those too that wait for an update.

        Raises
        ------
        ArtifactError
            The folder holds something else, or cannot be written.
        """
        with self._observing:
            stored = StoredModel(
                self.network, self.vocabulary, self.histories, self.options, self.titles,
                self.record, self.moment, self.waiting,
            )  # fmt: skip
        save_artifact(path, **to_artifact(stored))

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> Recommender:
        """Read a folder that `save` wrote.

        Parameters
        ----------
        path : path
        device : str
            Where the tables and the search live: ``cpu``, ``cuda``, ``cuda:1``, …

        Raises
        ------
        ArtifactError
            The folder is missing, damaged or of a newer format.
        DeviceError
            The device is not there.
        """
        stored = from_artifact(load_artifact(path), str(path))
        try:
            network = stored.network.to(device)
        except (RuntimeError, AssertionError) as error:
            raise DeviceError(
                f"device {device!r} cannot be used ({str(error).splitlines()[0]}); take 'cpu'"
            ) from error
        loaded = cls(
            network,
            stored.vocabulary,
            stored.histories,
            stored.options,
            stored.titles,
            stored.record,
            stored.moment,
        )
        if stored.waiting is not None:
            loaded._waiting = list(stored.waiting.events())
        return loaded

    # Indices in, answers out

    @property
    def _requests(self) -> RequestReader:
        return RequestReader(self.vocabulary, self._live, self._unplaced, self.network.num_users)

    @property
    def _aggregation(self) -> str:
        paper = isinstance(self.network, AttRecNetwork)
        return self.network.config.aggregation if paper else "additive"

    @cached_property
    def _index(self) -> ExactIndex:
        keys = bare_keys(self.network)
        long = long_term_width(self.network)
        return ExactIndex(keys, (long, keys.shape[1] - long))

    @property
    def answerable(self) -> npt.NDArray[np.bool_]:
        """(M,) bool: the users of whom something is known to rank by."""
        return self._requests.answerable(self._requests.many(None, None))

    def _queries_of_all(self) -> tuple[Indices, torch.Tensor]:
        """Return the users of whom something is known, and their queries without ω."""
        version = self._live.version
        if self._audience is None or self._audience[0] != version:
            # Kept as of the version before: an event that comes meanwhile makes it void.
            self._audience = (version, *self._queried())
        return self._audience[1:]

    def _queried(self) -> tuple[Indices, torch.Tensor]:
        asked = self._requests.many(None, None)
        rows = np.flatnonzero(self._requests.answerable(asked))
        keys = self._index.keys
        queries = torch.empty(len(rows), keys.shape[1], dtype=torch.float64, device=keys.device)
        for start in range(0, len(rows), _USERS_AT_ONCE):
            part = rows[start : start + _USERS_AT_ONCE]
            queries[start : start + len(part)] = self._queries(asked.take(part))
        return rows, queries

    def _placed(self, items: Indices) -> Indices:
        """Return the same items, of each of which something is known.

        Raises
        ------
        RequestError
            One came after training, and nothing is known of it yet.
        """
        unplaced = np.intersect1d(items, self._unplaced)
        if len(unplaced):
            raise RequestError(
                f"item {self._item_id(unplaced[0])!r} came after training and nothing is known of "
                "it yet; update the model with events that have it"
            )
        return items

    def _denied(self, deny: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
        """Return what is denied, and the items that nothing is known of."""
        return self._unplaced if deny is None else np.union1d(deny, self._unplaced)

    @cached_property
    def _unplaced(self) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = self.network.unplaced.cpu().numpy()
        return found

    @cached_property
    def _means(self) -> CatalogueMeans:
        return CatalogueMeans.of(self.network)

    def _weights(self, long_term_weight: float | None) -> tuple[float, float]:
        """Return ω and 1 − ω of a request; the additive network has the second part alone."""
        if isinstance(self.network, AdditiveNetwork):
            if long_term_weight is not None:
                raise RequestError(
                    f"long_term_weight = {long_term_weight}: the additive network has no long-term "
                    "part to weigh; leave it out, or train with architecture = 'paper'"
                )
            return 0.0, 1.0
        own = self.network.config.long_term_weight
        weight = own if long_term_weight is None else number("long_term_weight", long_term_weight)
        if not 0.0 <= weight <= 1.0:
            raise RequestError(f"long_term_weight = {long_term_weight}: give a number from 0 to 1")
        return weight, 1.0 - weight

    def _queries(self, asked: Asked) -> torch.Tensor:
        return bare_queries(self.network, asked.user_index, asked.histories)

    def _nearest(
        self,
        queries: torch.Tensor,
        seen: Ragged,
        limits: Limits,
        weights: tuple[float, float],
        search: Search | None = None,
    ) -> tuple[Neighbours, Floats]:
        """Return the nearest items, and the long- and short-term parts of their distances."""
        found = (search or self._index.search)(
            queries,
            limits.k,
            weights=weights,
            exclude=seen if limits.exclude_seen else None,
            allow=limits.allow,
            deny=self._denied(limits.deny),
        )
        return found, self._parts(queries, np.maximum(found.indices, 0), weights)

    def _parts(self, queries: torch.Tensor, items: Indices, weights: tuple[float, float]) -> Floats:
        """Long- and short-term parts (n, k, 2) of the distances of items (n, k)."""
        asked = torch.as_tensor(items, device=queries.device)
        parts: Floats = self._index.parts(queries, asked, weights=weights).cpu().numpy()
        return parts

    def _search_mean(
        self,
        queries: torch.Tensor,
        shares: Floats,
        seen: npt.NDArray[Any],
        limits: Limits,
        weights: tuple[float, float],
        search: Search | None = None,
    ) -> tuple[Indices, Floats]:
        """Return the items (k,) nearest to R queries together, and each query's parts (R, k, 2).

        Σ_r w_r ‖q_r − k‖² = W ‖q̄ − k‖² + a constant: the search is from q̄, and what it finds is
        measured from each q_r again.
        """
        share = torch.as_tensor(shares / shares.sum(), device=queries.device)
        centre = (share[:, None] * queries).sum(dim=0, keepdim=True)
        asked = Ragged.from_lists([seen.tolist()])
        found, _ = self._nearest(centre, asked, limits, weights, search)
        items = found.indices[0][found.indices[0] >= 0]
        every = np.tile(items, (len(queries), 1))
        return items, self._parts(queries, every, weights)

    def _list(self, items: Indices, parts: Floats) -> list[Recommendation]:
        """Name the places of one list: items (k,), -1 where there is none, and parts (k, 2)."""
        real = items >= 0
        if not real.any():
            raise RequestError(
                "nothing is left to rank: every allowed item was seen before or is denied; "
                "widen allow, narrow deny or set exclude_seen to False"
            )
        return [
            Recommendation(rank, self._item_id(item), self.title(item), long + short, long, short)
            for rank, (item, (long, short)) in enumerate(
                zip(items[real], parts[real].tolist(), strict=True), start=1
            )
        ]

    def _blocks(
        self, asked: Asked, limits: Limits, weights: tuple[float, float]
    ) -> Iterator[tuple[npt.NDArray[Any], ...]]:
        """Yield request rows, ranks, items, distances, long- and short-term parts, all flat."""
        rows = np.flatnonzero(self._requests.answerable(asked))
        step = max(1, min(_USERS_AT_ONCE, _NUMBERS_AT_ONCE // limits.k))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            block = asked.take(part)
            found, parts = self._nearest(self._queries(block), block.histories, limits, weights)
            real = found.indices >= 0
            place, rank = np.nonzero(real)
            yield (
                part[place], rank + 1, found.indices[real], found.distances[real],
                *parts[real].T,
            )  # fmt: skip

    def _table(
        self, names: IdArray, blocks: list[tuple[npt.NDArray[Any], ...]]
    ) -> RecommendationTable:
        empty = (*(np.zeros(0, dtype=np.int64),) * 3, *(np.zeros(0),) * 3)
        row, rank, items, distance, long_term, short_term = (
            np.concatenate(column) for column in zip(empty, *blocks, strict=True)
        )
        titles = None
        if self.titles:
            distinct, place = np.unique(items, return_inverse=True)
            named = np.empty(len(distinct), dtype=object)
            named[:] = [self.title(item) for item in distinct]
            titles = named[place]
        return RecommendationTable(
            user_id=names[row],
            rank=rank,
            item_id=self.vocabulary.decode_items(items),
            title=titles,
            distance=distance,
            long_term=long_term,
            short_term=short_term,
            left_out=names[np.setdiff1d(np.arange(len(names)), row)],
        )

    def _splits(
        self, asked: Asked, items: Indices, weights: tuple[float, float]
    ) -> tuple[Intent, list[Split]]:
        window = last_items(asked.histories, self.network.config.window_length)[0]
        intent = read_intent(self.network, window)
        factors = torch.zeros(0)
        if isinstance(self.network, AttRecNetwork):
            factors = user_vectors(self.network, asked.user_index, asked.histories)[0]
        return intent, split_distances(
            self.network, factors, intent, items, self._means, long_term_weight=weights[0]
        )

    def _absences(
        self, asked: Asked, item: int, weights: tuple[float, float]
    ) -> tuple[int, tuple[Absence, ...]]:
        """Return the item's rank, and what it would be without each event of the window."""
        history = asked.histories[0]
        window = range(max(0, len(history) - self.network.config.window_length), len(history))
        lists = [history.tolist(), *(np.delete(history, place).tolist() for place in window)]
        users = np.full(len(lists), asked.user_index[0])
        everyone = Asked(np.arange(len(lists)), users, Ragged.from_lists(lists))
        queries = self._queries(everyone)
        asked_items = np.full(len(lists), item)
        seen = asked.histories.take(np.zeros(len(lists), dtype=np.int64))
        ranks = self._index.ranks(
            queries, asked_items, weights=weights, exclude=seen, deny=self._unplaced
        )
        # In float64 throughout, as explanations are.
        key = bare_keys(self.network, np.array([item]), dtype=torch.float64)[0]
        apart = distances_to_key(queries, key, self._index.blocks).cpu().numpy()
        distances = (apart * weights).sum(axis=1)
        # A history of nothing has an intent of its own; one of unknown items says nothing.
        of_nothing = (everyone.histories.lengths == 0) & isinstance(self.network, AdditiveNetwork)
        known = self._requests.answerable(everyone) | of_nothing
        return int(ranks[0]), tuple(
            Absence(
                self._item_id(history[place]),
                self.title(history[place]),
                float(distances[row]) if known[row] else None,
                int(ranks[row]) if known[row] else None,
            )
            for row, place in enumerate(window, start=1)
        )

    def _contrast(self, first: Split, second: Split) -> Contrast:
        comparison = compare(first, second)
        return Contrast(
            self._item_id(second.item),
            self.title(second.item),
            comparison.difference,
            tuple(comparison.events.tolist()),
            comparison.excess,
            comparison.long_term,
            comparison.offset,
        )

    def _item_id(self, item_index: int) -> int | str:
        identity: int | str = plain(self.vocabulary.item_ids[item_index])
        return identity

    def _name(self, item_index: int) -> str:
        return self.title(item_index) or str(self._item_id(item_index))


def _mean(parts: Floats, shares: Floats) -> Floats:
    """(k, 2): the weighted mean over the R members of their parts (R, k, 2)."""
    mean: Floats = np.tensordot(shares / shares.sum(), parts, axes=1)
    return mean


def _check_fit(network: Network, vocabulary: Vocabulary, histories: Sequences) -> None:
    pairs = [
        ("rows of items", network.num_items, "items", vocabulary.num_items),
        ("histories", histories.num_users, "users", vocabulary.num_users),
        (
            "rows of trained items",
            network.num_trained_items,
            "trained items",
            vocabulary.num_trained_items,
        ),
    ]
    if isinstance(network, AttRecNetwork):
        trained = vocabulary.num_trained_users
        pairs.append(("rows of U", network.num_users, "trained users", trained))
    for what, count, other, expected in pairs:
        if count != expected:
            raise ArtifactError(
                f"the model has {count} {what} and {expected} {other} in its vocabulary; "
                "give parts of one training"
            )
