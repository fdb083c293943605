"""The page of a model: what it says, that it is safe and whole, and that its slider is exact."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attrec
from attrec.artifact import read_manifest
from attrec.data.interactions import InteractionLog
from attrec.data.ragged import Ragged
from attrec.data.reading import write_csv
from attrec.data.sequences import Sequences
from attrec.data.vocabulary import Vocabulary
from attrec.erasure import forget
from attrec.errors import RequestError
from attrec.explain import attention_profile
from attrec.model.choice import make_network
from attrec.page import blend, catalogue, charts, page_of, people, sight, write_page
from attrec.page.making import data_section, item_counts
from attrec.page.markup import figure, tag
from attrec.page.names import user_id
from attrec.popularity import Moment, at_moment
from attrec.recommender import Recommender
from attrec.retrieval.vectors import item_keys
from attrec.updating import update
from tests.command_line import run_cli

ARCHITECTURES = ["paper", "additive"]
NASTY = (
    '</script><script>document.title = "caught"</script>',
    '"><img src=x onerror="document.title=\'caught\'">',
    "<!--",
    "Fish & Chips \u2028 <b>",
    "http://example.org/film.png",
)
PAIR = re.compile("<dt>([^<]+)</dt><dd>([^<]+)</dd>")
SETTINGS = (0.0, 0.01, 0.2, 0.37, 0.5, 0.83, 1.0)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A log from whose file a duplicate was taken out."""
    file = tmp_path_factory.mktemp("log") / "log.csv"
    events = attrec.simulate("mixed", num_users=40, num_items=60, events_per_user=12, seed=3)
    write_csv(events, file)
    file.write_text(file.read_text() + file.read_text().splitlines()[1] + "\n")
    return attrec.read_interactions(file)


def fitted(log, architecture):
    titles = {str(item): f"Film {item}" for item in range(5, 60)}
    titles |= dict(zip("01234", NASTY, strict=True))
    usual = {"paper": {"init_std": 0.3}, "additive": {"dropout": 0.1}}[architecture]
    return attrec.fit(
        log, architecture=architecture, embedding_dim=8, window_length=6, max_epochs=2,
        batch_size=64, titles=titles, **usual,
    ).recommender  # fmt: skip


@pytest.fixture(scope="module")
def models(log):
    return {name: fitted(log, name) for name in ARCHITECTURES}


@pytest.fixture(scope="module")
def updated(models):
    """Each model after events of two new items; of "secret" nothing is known."""
    after = 1e12
    log = InteractionLog.from_columns(
        ["900", "900", "900", "901"], ["3", "5", "late", "secret"], after + np.arange(4.0)
    )
    found = {name: update(model, log) for name, model in models.items()}
    assert all((each.summary.folded_in, each.summary.unplaced) == (1, 1) for each in found.values())
    return {name: each.recommender for name, each in found.items()}


@pytest.fixture(scope="module")
def pages(models, tmp_path_factory):
    """Each model saved, and its page written as the command writes it."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, model in models.items():
        model.save(folder / name)
        code, text = run_cli(folder, ["report", name], columns=200)
        assert code == 0, text
        assert f"{name}/report.html" in text
        found[name] = folder / name / "report.html"
    return found


class Reader(HTMLParser):
    """Reads elements, and tables by their captions."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.tables, self.words = [], {}, []
        self.caption, self.cell, self.inside = None, None, []
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        self.inside.append(name)
        if name == "caption":
            self.caption = ""
        elif name == "tr":
            self.tables.setdefault(self.caption, []).append([])
        elif name in ("th", "td"):
            self.tables[self.caption][-1].append("")
            self.cell = True

    def handle_endtag(self, name):
        while self.inside and self.inside.pop() != name:
            pass
        if name in ("th", "td"):
            self.cell = None
        if name == "caption" and self.caption in self.tables:
            self.caption += ", again"  # the other filter's, say

    def handle_data(self, data):
        if "caption" in self.inside:
            self.caption += data
        elif self.cell:
            self.tables[self.caption][-1][-1] += data
        if not {"script", "style"} & set(self.inside):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def read(path):
    return Reader(Path(path).read_text(encoding="utf-8"))


