"""Learned upsampling: a transposed convolution that starts as exact bilinear interpolation.

Long et al. 2015, section 3.3: the filter need not be fixed. It starts as the bilinear reading of
one grid at the cells of another, whatever the offset between the two, so that a network with
learned upsampling begins with the very scores of one without.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid


def bilinear_kernel(factor: int, shift: float) -> tuple[Tensor, int]:
    """The filter of a transposed convolution that interpolates `factor` times finer.

    Args:
        factor: fine cells per coarse cell.
        shift: where coarse cell 0 sits, in fine cells.

    Returns:
        1-D weights in float64, and the fine cell at which coarse cell 0 begins to contribute.

    >>> bilinear_kernel(2, 0.5)  # the original code's filter of size 4
    (tensor([0.2500, 0.7500, 0.7500, 0.2500], dtype=torch.float64), -1)
    """
    first = math.floor(shift - factor) + 1
    last = math.ceil(shift + factor) - 1
    where = torch.arange(first, last + 1, dtype=torch.float64)
    return 1 - (where - shift).abs() / factor, first


class LearnedUpsampling(nn.Module):
    """Reads scores on a coarse grid at the cells of a finer one by a transposed convolution.

    Args:
        channels: K.
        coarse, fine: the two grids; the coarse stride is a whole multiple of the fine one.
        border: what lies outside the scores: "replicate" (the outermost ones go on) or "zeros".

    The weight (K, K, k, k) starts as bilinear interpolation within each class, 0 between classes.
    """

    def __init__(self, channels: int, coarse: Grid, fine: Grid, border: str = "replicate") -> None:
        super().__init__()
        factor = coarse.stride / fine.stride
        if factor != int(factor):
            raise FullconvError(
                f"a transposed convolution needs a whole factor; {coarse.stride:g} px to "
                f"{fine.stride:g} px is {factor:g}.",
                'upsampling="bilinear"',
            )
        self.factor = int(factor)
        self.mode = "constant" if border == "zeros" else border
        kernel, self.first = bilinear_kernel(
            self.factor, (coarse.offset - fine.offset) / fine.stride
        )
        weight = torch.zeros(channels, channels, len(kernel), len(kernel))
        weight[range(channels), range(channels)] = torch.outer(kernel, kernel).float()
        self.weight = nn.Parameter(weight)

    def forward(self, scores: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, K, h, w) -> (N, K, *size) at the first cells of the fine grid."""
        size_of_kernel = self.weight.shape[-1]
        # Enough cells beyond the border that every fine cell lies between two coarse ones.
        before = max(1, -(-(self.first + size_of_kernel) // self.factor))
        after: list[Any] = [
            torch.sym_max(1, (count - self.first + self.factor - 1) // self.factor - cells + 1)
            for count, cells in zip(size, scores.shape[2:], strict=True)
        ]
        padded = F.pad(scores, (before, after[1], before, after[0]), mode=self.mode)
        fine = F.conv_transpose2d(padded, self.weight.to(padded.dtype), stride=self.factor)
        start = self.factor * before - self.first
        return fine[:, :, start : start + size[0], start : start + size[1]]
