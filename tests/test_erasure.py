"""Somebody is forgotten: nothing of theirs is left in the folder, and nobody else is touched."""

import json

import numpy as np
import pytest
import torch

import attrec
from attrec.data.interactions import InteractionLog
from attrec.data.items import Items
from attrec.erasure import forget
from attrec.errors import RequestError, UnknownIdError
from attrec.export import export
from attrec.retrieval.vectors import item_keys
from attrec.updating import update
from tests.command_line import run_cli

WHO = "zoë-17"
PRESETS = {
    "accurate": {"embedding_dim": 16, "window_length": 12, "max_epochs": 2, "min_steps": 20},
    "paper-sparse": {"embedding_dim": 16, "window_length": 5, "max_epochs": 2},
}
BASE = 1_000_000.25


def log():
    """Communities; WHO took two items that nobody else took."""
    made = attrec.simulate("community", num_users=60, num_items=50, events_per_user=14, seed=3)
    users = [WHO if code == 17 else f"u{code}" for code in made.user_codes]
    items = [f"i{code}" for code in made.item_codes]
    users += [WHO, "u3", WHO, WHO]
    items += ["secret", "i1", "diary", "i2"]
    return InteractionLog.from_columns(users, items, BASE + 1.5 * np.arange(len(users)))


def kinds():
    names = [*(f"i{n}" for n in range(50)), "secret", "diary", "novelty"]
    return Items(
        {"secret": "A secret", "i1": "One"},
        {"kind": {name: f"k{n % 4}|all" if n % 5 else "k0" for n, name in enumerate(names)}},
    )


def late_events():
    """WHO and others take an item that is new; WHO takes one alone; somebody new comes."""
    rows = [(user, "novelty") for user in (WHO, "u1", "u2", "newcomer")]
    rows += [("newcomer", "i3"), (WHO, "pamphlet"), ("newcomer", "i4"), ("u5", "late")]
    users, items = zip(*rows, strict=True)
    return InteractionLog.from_columns(
        list(users), list(items), BASE + 1e6 + 1.5 * np.arange(len(rows)), source="late.csv"
    )


@pytest.fixture(scope="module", params=list(PRESETS))
def trained(request):
    more = {"item_categories": "kind"} if request.param == "accurate" else {}
    return attrec.fit(
        log(), items=kinds(), preset=request.param, **PRESETS[request.param], **more
    ).recommender


@pytest.fixture(scope="module", params=["as trained", "updated"])
def served(request, trained):
    if request.param == "as trained":
        return trained
    return update(trained, late_events(), items=kinds()).recommender


def row_of(model, user):
    return int(model.vocabulary.encode_users([user])[0])


def others(model, *gone):
    return [user for user in model.vocabulary.user_ids.tolist() if user not in gone]


def traces(model, user):
    """Return what of a user stands in the files of a model, as bytes."""
    row = row_of(model, user)
    histories, times = model.histories.histories, model.histories.times
    found = [user.encode(), json.dumps(user)[1:-1].encode(), histories[row].tobytes()]
    if times is not None:
        found += [t.tobytes() for t in times[histories.offsets[row] : histories.offsets[row + 1]]]
    if hasattr(model.network, "user_long") and row < model.network.num_users:
        found.append(model.network.user_long[row].detach().numpy().tobytes())
    return found


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def standing(folder, sought):
    return [trace for trace in sought if any(trace in text for text in files(folder).values())]


def test_no_byte_of_them_is_left_and_nobody_else_is_touched(served, tmp_path):
    folder = tmp_path / "model"
    served.save(folder)
    sought = traces(served, WHO)
    # The id stands there escaped; everything else as it is.
    assert standing(folder, sought) == sought[1:]
    code, said = run_cli(tmp_path, ["forget", "model", WHO], columns=200)
    assert code == 0
    assert "1 user forgotten" in said
    assert standing(folder, sought) == []
    now, before = attrec.load(folder), served
    assert now.vocabulary.user_ids.tolist() == others(before, WHO)
    assert now.info()["events"] == before.info()["events"] - len(
        before.histories.histories[row_of(before, WHO)]
    )
    # An item of an update whose vectors are theirs alone is in no list any more.
    without = {"deny": ["pamphlet"], "k": 60}
    for user in others(before, WHO):
        assert now.recommend(user, k=60) == before.recommend(user, **without)
    some = [f"i{n}" for n in range(6)]
    assert now.recommend(history=some, k=60) == before.recommend(history=some, **without)
    with pytest.raises(UnknownIdError):
        now.recommend(WHO)