def under(model, weight):
    """The same tables under another ω, as a recommender of its own."""
    options = model.options.with_(long_term_weight=weight)
    network = make_network(
        options.model, model.vocabulary.num_trained_users, model.vocabulary.num_items
    )
    network.load_state_dict(model.network.state_dict())
    return Recommender(network, model.vocabulary, model.histories, options)


def ids_of(model, users, weight):
    """The list of a weight, found without the page's mathematics."""
    names = [user_id(model, user) for user in users]
    if len(users) == 1:
        if model.vocabulary.num_items > model.vocabulary.num_trained_items:
            return [r.item_id for r in model.recommend(names[0], long_term_weight=weight)]
        return [r.item_id for r in under(model, weight).recommend(names[0], k=10)]
    histories = [model.vocabulary.item_ids[model.histories.histories[u]].tolist() for u in users]
    seen = {item for history in histories for item in history}
    if weight in (0.0, 1.0):
        own, other = (0, 1) if weight == 0.0 else (1, 0)
        return [r.item_id for r in model.recommend(names[own], k=10, deny=histories[other])]
    near, far = (
        {r.item_id: r.distance for r in model.recommend(n, k=10**6, exclude_seen=False)}
        for n in names
    )
    distances = {i: weight * far[i] + (1 - weight) * near[i] for i in near if i not in seen}
    at = {item: place for place, item in enumerate(model.vocabulary.item_ids.tolist())}
    return sorted(distances, key=lambda item: (distances[item], at[item]))[:10]


# What it says


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_figures_are_those_of_the_record(models, pages, name):
    record, page = models[name].record, read(pages[name])
    systems = record["test"]["systems"]
    (header, *rows) = page.tables["Test figures, with half the width of their 95 % interval"]
    assert [row[0] for row in rows] == list(systems)
    for system, *cells in rows:
        for metric, cell in zip(header[1:], cells, strict=True):
            found = systems[system][metric]
            half = (found["high"] - found["low"]) / 2
            assert cell == f"{found['mean']:.4f} ±{half:.4f}"
    (header, *rows) = page.tables["Further figures"]
    for metric, *cells in rows:
        for system, cell in zip(header[1:], cells, strict=True):
            assert cell.split(" ")[0] == figure(systems[system][metric]["mean"])
    (header, *rows) = page.tables["ndcg@10 by slice"]
    assert {row[0]: int(row[1]) for row in rows} == {
        words: found["users"] for words, found in record["test"]["slices"].items()
    }
    for words, _, *cells in rows:
        found = record["test"]["slices"][words]
        assert cells == [figure(found[system]["ndcg@10"]) for system in header[2:]]
    difference = next(rows for caption, rows in page.tables.items() if "in pairs" in str(caption))
    for other, *cells in difference[1:]:
        found = record["test"]["differences"][other.removeprefix("less ")]
        for metric, cell in zip(difference[0][1:], cells, strict=True):
            assert cell.startswith(f"{found[metric]['mean']:+.4f}".replace("-", "−"))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_data_training_and_settings_are_those_of_the_model(models, pages, name):
    model, page = models[name], read(pages[name])
    rows = page.tables["What reading and cleaning took out, in order"][1:]
    steps = [[s["what"], f"{s['removed']:,}", f"{s['left']:,}"] for s in model.record["cleaning"]]
    assert rows == steps
    assert "1" in [row[1] for row in rows]
    epochs = page.tables["Epochs"][1:]
    assert [row[1] for row in epochs] == [f"{e['loss']:.5g}" for e in model.record["epochs"]]
    seconds = model.record["seconds"]
    drawn = re.search(r"<title>Seconds of each phase.*?</svg>", pages[name].read_text(), re.DOTALL)
    assert re.findall(r"<title>(\w+): [\d.,]+<", drawn[0]) == list(seconds)
    assert model.record["test"]["protocol"] in page.text
    for section, title in (("model", "Model"), ("train", "Training"), ("protocol", "Protocol")):
        values = model.options.to_dict()[section]
        shown = {row[0]: row[1] for row in page.tables[title][1:]}
        assert set(shown) <= set(values)
        assert shown.get("embedding_dim", "8") == "8"
    manifest = read_manifest(pages[name].parent)
    for entry in manifest["files"].values():
        assert entry["sha256"] in page.text
    assert model.record["log_fingerprint"] in page.text
    entropy = model.record["attention"]["entropy"]
    assert f"{100 * entropy:.0f} % of the entropy" in page.text


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_counts_of_the_training_log_are_told_apart_once_events_came_in(models, updated, name):
    model = updated[name]
    of_log, now = model.record["counts"]["events"], model.histories.num_events
    assert now == of_log + 4
    pairs = dict(PAIR.findall(data_section(model, item_counts(model))))
    assert pairs["Events of the training log"] == f"{of_log:,}"
    assert pairs["Events of items that the model knows"] == f"{now:,}"
    assert pairs["Items that came after the training"] == "2"
    assert pairs["Of these items, in no list: nothing is known of them yet"] == "1"
    tied = "Events of the training log at the same time as the one before"
    assert pairs[tied].startswith(f"{model.record['counts']['tied_events']:,} (")
    words = "all test figures are of the log that it was trained on"
    assert words in Reader(page_of(model)).text
    # Events of known users and items alone change nothing but the histories.
    few = InteractionLog.from_columns(["3"], ["5"], [1e12])
    more = update(models[name], few).recommender
    gone = forget(models[name], "3").recommender
    for changed, said in ((models[name], False), (more, True), (gone, True)):
        section = data_section(changed, item_counts(changed))
        assert (words in section, "Events of the training log" in section) == (said, said)
        assert ("Events of the log" in section) is not said


