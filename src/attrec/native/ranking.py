"""The ranking kernels: structures that mirror structures.h, and the calls."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_double, c_int64, c_void_p
from typing import NamedTuple

import numpy as np
import torch

from attrec.native.library import KINDS, address, available, loaded, threads_for

_FEWEST_ROWS_A_THREAD = 8
_CHUNK = 64
"""Numbers that enter a shortlist at once: CHUNK of ranking.h."""
_SLACK = 1024
"""A shortlist is shortened to k at 4 k or k + 1024 numbers, whichever are fewer, or at 2 k."""
_KEPT = 16
"""Numbers of a target's band that are kept: KEPT of ranking.h."""
_ROUNDINGS = 8.0
"""Half a band's width: the product's order of adding is not ours."""
_MOST_ITEMS = 2**31 - 1


class _Places(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("N", "stride")),
        *((name, c_void_p) for name in ("block", "target_starts", "seen_starts", "targets")),
        *((name, c_void_p) for name in ("seen", "own", "nearer", "equal", "before", "nans")),
        ("reachable", c_void_p),
    )


class _Tile(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("N", "stride", "first")),
        *((name, c_void_p) for name in ("block", "target_starts", "seen_starts", "targets")),
        *((name, c_void_p) for name in ("seen", "own", "low", "high", "kept", "held")),
        *((name, c_void_p) for name in ("seen_so_far", "nearer", "equal", "before", "nans")),
        *((name, c_void_p) for name in ("reachable", "repeat")),
    )


class _Bands(ctypes.Structure):
    _fields_ = (
        ("D", c_int64),
        ("roundings", c_double),
        *((name, c_void_p) for name in ("queries", "keys", "target_starts", "targets")),
        *((name, c_void_p) for name in ("low", "high")),
    )


class _Pairs(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("D", "blocks")),
        *((name, c_void_p) for name in ("queries", "keys", "rows", "items", "ends", "out")),
    )


class _Spread(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("shift", "tiles")),
        *((name, c_void_p) for name in ("starts", "items", "by_tile")),
    )


class _Nearest(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("N", "stride", "first", "k", "capacity", "sorted")),
        ("factor", c_double),
        *((name, c_void_p) for name in ("block", "bias", "values", "edges", "items", "held")),
        ("full", c_void_p),
    )


class Lists(NamedTuple):
    """One list of item indices for each row: ``values[starts[r]:starts[r + 1]]``.

    Attributes
    ----------
    values : (E,) int32 tensor
    starts : (B + 1,) int64 tensor
    """

    values: torch.Tensor
    starts: torch.Tensor


class Places(NamedTuple):
    """What stands before each of T targets.

    Attributes
    ----------
    own : (T,) tensor
        The target's own distance; meaningless where it is not reachable.
    nearer, equal, before : (T,) int64
        Items that are strictly nearer, that are equal (itself among them), and that are equal with
        a lower index; seen items left out.
    reachable : (T,) bool
        The target is an item, and none that its row has seen.
    """

    own: torch.Tensor
    nearer: torch.Tensor
    equal: torch.Tensor
    before: torch.Tensor
    reachable: torch.Tensor


def readable(block: torch.Tensor) -> bool:
    """Tell whether the kernels of this installation take a block of distances."""
    return available() and block.device.type == "cpu" and block.dtype in KINDS


def count_places(block: torch.Tensor, targets: Lists, seen: Lists | None) -> Places | None:
    """Count what stands before each target; +inf is written over the seen items.

    Parameters
    ----------
    block : (B, N) float32 or float64 tensor
        Contiguous rows, or one row for all; written into where ``seen`` is given.
    targets, seen : Lists of B lists
        Item indices below N; a negative target is not reachable, a seen item is never negative.

    Returns
    -------
    Places or None
        None where a distance is NaN.

    Raises
    ------
    IndexError
        An index is not that of an item.
    TypeError
        See `address`.
    """
    rows, num_items = block.shape
    _check(targets, rows, -(2**31), num_items)
    if seen is not None:
        _check(seen, rows, 0, num_items)
        if rows > 1 and block.stride(0) < num_items:
            raise TypeError("rows that share memory cannot be masked one by one")
    count = len(targets.values)
    nearer, equal, before = (torch.empty(count, dtype=torch.int64) for _ in range(3))
    own, reachable = torch.empty(count, dtype=block.dtype), torch.empty(count, dtype=torch.bool)
    nans = torch.empty(rows, dtype=torch.int64)
    fields = _Places(
        N=num_items,
        stride=block.stride(0),
        block=_rows_address(block),
        target_starts=address(targets.starts, torch.int64),
        targets=address(targets.values, torch.int32),
        seen_starts=None if seen is None else address(seen.starts, torch.int64),
        seen=None if seen is None else address(seen.values, torch.int32),
        own=address(own, block.dtype),
        nearer=address(nearer, torch.int64),
        equal=address(equal, torch.int64),
        before=address(before, torch.int64),
        nans=address(nans, torch.int64),
        reachable=address(reachable, torch.bool),
    )
    _run("places", block.dtype, fields, rows)
    return None if bool(nans.any()) else Places(own, nearer, equal, before, reachable)