def test_items_that_nobody_else_took_can_go_too(served, tmp_path):
    folder = tmp_path / "model"
    served.save(folder)
    alone = {"secret", "diary"} | ({"pamphlet"} & set(served.vocabulary.item_ids))
    code, said = run_cli(tmp_path, ["forget", "model", WHO, "--drop-lone-items"], columns=200)
    assert code == 0
    assert "With them went" in said
    for word in (*alone, "A secret", *traces(served, WHO)[:2]):
        assert standing(folder, [word if isinstance(word, bytes) else word.encode()]) == []
    now = attrec.load(folder)
    assert set(now.vocabulary.item_ids) == set(served.vocabulary.item_ids) - alone
    assert now.vocabulary.num_trained_items == served.vocabulary.num_trained_items - 2
    for user in others(served, WHO):
        left = [a for a in served.recommend(user, k=60) if a.item_id not in alone]
        found = now.recommend(user, k=60)
        assert [(a.item_id, a.distance, a.title) for a in found] == [
            (a.item_id, a.distance, a.title) for a in left
        ]
        history = served.histories.histories[row_of(served, user)]
        kept = now.histories.histories[row_of(now, user)]
        same = served.vocabulary.decode_items(history).tolist()
        assert now.vocabulary.decode_items(kept).tolist() == same


def test_a_model_without_somebody_can_be_brought_up_to_date(served):
    now = forget(served, [WHO], drop_lone_items=True).recommender
    again = update(now, late_events(), items=kinds())
    assert WHO in again.recommender.vocabulary.user_ids  # the events were given again
    assert again.recommender.recommend("newcomer", k=5)
    assert again.recommender.recommend(WHO, k=5)


def test_explanations_stay(trained):
    now = forget(trained, WHO).recommender
    for user in others(trained, WHO)[:9]:
        assert now.explain(user, "i7", versus="i8") == trained.explain(user, "i7", versus="i8")


def test_the_rows_of_items_that_stay_are_the_same_bits(served):
    found = forget(served, WHO, drop_lone_items=True).recommender
    place = torch.as_tensor(served.vocabulary.encode_items(found.vocabulary.item_ids))
    assert torch.equal(item_keys(found.network), item_keys(served.network)[place])
    if hasattr(served.network, "contexts"):
        assert torch.equal(found.network.contexts(), served.network.contexts()[place])
        rows = torch.arange(len(place)).flip(0)
        assert torch.equal(found.network.keys(rows), found.network.keys()[rows])
    else:
        assert torch.equal(found.network.item_long, served.network.item_long[place])
        kept = [u for u in range(served.network.num_users) if u != row_of(served, WHO)]
        assert torch.equal(found.network.user_long, served.network.user_long[kept])


def test_the_given_model_stays_as_it_is(served):
    before = {name: value.clone() for name, value in served.network.state_dict().items()}
    answer = served.recommend(WHO, k=9)
    forget(served, [WHO, "u3"], drop_lone_items=True)
    forget(served, [WHO, "u3"])
    assert served.recommend(WHO, k=9) == answer
    for name, value in served.network.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_summary_counts_and_names(trained):
    summary = forget(trained, [WHO, "u3", WHO]).summary
    length = trained.histories.histories.lengths
    assert summary.users == summary.trained_users == 2
    assert summary.events == length[row_of(trained, WHO)] + length[row_of(trained, "u3")]
    assert set(summary.lone_items) == {"secret", "diary"}
    assert summary.dropped_items == 0
    assert "2 users forgotten, with" in str(summary)
    assert "--drop-lone-items" in str(summary)
    paper = hasattr(trained.network, "user_long")
    assert summary.user_rows == (2 if paper else 0)
    tables = "X, V and W have learnt" if paper else "vectors of the items and the attention have"
    assert tables in str(summary)
    assert "only a training without them undoes" in str(summary)


