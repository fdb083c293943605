"""The ranking kernels against the obvious loops, and against their PyTorch twins."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attrec.evaluation.ranking import count_places_in_passes, nearest_in_passes
from attrec.native.library import available
from attrec.native.ranking import (
    Lists,
    Shortlist,
    TiledPlaces,
    bands,
    count_places,
    pair_distances,
)
from attrec.retrieval.index import pair_distances_in_passes

pytestmark = pytest.mark.skipif(not available(), reason="this installation has no compiled kernels")
DTYPES = st.sampled_from([torch.float32, torch.float64])
WIDTHS = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 63, 64, 65, 130, 2047, 4100]))


def lists(rows):
    starts = np.cumsum([0, *[len(row) for row in rows]])
    values = torch.tensor([value for row in rows for value in row], dtype=torch.int32)
    return Lists(values, torch.from_numpy(starts))


def matrix(rows, columns, seed, dtype, tied):
    """Random numbers, drawn from a few where they are to tie."""
    random = np.random.default_rng(seed)
    block = random.normal(size=(rows, columns))
    if tied:
        block = random.choice([-np.inf, -1.0, -0.0, 0.0, 0.5, 2.0, np.inf], (rows, columns))
    return torch.from_numpy(block).to(dtype)


def indices(data, columns, lowest):
    return data.draw(
        st.lists(st.one_of(st.just(columns - 1), st.integers(lowest, columns - 1)), max_size=6)
    )


@given(st.data(), st.integers(1, 4), WIDTHS, st.integers(0, 99), DTYPES, st.booleans())
def test_places_equal_the_obvious_count(data, rows, columns, seed, dtype, tied):
    block = matrix(rows, columns, seed, dtype, tied)
    targets = [indices(data, columns, -1) for _ in range(rows)]
    seen = [indices(data, columns, 0) for _ in range(rows)]
    masked, twin_masked = block.clone(), block.clone()
    found = count_places(masked, lists(targets), lists(seen))
    place = 0
    for row in range(rows):
        ranked = [item for item in range(columns) if item not in seen[row]]
        numbers = block[row].tolist()
        for target in targets[row]:
            assert bool(found.reachable[place]) == (target in ranked)
            if target in ranked:
                equal = [item for item in ranked if numbers[item] == numbers[target]]
                assert found.own[place] == numbers[target]
                assert found.nearer[place] == sum(
                    numbers[item] < numbers[target] for item in ranked
                )
                assert found.equal[place] == len(equal)
                assert found.before[place] == sum(item < target for item in equal)
            place += 1
        block[row, seen[row]] = math.inf
    assert torch.equal(masked, block)
    twin = count_places_in_passes(twin_masked, lists(targets), lists(seen))
    assert torch.equal(twin_masked, block)
    assert torch.equal(twin.reachable, found.reachable)
    for name in ("own", "nearer", "equal", "before"):
        known = found.reachable
        assert torch.equal(getattr(twin, name)[known], getattr(found, name)[known]), name


def in_tiles(block, width, targets, seen, low, high):
    """The places over tiles that share one memory, and how often the tiles were asked for."""
    counted = TiledPlaces(targets, seen, block.shape[1], width, low, high)
    turns = 0
    while turns == 0 or counted.again():
        for start in range(0, block.shape[1], width):
            counted.add(block[:, start : start + width].clone())
        turns += 1
    return counted.places(), turns


@given(
    st.data(), st.integers(1, 4), WIDTHS, st.integers(0, 99), DTYPES, st.booleans(),
    st.sampled_from([1, 8, 64, 1024, 4096]),
)  # fmt: skip
def test_tiles_equal_the_whole_whatever_the_bands(data, rows, columns, seed, dtype, tied, width):
    block = matrix(rows, columns, seed, dtype, tied)
    rows_targets = [indices(data, columns, -1) for _ in range(rows)]
    targets = lists(rows_targets)
    seen = data.draw(st.sampled_from([None, [indices(data, columns, 0) for _ in range(rows)]]))
    seen = None if seen is None else lists(seen)
    own = torch.tensor(
        [block[row, max(0, item)] for row in range(rows) for item in rows_targets[row]], dtype=dtype
    )
    slack = data.draw(st.sampled_from([0.0, 1e-3, 0.3, math.inf]))
    shift = data.draw(st.sampled_from([0.0, 0.01, -5.0, math.nan]))
    found, turns = in_tiles(
        block, width, targets, seen, own + (shift - slack), own + (shift + slack)
    )
    assert turns <= 2
    whole = count_places(block.clone(), targets, seen)
    assert torch.equal(found.reachable, whole.reachable)
    for name in ("own", "nearer", "equal", "before"):
        known = whole.reachable
        assert torch.equal(getattr(found, name)[known], getattr(whole, name)[known]), name


def test_only_a_band_that_guesses_wrong_or_holds_too_many_asks_again():
    # By hand: 17 items at 0, the target at 0.5 in the second tile, one nearer behind it.
    block = torch.tensor([[0.0] * 17 + [9.0] * 15 + [0.5, 0.25] + [9.0] * 6])
    target, low, high = lists([[32]]), torch.tensor([0.4]), torch.tensor([0.6])
    for ends, turns in (((low, high), 1), ((low + 1, high + 1), 2), ((low - 1, high), 2)):
        found, asked = in_tiles(block, 32, target, None, *ends)
        assert (found.nearer.item(), found.equal.item(), found.own.item()) == (18, 1, 0.5)
        assert asked == turns
    # One fewer has room. And what is seen is not kept.
    assert in_tiles(block, 32, target, lists([[3]]), low - 1, high)[1] == 1


def test_nan_in_any_tile_is_told_even_where_it_is_seen():
    for column in (0, 63, 64, 129):
        block = torch.zeros(2, 130)
        block[1, column] = math.nan
        ends = torch.zeros(1)
        for seen in (None, lists([[], [column]])):
            assert in_tiles(block, 64, lists([[5], []]), seen, ends, ends)[0] is None


@given(st.data(), st.integers(1, 4), st.integers(1, 70), st.integers(0, 99), DTYPES)
def test_bands_hold_the_product(data, rows, width, seed, dtype):
    queries = matrix(rows, width, seed, dtype, False)
    keys = matrix(9, width, seed + 1, dtype, False)
    targets = [indices(data, 9, -1) for _ in range(rows)]
    low, high = bands(queries, keys, lists(targets))
    products, at = queries.double() @ keys.double().T, 0
    for row in range(rows):
        for item in targets[row]:
            if item >= 0:
                size = float((queries[row] * keys[item]).abs().sum())
                assert low[at] <= products[row, item] <= high[at]
                assert high[at] - low[at] <= 20 * size * torch.finfo(dtype).eps
            at += 1


def test_what_the_tiles_would_misread_is_refused():
    block, ends = torch.zeros(2, 8), torch.zeros(1)
    target = lists([[3], []])
    with pytest.raises(ValueError, match="power of 2"):
        TiledPlaces(target, None, 8, 3, ends, ends)
    with pytest.raises(ValueError, match="for 1 targets"):
        TiledPlaces(target, None, 8, 4, ends, torch.zeros(2))
    with pytest.raises(IndexError, match="N = 3"):
        TiledPlaces(target, None, 3, 4, ends, ends)
    with pytest.raises(IndexError, match="-1"):
        TiledPlaces(target, lists([[-1], []]), 8, 4, ends, ends)
    counted = TiledPlaces(target, None, 8, 4, ends, ends)
    with pytest.raises(ValueError, match="not \\(2, 4\\)"):
        counted.add(block)
    with pytest.raises(TypeError, match="float32"):
        counted.add(block[:, :4].double())
    with pytest.raises(TypeError, match="share memory"):
        counted.add(torch.zeros(1, 4).expand(2, -1))
    counted.add(block[:, :4])
    counted.add(block[:, 4:])
    with pytest.raises(ValueError, match="shape"):
        counted.add(block[:, :4])
    with pytest.raises(TypeError, match="no products"):
        bands(block, torch.zeros(5, 7), target)
    with pytest.raises(IndexError, match="N = 3"):
        bands(block, torch.zeros(3, 8), target)


@given(
    st.data(), st.integers(1, 3), WIDTHS, st.integers(0, 99), DTYPES, st.booleans(), st.booleans()
)
def test_a_shortlist_is_the_head_of_the_sorted_row(data, rows, columns, seed, dtype, tied, biased):
    block = matrix(rows, columns, seed, dtype, tied)
    k = data.draw(st.one_of(st.just(columns), st.integers(1, min(columns, 90))))
    step = data.draw(st.sampled_from([1 + columns // 3, 64, columns]))
    bias = matrix(1, columns, seed + 1, dtype, False)[0].round() if biased else None
    whole = block if bias is None else bias + 2.0 * block
    shortlist = Shortlist(rows, k, columns, dtype)
    for start in range(0, columns, step):
        part = slice(start, start + step)
        shortlist.add(block[:, part], bias=None if bias is None else bias[part], factor=2.0)
    ordered = data.draw(st.booleans())
    values, items = shortlist.finish(ordered=ordered)
    for row in range(rows):
        ranked = sorted(range(columns), key=lambda i: (float(whole[row, i]), i))[:k]
        ranked = ranked if ordered else sorted(ranked)
        assert items[row].tolist() == ranked
        assert values[row].tolist() == whole[row, ranked].tolist()
    if not ordered:
        return
    twin_values, twin_items = nearest_in_passes(whole, k)
    assert torch.equal(twin_values, values)
    assert torch.equal(twin_items, items.long())


def test_a_long_shortlist_is_shortened_many_times():
    falling = torch.arange(20_000, 0, -1, dtype=torch.float32)[None]
    shortlist = Shortlist(1, 700, 20_000, torch.float32)
    shortlist.add(falling)
    values, items = shortlist.finish(ordered=False)
    assert items[0].tolist() == list(range(19_300, 20_000))
    assert values[0].tolist() == list(range(700, 0, -1))


def test_of_equal_numbers_only_the_first_are_kept():
    # By hand: 1 and the first 2 of two.
    shortlist = Shortlist(1, 2, 3, torch.float32)
    shortlist.add(torch.tensor([[2.0, 2.0, 1.0]]))
    values, items = shortlist.finish(ordered=False)
    assert items.tolist() == [[0, 2]]
    assert values.tolist() == [[2, 1]]


def test_equal_numbers_without_end_keep_to_their_memory():
    shortlist = Shortlist(1, 300, 50_000, torch.float64)
    for _ in range(5):
        shortlist.add(torch.full((1, 10_000), math.inf, dtype=torch.float64))
    assert shortlist.finish(ordered=False)[1][0].tolist() == list(range(300))


def test_nan_is_told_and_never_listed():
    block = torch.zeros(2, 70)
    block[1, 69] = math.nan
    nothing = lists([[], []])
    assert count_places(block, nothing, None) is None
    assert count_places(block, nothing, lists([[], [69, 69]])) is None
    assert count_places(block[:1], lists([[]]), None) is not None
    block[1] = math.nan
    block[1, 68] = 0.0
    shortlist = Shortlist(2, 3, 70, torch.float32)
    shortlist.add(block)
    values, items = shortlist.finish(ordered=True)
    assert items.tolist() == [[0, 1, 2], [68, -1, -1]]
    assert values[1].tolist() == [0.0, math.inf, math.inf]


def test_what_a_kernel_would_misread_is_refused():
    block = torch.zeros(2, 3)
    nothing = lists([[], []])
    with pytest.raises(IndexError, match="N = 3"):
        count_places(block, lists([[3], []]), None)
    with pytest.raises(IndexError, match="-1"):
        count_places(block, nothing, lists([[], [-1]]))
    with pytest.raises(ValueError, match="1 lists for 2 rows"):
        count_places(block, lists([[]]), None)
    with pytest.raises(TypeError, match="share memory"):
        count_places(torch.zeros(1, 3).expand(2, -1), nothing, nothing)
    with pytest.raises(TypeError, match="contiguous rows"):
        count_places(torch.zeros(3, 2).T, nothing, None)
    with pytest.raises(TypeError, match="floats on the CPU"):
        count_places(block.half(), nothing, None)
    with pytest.raises(ValueError, match="k = 4"):
        Shortlist(2, 4, 3, torch.float32)
    shortlist = Shortlist(2, 2, 3, torch.float32)
    with pytest.raises(ValueError, match="does not fit"):
        shortlist.add(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="biases"):
        shortlist.add(block, bias=torch.zeros(2))
    with pytest.raises(TypeError, match="float64"):
        shortlist.add(block.double())


def test_the_number_of_threads_changes_nothing():
    block = matrix(40, 500, 3, torch.float32, True)
    targets, seen = lists([[100 + row] for row in range(40)]), lists([[7, 9]] * 40)
    before, answers = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            shortlist = Shortlist(40, 20, 500, torch.float32)
            shortlist.add(block)
            places = count_places(block.clone(), targets, seen)
            answers.append([*shortlist.finish(ordered=True), places.nearer, places.equal])
            ends = torch.full((40,), -1.0), torch.full((40,), 3.0)
            answers[-1] += in_tiles(block, 64, targets, seen, *ends)[0]
    finally:
        torch.set_num_threads(before)
    for first, second in zip(*answers, strict=True):
        assert torch.equal(first, second)


@given(st.lists(st.integers(0, 70), min_size=1, max_size=3), st.integers(0, 99), DTYPES)
def test_pairs_have_the_bits_of_the_passes(blocks, seed, dtype):
    random = np.random.default_rng(seed)
    width = sum(blocks)
    queries = torch.from_numpy(random.normal(size=(5, width)))
    keys = torch.from_numpy(random.normal(size=(9, width)) * 1e3).to(dtype)
    rows, items = (torch.from_numpy(random.integers(0, n, 40)) for n in (5, 9))
    found = pair_distances(queries, keys, rows, items, blocks)
    assert torch.equal(found, pair_distances_in_passes(queries, keys, rows, items, blocks))
    apart = (queries[rows] - keys[items].double()).square().sum(dim=1)
    assert torch.allclose(found.sum(dim=1), apart, rtol=1e-12)


def test_pairs_that_are_not_there_are_refused():
    queries, keys = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(4, 3)
    for rows, items in (([2], [0]), ([-1], [0]), ([0], [4]), ([0], [-1])):
        with pytest.raises(IndexError):
            pair_distances(queries, keys, torch.tensor(rows), torch.tensor(items), (3,))
    with pytest.raises(TypeError):
        pair_distances(queries, keys, torch.tensor([0]), torch.tensor([0]), (2,))
    none = torch.zeros(0, dtype=torch.int64)
    assert pair_distances(queries, keys, none, none, (3,)).shape == (0, 1)
