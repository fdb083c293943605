"""The command line as a user meets it: what is printed, what is written, what a mistake gets."""

import csv
import json
import re
import shutil
import time
import tomllib
from pathlib import Path

import duckdb
import numpy as np
import pytest
from filelock import FileLock

import attrec
from attrec import cli
from attrec.artifact import LOCK
from attrec.cli import training
from attrec.cli.arguments import listed_items
from attrec.config import option_specs
from attrec.data.reading import write_csv
from attrec.data.vocabulary import Vocabulary
from tests.closed import closed

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PROJECT = Path(__file__).parents[1] / "pyproject.toml"
FAST = [
    "--embedding-dim",
    "8",
    "--max-epochs",
    "2",
    "--batch-size",
    "64",
    "--architecture",
    "paper",
    "--init-std",
    "0.3",
]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line; returns (exit code, standard output, standard error)."""

    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["attrec", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return command


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A log, its titles and a model trained on it."""
    folder = tmp_path_factory.mktemp("cli")
    log = attrec.simulate("mixed", num_users=50, num_items=40, events_per_user=10, seed=1)
    write_csv(log, folder / "log.csv")
    with (folder / "titles.csv").open("w") as file:
        file.write("item_id,title\n" + "".join(f"{i},Film {i}\n" for i in range(40)))
    titles = attrec.read_item_titles(folder / "titles.csv")
    options = {
        "embedding_dim": 8,
        "max_epochs": 2,
        "batch_size": 64,
        "architecture": "paper",
        "init_std": 0.3,
    }
    result = attrec.fit(folder / "log.csv", titles=titles, **options)
    result.recommender.save(folder / "model")
    return folder


MARKUP = ("Foo [/bar]", "[red]i2[/red]", ":100:", "NEW,1", '6" pipe, A', "[bold]", "i6")
"""Item ids that Rich would take for markup or emoji, and two with commas."""
MARKUP_USERS = ("[bold]", "[/u]", ":smile:", *(f"[red]u{n}[/red]" for n in range(5)))


@pytest.fixture(scope="module")
def markup(tmp_path_factory):
    """A folder, log, titles, another's lists and a model whose names all look like markup."""
    folder = tmp_path_factory.mktemp("cli") / "[i]work"
    folder.mkdir()
    rows = [
        (user, MARKUP[(n + step) % 7], 1_700_000_000 + 60 * step)
        for n, user in enumerate(MARKUP_USERS)
        for step in range(4)
    ]
    tables = {
        "[red]log.csv": [("user", "item", "time"), *rows],
        "new.csv": [("user", "item", "time"), ("[/u]", "[/new]", 1_800_000_000)],
        "titles.csv": [("item_id", "title"), *((item, f"{item} [/t]") for item in MARKUP[:4])],
        "[bold]their.csv": [("user", "item", "rank"), *((u, MARKUP[0], 1) for u in MARKUP_USERS)],
    }
    for name, table in tables.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(table)
    titles = attrec.read_item_titles(folder / "titles.csv")
    options = {"embedding_dim": 4, "max_epochs": 1, "architecture": "paper", "init_std": 0.3}
    result = attrec.fit(folder / "[red]log.csv", titles=titles, **options)
    result.recommender.save(folder / "[b]model")
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["recommend", "[b]model", "[bold]", "--include-seen"],
         (*MARKUP, "Foo [/bar] [/t]", "[red]i2[/red] [/t]")),
        (["recommend", "[b]model", "[bold]", "[/u]"], ("[bold]", "[/u]", "Foo [/bar] [/t]")),
        (["recommend", "[b]model", "--all", "--out", "[red]all.csv"], ("[red]all.csv: ",)),
        (["recommend", "[b]model", "[bold]", "[/u]", ":smile:", "--together", "--include-seen"],
         ("[bold]", "[/u]", ":smile:", "Foo [/bar] [/t]")),
        (["similar", "[b]model", "[bold]"], ("Foo [/bar] [/t]", ":100:", ":100: [/t]")),
        (["audience", "[b]model", "[bold]", "--include-taken"], MARKUP_USERS),
        (["explain", "[b]model", "Foo [/bar]", "--user", "[bold]", "--versus", ":100:"],
         ("Foo [/bar] [/t] [Foo [/bar]]", ":100: [/t] [:100:]")),
        (["info", "[b]model"], ("[b]model  (",)),
        (["evaluate", "[b]model", "[red]log.csv", "--compare", "[bold]their.csv", "--slices"],
         ("[bold]their.csv",)),
        (["data", "inspect", "[red]log.csv"],
         ("[red]log.csv: 32 events", "Next: attrec train '[red]log.csv'")),
        (["data", "simulate", "--out", "[b]made.csv", "--users", "9"], ("'[b]made.csv'",)),
        (["train", "[red]log.csv", "--out", "[u]trained", "--items", "titles.csv", *FAST],
         ("[red]log.csv: 32", "Saved to [u]trained", "recommend '[u]trained' :smile:")),
        (["update", "[b]model", "new.csv", "--out", "[u]up"], ("Saved to [u]up",)),
        (["forget", "[b]model", "[red]u0[/red]", "--out", "[u]less"], ("Saved to [u]less",)),
        (["report", "[b]model", "--out", "[u]page.html"], ("[u]page.html: ",)),
        (["export", "[b]model", "--out", "[u]vectors"], ("[u]vectors: 7 items",)),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else "",
)  # fmt: skip
@pytest.mark.parametrize("terminal", [False, True])
def test_names_that_look_like_markup_are_shown_as_they_are(
    run, markup, monkeypatch, arguments, words, terminal
):
    monkeypatch.chdir(markup)
    if terminal:  # where the spinners and the bar run too
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "200")
    code, out, err = run(*arguments)
    assert code == 0, err
    shown = ANSI.sub("", out)
    for word in words:
        assert word in shown
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["recommend", "[/b]"], ["[/b]"]])
def test_a_mistake_that_looks_like_markup_is_told_as_it_is(run, words):
    code, _, err = run(*words)
    assert code == 2
    assert "[/b]" in err


