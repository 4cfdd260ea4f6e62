"""`Scores`: logits at the cells of a feature map, and what is computed from them by interpolation.

Logits at every pixel exist only if `full()` is called. Loss, labels and confidence are computed
from the cells (Long et al. 2015, section 3.3, with the upsampling folded in).

Shapes: N batch · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.geometry.grid import Grid
from fullconv.network.kernels import dispatch, reference
from fullconv.network.kernels.reference import LossOptions


@dataclass(frozen=True)
class Scores:
    """The output of an `FCN`.

    Args:
        values: logits (before softmax), float (N, K, h, w).
        grid: the positions of the cells, in pixels of the image.
        size: (H, W) of the image, in pixels.
        columns: the positions along a row, if `grid` is valid along a column only.

    >>> scores = Scores(torch.zeros(1, 21, 4, 5), Grid(8, 3.5), (32, 40))
    >>> scores.labels().shape, scores.full().shape
    (torch.Size([1, 32, 40]), torch.Size([1, 21, 32, 40]))
    """

    values: Tensor
    grid: Grid
    size: tuple[int, int]
    columns: Grid | None = None

    @classmethod
    def on_axes(cls, values: Tensor, axes: tuple[Grid, Grid], size: tuple[int, int]) -> Scores:
        """Return scores with one grid along a column and one along a row."""
        rows, columns = axes
        return cls(values, rows, size, columns if columns != rows else None)

    @property
    def num_classes(self) -> int:
        return self.values.shape[1]

    def split(self, counts: Sequence[int]) -> list[Scores]:
        """Split the scores by head, of which each has a number of classes."""
        if len(counts) == 1:
            return [self]
        return [replace(self, values=values) for values in self.values.split(list(counts), dim=1)]

    def part(self, rows: tuple[int, int], columns: tuple[int, int]) -> Scores:
        """Return the scores of a part of the image, pixels [start, stop) of each axis.

        They are interpolated between the same cells and so have the same values. Shares memory.
        """
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
        return Scores.on_axes(values, (grids[0], grids[1]), size)

    def resized(self, size: tuple[int, int]) -> Scores:
        """Return the scores at the pixels of the original image of (H, W) = `size` pixels, if the
        image was resized for the network."""
        axes = reference.axes(self._grids)
        rows, columns = (
            Grid(grid.stride * (new / old), (grid.offset + 0.5) * (new / old) - 0.5)
            for grid, new, old in zip(axes, size, self.size, strict=True)
        )
        return Scores.on_axes(self.values, (rows, columns), size)

    def loss(
        self,
        target: Tensor,
        *,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Return the softmax cross-entropy with the target, a scalar.

        Args:
            target: (N, H, W) class ids of any integer type.
            ignore_index: id of the pixels to ignore.
            class_weights: (K,) weight per class; the mean is weighted too.
            label_smoothing: fraction of the target to spread over all classes, 0 to 1.

        Returns:
            The mean over the pixels that are not ignored; 0 (not NaN) if there are none.

        Raises:
            FullconvError: the target has another size, or ids outside 0 .. K-1.
        """
        shape = (self.values.shape[0], *self.size)
        if tuple(target.shape) != shape:
            raise FullconvError(
                msg(
                    "target has the shape {target}; the images have {images} (N, H, W).",
                    target=tuple(target.shape),
                    images=shape,
                ),
                msg("scores.loss(target)   # with a target of the images' size"),
            )
        options = LossOptions(ignore_index, class_weights, label_smoothing)
        return dispatch.loss(self._floats(), self._grids, target, options)

    def labels(self) -> Tensor:
        """Return the class with the largest logit at every pixel: ids (N, H, W), uint8 up to 255
        classes, else uint16. The lowest id wins a tie.

        Raises:
            FullconvError: a logit is NaN or infinite.
        """
        return dispatch.labels(self._floats(), self._grids, self.size)

    def confidence(self) -> Tensor:
        """Return the softmax probability of that class, a fraction: float (N, H, W).

        Raises:
            FullconvError: a logit is NaN or infinite.
        """
        return dispatch.confidence(self._floats(), self._grids, self.size)

    def full(self) -> Tensor:
        """Return the logits at every pixel, (N, K, H, W). Large; the other methods do without."""
        return reference.full(self.values, self._grids, self.size)

    @property
    def _grids(self) -> reference.AxisGrids:
        return self.grid if self.columns is None else (self.grid, self.columns)

    def _floats(self) -> Tensor:
        """Half precision is interpolated and summed in single precision."""
        return self.values if self.values.dtype == torch.float64 else self.values.float()
