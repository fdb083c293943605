"""Every option, declared once.

The command line's flags, the TOML file's keys and the Python arguments all derive from the fields
of the four frozen classes below: a field carries its default, its range and its help text.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from attrec.errors import ConfigError, in_one_line

Architecture = Literal["paper", "additive"]
Aggregation = Literal["mean", "sum", "max", "min"]
Pairing = Literal["all", "one-to-one"]
Adagrad = Literal["full", "row-wise"]
SplitName = Literal["leave-last-out", "global-time"]
Ties = Literal["pessimistic", "optimistic", "item-order"]
OnBadRow = Literal["error", "skip"]
Duplicates = Literal["drop", "keep"]
Repeats = Literal["keep", "first", "last"]
Encoding = Literal["utf-8", "latin-1", "utf-16"]

MOST = 2**31 - 1
"""The largest whole number that an option or a cut-off may be: items are numbered by int32."""
_SHOWN = 80
"""Characters of a wrong value that an error shows."""
LARGEST = 1e30
"""The largest other number: a step computes in float32, which ends at 3e38."""


def _exactly(number: float) -> str:
    """Write a number so that it is read as the same one, as short as that allows.

    Examples
    --------
    >>> _exactly(1.0), _exactly(0.1), _exactly(0.1000001), _exactly(1000000)
    ('1', '0.1', '0.1000001', '1000000')
    """
    short = str(number) if isinstance(number, int) else f"{number:g}"
    return short if float(short) == number else repr(number)


@dataclass(frozen=True)
class Between:
    """A search space: all values from ``low`` to ``high``, evenly by size or by logarithm."""

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        """Write it as ``--search`` reads it."""
        return f"{_exactly(self.low)}..{_exactly(self.high)}{':log' if self.log else ''}"


@dataclass(frozen=True)
class Among:
    """A search space: one of these values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        """Write it as ``--search`` reads it."""
        return ",".join(str(v).lower() if isinstance(v, bool) else str(v) for v in self.values)


Space = Between | Among


def _option(
    default: Any,
    doc: str,
    *,
    low: float = -math.inf,
    high: float | None = None,
    even: bool = False,
    open_low: bool = False,
    of: Architecture | None = None,
    search: Space | Mapping[Architecture, Space] | None = None,
    settles: bool = False,
    came_as: Any = None,
) -> Any:
    """Declare a field: its default, its help text and the closed (or half-open) range it has.

    Without ``high`` it ends where the machine's types do: whole numbers at `MOST`, others at
    `LARGEST`.
    With ``of`` it has a meaning for that architecture alone. ``search`` is where ``attrec tune``
    looks for a better value; an option that ``settles`` how a training runs or is judged, and not
    what is learnt, is never searched. An option whose default was another one when it came names
    that one, ``came_as``: a training that kept its state then is told from one of today.
    """
    architectures = get_args(Architecture) if of is None else (of,)
    if high is None:
        high = MOST if type(default) is int else LARGEST
    spaces = search if isinstance(search, Mapping) else dict.fromkeys(architectures, search)
    limits = {
        "doc": doc, "low": low, "high": high, "even": even, "open_low": open_low, "of": of,
        "search": {name: space for name, space in spaces.items() if space is not None},
        "settles": settles, "came_as": came_as,
    }  # fmt: skip
    return field(default=default, metadata=limits)


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Return the fields' types; kept, since making them takes milliseconds."""
    return get_type_hints(kind)


