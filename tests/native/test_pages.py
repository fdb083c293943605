"""Large tables lie on large pages where the system allows it; nothing else changes."""

import ctypes
import mmap
import sys
from pathlib import Path

import pytest
import torch

from attrec.native import pages
from attrec.native.pages import on_large_pages


def test_the_tensor_is_the_same_and_can_be_used(monkeypatch):
    monkeypatch.setattr(pages, "FEWEST_BYTES", 0)
    for shape in ((0, 4), (3, 5), (1000, 100)):
        tensor = torch.empty(shape)
        assert on_large_pages(tensor) is tensor
        assert float(tensor.fill_(2.0).sum()) == 2.0 * tensor.numel()


def test_whole_pages_inside_the_tensor_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(pages, "_madvise", lambda: lambda *call: asked.append(call))
    table = torch.empty(pages.FEWEST_BYTES + 8, dtype=torch.uint8)
    on_large_pages(table)
    ((start, length, advice),) = asked
    assert advice == 14  # MADV_HUGEPAGE
    assert start.value % mmap.PAGESIZE == length.value % mmap.PAGESIZE == 0
    assert table.data_ptr() <= start.value
    assert start.value + length.value <= table.data_ptr() + len(table)
    assert length.value > len(table) - 2 * mmap.PAGESIZE
    on_large_pages(table[:100])
    on_large_pages(torch.empty(1 << 30, dtype=torch.uint8, device="meta"))
    assert len(asked) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="large pages are asked for on Linux alone")
def test_the_system_takes_the_advice():
    advise = pages._madvise()
    table = torch.empty(4 << 20, dtype=torch.uint8)
    start = -(-table.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    arguments = ctypes.c_void_p(start), ctypes.c_size_t(1 << 20), mmap.MADV_HUGEPAGE
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel was built without large pages")
    assert advise(*arguments) == 0


def test_a_system_without_them_is_left_alone(monkeypatch):
    monkeypatch.setattr(pages.sys, "platform", "darwin")
    assert pages._madvise.__wrapped__() is None
