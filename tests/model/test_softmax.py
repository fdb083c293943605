"""The softmax over distances equals its equation, and holds no positions × items."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attrec.model import softmax
from attrec.model.distance import squared_distance
from attrec.model.softmax import (
    block_shape,
    plain_rows,
    plain_softmax_loss,
    sampled_softmax_loss,
    softmax_loss,
)
from attrec.native.library import available
from attrec.native.softmax import softmax_rows

compiled = pytest.mark.skipif(not available(), reason="this installation has no compiled kernels")
WAYS = [pytest.param("kernel", marks=compiled), "torch"]


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(softmax, "available", lambda: False)
    return request.param


def inputs(P, N, D, seed, dtype=torch.float64, spread=1.0):
    """Queries, keys, targets, log τ and biases."""
    generator = torch.Generator().manual_seed(seed)
    queries, keys = (
        spread * torch.randn(n, D, generator=generator, dtype=torch.float64) for n in (P, N)
    )
    bias = torch.randn(N, generator=generator, dtype=torch.float64)
    log_scale = torch.randn((), generator=generator, dtype=torch.float64) / 2
    targets = torch.randint(0, N, (P,), generator=generator)
    made = [part.to(dtype).requires_grad_() for part in (queries, keys, log_scale, bias)]
    return made[0], made[1], targets, made[2], made[3]


def naive(queries, keys, targets, log_scale, bias, weights=None, label_smoothing=0.0):
    """The equation, one position and one item after the other."""
    loss = torch.zeros((), dtype=queries.dtype)
    for p, target in enumerate(targets.tolist()):
        logits = torch.stack(
            [-log_scale.exp() * squared_distance(queries[p], k) + b
             for k, b in zip(keys, bias, strict=True)]
        )  # fmt: skip
        wished = (1 - label_smoothing) * logits[target] + label_smoothing * logits.mean()
        term = logits.logsumexp(dim=0) - wished
        loss = loss + (term if weights is None else weights[p] * term)
    return loss


def gradients(loss, tensors):
    return [loss.detach(), *torch.autograd.grad(loss, tensors)]


def assert_equal(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * (1 + b.abs().max()))


@given(
    st.integers(1, 9), st.integers(1, 12), st.integers(1, 5), st.integers(0, 99),
    st.sampled_from([None, 1, 24, 100, 400]), st.booleans(), st.sampled_from([0.0, 0.3]),
)  # fmt: skip
def test_loss_and_gradients_equal_the_equation(way, P, N, D, seed, budget, weighted, smoothing):
    queries, keys, targets, log_scale, bias = inputs(P, N, D, seed)
    wanted = [queries, keys, log_scale, bias]
    weights = None
    if weighted:
        weights = torch.rand(P, generator=torch.Generator().manual_seed(seed)).double()
        wanted.append(weights.requires_grad_())
    arguments = (queries, keys, targets, log_scale, bias)
    ours = softmax_loss(
        *arguments, weights=weights, label_smoothing=smoothing, budget=budget and 8 * budget
    )
    plain = plain_softmax_loss(*arguments, weights=weights, label_smoothing=smoothing)
    expected = gradients(naive(*arguments, weights, smoothing), wanted)
    assert_equal(gradients(3 * ours, wanted), [3 * part for part in expected], 1e-10)
    assert_equal(gradients(plain, wanted), expected, 1e-10)


def test_the_gradients_are_those_of_the_loss(way):
    queries, keys, targets, log_scale, bias = inputs(5, 7, 3, seed=1)
    for budget in (8 * 6, None):
        assert torch.autograd.gradcheck(
            lambda q, k, s, b, budget=budget: softmax_loss(
                q, k, targets, s, b, label_smoothing=0.1, budget=budget
            ),
            (queries, keys, log_scale, bias),
        )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("budget", [None, 40_000])
def test_float32_equals_float64_within_its_precision(way, threads, budget):
    exact = inputs(300, 5000, 16, seed=2, spread=0.5)
    single = [part.detach().float().requires_grad_() for part in (*exact[:2], *exact[3:])]
    expected = gradients(plain_softmax_loss(*exact), [*exact[:2], *exact[3:]])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        loss = softmax_loss(single[0], single[1], exact[2], *single[2:], budget=budget)
        found = gradients(loss, single)
    finally:
        torch.set_num_threads(before)
    for ours, theirs in zip(found, expected, strict=True):
        difference = (ours.double() - theirs).abs().max()
        assert difference <= 1e-5 * theirs.abs().max()


@compiled
@given(
    st.integers(1, 6), st.integers(1, 40), st.integers(0, 99), st.booleans(), st.booleans(),
    st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_the_kernel_equals_its_torch_form(rows, columns, seed, weighted, masked, dtype):
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(rows, columns, generator=generator, dtype=dtype)
    offsets = torch.randn(columns, generator=generator, dtype=dtype)
    targets = torch.randint(0, 2 * columns, (rows,), generator=generator)
    weights = torch.rand(rows, generator=generator, dtype=dtype) if weighted else None
    items = torch.randint(0, 2 * columns, (columns,), generator=generator) if masked else None
    for steps in ({"sums": True, "gradient": True}, {"sums": False, "gradient": True}):
        results = []
        for work in (softmax_rows, plain_rows):
            block, top = logits.clone(), torch.arange(rows).double()
            total, picked = torch.ones(rows).double(), torch.zeros(rows, dtype=dtype)
            work(
                block, offsets, targets, weights, items, top, total, picked,
                first=columns // 2, even=0.01, peak=0.9, **steps,
            )  # fmt: skip
            results.append((block, top, total, picked))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)


@compiled
@pytest.mark.parametrize("dtype, allowed", [(torch.float32, 2e-7), (torch.float64, 1e-15)])
def test_the_kernels_exponential(dtype, allowed):
    x = torch.cat([-torch.logspace(-9, math.log10(60), 5000), torch.linspace(-60, 0, 5001)])
    x = x.clamp(min=-60).to(dtype)
    nothing = torch.tensor([-1e4, -1e30, -math.inf], dtype=dtype)
    block = torch.cat([x, nothing])[None].clone()
    columns = block.shape[1]
    softmax_rows(
        block, torch.zeros(columns, dtype=dtype), torch.tensor([-1]), None, None,
        torch.zeros(1).double(), torch.ones(1).double(), torch.zeros(1, dtype=dtype),
        first=0, even=0.0, peak=1.0, sums=False, gradient=True,
    )  # fmt: skip
    expected = torch.tensor([math.exp(v) for v in x.tolist()], dtype=torch.float64)
    assert ((block[0, :-3].double() - expected).abs() / expected).max() <= allowed
    assert block[0, -3:].tolist() == [0, 0, 0]


class Largest(TorchDispatchMode):
    """Keeps the largest count of numbers that one tensor holds while it is on."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if torch.is_tensor(leaf):
                size = leaf.untyped_storage().nbytes() // leaf.element_size()
                self.numbers = max(self.numbers, size)
        return found


