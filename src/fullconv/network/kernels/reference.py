"""Bilinear interpolation of scores in plain torch: the definition that every faster backend equals.

Scores (N, K, h, w) are values at the cells of a `Grid`. The score at pixel x is interpolated
between the two cells around `u = (x - offset) / stride`; outside the outermost centers it stays
constant. Interpolation is a product with two sparse matrices, one per axis, so its gradient is a
product too, and repeatable. Each axis may have its own grid. Loss and confidence are computed in
strips of rows, so that (N, K, H, W) never exists.

Shapes: N batch · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import ids_dtype
from fullconv.geometry.grid import Grid
from fullconv.network.kernels.library import non_finite_error

STRIP_BYTES = 8 * 2**20  # scores of one strip: small enough for a cache, large enough for threads
AxisGrids = Grid | tuple[Grid, Grid]  # of both axes, or along the rows and along the columns


class LossOptions(NamedTuple):
    """Options of the cross-entropy, as in `torch.nn.CrossEntropyLoss`."""

    ignore_index: int = 255
    class_weights: Tensor | None = None  # (K,)
    label_smoothing: float = 0.0


def interpolation_matrix(grid: Grid, cells: int, at: Grid, count: int) -> Tensor:
    """Return the weights (count, cells) that interpolate a row of cells of a grid at the first
    `count` cells of another grid, such as `Grid(1, 0)`, the pixels.

    >>> interpolation_matrix(Grid(2, 0), cells=2, at=Grid(1, 0), count=3).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    positions = (
        at.offset + at.stride * torch.arange(count, dtype=torch.float64) - grid.offset
    ) / grid.stride
    positions = positions.clamp(0, cells - 1)[:, None]
    return (1 - (positions - torch.arange(cells, dtype=torch.float64)).abs()).clamp(min=0)


