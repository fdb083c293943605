import io

import pytest

import attrec
from attrec import cli, demo
from attrec.config import Options
from attrec.data.datasets import Dataset
from attrec.data.reading import write_csv
from attrec.screen import verbatim_console


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A demo on a tiny log whose items carry the made-up history's titles."""
    log = attrec.simulate("mixed", num_users=40, num_items=30, events_per_user=10, seed=2)
    write_csv(log, tmp_path / "log.csv")
    names = [
        *(f"{title} (1980)" for title in demo.MADE_UP_HISTORY),
        *(f"[/i] :100: {n}" for n in range(26)),
    ]
    lines = [f'{item},"{name}"' for item, name in enumerate(names)]
    (tmp_path / "titles.csv").write_text("item_id,title\n" + "\n".join(lines))
    data = Dataset("ml-100k", tmp_path / "log.csv", tmp_path / "titles.csv", "f" * 64)
    options = Options.of(embedding_dim=8, max_epochs=2, architecture="paper", init_std=0.3)
    monkeypatch.setattr(demo, "fetch", lambda name, echo: data)
    monkeypatch.setattr(demo.Options, "of", classmethod(lambda kind, **given: options))
    return tmp_path / "demo"


def shown(folder):
    screen = verbatim_console(file=io.StringIO(), width=140)
    demo.run(folder, screen)
    return screen.file.getvalue()


def test_the_demo_does_the_main_job_and_a_second_run_reuses_it(small, monkeypatch, capsys):
    text = shown(small)
    for words in (
        "popularity", "recent popularity", "Markov, first order", "Protocol: leave-last-out",
        "Somebody new", "Star Wars (1980)", "drawn near by", "training    epoch   1",
    ):  # fmt: skip
        assert words in text
    assert text.count("User ") == 3
    assert "at last: [/i] :100: " in text
    for name in ("training.png", "attention.png", "model/manifest.json"):
        assert (small / name).stat().st_size > 100
    seconds = attrec.load(small / "model").record["seconds"]
    assert seconds["reading"] > 1e-3  # of two files, and not of what `fit` was given

    again = shown(small)
    assert "Found the model of an earlier run" in again
    assert "epoch   1" not in again
    figures = next(line for line in text.splitlines() if line.startswith("attrec "))
    assert figures in again

    commands = [line.split()[1:] for line in again.splitlines() if line.startswith("  attrec ")]
    assert len(commands) == 3
    monkeypatch.chdir(small.parent)
    for command in commands[:2]:
        monkeypatch.setattr("sys.argv", ["attrec", *command])
        cli.app(standalone_mode=False)
        assert capsys.readouterr().out
    assert (small.parent / "recommendations.csv").exists()


def test_a_damaged_or_other_model_is_trained_again(small):
    shown(small)
    manifest = small / "model" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"demo_data"', '"other_data"'))
    assert "epoch   1" in shown(small)
    tables = next((small / "model").glob("tables-*"))
    tables.write_bytes(tables.read_bytes()[:-1] + b"?")
    assert "epoch   1" in shown(small)
