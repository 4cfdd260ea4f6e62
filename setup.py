"""Build the compiled kernels and the message catalogs; the rest is in pyproject.toml.

Without a compiler the package can still be installed, and torch does the kernels' work.
"""

from __future__ import annotations

from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

KERNELS = Path("src/fullconv/network/kernels/compiled")
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-fvisibility=hidden", "-Wno-psabi"]


class BuildPython(build_py):
    """Compile the catalogs next to their sources, from where package-data takes them.

    Editable installs run this, too.
    """

    def run(self) -> None:
        for source in Path("src/fullconv/core/locale").glob("*/LC_MESSAGES/*.po"):
            with source.open("rb") as file, source.with_suffix(".mo").open("wb") as compiled:
                write_mo(compiled, read_po(file))
        super().run()


class BuildKernels(build_ext):
    """Build a library for ctypes, not a Python module: with OpenMP if the compiler has it."""

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def build_extension(self, ext: Extension) -> None:
        if self.compiler.compiler_type == "msvc":
            self.announce("the kernels need GCC or Clang; torch does their work", level=3)
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
                self.announce(f"without OpenMP: {error}", level=3)


setup(
    ext_modules=[
        Extension(
            "fullconv.network.kernels._native",
            sources=[str(KERNELS / "native.cpp")],
            depends=sorted(str(path) for path in KERNELS.iterdir()),
            extra_compile_args=FLAGS,
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels, "build_py": BuildPython},
)
