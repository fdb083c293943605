"""Plans: what they say, and that it grows with what is asked. Their truth is held by the soak."""

import json

import pytest

from attrec import cli, planning
from attrec.config import Options
from attrec.errors import DataError, MemoryNeededError, RequestError
from attrec.planning import make_plan


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(planning, "SAMPLE_EVENTS", 5000)
    monkeypatch.setattr(planning, "HISTORY_EVENTS", 20_000)
    monkeypatch.setattr(planning, "STEP_SECONDS", 0.05)
    monkeypatch.setattr(planning, "BLOCK_BYTES", 200_000)
    monkeypatch.setattr(planning, "RESAMPLES_TRIED", 2)


SMALL = Options.of("paper-sparse", embedding_dim=8, batch_size=100, max_epochs=4)


def test_a_plan_grows_with_the_log():
    small = make_plan(500, 200, 10_000, SMALL)
    large = make_plan(50_000, 20_000, 1_000_000, SMALL)
    for name in (
        "memory_bytes", "windows", "judged_users", "reading_seconds", "splitting_seconds",
        "epoch_seconds", "validation_seconds", "judging_seconds",
    ):  # fmt: skip
        assert 0 < getattr(small, name) < getattr(large, name), name
    assert small.fits
    assert small.advice == ""
    assert small.step in ("NativeStep", "FusedStep")
    # 500 users with 20 events each: two are held out, and the first of a history begins no window.
    assert small.windows == pytest.approx(500 * 17, rel=0.05)
    assert small.judged_users == pytest.approx(500, rel=0.05)


def test_options_count():
    plain = make_plan(500, 200, 10_000, SMALL)
    wide = make_plan(500, 200, 10_000, SMALL.with_(embedding_dim=128, aggregation="max"))
    assert wide.step == "PlainStep"
    assert wide.memory_bytes > plain.memory_bytes
    later = make_plan(500, 200, 10_000, SMALL.with_(split="global-time", test_fraction=0.01))
    assert later.judged_users < plain.judged_users
    once = make_plan(500, 200, 10_000, SMALL.with_(retrain=False))
    assert once.total_seconds(10) - once.total_seconds(9) == pytest.approx(
        once.epoch_seconds + once.validation_seconds
    )
    assert plain.total_seconds(10) - plain.total_seconds(9) == pytest.approx(
        2 * plain.epoch_seconds + plain.validation_seconds
    )


def test_tables_too_large_to_measure_are_measured_smaller(monkeypatch):
    monkeypatch.setattr(planning, "TABLE_BYTES", 100_000)
    plan = make_plan(5000, 2000, 20_000, SMALL)
    assert plan.measured_share == pytest.approx(100_000 / (4 * 8 * (2 * 9000 + 8000)))


def test_what_does_not_fit_is_said_with_what_would(monkeypatch):
    sizes = (5000, 2000, 20_000)
    there = planning.needed_bytes(*sizes, SMALL.with_(embedding_dim=32))
    monkeypatch.setattr(planning, "available_bytes", lambda: there)
    plan = make_plan(*sizes, SMALL.with_(embedding_dim=64))
    assert not plan.fits
    assert plan.advice == "embedding_dim = 32 would fit"
    assert make_plan(*sizes, SMALL.with_(embedding_dim=32)).fits
    monkeypatch.setattr(planning, "available_bytes", lambda: 50_000_000)
    assert "no embedding_dim would fit" in make_plan(500, 200, 10_000, SMALL).advice


def test_a_catalogue_that_fits_in_no_memory_is_not_made(monkeypatch):
    def never(*_arguments, **_options):
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr(planning, "_reading_seconds", never)
    monkeypatch.setattr(planning, "available_bytes", lambda: 40_000_000_000)
    with pytest.raises(
        MemoryNeededError, match=r"40\.0 GB are free, .*embedding_dim = 4 would fit"
    ):
        make_plan(1000, 100_000_000, 200_000_000, Options.of())
    with pytest.raises(MemoryNeededError, match="no embedding_dim would fit"):
        make_plan(1000, 10**9, 10**9, Options.of())


def test_users_of_the_additive_network_take_no_memory(monkeypatch):
    monkeypatch.setattr(planning, "available_bytes", lambda: 2_000_000_000)
    small = Options.of(embedding_dim=8, max_epochs=2, batch_size=64, window_length=10)
    plan = make_plan(3_000_000_000, 1000, 6_000_000_000, small)
    assert not plan.fits
    assert "no embedding_dim would fit" in plan.advice


def test_what_no_log_allows_is_said_of_the_plan():
    with pytest.raises(DataError, match="--plan 500 200 3000: no user can be judged"):
        make_plan(500, 200, 3000, SMALL.with_(held_out_events=50))


def test_a_step_that_fits_in_no_memory_is_not_tried():
    with pytest.raises(MemoryNeededError, match="one step with embedding_dim = 1000000"):
        make_plan(500, 200, 10_000, SMALL.with_(embedding_dim=1_000_000))


@pytest.mark.parametrize("sizes", [(1, 100, 100), (10, 3, 100), (100, 100, 150), (10, 100, 90)])
def test_sizes_of_no_log(sizes):
    with pytest.raises(RequestError, match="a log to train on"):
        make_plan(*sizes, SMALL)


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["attrec", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code, capsys.readouterr().out


def test_the_command_prints_a_plan(monkeypatch, capsys):
    asked = ["doctor", "--plan", 500, 200, 10_000, "--embedding-dim", 8, "--max-epochs", 7]
    code, out = command(monkeypatch, capsys, *asked)
    assert code == 0
    for words in ("10,000 events of 500 users and 200 items", "windows a second", "GB free",
                  "max_epochs = 7", "cannot be planned"):  # fmt: skip
        assert words in out
    code, out = command(monkeypatch, capsys, *asked, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["max_epochs"] == 7
    assert found["total_seconds_one_epoch"] < found["total_seconds_at_most"]


def test_a_plan_that_does_not_fit_is_information(monkeypatch, capsys):
    monkeypatch.setattr(planning, "available_bytes", lambda: 50_000_000)
    monkeypatch.setattr(planning, "TABLE_BYTES", 500_000)
    code, out = command(
        monkeypatch, capsys, "doctor", "--plan", 500, 200, 10_000, "--preset", "paper-sparse"
    )
    assert code == 0
    assert "does not fit" in out
    assert "of that size" in out