@dataclass(frozen=True)
class Config:
    """What the groups of options share: checks of type and range, and TOML in and out."""

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check every field.

        Raises
        ------
        ConfigError
            A value has the wrong type or lies outside its range.
        """
        hints = _hints(type(self))  # type: ignore[arg-type]
        for spec in fields(self):
            value = _checked(self.section, spec.name, hints[spec.name], getattr(self, spec.name))
            _check_range(self.section, spec.name, value, dict(spec.metadata))
            object.__setattr__(self, spec.name, value)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Build from a mapping; an unknown name is an error that offers the nearest one."""
        names = [spec.name for spec in fields(cls)]
        for name in values:
            if name not in names:
                raise ConfigError(
                    f"[{cls.section}] has no option {name!r}; {_nearest(name, names)}"
                )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping of every option."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class ModelConfig(Config):
    """What the network is. Paper symbols are given in brackets."""

    section: ClassVar[str] = "model"

    architecture: Architecture = _option(
        "additive",
        "additive: attention over the whole history that stays a sum over its events, trained by a "
        "softmax over distances; paper: attention over a window, user factors, the hinge of (11)",
        settles=True,
    )
    embedding_dim: int = _option(
        128,
        "[d] size of every embedding; even",
        low=2,
        even=True,
        search={"paper": Among((50, 100, 150, 200)), "additive": Among((64, 128, 256))},
    )
    window_length: int = _option(
        200,
        "[L] most recent items that make the intent",
        low=1,
        search={"paper": Between(2, 20, log=True), "additive": Among((50, 100, 200))},
    )
    aggregation: Aggregation = _option(
        "mean",
        "how the attention's rows become one intent (6): mean, sum, max or min",
        of="paper",
    )
    long_term_weight: float = _option(
        0.2,
        "[ω] weight of the long-term distance in (10); the intent has 1 − ω",
        low=0,
        high=1,
        of="paper",
        search=Between(0.0, 0.8),
    )
    dropout: float = _option(
        0.4,
        "share of the projected queries' and keys' entries dropped in training; additive: of the "
        "events' embeddings'",
        low=0,
        high=0.99,
        search=Between(0.0, 0.6),
    )
    heads: int = _option(
        4,
        "heads of the attention, each with a map of its own",
        low=1,
        of="additive",
        search=Among((1, 2, 4, 8)),
    )
    blocks: int = _option(
        1,
        "transformer blocks that choose the attention's weights",
        low=0,
        of="additive",
        search=Among((1, 2, 3)),
    )
    tied_embeddings: bool = _option(
        True,
        "let an item have one row, as an event of a history and as a candidate; false gives it two",
        of="additive",
        search=Among((True, False)),
        came_as=False,
    )
    identity_maps: bool = _option(
        True,
        "let the heads' maps of the events begin as the identity, so that at first an event adds "
        "its item itself; false lets them begin as random numbers",
        of="additive",
        search=Among((True, False)),
        came_as=False,
    )
    item_categories: str | None = _option(
        None,
        "columns of the item file that say what an item is, by commas; learnt as a prior of the "
        "item vectors, for items with few events",
        of="additive",
        settles=True,
    )
    item_vectors: str | None = _option(
        None,
        "column of a Parquet item file with a vector for each item, from any model; such a prior "
        "too",
        of="additive",
        settles=True,
    )
    recent_popularity: bool = _option(
        True,
        "let what everybody takes at the moment count beside the intent, by as much as validation "
        "says (often not at all); needs times",
        of="additive",
        settles=True,
    )
    init_std: float = _option(
        0.001,
        "standard deviation of the embeddings at initialisation",
        low=0,
        open_low=True,
        of="paper",
    )

    def __post_init__(self) -> None:
        """Check every field, and that the heads share the embedding evenly."""
        super().__post_init__()
        if self.architecture == "additive" and self.embedding_dim % self.heads:
            step = math.lcm(2, self.heads)
            raise ConfigError(
                f"[model] embedding_dim = {self.embedding_dim}: must be a multiple of heads = "
                f"{self.heads}; take {-(-self.embedding_dim // step) * step}"
            )


