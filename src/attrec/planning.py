"""What a training would take on this machine: measured on a sample, never looked up.

Each part is a call of the code that `attrec.fit` runs, on simulated histories, for as long as it
takes to see its pace; the plan is that pace times how often the part would run.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attrec.api import PROFILE_WINDOWS, baselines, torch_device, torch_threads
from attrec.baselines import Markov, Popularity, item_counts
from attrec.config import Options
from attrec.data.cases import Cases, encode_cases
from attrec.data.interactions import InteractionLog
from attrec.data.ragged import Ragged
from attrec.data.reading import read_interactions, write_csv
from attrec.data.sequences import Sequences, last_items
from attrec.data.splits import split_log
from attrec.data.vocabulary import Vocabulary
from attrec.errors import MemoryNeededError, RequestError
from attrec.evaluation.intervals import bootstrap_means
from attrec.evaluation.metrics import metric_names
from attrec.evaluation.ranking import BLOCK_BYTES, Scorer, rank_targets
from attrec.explain import attention_profile
from attrec.model.choice import make_network
from attrec.retrieval.vectors import NetworkScorer
from attrec.training.batches import step_positions
from attrec.training.choice import make_step
from attrec.training.memory import available_bytes, needed_bytes, step_bytes
from attrec.training.trainer import Progress, train

SAMPLE_EVENTS = 200_000
"""Events that are split and encoded, and rows that are read, to see their pace."""
HISTORY_EVENTS = 2_000_000
"""Most events that the steps draw their windows from."""
TABLE_BYTES = 3_000_000_000
"""Most memory that the calibration takes for tables, and never more than half of what is free."""
STEP_SECONDS = 2.0
"""How long steps are taken."""
TRIES = 3
"""Parts of a block of users that is ranked; the plan takes the median of their paces too."""
STRETCHES = 10
"""Parts of that time; the plan takes the median of their paces."""
POPULARITY_EXPONENT = 0.9
"""Of the simulated catalogue: the r-th most popular item has r to the minus this of the events."""
LENGTH_SPREAD = 0.7
"""Standard deviation of the logarithm of the simulated users' activity."""
RESAMPLES, RESAMPLES_TRIED = 2000, 40

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a training would take. Seconds are of this machine as busy as it was just now.

    Attributes
    ----------
    users, items, events : int
        As asked.
    memory_bytes, available_bytes : int
        The estimated peak, and what is free.
    fits : bool
        Whether the one is below the other.
    advice : str
        What would fit, where it does not; else empty.
    step : str
        The training step that runs.
    windows : int
        Of an epoch.
    windows_per_second : float
    judged_users : int
    reading_seconds : float
        Of a CSV file.
    splitting_seconds : float
        Split, ids to indices, baselines' counts, fingerprint; of the whole run.
    preparing_seconds : float
        Making the tables; of the whole run.
    epoch_seconds, validation_seconds : float
        Of one epoch.
    judging_seconds : float
        The test part, all systems, bootstrap.
    measured_share : float
        Size of the tables that were measured, against the asked ones.
    max_epochs : int
        As in the options.
    retraining_epochs : int
        Of the retraining, where these are the best.
    """

    users: int
    items: int
    events: int
    memory_bytes: int
    available_bytes: int
    fits: bool
    advice: str
    step: str
    windows: int
    windows_per_second: float
    judged_users: int
    reading_seconds: float
    splitting_seconds: float
    preparing_seconds: float
    epoch_seconds: float
    validation_seconds: float
    judging_seconds: float
    measured_share: float
    max_epochs: int
    retraining_epochs: int

    def total_seconds(self, epochs: int) -> float:
        """Return the time of a run whose training takes so many epochs, all of them the best."""
        trained = epochs * (self.epoch_seconds + self.validation_seconds)
        again = epochs * self.epoch_seconds * self.retraining_epochs / self.max_epochs
        around = self.reading_seconds + self.splitting_seconds + self.preparing_seconds
        return around + trained + again + self.judging_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping."""
        most = {"total_seconds_at_most": self.total_seconds(self.max_epochs)}
        return {**asdict(self), "total_seconds_one_epoch": self.total_seconds(1), **most}