def interpolate(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return (N, K, R, C) from values (N, K, h, w) and matrices (R, h) and (C, w)."""
    # Mixed precision would multiply in half precision and blur the positions of the cells.
    with torch.autocast(values.device.type, enabled=False):
        return rows @ values @ columns.T


def full(values: Tensor, grid: AxisGrids, size: tuple[int, int]) -> Tensor:
    """Return the scores at every pixel, (N, K, H, W), from (N, K, h, w)."""
    rows, columns = _matrices(values, grid, size)
    return interpolate(values, rows, columns)


def labels(values: Tensor, grid: AxisGrids, size: tuple[int, int]) -> Tensor:
    """Return the class with the largest score at every pixel, (N, H, W), from scores (N, K, h, w).

    Between four cells every score is a convex combination of the four corners. So a class with the
    largest score at all four is the largest everywhere between them (most gaps: they are filled),
    and a class whose largest corner is below another's smallest is never the largest.
    """
    require_finite(values)
    rows, columns = (
        _Gaps(axis, cells, pixels, values)
        for axis, cells, pixels in zip(axes(grid), values.shape[2:], size, strict=True)
    )
    best = values.max(dim=1).indices  # like argmax, and several times faster
    y, x = (rows.first, rows.second), (columns.first, columns.second)
    corners = torch.stack([best[:, i][:, :, j] for i in y for j in x])
    same = (corners == corners[0]).all(dim=0)
    # Signed 32 bits until the end, because torch has hardly any arithmetic for uint16.
    out = corners[0].int()[:, rows.of_pixel][:, :, columns.of_pixel]
    for gaps in (~same).nonzero().split(max(1, STRIP_BYTES // (16 * values.shape[1]))):
        _label_gaps(values, rows, columns, gaps, out)
    return out.to(id_type(values.shape[1]))


class _Gaps:
    """Runs of pixels of one axis that are interpolated between the same two cells (`first`,
    `second`: (G,)), at most one stride long."""

    def __init__(self, grid: Grid, cells: int, pixels: int, like: Tensor) -> None:
        positions = (torch.arange(pixels, dtype=torch.float64) - grid.offset) / grid.stride
        positions = positions.clamp(0, cells - 1)
        first = positions.floor().long()
        longest = max(1, math.ceil(grid.stride))
        index = torch.arange(pixels)
        begins = torch.cat([torch.ones(1, dtype=torch.bool), first[1:] != first[:-1]])
        start = torch.where(begins, index, 0).cummax(0).values
        begins |= (index - start) % longest == 0  # beyond the outermost cells gaps have no end
        self.of_pixel = (begins.cumsum(0) - 1).to(like.device)  # (pixels,) the gap of each
        starts = index[begins]
        ends = torch.cat([starts[1:], torch.tensor([pixels])])
        pixel = torch.minimum(starts[:, None] + torch.arange(longest), ends[:, None] - 1)
        self.pixel = pixel.to(like.device)  # (G, S), padded with the last pixel of each gap
        self.first = first[starts].to(like.device)
        self.second = (first[starts] + 1).clamp(max=cells - 1).to(like.device)
        self.weight = (positions - first)[pixel].to(like)  # (G, S) of the second cell


def _label_gaps(values: Tensor, rows: _Gaps, columns: _Gaps, gaps: Tensor, out: Tensor) -> None:
    """Write the ids of gaps whose corners have different classes to `out`. `gaps` are (M, 3):
    image, row gap, column gap."""
    image, i, j = gaps.T
    cells_y, cells_x = (rows.first[i], rows.second[i]), (columns.first[j], columns.second[j])
    corners = torch.stack([values[image, :, y, x] for y in cells_y for x in cells_x])  # (4, M, K)

    # List the classes that can be the largest in each gap: (M, most), padded with -1.
    needed = corners.amin(dim=0).amax(dim=1, keepdim=True)
    gap, class_id = (corners.amax(dim=0) >= needed).nonzero().T
    count = gap.bincount(minlength=len(gaps))
    place = torch.arange(len(gap), device=gap.device) - (count.cumsum(0) - count)[gap]
    most = int(count.max()) if len(gaps) else 0
    candidates = class_id.new_full((len(gaps), most), -1)
    candidates[gap, place] = class_id

    # Compare them in groups of gaps with 2 candidates, 3-4, 5-8, ..., to avoid wasted work.
    few = 1
    while few < most:
        few = min(2 * few, most)
        group = ((count > few // 2) & (count <= few)).nonzero()[:, 0]
        pixels = rows.pixel.shape[1] * columns.pixel.shape[1]
        for part in group.split(max(1, STRIP_BYTES // (4 * few * pixels))):
            ids = candidates[part, :few]
            a, b, c, d = corners[:, part[:, None], ids.clamp(min=0)].masked_fill(
                ids < 0, torch.finfo(values.dtype).min
            )
            down, along = rows.weight[i[part]], columns.weight[j[part]]
            left = torch.lerp(a[:, None], c[:, None], down[:, :, None])
            right = torch.lerp(b[:, None], d[:, None], down[:, :, None])
            scores = torch.lerp(left[:, :, None], right[:, :, None], along[:, None, :, None])
            largest = scores.max(dim=3).indices.flatten(1)
            y, x = rows.pixel[i[part]], columns.pixel[j[part]]
            out[image[part][:, None, None], y[:, :, None], x[:, None]] = (
                ids.gather(1, largest).view(len(part), y.shape[1], x.shape[1]).int()
            )


def confidence(values: Tensor, grid: AxisGrids, size: tuple[int, int]) -> Tensor:
    """Return the softmax probability of that class, a fraction (N, H, W)."""
    require_finite(values)
    out = torch.empty(values.shape[0], *size, dtype=values.dtype, device=values.device)
    for strip, cells, rows, columns in _strips(values, grid, size):
        scores = interpolate(values[:, :, cells], rows, columns)
        out[:, strip] = (scores.max(dim=1).values - scores.logsumexp(dim=1)).exp()
    return out


def loss_and_gradient(
    values: Tensor, grid: AxisGrids, target: Tensor, options: LossOptions, gradient: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Compute the softmax cross-entropy over the pixels of `target` (N, H, W) that are not ignored,
    and its gradient strip by strip: nothing of full size is kept for the backward pass.

    Returns:
        The sum over the pixels and the sum of their class weights (float64 scalars), and the
        gradient of the first, like `values`, or None if it was not requested.

    Raises:
        FullconvError: an id outside 0 .. K-1 that is not ignored.
    """
    if target.dtype != torch.int64:  # in 8 bits, 256 and -1 would be other ids
        target = target.to(torch.int32)
    ignore_index, class_weights, label_smoothing = options
    require_ids(target, values.shape[1], ignore_index)
    weights = None if class_weights is None else class_weights.to(values)
    counts = target != ignore_index
    if weights is None:
        total_weight = counts.sum().double()
    else:
        total_weight = weights.double()[target[counts].long()].sum()
    total = torch.zeros((), dtype=torch.float64, device=values.device)
    slope = torch.zeros_like(values) if gradient else None
    size = (target.shape[1], target.shape[2])
    for strip, cells, rows, columns in _strips(values, grid, size):
        with torch.enable_grad():
            part = values[:, :, cells].detach().requires_grad_(gradient)
            pixels = F.cross_entropy(
                interpolate(part, rows, columns),
                target[:, strip].long(),
                weight=weights,
                ignore_index=ignore_index,
                label_smoothing=label_smoothing,
                reduction="none",
            )
            summed = pixels.sum(dtype=torch.float64)
        total += summed.detach()
        if slope is not None:
            slope[:, :, cells] += torch.autograd.grad(summed, part)[0]
    return total, total_weight, slope


def axes(grid: AxisGrids) -> tuple[Grid, Grid]:
    """Return the grid along the rows and the grid along the columns."""
    return grid if isinstance(grid, tuple) else (grid, grid)


def id_type(classes: int) -> torch.dtype:
    """Return `ids_dtype` as a type of torch."""
    dtype: torch.dtype = getattr(torch, ids_dtype(classes).__name__)
    return dtype


def require_finite(values: Tensor) -> None:
    """Raise FullconvError if a score is NaN or infinite, because no class is the largest then."""
    if not torch.isfinite(values).all():
        raise non_finite_error()


def require_ids(target: Tensor, classes: int, ignore_index: int) -> None:
    """Raise FullconvError if the target has ids outside 0 .. K-1 that are not ignored."""
    wrong = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if wrong.any():
        message = msg(
            "target has the class ids {ids}; expected 0..{last}, or {ignore_index} for ignored "
            "pixels.",
            ids=target[wrong].unique()[:8].tolist(),
            last=classes - 1,
            ignore_index=ignore_index,
        )
        raise FullconvError(message, "fullconv check DATA")


def device_error(target: Tensor, values: Tensor) -> FullconvError:
    message = msg(
        "the target is on {target} but the scores are on {scores}; expected one device.",
        target=target.device,
        scores=values.device,
    )
    return FullconvError(message, "target = target.to(scores.values.device)")


def _matrices(values: Tensor, grid: AxisGrids, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    pixels = Grid(1, 0)
    rows, columns = (
        interpolation_matrix(axis, cells, pixels, count).to(values)
        for axis, cells, count in zip(axes(grid), values.shape[2:], size, strict=True)
    )
    return rows, columns


def _strips(
    values: Tensor, grid: AxisGrids, size: tuple[int, int]
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Yield ranges of rows, the rows of cells that they need, and the two matrices between them."""
    rows, columns = _matrices(values, grid, size)
    row_bytes = values.shape[0] * values.shape[1] * size[1] * values.element_size()
    step = max(1, STRIP_BYTES // row_bytes)
    for start in range(0, size[0], step):
        strip = slice(start, min(start + step, size[0]))
        used = torch.nonzero(rows[strip].any(dim=0)).flatten()
        cells = slice(int(used[0]), int(used[-1]) + 1)
        yield strip, cells, rows[strip, cells], columns
