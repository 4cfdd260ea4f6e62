"""Scores at the cells of a feature map, and their readings: loss, labels, confidence, full.

Scores at every pixel exist only where `full()` asks for them; the others are computed from
the cells (Long et al. 2015, section 3.3, with the upsampling folded into the reading).

Shapes: N batch · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.network.kernels import dispatch, reference


@dataclass(frozen=True)
class Scores:
    """What an `FCN` returns.

    Args:
        values: class scores before softmax, float (N, K, h, w).
        grid: where the cells sit, in pixels of the image.
        size: of the image, (H, W) in pixels.
        columns: where they sit along a row, if `grid` holds along a column only.
    """

    values: Tensor
    grid: Grid
    size: tuple[int, int]
    columns: Grid | None = None

    @property
    def num_classes(self) -> int:
        """K; background counts."""
        return self.values.shape[1]

    def split(self, counts: Sequence[int]) -> list[Scores]:
        """The scores of each of several heads, by how many classes each has."""
        if len(counts) == 1:
            return [self]
        return [replace(self, values=values) for values in self.values.split(list(counts), dim=1)]

    def part(self, rows: tuple[int, int], columns: tuple[int, int]) -> Scores:
        """The scores of a part of the image, pixels [start, stop) of each axis: they are read
        between the same cells, and so read the same. Shares memory."""
        cells, grids = [], []
        for grid, count, (start, stop) in zip(
            reference.axes(self._grids), self.values.shape[2:], (rows, columns), strict=True
        ):
            first = math.floor((start - grid.offset) / grid.stride)
            last = math.ceil((stop - 1 - grid.offset) / grid.stride)
            first, last = min(max(first, 0), count - 1), min(max(last, 0), count - 1)
            cells.append(slice(first, last + 1))
            grids.append(replace(grid, offset=grid.center(first) - start))
        values = self.values[:, :, cells[0], cells[1]]
        size = (rows[1] - rows[0], columns[1] - columns[0])
        return Scores(values, grids[0], size, grids[1] if grids[1] != grids[0] else None)

    def resized(self, size: tuple[int, int]) -> Scores:
        """The same scores, to be read at the pixels of the image as it was before it was resized
        for the network: of size (H, W), stretched over the same area."""
        rows, columns = (
            Grid(g.stride * factor, (g.offset + 0.5) * factor - 0.5)
            for g, factor in zip(
                reference.axes(self._grids),
                (new / old for new, old in zip(size, self.size, strict=True)),
                strict=True,
            )
        )
        return Scores(self.values, rows, size, columns if columns != rows else None)

    def loss(
        self,
        target: Tensor,
        *,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Softmax cross-entropy against the true class ids, a scalar.

        Args:
            target: (N, H, W) class ids of any integer type.
            ignore_index: pixels with this id do not count.
            class_weights: (K,) weight per class; the mean is weighted too.
            label_smoothing: share of the target spread over all classes, 0 to 1.

        Returns:
            The mean over the pixels that count; 0 (not NaN) where there are none.

        Raises:
            FullconvError: the target has another size, or ids outside 0 .. K-1.
        """
        if tuple(target.shape) != (self.values.shape[0], *self.size):
            raise FullconvError(
                f"target is {tuple(target.shape)}; the images are "
                f"{(self.values.shape[0], *self.size)} (N, H, W).",
                "scores.loss(target)   # with a target of the images' own size",
            )
        return dispatch.loss(
            self._readable(),
            self._grids,
            target,
            ignore_index=ignore_index,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
        )

    def labels(self) -> Tensor:
        """The class with the largest score at every pixel: ids (N, H, W), uint8 up to 255 classes,
        else uint16. The lowest id wins a tie.

        Raises:
            FullconvError: a score is NaN or infinite.
        """
        return dispatch.labels(self._readable(), self._grids, self.size)

    def confidence(self) -> Tensor:
        """The softmax probability of that class, a fraction: float (N, H, W).

        Raises:
            FullconvError: a score is NaN or infinite.
        """
        return dispatch.confidence(self._readable(), self._grids, self.size)

    def full(self) -> Tensor:
        """Scores at every pixel, (N, K, H, W). Large; the others do without."""
        return reference.full(self.values, self._grids, self.size)

    @property
    def _grids(self) -> reference.Grids:
        return self.grid if self.columns is None else (self.grid, self.columns)

    def _readable(self) -> Tensor:
        """Half precision is read, and summed, in single."""
        return self.values if self.values.dtype == torch.float64 else self.values.float()
