"""The compiled kernels are found where they fit, and left alone where they do not."""

import shutil

import pytest
import torch

from attrec.native import library as native
from attrec.native.library import HERE, address, available, source_digest


def test_the_kernels_are_built_where_there_is_a_compiler():
    # A build that failed quietly would leave every user with the slower step.
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("this machine has no C compiler, so no kernels were built")
    assert available(), "run: pip install -e . again; the kernels are older than their sources"


@pytest.mark.skipif(not available(), reason="this installation has no compiled kernels")
def test_kernels_of_other_sources_are_not_used(tmp_path, monkeypatch):
    for path in [*HERE.glob("*.[ch]"), *HERE.glob("_kernels.*")]:
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(native, "HERE", tmp_path)
    assert native.library.__wrapped__() is not None
    changed = tmp_path / "kernels.c"
    changed.write_text(changed.read_text() + "/* changed */\n")
    assert native.library.__wrapped__() is None
    for path in tmp_path.glob("*.[ch]"):
        path.unlink()
    assert source_digest(tmp_path) is None
    assert native.library.__wrapped__() is not None, "a wheel carries no sources"
    elsewhere = tmp_path / "elsewhere"  # the one above is loaded, and found by its name
    elsewhere.mkdir()
    (elsewhere / "_kernels.so").write_bytes(b"no library")
    monkeypatch.setattr(native, "HERE", elsewhere)
    assert native.library.__wrapped__() is None


def test_a_tensor_that_a_kernel_would_misread_is_an_error():
    rows = torch.zeros(4, 6)
    assert address(rows, torch.float32) == rows.data_ptr()
    assert address(None, torch.float32) is None
    for wrong in (rows.double(), rows.T, torch.empty(4, 6, device="meta")):
        with pytest.raises(TypeError, match=r"a kernel takes contiguous torch\.float32 tensors"):
            address(wrong, torch.float32)
