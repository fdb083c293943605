"""docs/vectors.md, block by block: four engines, PostgreSQL among them, and the same ids."""

import json
import re
import shlex
from pathlib import Path

import pytest

import attrec
from attrec.export import export
from tests.command_line import run_cli

PAGE = Path(__file__).parents[1] / "docs" / "vectors.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
OPTIONS = {
    "paper": {"preset": "paper-sparse", "init_std": 0.3},
    "additive": {"architecture": "additive", "dropout": 0.0},
}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    pgserver = pytest.importorskip("pgserver", reason="pgserver has no wheel for this machine")
    try:
        server = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    except Exception as error:
        pytest.skip(f"PostgreSQL does not start on this machine: {error}")
    yield server
    server.cleanup()


@pytest.fixture(scope="module", params=OPTIONS)
def ran(request, postgres, tmp_path_factory):
    """Run the page in a folder with a model; return what its blocks left behind, and the model."""
    folder = tmp_path_factory.mktemp(request.param)
    log = attrec.simulate("mixed", num_users=60, num_items=120, events_per_user=14, seed=3)
    found = attrec.fit(
        log, embedding_dim=8, window_length=6, batch_size=200, max_epochs=2, learning_rate=0.01,
        **OPTIONS[request.param],
    )  # fmt: skip
    model = found.recommender
    model.save(folder / "model")
    postgres.psql(f"CREATE DATABASE {request.param}")
    address = postgres.get_uri(database=request.param)
    names = {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DATABASE_URL", address)
        for language, text in BLOCKS:
            if language == "bash":
                for line in text.splitlines():
                    program, *arguments = shlex.split(line)
                    assert program == "attrec"
                    assert run_cli(folder, arguments, columns=100)[0] == 0
            else:
                assert language == "python"
                exec(compile(text, "docs/vectors.md", "exec"), names)
        names["server"].close()
    return names, model


ENGINES = ("numpy", "faiss", "duckdb", "postgres")


def test_four_engines_have_the_models_list(ran):
    names, model = ran
    expected = [a.item_id for a in model.recommend(names["user"], k=10, exclude_seen=False)]
    for engine in (*ENGINES, "segments"):
        assert names[f"by_{engine}"] == expected, engine


def test_four_engines_leave_out_what_was_seen(ran):
    names, model = ran
    expected = [a.item_id for a in model.recommend(names["user"], k=10)]
    assert names["seen"]
    for way in (*ENGINES, "index", "graph"):
        assert names[f"new_by_{way}"] == expected, way
    assert names["again_by_postgres"] == expected


def test_the_root_squared_is_the_models_distance(ran):
    names, model = ran
    expected = [a.distance for a in model.recommend(names["user"], k=10)]
    assert [distance for _, distance in names["found"]] == pytest.approx(expected, abs=1e-5)


def test_the_same_model_has_the_same_fingerprint(ran):
    names, _ = ran
    assert names["is_new"] is False
    assert names["manifest"]["dimension"] == names["keys"].shape[1]


def test_postgresql_with_an_index_and_the_filter_inside_gives_short_lists(ran, postgres):
    """The trap that the page warns of is there."""
    import psycopg

    names, model = ran
    architecture = model.options.model.architecture
    few = names["item_ids"][:6]
    with psycopg.connect(postgres.get_uri(database=architecture)) as server:
        server.execute("SET enable_seqscan = off")
        server.execute("SET enable_sort = off")
        server.execute("SET LOCAL hnsw.ef_search = 10")
        found = server.execute(
            "SELECT item_id FROM items WHERE item_id = ANY(%s) ORDER BY vector <-> %s::vector "
            "LIMIT 6",
            [few, json.dumps(names["query"].tolist())],
        ).fetchall()
    assert len(found) < 6


def test_who_has_taken_nearly_everything_gets_the_few_that_are_left(tmp_path, monkeypatch):
    rows = [(user, (user + at) % 12, at) for user in range(24) for at in range(6 if user else 9)]
    users, items, times = map(list, zip(*rows, strict=True))
    log = attrec.InteractionLog.from_columns(users, items, times)
    model = attrec.fit(log, preset="paper-sparse", embedding_dim=4, max_epochs=1).recommender
    export(model, tmp_path / "vectors", index="flat")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for language, text in BLOCKS:
        if "psycopg" in text:
            break
        if language == "python":
            exec(compile(text, "docs/vectors.md", "exec"), names)
    expected = [answer.item_id for answer in model.recommend(names["user"], k=10)]
    assert len(expected) < names["K"]
    for way in ("numpy", "faiss", "index", "duckdb"):
        assert names[f"new_by_{way}"] == expected, way
