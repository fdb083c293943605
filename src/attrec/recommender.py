"""The artifact that is saved, loaded and served. It speaks external ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import narwhals as nw
import numpy as np
import numpy.typing as npt
import torch
from narwhals.typing import IntoDataFrameT

from attrec.answers import (
    Contrast,
    EventReason,
    Explanation,
    Recommendation,
    RecommendationTable,
)
from attrec.artifact import FORMAT_VERSION, attrec_version, load_artifact, save_artifact
from attrec.config import Options
from attrec.data.interactions import IdArray, InteractionLog
from attrec.data.sequences import Sequences, last_items
from attrec.data.vocabulary import Vocabulary
from attrec.errors import ArtifactError, DeviceError, RequestError
from attrec.explain import CatalogueMeans, Intent, Split, compare, read_intent, split_distances
from attrec.model.additive import AdditiveNetwork
from attrec.model.choice import Network
from attrec.model.network import AttRecNetwork
from attrec.popularity import Moment, at_moment
from attrec.request import Asked, Ids, Limits, RequestReader, as_frame, plain, user_column
from attrec.retrieval.index import ExactIndex, squared_distances
from attrec.retrieval.vectors import item_keys, long_term_width, query_vectors, user_vectors
from attrec.stored_model import StoredModel, from_artifact, to_artifact

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
        self.histories = histories
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

        Returns
        -------
        list of Recommendation
            Nearest first; ties go to the item whose id comes first.

        Raises
        ------
        UnknownIdError
            The model lacks the user.
        RequestError
            Neither user nor history, k below 1, no known item in the history, or nothing to rank.
        """
        asked = self._requests.one(user, history)
        found = self._search(asked, self._requests.limits(k, exclude_seen, allow, deny))
        items, distances, long_term, short_term = (column[0] for column in found)
        real = items >= 0
        if not real.any():
            raise RequestError(
                "nothing is left to rank: every allowed item was seen before or is denied; "
                "widen allow, narrow deny or set exclude_seen to False"
            )
        return [
            Recommendation(
                rank, self._item_id(item), self.title(item), float(y), float(long), float(short)
            )
            for rank, (item, y, long, short) in enumerate(
                zip(items[real], distances[real], long_term[real], short_term[real], strict=True),
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
    ) -> Any:
        """Rank the catalogue for many users or histories; the lists are those of `recommend`.

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
        k, exclude_seen, allow, deny
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
            asked = self._requests.of_log(log)
        else:
            asked = self._requests.many(users if frame is None else user_column(frame), histories)
        limits = self._requests.limits(k, exclude_seen, allow, deny)
        table = self._table(asked.names, list(self._blocks(asked, limits)))
        if frame is None:
            return table
        return nw.from_dict(table.columns(), backend=frame.implementation).to_native()

    def as_of(self, log: InteractionLog) -> Recommender:
        """Return this model with the popularity of the moment in which ``log`` ends.

        To judge it as if nothing later were known, say, or to rank for another market. Users,
        histories and vectors are this model's.
        """
        network = self.network
        if isinstance(network, AdditiveNetwork):
            known = Sequences.from_log(log, self.vocabulary.with_users_of(log))
            network = at_moment(network, known, self.moment)
        return Recommender(
            network, self.vocabulary, self.histories, self.options, self.titles, self.record,
            self.moment,
        )  # fmt: skip

    # Reasons

    def explain(
        self,
        user: int | str | None = None,
        item: int | str | None = None,
        *,
        history: Ids | None = None,
        versus: int | str | None = None,
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

        Raises
        ------
        UnknownIdError, RequestError
            As in `recommend`, and for items that the model lacks.
        """
        if item is None:
            raise RequestError("name the item that is to be explained")
        asked = [item] if versus is None else [item, versus]
        intent, splits = self._splits(user, history, self._requests.items(asked))
        first = splits[0]
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
        )

    def reasons(
        self,
        user: int | str | None = None,
        items: Ids = (),
        *,
        history: Ids | None = None,
        top: int = 2,
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
        intent, splits = self._splits(user, history, self._requests.items(items))
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
            "titles": len(self.titles),
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "options": self.options.to_dict(),
            "record": self.record,
        }

    def save(self, path: str | Path) -> None:
        """Write the folder of this model, atomically; see `attrec.artifact`.

        Raises
        ------
        ArtifactError
            The folder holds something else, or cannot be written.
        """
        stored = StoredModel(
            self.network, self.vocabulary, self.histories, self.options, self.titles, self.record,
            self.moment,
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
        return cls(
            network,
            stored.vocabulary,
            stored.histories,
            stored.options,
            stored.titles,
            stored.record,
            stored.moment,
        )

    # Indices in, answers out

    @property
    def _requests(self) -> RequestReader:
        return RequestReader(self.vocabulary, self.histories)

    @property
    def _aggregation(self) -> str:
        paper = isinstance(self.network, AttRecNetwork)
        return self.network.config.aggregation if paper else "additive"

    @cached_property
    def _index(self) -> ExactIndex:
        return ExactIndex(item_keys(self.network))

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

    def _search(self, asked: Asked, limits: Limits) -> tuple[npt.NDArray[Any], ...]:
        """Items (-1: none), distances, long- and short-term parts, each (n, k)."""
        queries = query_vectors(self.network, asked.user_index, asked.histories)
        found = self._index.search(
            queries,
            limits.k,
            exclude=asked.histories if limits.exclude_seen else None,
            allow=limits.allow,
            deny=self._denied(limits.deny),
        )
        items = torch.as_tensor(np.maximum(found.indices, 0), device=queries.device)
        keys, d = self._index.keys, long_term_width(self.network)
        long_term = squared_distances(queries[:, :d], keys[:, :d], items)
        short_term = squared_distances(queries[:, d:], keys[:, d:], items)
        return *found, long_term.cpu().numpy(), short_term.cpu().numpy()

    def _blocks(self, asked: Asked, limits: Limits) -> Iterator[tuple[npt.NDArray[Any], ...]]:
        """Yield request rows, ranks, items, distances, long- and short-term parts, all flat."""
        rows = np.flatnonzero(self._requests.answerable(asked))
        step = max(1, min(_USERS_AT_ONCE, _NUMBERS_AT_ONCE // limits.k))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            found = self._search(
                Asked(asked.names[part], asked.user_index[part], asked.histories.take(part)), limits
            )
            real = found[0] >= 0
            place, rank = np.nonzero(real)
            yield part[place], rank + 1, *(column[real] for column in found)

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
        self, user: int | str | None, history: Ids | None, items: npt.NDArray[np.int64]
    ) -> tuple[Intent, list[Split]]:
        asked = self._requests.one(user, history)
        window = last_items(asked.histories, self.network.config.window_length)[0]
        intent = read_intent(self.network, window)
        factors = torch.zeros(0)
        if isinstance(self.network, AttRecNetwork):
            factors = user_vectors(self.network, asked.user_index, asked.histories)[0]
        return intent, split_distances(self.network, factors, intent, items, self._means)

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