def make_plan(
    num_users: int,
    num_items: int,
    num_events: int,
    options: Options,
    tell: Tell = lambda said: None,
) -> Plan:
    """Measure for some seconds, and plan.

    Parameters
    ----------
    num_users, num_items, num_events : int
        Of the log after cleaning.
    options : Options
    tell : callable
        Told in a word what is being measured.

    Raises
    ------
    RequestError
        No log has such sizes.
    MemoryNeededError
        Not even one step fits, or not the catalogue of an additive network: nothing can be
        measured.
    DeviceError
    """
    _check_sizes(num_users, num_items, num_events, options)
    needed, there = needed_bytes(num_users, num_items, num_events, options), available_bytes()
    fits = needed <= there
    advice = "" if fits else _advice(num_users, num_items, num_events, options, there)
    if _measured_bytes(num_items, num_events, options) > there:
        raise MemoryNeededError(
            f"--plan {num_users} {num_items} {num_events}: needs about {needed / 1e9:.1f} GB of "
            f"memory, and {there / 1e9:.1f} GB are free, too little to measure anything; {advice}"
        )
    with torch_threads(options.train.threads):
        tell("reading and splitting")
        reading = _reading_seconds(num_events)
        sample = _Sample.measure(num_users, num_items, num_events, options)
        tell("training steps")
        share = _table_share(num_users, num_items, options)
        tables = _Tables(
            num_users, num_items, num_events, share, _with_batches_of(options, sample.windows)
        )
        pace = tables.windows_per_second()
        tell("ranking")
        validation = tables.validation_seconds(sample.validated)
        judging = tables.judging_seconds(sample.judged)
    return Plan(
        num_users, num_items, num_events,
        memory_bytes=needed,
        available_bytes=there,
        fits=fits,
        advice=advice,
        step=tables.step_name,
        windows=sample.windows,
        windows_per_second=pace,
        judged_users=sample.judged,
        reading_seconds=reading,
        splitting_seconds=sample.seconds,
        preparing_seconds=tables.preparing_seconds * (2 if options.train.retrain else 1),
        epoch_seconds=sample.windows / pace,
        validation_seconds=validation,
        judging_seconds=judging,
        measured_share=share,
        max_epochs=options.train.max_epochs,
        retraining_epochs=options.retraining_epochs(options.train.max_epochs),
    )  # fmt: skip


@dataclass(frozen=True)
class _Sample:
    """What splitting a smaller log of the same proportions says about the whole one."""

    seconds: float
    windows: int
    validated: int
    judged: int

    @classmethod
    def measure(cls, users: int, items: int, events: int, options: Options) -> _Sample:
        share = min(1.0, SAMPLE_EVENTS / events)
        sizes = (max(2, round(each * share)) for each in (users, items, events))
        log = replace(_simulated_log(*sizes), source=f"--plan {users} {items} {events}")
        begun = time.perf_counter()
        windows, validated, judged = _split_and_encode(log, options)
        seconds = time.perf_counter() - begun
        grown = [round(each / share) for each in (windows, validated, judged)]
        return cls(seconds / share, *(max(1, each) for each in grown))


def _split_and_encode(log: InteractionLog, options: Options) -> tuple[int, int, int]:
    """Do what `fit` does with each event beside training and ranking."""
    split = split_log(log, options.protocol)
    log.fingerprint()  # of the checkpoint, and of the record
    log.fingerprint()
    windows = 0
    for part in (split.train, split.train_and_validation)[: 2 if options.train.retrain else 1]:
        vocabulary = Vocabulary.fit(part)
        sequences = Sequences.from_log(part, vocabulary)
        windows = windows or sequences.num_windows
    encode_cases(split.validation, log, vocabulary)
    encode_cases(split.test, log, vocabulary)
    baselines(part, vocabulary)
    item_counts(part, vocabulary)
    Sequences.from_log(log, vocabulary.with_users_of(log))
    return windows, len(split.validation), len(split.test)


