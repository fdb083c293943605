import numpy as np
import pytest
import torch
from tests.paper import paper_model, paper_training

from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.errors import DataError
from attrec.model.network import AttRecNetwork
from attrec.native.library import available
from attrec.training.choice import make_step
from attrec.training.trainer import train

STEP = "NativeStep" if available() else "FusedStep"


def sequences(users=20, items=15, length=8, seed=0):
    rng = np.random.default_rng(seed)
    return Sequences(Ragged.from_lists([rng.integers(0, items, length) for _ in range(users)]))


def network(seed=0, **options):
    config = paper_model(embedding_dim=6, window_length=3, init_std=0.1, **options)
    return AttRecNetwork(config, 20, 15, seed=seed)


def test_an_epoch_visits_every_window_once_in_an_order_of_its_own():
    config, model, data = paper_training(batch_size=32), network(), sequences()
    orders = []
    for epoch in (1, 2):
        parts = list(make_step(model, config).batches(data, epoch))
        assert [len(part.users) for part in parts] == [32, 32, 32, 32, 12]
        windows = torch.cat([torch.cat([p.users[:, None], p.windows, p.targets], 1) for p in parts])
        orders.append(windows.tolist())
    expected = data.windows(np.arange(data.num_windows), 3, 3)
    everything = np.concatenate([expected.users[:, None], expected.inputs, expected.targets], 1)
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(everything.tolist())
    assert orders[0] != orders[1]


def test_the_same_seed_gives_the_same_bits():
    runs = []
    for seed in (3, 3, 4):
        model = network(seed=seed, dropout=0.3)
        train(model, sequences(), paper_training(seed=seed, max_epochs=2))
        runs.append(torch.cat([value.flatten() for value in model.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_training_stops_when_validation_stops_and_keeps_the_best_state():
    figures = iter([0.1, 0.5, 0.3, 0.2, 0.9])
    states = []

    def validate(model):
        states.append(model.item_short.detach().clone())
        return {"ndcg@10": next(figures)}

    model = network()
    run = train(model, sequences(), paper_training(patience=2), validate=validate)
    assert [epoch.validation["ndcg@10"] for epoch in run.epochs] == [0.1, 0.5, 0.3, 0.2]
    assert run.best_epoch == 2
    assert torch.equal(model.item_short, states[1])


def test_without_validation_the_last_epoch_stays():
    run = train(network(), sequences(), paper_training(max_epochs=9), num_epochs=2)
    assert (len(run.epochs), run.best_epoch, run.step) == (2, 2, STEP)
    assert run.epochs[1].loss < run.epochs[0].loss


def test_patience_zero_never_stops():
    run = train(
        network(),
        sequences(),
        paper_training(patience=0, max_epochs=4),
        validate=lambda model: {"ndcg@10": 0.0},
    )
    assert (len(run.epochs), run.best_epoch) == (4, 1)


def test_progress_is_told():
    steps, epochs = [], []
    train(
        network(),
        sequences(),
        paper_training(batch_size=100, max_epochs=2),
        on_progress=steps.append,
        on_epoch=epochs.append,
    )
    assert [(s.epoch, s.windows_done, s.windows_in_epoch) for s in steps] == [
        (1, 100, 140), (1, 140, 140), (2, 100, 140), (2, 140, 140),
    ]  # fmt: skip
    assert [epoch.number for epoch in epochs] == [1, 2]
    assert epochs[0].loss == pytest.approx(steps[1].loss)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(DataError, match="no user has two training events"):
        train(network(), Sequences(Ragged.from_lists([[1], [2]])), paper_training())
    config = paper_model(embedding_dim=4)
    with pytest.raises(DataError, match="at least 4"):
        train(AttRecNetwork(config, 1, 3), Sequences(Ragged.from_lists([[0, 1]])), paper_training())
