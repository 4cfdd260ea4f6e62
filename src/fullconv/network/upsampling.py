"""Learned upsampling: a transposed convolution that starts as exact bilinear interpolation.

The filter need not be fixed (Long et al. 2015, section 3.3). It starts as the interpolation of one
grid at the cells of another, whatever the offset between them, so a network with learned upsampling
starts with the same scores as one without.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.geometry.grid import Grid


def bilinear_kernel(factor: int, shift: float) -> tuple[Tensor, int]:
    """Return the filter of a transposed convolution that interpolates `factor` times finer.

    Returns 1-D weights in float64, and the first fine cell to which coarse cell 0 contributes. Cell
    0 is at the position `shift`, in fine cells.

    >>> bilinear_kernel(2, 0.5)  # the original code's filter of size 4
    (tensor([0.2500, 0.7500, 0.7500, 0.2500], dtype=torch.float64), -1)
    """
    first = math.floor(shift - factor) + 1
    last = math.ceil(shift + factor) - 1
    cells = torch.arange(first, last + 1, dtype=torch.float64)
    return 1 - (cells - shift).abs() / factor, first


class LearnedUpsampling(nn.Module):
    """A transposed convolution from the scores on a coarse grid to the cells of a finer one.

    Args:
        channels: K.
        coarse, fine: the two grids; the coarse stride is a whole multiple of the fine one.
        border: the scores outside: "replicate" (the outermost ones continue) or "zeros".

    The weight (K, K, k, k) starts as bilinear interpolation within each class, 0 between classes.

    >>> upsampling = LearnedUpsampling(21, Grid(32, 15.5), Grid(16, 7.5))
    >>> upsampling(torch.zeros(1, 21, 4, 5), (8, 10)).shape
    torch.Size([1, 21, 8, 10])
    """

    def __init__(self, channels: int, coarse: Grid, fine: Grid, border: str = "replicate") -> None:
        super().__init__()
        factor = coarse.stride / fine.stride
        if factor != int(factor):
            message = msg(
                "a transposed convolution needs a whole factor; stride {coarse:g} to stride "
                "{fine:g} is {factor:g}.",
                coarse=coarse.stride,
                fine=fine.stride,
                factor=factor,
            )
            raise FullconvError(message, 'upsampling="bilinear"')
        self.factor = int(factor)
        self.mode = "constant" if border == "zeros" else border
        shift = (coarse.offset - fine.offset) / fine.stride
        kernel, self.first = bilinear_kernel(self.factor, shift)
        weight = torch.zeros(channels, channels, len(kernel), len(kernel))
        weight[range(channels), range(channels)] = torch.outer(kernel, kernel).float()
        self.weight = nn.Parameter(weight)

    def forward(self, scores: Tensor, size: tuple[int, int]) -> Tensor:
        """Return scores (N, K, h, w) at the first cells of the fine grid: (N, K, *size)."""
        kernel_size = self.weight.shape[-1]
        # Pad until every fine cell is between two coarse ones.
        before = max(1, -(-(self.first + kernel_size) // self.factor))
        after: list[Any] = [
            torch.sym_max(1, (count - self.first + self.factor - 1) // self.factor - cells + 1)
            for count, cells in zip(size, scores.shape[2:], strict=True)
        ]
        padded = F.pad(scores, (before, after[1], before, after[0]), mode=self.mode)
        fine = F.conv_transpose2d(padded, self.weight.to(padded.dtype), stride=self.factor)
        start = self.factor * before - self.first
        return fine[:, :, start : start + size[0], start : start + size[1]]