@dataclass(frozen=True)
class TrainConfig(Config):
    """How the network is trained. Paper symbols are given in brackets."""

    section: ClassVar[str] = "train"

    num_targets: int = _option(
        3,
        "[T] future items each window predicts",
        low=1,
        of="paper",
        search=Between(1, 6),
    )
    margin: float = _option(
        0.3,
        "[γ] margin of the hinge in (11)",
        low=0,
        open_low=True,
        of="paper",
        search=Between(0.1, 1.0, log=True),
    )
    pairing: Pairing = _option(
        "all",
        "pairs of the hinge: all (the double sum of (11)) or one-to-one (the author's code)",
        of="paper",
    )
    l2: float = _option(
        0.0,
        "[λ] L2 penalty on the rows a step touches, W included",
        low=0,
        of="paper",
        search=Among((0.0, 1e-5, 1e-4, 1e-3, 1e-2)),
    )
    norm_clipping: bool = _option(
        True,
        "keep every row of X, V and U in the unit ball (12)",
        of="paper",
        search=Among((True, False)),
    )
    learning_rate: float = _option(
        0.008,
        "step size of AdamW, or of Adagrad (paper)",
        low=0,
        open_low=True,
        search={
            "paper": Between(0.01, 0.3, log=True),
            "additive": Between(0.001, 0.02, log=True),
        },
    )
    initial_accumulator: float = _option(
        0.05,
        "where Adagrad's sum of squared gradients starts",
        low=0,
        of="paper",
    )
    adagrad: Adagrad = _option(
        "full",
        "Adagrad's state for each entry of a table, or one number a row where memory is short",
        of="paper",
    )
    batch_size: int = _option(6400, "positions in a step, or windows (paper)", low=1)
    min_steps: int = _option(
        100,
        "steps of an epoch, at least: a small log is cut into smaller batches than batch_size",
        low=0,
        of="additive",
    )
    temperature: float = _option(
        0.05,
        "of the softmax over cosines, 1 − half the squared distance",
        low=0,
        open_low=True,
        of="additive",
        search=Between(0.03, 0.2, log=True),
    )
    weight_decay: float = _option(
        0.01,
        "weight decay of AdamW",
        low=0,
        of="additive",
        search=Between(0.001, 0.3, log=True),
    )
    averaging: float = _option(
        2.0,
        "epochs over which the weights that are judged and kept are averaged",
        low=0,
        of="additive",
    )
    warmup_steps: int = _option(
        200,
        "steps over which the learning rate rises to its full size",
        low=0,
        of="additive",
    )
    full_rate_steps: int = _option(
        1000,
        "steps after which the learning rate falls, in inverse proportion to the step; 0 keeps it",
        low=0,
        of="additive",
        came_as=0,
    )
    softmax_samples: int = _option(
        0, "items drawn for the softmax of a step, shared by its positions and corrected "
        "by log Q, where a catalogue is large; 0 takes the whole catalogue",
        low=0, high=1_000_000, of="additive",
    )  # fmt: skip
    label_smoothing: float = _option(
        0.1,
        "share of each target spread over all items",
        low=0,
        high=0.99,
        of="additive",
        came_as=0.0,
    )
    max_epochs: int = _option(20, "passes over all windows, at most", low=1, settles=True)
    patience: int = _option(
        5,
        "epochs without a better validation figure before training stops; 0 never stops",
        low=0,
        settles=True,
    )
    selection_metric: str = _option(
        "ndcg@10", "validation figure that chooses the best epoch", settles=True
    )
    retrain: bool = _option(
        True, "train once more, on train + validation, for the best number of epochs", settles=True
    )
    seed: int = _option(
        0,
        "seed of initialisation, shuffling, negatives and dropout",
        low=0,
        high=2**63 - 1,
        settles=True,
    )
    threads: int = _option(
        0, "CPU threads of PyTorch; 0 leaves its own choice", low=0, high=4096, settles=True
    )
    checkpoint_seconds: float = _option(
        60.0, "seconds between two checkpoints of a training", low=0, settles=True
    )
    device: str = _option(
        "cpu", "cpu, cuda, cuda:1, …; auto takes CUDA where it is there", settles=True
    )


