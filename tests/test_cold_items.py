"""The benchmark of items held out of training: what it counts, and how its page reads."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from benchmarks import rows as results
from benchmarks.cold_items import run as cold
from benchmarks.cold_items.figures import DIFFERENCE, WITH, WITHOUT, summary
from benchmarks.cold_items.text import SIZE, text_vectors, write_with_vectors
from docs import cold_items as page

from attrec.data.items import Items, read_items
from attrec.data.reading import write_csv
from tests.shop import shop_log
from tests.test_features import SMALL

NAMES = ["hit_rate@10", "ndcg@10"]


def figures_of(without, with_, units):
    return summary({WITHOUT: without, WITH: with_}, NAMES, units)


def test_differences_are_paired_and_items_are_what_is_drawn():
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(20), 5)
    without = rng.random(20)[units][:, None] * [1.0, 0.5]
    shifts = np.array([0.25, -0.125])
    found = figures_of(without, without + shifts, units)
    for at, metric in enumerate(NAMES):
        own = found[WITHOUT][metric]
        assert own["mean"] == pytest.approx(without[:, at].mean())
        assert own["low"] < own["mean"] < own["high"]
        # What both have in common is in neither end of the difference.
        shift = found[DIFFERENCE][metric]
        ends = [shift[end] for end in ("mean", "low", "high")]
        assert ends == pytest.approx([shifts[at]] * 3)
        assert shift["excludes_zero"]
    # The five cases of an item are alike: they say no more than one does.
    once = figures_of(without[::5], without[::5], units[::5])
    assert once[WITHOUT]["ndcg@10"] == pytest.approx(found[WITHOUT]["ndcg@10"])
    assert not once[DIFFERENCE]["ndcg@10"]["excludes_zero"]


def test_an_item_weighs_by_its_cases():
    units = np.array([0, 0, 0, 1])
    hits = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = figures_of(hits, hits, units)[WITH]
    assert (found["hit_rate@10"]["mean"], found["ndcg@10"]["mean"]) == (0.75, 0.25)
    # Drawn are both items, or one of them twice.
    assert (found["hit_rate@10"]["low"], found["hit_rate@10"]["high"]) == (0.0, 1.0)


def test_items_with_the_same_words_have_the_same_vector():
    items = Items(
        {
            "1": "Night Train",
            "2": "The night train",
            "3": "The Garden",
            "4": "Garden, the",
            "5": "",
        },
        {"genre": {"1": "War|Drama", "2": "Drama|War", "3": "Comedy", "4": "Comedy", "6": "War"}},
    )
    ids, vectors = text_vectors(items)
    assert ids == ["1", "2", "3", "4", "5", "6"]
    assert vectors.shape[1] <= SIZE
    # Nothing is cut off where there are so few words: products are those of TF-IDF.
    cosines = vectors @ vectors.T
    rare, drama = np.log(6 / 2), np.log(6 / 3)
    words = {"night": rare, "train": rare, "drama": rare, "war": drama, "the": drama}
    length = {1: [*words][:4], 2: [*words]}
    first, second = (np.sqrt(sum(words[w] ** 2 for w in of)) for of in length.values())
    assert cosines[0, 1] == pytest.approx(first / second)
    assert cosines[2, 3] == pytest.approx(1.0)
    assert cosines[0, 2] == pytest.approx(0.0)
    assert cosines[4].tolist() == pytest.approx([0.0] * 6)  # a title without words
    assert cosines[0, 5] == pytest.approx(drama / first)


def test_vectors_are_cut_to_what_the_items_have_most_in_common(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"w{n}" for n in range(120)]
    titles = {str(i): " ".join(rng.choice(names, 6)) for i in range(300)}
    ids, vectors = text_vectors(Items(titles, {}))
    assert vectors.shape == (300, SIZE)
    sizes = np.square(vectors).sum(axis=0)
    assert (np.diff(sizes) <= 1e-9).all()
    write_with_vectors(Items(titles, {}), tmp_path / "items.parquet")
    known, rows = read_items(tmp_path / "items.parquet").vectors_of("text")
    assert known == ids
    np.testing.assert_allclose(rows, vectors, atol=1e-6)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A benchmark of its own: users who stay with one of four kinds of items."""
    log, kinds = shop_log()
    write_csv(log, tmp_path / "log.csv")
    pl.DataFrame(
        {"item_id": range(60), "title": [f"Thing {i}" for i in range(60)],
         "kind": [f"k{kind}" for kind in kinds]}
    ).write_csv(tmp_path / "items.csv")  # fmt: skip
    files = SimpleNamespace(interactions=tmp_path / "log.csv", items=tmp_path / "items.csv")
    monkeypatch.setattr(cold, "fetch", lambda data: files)
    monkeypatch.setattr(cold, "PLAIN", cold.PLAIN.with_(**SMALL))
    monkeypatch.setattr(cold, "HELD_OUT", 0.2)
    monkeypatch.setattr(cold, "SHARE", 0.2)
    monkeypatch.setattr(cold, "QUERIES", 200)
    monkeypatch.setattr(cold, "ROWS", {
        "shop": cold.Row("shop", "kinds (column `kind`)", {"item_categories": "kind"}),
        "shop.vectors": cold.Row("shop", "words", {"item_vectors": "text"}),
    })  # fmt: skip
    monkeypatch.setattr(page, "ROWS", cold.ROWS)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    return tmp_path


