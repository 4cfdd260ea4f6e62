"""The compiled library, for callers with pointers to torch tensors (native.py) or NumPy arrays
(numpy_arrays.py). Nothing here needs torch."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import truncated_list
from fullconv.geometry.grid import Grid

BACKENDS = ("native", "triton", "reference")
VARIABLE = "FULLCONV_KERNELS"  # forces one of them
NO_MEMORY, NOT_FINITE, STRAY_ID = 1, 2, 3  # statuses that its functions return, else 0


@functools.cache
def load_library() -> tuple[Any, str]:
    """Return the library and "", or None and the reason why it is missing."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_native{suffix}")
        if path.is_file():
            try:
                return ctypes.CDLL(str(path)), ""
            except OSError as error:  # built for another machine, or its OpenMP is missing
                return None, str(error)
    return None, msg("there was no C++ compiler during installation")


def forced_backend() -> str:
    """Return the backend that FULLCONV_KERNELS forces, or ""."""
    forced = os.environ.get(VARIABLE, "")
    if forced and forced not in BACKENDS:
        message = msg(
            "{variable} is {value!r}; choose from {backends}.",
            variable=VARIABLE,
            value=forced,
            backends=truncated_list(BACKENDS),
        )
        raise FullconvError(message, f"export {VARIABLE}=reference")
    return forced


def scores_arguments(
    pointer: int, shape: Sequence[int], strides: Sequence[int], grid: Grid, size: tuple[int, int]
) -> tuple[Any, ...]:
    """Return the first arguments of the library's functions: scores (N, K, h, w), with strides in
    elements, their grid, and the image's (H, W)."""
    return (
        ctypes.c_void_p(pointer),
        int64_array(shape),
        int64_array(strides),
        (ctypes.c_double * 2)(grid.offset, grid.stride),
        int64_array(size),
    )


def int64_array(numbers: Sequence[int]) -> Any:
    return (ctypes.c_int64 * max(1, len(numbers)))(*numbers)


def call_library(library: Any, name: str, *arguments: Any, finite_only: bool = True) -> int:
    """Call a function of the library and return its status. It is an error if memory runs out, or
    if a score is not finite and `finite_only` is true."""
    status = int(getattr(library, name)(*arguments))
    if status == NO_MEMORY:
        message = msg("not enough memory to interpolate the scores.")
        raise FullconvError(message, msg("free -h   # or a smaller image"))
    if status == NOT_FINITE and finite_only:
        raise non_finite_error()
    return status


def non_finite_error() -> FullconvError:
    message = msg(
        "the scores are NaN or infinite, so no class has the largest score. The weights are "
        "broken, for example by a training run that diverged."
    )
    return FullconvError(message, "fullconv train DATA --lr 0.0005")
