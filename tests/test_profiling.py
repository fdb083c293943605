"""Profiles by hand, with a clock that the tests move."""

import json

import numpy as np
import pytest

import attrec
from attrec import profiling
from attrec.errors import RequestError
from attrec.profiling import OFF, Profile


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def blocks(profile):
    return profile.trace()["traceEvents"]


def test_spans_add_up_by_their_place_in_the_tree(clock):
    profile = Profile(clock)
    with profile.span("reading"):
        clock.pass_by(2.0)
    for _ in range(3):
        with profile.span("training"):
            clock.pass_by(0.5)
            with profile.span("steps"):
                clock.pass_by(1.0)
    clock.pass_by(0.5)
    with profile.span("training"), profile.span("validation"):
        clock.pass_by(3.0)
    found = {phase.path: phase for phase in profile.phases()}
    assert list(found) == [
        ("reading",), ("training",), ("training", "steps"), ("training", "validation"),
    ]  # fmt: skip
    assert profile.seconds == 10.0
    assert [found["training",].seconds, found["training",].count] == [7.5, 4]
    assert [found["training", "steps"].seconds, found["training", "steps"].count] == [3.0, 3]
    assert found["training",].share == 0.75
    assert sum(phase.seconds for path, phase in found.items() if len(path) == 1) == 9.5
    assert profile.seconds_of("steps", "validation") == 6.0


def test_a_part_met_late_stands_below_its_whole(clock):
    profile = Profile(clock)
    for whole, part in (("a", "x"), ("b", "x"), ("a", "y")):
        with profile.span(whole), profile.span(part):
            clock.pass_by(1.0)
    paths = ["/".join(phase.path) for phase in profile.phases()]
    assert paths == ["a", "a/x", "a/y", "b", "b/x"]


def test_each_times_the_waiting_and_not_the_work(clock):
    def slow():
        for number in range(3):
            clock.pass_by(1.0)
            yield number

    profile = Profile(clock)
    with profile.span("all"):
        for _ in profile.each("waiting", slow()):
            clock.pass_by(10.0)
    assert profile.seconds_of("waiting") == 3.0
    assert profile.seconds_of("all") == 33.0


def test_a_span_that_fails_ends_too(clock):
    profile = Profile(clock)
    with pytest.raises(ValueError, match="no"), profile.span("a"), profile.span("b"):
        clock.pass_by(1.0)
        raise ValueError("no")
    with profile.span("c"):
        clock.pass_by(1.0)
    assert [phase.path for phase in profile.phases()] == [("a",), ("a", "b"), ("c",)]


