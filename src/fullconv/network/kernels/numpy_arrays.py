"""Labels and confidence from scores in NumPy arrays, without torch: by the compiled library if it
is installed, else by NumPy.

Shapes: N batch · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.core.hardware import cpu_count
from fullconv.core.labels import ids_dtype
from fullconv.geometry.grid import Grid
from fullconv.network.kernels.library import (
    call_library,
    forced_backend,
    load_library,
    non_finite_error,
    scores_arguments,
)

_STRIP = 1 << 21  # scores per strip


def labels(values: NDArray[np.float32], grid: Grid, size: tuple[int, int]) -> NDArray[Any]:
    """Return the class with the largest score at every pixel, (N, H, W), from float32
    (N, K, h, w): uint8 up to 255 classes, else uint16. The lowest id wins a tie."""
    out = np.empty((values.shape[0], *size), ids_dtype(values.shape[1]))
    wide = ctypes.c_int(out.dtype == np.uint16)
    if not _run_compiled("fullconv_labels", values, grid, out, wide):
        for rows, scores in _strips(values, grid, size):
            out[:, rows] = scores.argmax(axis=1)
    return out


def confidence(values: NDArray[np.float32], grid: Grid, size: tuple[int, int]) -> NDArray[Any]:
    """Return the softmax probability of that class, (N, H, W), from float32 (N, K, h, w)."""
    out = np.empty((values.shape[0], *size), np.float32)
    if not _run_compiled("fullconv_confidence", values, grid, out):
        for rows, scores in _strips(values, grid, size):
            out[:, rows] = 1 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
    return out


def scores(
    values: NDArray[np.float32], grids: tuple[Grid, Grid], rows: range, width: int
) -> NDArray[np.float32]:
    """Return the scores in a range of image rows, (K, rows, W), from float32 (K, h, w) at the cells
    of one grid along the rows and one along the columns. `width` is the image's, in pixels."""
    down = _matrix(grids[0], values.shape[1], rows.stop, rows.start)
    used = np.flatnonzero(down.any(axis=0))
    cells = slice(used[0], used[-1] + 1)
    along = _matrix(grids[1], values.shape[2], width)
    interpolated: NDArray[Any] = down[:, cells] @ values[:, cells] @ along.T
    return interpolated


def _run_compiled(
    name: str, values: NDArray[np.float32], grid: Grid, out: NDArray[Any], *more: Any
) -> bool:
    """Run a function of the compiled library; return False if there is none."""
    library = load_library()[0]
    if forced_backend() == "reference" or library is None:
        if not np.isfinite(values).all():
            raise non_finite_error()
        return False
    strides = [step // values.itemsize for step in values.strides]
    size = (out.shape[1], out.shape[2])
    first = scores_arguments(values.ctypes.data, values.shape, strides, grid, size)
    threads, target = ctypes.c_int(cpu_count()), ctypes.c_void_p(out.ctypes.data)
    call_library(library, name, *first, threads, target, *more)
    return True


def _strips(
    values: NDArray[np.float32], grid: Grid, size: tuple[int, int]
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield ranges of image rows and the scores there, (N, K, rows, W)."""
    count, classes, height, width = values.shape
    down, along = _matrix(grid, height, size[0]), _matrix(grid, width, size[1])
    step = max(1, _STRIP // (count * classes * size[1]))
    for start in range(0, size[0], step):
        rows = slice(start, start + step)
        yield rows, down[rows] @ values @ along.T


def _matrix(grid: Grid, cells: int, pixels: int, start: int = 0) -> NDArray[np.float32]:
    """Weights (pixels, cells), as in `fullconv.network.kernels.reference.interpolation_matrix`."""
    positions = ((np.arange(start, pixels) - grid.offset) / grid.stride).clip(0, cells - 1)
    weights: NDArray[np.float64] = (1 - abs(positions[:, None] - np.arange(cells))).clip(min=0)
    return weights.astype(np.float32)
