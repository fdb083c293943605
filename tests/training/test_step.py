"""The fast steps equal the plain one, and all equal a dense step with PyTorch's Adagrad."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.paper import paper_model, paper_training

from attrec.config import Options
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.errors import CheckpointError
from attrec.model.network import AttRecNetwork
from attrec.native.library import available
from attrec.training.choice import make_step
from attrec.training.native_step import NativeStep
from attrec.training.negatives import sample_negatives
from attrec.training.optimizer import RowAdagrad, clip_rows
from attrec.training.step import Batch, FusedStep, PlainStep

M, N = 12, 30
NATIVE = pytest.param(
    NativeStep,
    marks=pytest.mark.skipif(not available(), reason="this installation has no compiled kernels"),
)
STEPS = [PlainStep, FusedStep, NATIVE]
FAST = [FusedStep, NATIVE]


def batches(L, T, count=6, size=9, seed=0):
    rng = np.random.default_rng(seed)
    histories = [rng.integers(0, N, rng.integers(2, 9)) for _ in range(M)]
    sequences = Sequences(Ragged.from_lists(histories))
    result = []
    for _ in range(count):
        windows = sequences.windows(rng.integers(0, sequences.num_windows, size), L, T)
        negatives = sample_negatives(windows.targets, N, rng)
        result.append(Batch(*map(torch.from_numpy, (*windows, negatives))))
    return result


def network(L=4, dtype=torch.float64, init_std=0.6, **options):
    config = paper_model(embedding_dim=6, window_length=L, init_std=init_std, **options)
    return AttRecNetwork(config, M, N, dtype=dtype)


def equal_tables(first, second, tolerance=1e-12):
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def dense_step(model, optimizer, config, batch):
    """What a reader of the paper would write down: whole tables, autograd, torch's Adagrad."""
    optimizer.zero_grad()
    loss = 0.0
    for user, window, targets, negatives in zip(*batch, strict=True):
        y = model(user[None], window[None], torch.cat([targets, negatives])[None])[0]
        T = len(targets)
        for i in range(T):
            for j in range(T):
                pair = config.pairing == "all" or i == j
                if targets[i] >= 0 and pair:
                    loss = loss + torch.relu(y[i] + config.margin - y[T + j])
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        for table in (model.item_short, model.item_long, model.user_long):
            norm = table.norm(dim=1, keepdim=True)
            table.copy_(torch.where(norm > 1, table / norm, table))
    return float(loss.detach())


@pytest.mark.parametrize("step_class", STEPS)
@pytest.mark.parametrize(("aggregation", "pairing"), [("mean", "all"), ("sum", "one-to-one")])
def test_without_a_penalty_touching_rows_equals_the_dense_step(step_class, aggregation, pairing):
    config = paper_training(pairing=pairing)
    ours, dense = network(aggregation=aggregation), network(aggregation=aggregation)
    step = step_class(ours, config)
    with torch.no_grad():
        for table in (dense.item_short, dense.item_long, dense.user_long):
            clip_rows(table.data)
    optimizer = torch.optim.Adagrad(
        dense.parameters(),
        lr=config.learning_rate,
        initial_accumulator_value=config.initial_accumulator,
    )
    for batch in batches(4, 3):
        expected = dense_step(dense, optimizer, config, batch)
        assert float(step(batch)) == pytest.approx(expected, rel=1e-12)
    equal_tables(ours, dense)