def test_the_trace_has_what_the_format_asks_for(clock, tmp_path):
    profile = Profile(clock)
    with profile.span("training"):
        for _ in range(4):
            with profile.span("steps"):
                clock.pass_by(0.25)
    profile.count("windows", 7)
    profile.count("windows", 3)
    profile.write(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert {block["name"]: block["ph"] for block in trace["traceEvents"]} == {
        "steps": "X", "training": "X",
    }  # fmt: skip
    for block in trace["traceEvents"]:
        assert {"name", "ph", "ts", "dur", "pid", "tid", "args"} == set(block)
    (whole,) = [block for block in trace["traceEvents"] if block["name"] == "training"]
    assert [whole["ts"], whole["dur"]] == [0.0, 1e6]
    assert trace["otherData"]["windows"] == 10
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


def test_a_file_that_cannot_be_written_leaves_nothing(clock, tmp_path):
    (tmp_path / "trace.json").mkdir()
    with pytest.raises(RequestError, match=r"trace\.json"):
        Profile(clock).write(tmp_path / "trace.json")
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


def work(profile, clock, rng, steps):
    """Epochs of short steps and batches, some long ones, and a validation with parts."""
    with profile.span("training"):
        for step in range(steps):
            with profile.span("batches"):
                clock.pass_by(rng.random() * 0.002)
            with profile.span("steps"):
                clock.pass_by(rng.random() * 0.01)
            clock.pass_by(rng.random() * 0.001)
            if step % 700 == 699:
                with profile.span("validation"):
                    clock.pass_by(0.01)
                    with profile.span("ranking"):
                        clock.pass_by(0.1)


def test_a_long_work_has_a_short_trace_and_no_time_is_lost(clock):
    profile = Profile(clock)
    work(profile, clock, np.random.default_rng(0), 30_000)
    drawn = blocks(profile)
    assert len(drawn) < 10_000
    for name in ("batches", "steps", "validation", "ranking", "training"):
        mine = [block for block in drawn if block["name"] == name]
        assert sum(b["dur"] for b in mine) / 1e6 == pytest.approx(profile.seconds_of(name))
    assert sum(b["args"]["spans"] for b in drawn if b["name"] == "steps") == 30_000


def test_blocks_lie_within_one_another_or_apart(clock):
    profile = Profile(clock)
    work(profile, clock, np.random.default_rng(1), 3000)
    stack = []
    for block in sorted(blocks(profile), key=lambda b: (b["ts"], -b["dur"])):
        begun, ended = block["ts"], block["ts"] + block["dur"]
        while stack and stack[-1] <= begun + 1e-3:
            stack.pop()
        assert not stack or ended <= stack[-1] + 1e-3
        stack.append(ended)


def test_a_trace_has_an_end(clock, monkeypatch):
    monkeypatch.setattr(profiling, "MOST_EVENTS", 50)
    profile = Profile(clock)
    for _ in range(80):
        with profile.span("epoch"), profile.span("steps"):
            clock.pass_by(1.0)
    assert len(blocks(profile)) == 50
    assert profile.trace()["otherData"]["blocks_left_out"] == 110
    assert profile.seconds_of("epoch") == 80.0


def test_off_passes_everything_on_and_keeps_nothing():
    with OFF.span("anything"), OFF.span("nested"):
        assert list(OFF.each("things", [1, 2])) == [1, 2]
        OFF.count("windows", 5)
    assert OFF.phases() == []
    assert OFF.counts == {}
    assert blocks(OFF) == []


@pytest.fixture(scope="module")
def log():
    return attrec.simulate("mixed", num_users=60, num_items=40, events_per_user=12, seed=2)


OPTIONS = {
    "embedding_dim": 8,
    "max_epochs": 3,
    "batch_size": 64,
    "architecture": "paper",
    "init_std": 0.3,
}


def test_a_fit_is_timed_in_all_its_phases_and_learns_the_same_bits(log, tmp_path):
    profile = Profile()
    timed = attrec.fit(
        log, profile=profile, checkpoint=tmp_path / "kept", checkpoint_seconds=0.0, **OPTIONS
    )
    whole = profile.seconds
    plain = attrec.fit(log, **OPTIONS)
    for ours, theirs in zip(
        timed.recommender.network.parameters(), plain.recommender.network.parameters(), strict=True
    ):
        assert ours.equal(theirs)
    found = {phase.path: phase for phase in profile.phases()}
    outermost = [path for path in found if len(path) == 1]
    assert [path[0] for path in outermost] == [
        "reading", "splitting", "training", "retraining", "judging", "assembling",
    ]  # fmt: skip
    windows = 60 * (12 - 2 - 1)
    steps = 3 * -(-windows // 64)
    assert found["training", "steps"].count == steps
    assert found["training", "batches"].count == steps + 3  # and the end of each epoch
    assert found["training", "validation"].count == 3
    assert found["training", "checkpoints"].count == steps
    assert profile.counts["windows"] == 3 * windows + timed.best_epoch * 60 * (12 - 1 - 1)
    together = sum(found[path].seconds for path in outermost)
    assert 0.5 * whole <= together <= whole  # a busy machine takes its time between phases too
    for path, phase in found.items():
        parts = sum(found[p].seconds for p in found if p[:-1] == path)
        assert parts <= phase.seconds + 1e-6