def test_models_that_do_not_tell_how_much_they_held(models, updated):
    for model, said in ((models["paper"], False), (updated["paper"], True)):
        record = {key: value for key, value in model.record.items() if key != "events_held"}
        old = Recommender(
            model.network, model.vocabulary, model.histories, model.options, record=record
        )
        section = data_section(old, item_counts(old))
        assert ("Events of the training log" in section) is said


def test_the_pictures_name_what_they_show(pages):
    for path in pages.values():
        page = read(path)
        pictures = [a for name, a in page.elements if name == "svg" and a.get("role") == "img"]
        assert len(pictures) >= 9
        assert path.read_text().count("<svg") >= len(pictures)
        titles = re.findall(r'<svg[^>]*role="img"[^>]*><title>([^<]+)</title>', path.read_text())
        assert len(titles) == len(pictures)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pulls_add_up_to_the_advantage(models, name):
    model = models[name]
    for user in people.chosen_users(model):
        for answer in people.listed(model, user, 5):
            found = model.explain(user_id(model, user), answer.item_id)
            pulls = people.pulls_of(found, 3)
            assert sum(pull.value for pull in pulls) == pytest.approx(
                people.advantage(found), abs=1e-9
            )
            assert len(pulls) <= 4


def test_a_popularity_of_the_moment_is_among_the_pulls_and_in_the_slider(models):
    plain = models["additive"]
    moment = Moment(half_life=40.0, scale=0.3)
    network = at_moment(plain.network, plain.histories, moment)
    model = Recommender(
        network, plain.vocabulary, plain.histories, plain.options, record=plain.record,
        moment=moment,
    )  # fmt: skip
    users = people.chosen_users(model)
    item = people.listed(model, users[0], 1)[0].item_id
    found = model.explain(user_id(model, users[0]), item)
    assert found.offset_pull != 0
    pulls = people.pulls_of(found, 20)
    assert found.offset_pull in [p.value for p in pulls if p.name == "popularity of the moment"]
    assert sum(p.value for p in pulls) == pytest.approx(people.advantage(found), abs=1e-9)
    for each in blend.blends_of(model, users):
        for weight in SETTINGS:
            shown = model.vocabulary.item_ids[each.listed(weight)].tolist()
            assert shown == ids_of(model, each.users, weight)
    assert "half-life 40 events" in Reader(page_of(model)).text


