"""The softmax step: every position at once, packed, equals the positions one by one, plain."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.training.test_checkpoint import InterruptedTraining

from attrec.config import ModelConfig, TrainConfig
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.model.additive import AdditiveNetwork
from attrec.training.checkpoint import Checkpointer
from attrec.training.choice import make_step
from attrec.training.softmax_step import SoftmaxStep
from attrec.training.trainer import train

N = 13


def data(seed=0):
    rng = np.random.default_rng(seed)
    return Sequences(Ragged.from_lists([rng.integers(0, N, rng.integers(1, 14)) for _ in range(9)]))


def network(dtype=torch.float64, **options):
    small = {"embedding_dim": 4, "window_length": 20, "heads": 2, "blocks": 1, "dropout": 0.0}
    config = ModelConfig(**{**small, **options})
    return AdditiveNetwork(config, 0, N, dtype=dtype)


def one_by_one(model, sequences):
    """Sum −log softmax(−τ ‖m − k‖² + b) of each position's target, from its history alone."""
    loss = torch.zeros((), dtype=torch.float64)
    for history in sequences.histories:
        for t in range(1, len(history)):
            items = torch.from_numpy(history[:t].astype(np.int64))
            m = model.last_intents(items, torch.tensor([t]))[0]
            distances = (m - model.keys()).square().sum(dim=1)
            logits = -distances / (2 * 0.05)
            loss = loss - logits.log_softmax(dim=0)[int(history[t])]
    return loss


def test_all_positions_at_once_are_the_positions_one_by_one():
    model, sequences = network(), data()
    config = TrainConfig(
        batch_size=10_000, min_steps=0, learning_rate=1e-9, weight_decay=0.0, label_smoothing=0.0
    )
    step = make_step(model, config)
    assert type(step) is SoftmaxStep
    expected = one_by_one(model, sequences)
    gradients = torch.autograd.grad(expected / sequences.num_windows, model.parameters())
    (batch,) = step.batches(sequences, 1)
    assert batch.size == sequences.num_windows
    assert float(step(batch)) == pytest.approx(float(expected.detach()), rel=1e-10)
    norm = float(torch.cat([g.flatten() for g in gradients]).norm())
    for (name, value), gradient in zip(model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(
            value.grad * max(1.0, norm), gradient, rtol=1e-5, atol=1e-9, msg=name
        )


def test_training_finds_what_follows_what():
    # Item i is followed by i + 1: everything can be known from the newest event.
    lists = [[(start + k) % N for k in range(12)] for start in range(N)]
    model = network(torch.float32)
    config = TrainConfig(learning_rate=0.02, batch_size=60, warmup_steps=5, label_smoothing=0.0)
    run = train(model, Sequences(Ragged.from_lists(lists)), config, num_epochs=60)
    assert run.step == "SoftmaxStep"
    assert run.epochs[0].loss > np.log(N) / 2
    assert run.epochs[-1].loss < 0.1


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(tmp_path, dropout):
    config = TrainConfig(batch_size=30, learning_rate=0.01, warmup_steps=3)
    whole = network(torch.float32, dropout=dropout)
    train(whole, data(), config, num_epochs=4)
    for stop_after in (1, 4, 7):
        folder = tmp_path / str(stop_after)
        asked = iter([False] * stop_after + [True])
        with pytest.raises(InterruptedTraining):
            train(
                network(torch.float32, dropout=dropout), data(), config, num_epochs=4,
                checkpointer=Checkpointer(folder, {}, 1e9, lambda: next(asked)),  # noqa: B023
            )  # fmt: skip
        resumed = network(torch.float32, dropout=dropout)
        train(resumed, data(), config, num_epochs=4, checkpointer=Checkpointer(folder, {}, 1e9))
        for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
            assert torch.equal(a, b)


def test_judging_needs_no_step_to_turn_dropout_off():
    model = network(dropout=0.5)
    items, lengths = torch.tensor([1, 2, 3]), torch.tensor([3])
    before = model.last_intents(items, lengths)
    assert torch.equal(before, model.last_intents(items, lengths))
    step = make_step(model, TrainConfig(batch_size=30))
    with step.averaged():
        assert torch.equal(before, model.last_intents(items, lengths))


def test_a_catalogue_of_three_items_can_be_trained():
    config = ModelConfig(architecture="additive", embedding_dim=4, window_length=5, heads=2)
    sequences = Sequences(Ragged.from_lists([[0, 1, 2], [2, 1, 0]]))
    run = train(AdditiveNetwork(config, 0, 3), sequences, TrainConfig(), num_epochs=2)
    assert len(run.epochs) == 2


def test_the_random_state_of_the_program_is_left_alone():
    model = network(torch.float32, dropout=0.4)
    step = make_step(model, TrainConfig(batch_size=30))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for batch in step.batches(data(), 1):
        step(batch)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("warmup", "full", "rates"),
    [
        (2, 3, [1 / 2, 1.0, 1.0, 3 / 4]),
        (2, 0, [1 / 2, 1.0, 1.0, 1.0]),
        (0, 1, [1.0, 1 / 2, 1 / 3, 1 / 4]),
        (4, 3, [1 / 4, 2 / 4, 3 / 4, 3 / 4]),
    ],
)
def test_the_learning_rate_rises_and_falls(warmup, full, rates):
    config = TrainConfig(
        batch_size=30, learning_rate=0.01, warmup_steps=warmup, full_rate_steps=full
    )
    step = make_step(network(torch.float32), config)
    batches = [*step.batches(data(), 1), *step.batches(data(), 2)]
    for batch, rate in zip(batches, rates, strict=False):
        step(batch)
        assert step.learning_rate == pytest.approx(0.01 * rate)
        assert {group["lr"] for group in step.optimizer.param_groups} == {step.learning_rate}