def test_late_items_of_theirs_alone_are_as_new(trained):
    served = update(trained, late_events(), items=kinds()).recommender
    found = forget(served, WHO)
    assert set(found.summary.lone_items) == {"secret", "diary", "pamphlet"}
    assert found.summary.unplaced_items == ("pamphlet",)
    assert "2 with vectors that were learnt from them alone, 1 in no list" in str(found.summary)
    unplaced = set(served.vocabulary.item_ids[served.network.unplaced.numpy()])
    now = found.recommender
    assert set(now.vocabulary.item_ids[now.network.unplaced.numpy()]) == unplaced | {"pamphlet"}
    more = InteractionLog.from_columns(["u7"], ["pamphlet"], [BASE + 2e6])
    again = update(now, more, items=kinds()).recommender
    assert set(again.vocabulary.item_ids[again.network.unplaced.numpy()]) == unplaced


def test_a_late_item_is_theirs_where_nobody_else_says_anything_of_it(trained, tmp_path):
    """Somebody who takes it first of all adds nothing to its vectors."""
    users, items = [WHO, "newcomer", "u1", WHO], ["brochure", "brochure", "leaflet", "leaflet"]
    late = InteractionLog.from_columns(users, items, BASE + 1e6 + np.arange(4.0))
    served = update(trained, late, items=kinds()).recommender
    served.save(tmp_path / "model")
    at = int(served.vocabulary.encode_items(["brochure"])[0])
    network = served.network
    tables = (
        [network.item_short[at], network.item_long[at]]
        if hasattr(network, "item_long")
        else [
            table[at - network.num_trained_items]
            for table in (network.folded_key, network.folded_context)
        ]
    )
    vectors = [table.detach().numpy().tobytes() for table in tables]
    assert standing(tmp_path / "model", vectors) == vectors
    code, said = run_cli(tmp_path, ["forget", "model", WHO], columns=200)
    assert code == 0
    assert "1 item that others took too (brochure) had vectors that were made of them" in said
    assert standing(tmp_path / "model", vectors) == []
    now = attrec.load(tmp_path / "model")
    listed = {answer.item_id for answer in now.recommend("u5", k=60, exclude_seen=False)}
    assert "brochure" not in listed
    assert "leaflet" in listed
    assert forget(served, [WHO, "u1"]).summary.unplaced_items == ("brochure", "leaflet")
    with pytest.raises(RequestError, match="none of the user's items is known"):
        now.recommend("newcomer")


def test_an_item_that_went_says_as_little_after_the_next_update(trained):
    users, items = ["newcomer", WHO, "newcomer"], ["brochure", "brochure", "i3"]
    late = InteractionLog.from_columns(users, items, BASE + 1e6 + np.arange(3.0))
    served = update(trained, late, items=kinds()).recommender
    now = forget(served, WHO).recommender
    more = InteractionLog.from_columns(["u7"], ["i9"], [BASE + 2e6])
    later = update(now, more, items=kinds()).recommender
    lists = [model.recommend("newcomer", k=20) for model in (served, now, later)]
    went, stayed = [[answer.item_id for answer in answers] for answers in lists[1:]]
    assert went == stayed
    assert [a.distance for a in lists[1]] == pytest.approx([a.distance for a in lists[2]])
    assert lists[0] != lists[1]


def test_observed_events_go_too(trained):
    served = update(trained, late_events(), items=kinds()).recommender
    for user in (WHO, "u8"):
        assert served.observe(user, "i9", BASE + 3e6)
        assert not served.observe(user, "unheard of", BASE + 4e6)
    length = len(served.histories.histories[row_of(served, WHO)])
    found = forget(served, WHO)
    assert found.summary.events == length
    now = found.recommender
    assert now.waiting.user_ids.tolist() == ["u8"]
    assert len(now.waiting) == 1
    assert now.recommend("u8", k=5) == served.recommend("u8", k=5, deny=["pamphlet"])
    assert len(served.waiting) == 2


def test_an_item_is_lone_where_all_who_took_it_go():
    users = ["a", "b", "c", "a", "b", "c", "a", "c", "b", "d", "d", "d"]
    items = ["x", "x", "y", "y", "z", "w", "w", "x", "y", "y", "x", "w"]
    # Something that everybody takes before and after, so that there is enough to learn from.
    before = [(user, item) for item in "mnop" for user in "abcd"]
    after = [(user, item) for item in "qrst" for user in "abcd"]
    events = [*before, *zip(users, items, strict=True), *after]
    made = InteractionLog.from_columns(*map(list, zip(*events, strict=True)))
    model = attrec.fit(
        made, preset="paper-sparse", max_epochs=1, embedding_dim=4, split="leave-last-out"
    ).recommender
    both = {"x": "abcd", "y": "abcd", "z": "b", "w": "acd", **dict.fromkeys("mnopqrst", "abcd")}
    for gone in (["a"], ["b"], ["a", "b"], ["a", "c", "d"], ["a", "b", "c", "d"]):
        known = set(model.vocabulary.item_ids)
        expected = {item for item, takers in both.items() if set(takers) <= set(gone)} & known
        assert set(forget(model, gone).summary.lone_items) == expected


