"""Interpolation and loss as they are defined, written out pixel by pixel in float64: the reference
of every backend's tests. Slow: for few pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fullconv.geometry.grid import Grid


def position(pixel: int, grid: Grid, cells: int) -> tuple[int, int, float]:
    """Return the two cells around a pixel, and its position between them."""
    u = min(max((pixel - grid.offset) / grid.stride, 0.0), cells - 1.0)
    below = min(math.floor(u), cells - 1)
    return below, min(below + 1, cells - 1), u - below


Grids = Grid | tuple[Grid, Grid]  # of both axes, or along the rows and along the columns


def full_by_definition(values: Tensor, grid: Grids, size: tuple[int, int]) -> Tensor:
    rows = []
    across, along_rows = grid if isinstance(grid, tuple) else (grid, grid)
    for y in range(size[0]):
        top, bottom, down = position(y, across, values.shape[2])
        row = []
        for x in range(size[1]):
            left, right, along = position(x, along_rows, values.shape[3])
            above = (1 - along) * values[:, :, top, left] + along * values[:, :, top, right]
            below = (1 - along) * values[:, :, bottom, left] + along * values[:, :, bottom, right]
            row.append((1 - down) * above + down * below)
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


def loss_by_definition(
    values: Tensor,
    grid: Grids,
    target: Tensor,
    ignore_index: int,
    class_weights: Tensor | None,
    label_smoothing: float,
) -> Tensor:
    """Return the mean, over the pixels that are not ignored, of -sum_k q_k w_k log p_k, weighted by
    the weight of the true class; q is 1 - s for the true class plus s / K for every class."""
    scores = full_by_definition(values, grid, (target.shape[1], target.shape[2]))
    classes = values.shape[1]
    weights = [1.0] * classes if class_weights is None else class_weights.tolist()
    total, weight = 0 * scores.sum(), 0.0
    for n in range(target.shape[0]):
        for y in range(target.shape[1]):
            for x in range(target.shape[2]):
                true = int(target[n, y, x])
                if true == ignore_index:
                    continue
                pixel = scores[n, :, y, x]
                largest = pixel.detach().max()
                normalizer = largest + (pixel - largest).exp().sum().log()
                for k in range(classes):
                    q = label_smoothing / classes + (1 - label_smoothing) * (k == true)
                    if q:
                        total = total + q * weights[k] * (normalizer - pixel[k])
                weight += weights[true]
    return total / weight if weight else total
