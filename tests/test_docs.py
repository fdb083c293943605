"""Every command and snippet that a reader meets is run; made pages are as made; links lead on."""

import csv
import difflib
import re
import shlex
import tomllib
from pathlib import Path

import polars
import pytest
import typer
from benchmarks.rows import changed_options
from docs import generate

from attrec import cli
from attrec.config import Options
from tests.messy import transcript

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_PAGES = [*PAGES, *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
READ_ONLY_PAGES = {
    "api.md",
    "cli.md",
    "errors.md",
}  # signatures and usage lines, made from the code
RUN_ELSEWHERE = {"vectors.md"}  # with a PostgreSQL server: tests/test_vectors_page.py


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page):
    skipped = READ_ONLY_PAGES | RUN_ELSEWHERE
    return [] if page.name in skipped else BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(text):
    """Return the command lines of a block, without their remarks."""
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words for words in lines if words]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder as a reader has it: a log, titles, somebody else's recommendations."""
    log = [
        (user, (7 * user + 3 * step) % 29 + 1, 1_700_000_000 + 60 * step)
        for user in range(1, 61)
        for step in range(12)
    ]
    header = ("user", "item", "time")
    new = [(user, item, 1_800_000_000 + user) for user in (1, 2, 900) for item in (3, 4, 99)]
    tables = {
        "events.csv": [header, *log],
        "new.csv": [header, *new],
        "known.csv": [header, *log, *new],
        "newest.csv": [header, *((user, user % 29 + 1, 1_900_000_000) for user in range(1, 31))],
        "titles.csv": [
            ("item_id", "title", "shelf", "maker"),
            *((i, f"Film {i}", "a|b" if i % 2 else "b", f"m{i % 3}") for i in range(1, 30)),
        ],
        "theirs.csv": [
            ("user", "item", "rank"),
            *((u, (u + r) % 29 + 1, r) for u in range(1, 61) for r in range(1, 11)),
        ],
    }
    for file, rows in tables.items():
        with (tmp_path / file).open("w", newline="") as handle:
            csv.writer(handle).writerows(rows)
    vectors = {
        "item_id": list(range(1, 30)),
        "embedding": [[float(i % 2), i / 30] for i in range(1, 30)],
    }
    polars.DataFrame(vectors).write_parquet(tmp_path / "items.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(words, monkeypatch):
    """Run one command line; what cannot be run twice in a test is checked part by part."""
    match words:
        case ["pip", "install", *wanted]:
            packages = [word.split("[")[0] for word in wanted if not word.startswith(("-", "http"))]
            assert packages in (["torch"], ["attrec"])
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["attrec", "demo"]:
            pass  # run by tests/test_demo.py
        case ["attrec", *arguments]:
            monkeypatch.setattr("sys.argv", ["attrec", *arguments])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert stop.value.code == 0
        case _:
            pytest.fail(f"nobody checks the command {words}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_snippet_runs_in_the_order_of_its_page(page, folder, monkeypatch, capsys):
    for language, text in blocks(page):
        match language:
            case "bash":
                for words in commands(text.replace("YOUR_LOG.csv", "events.csv")):
                    check(words, monkeypatch)
            case "python":
                exec(compile(text, name(page), "exec"), {"__name__": "snippet"})
            case "toml":
                (folder / "options.toml").write_text(text)
                assert Options.of(None, folder / "options.toml").to_dict() != Options.of().to_dict()
                assert tomllib.loads(text)
            case _:
                # Transcripts are made by running their commands.
                assert language in ("text", "console"), (
                    f"{name(page)}: nobody runs a block of {language!r}"
                )
    assert "Traceback" not in capsys.readouterr().err


def test_the_readme_does_what_it_says(folder, capsys):
    (python,) = [text for language, text in blocks(ROOT / "README.md") if language == "python"]
    assert len([line for line in python.splitlines() if line.strip()]) <= 10
    found = {}
    exec(compile(python, "README.md", "exec"), found)
    out = capsys.readouterr().out
    assert "popularity" in out
    assert "leave-last-out" in out
    assert found["found"].rank == 5
    assert (folder / "model" / "manifest.json").exists()


@pytest.mark.parametrize("page", ALL_PAGES, ids=name)
def test_commands_named_in_the_text_exist(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    root = typer.main.get_command(cli.app)
    for mention in re.findall(r"`((?:attrec|make) [^`]+)`", text):
        words = mention.replace("…", "").split()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            continue
        command, rest = root, words[1:]
        while hasattr(command, "commands") and rest:
            assert rest[0] in command.commands, mention
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in rest if word.startswith("-")} <= known, mention


@pytest.mark.parametrize("page", ALL_PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{name(page)} links {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{name(page)} links {target}"


@pytest.mark.parametrize("page", generate.PAGES)
def test_made_pages_are_as_made(page):
    found = (ROOT / "docs" / page).read_text(encoding="utf-8")
    made = generate.page(page)
    changes = difflib.unified_diff(found.splitlines(), made.splitlines(), "kept", "made", "", "", 1)
    assert found == made, "make docs writes the pages again:\n" + "\n".join(changes)


def test_the_readmes_figures_are_those_of_the_result_files():
    found = (ROOT / "README.md").read_text(encoding="utf-8")
    assert found == generate.readme(), "make docs writes the figures again"


def test_a_row_measured_before_an_option_changed_says_so():
    options = Options.of("accurate")
    now = options.to_dict()
    assert changed_options({"config": now}, options) == {}
    then = {**now, "train": {**now["train"], "full_rate_steps": 25}}
    changed = changed_options({"config": then}, options)
    assert changed == {"full_rate_steps": (25, now["train"]["full_rate_steps"])}
    del then["train"]["full_rate_steps"]  # written before the option was there
    changed = changed_options({"config": then}, options)
    assert changed == {"full_rate_steps": (0, now["train"]["full_rate_steps"])}
    then = {**now, "train": {**now["train"]}}
    del then["train"]["min_steps"]  # an option that came as it is
    assert changed_options({"config": then}, options) == {}
    # nor does an option that means nothing to the architecture
    paper = Options.of("paper-sparse")
    assert changed_options({"config": paper.with_(full_rate_steps=25).to_dict()}, paper) == {}


def test_every_command_is_documented_with_all_its_options():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for path, command in generate._commands(typer.main.get_command(cli.app), ["attrec"]):
        section = page.split(f"## {' '.join(path)}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            assert all(f"`{o}" in section or f" {o} " in section for o in parameter.opts[-1:]
                       if o.startswith("--") and o != "--help")  # fmt: skip


def test_the_way_through_the_messy_log_ends_at_recommendations(tmp_path):
    steps = transcript(tmp_path)
    assert [code for _, _, code, _ in steps] == [2, 2, 0, 0, 2, 0, 0, 0, 0]
    assert not any("Traceback" in text for *_, text in steps)
    rows = (tmp_path / "lists.csv").read_text().splitlines()
    assert rows[0].startswith("user_id,rank,item_id")
    assert len(rows) > 300