def test_a_newcomer_whom_no_table_knows(trained):
    served = update(trained, late_events(), items=kinds()).recommender
    summary = forget(served, "newcomer").summary
    assert summary.trained_users == summary.user_rows == 0
    assert "have learnt" not in str(summary)
    assert "may have counted them, until the next update" in str(summary)


def test_everybody_can_be_forgotten(served, tmp_path):
    found = forget(served, served.vocabulary.user_ids).recommender
    found.save(tmp_path / "empty")
    now = attrec.load(tmp_path / "empty")
    assert now.vocabulary.num_users == 0
    assert now.vocabulary.user_kind == "string"
    # An item that came after training goes with those who took it.
    late = set(served.vocabulary.item_ids[served.vocabulary.num_trained_items :])
    ours, before = (
        [p for p in each.recommend(history=["i1", "i2"], k=8) if p.item_id not in late][:3]
        for each in (now, served)
    )
    assert [place.item_id for place in ours] == [place.item_id for place in before]
    # All distances are greater by the same number while a late item's key is longer than 1.
    moved = [old.distance - new.distance for old, new in zip(before, ours, strict=True)]
    raised = getattr(served.network, "raised", 0.0) - getattr(now.network, "raised", 0.0)
    assert moved == pytest.approx([raised] * 3, abs=1e-6)


def test_the_last_item_does_not_go(trained, tmp_path):
    """A model without items could answer nobody, and could not be drawn."""
    trained.save(tmp_path / "model")
    before = files(tmp_path / "model")
    everybody = trained.vocabulary.user_ids.tolist()
    words = ["forget", "model", *everybody, "--drop-lone-items"]
    code, said = run_cli(tmp_path, words, columns=400)
    assert code == 2
    assert "none would be left, and nobody was forgotten; leave out drop_lone_items" in said
    assert files(tmp_path / "model") == before
    assert run_cli(tmp_path, words[:-1], columns=400)[0] == 0
    assert run_cli(tmp_path, ["report", "model"], columns=400)[0] == 0
    code, said = run_cli(tmp_path, ["recommend", "model", "--all"], columns=400)
    assert (code, "nobody is left of 0 users" in said) == (2, True)


def test_what_killed_commands_left_beside_the_model_is_named(trained, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    trained.save(tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)  # nothing cleans up after a process that is killed
        patch.setattr("attrec.export.fingerprint", killed)
        with pytest.raises(Killed):
            export(trained, tmp_path / "keys")
    (tmp_path / ".attrec-0123.tmp").touch()
    (left,) = tmp_path.glob(".keys.*.tmp")
    code, said = run_cli(tmp_path, ["forget", "model", WHO, "--json"], columns=400)
    assert code == 0, said
    assert json.loads(said)["not_looked_into"] == [".attrec-0123.tmp", left.name]


def test_users_that_are_not_there(served, tmp_path):
    served.save(tmp_path / "model")
    before = files(tmp_path / "model")
    code, said = run_cli(tmp_path, ["forget", "model", "u1", "nobody"], columns=200)
    assert code == 2
    assert said.count("\n") == 1
    assert "'nobody' is not in the model, and nobody was forgotten" in said
    assert files(tmp_path / "model") == before
    assert run_cli(tmp_path, ["forget", "model", WHO], columns=200)[0] == 0
    code, said = run_cli(tmp_path, ["forget", "model", WHO], columns=200)
    assert code == 2
    assert "is not in the model" in said
    with pytest.raises(UnknownIdError, match=r"'v' \(and 1 more\) is not in the model"):
        forget(served, ["u1", "v", "w"])
    with pytest.raises(RequestError, match="at least one user"):
        forget(served, [])
    with pytest.raises(RequestError, match="None is no user and no list of users"):
        forget(served, None)


def test_another_folder_and_what_lies_beside(trained, tmp_path):
    trained.save(tmp_path / "model")
    (tmp_path / "model.checkpoint").mkdir()
    before = files(tmp_path / "model")
    code, said = run_cli(
        tmp_path, ["forget", "model", WHO, "u3", "--out", "other", "--json"], columns=200
    )
    assert code == 0
    told = json.loads(said)
    assert told["users"] == 2
    assert told["not_looked_into"] == ["model", "model.checkpoint"]
    assert files(tmp_path / "model") == before
    assert attrec.load(tmp_path / "other").vocabulary.num_users == 58
    code, said = run_cli(tmp_path, ["forget", "model", WHO], columns=200)
    assert "Not looked into, and they may be in there: model.checkpoint." in said
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "theirs.txt").write_text("x")
    code, said = run_cli(tmp_path, ["forget", "model", "u3", "--out", "there"], columns=200)
    assert code == 2
    assert "holds something that is not an AttRec model" in said


