"""Where the time goes: named spans, their totals, and a trace that a browser draws.

Knows nothing of what it times. Spans nest, as calls do::

    training                 12.1 s       1
      batches                 2.3 s   4,210
      steps                   8.9 s   4,210
      validation              0.8 s      10

Off is `OFF`, whose methods do nothing: code that is timed asks nobody whether it is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from attrec.files import write_whole

T = TypeVar("T")

FINENESS = 1000
"""A span shorter than this part of the time so far is drawn together with its neighbours."""
SHORTEST = 0.005
"""Seconds below which spans are drawn together in any case."""
MOST_EVENTS = 50_000
"""Blocks of a trace; what comes after them is in the table only."""


@dataclass(frozen=True)
class Phase:
    """What all spans of one name, at one place in the tree, took together.

    Attributes
    ----------
    path : tuple of str
        Names from the outermost span to this one.
    seconds : float
    count : int
        Spans.
    share : float
        Of the whole time.
    """

    path: tuple[str, ...]
    seconds: float
    count: int
    share: float


@dataclass
class _Total:
    seconds: float = 0.0
    count: int = 0


@dataclass
class _Open:
    """A span that has begun."""

    path: tuple[str, ...]
    begun: float
    has_parts: bool = False
    gathered: dict[str, _Total] = field(default_factory=dict)
    """Short parts that are not drawn yet."""
    gathered_since: float = 0.0


class Profile:
    """Totals of named spans, from the making of this object on; for one thread.

    The trace stays small however long the work: short spans without parts are gathered, and a
    stretch of them is drawn as one block for each name. Lengths are true; within a stretch, places
    are not.

    Parameters
    ----------
    clock : callable
        Seconds from anywhere.

    Examples
    --------
    >>> times = iter([0.0, 1.0, 2.0, 5.0, 6.0])
    >>> profile = Profile(clock=lambda: next(times))
    >>> with profile.span("cooking"):
    ...     with profile.span("waiting"):
    ...         pass
    >>> [(phase.path, phase.seconds, phase.count) for phase in profile.phases()]
    [(('cooking',), 5.0, 1), (('cooking', 'waiting'), 3.0, 1)]
    >>> profile.seconds
    6.0
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._begun = self._ended = clock()
        self._open = [_Open((), self._begun)]
        self._totals: dict[tuple[str, ...], _Total] = {}
        self._events: list[dict[str, Any]] = []
        self._left_out = 0
        self.counts: dict[str, int] = {}
        """What `count` was told."""

    @property
    def seconds(self) -> float:
        """From the beginning to the end of the last span."""
        return self._ended - self._begun

    def span(self, name: str) -> AbstractContextManager[None]:
        """Time a ``with`` statement."""
        return self._timed(name)

    def each(self, name: str, things: Iterable[T]) -> Iterator[T]:
        """Pass ``things`` on, and time the waiting for each, and for the end."""
        waiting, end = iter(things), object()
        while True:
            with self.span(name):
                thing: Any = next(waiting, end)
            if thing is end:
                return
            yield thing

    def count(self, what: str, number: int) -> None:
        """Add to a count."""
        self.counts[what] = self.counts.get(what, 0) + number

    def phases(self) -> list[Phase]:
        """Return the totals of all spans that ended, parts behind their whole."""
        place = {path: number for number, path in enumerate(self._totals)}
        order = sorted(place, key=lambda path: [place[path[: n + 1]] for n in range(len(path))])
        whole = self.seconds or 1.0
        return [
            Phase(path, total.seconds, total.count, total.seconds / whole)
            for path in order
            for total in (self._totals[path],)
            if total.count
        ]

    def seconds_of(self, *names: str) -> float:
        """Return the seconds of all spans with one of these names, wherever they are."""
        return sum(total.seconds for path, total in self._totals.items() if path[-1] in names)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping: seconds, counts and phases."""
        phases = [
            {"phase": list(p.path), "seconds": p.seconds, "count": p.count, "share": p.share}
            for p in self.phases()
        ]
        return {"seconds": self.seconds, "counts": dict(self.counts), "phases": phases}

    def trace(self) -> dict[str, Any]:
        """Return the trace in Chrome's format, which Perfetto and chrome://tracing open."""
        for span in self._open:
            self._draw_gathered(span)
        return {
            "traceEvents": list(self._events),
            "displayTimeUnit": "ms",
            "otherData": {"blocks_left_out": self._left_out, **self.counts},
        }

    def write(self, path: str | Path) -> None:
        """Write the trace; the file appears whole or not at all.

        Raises
        ------
        RequestError
            It cannot be written.
        """
        text = json.dumps(self.trace()) + "\n"
        write_whole(path, lambda file: file.write_text(text, encoding="ascii"))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        self._enter(name)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, name: str) -> None:
        now = self._clock()
        outer = self._open[-1]
        if not outer.has_parts and len(self._open) > 1:
            # What was gathered beside a span with parts lies before it.
            self._draw_gathered(self._open[-2])
        outer.has_parts = True
        path = (*outer.path, name)
        self._totals.setdefault(path, _Total())
        self._open.append(_Open(path, now))

    def _leave(self) -> None:
        span = self._open.pop()
        now = self._ended = self._clock()
        taken, outer = now - span.begun, self._open[-1]
        total = self._totals[span.path]
        total.seconds += taken
        total.count += 1
        self._draw_gathered(span)
        if span.has_parts:
            self._draw(span.path[-1], span.begun, taken, 1)
            return
        if not outer.gathered:
            outer.gathered_since = span.begun
        together = outer.gathered.setdefault(span.path[-1], _Total())
        together.seconds += taken
        together.count += 1
        if now - outer.gathered_since >= max(SHORTEST, self.seconds / FINENESS):
            self._draw_gathered(outer)

    def _draw_gathered(self, span: _Open) -> None:
        at = span.gathered_since
        for name, total in span.gathered.items():
            self._draw(name, at, total.seconds, total.count)
            at += total.seconds
        span.gathered.clear()

    def _draw(self, name: str, begun: float, seconds: float, count: int) -> None:
        if len(self._events) >= MOST_EVENTS:
            self._left_out += 1
            return
        microseconds = 1e6
        self._events.append(
            {
                "name": name,
                "ph": "X",
                "ts": (begun - self._begun) * microseconds,
                "dur": seconds * microseconds,
                "pid": os.getpid(),
                "tid": 0,
                "args": {"spans": count},
            }
        )


class _Off(Profile):
    """Times nothing."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: 0.0)
        self._nothing = nullcontext()

    def span(self, name: str) -> AbstractContextManager[None]:
        """Do nothing."""
        del name
        return self._nothing

    def each(self, name: str, things: Iterable[T]) -> Iterator[T]:
        """Pass ``things`` on."""
        del name
        return iter(things)

    def count(self, what: str, number: int) -> None:
        """Do nothing."""


OFF: Profile = _Off()
"""A profile that is off."""