# Safe and whole


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_titles_are_text_and_nothing_else(models, pages, name):
    page, text = read(pages[name]), pages[name].read_text(encoding="utf-8")
    scripts = [a.get("type", "the page's own") for tag, a in page.elements if tag == "script"]
    assert scripts == ["application/json", "the page's own"]
    assert not [tag for tag, _ in page.elements if tag in ("img", "iframe", "object", "embed")]
    assert not [a for _, a in page.elements if any(key.startswith("on") for key in a)]
    for title in NASTY[:3]:
        assert title not in text
        assert title in " ".join(page.words) or title in text.replace("\\u003c", "<").replace(
            "\\u003e", ">"
        ).replace('\\"', '"')
    data = json.loads(text.split('id="slider-data">')[1].split("</script>")[0])
    assert {title for _, title in data["items"]} <= set(models[name].titles.values())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_outside_is_named(pages, name):
    page, text = read(pages[name]), pages[name].read_text(encoding="utf-8")
    for key in ("src", "href", "action", "data", "srcset", "poster", "xlink:href"):
        named = {attributes[key] for _, attributes in page.elements if key in attributes}
        assert all(value.startswith(("#", "data:")) for value in named), named
    assert "@import" not in text
    assert "url(" not in text
    assert set(re.findall(r"https?://.{7}", text)) <= {"http://example"}  # a title's text
    (policy,) = [a["content"] for _, a in page.elements if "http-equiv" in a]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_markup_escapes_whatever_is_not_html():
    assert (
        tag("p", "<b>", tag("i", "&"), title='"') == '<p title="&quot;">&lt;b&gt;<i>&amp;</i></p>'
    )
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_without_record_and_titles(models, name):
    model = models[name]
    bare = Recommender(model.network, model.vocabulary, model.histories, model.options)
    page = Reader(page_of(bare))
    for words in (
        "holds no test figures", "does not hold its epochs", "does not say what cleaning",
        "not saved yet", "of the entropy",
    ):  # fmt: skip
        assert words in page.text


def without_the_history_of_4(model):
    lists = [history.tolist() for history in model.histories.histories]
    lists[4] = []
    histories = Sequences(Ragged.from_lists(lists))
    return Recommender(model.network, model.vocabulary, histories, model.options)


def test_a_user_with_neither_row_nor_history_is_not_shown(models):
    bare = without_the_history_of_4(models["additive"])
    everybody = people.chosen_users(bare, most=bare.vocabulary.num_users)
    assert everybody
    assert 4 not in everybody


def test_a_user_without_history(models):
    bare = without_the_history_of_4(models["paper"])
    assert people.chosen_users(bare)[0] == 4
    page = Reader(page_of(bare))
    assert "Has no history that the model knows." in page.text
    assert blend.disagreements(bare, blend.blends_of(bare, people.chosen_users(bare)))[0] == 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_users_who_took_everything_and_models_of_one_user(models, name):
    model = models[name]
    everything = list(range(model.vocabulary.num_items))
    vocabulary = Vocabulary(model.vocabulary.user_ids[:1], model.vocabulary.item_ids, 1)
    network = make_network(model.options.model, 1, len(everything))
    whole = Recommender(
        network, vocabulary, Sequences(Ragged.from_lists([everything])), model.options
    )
    page = Reader(page_of(whole))
    assert "No item is left to recommend." in page.text
    assert "There is nothing to weigh" in page.text


@pytest.mark.parametrize("name", ["model-1", "additive-model-1"])
def test_the_page_of_a_model_of_an_earlier_version(name, tmp_path):
    (folder,) = [p for p in (Path(__file__).parent / "formats").glob(name) if p.is_dir()]
    path = write_page(attrec.load(folder), tmp_path / "page.html", name=name)
    assert name in read(path).text


def test_of_a_large_catalogue_a_sample_is_drawn(models, monkeypatch):
    monkeypatch.setattr(catalogue, "MOST_POINTS", 20)
    monkeypatch.setattr(catalogue.points_to_draw, "__defaults__", (20,))
    monkeypatch.setattr(blend, "_CHECKED_WHOLE", 10)
    page = Reader(page_of(models["paper"]))
    assert "the 10 most popular and a sample of 10 others are drawn" in page.text
    assert sum(a.get("class") == "point" for _, a in page.elements) == 20
    assert "all 50 lists agreed" in page.text


