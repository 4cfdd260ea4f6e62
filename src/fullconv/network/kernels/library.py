"""The compiled library, for whoever has pointers: torch's tensors (native.py) or NumPy's arrays
(arrays.py). Nothing here needs torch."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from fullconv.core.errors import FullconvError

NO_MEMORY, NOT_FINITE, STRAY_ID = 1, 2, 3  # what its functions return, else 0


@functools.cache
def load_library() -> tuple[Any, str]:
    """The library, or why there is none."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_native{suffix}")
        if path.is_file():
            try:
                return ctypes.CDLL(str(path)), ""
            except OSError as error:  # built for another machine, or its OpenMP is gone
                return None, str(error)
    return None, "no C++ compiler when it was installed"


def scores_for(
    pointer: int, shape: Sequence[int], strides: Sequence[int], grid: Any, size: tuple[int, int]
) -> tuple[Any, ...]:
    """What its functions begin with: scores (N, K, h, w), strides in elements, a `Grid`, (H, W)."""
    return (
        ctypes.c_void_p(pointer),
        integers(shape),
        integers(strides),
        (ctypes.c_double * 2)(grid.offset, grid.stride),
        integers(size),
    )


def integers(numbers: Sequence[int]) -> Any:
    """An array of 64-bit integers."""
    return (ctypes.c_int64 * max(1, len(numbers)))(*numbers)


def non_finite_error() -> FullconvError:
    """The one sentence of every way to read scores."""
    return FullconvError(
        "the scores hold NaN or infinite values, so there is no largest one. The weights are "
        "broken: a training that diverged?",
        "fullconv train DATA --lr 0.0005",
    )


def no_memory() -> FullconvError:
    """Where there is not enough for its work."""
    return FullconvError(
        "there is not enough memory to read the scores.", "free -h   # or a smaller image"
    )
