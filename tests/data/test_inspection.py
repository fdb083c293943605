"""What is told of a log, by hand; the picture; the command."""

import json
import sys

import pytest

import attrec
from attrec import cli
from attrec.config import ProtocolConfig
from attrec.data.inspection import inspect_log
from attrec.data.interactions import InteractionLog
from attrec.pictures import draw_log

DAY = 86400.0
START = 1_700_000_000.0


@pytest.fixture
def log():
    rows = [
        ("a", "x", 0), ("a", "y", 1), ("a", "x", 1), ("a", "z", 5),
        ("b", "x", 2), ("b", "y", 3), ("b", "w", 3),
        ("c", "x", 4),
    ]  # fmt: skip
    users, items, days = zip(*rows, strict=True)
    return InteractionLog.from_columns(users, items, [START + DAY * day for day in days])


def test_the_figures_by_hand(log):
    found = inspect_log(log, ProtocolConfig())
    assert (found.events, found.users, found.items) == (8, 3, 4)
    assert found.density == pytest.approx(7 / 12)
    assert found.repeat_share == pytest.approx(1 / 8)
    assert found.history_lengths["least"] == 1
    assert found.history_lengths["median"] == 3
    assert found.history_lengths["most"] == 4
    assert found.item_counts["most"] == 4
    assert found.head_shares == {"1%": 0.5, "10%": 0.5, "50%": 0.75}
    assert found.tied_events == 2
    assert found.tied_last_share == pytest.approx(1 / 3)
    assert (found.first, found.last) == ("2023-11-14", "2023-11-19")
    assert found.gaps["most"] == 4 * DAY
    assert found.losses["users judged"] == 2
    assert found.losses["users not judged"] == 1
    assert found.losses["targets that training never sees"] == 2
    options = {each.option: each.value for each in found.suggestions}
    assert options == {"preset": "accurate", "window_length": 200, "filter_seen": "false"}
    assert json.loads(json.dumps(found.to_dict()))["users"] == 3


def test_a_log_without_times_and_a_split_that_cannot_be():
    untimed = InteractionLog.from_columns([1, 1, 2], [5, 6, 5])
    found = inspect_log(untimed, ProtocolConfig(split="global-time"))
    assert found.first is None
    assert found.gaps == {}
    assert "not possible" in found.losses["split"]
    assert (
        inspect_log(InteractionLog.from_columns([1, 2], [5, 6], [1, 2]), ProtocolConfig()).gaps
        == {}
    )


def test_a_time_of_no_year_is_told_as_it_is():
    log = InteractionLog.from_columns([1, 1, 2], [5, 6, 5], [-9e10, START, 1e20])
    found = inspect_log(log, ProtocolConfig())
    assert (found.first, found.last) == ("-90000000000 s", "100000000000000000000 s")


def test_the_picture_and_the_command(tmp_path, monkeypatch, capsys):
    log = attrec.simulate("mixed", num_users=80, num_items=40, events_per_user=20, seed=2)
    path = tmp_path / "log.csv"
    attrec.data.reading.write_csv(log, path)
    found = inspect_log(log, ProtocolConfig())
    assert draw_log(found, tmp_path / "a.png").stat().st_size > 5000

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["attrec", "data", "inspect", *map(str, arguments)])
        cli.app(standalone_mode=False)
        return capsys.readouterr().out

    text = run(path, "--picture", tmp_path / "b.png")
    assert "try window_length = 200" in text
    assert "Next: attrec train" in text
    assert (tmp_path / "b.png").exists()
    assert json.loads(run(path, "--json"))["events"] == 1600