def test_a_page_that_cannot_be_written_is_a_sentence(models, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot be written"):
        write_page(models["paper"], tmp_path / "file" / "page.html")
    code, text = run_cli(tmp_path, ["report", "nowhere"], columns=200)
    assert code == 2
    assert "no saved model" in text


def test_a_page_with_the_name_of_a_folder_leaves_nothing_behind(models, tmp_path):
    models["paper"].save(tmp_path / "model")
    (tmp_path / "folder").mkdir()
    code, text = run_cli(tmp_path, ["report", "model", "--out", "folder"], columns=200)
    assert code == 2
    assert "folder: cannot be written" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "model"]


# Exact


def undercut(first, second, k, slack):
    """Items that k others undercut at both ends, one by one."""
    return np.array(
        [
            sum(a < x - slack and b < y - slack for a, b in zip(first, second, strict=True)) >= k
            for x, y in zip(first, second, strict=True)
        ]
    )


@given(
    st.integers(1, 40).flatmap(
        lambda n: st.tuples(*[st.lists(st.integers(0, 9), min_size=n, max_size=n)] * 2)
    ),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.5, 2.0]),
)
def test_who_can_be_listed_is_found_as_by_comparing_all_with_all(ends, k, slack):
    first, second = (np.array(values, dtype=np.float64) for values in ends)
    found = blend.can_be_listed(first, second, k, slack)
    assert found.tolist() == (~undercut(first, second, k, slack)).tolist()


@given(st.integers(0, 10**6), st.integers(2, 200), st.integers(1, 12), st.floats(0, 1))
def test_the_items_that_are_kept_give_the_lists_of_all(seed, n, k, weight):
    rng = np.random.default_rng(seed)
    first, second = rng.random(n), rng.random(n)
    items = np.flatnonzero(blend.can_be_listed(first, second, k))
    kept = blend.Blend((0,), items, first[items], second[items], min(k, n))
    whole = blend.Blend((0,), np.arange(n), first, second, min(k, n))
    assert kept.listed(weight).tolist() == whole.listed(weight).tolist()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_examples_lists_are_the_recommenders(models, name):
    model = models[name]
    blends = blend.blends_of(model, people.chosen_users(model))
    assert len(blends) == {"paper": 10, "additive": 5}[name]
    assert all(len(each.items) < model.vocabulary.num_items - 10 for each in blends)
    for each in blends:
        for weight in SETTINGS:
            shown = model.vocabulary.item_ids[each.listed(weight)].tolist()
            assert shown == ids_of(model, each.users, weight)
    assert blend.disagreements(model, blends) == (0, 101 * len(blends))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_item_of_which_nothing_is_known_is_in_no_list_of_the_page(updated, name):
    model = updated[name]
    (unplaced,) = model.vocabulary.encode_items(["secret"])
    blends = blend.blends_of(model, people.chosen_users(model))
    for each in blends:
        assert unplaced not in each.items
        for weight in SETTINGS:
            shown = model.vocabulary.item_ids[each.listed(weight)].tolist()
            assert shown == ids_of(model, each.users, weight)
    assert blend.disagreements(model, blends) == (0, 101 * len(blends))
    # A page that lists it would be found out.
    (some, *_) = blends
    wrong = replace(
        some,
        items=np.append(some.items, unplaced),
        first=np.append(some.first, 0.0),
        second=np.append(some.second, 0.0),
    )
    assert blend.disagreements(model, [wrong]) == (101, 101)
    page = page_of(model)
    assert f"all {101 * len(blends):,} lists agreed" in page
    data = json.loads(page.split('id="slider-data">')[1].split("</script>")[0])
    assert "secret" not in [item for item, _ in data["items"]]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_item_of_which_nothing_is_known_is_not_on_the_map(updated, name):
    model = updated[name]
    placed = np.setdiff1d(
        np.arange(model.vocabulary.num_items), model.vocabulary.encode_items(["secret"])
    )
    network = model.network
    keys = network.keys() if name == "additive" else item_keys(network)
    keys = keys.detach()[torch.as_tensor(placed)].double()
    _, values, axes = torch.linalg.svd(keys - keys.mean(dim=0), full_matrices=False)
    found = catalogue.plane_of(network)
    assert found.shares == pytest.approx((values**2 / (values**2).sum())[:2].numpy(), abs=1e-6)
    expected = ((keys - keys.mean(dim=0)) @ axes[:2].T).numpy()
    assert np.abs(found.places[placed]) == pytest.approx(np.abs(expected), abs=1e-5)
    assert np.isnan(found.places).sum() == 2
    page = catalogue.catalogue_section(model, item_counts(model))
    drawn = re.findall(r"<title>([^<]+): \d+ events</title>", page)
    assert len(drawn) == len(placed)
    assert "late" in drawn
    assert "secret" not in drawn
    assert "1 item that came after the training is not drawn" in page