@pytest.mark.parametrize("P, N", [(2000, 300), (70, 20_000)])
def test_no_tensor_has_a_number_for_every_position_and_item(way, P, N):
    queries, keys, targets, log_scale, bias = inputs(P, N, 2, seed=3, dtype=torch.float32)
    budget = 4 * 30_000
    with Largest() as ours:
        softmax_loss(queries, keys, targets, log_scale, bias, budget=budget).backward()
    with Largest() as sampled:
        samples = torch.arange(N)
        sampled_softmax_loss(
            queries, keys, targets, samples, torch.zeros(N), log_scale, bias, budget=budget
        ).backward()
    with Largest() as plain:
        plain_softmax_loss(queries, keys, targets, log_scale, bias).backward()
    # The keys and their gradient are there anyway.
    assert max(ours.numbers, sampled.numbers) <= max(30_000, 2 * N)
    assert plain.numbers >= P * N, "or the watch sees nothing"


@given(st.integers(0, 500), st.integers(0, 500_000), st.integers(1, 1_000_000))
def test_a_block_stays_within_the_budget(P, N, budget):
    rows, columns = block_shape(P, N, budget)
    assert rows * columns <= budget
    assert rows >= 1
    assert columns == N or columns >= 1


def test_without_gradients_none_are_computed(way, monkeypatch):
    queries, keys, targets, log_scale, bias = inputs(6, 8, 3, seed=4)
    expected = softmax_loss(queries, keys, targets, log_scale, bias)
    monkeypatch.setattr(softmax._Pass, "add", None)
    with torch.no_grad():
        found = softmax_loss(queries, keys, targets, log_scale, bias)
    assert not found.requires_grad
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_each_gradient_alone_is_the_same(way):
    queries, keys, targets, log_scale, bias = inputs(6, 8, 3, seed=5)
    tensors = {"queries": queries, "keys": keys, "log_scale": log_scale, "bias": bias}
    together = gradients(softmax_loss(targets=targets, **tensors), list(tensors.values()))[1:]
    for (name, tensor), expected in zip(tensors.items(), together, strict=True):
        others = {n: t.detach() for n, t in tensors.items()} | {name: tensor}
        (found,) = torch.autograd.grad(softmax_loss(targets=targets, **others), [tensor])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("budget", [400, None])
