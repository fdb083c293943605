import json

import numpy as np
import pytest
import torch

from attrec.config import ProtocolConfig
from attrec.data.cases import Cases
from attrec.data.ragged import Ragged
from attrec.evaluation.evaluate import Evaluation, evaluate_systems
from attrec.evaluation.ranking import rank_targets

N = 20


def cases_of(num_users=40, seed=0, new=(), repeats=0):
    rng = np.random.default_rng(seed)
    histories = [rng.permutation(N)[: rng.integers(1, 15)].tolist() for _ in range(num_users)]
    targets = [
        [history[0]] if user < repeats else [int(rng.choice(np.setdiff1d(np.arange(N), history)))]
        for user, history in enumerate(histories)
    ]
    index = np.arange(num_users)
    index[list(new)] = -1
    return Cases(index, Ragged.from_lists(histories), Ragged.from_lists(targets))


def knows(cases, share=1.0):
    """A scorer that puts the target of the first ``share`` of users first, others anywhere."""

    def scorer(block):
        rng = np.random.default_rng(len(block))
        distances = torch.from_numpy(rng.random((len(block), N)) + 1.0)
        for row in range(len(block)):
            if rng.random() < share:
                distances[row, int(block.targets[row][0])] = 0.0
        return distances

    return scorer


def flat(block):
    return torch.arange(N, dtype=torch.float32).expand(len(block), -1)


def judged(cases, systems, **options):
    config = ProtocolConfig(cutoffs=(1, 5), **options)
    return evaluate_systems(systems, cases, config, np.arange(N), "a split in words", resamples=200)


def test_a_system_that_knows_beats_one_that_does_not():
    cases = cases_of()
    found = judged(cases, {"knows": knows(cases), "flat": flat})
    knowing = found.systems["knows"].metrics
    assert knowing["hit_rate@1"]["mean"] == knowing["mrr"]["mean"] == 1.0
    assert (knowing["mrr"]["low"], knowing["mrr"]["high"]) == (1.0, 1.0)
    flat_figures = found.systems["flat"]
    expected = rank_targets(flat, cases, N).ranks.values
    assert flat_figures.metrics["mrr"]["mean"] == pytest.approx((1 / expected).mean())
    difference = found.differences["flat"]["mrr"]
    assert difference["mean"] == pytest.approx(1 - (1 / expected).mean())
    assert difference["low"] > 0
    assert difference["excludes_zero"] is True
    assert "knows" not in found.differences


def test_equal_systems_do_not_differ():
    cases = cases_of()
    found = judged(cases, {"one": flat, "other": flat})
    assert found.differences["other"]["mrr"] == {
        "mean": 0.0, "low": 0.0, "high": 0.0, "excludes_zero": False,
    }  # fmt: skip


def test_seeds_are_averaged_per_user():
    cases = cases_of()
    found = judged(cases, {"two seeds": [knows(cases), flat]})
    mrr = found.systems["two seeds"].metrics["mrr"]
    assert len(mrr["values"]) == 2
    assert mrr["values"][0] == 1.0
    assert mrr["mean"] == pytest.approx(np.mean(mrr["values"]))
    alone = judged(cases, {"flat": flat}).systems["flat"].per_user["mrr"]
    np.testing.assert_allclose(found.systems["two seeds"].per_user["mrr"], (1 + alone) / 2)
    assert "mean over 2 seeds" in found.protocol


def test_a_ready_ranking_counts_like_its_scorer():
    cases = cases_of(new=(3, 7))
    ranking = rank_targets(flat, cases, N, top_k=5)
    found = judged(cases, {"scorer": flat, "ready": ranking})
    for part in (found, found.new_users):
        assert part.systems["ready"].metrics == part.systems["scorer"].metrics


def test_the_protocol_is_named_in_full():
    cases = cases_of()
    line = judged(cases, {"flat": flat}, filter_seen=False, ties="optimistic").protocol
    for words in (
        "a split in words", "full ranking over 20 items", "seen before kept in", "ties optimistic",
        "40 users", "95 % intervals by 200 bootstrap draws",
    ):  # fmt: skip
        assert words in line
    assert "left out" in judged(cases, {"flat": flat}).protocol


def test_slices_divide_the_users():
    cases = cases_of()
    found = judged(cases, {"flat": flat})
    by_history = [s["users"] for name, s in found.slices.items() if name.startswith("history")]
    by_target = [s["users"] for name, s in found.slices.items() if name.startswith("target")]
    assert sum(by_history) == sum(by_target) == 40
    lengths = cases.histories.lengths
    short = found.slices["history of 0 to 4 events"]
    assert short["users"] == (lengths < 5).sum()
    values = found.systems["flat"].per_user["mrr"][lengths < 5]
    assert short["flat"]["mrr"] == pytest.approx(values.mean())


def test_the_popularity_bands_by_hand():
    # Counts 0 … 19 sum to 190; from the most popular down, 19 … 15 hold 85, 14 brings 99.
    index, histories = np.arange(N), Ragged.from_lists([[]] * N)
    cases = Cases(index, histories, Ragged.from_lists([[item] for item in range(N)]))
    slices = judged(cases, {"flat": flat}).slices
    users = {name.split()[3]: s["users"] for name, s in slices.items() if name[0] == "t"}
    # Head: 19 … 14 (half is 95). Tail: what begins beyond 152 of the events, 8 … 0.
    assert users == {"head": 6, "middle": 5, "tail": 9}


def test_new_users_stand_apart():
    cases = cases_of(new=(0, 1, 2))
    found = judged(cases, {"flat": flat})
    assert found.counts["users"] == 37
    assert found.new_users.counts["users"] == found.new_users.counts["new_users"] == 3
    everybody_new = cases_of(new=range(40))
    assert judged(everybody_new, {"flat": flat}).new_users is None


def test_where_targets_repeat_both_filters_are_shown():
    cases = cases_of(repeats=10)
    found = judged(cases, {"flat": flat, "ready": rank_targets(flat, cases, N, top_k=5)})
    assert found.counts["repeated_target_share"] == 0.25
    assert "kept in" in found.other_filter.protocol
    assert list(found.other_filter.systems) == ["flat"]
    turned = judged(cases, {"flat": flat}, filter_seen=False)
    assert turned.other_filter.systems["flat"].metrics == found.systems["flat"].metrics
    assert judged(cases_of(repeats=4), {"flat": flat}).other_filter is None
    only_ready = judged(cases, {"ready": rank_targets(flat, cases, N, top_k=5)})
    assert only_ready.other_filter is None


def test_unknown_targets_are_counted_as_misses():
    cases = cases_of(4)
    cases = Cases(cases.user_index, cases.histories, Ragged.from_lists([[-1], [-1], [1], [2]]))
    found = judged(cases, {"knows": knows(cases)})
    assert found.counts["targets_unknown_to_training"] == 2
    assert found.systems["knows"].metrics["hit_rate@5"]["mean"] <= 0.5


def test_the_figures_survive_json():
    found = judged(cases_of(new=(1,), repeats=12), {"flat": flat})
    text = found.to_json()
    again = Evaluation.from_dict(json.loads(text))
    assert again.to_json() == text
    assert "flat" in str(again)
    assert "mrr" in str(again)
    assert again.protocol in str(again)
    assert found.main_metrics() == ["hit_rate@1", "ndcg@1", "hit_rate@5", "ndcg@5", "mrr"]