def test_a_list_that_differs_is_told(models):
    model = models["paper"]
    (first, *_) = blend.blends_of(model, people.chosen_users(model))
    wrong = replace(first, first=first.first[::-1].copy())
    assert blend.disagreements(model, [first])[0] == 0
    assert blend.disagreements(model, [wrong])[0] > 50


# Numbers behind the pictures


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_plane_is_that_of_the_singular_values(models, name, monkeypatch):
    monkeypatch.setattr(catalogue, "_ROWS_AT_ONCE", 7)
    network = models[name].network
    keys = item_keys(network, torch.float64)
    _, values, axes = torch.linalg.svd(keys - keys.mean(dim=0), full_matrices=False)
    found = catalogue.plane_of(network)
    assert found.shares == pytest.approx((values**2 / (values**2).sum())[:2].numpy(), abs=1e-6)
    expected = ((keys - keys.mean(dim=0)) @ axes[:2].T).numpy()
    assert np.abs(found.places) == pytest.approx(np.abs(expected), abs=1e-5)


def test_the_weights_by_age_are_the_mean_over_single_histories(models):
    model = models["additive"]
    lists = [[1, 2, 3, 4, 5, 6, 7, 8], [5], [], [9, 9, 2]]
    found = sight.weights_by_age(model.network, Ragged.from_lists(lists), ages=7)
    total, times = np.zeros((model.network.config.heads, 7)), np.zeros(7)
    with torch.no_grad():
        for items in (lists[0][-6:], lists[1], lists[3]):
            weights, _ = model.network.contributions(torch.tensor(items), dtype=torch.float64)
            for age in range(len(items)):
                total[:, age] += weights[:, len(items) - 1 - age].numpy()
                times[age] += 1
    assert np.isnan(found[:, 6]).all()
    assert found[:, :6] == pytest.approx(total[:, :6] / times[:6], abs=1e-9)


def test_the_weights_by_slot_are_the_mean_over_single_windows(models):
    model = models["paper"]
    lists = [[1, 2, 3, 4, 5, 6, 7], [5, 6], [8, 7, 6, 5, 4, 3]]
    found = sight.weights_by_slot(model.network, Ragged.from_lists(lists))
    with torch.no_grad():
        windows = [torch.tensor([items[-6:]]) for items in (lists[0], lists[2])]
        expected = torch.stack(
            [model.network.attention(window, dtype=torch.float64)[0] for window in windows]
        ).mean(dim=0)
    off = ~np.eye(6, dtype=bool)
    assert found[off] == pytest.approx(expected.numpy()[off], abs=1e-9)
    assert np.isnan(np.diag(found)).all()
    assert sight.weights_by_slot(model.network, Ragged.from_lists([[1, 2]])) is None


@pytest.mark.parametrize(
    ("entropy", "content", "word"),
    [
        (0.5, 0.9, "Content."), (0.5, 0.1, "Position."), (0.5, 0.5, "Both."),
        (0.999, 0.5, "It hardly matters"), (1.0, None, "Neither"), (None, None, "No history"),
    ],
)  # fmt: skip
def test_content_or_position_is_answered(entropy, content, word):
    profile = {"entropy": entropy, "content_share": content}
    assert sight.content_or_position(profile).startswith(word)