def test_extreme_scales_stay_finite(way, dtype, budget):
    queries, keys, targets, log_scale, bias = inputs(5, 9, 3, seed=6, dtype=dtype)
    for value in (-30.0, 12.0):
        with torch.no_grad():
            log_scale.fill_(value)
        found = gradients(
            softmax_loss(queries, keys, targets, log_scale, bias, budget=budget),
            [queries, keys, log_scale, bias],
        )
        expected = gradients(
            plain_softmax_loss(queries, keys, targets, log_scale, bias),
            [queries, keys, log_scale, bias],
        )
        assert all(part.isfinite().all() for part in found)
        assert_equal(found, expected, 1e-4 if dtype == torch.float32 else 1e-10)


def test_a_number_that_is_none_is_seen(way):
    queries, keys, targets, log_scale, bias = inputs(3, 4, 2, seed=7, dtype=torch.float32)
    with torch.no_grad():
        queries[1, 0] = torch.nan
    assert softmax_loss(queries, keys, targets, log_scale, bias).isnan()


@given(
    st.integers(1, 8), st.integers(1, 9), st.integers(0, 99), st.sampled_from([None, 80]),
    st.sampled_from([0.0, 0.3]),
)  # fmt: skip
def test_every_item_sampled_once_is_the_whole_catalogue(way, P, N, seed, budget, smoothing):
    queries, keys, targets, log_scale, bias = inputs(P, N, 3, seed)
    wanted = [queries, keys, log_scale, bias]
    weights = torch.rand(P, generator=torch.Generator().manual_seed(seed)).double()
    samples = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    log_q = torch.full((N,), -math.log(N), dtype=torch.float64)
    found = sampled_softmax_loss(
        queries, keys, targets, samples, log_q, log_scale, bias,
        target_log_q=log_q[targets], weights=weights, label_smoothing=smoothing, budget=budget,
    )  # fmt: skip
    full = softmax_loss(
        queries, keys, targets, log_scale, bias, weights=weights, label_smoothing=smoothing
    )
    assert_equal(gradients(found, wanted), gradients(full, wanted), 1e-10)


