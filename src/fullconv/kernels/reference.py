"""The bilinear readings of scores in plain torch: the definition that every faster way must equal.

Scores (N, K, h, w) sit on a `Grid`. The score at pixel x is read between the two cells around
`u = (x - offset) / stride`; outside the outermost centres it stays what it is there. Reading is a
product with two sparse matrices, one per axis, which also makes its gradient a product and
repeatable. Loss and labels go over strips of rows, so that (N, K, H, W) never exists.

Shapes: N batch · K classes · H, W picture · h, w cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fullconv.geometry import Grid

STRIP_BYTES = 8 * 2**20  # scores of one strip: small enough for a cache, large enough for threads


def reading_matrix(grid: Grid, cells: int, at: Grid, count: int) -> Tensor:
    """Weights (count, cells) in float64 which read a row of `cells` on `grid` at the first `count`
    cells of another grid. `Grid(1, 0)` are the pixels.

    >>> reading_matrix(Grid(2, 0), cells=2, at=Grid(1, 0), count=4)
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000],
            [0.0000, 1.0000],
            [0.0000, 1.0000]], dtype=torch.float64)
    """
    where = (
        at.offset + at.stride * torch.arange(count, dtype=torch.float64) - grid.offset
    ) / grid.stride
    where = where.clamp(0, cells - 1)[:, None]
    return (1 - (where - torch.arange(cells, dtype=torch.float64)).abs()).clamp(min=0)


def read(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(N, K, h, w) with matrices (R, h) and (C, w) -> (N, K, R, C)."""
    # Mixed precision would multiply in half precision and blur the places of the cells.
    with torch.autocast(values.device.type, enabled=False):
        return rows @ values @ columns.T


def full(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Scores at every pixel: (N, K, h, w) -> (N, K, H, W)."""
    rows, columns = _matrices(values, grid, size)
    return read(values, rows, columns)


def labels(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """The class with the largest score at every pixel: (N, K, h, w) -> (N, H, W), uint8 up to 256
    classes, else int32. The lowest class id wins a tie."""
    dtype = torch.uint8 if values.shape[1] <= 256 else torch.int32
    out = torch.empty(values.shape[0], *size, dtype=dtype, device=values.device)
    for strip, cells, rows, columns in _strips(values, grid, size):
        scores = read(values[:, :, cells], rows, columns)
        # max is several times faster than argmax along a strided dimension, with equal indices.
        out[:, strip] = scores.max(dim=1).indices.to(dtype)
    return out


def loss(
    values: Tensor,
    grid: Grid,
    target: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean softmax cross-entropy over the pixels of `target` (N, H, W) that are not ignored; 0
    where there is none. With class weights the mean is weighted, as in
    `torch.nn.CrossEntropyLoss`. Summed in float64."""
    weights = None if class_weights is None else class_weights.to(values)
    options = (ignore_index, weights, label_smoothing)
    result: Tensor = _StripLoss.apply(values, grid, target, options)
    return result


class _StripLoss(torch.autograd.Function):
    """Computes the gradient together with the loss, strip by strip: nothing of full size is kept
    for the backward pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Grid, target: Tensor, options: Any) -> Tensor:
        ignore_index, class_weights, label_smoothing = options
        total = torch.zeros((), dtype=torch.float64, device=values.device)
        gradient = torch.zeros_like(values) if ctx.needs_input_grad[0] else None
        size = (target.shape[1], target.shape[2])
        for strip, cells, rows, columns in _strips(values, grid, size):
            with torch.enable_grad():
                part = values[:, :, cells].detach().requires_grad_(gradient is not None)
                pixels = F.cross_entropy(
                    read(part, rows, columns),
                    target[:, strip].long(),
                    weight=class_weights,
                    ignore_index=ignore_index,
                    label_smoothing=label_smoothing,
                    reduction="none",
                )
                summed = pixels.sum(dtype=torch.float64)
            total += summed.detach()
            if gradient is not None:
                gradient[:, :, cells] += torch.autograd.grad(summed, part)[0]
        weight = _total_weight(target, ignore_index, class_weights).clamp(min=1e-12)
        ctx.gradient = None if gradient is None else gradient / weight.to(values.dtype)
        return (total / weight).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return ctx.gradient * grad_outputs[0], None, None, None


def _total_weight(target: Tensor, ignore_index: int, class_weights: Tensor | None) -> Tensor:
    valid = target != ignore_index
    if class_weights is None:
        return valid.sum().double()
    return class_weights.double()[target[valid].long()].sum()


def _matrices(values: Tensor, grid: Grid, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    pixels = Grid(1, 0)
    rows, columns = (
        reading_matrix(grid, cells, pixels, count).to(values)
        for cells, count in zip(values.shape[2:], size, strict=True)
    )
    return rows, columns


def _strips(
    values: Tensor, grid: Grid, size: tuple[int, int]
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Rows of the picture, the rows of cells that they need, and the two matrices between them."""
    rows, columns = _matrices(values, grid, size)
    row_bytes = values.shape[0] * values.shape[1] * size[1] * values.element_size()
    step = max(1, STRIP_BYTES // row_bytes)
    for start in range(0, size[0], step):
        strip = slice(start, min(start + step, size[0]))
        used = torch.nonzero(rows[strip].any(dim=0)).flatten()
        cells = slice(int(used[0]), int(used[-1]) + 1)
        yield strip, cells, rows[strip, cells], columns
