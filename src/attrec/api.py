"""The verbs: `fit` brings a log to a recommender, `evaluate` judges one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attrec.artifact import alone_in
from attrec.baselines import Markov, Popularity, item_counts, recent_item_counts
from attrec.calibration import CASES, Calibration, calibrate
from attrec.config import Options, ProtocolConfig, chosen_options, identity_of
from attrec.data.cases import Cases, encode_cases, validation_events
from attrec.data.features import ItemFeatures
from attrec.data.given import as_items, as_log, as_test
from attrec.data.interactions import IdArray, InteractionLog
from attrec.data.items import Items
from attrec.data.merging import merge_events
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences, last_items
from attrec.data.splits import HeldOut, Split, split_log
from attrec.data.vocabulary import Vocabulary
from attrec.errors import ConfigError, DeviceError
from attrec.evaluation.comparison import rank_in_lists, read_lists
from attrec.evaluation.evaluate import Evaluation, evaluate_systems
from attrec.evaluation.metrics import MISSED, per_user
from attrec.evaluation.ranking import Ranking, Scorer, rank_targets
from attrec.explain import attention_profile
from attrec.listeners import Listener, as_listener, told_the_end
from attrec.model.additive import AdditiveNetwork
from attrec.model.choice import Network, make_network
from attrec.model.prior import Attributes
from attrec.popularity import Moment, at_moment
from attrec.profiling import OFF, Profile
from attrec.recommender import Recommender
from attrec.retrieval.vectors import NetworkScorer
from attrec.training.checkpoint import Checkpointer, FirstTraining, TrainingRun
from attrec.training.memory import check_memory
from attrec.training.trainer import train

PROFILE_WINDOWS = 5000
"""Windows that the training report reads the attention from."""

WITHOUT_RETRAINING = "attrec, not retrained"


@dataclass(frozen=True, eq=False)
class Trained:
    """A network with the vocabulary it was trained over.

    ``calibration`` is what validation chose behind the training; None where it was not asked.
    """

    network: Network
    vocabulary: Vocabulary
    run: TrainingRun
    make_scorer: Callable[[Network], Scorer] = NetworkScorer
    calibration: Calibration | None = None

    def cases(self, held_out: HeldOut, log: InteractionLog) -> Cases:
        """Encode held-out users by this vocabulary."""
        return encode_cases(held_out, log, self.vocabulary)

    def ranking(
        self, split: Split, config: ProtocolConfig, catalogue: Vocabulary | None = None
    ) -> Ranking:
        """Rank the test targets in this vocabulary's catalogue.

        With ``catalogue`` the lists are numbered as that vocabulary numbers its items.
        """
        ranking = rank_targets(
            self.make_scorer(self.network),
            self.cases(split.test, split.log),
            self.vocabulary.num_items,
            filter_seen=config.filter_seen,
            ties=config.ties,
            top_k=max(config.cutoffs),
        )
        if catalogue is None:
            return ranking
        place = np.append(catalogue.encode_items(self.vocabulary.item_ids), -1).astype(np.int32)
        return Ranking(ranking.ranks, place[ranking.top_items])


@dataclass(frozen=True, eq=False)
class FitResult:
    """What `fit` returns.

    Attributes
    ----------
    recommender : Recommender
        The model to save and to ask.
    evaluation : Evaluation
        Test figures beside the baselines'; without the retraining too.
    validation_run : TrainingRun
        Every epoch of the training that was stopped early.
    best_epoch : int
        The epoch validation chose.
    counts : dict
        What the split held out, ties, users and items lost.
    attention : dict
        Entropy of the attention and its share of content; see `attention_profile`.
    """

    recommender: Recommender
    evaluation: Evaluation
    validation_run: TrainingRun
    best_epoch: int
    counts: dict[str, int | float]
    attention: dict[str, Any] = field(default_factory=dict)


def fit(
    log: InteractionLog | Any,
    *,
    preset: str | None = None,
    config_file: str | Path | None = None,
    options: Options | None = None,
    test: InteractionLog | Any | None = None,
    items: Items | str | Path | None = None,
    titles: Mapping[str, str | None] | None = None,
    listener: Listener | Iterable[Listener] | None = None,
    checkpoint: str | Path | None = None,
    profile: Profile = OFF,
    **overrides: Any,
) -> FitResult:
    """Bring an interaction log to a recommender, and say how good it is.

    The default protocol: train on the training part, stop early on validation, train once more on
    train + validation for the epochs found best, and only then look at the test part, once.

    Parameters
    ----------
    log : InteractionLog, path or frame
        Anything that `read_interactions` takes.
    preset, config_file, **overrides
        Options; see `Options.of`.
    options : Options, optional
        All options at once, in place of these: one or the other.
    test : InteractionLog, path or frame, optional
        A given test file; ``log`` is then the training file, and validation is each user's last
        event of it.
    items : Items or path, optional
        Titles and attributes of the items; `item_categories` and `item_vectors` say which of them
        are learnt from.
    titles : mapping, optional
        Title of an item by the text of its id; the item file's when left out.
    listener : Listener or several, optional
        Told about progress, and asked whether to stop; `attrec.callbacks` has some.
    checkpoint : path, optional
        Folder in which the training keeps where it stands, every ``checkpoint_seconds``. A call
        with the same data and options goes on from it, to the same bits. It stays when the
        training ended: remove it once the result is saved.
    profile : Profile, optional
        An `attrec.Profile`: times every phase.

    Returns
    -------
    FitResult

    Raises
    ------
    ConfigError, DataError, DeviceError
    MemoryNeededError
        The model cannot fit.
    TrainingError
        The loss is not finite, or a distance is NaN; the checkpoint keeps the last good state.
    InterruptedTraining
        The listener asked to stop; the checkpoint keeps the state.
    CheckpointError
        The checkpoint belongs to other data or options, or another training is at work there.
    """
    chosen = chosen_options(options, preset, config_file, overrides)
    told = as_listener(listener)
    check_metric(chosen.train.selection_metric)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = time.perf_counter()
        with profile.span(name):
            yield
        seconds[name] = time.perf_counter() - began

    with torch_threads(chosen.train.threads), told_the_end(told), alone_in(checkpoint):
        told.phase("splitting")
        with timed("reading"):
            events = as_log(log, chosen.data)
            given = as_test(test, chosen.data)
            known = as_items(items)
        with timed("splitting"):
            split = split_log(events, chosen.protocol, given)
            data = described(split)
            told.begin(chosen, data)
            check_memory(split.log.num_users, split.log.num_items, len(split.log), chosen)
            features = item_features(known, split.log.item_ids, chosen)
            keeper = make_checkpointer(checkpoint, split, chosen, told, profile, features)
        told.phase("training")
        with timed("training"):
            first = train_on(
                split.train, chosen, validate_on=split, listener=told, checkpointer=keeper,
                profile=profile, items=known,
            )  # fmt: skip
        last, best = first, first.run.best_epoch
        if chosen.train.retrain:
            told.phase("retraining")
            with timed("retraining"):
                last = retrain_on(
                    split, first, chosen, listener=told, checkpointer=keeper, profile=profile,
                    items=known,
                )  # fmt: skip
        told.phase("judging")
        with timed("judging"):
            before_test = split.train_and_validation if chosen.train.retrain else split.train
            systems: dict[str, Scorer | Ranking] = {"attrec": NetworkScorer(last.network)}
            if chosen.train.retrain:
                systems[WITHOUT_RETRAINING] = first.ranking(split, chosen.protocol, last.vocabulary)
            evaluation = evaluate_systems(
                {**systems, **baselines(before_test, last.vocabulary)},
                last.cases(split.test, split.log),
                chosen.protocol,
                item_counts(before_test, last.vocabulary),
                split.protocol,
            )
        told.judged(evaluation, best)
        with timed("assembling"):
            if titles is None and known is not None:
                titles = known.titles
            recommender = _recommender(last, split, chosen, titles, first.calibration)
            recommender.record["log_fingerprint"] = data["fingerprint"]
            if given is not None and events.timestamps is None:
                # As an update records the files without times that it took in.
                recommender.record["updates"] = [events.fingerprint(), given.fingerprint()]
            some = recommender.histories.histories.take(slice(0, PROFILE_WINDOWS))
            windows = last_items(some, chosen.model.window_length)
            attention = attention_profile(last.network, windows)
    recommender.record.update(
        trained_on="train + validation" if chosen.train.retrain else "train",
        given_test_file=test is not None,
        cleaning=[
            {"what": step.what, "removed": step.removed, "left": step.left}
            for step in split.log.steps
        ],
        best_epoch=best,
        step=last.run.step,
        epochs=[asdict(epoch) for epoch in first.run.epochs],
        seconds=_with_earlier(seconds, {"training": first.run, "retraining": last.run}),
        counts=split.counts,
        events_held=recommender.histories.num_events,
        attention=attention,
        item_categories=[] if features is None else list(features.names),
        item_vectors=None
        if features is None or features.scale is None
        else features.scale._asdict(),
        recent_popularity=[] if first.calibration is None else first.calibration.tried,
        test=evaluation.to_dict(),
    )
    return FitResult(recommender, evaluation, first.run, best, split.counts, attention)


def _with_earlier(
    seconds: Mapping[str, float], runs: Mapping[str, TrainingRun]
) -> dict[str, float]:
    """Count the time before a training was gone on from, too: its epochs know it."""
    of_epochs = {
        name: sum(epoch.train_seconds + epoch.validation_seconds for epoch in run.epochs)
        for name, run in runs.items()
    }
    return {name: max(took, of_epochs.get(name, 0.0)) for name, took in seconds.items()}


def evaluate(
    recommender: Recommender,
    log: InteractionLog | Any,
    *,
    test: InteractionLog | Any | None = None,
    compare: str | Path | None = None,
    with_baselines: bool = True,
    **overrides: Any,
) -> Evaluation:
    """Judge a recommender on the test part of a log, cut as it was for its training.

    Parameters
    ----------
    recommender : Recommender
    log : InteractionLog, path or frame
        The log it was trained on. Of another log, or of one that the options cut in another way,
        events that it was trained on may be judged: ``protocol`` says so then.
    test : InteractionLog, path or frame, optional
        A given test file. Of a model that has none of its events, nothing learnt is judged,
        whatever ``log`` is: a model that was updated can be held against one trained anew.
    compare : path, optional
        Anybody's recommendations, a file with user, item and rank; judged beside under the file's
        name, differences tested in pairs of users. UTF-8, or in ``encoding`` where that is given.
    with_baselines : bool
        Judge popularity, recent popularity and Markov too.
    **overrides
        Options of the protocol: ``cutoffs``, ``filter_seen``, ``ties``, ….

    Returns
    -------
    Evaluation

    Raises
    ------
    ConfigError, DataError
    TrainingError
        A distance is NaN: the training of the model diverged.
    """
    options = recommender.options.with_(**overrides)
    config = options.protocol
    given = as_test(test, options.data)
    split = split_log(as_log(log, options.data), config, given)
    vocabulary = recommender.vocabulary
    vocabulary.check_kinds(split.log)
    retrained = recommender.record.get("trained_on") != "train"
    before_test = split.train_and_validation if retrained else split.train
    cases = encode_cases(split.test, split.log, vocabulary)
    words = split.protocol
    another = _what_differs(recommender, split, config, given)
    if another and not (given is not None and _has_none_of(recommender, given)):
        words += f"; NOT the {another} of the training: test events may have been learnt from"
    network = recommender.network
    if isinstance(network, AdditiveNetwork):
        # The model knows the popularity up to now, the test part's own events included.
        known = Sequences.from_log(before_test, vocabulary)
        network = at_moment(network, known, recommender.moment)
    systems: dict[str, Scorer | Ranking] = {"attrec": NetworkScorer(network)}
    usual = baselines(before_test, vocabulary) if with_baselines else {}
    if compare is not None:
        # Not in the model's own encoding, which is its log's: its lists are written as UTF-8.
        lists = read_lists(compare, overrides.get("encoding", "utf-8"))
        users = split.log.user_ids[split.test.user_codes]
        compared = rank_in_lists(lists, cases, users, vocabulary, max(config.cutoffs))
        name = Path(compare).name
        while name in systems or name in usual:
            name += " (compared)"
        systems[name] = compared.ranking
        words += f"; {compared.in_words}"
    systems.update(usual)
    return evaluate_systems(systems, cases, config, item_counts(before_test, vocabulary), words)


def _what_differs(
    recommender: Recommender, split: Split, config: ProtocolConfig, given: InteractionLog | None
) -> str | None:
    """Say what is not as in the training: the ``log``, its ``cut``, the ``catalogue``; or None."""
    record = recommender.record
    fingerprint = record.get("log_fingerprint")
    if fingerprint is not None and fingerprint != split.log.fingerprint():
        return "log"
    now_given = given is not None
    # A test file is a cut of its own, whatever the options say.
    then = None if record.get("given_test_file", now_given) else recommender.options.protocol.cut
    if then != (None if now_given else config.cut):
        return "cut"
    # The keys of items that came in by an update are made of all their events.
    vocabulary = recommender.vocabulary
    return "catalogue" if vocabulary.num_items > vocabulary.num_trained_items else None


def _has_none_of(recommender: Recommender, log: InteractionLog) -> bool:
    """Answer whether no event of ``log`` is in the model; without times nobody can tell."""
    if recommender.histories.times is None or log.timestamps is None:
        return False
    vocabulary = recommender.vocabulary.with_users_of(log).with_items_of(log)
    return merge_events(recommender.histories, log, vocabulary).known == 0


def train_on(
    log: InteractionLog,
    options: Options,
    *,
    num_epochs: int | None = None,
    validate_on: Split | None = None,
    listener: Listener | None = None,
    network_class: type[Network] | None = None,
    make_scorer: Callable[[Network], Scorer] = NetworkScorer,
    checkpointer: Checkpointer | None = None,
    phase: str = "training",
    profile: Profile = OFF,
    moment: Moment | None = None,
    items: Items | None = None,
) -> Trained:
    """Train a network on all events of ``log``.

    Parameters
    ----------
    log : InteractionLog
    options : Options
    num_epochs : int, optional
        Exactly so many.
    validate_on : Split, optional
        Judge its validation users after each epoch; stop early and keep the best state.
    listener : Listener, optional
    network_class : type, optional
        A network with other equations than that of ``architecture``.
    make_scorer : callable
        How such a network is judged.
    checkpointer : Checkpointer, optional
        Keeps where the training stands; what it has of ``phase`` is gone on from.
    profile : Profile
        Times ``batches``, ``steps`` and ``validation``.
    moment : Moment, optional
        The popularity of the moment that a validation chose; reckoned anew from ``log``.
    items : Items, optional
        What ``item_categories`` and ``item_vectors`` are columns of.
    """
    told = listener or Listener()
    vocabulary = Vocabulary.fit(log)
    sizes, seed = (vocabulary.num_users, vocabulary.num_items), options.train.seed
    network: Network
    if network_class is None:
        features = item_features(items, vocabulary.item_ids, options)
        network = make_network(options.model, *sizes, seed=seed, attributes=numbers(features))
    else:
        network = network_class(options.model, *sizes, seed=seed)
    network = network.to(torch_device(options.train.device))
    if checkpointer is not None:
        stood = checkpointer.standing_of(phase)
        if stood is not None:
            told.going_on(*stood)
    sequences = Sequences.from_log(log, vocabulary)
    judge = None
    if validate_on is not None:
        cases = encode_cases(validate_on.validation, validate_on.log, vocabulary)

        def judge(network: Network) -> dict[str, float]:
            with profile.span("validation"):
                return _validation_figures(make_scorer(network), cases, network.num_items, options)

    if phase == "training" and checkpointer is not None and checkpointer.first is not None:
        network.load_state_dict(checkpointer.first.network)
        run = checkpointer.first.run
    else:
        run = train(
            network,
            sequences,
            options.train,
            num_epochs=num_epochs,
            validate=judge,
            on_progress=told.progress,
            on_epoch=told.epoch,
            checkpointer=checkpointer,
            phase=phase,
            profile=profile,
        )
    if checkpointer is not None and phase == "training":
        # Kept without an offset: what is chosen below is chosen again.
        checkpointer.first = FirstTraining(network.state_dict(), run)
    calibration = None
    if isinstance(network, AdditiveNetwork) and options.model.recent_popularity:
        if validate_on is not None:
            with profile.span("calibration"):
                events = validation_events(validate_on, vocabulary, CASES)
                calibration = calibrate(network, sequences, events, options)
            moment = calibration.moment
        network = at_moment(network, sequences, moment)
    return Trained(network, vocabulary, run, make_scorer, calibration)


def retrain_on(split: Split, first: Trained, options: Options, **more: Any) -> Trained:
    """Train anew, on train + validation, for the epochs that ``first`` found best.

    Parameters
    ----------
    split : Split
    first : Trained
        On the training part, stopped early.
    options : Options
    **more
        Of `train_on`.
    """
    return train_on(
        split.train_and_validation,
        options,
        num_epochs=options.retraining_epochs(first.run.best_epoch),
        moment=None if first.calibration is None else first.calibration.moment,
        phase="retraining",
        **more,
    )


def baselines(log: InteractionLog, vocabulary: Vocabulary) -> dict[str, Scorer]:
    """Make the three baselines that every report shows, from the events of ``log``."""
    counts = item_counts(log, vocabulary)
    return {
        "popularity": Popularity(counts),
        "recent popularity": Popularity(recent_item_counts(log, vocabulary), counts),
        "Markov, first order": Markov(Sequences.from_log(log, vocabulary), counts),
    }


def _validation_figures(
    scorer: Scorer, cases: Cases, num_items: int, options: Options
) -> dict[str, float]:
    ranks = rank_targets(
        scorer,
        cases,
        num_items,
        filter_seen=options.protocol.filter_seen,
        ties=options.protocol.ties,
    ).ranks
    names = [f"{name}@{k}" for name in ("hit_rate", "ndcg") for k in options.protocol.cutoffs]
    wanted = dict.fromkeys([options.train.selection_metric, *names, "mrr"])
    return {name: float(per_user(name, ranks).mean()) for name in wanted}


def _recommender(
    trained: Trained,
    split: Split,
    options: Options,
    titles: Mapping[str, str | None] | None,
    calibration: Calibration | None,
) -> Recommender:
    """Put model and the whole log's histories together: the newest event counts at once."""
    vocabulary = trained.vocabulary.with_users_of(split.log)
    histories = Sequences.from_log(split.log, vocabulary)
    moment = None if calibration is None else calibration.moment
    network = trained.network
    if isinstance(network, AdditiveNetwork):
        network = at_moment(network, histories, moment)
    return Recommender(network, vocabulary, histories, options, titles, moment=moment)


