"""The ranking kernels: structures that mirror structures.h, and the calls."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p
from typing import NamedTuple

import torch

from attrec.native.library import KINDS, address, available, loaded, threads_for

_FEWEST_ROWS_A_THREAD = 8
_CHUNK = 64
"""Numbers that enter a shortlist at once: CHUNK of ranking.h."""
_SLACK = 1024
"""A shortlist is shortened to k at 4 k or k + 1024 numbers, whichever are fewer, or at 2 k."""
_MOST_ITEMS = 2**31 - 1


class _Places(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("N", "stride")),
        *((name, c_void_p) for name in ("block", "target_starts", "seen_starts", "targets")),
        *((name, c_void_p) for name in ("seen", "own", "nearer", "equal", "before", "nans")),
        ("reachable", c_void_p),
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
    function = getattr(loaded(), f"attrec_{kernel}_{KINDS[dtype]}")
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