def test_an_attention_that_no_record_holds_is_read(models):
    model = models["additive"]
    bare = Recommender(model.network, model.vocabulary, model.histories, model.options)
    windows = attrec.data.sequences.last_items(model.histories.histories, 6)
    assert sight.profile_of(bare) == attention_profile(model.network, windows)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_few_and_inside(low, width, most):
    found = charts.ticks(low, low + width, most)
    assert len(found) <= most + 1
    assert all(low - 1e-6 * width <= t <= low + width * (1 + 1e-6) for t in found)


@given(
    st.lists(
        st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 9)] * 2), min_size=1, max_size=25
    ),
    st.integers(1, 25),
)
def test_labels_that_are_written_do_not_cover_each_other(corners, most):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in corners], dtype=np.float64)
    chosen = catalogue.without_overlap(boxes, most)
    cells = [
        {(i, j) for i in range(x, x + w) for j in range(y, y + h)}
        for x, y, w, h in (corners[c] for c in chosen)
    ]
    assert sum(map(len, cells)) == len(set().union(*cells))
    assert chosen[0] == 0
    assert len(chosen) <= most


def test_charts_of_hardly_anything():
    assert "<svg" in charts.histogram("t", np.array([3, 3]), x_label="x", y_label="y")
    assert "<svg" in charts.line_chart("t", [charts.Line("a", [1], [0.0])], x_label="x")
    assert "<svg" in charts.intervals("t", [charts.Interval("a", 0.0, None, None)])
    assert "<svg" in charts.columns("t", ["1"], [("a", [0.0])], x_label="x")
    assert "<svg" in charts.bars("t", ["a"], [0.0])
    assert "nan" not in charts.heat(
        "t", np.array([[np.nan, 0.5]]), ["a"], ["b", "c"], x_label="x", y_label="y"
    )