def item_features(items: Items | None, item_ids: IdArray, options: Options) -> ItemFeatures | None:
    """Return what the options say shall be learnt from of the items' attributes.

    Raises
    ------
    ConfigError
        There is no such column, or no item file.
    """
    columns, vector = options.model.item_categories, options.model.item_vectors
    if columns is None and vector is None:
        return None
    if items is None:
        name = "item_vectors" if columns is None else "item_categories"
        raise ConfigError(
            f"{name} = {columns or vector!r}: name the item file with that column too"
        )
    return ItemFeatures.of(items, item_ids, columns, vector)


def numbers(features: ItemFeatures | None) -> Attributes | None:
    """Return what a network takes of the attributes."""
    if features is None:
        return None
    categories = features.categories
    return Attributes(len(features.names), categories.values, categories.offsets, features.vectors)


def make_checkpointer(
    folder: str | Path | None,
    split: Split,
    options: Options,
    told: Listener,
    profile: Profile = OFF,
    features: ItemFeatures | None = None,
) -> Checkpointer | None:
    """Return what keeps the training of ``split`` under ``options`` in ``folder``, if there is one.

    Raises
    ------
    CheckpointError, ArtifactError
        The folder holds something else.
    """
    if folder is None:
        return None
    identity = {
        "data": split.log.fingerprint(),
        "parts": hashlib.sha256(
            b"".join(
                held.user_codes.tobytes() + held.targets.values.tobytes()
                for held in (split.validation, split.test)
            )
        ).hexdigest(),
        **({} if features is None else {"attributes of items": features.digest()}),
        **identity_of(options),
    }
    return Checkpointer(
        folder, identity, options.train.checkpoint_seconds, told.stop_requested, profile
    )


def described(split: Split) -> dict[str, Any]:
    """Return what a listener is told of the data."""
    log = split.log
    return {
        "source": log.source,
        "events": len(log),
        "users": log.num_users,
        "items": log.num_items,
        "fingerprint": log.fingerprint(),
        "protocol": split.protocol,
    }


def check_metric(name: str) -> None:
    """Raise unless a validation figure has this name.

    Raises
    ------
    ConfigError
    """
    per_user(name, Ragged.from_lists([[MISSED]], dtype=np.int64))


def torch_device(name: str) -> torch.device:
    """Return the device of that name.

    Raises
    ------
    DeviceError
        It is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(
            f"device = {name!r} is none that PyTorch knows; take cpu, cuda or auto"
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(
            f"device = {name!r} is none that AttRec trains on; take cpu, cuda or auto"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"device = {name!r} was asked for and PyTorch {torch.__version__} sees no CUDA device; "
            "take device = cpu, or install a CUDA build of PyTorch"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device = {name!r} was asked for and there are {torch.cuda.device_count()} CUDA "
            "devices, counted from 0; take one of them"
        )
    return device


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads; 0 leaves its own choice."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
