"""Training transforms: random magnification, crop, mirror and colour, picture and mask together.

The window of the source that becomes the crop is cut out first and resized once. What lies outside
the picture is *ignore* in the mask, always, and in the picture the mean colour (before the colours
are varied).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

Pair = tuple[Tensor, Tensor]


def to_tensors(picture: np.ndarray, mask: np.ndarray) -> Pair:
    """(H, W, 3) uint8 and (H, W) ids -> (3, H, W) uint8 and (H, W) uint8 (int32 above 255)."""
    ids = mask if mask.dtype == np.uint8 else mask.astype(np.int32)
    return torch.from_numpy(picture).permute(2, 0, 1), torch.from_numpy(ids)


@dataclass(frozen=True)
class Augmentation:
    """Random transforms of a picture and its mask, from torch's random state.

    Args:
        crop: (height, width) of what comes out, in pixels; (0, 0): the picture's own.
        scale: (low, high) magnification, drawn evenly on a logarithmic scale.
        flip: mirror half of the pictures left to right.
        color: brightness, contrast and saturation vary by up to this fraction.
        mean: colour (RGB fractions 0-1) of what lies outside the picture.
        ignore_index: class id of what lies outside the mask.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    color: float = 0.3
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    ignore_index: int = 255

    def __call__(self, picture: Tensor, mask: Tensor) -> Pair:
        """(3, H, W) uint8 and (H, W) ids -> the same kinds at the crop's size."""
        picture, mask = self._window(picture, mask)
        if self.flip and torch.rand(()) < 0.5:
            picture, mask = tv.horizontal_flip(picture), tv.horizontal_flip(mask)
        if self.color:
            jitter = v2.ColorJitter(self.color, self.color, self.color)
            picture = jitter(picture)
        return picture.contiguous(), mask.contiguous()

    def _window(self, picture: Tensor, mask: Tensor) -> Pair:
        low, high = (math.log(s) for s in self.scale)
        factor = math.exp(low + (high - low) * float(torch.rand(())))
        out = list(self.crop if any(self.crop) else mask.shape)
        size = [max(1, round(side / factor)) for side in out]
        starts = [
            _randint(min(0, have - want), max(0, have - want))
            for have, want in zip(mask.shape, size, strict=True)
        ]
        top, left = starts
        padding = [  # left, top, right, bottom
            max(0, -left),
            max(0, -top),
            max(0, left + size[1] - mask.shape[1]),
            max(0, top + size[0] - mask.shape[0]),
        ]
        box = [max(0, top), max(0, left), size[0] - padding[1] - padding[3], 0]
        box[3] = size[1] - padding[0] - padding[2]
        picture, mask = tv.crop_image(picture, *box), tv.crop_image(mask[None], *box)
        if any(padding):
            color = [round(255 * fraction) for fraction in self.mean]
            picture = tv.pad_image(picture, padding, fill=color)
            mask = tv.pad_image(mask, padding, fill=self.ignore_index)
        picture = tv.resize_image(picture, out, antialias=True)
        # torchvision's own rule for masks is NEAREST, which lies half a pixel off the picture's.
        mask = tv.resize_image(mask, out, interpolation=v2.InterpolationMode.NEAREST_EXACT)
        return picture, mask[0]


def _randint(low: int, high: int) -> int:
    """Low and high included."""
    return int(torch.randint(low, high + 1, ()))