class TiledPlaces:
    """What stands before each target, counted over tiles: blocks of the next columns.

    Meant for tiles that are still in cache. A target's own distance is known only when its tile
    comes, so each has a band in which it must lie. That is a guess: where it proves wrong, or where
    more than 16 items of earlier tiles lie inside the band, `again` asks for the same tiles
    once more, and then nothing is left to guess.

    Parameters
    ----------
    targets, seen : Lists of B lists
        As of `count_places`.
    num_items : int
        N, all columns.
    width : int
        Columns of every tile but the last, a power of 2.
    low, high : (T,) tensors
        Each target's band; float32 or float64.

    Raises
    ------
    IndexError
        An index is not that of an item.
    """

    def __init__(
        self,
        targets: Lists,
        seen: Lists | None,
        num_items: int,
        width: int,
        low: torch.Tensor,
        high: torch.Tensor,
    ) -> None:
        if width < 1 or width & (width - 1):
            raise ValueError(f"tiles of {width} columns: a power of 2 is needed")
        count, self._rows = len(targets.values), len(targets.starts) - 1
        if not len(low) == len(high) == count:
            raise ValueError(f"{len(low)} and {len(high)} ends of bands for {count} targets")
        _check(targets, self._rows, -(2**31), num_items)
        if seen is not None:
            _check(seen, self._rows, 0, num_items)
            seen = _by_tile(seen, num_items, width)
        self._targets, self._seen = targets, seen
        self._items, self._width, self._dtype = num_items, width, low.dtype
        self._low, self._high = low.clone(), high.clone()
        self._own = torch.empty(count, dtype=low.dtype)
        self._kept = torch.empty(count, _KEPT, dtype=low.dtype)
        self._repeat = torch.zeros(count, dtype=torch.bool)
        self._begin()

    def _begin(self) -> None:
        """Count from the first column on."""
        count = len(self._targets.values)
        self._held, self._nearer, self._equal, self._before = torch.zeros(
            4, count, dtype=torch.int64
        )
        self._nans = torch.zeros(self._rows, dtype=torch.int64)
        self._seen_so_far = None if self._seen is None else self._seen.starts[:-1].clone()
        self._reachable = self._targets.values >= 0
        self._repeat.zero_()
        seen = self._seen
        self._fields = _Tile(
            target_starts=address(self._targets.starts, torch.int64),
            targets=address(self._targets.values, torch.int32),
            seen_starts=None if seen is None else address(seen.starts, torch.int64),
            seen=None if seen is None else address(seen.values, torch.int32),
            own=address(self._own, self._dtype),
            low=address(self._low, self._dtype),
            high=address(self._high, self._dtype),
            kept=address(self._kept, self._dtype),
            held=address(self._held, torch.int64),
            seen_so_far=address(self._seen_so_far, torch.int64),
            nearer=address(self._nearer, torch.int64),
            equal=address(self._equal, torch.int64),
            before=address(self._before, torch.int64),
            nans=address(self._nans, torch.int64),
            reachable=address(self._reachable, torch.bool),
            repeat=address(self._repeat, torch.bool),
        )

    def add(self, tile: torch.Tensor) -> None:
        """Count over the next columns (B, n), contiguous rows; the seen items become NaN there."""
        fields, first = self._fields, self._fields.first
        columns = min(self._width, self._items - first)
        if tile.shape != (self._rows, columns) or not columns:
            raise ValueError(f"a tile of shape {tuple(tile.shape)}, not {(self._rows, columns)}")
        if tile.dtype != self._dtype:
            raise TypeError(f"bands of {self._dtype} take no {tile.dtype}")
        if self._rows > 1 and tile.stride(0) < columns:
            raise TypeError("rows that share memory cannot be masked one by one")
        fields.N, fields.stride, fields.block = columns, tile.stride(0), _rows_address(tile)
        _run("tile", self._dtype, fields, self._rows)
        fields.first = first + columns

    def again(self) -> bool:
        """Tell whether the same tiles must come once more; asked after the last one."""
        needed = bool((self._repeat & self._reachable).any())
        if needed:
            self._begin()
        return needed

    def places(self) -> Places | None:
        """Return what was counted, None where a distance is NaN."""
        if bool(self._nans.any()):
            return None
        return Places(self._own, self._nearer, self._equal, self._before, self._reachable)