def listed(run, *arguments):
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return [row["item_id"] for row in json.loads(out)]


def test_ids_with_commas_are_named_in_quotes_as_in_csv(run, markup, monkeypatch):
    monkeypatch.chdir(markup)
    ask = ("recommend", "[b]model", "[bold]", "--include-seen")
    assert set(listed(run, *ask, "--allow", '"NEW,1", i6,:100:')) == {"NEW,1", "i6", ":100:"}
    assert set(listed(run, *ask, "--deny", '"NEW,1","6"" pipe, A"')) == (
        set(MARKUP) - {"NEW,1", MARKUP[4]}
    )
    assert "NEW,1" not in listed(run, *ask[:3], "--like", '"NEW,1"')
    history = ("recommend", "[b]model", "--history", '"NEW,1",i6')
    assert not {"NEW,1", "i6"} & set(listed(run, *history))
    events = run("explain", "[b]model", ":100:", "--history", '"NEW,1",i6', "--json")[1]
    assert [event["item_id"] for event in json.loads(events)["events"]] == ["NEW,1", "i6"]


def test_an_option_that_lists_ids_may_be_repeated(run, files):
    again = ("--history", "3", "--history", "4,5", "--allow", "3,4", "--allow", "5,6",
             "--include-seen")  # fmt: skip
    once = ("--history", "3,4,5", "--allow", "3,4,5,6", "--include-seen")
    answer = listed(run, "recommend", files / "model", *again)
    assert answer == listed(run, "recommend", files / "model", *once)
    assert sorted(answer) == ["3", "4", "5", "6"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NEW,1", """--deny NEW,1: an id that holds a comma, as 'NEW,1' does, stands in double """
                  """quotes; write --deny '"NEW,1"'"""),
        ('i6,6" pipe, A', '''write --deny '"6"" pipe, A"\''''),
        ("i6,NEW,1", """write --deny '"NEW,1"'"""),
        ('"NEW,1', """its quotation marks are not as in CSV"""),
        ('"NEW"1,i6', """write '"a,b",c'"""),
    ],
)  # fmt: skip
def test_a_comma_without_quotes_is_told(run, markup, monkeypatch, text, words):
    monkeypatch.chdir(markup)
    monkeypatch.setenv("COLUMNS", "300")
    code, _, err = run("recommend", "[b]model", "[bold]", "--deny", text)
    assert code == 2
    assert words in err


def test_similar_items_within_limits(run, files):
    ask = ("similar", files / "model", "5", "-k", 999)
    assert len(listed(run, *ask)) == 39
    assert set(listed(run, *ask, "--allow", "3,4,5,6", "--deny", "6")) == {"3", "4"}
    assert set(listed(run, *ask)) - set(listed(run, *ask, "--deny", "7,8")) == {"7", "8"}
    served = attrec.load(files / "model")
    rows = served.similar("5", k=3, allow=["1", "2", "3", "4"], deny=["2"])
    found = listed(run, "similar", files / "model", "5", "-k", 3, "--allow", "1,2,3,4",
                   "--deny", "2")  # fmt: skip
    assert found == [row.item_id for row in rows]


@pytest.mark.parametrize("form", [[], ["--json"], ["--out", "lists.csv"]])
def test_users_who_are_left_out_are_told(run, files, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.csv").write_text("user,item\na,3\na,4\nb,never\nc,heard\n")
    code, out, err = run("recommend", files / "model", "--log", "some.csv", *form)
    assert code == 0
    assert "2 of 3 users left out, 'b' first: nothing is known of them" in " ".join(err.split())
    assert "left out" not in out
    if form == ["--json"]:
        assert {row["user_id"] for row in json.loads(out)} == {"a"}
    (tmp_path / "all.csv").write_text("user,item\na,3\na,4\n")
    code, _, err = run("recommend", files / "model", "--log", "all.csv", *form)
    assert (code, err) == (0, "")


@pytest.mark.parametrize("form", [[], ["--json"], ["--out", "lists.csv"]])
def test_nobody_left_is_a_mistake(run, files, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.csv").write_text("user,item\nb,never\nc,heard\n")
    code, out, err = run("recommend", files / "model", "--log", "none.csv", *form)
    assert (code, out) == (2, "")
    assert err.startswith("attrec: none.csv: nobody is left of 2 users: nothing is known")
    assert not (tmp_path / "lists.csv").exists()


def test_simulate_train_recommend_explain_by_what_each_step_says_next(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("data", "simulate", "community", "--users", 40, "--items", 30, "--seed", 5)
    assert code == 0
    assert "800 events of 40 users and 30 items" in out
    assert "Next: attrec train simulated.csv" in out
    code, out, _ = run("train", "simulated.csv", *FAST)
    assert code == 0
    assert "popularity" in out
    assert "Protocol: leave-last-out" in out
    assert "training    epoch   1" in out
    commands = [line.split()[1:] for line in out.splitlines() if line.startswith("  attrec ")]
    assert commands
    for command in commands:
        code, out, _ = run(*command)
        assert code == 0
        assert out


def test_train_takes_a_test_file_titles_a_toml_file_and_draws(run, files, tmp_path):
    rows = (files / "log.csv").read_text().splitlines()
    last = {row.split(",")[0]: row for row in rows[1:]}
    test, train = tmp_path / "test.csv", tmp_path / "train.csv"
    test.write_text("\n".join([rows[0], *last.values()]))
    train.write_text("\n".join(row for row in rows if row not in last.values()))
    toml = tmp_path / "run.toml"
    toml.write_text("[model]\nwindow_length = 3\nembedding_dim = 10\n")
    code, out, _ = run(
        "train", train, "--test", test, "--items", files / "titles.csv", "--config", toml,
        "--out", tmp_path / "m", "--pictures", tmp_path / "pictures", "--preset", "paper-dense",
        "--cutoffs", "3,7", "--json", *FAST,
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert found["options"]["model"]["window_length"] == 3
    assert found["options"]["model"]["embedding_dim"] == 8
    assert found["options"]["protocol"]["cutoffs"] == [3, 7]
    assert found["options"]["preset"] == "paper-dense"
    assert found["titles"] == 40
    assert "given files" in found["record"]["test"]["protocol"]
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == [
        "attention.png", "training.png",
    ]  # fmt: skip


def test_what_was_assumed_about_a_file_is_said(run, tmp_path):
    log = attrec.simulate("mixed", num_users=50, num_items=40, events_per_user=10, seed=1)
    path = tmp_path / "bare.csv"
    write_csv(log, path)
    path.write_text("\n".join(path.read_text().splitlines()[1:]))
    code, out, _ = run("train", path, "--out", tmp_path / "m", *FAST)
    assert code == 0
    assert "no header" in out


def test_columns_can_be_named(run, tmp_path):
    path = tmp_path / "odd.csv"
    lines = [f"u{n % 20},{n % 7 + n % 3},{n}" for n in range(200)]
    path.write_text("who,what,when\n" + "\n".join(lines))
    names = ["--user", "who", "--item", "what", "--time", "when"]
    code, out, _ = run("train", path, *names, "--out", tmp_path / "m", "--json", *FAST)
    assert code == 0
    assert json.loads(out)["users"] == 20
    code, out, _ = run("evaluate", tmp_path / "m", path, *names, "--json")
    assert code == 0
    assert "NOT the log" not in json.loads(out)["protocol"]


def test_a_public_data_set_by_its_name(run, tmp_path, monkeypatch):
    from attrec.data import datasets

    path = tmp_path / "toy.csv"
    log = attrec.simulate("mixed", num_users=30, num_items=30, events_per_user=8)
    write_csv(log, path)
    titles = tmp_path / "titles.csv"
    titles.write_text("item_id,title\n0,Zero\n")

    def fake(name, echo=None, **options):
        if echo is not None:
            echo("the terms")
        return datasets.Dataset(name, path, titles, "0" * 64)

    monkeypatch.setattr(datasets, "fetch", fake)
    code, out, err = run("train", "ml-100k", "--out", tmp_path / "m", "--json", *FAST)
    assert code == 0
    assert json.loads(out)["titles"] == 1
    assert "the terms" in err
    code, out, _ = run("data", "fetch", "ml-100k")
    assert code == 0
    assert "Next: attrec train ml-100k" in out
    code, out, _ = run("data", "fetch", "ml-100k", "--json")
    assert code == 0
    assert json.loads(out) == {
        "name": "ml-100k", "interactions": str(path), "items": str(titles),
    }  # fmt: skip


def test_evaluate_with_slices_and_a_comparison(run, files, tmp_path):
    other = tmp_path / "other.csv"
    lines = [f"{user},{item},{item + 1}" for user in range(50) for item in range(10)]
    other.write_text("user,item,rank\n" + "\n".join(lines))
    code, out, _ = run(
        "evaluate", files / "model", files / "log.csv", "--compare", other, "--slices"
    )
    assert code == 0
    for words in ("other.csv", "hit_rate@10 by slice", "target in the head", "Protocol:"):
        assert words in out
    assert "in the JSON alone" not in out
    code, out, _ = run("evaluate", files / "model", files / "log.csv", "--cutoffs", "5,10,20,30")
    assert code == 0
    assert "hit_rate@20" not in out
    assert "the figures @20, @30 are in the JSON alone" in " ".join(out.split())
    code, out, _ = run("evaluate", files / "model", files / "log.csv", "--no-filter-seen", "--json")
    assert code == 0
    assert "kept in" in json.loads(out)["protocol"]
    strange = tmp_path / "strange.parquet"  # integers, where a text file's ids are strings
    duckdb.sql(f"COPY (SELECT range % 9 AS user, range AS item FROM range(40)) TO '{strange}'")
    code, out, err = run("evaluate", files / "model", strange)
    assert code == 2
    assert "bring both to one kind" in " ".join(err.split())


def test_recommend_on_the_screen(run, files):
    code, out, _ = run("recommend", files / "model", "7", "-k", "3")
    assert code == 0
    assert "Film" in out
    assert out.count("\n") >= 4
    code, out, _ = run("recommend", files / "model", "7", "8", "--k", "2")
    assert code == 0
    assert "rank" in out
    code, out, _ = run("recommend", files / "model", "7", "-k", "3", "--json")
    assert [row["rank"] for row in json.loads(out)] == [1, 2, 3]
    code, out, _ = run("recommend", files / "model", "7", "8", "-k", "2", "--json")
    assert [row["user_id"] for row in json.loads(out)] == ["7", "7", "8", "8"]


def test_recommend_to_a_history_within_limits(run, files):
    code, out, _ = run("recommend", files / "model", "--history", "3, 4", "--json", "-k", "40")
    assert code == 0
    items = {row["item_id"] for row in json.loads(out)}
    assert not items & {"3", "4"}
    code, out, _ = run(
        "recommend", files / "model", "--history", "3,4", "--allow", "3,4,5,6", "--deny", "6",
        "--include-seen", "--json",
    )  # fmt: skip
    assert {row["item_id"] for row in json.loads(out)} == {"3", "4", "5"}


def test_a_blank_is_an_ids_own_where_an_id_has_it():
    ids = np.array([" lead", "a", "b "], dtype=object)
    vocabulary = Vocabulary(ids[:1], ids, 1)
    assert listed_items("--deny", [" lead"], vocabulary) == [" lead"]
    assert listed_items("--deny", ["a, lead,b ,x "], vocabulary) == ["a", " lead", "b ", "x"]
    assert listed_items("--deny", ["a, a"], vocabulary) == ["a", "a"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_recommend_to_everybody_into_a_file(run, files, tmp_path, suffix):
    path = tmp_path / f"all.{suffix}"
    code, out, _ = run("recommend", files / "model", "--all", "-k", "4", "--out", path)
    assert code == 0
    assert "200 rows" in out
    if suffix == "csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 200
        assert {"user_id", "rank", "item_id", "title", "distance"} <= set(rows[0])
    else:
        reader = "read_json_auto" if suffix == "jsonl" else "read_parquet"
        assert duckdb.execute(f"SELECT count(*) FROM {reader}('{path}')").fetchall() == [(200,)]


def test_explain(run, files):
    code, out, _ = run("explain", files / "model", "5", "--user", "7", "--versus", "6")
    assert code == 0
    assert "Film 5" in out
    code, out, _ = run("explain", files / "model", "5", "--history", "3,4", "--json")
    assert code == 0
    assert json.loads(out)


def test_explain_without_events(run, files):
    arguments = ("explain", files / "model", "5", "--history", "3,4,6", "--without")
    code, out, _ = run(*arguments)
    assert code == 0
    assert "without an event, computed again" in out
    found = json.loads(run(*arguments, "--json")[1])
    assert [row["item_id"] for row in found["without"]] == ["3", "4", "6"]
    assert found["rank"] >= 1
    plain = json.loads(run(*arguments[:-1], "--json")[1])
    assert "without" not in plain
    assert "rank" not in plain
    one = run("explain", files / "model", "5", "--history", "3", "--without")[1]
    assert "nothing to rank by" in one


def test_weights_of_the_long_term_by_request(run, files):
    def answer(*flags):
        return json.loads(run("recommend", files / "model", "7", "--json", *flags)[1])

    assert all(row["long_term"] == 0 for row in answer("--long-term-weight", "0"))
    assert all(row["short_term"] == 0 for row in answer("--long-term-weight", "1"))
    code, out, _ = run("recommend", files / "model", "7", "--long-term-weight", "1")
    assert code == 0
    assert "long-term taste" in out
    rows = json.loads(
        run("recommend", files / "model", "7", "8", "--long-term-weight", "1", "--json")[1]
    )
    assert all(row["short_term"] == 0 for row in rows)
    found = json.loads(
        run("explain", files / "model", "5", "--user", "7", "--long-term-weight", "1", "--json")[1]
    )
    assert found["distance"] == found["long_term"]


def test_one_list_for_several(run, files):
    arguments = ("recommend", files / "model", "7", "8", "--history", "3,4", "--together", "-k", 3)
    code, out, _ = run(*arguments)
    assert code == 0
    assert "history" in out.splitlines()[0]
    plain = json.loads(run(*arguments, "--json")[1])
    assert [len(row["members"]) for row in plain] == [3, 3, 3]
    assert plain[0]["distance"] == pytest.approx(sum(plain[0]["members"]) / 3, abs=1e-9)
    (first, *_) = json.loads(run(*arguments, "--weights", "2,1,-0.5", "--json")[1])
    a, b, c = first["members"]
    assert first["distance"] == pytest.approx((2 * a + b - 0.5 * c) / 2.5, abs=1e-9)


def test_more_and_less_like_items(run, files):
    def answer(*flags):
        rows = json.loads(run("recommend", files / "model", "7", "--json", "-k", "40", *flags)[1])
        return [row["item_id"] for row in rows]

    plain = answer()
    unlike = answer("--unlike", plain[0])
    assert set(unlike) == set(plain[1:])
    assert unlike != plain[1:]
    assert answer("--unlike", plain[0], "--strength", "1e-9") == plain[1:]
    assert set(answer("--like", ",".join(plain[:2]))) == set(plain[2:])
    assert run("recommend", files / "model", "7", "--like", "5")[0] == 0


def test_similar_items(run, files):
    code, out, _ = run("similar", files / "model", "5", "-k", "4")
    assert code == 0
    assert out.count("Film") == 4
    rows = json.loads(run("similar", files / "model", "5", "--sense", "long-term", "--json")[1])
    assert len(rows) == 10
    assert all(row["short_term"] == 0 and row["item_id"] != "5" for row in rows)


def test_the_audience_of_an_item(run, files):
    code, out, _ = run("audience", files / "model", "5", "-k", "4")
    assert code == 0
    assert out.split()[:4] == ["user", "distance", "long", "short"]
    rows = json.loads(run("audience", files / "model", "5", "-k", "99", "--json")[1])
    everybody = run("audience", files / "model", "5", "-k", "99", "--include-taken", "--json")[1]
    assert len(rows) < len(json.loads(everybody)) == 50
    distances = [row["distance"] for row in rows]
    assert distances == sorted(distances)


def test_info_and_doctor(run, files):
    code, out, _ = run("info", files / "model")
    assert code == 0
    for words in ("paper-sparse", "train + validation", "embedding_dim = 8", "popularity"):
        assert words in out
    assert json.loads(run("info", files / "model", "--json")[1])["items"] == 40
    code, out, _ = run("doctor")
    assert code == 0
    assert "training" in out
    found = json.loads(run("doctor", "--json")[1])
    assert "works" in found["training"]
    declared = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = {f"extra {name}" for name in declared["optional-dependencies"]} - {"extra dev"}
    assert extras == {name for name in found if name.startswith("extra ")}


def test_titles_of_other_items_are_not_counted(run, files, tmp_path):
    titles = "item_id,title\n" + "".join(f"{item},Film {item}\n" for item in range(30, 90))
    (tmp_path / "titles.csv").write_text(titles)
    code, out, err = run("train", files / "log.csv", "--items", tmp_path / "titles.csv", "--out",
                         tmp_path / "m", "--json", *FAST)  # fmt: skip
    assert code == 0, err
    assert (json.loads(out)["items"], json.loads(out)["titles"]) == (40, 10)


def test_the_demo_is_a_command(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("attrec.demo.run", lambda folder, screen: seen.append(folder))
    assert run("demo", "--folder", tmp_path)[0] == 0
    assert seen == [tmp_path]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["recommend", "{model}", "nobody"], "nobody"),
        (["recommend", "{model}"], "say whom to recommend to"),
        (["recommend", "{model}", "--out", "x.csv"], "say whom to recommend to"),
        (["recommend", "{model}", "--history", "3", "--out", "x.csv"], "--history is for one"),
        (["recommend", "{model}", "--history", "3", "--all"], "leave out users and --history"),
        (["recommend", "{model}", "7", "--all"], "--all answers everybody; leave out users"),
        (["recommend", "{model}", "7", "--for-spreadsheets"], "is for a .csv file"),
        (["recommend", "{model}", "--all", "--out", "x.csv", "--json"], "leave out one of them"),
        (["recommend", "{model}", "7", "--strength", "0.3"], "is of --like and --unlike"),
        (["recommend", "{model}", "7", "-k", "0"], "k"),
        (["recommend", "{model}", "7", "8", "--like", "3"], "for one answer on the screen"),
        (["recommend", "{model}", "--all", "--together"], "leave out --all, --log and --out"),
        (["recommend", "{model}", "7", "--weights", "1"], "give --together with them"),
        (["recommend", "{model}", "7", "--together", "--weights", "a"], "expected numbers"),
        (["recommend", "{model}", "--together"], "no members"),
        (["similar", "{model}", "5", "--sense", "taste"], "expected one of next, short-term"),
        (["audience", "{model}", "none"], "item 'none' is not in the model"),
        (["recommend", "{folder}/none", "7"], "none"),
        (["train", "{folder}/none.csv"], "no such file"),
        (["train", "{log}", "--preset", "best"], "no preset 'best'"),
        (["train", "{log}", "--embedding-dim", "7"], "embedding_dim = 7: must be even"),
        (["train", "{log}", "--cutoffs", "ten"], "--cutoffs ten: expected whole numbers"),
        (["train", "{log}", "--aggregation", "median"], "expected one of"),
        (["data", "fetch", "ml-100"], "known: ml-100k"),
        (["data", "simulate", "walks"], "no simulated log 'walks'"),
        (["data", "simulate", "--seed", "-1"], "seed = -1 is below 0"),
        (["data", "simulate", "--out", "{log}/x.csv"], "cannot be written ("),
        (["explain", "{model}", "5"], "user"),
        (["train", "{log}", "--pictures", "{log}"], "is a file; give --pictures a folder"),
        (
            ["train", "{log}", "--out", "{folder}/n", "--profile", "{folder}/n"],
            "for the model alone",
        ),
        (["data", "inspect", "{log}", "--picture", "{folder}/p.txt"], "no picture is written as"),
        (["train", "{log}", "--profile", "{folder}"], "is no place for a trace"),
        (["train", "{log}", "--profile", "{folder}/none/t.json"], "is no place for a trace"),
        (["doctor", "--seed", "3"], "options are for a plan"),
        (["doctor", "--plan", "10", "10", "15"], "at least 2 users, 2 items and 2 events a user"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(run, files, arguments, words):
    places = {"model": files / "model", "folder": files, "log": files / "log.csv"}
    code, out, err = run(*(argument.format(**places) for argument in arguments))
    assert code == 2
    assert err.startswith("attrec: ")
    assert words in " ".join(err.split())
    assert "Traceback" not in err + out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train {log} --out {bad}", "the model cannot be written"),
        ("train {log} --fresh --checkpoint {bad}", "the checkpoint cannot be removed"),
        ("train {log} --profile {bad}", "check the path"),
        ("train {log} --pictures {bad}", "check the path"),
        ("train {log} --items {bad}", "the file cannot be opened"),
        ("train {bad}", "the file cannot be opened"),
        ("train sqlite:///{bad} --query x", "the file cannot be opened"),
        ("tune {log} --out {bad}", "check the path"),
        ("recommend {model} --log {bad}", "the file cannot be opened"),
        ("report {model} --out {bad}", "cannot be written"),
        ("update {model} {log} --out {bad}", "the model cannot be written"),
        ("update {model} {bad}", "the file cannot be opened"),
        ("forget {model} 7 --out {bad}", "the model cannot be written"),
        ("export {model} --out {bad}", "the vectors cannot be written"),
        ("info {bad}", ("cannot be opened", "this account may not read it")),
    ],
)
def test_a_path_that_cannot_be_looked_at_gets_one_sentence_too(
    run, files, tmp_path, command, words
):
    """A name that is too long for any system, and what lies in a folder that one may not enter."""
    (tmp_path / "closed").mkdir()
    with closed(tmp_path / "closed"):
        for bad in (tmp_path / ("a" * 300), tmp_path / "closed" / "x"):
            places = {"log": files / "log.csv", "model": files / "model", "bad": bad}
            code, out, err = run(*command.format(**places).split())
            said = " ".join(err.split())
            assert code == 2, said
            assert said.startswith("attrec: ")
            assert any(each in said for each in ([words] if isinstance(words, str) else words))
            assert "Traceback" not in err + out
    assert [path.name for path in tmp_path.iterdir()] == ["closed"]


def test_usage_errors_exit_with_2_too(run):
    code, _, err = run("train")
    assert code == 2
    assert "LOG" in err


def test_a_closed_pipe_is_no_error(monkeypatch):
    def closed():
        raise BrokenPipeError

    monkeypatch.setattr(cli, "app", closed)
    monkeypatch.setattr("sys.stderr", open("/dev/null", "w"))  # noqa: PTH123, SIM115
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0


@pytest.mark.parametrize(
    "command",
    ["", "data", "data fetch", "data simulate", "train", "tune", "evaluate", "recommend", "explain",
     "similar", "audience", "info", "doctor", "demo"],
)  # fmt: skip
def test_every_command_has_a_help_page(run, command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert "Usage" in out


def test_the_help_of_train_names_every_option_once(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = run("train", "--help")[1]
    for spec in option_specs():
        flag = f"--{spec.name.replace('_', '-')}"
        assert sum(line.split("│")[1].split()[:1] in ([flag], [f"{flag}/--no-{flag[2:]}"])
                   for line in out.splitlines()
                   if "│" in line) == 1, flag  # fmt: skip


def test_a_fresh_start_removes_nothing_but_a_checkpoint(run, files, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    code, _, err = run("train", files / "log.csv", "--out", tmp_path / "m", "--fresh",
                       "--checkpoint", tmp_path, *FAST)  # fmt: skip
    assert code == 2
    assert "thesis.txt" in err
    assert (tmp_path / "thesis.txt").exists()


def test_a_profile_is_printed_and_written(run, files, tmp_path):
    trace = tmp_path / "trace.json"
    code, out, _ = run("train", files / "log.csv", "--out", tmp_path / "m", "--profile", trace,
                       *FAST)  # fmt: skip
    assert code == 0
    for words in ("between them", "windows a second", "peak memory", "ui.perfetto.dev", "saving"):
        assert words in out
    names = {block["name"] for block in json.loads(trace.read_text())["traceEvents"]}
    assert {"reading", "training", "steps", "validation", "retraining", "saving"} <= names
    code, out, _ = run("train", files / "log.csv", "--out", tmp_path / "m", "--profile", trace,
                       "--json", *FAST)  # fmt: skip
    found = json.loads(out)["profile"]
    assert ["training", "steps"] in [phase["phase"] for phase in found["phases"]]
    assert found["counts"]["windows"] > 0


def test_the_record_counts_the_time_of_reading(run, files, tmp_path, monkeypatch):
    read = training.read_source

    def slowly(*given):
        time.sleep(0.25)
        return read(*given)

    monkeypatch.setattr(training, "read_source", slowly)
    code, out, _ = run("train", files / "log.csv", "--out", tmp_path / "m", *FAST, "--json")
    assert code == 0
    told = json.loads(out)["record"]["seconds"]
    assert told["reading"] >= 0.25
    assert attrec.load(tmp_path / "m").record["seconds"] == told


def test_a_stopped_training_tells_its_profile_too(run, files, tmp_path, monkeypatch):
    from attrec.signals import StopWish

    monkeypatch.setattr(StopWish, "__call__", lambda self: True)
    trace = tmp_path / "trace.json"
    code, out, _ = run("train", files / "log.csv", "--out", tmp_path / "m", "--profile", trace,
                       *FAST)  # fmt: skip
    assert code == 128
    assert "step: not finished" in out
    assert any(b["name"] == "checkpoints" for b in json.loads(trace.read_text())["traceEvents"])


def test_a_few_events_beside_a_log_are_not_cut_to_its_core(run, tmp_path):
    log = attrec.simulate("mixed", num_users=30, num_items=20, events_per_user=8, seed=1)
    last = np.arange(len(log)) % 8 == 7
    write_csv(log.take(~last), tmp_path / "log.csv")
    write_csv(log.take(last), tmp_path / "test.csv")
    new = attrec.InteractionLog.from_columns(["new", "new"], log.item_ids[:2].astype(str), [1, 2])
    write_csv(new, tmp_path / "new.csv")
    cut = ["--min-user-events", "3", "--test", tmp_path / "test.csv"]
    code, _, err = run("train", tmp_path / "log.csv", "--out", tmp_path / "m", *cut, *FAST)
    assert code == 0, err
    code, out, err = run("evaluate", tmp_path / "m", tmp_path / "log.csv", "--test",
                         tmp_path / "test.csv", "--json")  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["counts"]["users"] == 30
    code, out, err = run("recommend", tmp_path / "m", "--log", tmp_path / "new.csv", "--json")
    assert code == 0, err
    assert {row["user_id"] for row in json.loads(out)} == {"new"}


def test_a_checkpoint_does_not_go_where_the_model_goes(run, files, tmp_path):
    code, _, err = run("train", files / "log.csv", "--out", tmp_path / "m", "--checkpoint",
                       tmp_path / "x" / ".." / "m", *FAST)  # fmt: skip
    assert code == 2
    assert "are one folder" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--checkpoint", "m/kept"], "is for the model alone; give --checkpoint a place outside"),
        (["--tensorboard", "m"], "is for the model alone; give --tensorboard a place outside"),
        (["--tensorboard", "m.checkpoint/curves"], "is for the checkpoint alone"),
        (["--mlflow", "m/runs"], "is for the model alone; give --mlflow a place outside of it"),
        (["--mlflow", "sqlite:///m/runs.db"], "is for the model alone"),
        (["--profile", "m/trace.json"], "is for the model alone; give --profile a place outside"),
        (["--profile", "m.checkpoint/trace.json"], "is for the checkpoint alone"),
    ],
)
def test_nothing_else_goes_into_the_folder_of_the_model(
    run, files, tmp_path, monkeypatch, arguments, words
):
    """After the training it would be too late: no model can be saved there then."""
    monkeypatch.chdir(tmp_path)
    code, _, err = run("train", files / "log.csv", "--out", "m", *arguments, *FAST)
    assert code == 2
    assert words in " ".join(err.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "train log.csv --profile log.csv",
        "train logs --profile logs/log.csv",
        "train logs/*.csv --profile logs/log.csv",
        "train logs/log.csv --test log.csv --profile log.csv",
        "train logs/log.csv --items log.csv --profile log.csv",
        "train logs/log.csv --config log.csv --profile log.csv",
        "recommend model --log log.csv --out log.csv",
        "data inspect log.csv --picture log.csv",
        "report model --out log.csv",
        "report model --out model/manifest.json",
        "report model --out {tables}",
        "recommend model --all --out model/lists.csv",
        "data simulate --out model/manifest.json",
        "data inspect log.csv --picture model/picture.png",
    ],
)
def test_what_is_read_and_what_a_model_is_made_of_are_not_written_over(
    run, files, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(files / "model", "model")
    Path("logs").mkdir()
    for name in ("log.csv", "logs/log.csv"):
        shutil.copy(files / "log.csv", name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tables,) = Path("model").glob("tables-*")
    options = FAST if command.startswith("train") else []
    code, _, err = run(*command.format(tables=tables).split(), *options)
    assert code == 2
    assert err.startswith("attrec: ")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_page_takes_the_place_of_a_page(run, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(files / "model", "model")
    for place in ("model/report.html", "page"):
        for _ in range(2):
            code, _, err = run("report", "model", "--out", place)
            assert (code, err) == (0, "")


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_a_second_training_is_turned_away_before_it_reads(run, files, tmp_path, fresh):
    kept = tmp_path / "m.checkpoint"
    kept.mkdir()
    with FileLock(kept / LOCK):
        code, out, err = run("train", files / "log.csv", "--out", tmp_path / "m", *fresh, *FAST)
    assert (code, out) == (2, "")
    assert "another training keeps its checkpoint there; wait for it" in " ".join(err.split())
    assert {path.name for path in tmp_path.iterdir()} == {"m.checkpoint"}


def test_a_fresh_start_waits_until_the_log_is_read(run, files, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "training-0123456789abcdef.json").write_text("{}")
    code, _, _ = run("train", tmp_path / "none.csv", "--out", tmp_path / "m", "--fresh",
                     "--checkpoint", kept, *FAST)  # fmt: skip
    assert code == 2
    assert list(kept.iterdir())