def test_rows_are_measured_and_shown(place, monkeypatch):
    assert "Not measured yet" in "\n".join(page.cold_items())
    for name in cold.ROWS:
        monkeypatch.setattr("sys.argv", ["run", name])
        cold.main()
        row = cold.measured(name)
        assert list(row["metrics"]) == ["0", "1", "2", "3", "4", "5"]
        nobody = row["metrics"]["0"]
        assert nobody[WITHOUT]["hit_rate@10"]["mean"] == 0.0
        assert nobody[WITH]["hit_rate@10"]["mean"] > 0.1
        assert nobody[DIFFERENCE]["hit_rate@10"]["excludes_zero"]
        assert row["data"]["held_out"] == 10
        assert row["data"]["cases"] > 200
        assert row["valid"][WITH]["ndcg@10"]["mean"] > 0
        assert set(row["cost"]["train_seconds"]) == set(row["cost"]["trained"]) == {WITHOUT, WITH}
        assert row["cost"]["peak_memory_bytes"] > 1e6
        assert {"machine", "commit", "date"} <= set(row["cost"]["trained"][WITH])
    without = [cold.measured(name)["metrics"]["5"][WITHOUT] for name in cold.ROWS]
    assert without[0] == without[1]  # the same training again
    text = "\n".join(page.cold_items())
    assert "**shop**: kinds (column `kind`); 10 held-out items" in text
    assert "attributes help beyond chance: HR@10 at 0" in text
    assert "make bench-cold-items ROW=shop.vectors" in text


def test_rows_that_were_measured_in_another_way_are_missing(place):
    results.write_row("cold_items", "shop", {"protocol": "0, 1, 2 and 5 events", "metrics": {}})
    assert cold.measured("shop") is None


def test_the_page_says_where_attributes_lose(place):
    def figure(mean, low, high, **more):
        return {"mean": mean, "low": low, "high": high, **more}

    def of(without, with_, sure):
        less, wide = with_ - without, 0.001 if sure else 0.5
        difference = figure(less, less - wide, less + wide, excludes_zero=sure)
        of_metric = (figure(without, 0.0, 1.0), figure(with_, 0.0, 1.0), difference)
        share = figure(0.1, 0.1, 0.1)
        return {
            which: {**dict.fromkeys(NAMES, one), "share_of_lists": share}
            for which, one in zip((WITHOUT, WITH, DIFFERENCE), of_metric, strict=True)
        }

    metrics = {
        "0": of(0.0, 0.2, True), "1": of(0.1, 0.2, True), "2": of(0.2, 0.2, False),
        "3": of(0.3, 0.28, False), "4": of(0.3, 0.1, True), "5": of(0.1162, 0.1115, True),
    }  # fmt: skip
    results.write_row("cold_items", "shop", {
        "data": {"held_out": 6, "cases": 1234, "validation_users": 200}, "protocol": cold.PROTOCOL,
        "attributes": "kinds", "config": cold.options_of("shop").to_dict(), "metrics": metrics,
        "valid": of(0.2, 0.1, True),
        "cost": {"train_seconds": {WITHOUT: 1.0, WITH: 2.0}, "epochs": {WITHOUT: 1, WITH: 2},
                 "peak_memory_bytes": 10**9, "threads": 1},
    })  # fmt: skip
    text = "\n".join(page.cold_items())
    assert "- attributes help beyond chance: HR@10 at 0 and 1; NDCG@10 at 0 and 1\n" in text
    assert "- attributes lose beyond chance: HR@10 at 4 and 5; NDCG@10 at 4 and 5\n" in text
    assert "- no difference beyond chance: HR@10 at 2 and 3; NDCG@10 at 2 and 3\n" in text
    lower = "3 (0.3000 → 0.2800), 4 (0.3000 → 0.1000) and 5 (0.1162 → 0.1115)"
    assert f"- lower with attributes, by chance or not: HR@10 at {lower}; NDCG@10" in text
    assert "HR@10 loses beyond chance and NDCG@10 loses beyond chance." in text
    assert "Not measured yet: `shop.vectors`." in text
    assert "Measured before" not in text


def test_an_unknown_row_is_named(place, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run", "shop", "nowhere"])
    with pytest.raises(SystemExit, match="no row 'nowhere'; rows: shop, "):
        cold.main()
    assert cold.measured("shop") is None