def test_the_weights_that_are_judged_and_kept_are_averages():
    model = network(torch.float32)
    config = TrainConfig(batch_size=30, learning_rate=0.05, warmup_steps=0, averaging=3.0)
    step = make_step(model, config)
    start = [value.detach().clone() for value in model.parameters()]
    expected, taken = [value.clone() for value in start], 0
    longest = 3.0 * data().num_windows / 30
    for epoch in (1, 2, 3, 4):
        for batch in step.batches(data(), epoch):
            step(batch)
            taken += 1
            weight = 1 / min(longest, max(1.0, taken / 10))
            for mean, value in zip(expected, model.parameters(), strict=True):
                mean.lerp_(value.detach(), weight)
    trained = [value.detach().clone() for value in model.parameters()]
    with step.averaged():
        for mean, value in zip(expected, model.parameters(), strict=True):
            torch.testing.assert_close(value.detach(), mean, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(trained, model.parameters(), strict=True))
    step.finish()
    assert not any(torch.equal(a, b) for a, b in zip(trained, model.parameters(), strict=True))


def test_without_averaging_the_last_weights_are_kept():
    model = network(torch.float32)
    step = make_step(model, TrainConfig(batch_size=30, averaging=0.0))
    for batch in step.batches(data(), 1):
        step(batch)
    trained = [value.detach().clone() for value in model.parameters()]
    step.finish()
    assert all(torch.equal(a, b) for a, b in zip(trained, model.parameters(), strict=True))


def test_sampled_items_estimate_the_softmax_over_all():
    whole, sampled = network(), network()
    config = TrainConfig(
        batch_size=10_000, min_steps=0, learning_rate=1e-9, weight_decay=0.0, label_smoothing=0.2
    )
    step = make_step(whole, config)
    (batch,) = step.batches(data(), 1)
    expected = float(step(batch))
    step = make_step(sampled, replace(config, softmax_samples=20_000))
    (batch,) = step.batches(data(), 1)
    assert float(step(batch)) == pytest.approx(expected, rel=5e-3)
    for (name, a), b in zip(whole.named_parameters(), sampled.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=0.1, atol=0.01, msg=name)


def test_training_with_sampled_items_learns_what_follows_what():
    lists = [[(start + k) % N for k in range(12)] for start in range(N)]
    model = network(torch.float32, embedding_dim=8)
    config = TrainConfig(learning_rate=0.02, batch_size=60, warmup_steps=5, softmax_samples=8)
    sequences = Sequences(Ragged.from_lists(lists))
    train(model, sequences, config, num_epochs=60)
    items = torch.arange(N)
    m = model.last_intents(items, torch.ones(N, dtype=torch.int64))
    distances = (m[:, None] - model.keys()).square().sum(dim=2)
    assert (distances.argmin(dim=1) == (items + 1) % N).all()
