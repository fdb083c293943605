"""Builds the compiled kernels, where there is a compiler; everything else is in pyproject.toml.

The kernels are plain C without Python in it: one wheel of a platform serves every Python. Where
they cannot be built the install goes on without them, and training takes its PyTorch step.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

FOLDER = Path("src/attrec/native")
SOURCES = sorted([*FOLDER.glob("*.c"), *FOLDER.glob("*.h")])
# attrec.native.library reads the same digest again, and leaves a library of other sources alone.
DIGEST = hashlib.sha256(b"".join(path.read_bytes().replace(b"\r\n", b"\n") for path in SOURCES))
KERNELS = Extension(
    "attrec.native._kernels",
    [str(FOLDER / "kernels.c")],
    depends=[str(path) for path in SOURCES],
    define_macros=[("ATTREC_SOURCES", f"INT64_C({int.from_bytes(DIGEST.digest()[:7], 'big')})")],
    # A published wheel must not go without them quietly.
    optional=os.environ.get("ATTREC_REQUIRE_KERNELS") != "1",
)
MSVC = ["/O2", "/std:c11"]
PLAIN = ["-O3", "-std=c11", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
GNU = [*PLAIN, "-D_GNU_SOURCE", "-Wall", "-Wextra"]


class BuildKernels(build_ext):
    """Builds a library that ctypes loads, with OpenMP's threads where the compiler has them."""

    def get_ext_filename(self, fullname: str) -> str:
        """Leave the Python version out of the file's name."""
        suffix = ".dll" if sys.platform == "win32" else ".so"
        return "/".join(fullname.split(".")) + suffix

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Ask for no initialising function: this is no Python module."""
        return ext.export_symbols

    def build_extension(self, ext: Extension) -> None:
        """Try with threads, then with vectors alone."""
        if self.compiler.compiler_type == "msvc":
            ways = [([*MSVC, "/openmp:experimental"], []), (MSVC, [])]
        else:
            ways = [
                ([*GNU, "-fopenmp"], ["-fopenmp", "-lm"]),
                ([*GNU, "-fopenmp-simd", "-Wno-unknown-pragmas"], ["-lm"]),
            ]
        if (
            sys.platform == "darwin"
        ):  # a second OpenMP runtime beside PyTorch's would end the process
            ways = ways[1:]
        for number, (ext.extra_compile_args, ext.extra_link_args) in enumerate(ways, start=1):
            try:
                super().build_extension(ext)
            except (CCompilerError, ExecError, PlatformError):
                if number == len(ways):
                    raise
            else:
                return


class PlatformWheel(bdist_wheel):
    """A wheel of this platform, for any Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return its tag."""
        return ("py3", "none", super().get_tag()[2])


setup(ext_modules=[KERNELS], cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel})
