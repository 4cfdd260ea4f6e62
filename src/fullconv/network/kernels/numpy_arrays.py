"""Labels and confidence from scores in NumPy arrays, without torch: the compiled library where it
is there, else NumPy.

Shapes: N batch · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.core.labels import ids_dtype
from fullconv.geometry.grid import Grid
from fullconv.network.kernels.library import (
    NO_MEMORY,
    NOT_FINITE,
    load_library,
    no_memory,
    non_finite_error,
    scores_for,
)

_STRIP = 1 << 21  # scores that are looked at together


def labels(values: NDArray[np.float32], grid: Grid, size: tuple[int, int]) -> NDArray[Any]:
    """(N, K, h, w) float32 -> the class with the largest score at every pixel, (N, H, W), uint8 up
    to 255 classes, else uint16. The lowest class id wins a tie."""
    out = np.empty((values.shape[0], *size), ids_dtype(values.shape[1]))
    if not _compiled("fullconv_labels", values, grid, out, ctypes.c_int(out.dtype == np.uint16)):
        for rows, scores in _strips(values, grid, size):
            out[:, rows] = scores.argmax(axis=1)
    return out


def confidence(values: NDArray[np.float32], grid: Grid, size: tuple[int, int]) -> NDArray[Any]:
    """(N, K, h, w) float32 -> the softmax probability of that class, (N, H, W) float32."""
    out = np.empty((values.shape[0], *size), np.float32)
    if not _compiled("fullconv_confidence", values, grid, out):
        for rows, scores in _strips(values, grid, size):
            out[:, rows] = 1 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
    return out


def scores(
    values: NDArray[np.float32], grids: tuple[Grid, Grid], rows: range, width: int
) -> NDArray[np.float32]:
    """(K, h, w) float32, with cells at places of their own along the columns and along the rows ->
    the scores in some rows of the image, (K, rows, W)."""
    down = _matrix(grids[0], values.shape[1], rows.stop, rows.start)
    used = np.flatnonzero(down.any(axis=0))
    cells = slice(used[0], used[-1] + 1)
    along = _matrix(grids[1], values.shape[2], width)
    read: NDArray[Any] = down[:, cells] @ values[:, cells] @ along.T
    return read


def _compiled(
    name: str, values: NDArray[np.float32], grid: Grid, out: NDArray[Any], *further: Any
) -> bool:
    """Whether the compiled library did it."""
    library = load_library()[0]
    if library is None or os.environ.get("FULLCONV_KERNELS") == "reference":
        if not np.isfinite(values).all():
            raise non_finite_error()
        return False
    strides = [step // values.itemsize for step in values.strides]
    size = (out.shape[1], out.shape[2])
    begin = scores_for(values.ctypes.data, values.shape, strides, grid, size)
    threads = ctypes.c_int(os.cpu_count() or 1)
    status = getattr(library, name)(*begin, threads, ctypes.c_void_p(out.ctypes.data), *further)
    if status == NO_MEMORY:
        raise no_memory()
    if status == NOT_FINITE:
        raise non_finite_error()
    return True


def _strips(
    values: NDArray[np.float32], grid: Grid, size: tuple[int, int]
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Rows of the image and the scores there, (N, K, rows, W)."""
    count, classes, height, width = values.shape
    down, along = _matrix(grid, height, size[0]), _matrix(grid, width, size[1])
    step = max(1, _STRIP // (count * classes * size[1]))
    for start in range(0, size[0], step):
        rows = slice(start, start + step)
        yield rows, down[rows] @ values @ along.T


def _matrix(grid: Grid, cells: int, pixels: int, start: int = 0) -> NDArray[np.float32]:
    """Weights (pixels, cells), as `fullconv.network.kernels.reference.interpolation_matrix` has them."""
    where = ((np.arange(start, pixels) - grid.offset) / grid.stride).clip(0, cells - 1)[:, None]
    weights: NDArray[np.float64] = (1 - abs(where - np.arange(cells))).clip(min=0)
    return weights.astype(np.float32)