@dataclass(frozen=True)
class ProtocolConfig(Config):
    """What is held out and how it is judged."""

    section: ClassVar[str] = "protocol"

    split: SplitName = _option(
        "leave-last-out",
        "leave-last-out (each user's last events) or global-time (one cut for everybody)",
    )
    held_out_events: int = _option(
        1, "leave-last-out: events of each user in the test part, and before them in validation",
        low=1,
    )  # fmt: skip
    test_fraction: float = _option(
        0.1, "global-time: share of all events, the latest, in the test part",
        low=0, high=0.5, open_low=True,
    )  # fmt: skip
    validation_fraction: float = _option(
        0.1, "global-time: share of all events, before those, in validation",
        low=0, high=0.5, open_low=True,
    )  # fmt: skip
    cutoffs: tuple[int, ...] = _option((10, 50), "lengths of the lists that are judged")
    filter_seen: bool = _option(True, "leave out of the ranking what the user took before")
    ties: Ties = _option(
        "pessimistic",
        "place of a target among equal distances: pessimistic, optimistic, item-order",
    )

    def __post_init__(self) -> None:
        """Check every field, and that the cut-offs are positive and rising."""
        super().__post_init__()
        if not self.cutoffs or any(not 1 <= k <= MOST for k in self.cutoffs):
            raise ConfigError(
                f"[protocol] cutoffs = {list(self.cutoffs)}: give one or more lengths of at least "
                f"1 and at most {MOST}"
            )
        object.__setattr__(self, "cutoffs", tuple(sorted(set(self.cutoffs))))

    @property
    def cut(self) -> tuple[str | int | float, ...]:
        """Return what cuts a log: the split, and those of the options that this split reads."""
        if self.split == "global-time":
            return (self.split, self.test_fraction, self.validation_fraction)
        return (self.split, self.held_out_events)


@dataclass(frozen=True)
class DataConfig(Config):
    """How a log is read and cleaned."""

    section: ClassVar[str] = "data"

    user: str | None = _option(
        None,
        "column of users (or sessions), by its name or number (the first is 1); known names are "
        "looked for",
    )
    item: str | None = _option(None, "column of items, by its name or number from 1")
    time: str | None = _option(
        None,
        "column of times, by its name or number from 1; without one the order of the rows counts",
    )
    rating: str | None = _option(None, "column of ratings, by its name or number from 1")
    min_rating: float | None = _option(
        None, "keep only events with at least this rating", high=math.inf
    )
    where: str | None = _option(
        None, "keep only rows for which this SQL condition holds, such as event = 'purchase'"
    )
    query: str | None = _option(None, "SQL query, where the log is a database")
    format: str | None = _option(None, "format of the file, where its name does not say it")
    header: bool | None = _option(None, "whether the first row names the columns")
    encoding: Encoding = _option("utf-8", "how text is written: utf-8, latin-1, utf-16")
    quotes: bool = _option(
        True, "CSV: quotation marks protect separators and line ends; off, they are plain text"
    )
    on_bad_row: OnBadRow = _option(
        "error", "a row that cannot be read: error (stop there) or skip (leave out, count, show)"
    )
    duplicates: Duplicates = _option(
        "drop", "events equal in user, item and time: drop all but the first, or keep"
    )
    repeats: Repeats = _option(
        "keep", "an item that a user takes again: keep, or merge into the first or the last time"
    )
    min_user_events: int = _option(
        1, "k-core: leave out users with fewer events, repeated with items until none is left",
        low=1,
    )  # fmt: skip
    min_item_events: int = _option(1, "k-core: leave out items with fewer events", low=1)
    cache: bool = _option(
        True, "keep the encoded log of large files and reuse it while they have not changed"
    )

    def __post_init__(self) -> None:
        """Check every field; a column's number is kept as text."""
        for name in ("user", "item", "time", "rating"):
            if _is_number(value := getattr(self, name), Integral):
                object.__setattr__(self, name, str(value))
        super().__post_init__()

    def uncut(self) -> DataConfig:
        """Return this without the k-core: of a few events beside a log it would leave none."""
        return replace(self, min_user_events=1, min_item_events=1)


_PAPER = {
    "architecture": "paper",
    "embedding_dim": 100,
    "window_length": 5,
    "dropout": 0.0,
    "learning_rate": 0.05,
    "batch_size": 1000,
    "max_epochs": 50,
    "patience": 10,
}
PRESETS: dict[str, dict[str, Any]] = {
    "accurate": {},
    "paper-sparse": {**_PAPER, "norm_clipping": True, "l2": 0.0},
    "paper-dense": {**_PAPER, "norm_clipping": False, "l2": 0.001},
}
"""Named settings: what differs from the fields' defaults."""

