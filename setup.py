"""Builds the compiled kernels. All else about the package is in pyproject.toml.

Without a compiler the package installs all the same, and torch does the kernels' work.
"""

from __future__ import annotations

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-fvisibility=hidden", "-Wno-psabi"]


class BuildKernels(build_ext):
    """A library for ctypes, not a Python module: with OpenMP if the compiler has it."""

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def build_extension(self, ext: Extension) -> None:
        if self.compiler.compiler_type == "msvc":
            self.announce("the kernels need GCC or Clang; torch will do their work", level=3)
            return
        plain = list(ext.extra_compile_args)
        for openmp in (["-fopenmp"], []):
            ext.extra_compile_args = plain + openmp
            ext.extra_link_args = openmp
            try:
                super().build_extension(ext)
                return
            except Exception as error:
                if not openmp:
                    raise
                self.announce(f"without OpenMP, since: {error}", level=3)


setup(
    ext_modules=[
        Extension(
            "fullconv.network.kernels._native",
            sources=["src/fullconv/network/kernels/compiled/native.cpp"],
            depends=[
                f"src/fullconv/network/kernels/compiled/{name}"
                for name in ("plan.h", "vectors.inc", "loss.inc", "labels.inc", "walks.inc")
            ],
            extra_compile_args=FLAGS,
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
)