def bands(
    queries: torch.Tensor, keys: torch.Tensor, targets: Lists
) -> tuple[torch.Tensor, torch.Tensor]:
    """Guess between which two numbers the product of a query and a target's key comes out.

    Parameters
    ----------
    queries, keys : (B, W), (N, W) float32 or float64 tensors
    targets : Lists of B lists
        Item indices below N; what a negative one is given means nothing.

    Returns
    -------
    pair of (T,) tensors
        The band's two ends: Σ q_j k_j, added in some order, give and take 8 roundings of
        Σ |q_j k_j|. Too narrow a band costs time, never a rank.
    """
    if queries.shape[1] != keys.shape[1] or queries.dtype != keys.dtype:
        raise TypeError(f"no products of {tuple(queries.shape)} by {tuple(keys.shape)}")
    _check(targets, len(queries), -(2**31), len(keys))
    low, high = (torch.empty(len(targets.values), dtype=keys.dtype) for _ in range(2))
    fields = _Bands(
        D=keys.shape[1],
        roundings=_ROUNDINGS * torch.finfo(keys.dtype).eps / 2,
        queries=address(queries, keys.dtype),
        keys=address(keys, keys.dtype),
        target_starts=address(targets.starts, torch.int64),
        targets=address(targets.values, torch.int32),
        low=address(low, keys.dtype),
        high=address(high, keys.dtype),
    )
    _run("bands", keys.dtype, fields, len(queries))
    return low, high


def pair_distances(
    queries: torch.Tensor,
    keys: torch.Tensor,
    rows: torch.Tensor,
    items: torch.Tensor,
    blocks: Sequence[int],
) -> torch.Tensor:
    """Return the squared distances, block by block, of pairs of query and key.

    Parameters
    ----------
    queries : (B, D) float64 tensor
    keys : (N, D) float32 or float64 tensor
    rows, items : (P,) int64 tensors
    blocks : sequence of int
        How many coordinates each block has, D in all.

    Returns
    -------
    (P, blocks) float64 tensor
        The squares are added in the tree of `attrec.retrieval.index.pair_distances`.

    Raises
    ------
    IndexError
        An index is not that of a query or of a key.
    TypeError
        See `address`; or the widths differ.
    """
    width, ends = keys.shape[1], np.cumsum(blocks, dtype=np.int64)
    if queries.shape[1] != width or len(rows) != len(items) or ends[-1] != width:
        raise TypeError(f"no distances of {tuple(queries.shape)} to {tuple(keys.shape)}")
    for given, count in ((rows, len(queries)), (items, len(keys))):
        if len(given) and not (int(given.min()) >= 0 and int(given.max()) < count):
            raise IndexError(f"indices {int(given.min())} to {int(given.max())} of {count}")
    out = torch.empty(len(items), len(blocks), dtype=torch.float64)
    fields = _Pairs(
        D=width,
        blocks=len(blocks),
        queries=address(queries, torch.float64),
        keys=address(keys, keys.dtype),
        rows=address(rows, torch.int64),
        items=address(items, torch.int64),
        ends=ends.ctypes.data,
        out=address(out, torch.float64),
    )
    _run("pairs", keys.dtype, fields, len(items))
    return out