def test_fingerprints_of_files_without_times_go_from_the_record():
    made = attrec.simulate("community", num_users=20, num_items=20, events_per_user=8, seed=1)
    made = InteractionLog.from_columns(made.user_codes + 100, made.item_codes + 500)
    model = attrec.fit(made, preset="paper-sparse", max_epochs=1, embedding_dim=4).recommender
    more = InteractionLog.from_columns([101], [505])
    model = update(model, more).recommender
    assert model.record["updates"]
    found = forget(model, 105)
    assert "updates" not in found.recommender.record
    assert found.summary.updates == 1
    assert "do not give them again" in str(found.summary)
    assert "updates" in model.record


def test_an_id_in_a_filter_is_pointed_at():
    made = attrec.simulate("community", num_users=20, num_items=20, events_per_user=8, seed=1)
    model = attrec.fit(made, preset="paper-sparse", max_epochs=1, embedding_dim=4).recommender
    user = made.user_ids[3]
    plain = forget(model, [user])
    assert plain.summary.mentions == ()
    model.options = model.options.with_(where=f"user not in ('{user}', '99')")
    found = forget(model, [user]).summary
    assert found.mentions == ("where",)
    assert "may stand in where: look there" in str(found)
    assert forget(model, [made.user_ids[9]]).summary.mentions == ()


def test_the_page_in_the_folder_goes_and_what_else_lies_there_is_named(trained, tmp_path):
    trained.save(tmp_path / "model")
    assert run_cli(tmp_path, ["report", "model"], columns=200)[0] == 0
    (tmp_path / "model" / "notes.txt").write_text(f"{WHO} likes diaries")
    (tmp_path / "model.vectors").mkdir()
    assert standing(tmp_path / "model", [WHO.encode()])
    code, said = run_cli(tmp_path, ["forget", "model", WHO], columns=200)
    assert code == 0
    assert "they may be in there: model.vectors, model/notes.txt." in said
    assert not (tmp_path / "model" / "report.html").exists()
    (tmp_path / "model" / "notes.txt").unlink()
    assert not standing(tmp_path / "model", [WHO.encode()])


def test_in_the_folder_of_the_model_itself(trained, tmp_path):
    trained.save(tmp_path / "model")
    late = tmp_path / "late.csv"
    late.write_text("user,item,time\nu3,i9,2000000\n")
    for words in (["update", ".", str(late)], ["forget", ".", WHO]):
        code, said = run_cli(tmp_path / "model", words, columns=200)
        assert code == 0, said
        assert "Saved to" in said
    assert (tmp_path / "model.updated" / "manifest.json").exists()
    assert "model.updated" in said
    assert not standing(tmp_path / "model", [WHO.encode()])


def test_a_forgetting_that_was_killed_is_ended_by_the_next(trained, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    trained.save(folder)
    sought = traces(trained, WHO)[1:]

    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("attrec.artifact._remove_unnamed", killed)
        forget(trained, WHO).recommender.save(folder)
    assert standing(folder, sought) == sought
    code, said = run_cli(tmp_path, ["forget", "model", WHO], columns=200)
    assert (code, "is not in the model" in said) == (2, True)
    assert standing(folder, sought) == []
    assert attrec.load(folder).vocabulary.user_ids.tolist() == others(trained, WHO)