class _Tables:
    """A network of the asked size, or of the largest that may be taken, and what it takes."""

    def __init__(self, users: int, items: int, events: int, share: float, options: Options) -> None:
        self.options, self.share = options, share
        active = max(2, int(users * min(1.0, HISTORY_EVENTS / events)))
        # The additive network has no rows of users: those without a history take nothing.
        additive = options.model.architecture == "additive"
        self.num_users = active if additive else max(2, round(users * share))
        self.num_items = max(options.train.num_targets + 1, round(items * share))
        begun = time.perf_counter()
        self.network = make_network(
            options.model, self.num_users, self.num_items, seed=options.train.seed
        ).to(torch_device(options.train.device))
        self.step = make_step(self.network, options.train)
        self.preparing_seconds = (time.perf_counter() - begun) / share
        self.step_name = type(self.step).__name__
        self.sequences = _histories(
            self.num_users, self.num_items, min(self.num_users, active), events / users
        )

    def windows_per_second(self) -> float:
        """Take steps for a while; return the median pace of its stretches."""
        stamps: list[tuple[float, int]] = []
        begun = time.perf_counter()

        def enough(progress: Progress) -> None:
            now, before = time.perf_counter() - begun, progress.epoch - 1
            stamps.append((now, before * progress.windows_in_epoch + progress.windows_done))
            if now > STEP_SECONDS and len(stamps) > STRETCHES:
                raise _EnoughError

        with contextlib.suppress(_EnoughError):
            train(
                self.network, self.sequences, self.options.train, num_epochs=1 << 40,
                step=self.step, on_progress=enough,
            )  # fmt: skip
        chosen = np.linspace(0, len(stamps) - 1, STRETCHES + 1).astype(int).tolist()
        marks = [stamps[place] for place in chosen]
        paces = [(w - v) / (u - t) for (t, v), (u, w) in pairwise(marks)]
        return float(statistics.median(paces))

    def validation_seconds(self, users: int) -> float:
        """Rank so many targets, and keep the best state."""
        begun = time.perf_counter()
        scorer = NetworkScorer(self.network)
        kept = {name: v.clone() for name, v in self.network.state_dict().items()}
        around = (time.perf_counter() - begun) / self.share
        del kept
        return around + users * self._seconds_a_user(scorer, 0)

    def judging_seconds(self, users: int) -> float:
        """Rank for all systems, draw the bootstrap, and read the attention."""
        top = max(self.options.protocol.cutoffs)
        counts = np.bincount(self.sequences.histories.values, minlength=self.num_items)
        popular = self._seconds_a_user(Popularity(counts), top)
        markov = self._seconds_a_user(Markov(self.sequences, counts), top)
        ours = self._seconds_a_user(NetworkScorer(self.network), top)
        twice = 2 if self.options.train.retrain else 1
        begun = time.perf_counter()
        some = self.sequences.histories.take(slice(0, PROFILE_WINDOWS))
        windows = last_items(some, self.options.model.window_length)
        attention_profile(self.network, windows)
        attention = time.perf_counter() - begun
        systems = twice + 3
        columns = systems * len(metric_names(self.options.protocol.cutoffs))
        a_user = twice * ours + 2 * popular + markov
        return users * a_user + attention + _bootstrap(users, columns)

    def _seconds_a_user(self, scorer: Scorer, top_k: int) -> float:
        """Rank a block of users; return the seconds of one, in the asked catalogue."""
        block = max(TRIES, BLOCK_BYTES // (4 * self.num_items))
        rows = np.flatnonzero(self.sequences.histories.lengths > 1)[:block]
        protocol = self.options.protocol
        seconds = []
        for part in np.array_split(rows, min(TRIES, len(rows))):
            cases = self._cases(part)
            begun = time.perf_counter()
            rank_targets(
                scorer, cases, self.num_items, filter_seen=protocol.filter_seen,
                ties=protocol.ties, top_k=top_k,
            )  # fmt: skip
            seconds.append((time.perf_counter() - begun) / len(part))
        return statistics.median(seconds) / self.share

    def _cases(self, users: npt.NDArray[np.int64]) -> Cases:
        """Ask for the last item of each user's history."""
        histories = self.sequences.histories.take(users)
        ends = np.repeat(histories.offsets[1:] - 1, histories.lengths)
        is_last = np.arange(len(histories.values)) == ends
        return Cases(users, histories.where(~is_last), histories.where(is_last))


class _EnoughError(Exception):
    """Enough steps were seen."""


def _reading_seconds(events: int) -> float:
    """Return the seconds that a CSV file of so many rows takes to be read, once begun with."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in (100, SAMPLE_EVENTS):
            path = Path(folder) / f"{rows}.csv"
            write_csv(_simulated_log(rows // 10, rows // 20, rows), path)
            begun = time.perf_counter()
            read_interactions(path)
            seconds.append(time.perf_counter() - begun)
    start, whole = seconds
    return start + whole * events / SAMPLE_EVENTS


def _bootstrap(users: int, columns: int) -> float:
    tried = min(users, SAMPLE_EVENTS)
    values = np.zeros((tried, columns))
    begun = time.perf_counter()
    bootstrap_means(values, resamples=RESAMPLES_TRIED)
    return (time.perf_counter() - begun) * RESAMPLES / RESAMPLES_TRIED * users / tried


def _drawn(
    users: int, items: int, events: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw users, ascending, and items of so many events; every user has one at least."""
    rng = np.random.default_rng(0)
    activity = np.cumsum(rng.lognormal(sigma=LENGTH_SPREAD, size=users))
    more = np.searchsorted(activity, rng.random(max(0, events - users)) * activity[-1])
    lengths = 1 + np.bincount(more, minlength=users)
    popularity = np.cumsum(np.arange(1, items + 1) ** -POPULARITY_EXPONENT)
    drawn = np.searchsorted(popularity, rng.random(lengths.sum()) * popularity[-1])
    return np.repeat(np.arange(users), lengths), rng.permutation(items)[drawn]


def _simulated_log(users: int, items: int, events: int) -> InteractionLog:
    who, what = _drawn(users, items, events)
    order = np.random.default_rng(1).permutation(len(who))
    return InteractionLog.from_columns(who[order], what[order], np.arange(len(who)))


def _histories(num_users: int, num_items: int, active: int, length: float) -> Sequences:
    """Simulate histories of ``active`` users, all over a table of ``num_users`` rows."""
    who, what = _drawn(active, num_items, max(2 * active, round(active * length)))
    lengths = np.zeros(num_users, dtype=np.int64)
    places = np.linspace(0, num_users - 1, active).astype(np.int64)
    lengths[places] = np.bincount(who, minlength=active)
    return Sequences(Ragged.from_lengths(what.astype(np.int32), lengths))


def _with_batches_of(options: Options, windows: int) -> Options:
    """Give the steps the size that they have where an epoch has so many windows."""
    if options.model.architecture == "paper":
        return options
    return options.with_(batch_size=step_positions(options.train, windows), min_steps=0)


def _table_share(users: int, items: int, options: Options) -> float:
    """Return how much of the tables the calibration makes."""
    d = options.model.embedding_dim
    if options.model.architecture == "additive":  # a step's cost grows with the whole catalogue
        return 1.0
    wanted = 4 * d * (2 * (users + 2 * items) + 4 * items)
    return min(1.0, min(TABLE_BYTES, available_bytes() / 2) / wanted)


def _measured_bytes(items: int, events: int, options: Options) -> int:
    """Estimate what a measurement needs that cannot be made smaller."""
    if options.model.architecture == "paper":  # its tables are made smaller
        return 0
    return needed_bytes(2, items, min(events, HISTORY_EVENTS), options)


def _advice(users: int, items: int, events: int, options: Options, there: int) -> str:
    """Say what would fit."""
    additive = options.model.architecture == "additive"
    step = math.lcm(2, options.model.heads) if additive else 2
    smaller = range(step, options.model.embedding_dim, step)
    fitting = bisect.bisect_right(
        smaller, there,
        key=lambda d: needed_bytes(users, items, events, options.with_(embedding_dim=d)),
    )  # fmt: skip
    if fitting:
        return f"embedding_dim = {smaller[fitting - 1]} would fit"
    return "no embedding_dim would fit; raise min_user_events or min_item_events"


def _check_sizes(users: int, items: int, events: int, options: Options) -> None:
    paper = options.model.architecture == "paper"
    fewest = options.train.num_targets + 1 if paper else 2
    if users < 2 or items < max(2, fewest) or events < max(2 * users, items):
        raise RequestError(
            f"--plan {users} {items} {events}: a log to train on has at least 2 users, {fewest} "
            "items and 2 events a user, and one of each item"
        )
    step, there = step_bytes(events, options), available_bytes()
    if step > there / 2:
        raise MemoryNeededError(
            f"one step with embedding_dim = {options.model.embedding_dim}, batch_size = "
            f"{options.train.batch_size} and window_length = {options.model.window_length} needs "
            f"about {step / 1e9:.1f} GB of memory, and {there / 1e9:.1f} GB are free, so that "
            "nothing can be measured; lower them"
        )