# In a browser


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("the page is looked at in Chromium: there is no chromium or no chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(driver)
    chrome = webdriver.Chrome(options=options, service=service)
    yield chrome
    chrome.quit()


def opened(browser, path, *, width=1400, dark=False):
    """Open a page on a screen of this width, the logs emptied before."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri())
    return browser


def shown_ids(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('#ranking li')].map((row) => row.dataset.item)"
    )


def turn(browser, weight):
    browser.execute_script(
        "const slider = document.getElementById('weight');"
        "slider.value = arguments[0]; slider.dispatchEvent(new Event('input'))",
        round(100 * weight),
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_page_opens_without_an_error_or_a_request(browser, pages, name):
    opened(browser, pages[name])
    assert browser.get_log("browser") == []
    assert browser.title.startswith(name)
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in sent if m["method"].endswith("WillBeSent")]
    assert pages[name].as_uri() in asked
    assert all(url.startswith("data:") or url == pages[name].as_uri() for url in asked)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_slider_ranks_as_the_recommender_does(browser, models, pages, name):
    model = models[name]
    opened(browser, pages[name])
    blends = blend.blends_of(model, people.chosen_users(model))
    start = 0.2 if name == "paper" else 0.5
    assert shown_ids(browser) == [str(i) for i in ids_of(model, blends[0].users, start)]
    for place in (0, len(blends) - 1):
        browser.execute_script(
            "const choice = document.getElementById('example');"
            "choice.selectedIndex = arguments[0]; choice.dispatchEvent(new Event('change'))",
            place,
        )
        for weight in SETTINGS:
            turn(browser, weight)
            assert shown_ids(browser) == [
                str(i) for i in ids_of(model, blends[place].users, weight)
            ]
    assert browser.get_log("browser") == []


def test_the_slider_is_moved_by_keys_and_goes_back(browser, models, pages):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    model = models["paper"]
    users = blend.blends_of(model, people.chosen_users(model))[0].users
    opened(browser, pages["paper"])
    slider = browser.find_element(By.ID, "weight")
    slider.send_keys(Keys.ARROW_RIGHT * 3)
    assert browser.find_element(By.ID, "shown-weight").text == "0.23"
    assert slider.get_attribute("aria-valuetext") == "ω = 0.23"
    assert shown_ids(browser) == [str(i) for i in ids_of(model, users, 0.23)]
    slider.send_keys(Keys.END)
    assert shown_ids(browser) == [str(i) for i in ids_of(model, users, 1.0)]
    assert "are in the list as trained, too" in browser.find_element(By.ID, "said").text
    browser.find_element(By.ID, "reset").send_keys(Keys.ENTER)
    assert browser.find_element(By.ID, "shown-weight").text == "0.20"
    assert shown_ids(browser) == [str(i) for i in ids_of(model, users, 0.2)]


def test_items_are_found_on_the_map(browser, pages):
    from selenium.webdriver.common.by import By

    opened(browser, pages["additive"])
    browser.find_element(By.ID, "find").send_keys("film 17")
    assert browser.find_element(By.ID, "found").text.startswith("Film 17: ")
    hits = browser.execute_script("return document.querySelectorAll('#map .hit').length")
    assert hits == 1


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("width", [320, 390, 768, 1400])
def test_no_screen_has_to_be_scrolled_sideways(browser, pages, name, width):
    opened(browser, pages[name], width=width)
    browser.execute_script(
        "document.querySelectorAll('details').forEach((part) => { part.open = true; })"
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


OVERLAPS = """
const found = [];
for (const drawing of document.querySelectorAll(".pictures svg")) {
  const words = [...drawing.querySelectorAll("text")];
  const boxes = words.map((word) => word.getBoundingClientRect());
  const frame = drawing.getBoundingClientRect();
  boxes.forEach((a, i) => {
    if (a.left < frame.left - 1 || a.right > frame.right + 1) found.push(words[i].textContent);
    boxes.slice(i + 1).forEach((b, j) => {
      // Lines of text are higher than their letters: across, words must be apart.
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > -1 && down > 5)
        found.push(`${words[i].textContent} | ${words[i + 1 + j].textContent}`);
    });
  });
}
return found;
"""


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("width", [400, 1200])
def test_the_words_of_a_picture_stand_apart(browser, pages, name, width):
    opened(browser, pages[name], width=width)
    assert browser.execute_script(OVERLAPS) == []


CONTRASTS = """
const light = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paper = light(getComputedStyle(document.body).backgroundColor);
const chosen = "p, dt, dd, caption span, th, td, figcaption, summary, svg .end, svg .middle, nav a";
return [...document.querySelectorAll(chosen)].map((element) => {
  const style = getComputedStyle(element), drawn = element.closest("svg") !== null;
  if (element.classList.contains("on-cell") || element.classList.contains("in-cell")) return 21;
  const ink = light(drawn ? style.fill : style.color);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
});
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_both_colour_schemes_can_be_read(browser, pages, dark):
    opened(browser, pages["paper"], dark=dark)
    red = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    level = sum(int(part) for part in re.findall(r"\d+", red)[:3]) / 3
    assert level < 60 if dark else level > 220
    ratios = browser.execute_script(CONTRASTS)
    assert len(ratios) > 100
    assert min(ratios) >= 4.5


def test_the_page_is_printed_whole(browser, pages):
    import base64

    opened(browser, pages["additive"])
    script = "return document.querySelectorAll('details:not([open])').length"
    assert browser.execute_script(script) > 2
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(script) == 0
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(script) > 2
    found = browser.execute_cdp_cmd(
        "Page.printToPDF", {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69}
    )
    pdf = base64.b64decode(found["data"])
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 5


def test_without_scripts_the_list_as_trained_stands_there(browser, models, pages):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened(browser, pages["paper"])
        text = read(pages["paper"])
        listed = [a["data-item"] for name, a in text.elements if name == "li" and "data-item" in a]
        users = blend.blends_of(models["paper"], people.chosen_users(models["paper"]))[0].users
        assert listed == [str(i) for i in ids_of(models["paper"], users, 0.2)]
        from selenium.webdriver.common.by import By

        assert not browser.find_element(By.ID, "weight").is_displayed()
        assert browser.find_element(By.ID, "ranking").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