DEFAULT_PRESET = "accurate"


@dataclass(frozen=True)
class Options:
    """All options of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    data: DataConfig = field(default_factory=DataConfig)
    preset: str = DEFAULT_PRESET

    @classmethod
    def of(
        cls,
        preset: str | None = None,
        file: str | Path | None = None,
        **overrides: Any,
    ) -> Options:
        """Put a run's options together: defaults < preset < TOML file < ``overrides``.

        Parameters
        ----------
        preset : str, optional
            A name of :data:`PRESETS`; without one the file's ``preset``, or ``accurate``.
        file : path, optional
            A TOML file with the tables ``[model]``, ``[train]``, ``[protocol]`` and ``[data]``.
        **overrides
            Any option by its name, whichever table it is in.

        Raises
        ------
        ConfigError
            The preset, a table or an option is unknown, or a value is out of range.

        Examples
        --------
        >>> Options.of("paper-dense", window_length=9).model.window_length
        9
        """
        tables = _read_toml(Path(file)) if file is not None else {}
        chosen = preset or tables.pop("preset", None) or _preset_for(tables, overrides)
        tables.pop("preset", None)
        if not isinstance(chosen, str) or chosen not in PRESETS:
            raise ConfigError(f"no preset {chosen!r}; {_nearest(str(chosen), list(PRESETS))}")
        values: dict[str, dict[str, Any]] = {kind.section: {} for kind in _KINDS}
        for name, value in PRESETS[chosen].items():
            values[section_of(name)][name] = value
        for section, table in tables.items():
            if section not in values:
                raise ConfigError(
                    f"{file}: {section!r} is no table of options; {_nearest(section, list(values))}"
                )
            if not isinstance(table, dict):
                raise ConfigError(
                    f"{file}: {section} = {_shown(table)}: expected a table; write [{section}], "
                    "and its options in the lines below"
                )
            values[section].update(table)
        for name, value in overrides.items():
            values[section_of(name)][name] = value
        options = cls.from_dict({"preset": chosen, **values})
        given = [name for table in tables.values() for name in table] + list(overrides)
        _check_meaning(given, options.model.architecture)
        return options

    def to_toml(self, *named: str) -> str:
        """Write a file that `of` reads back: what differs from the preset, and the ``named``.

        What means nothing to the architecture is left out.

        Examples
        --------
        >>> print(Options.of("paper-dense", margin=0.5).to_toml("l2"))
        preset = "paper-dense"
        <BLANKLINE>
        [train]
        margin = 0.5
        l2 = 0.001
        <BLANKLINE>
        """
        usual = Options.of(self.preset).to_dict()
        meant = {spec.name for spec in option_specs() if spec.is_for(self.model.architecture)}
        lines = [f"preset = {_as_toml(self.preset)}"]
        for section, values in self.to_dict().items():
            if section == "preset":
                continue
            told = {
                name: value
                for name, value in values.items()
                if name in meant and (name in named or value != usual[section][name])
            }
            if told:
                lines += ["", f"[{section}]"]
                lines += [f"{name} = {_as_toml(value)}" for name, value in told.items()]
        return "\n".join([*lines, ""])

    def value(self, name: str) -> Any:
        """Return the value of an option by its name."""
        return getattr(getattr(self, section_of(name)), name)

    def with_(self, **overrides: Any) -> Options:
        """Return a copy with the given options, each by its name, changed."""
        changed: dict[str, dict[str, Any]] = {}
        for name, value in overrides.items():
            changed.setdefault(section_of(name), {})[name] = value
        # All of a table at once: two values may go together that neither does with the old other.
        parts: dict[str, Any] = {
            section: replace(getattr(self, section), **values)
            for section, values in changed.items()
        }
        return replace(self, **parts)

    def retraining_epochs(self, best: int) -> int:
        """Return how many epochs the training on train + validation takes; 0 without one.

        Examples
        --------
        >>> Options.of("accurate", retrain=False).retraining_epochs(40)
        0
        """
        return best if self.train.retrain else 0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping; ``Options.from_dict`` reads it back."""
        sections = {kind.section: getattr(self, kind.section).to_dict() for kind in _KINDS}
        return {"preset": self.preset, **sections}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Options:
        """Read what :meth:`to_dict` wrote."""
        parts: dict[str, Any] = {
            kind.section: kind.from_dict(values.get(kind.section, {})) for kind in _KINDS
        }
        return cls(**parts, preset=str(values.get("preset", DEFAULT_PRESET)))