def _by_tile(lists: Lists, num_items: int, width: int) -> Lists:
    """Order each row's items by the tile in which they stand."""
    values = torch.empty_like(lists.values)
    fields = _Spread(
        shift=width.bit_length() - 1,
        tiles=-(-num_items // width),
        starts=address(lists.starts, torch.int64),
        items=address(lists.values, torch.int32),
        by_tile=address(values, torch.int32),
    )
    _call("attrec_spread_rows", fields, len(lists.starts) - 1)
    return Lists(values, lists.starts)


class Shortlist:
    """The k smallest of each row of a matrix that comes in blocks of columns.

    Equal numbers: the lower column wins. NaN is never among them.

    Parameters
    ----------
    rows : int
    k : int, ≥ 1
        At most the number of columns.
    num_columns : int
        Of the whole matrix, below 2³¹.
    dtype : torch.dtype
        float32 or float64.
    """

    def __init__(self, rows: int, k: int, num_columns: int, dtype: torch.dtype) -> None:
        if not 1 <= k <= num_columns <= _MOST_ITEMS:
            raise ValueError(f"k = {k} of {num_columns} columns")
        self.k = k
        self._next = 0
        self._columns = num_columns
        beyond = max(k, min(3 * k, _SLACK))
        self._capacity = min(k + beyond, num_columns) + _CHUNK
        self._values = torch.empty(rows, self._capacity, dtype=dtype)
        self._items = torch.empty(rows, self._capacity, dtype=torch.int32)
        self._edges = torch.full((rows,), torch.inf, dtype=dtype)
        self._held = torch.zeros(rows, dtype=torch.int64)
        self._full = torch.zeros(rows, dtype=torch.int64)

    def add(
        self, block: torch.Tensor, *, bias: torch.Tensor | None = None, factor: float = 1.0
    ) -> None:
        """Enter the next columns: ``block`` (B, n), or ``bias + factor * block`` with a bias (n,).

        Raises
        ------
        MemoryError
        ValueError
            There are more columns than were announced.
        """
        columns = block.shape[1]
        if block.shape[0] != len(self._held) or self._next + columns > self._columns:
            raise ValueError(f"a block of shape {tuple(block.shape)} does not fit the shortlist")
        if block.dtype != self._values.dtype:
            raise TypeError(f"a shortlist of {self._values.dtype} takes no {block.dtype}")
        if bias is not None and len(bias) != columns:
            raise ValueError(f"{len(bias)} biases for {columns} columns")
        fields = self._fields()
        fields.N, fields.stride, fields.first = columns, block.stride(0), self._next
        fields.block, fields.factor = _rows_address(block), factor
        fields.bias = address(bias, block.dtype)
        self._next += columns
        _run("nearest", self._values.dtype, fields, len(self._held))

    def finish(self, *, ordered: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the values (B, k) and their columns (B, k) int32; +inf and -1 where none is left.

        Parameters
        ----------
        ordered : bool
            Smallest first, equal ones by column; otherwise in the order of the columns.
        """
        fields = self._fields()
        fields.sorted = ordered
        _run("ordered", self._values.dtype, fields, len(self._held))
        values, items = self._values[:, : self.k], self._items[:, : self.k]
        if bool((self._held < self.k).any()):
            empty = torch.arange(self.k) >= self._held[:, None]
            values.masked_fill_(empty, torch.inf)
            items.masked_fill_(empty, -1)
        return values, items

    def _fields(self) -> _Nearest:
        return _Nearest(
            k=self.k,
            capacity=self._capacity,
            values=address(self._values, self._values.dtype),
            edges=address(self._edges, self._values.dtype),
            items=address(self._items, torch.int32),
            held=address(self._held, torch.int64),
            full=address(self._full, torch.int64),
        )


def _run(kernel: str, dtype: torch.dtype, fields: ctypes.Structure, rows: int) -> None:
    _call(f"attrec_{kernel}_{KINDS[dtype]}", fields, rows)


def _call(name: str, fields: ctypes.Structure, rows: int) -> None:
    function = getattr(loaded(), name)
    function.argtypes = [c_void_p, c_int64, c_int64]
    if function(ctypes.byref(fields), rows, threads_for(rows, _FEWEST_ROWS_A_THREAD)):
        raise MemoryError("no memory for a ranking's scratch space")


def _rows_address(block: torch.Tensor) -> int:
    """Where a block begins whose rows are contiguous, whatever lies between them."""
    if block.device.type != "cpu" or block.dtype not in KINDS:
        raise TypeError(f"a kernel takes floats on the CPU, not {block.dtype} on {block.device}")
    if block.shape[1] > 1 and block.stride(1) != 1:
        raise TypeError(f"a kernel takes contiguous rows, not strides {block.stride()}")
    return block.data_ptr()


def _check(lists: Lists, rows: int, lowest: int, num_items: int) -> None:
    if len(lists.starts) != rows + 1:
        raise ValueError(f"{len(lists.starts) - 1} lists for {rows} rows")
    if len(lists.values):
        low, high = (int(extreme) for extreme in torch.aminmax(lists.values))
        if low < lowest or high >= num_items:
            raise IndexError(f"an item index of {low if low < lowest else high}: N = {num_items}")
