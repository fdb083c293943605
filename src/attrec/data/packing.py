"""Whole histories as training data: every position once, packed by length instead of padded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from attrec.data.sequences import PADDING, Sequences

Ints = npt.NDArray[np.int64]

_JITTER = 0.1
"""How much two lengths may differ, relatively, and still change places: batches then differ from
epoch to epoch, and stay nearly free of padding."""


class PackedBatch(NamedTuple):
    """Pieces of histories of about one length, one after the other.

    Attributes
    ----------
    items : (P,) int64
        Each piece's items, oldest first.
    lengths : (B,) int64
        Of the pieces; their sum is P.
    targets : (P,) int64
        The item that followed; `PADDING` at a position that is there as context only.
    """

    items: Ints
    lengths: Ints
    targets: Ints

    @property
    def size(self) -> int:
        """How many positions are trained."""
        return int((self.targets >= 0).sum())


@dataclass(frozen=True, eq=False)
class Pieces:
    """Histories cut so that every position with a successor is trained once.

    A history of n items has n - 1 such positions. Up to ``longest`` of them make one piece. A
    longer history is cut from its end: the newest piece trains a random share of its positions, 1 …
    ``longest``, and has the others as context; the cuts so fall elsewhere each time. The pieces
    before it follow each other without overlap.

    Attributes
    ----------
    starts, stops : (n,) int64
        Of each piece's inputs in the flat histories; the targets are one place further.
    trained_from : (n,) int64
        Where the positions that are trained start.
    """

    starts: Ints
    stops: Ints
    trained_from: Ints

    @classmethod
    def cut(cls, sequences: Sequences, longest: int, rng: np.random.Generator) -> Pieces:
        """Cut all histories.

        Examples
        --------
        >>> from attrec.data.ragged import Ragged
        >>> sequences = Sequences(Ragged.from_lists([range(7), [8], [9, 10]]))
        >>> pieces = Pieces.cut(sequences, 3, np.random.default_rng(0))
        >>> pieces.starts.tolist(), pieces.stops.tolist(), pieces.trained_from.tolist()
        ([3, 0, 8], [6, 3, 9], [3, 0, 8])
        """
        positions = np.maximum(sequences.histories.lengths - 1, 0)
        newest = np.where(
            positions > longest, rng.integers(1, longest + 1, len(positions)), positions
        )
        counts = (positions > 0) + -(-(positions - newest) // longest)
        users = np.repeat(np.arange(len(positions)), counts)
        number = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
        first = number == 0
        stops = positions[users] - np.where(first, 0, newest[users] + (number - 1) * longest)
        starts = np.maximum(stops - longest, 0)
        trained_from = np.where(first, stops - newest[users], starts)
        base = sequences.histories.offsets[users]
        return cls(base + starts, base + stops, base + trained_from)

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self.starts)

    @property
    def lengths(self) -> Ints:
        """(n,) int64."""
        return self.stops - self.starts

    def batches(
        self, sequences: Sequences, most_positions: int, rng: np.random.Generator
    ) -> Iterator[PackedBatch]:
        """Yield every piece once: neighbours in length together, the batches in random order.

        A batch has at most ``most_positions`` positions when each of its pieces counts as long as
        the longest, but one piece at least.
        """
        lengths = self.lengths
        order = np.argsort(lengths * (1.0 + _JITTER * rng.random(len(self))), kind="stable")
        groups = _groups(lengths[order], most_positions)
        for group in rng.permutation(len(groups)):
            yield self._batch(sequences, order[slice(*groups[group])])

    def _batch(self, sequences: Sequences, chosen: Ints) -> PackedBatch:
        starts, lengths = self.starts[chosen], self.lengths[chosen]
        before = np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = np.arange(int(lengths.sum())) - before + np.repeat(starts, lengths)
        values = sequences.histories.values
        trained = places >= np.repeat(self.trained_from[chosen], lengths)
        return PackedBatch(
            values[places].astype(np.int64),
            lengths,
            np.where(trained, values[places + 1], PADDING).astype(np.int64),
        )


def _groups(lengths: Ints, most_positions: int) -> list[tuple[int, int]]:
    """Cut nearly ascending lengths into runs of at most ``most_positions``, padding included."""
    groups, start, longest = [], 0, 0
    for place, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if place > start and (place + 1 - start) * longest > most_positions:
            groups.append((start, place))
            start, longest = place, length
    groups.append((start, len(lengths)))
    return groups