_KINDS: tuple[type[Config], ...] = (ModelConfig, TrainConfig, ProtocolConfig, DataConfig)


@dataclass(frozen=True)
class OptionSpec:
    """One declared option, as the command line and the documentation need it."""

    name: str
    section: str
    kind: Any
    """Its type, without the None that stands for "not given"."""
    default: Any
    doc: str
    of: Architecture | None = None
    """The one architecture that it means something for; None for all."""
    search: Mapping[Architecture, Space] = field(default_factory=dict)
    """Where ``attrec tune`` looks for a better value, by architecture."""
    searchable: bool = False
    """Whether ``--search`` may name it, with a space where none is declared."""
    even: bool = False
    came_as: Any = None
    """Its default when it came, where that was another one."""

    def is_for(self, architecture: str) -> bool:
        """Answer whether it means something to that architecture."""
        return self.of in (None, architecture)


def option_specs() -> list[OptionSpec]:
    """List every declared option, in the order of the classes above."""
    return list(_specs())


@cache
def _specs() -> tuple[OptionSpec, ...]:
    return tuple(
        OptionSpec(
            spec.name,
            kind.section,
            _unwrapped(_hints(kind)[spec.name])[0],  # type: ignore[arg-type]
            spec.default if spec.default is not MISSING else None,
            _with_architecture(spec.metadata),
            spec.metadata["of"],
            spec.metadata["search"],
            kind in (ModelConfig, TrainConfig) and not spec.metadata["settles"],
            spec.metadata["even"],
            spec.metadata["came_as"],
        )
        for kind in _KINDS
        for spec in fields(kind)
    )


def section_of(name: str) -> str:
    """Return the table that declares option ``name``.

    Raises
    ------
    ConfigError
        No table has it; the nearest name is offered.
    """
    names = {spec.name: spec.section for spec in option_specs()}
    if name not in names:
        raise ConfigError(f"no option {name!r}; {_nearest(name, list(names))}")
    return names[name]


def _with_architecture(metadata: Mapping[str, Any]) -> str:
    return f"{'' if metadata['of'] is None else metadata['of'] + ': '}{metadata['doc']}"


