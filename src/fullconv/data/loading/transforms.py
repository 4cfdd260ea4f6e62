"""Training transforms: random magnification, crop, mirror and colour, image and mask together.

The window of the source that becomes the crop is cut out first and resized once. What lies outside
the image is *ignore* in the mask, always, and in the image the mean colour (before the colours
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


def with_channels(image: Tensor, extra: Tensor | None) -> Tensor:
    """(3, H, W) uint8 and (E, H, W) -> (3 + E, H, W) float32; as it is where there is no extra."""
    return image if extra is None else torch.cat([image.float(), extra])


def to_tensors(image: np.ndarray, mask: np.ndarray) -> Pair:
    """(H, W, 3) uint8 and (..., H, W) ids -> (3, H, W) uint8 and uint8 ids (int32 above 255)."""
    ids = mask if mask.dtype == np.uint8 else mask.astype(np.int32)
    return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(ids)


@dataclass(frozen=True)
class TrainTransform:
    """Random transforms of an image and its mask, from torch's random state.

    Args:
        crop: (height, width) of what comes out, in pixels; (0, 0): the image's own.
        scale: (low, high) magnification, drawn evenly on a logarithmic scale.
        flip: mirror half of the images left to right.
        color: brightness, contrast and saturation vary by up to this fraction.
        mean: colour (RGB fractions 0-1) of what lies outside the image.
        ignore_index: class id of what lies outside the mask.
        extra_mean: of the channels beside the colours, for what lies outside.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    color: float = 0.3
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    ignore_index: int = 255
    extra_mean: Sequence[float] = ()

    def __call__(self, image: Tensor, mask: Tensor, extra: Tensor | None = None) -> Pair:
        """(3, H, W) uint8 and (H, W) or (heads, H, W) ids -> the same kinds at the crop's size.
        `extra`, (E, H, W) float, goes the same way, but for its colours; the image is (3 + E, H,
        W) float32 then."""
        planes = [image, mask] if extra is None else [image, mask, extra]
        planes = self._window(planes)
        if self.flip and torch.rand(()) < 0.5:
            planes = [tv.horizontal_flip(plane) for plane in planes]
        if self.color:
            jitter = v2.ColorJitter(self.color, self.color, self.color)
            planes[0] = jitter(planes[0])
        image = with_channels(planes[0], planes[2] if extra is not None else None)
        return image.contiguous(), planes[1].contiguous()

    def _window(self, planes: list[Tensor]) -> list[Tensor]:
        sides = planes[1].shape[-2:]
        low, high = (math.log(s) for s in self.scale)
        factor = math.exp(low + (high - low) * float(torch.rand(())))
        out = list(self.crop if any(self.crop) else sides)
        size = [max(1, round(side / factor)) for side in out]
        starts = [
            _randint(min(0, have - want), max(0, have - want))
            for have, want in zip(sides, size, strict=True)
        ]
        top, left = starts
        padding = [  # left, top, right, bottom
            max(0, -left),
            max(0, -top),
            max(0, left + size[1] - sides[1]),
            max(0, top + size[0] - sides[0]),
        ]
        box = [max(0, top), max(0, left), size[0] - padding[1] - padding[3], 0]
        box[3] = size[1] - padding[0] - padding[2]
        color = [round(255 * fraction) for fraction in self.mean]
        outside = [color, self.ignore_index, list(self.extra_mean)]
        found = []
        for k, plane in enumerate(planes):
            window = tv.crop_image(plane if plane.ndim == 3 else plane[None], *box)
            if any(padding):
                window = tv.pad_image(window, padding, fill=outside[k])
            # Of masks torchvision's own rule is NEAREST, which lies half a pixel off the image's.
            how = v2.InterpolationMode.NEAREST_EXACT if k == 1 else v2.InterpolationMode.BILINEAR
            window = tv.resize_image(window, out, interpolation=how, antialias=k != 1)
            found.append(window if plane.ndim == 3 else window[0])
        return found


def _randint(low: int, high: int) -> int:
    """Low and high included."""
    return int(torch.randint(low, high + 1, ()))