@pytest.mark.parametrize("step_class", FAST)
@given(
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from(["mean", "sum"]),
    st.sampled_from(["all", "one-to-one"]),
    st.sampled_from(["full", "row-wise"]),
    st.sampled_from([0.0, 0.02]),
    st.booleans(),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from([0.0, 0.2, 1.0]),
)
def test_a_fast_step_equals_the_plain_one(
    step_class, L, T, aggregation, pairing, adagrad, l2, clip, p, omega
):
    options = {"aggregation": aggregation, "dropout": p, "long_term_weight": omega}
    fast, plain = network(L, **options), network(L, **options)
    config = paper_training(
        num_targets=T, pairing=pairing, l2=l2, norm_clipping=clip, adagrad=adagrad
    )
    fast_step, plain_step = step_class(fast, config), PlainStep(plain, config)
    for batch in batches(L, T, count=3, seed=L + 7 * T):
        assert float(fast_step(batch)) == pytest.approx(float(plain_step(batch)), rel=1e-12)
    equal_tables(fast, plain, 1e-11)
    for name, state in plain_step.state()[0].items():
        torch.testing.assert_close(fast_step.state()[0][name], state, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("step_class", [NATIVE])
def test_the_number_of_threads_changes_no_bit(step_class):
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            model = network(dtype=torch.float32)
            step = step_class(model, paper_training())
            losses = [float(step(batch)) for batch in batches(4, 3, size=700)]
            found.append((losses, [value.detach() for value in model.parameters()]))
    finally:
        torch.set_num_threads(threads)
    for losses, tables in found[1:]:
        assert losses == found[0][0]
        assert all(torch.equal(a, b) for a, b in zip(tables, found[0][1], strict=True))


@pytest.mark.parametrize("step_class", [NATIVE])
def test_an_index_outside_its_table_is_an_error_and_touches_nothing(step_class):
    model = network()
    step = step_class(model, paper_training())
    before = [value.detach().clone() for value in model.parameters()]
    batch = batches(4, 3, count=1)[0]
    outside = batch.negatives.clone()
    outside[2, 1] = N
    with pytest.raises(IndexError, match="30, the rows of its table"):
        step(batch._replace(negatives=outside))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    step(batch)


@pytest.mark.parametrize("step_class", [NATIVE])
def test_a_batch_whose_parts_do_not_fit_is_an_error_and_touches_nothing(step_class):
    # The kernels would read beyond what is too short.
    model = network()
    step = step_class(model, paper_training())
    before = [value.detach().clone() for value in model.parameters()]
    batch = batches(4, 3, count=1)[0]
    nothing = torch.full_like(batch.negatives, -1)
    for wrong, error in (
        (batch._replace(users=batch.users[:1]), ValueError),
        (batch._replace(windows=batch.windows.repeat(1, 40)), ValueError),
        (batch._replace(windows=batch.windows.repeat(40, 1)), ValueError),
        (Batch(batch.users, batch.windows.clamp(max=-1), nothing, nothing), IndexError),
    ):
        with pytest.raises(error, match=r"do not fit each other|no item among its targets"):
            step(wrong)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    step(batch)


@pytest.mark.parametrize("step_class", STEPS)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_projection_that_is_no_number_is_seen_in_the_loss(step_class, number):
    # The hinge of what a ReLU made 0 of it would be a number.
    model = network()
    step = step_class(model, paper_training())
    with torch.no_grad():
        model.projection[0, 0] = number
    assert math.isnan(float(step(batches(4, 3, count=1)[0])))


@pytest.mark.parametrize("step_class", [NATIVE])
def test_a_negative_user_is_an_error(step_class):
    step = step_class(network(), paper_training())
    batch = batches(4, 3, count=1)[0]
    users = batch.users.clone()
    users[1] = -1
    with pytest.raises(IndexError, match="negative user"):
        step(batch._replace(users=users))


@pytest.mark.parametrize("step_class", FAST)
def test_float32_agrees_with_float64(step_class):
    single, double = network(dtype=torch.float32), network()
    double.load_state_dict({name: value.double() for name, value in single.state_dict().items()})
    steps = step_class(single, paper_training()), step_class(double, paper_training())
    for batch in batches(4, 3):
        losses = [float(step(batch)) for step in steps]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("step_class", STEPS)
def test_the_penalty_acts_once_on_each_row_touched(step_class):
    # A margin so small that no pair is violated is not to be had; a weight of 0 on both terms is
    # neither. So: one window, and its rows compared with the gradient without the penalty.
    batch = batches(4, 3, count=1, size=5)[0]
    lam, accumulator = 0.05, 1e12  # the accumulator makes the step linear in the gradient
    moves = []
    for l2 in (0.0, lam):
        model = network()
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        config = paper_training(l2=l2, norm_clipping=False, initial_accumulator=accumulator)
        step_class(model, config)(batch)
        scale = -(accumulator**0.5) / config.learning_rate
        moves.append({n: (v.detach() - before[n]) * scale for n, v in model.named_parameters()})
    start = dict(network().named_parameters())
    touched = {
        "item_short": torch.cat([part.flatten() for part in batch[1:]]),
        "item_long": torch.cat([batch.targets.flatten(), batch.negatives.flatten()]),
        "user_long": batch.users,
        "projection": torch.arange(6),
    }
    for name, rows in touched.items():
        expected = torch.zeros_like(start[name])
        distinct = rows[rows >= 0].unique()
        expected[distinct] = 2 * lam * start[name].detach()[distinct]
        found = moves[1][name] - moves[0][name]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("step_class", STEPS)
def test_rows_outside_the_batch_keep_their_bits(step_class):
    model = network()
    step = step_class(model, paper_training(l2=0.1))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    batch = batches(4, 3, count=1, size=2)[0]
    step(batch)
    touched = torch.cat([part.flatten() for part in batch[1:]]).unique()
    untouched = torch.ones(N, dtype=torch.bool)
    untouched[touched[touched >= 0]] = False
    assert untouched.any()
    assert torch.equal(model.item_short[untouched], before["item_short"][untouched])
    assert torch.equal(model.item_long[untouched], before["item_long"][untouched])
    others = torch.ones(M, dtype=torch.bool)
    others[batch.users] = False
    assert torch.equal(model.user_long[others], before["user_long"][others])


@pytest.mark.parametrize("step_class", STEPS)
def test_clipping_keeps_every_row_in_the_ball_from_the_start(step_class):
    model = network(init_std=3.0)
    step = step_class(model, paper_training(learning_rate=2.0))
    for batch in batches(4, 3):
        for table in (model.item_short, model.item_long, model.user_long):
            assert table.norm(dim=1).max() <= 1 + 1e-12
        step(batch)
    free = network(init_std=3.0)
    step_class(free, paper_training(norm_clipping=False))
    assert free.item_short.norm(dim=1).max() > 1
    # W is no table of points: it is never clipped.
    assert model.projection.norm() > 1


def test_row_wise_adagrad_keeps_one_number_a_row():
    start = torch.tensor([[3.0, 4.0], [1.0, 1.0]], dtype=torch.float64)
    rule = RowAdagrad(start, 0.5, 0.0, clip=False, row_wise=True)
    rule.step(torch.tensor([[6.0, 8.0]], dtype=torch.float64), torch.tensor([0]))
    # The mean of 36 and 64 is 50: 0.5 · 6 / √50 and 0.5 · 8 / √50.
    assert rule.accumulator.tolist() == [[50.0], [0.0]]
    assert start[0].tolist() == pytest.approx([3 - 3 / 50**0.5, 4 - 4 / 50**0.5])
    assert start[1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("aggregation", ["max", "min"])
def test_the_plain_step_covers_what_the_fast_ones_do_not(aggregation):
    model = network(aggregation=aggregation)
    step = make_step(model, paper_training())
    assert type(step) is PlainStep
    losses = [float(step(batch)) for batch in batches(4, 3, count=1) * 8]
    assert losses[-1] < losses[0]


def test_the_step_is_chosen_by_what_it_covers():
    class Changed(AttRecNetwork):
        pass

    config = paper_model(embedding_dim=4)
    fastest = NativeStep if available() else FusedStep
    assert type(make_step(AttRecNetwork(config, 2, 5), paper_training())) is fastest
    half = AttRecNetwork(config, 2, 5, dtype=torch.bfloat16)
    assert type(make_step(half, paper_training())) is FusedStep
    assert type(make_step(Changed(config, 2, 5), paper_training())) is PlainStep


def test_a_parameter_that_the_loss_does_not_use_stays():
    class WithoutLongTerm(AttRecNetwork):
        def distances(self, users, windows, candidates, *, dropout_mask=None):
            m = self.intent(windows, dropout_mask=dropout_mask)
            return self.compare(m[:, None], self.item_short[candidates.clamp(min=0)])

        forward = distances

    model = WithoutLongTerm(paper_model(embedding_dim=6, window_length=4), M, N)
    before = model.user_long.detach().clone()
    PlainStep(model, paper_training())(batches(4, 3, count=1)[0])
    assert torch.equal(model.user_long, before)


def test_row_adagrad_is_pytorchs():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    theirs = start.clone().requires_grad_()
    optimizer = torch.optim.Adagrad([theirs], lr=0.3, initial_accumulator_value=0.2)
    ours = RowAdagrad(start.clone(), 0.3, 0.2, clip=False)
    for _ in range(5):
        rows = torch.randperm(7, generator=generator)[:4]
        gradient = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        theirs.grad = torch.zeros_like(theirs).index_copy_(0, rows, gradient)
        optimizer.step()
        ours.step(gradient, rows)
    torch.testing.assert_close(ours.table, theirs.detach(), rtol=1e-13, atol=0)


def test_clipping_by_hand():
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    assert clip_rows(rows).flatten().tolist() == pytest.approx([0.6, 0.8, 0.3, 0.4, 0, 0])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_state_of_another_kind_of_device_is_taken_where_nothing_was_drawn(dropout):
    options = Options.of("paper-sparse", embedding_dim=4, dropout=dropout)
    step = PlainStep(AttRecNetwork(options.model, M, N), options.train)
    accumulators, generator = step.state()
    kept = {name: value + 1.0 for name, value in accumulators.items()}
    if dropout:
        with pytest.raises(CheckpointError, match="another kind of device than cpu"):
            step.load_state(kept, generator[:16])
    else:
        step.load_state(kept, generator[:16])
        assert all(torch.equal(step.state()[0][name], value) for name, value in kept.items())
