"""CUDA by the same code: steps, training, ranking and reasons agree with the CPU's."""

import pytest
import torch

import attrec
from attrec.errors import InterruptedTraining
from attrec.pictures import draw_window
from attrec.training.choice import make_step
from attrec.training.step import Batch
from tests.paper import paper_training
from tests.training.test_step import batches, network

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]


@pytest.mark.parametrize("aggregation", ["mean", "sum", "max"])
def test_a_step_on_cuda_equals_the_step_on_the_cpu(aggregation):
    here, there = network(aggregation=aggregation), network(aggregation=aggregation).cuda()
    ours, theirs = make_step(here, paper_training()), make_step(there, paper_training())
    for batch in batches(4, 3):
        loss = float(ours(batch))
        assert float(theirs(Batch(*(part.cuda() for part in batch)))) == pytest.approx(loss)
    for a, b in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("architecture", ["paper", "additive"])
def test_a_training_on_cuda_goes_on_from_its_checkpoint(tmp_path, architecture):
    log = attrec.simulate("mixed", num_users=60, num_items=40, events_per_user=12, seed=1)
    options = {"architecture": architecture, "device": "cuda", "embedding_dim": 8,
               "max_epochs": 3, "batch_size": 100, "retrain": False}  # fmt: skip

    class Stop(attrec.Listener):
        epochs = 0

        def epoch(self, epoch):
            Stop.epochs += 1

        def stop_requested(self):
            return Stop.epochs == 1

    with pytest.raises(InterruptedTraining):
        attrec.fit(log, listener=Stop(), checkpoint=tmp_path / "kept", **options)
    resumed = attrec.fit(log, checkpoint=tmp_path / "kept", **options)
    assert len(resumed.validation_run.epochs) == 3
    draw_window(resumed.recommender, tmp_path / "window.png")


@pytest.mark.parametrize("architecture", ["paper", "additive"])
def test_a_model_trained_on_cuda_serves_on_both_devices(tmp_path, architecture):
    log = attrec.simulate("mixed", num_users=80, num_items=40, events_per_user=10, seed=1)
    result = attrec.fit(
        log, architecture=architecture, device="cuda", embedding_dim=8, max_epochs=3
    )
    result.recommender.save(tmp_path / "model")
    on_cpu = attrec.load(tmp_path / "model")
    on_cuda = attrec.load(tmp_path / "model", device="cuda")
    for user in on_cpu.vocabulary.user_ids[:20]:
        ours, theirs = on_cpu.recommend(user, k=5), on_cuda.recommend(user, k=5)
        assert [a.item_id for a in ours] == [a.item_id for a in theirs]
        assert [a.distance for a in ours] == pytest.approx([a.distance for a in theirs], abs=1e-5)
    everyone = on_cuda.recommend_batch(k=5)
    assert everyone.item_id.tolist() == on_cpu.recommend_batch(k=5).item_id.tolist()
    evaluation = attrec.evaluate(on_cuda, log)
    assert evaluation.to_dict()["systems"]["attrec"]["mrr"]["mean"] == pytest.approx(
        attrec.evaluate(on_cpu, log).to_dict()["systems"]["attrec"]["mrr"]["mean"], abs=1e-3
    )