def test_the_sampled_loss_by_hand(way):
    # One position at 0, τ = 1; items at 1, 2 and 3; the target is the item at 2.
    queries, keys = torch.zeros(1, 1).double(), torch.tensor([[1.0], [2.0], [3.0]]).double()
    bias = torch.tensor([0.5, 0.25, 0.0]).double()
    log_q = torch.tensor([-1.0, -2.0, -0.5]).double()
    samples, target = torch.tensor([0, 2, 1, 0]), torch.tensor([1])
    found = sampled_softmax_loss(
        queries, keys, target, samples, log_q[samples], torch.zeros(()).double(), bias,
        target_log_q=log_q[target],
    )  # fmt: skip
    first, own, third = -1 + 0.5 + 1.0, -4 + 0.25 + 2.0, -9 + 0.0 + 0.5
    # The third sample is the target itself, and left out; the first is there twice.
    expected = math.log(math.exp(own) + 2 * math.exp(first) + math.exp(third)) - own
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_only_accidental_hits_leave_no_loss(way):
    queries, keys, _, log_scale, bias = inputs(4, 3, 2, seed=8)
    one = torch.full((4,), 2)
    loss = sampled_softmax_loss(
        queries, keys, one, torch.tensor([2, 2]), torch.zeros(2).double(), log_scale, bias
    )
    found = gradients(loss, [queries, keys, log_scale, bias])
    assert all((part.abs() < 1e-12).all() for part in found)


@given(
    st.integers(1, 6), st.integers(1, 5), st.integers(1, 9), st.integers(0, 99),
    st.sampled_from([0.0, 0.3]),
)  # fmt: skip
def test_the_sampled_loss_equals_the_obvious_loop(way, P, N, n, seed, smoothing):
    queries, keys, targets, log_scale, bias = inputs(P, N, 3, seed)
    wanted = [queries, keys, log_scale, bias]
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randint(0, N, (n,), generator=generator)
    log_q = -torch.rand(n, generator=generator).double()
    expected = torch.zeros((), dtype=torch.float64)
    for p, target in enumerate(targets.tolist()):

        def logit(item, p=p):
            return -log_scale.exp() * squared_distance(queries[p], keys[item]) + bias[item]

        others = [logit(j) - q for j, q in zip(samples.tolist(), log_q, strict=True) if j != target]
        own = logit(target)
        wished = (1 - smoothing) * own + smoothing * torch.stack([*map(logit, range(N))]).mean()
        expected = expected + torch.stack([own, *others]).logsumexp(dim=0) - wished
    found = sampled_softmax_loss(
        queries, keys, targets, samples, log_q, log_scale, bias, label_smoothing=smoothing
    )
    assert_equal(gradients(found, wanted), gradients(expected, wanted), 1e-10)


def test_what_is_no_row_of_the_keys_is_an_error():
    queries, keys, targets, log_scale, _ = inputs(3, 4, 2, seed=9)
    for wrong in (-1, 4):
        bad = targets.clone()
        bad[1] = wrong
        with pytest.raises(IndexError, match=r"targets go from .* the keys go from 0 to 3"):
            softmax_loss(queries, keys, bad, log_scale)
        with pytest.raises(IndexError, match=r"samples go from .* the keys go from 0 to 3"):
            sampled_softmax_loss(queries, keys, targets, bad, torch.zeros(3).double(), log_scale)
    for smoothing in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"label_smoothing is .*, not in \[0, 1\)"):
            softmax_loss(queries, keys, targets, log_scale, label_smoothing=smoothing)
        with pytest.raises(ValueError, match=r"label_smoothing is .*, not in \[0, 1\)"):
            sampled_softmax_loss(
                queries, keys, targets, targets, torch.zeros(3).double(), log_scale,
                label_smoothing=smoothing,
            )  # fmt: skip


def test_no_positions_have_no_loss(way):
    queries, keys, targets, log_scale, bias = inputs(0, 4, 2, seed=10)
    found = gradients(softmax_loss(queries, keys, targets, log_scale, bias), [queries, keys, bias])
    assert all((part == 0).all() for part in found)