def _preset_for(tables: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    """Return the preset where none was named: that of the architecture, where one was."""
    model = tables.get("model", {})
    named = model.get("architecture") if isinstance(model, dict) else None
    return "paper-sparse" if overrides.get("architecture", named) == "paper" else DEFAULT_PRESET


def _check_meaning(given: list[str], architecture: Architecture) -> None:
    """Refuse an option that would be ignored."""
    meant_for = {spec.name: spec.of for spec in option_specs()}
    for name in given:
        if meant_for[name] not in (None, architecture):
            raise ConfigError(
                f"option {name!r} means nothing to architecture = {architecture!r}; leave it out, "
                f"or take preset = {_preset_for({}, {'architecture': meant_for[name]})!r}"
            )


def chosen_options(
    options: Options | None,
    preset: str | None,
    file: str | Path | None,
    overrides: Mapping[str, Any],
) -> Options:
    """Return the options that are given all at once, or else those of `Options.of`.

    Raises
    ------
    ConfigError
        Both are given, or see `Options.of`.
    """
    if options is None:
        return Options.of(preset, file, **overrides)
    whole = {"preset": preset, "config_file": file}
    beside = {name: value for name, value in whole.items() if value is not None} | {**overrides}
    for name, value in beside.items():
        raise ConfigError(
            f"{name} = {value!r}: options are given all at once, too; leave out one of the two, or "
            "change an option by options.with_(…)"
        )
    return options


def names_given(file: str | Path | None, overrides: Mapping[str, Any]) -> set[str]:
    """Return the options that a TOML file and the overrides set, presets apart."""
    tables = _read_toml(Path(file)) if file is not None else {}
    return {n for t in tables.values() if isinstance(t, dict) for n in t} | set(overrides)


def identity_of(options: Options) -> dict[str, dict[str, Any]]:
    """Return what has to be equal for a training to go on, by the name of its table.

    Where and how often it is kept does not change what is learnt. Defaults are left out, as they
    were when the option came: an option that a later version adds makes no earlier training another
    one, and a default that a later version changes does.
    """
    usual = Options.of("paper-sparse").to_dict()
    for spec in option_specs():
        if spec.came_as is not None and spec.is_for(options.model.architecture):
            usual[spec.section][spec.name] = spec.came_as
    free = ("device", "threads", "checkpoint_seconds")
    return {
        f"options ([{section}])": {
            name: value
            for name, value in values.items()
            if name not in free and value != usual[section][name]
        }
        for section, values in options.to_dict().items()
        if section in ("model", "train", "protocol")
    }


def _as_toml(value: Any) -> str:
    """Write a text, number, truth value or list of them as TOML has it.

    Examples
    --------
    >>> _as_toml([1, 2]), _as_toml(True), _as_toml("a"), _as_toml(1e-05)
    ('[1, 2]', 'true', '"a"', '1e-05')
    """
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({in_one_line(error)}); name a TOML file"
        ) from error
    except ValueError as error:  # tomllib's own, of the encoding, of a number of 5,000 digits
        raise ConfigError(f"{path}: is not valid TOML ({error})") from error


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _unwrapped(kind: Any) -> tuple[Any, bool]:
    """Return the type without None, and whether None was among it."""
    choices = get_args(kind) if get_origin(kind) is UnionType else ()
    if NoneType not in choices:
        return kind, False
    return next(choice for choice in choices if choice is not NoneType), True


def _checked(section: str, name: str, kind: Any, value: Any) -> Any:
    """Return ``value`` as ``kind``, where that loses nothing."""
    kind, optional = _unwrapped(kind)
    if optional and value is None:
        return None
    wrong = ConfigError(f"[{section}] {name} = {_shown(value)}: expected {_kind_in_words(kind)}")
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise wrong
    if get_origin(kind) is tuple:
        if isinstance(value, list | tuple) and all(_is_number(k, Integral) for k in value):
            return tuple(int(k) for k in value)
        raise wrong
    if kind is int and _is_number(value, Integral):
        return int(value)
    if kind is float and _is_number(value, Real):
        with contextlib.suppress(OverflowError):  # a whole number beyond all floats
            if math.isfinite(value):
                return float(value)
    if type(value) is not kind or kind is float:
        raise wrong
    return value


def _is_number(value: Any, kind: type) -> bool:
    """Answer for Python's and NumPy's numbers alike; a truth value is none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _kind_in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return "a list of whole numbers"
    return {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}[
        kind
    ]


def _check_range(section: str, name: str, value: Any, limits: dict[str, Any]) -> None:
    if value is None or isinstance(value, bool | str | tuple):
        return
    low, high = limits["low"], limits["high"]
    too_low = value <= low if limits["open_low"] else value < low
    if too_low or value > high:
        relation = "above" if limits["open_low"] else "at least"
        # Where the machine's types end, and nothing else, is said to who goes beyond.
        upper = "" if too_low and high in (MOST, LARGEST) else f" and at most {high}"
        raise ConfigError(f"[{section}] {name} = {_shown(value)}: must be {relation} {low}{upper}")
    if limits["even"] and value % 2:
        raise ConfigError(
            f"[{section}] {name} = {value}: must be even (sine and cosine come in pairs (7, 8)); "
            f"take {value + 1}"
        )
