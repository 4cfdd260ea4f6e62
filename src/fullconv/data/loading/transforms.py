"""Training transforms: random resize, crop, flip and color jitter of an image and its mask.

The window of the source that becomes the crop is cut out first and resized once. Pixels outside the
image are always ignored in the mask, and have the mean color in the image (before color jitter).
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
    """Return (3, H, W) uint8 and (C, H, W) as (3 + C, H, W) float32, or the image alone."""
    return image if extra is None else torch.cat([image.float(), extra])


def to_tensors(image: np.ndarray, mask: np.ndarray) -> Pair:
    """Return (H, W, 3) uint8 and (..., H, W) ids as (3, H, W) uint8, and uint8 or int32 ids."""
    ids = mask if mask.dtype == np.uint8 else mask.astype(np.int32)
    return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(ids)


@dataclass(frozen=True)
class TrainTransform:
    """Random transforms of an image and its mask; they use torch's random state."""

    crop: tuple[int, int]  # output size (height, width) in pixels; (0, 0): that of the image
    scale: tuple[float, float] = (0.5, 2.0)  # of the resize; the logarithm of the factor is uniform
    flip: bool = True  # half of the images, left to right
    color: float = 0.3  # largest relative change of brightness, contrast and saturation
    mean: Sequence[float] = (0.5, 0.5, 0.5)  # RGB color (fractions 0-1) outside the image
    ignore_index: int = 255  # class id outside the mask
    extra_mean: Sequence[float] = ()  # values of the extra channels outside the image

    def __call__(self, image: Tensor, mask: Tensor, extra: Tensor | None = None) -> Pair:
        """Return an image (3, H, W) uint8 and ids (H, W) or (heads, H, W) at the size of the crop.

        Extra channels (C, H, W) are transformed like the image, except for its colors; the image
        is then (3 + C, h, w) float32.
        """
        planes = self._random_crop([image, mask] if extra is None else [image, mask, extra])
        if self.flip and torch.rand(()) < 0.5:
            planes = [tv.horizontal_flip(plane) for plane in planes]
        if self.color:
            jitter = v2.ColorJitter(self.color, self.color, self.color)
            planes[0] = jitter(planes[0])
        image = with_channels(planes[0], planes[2] if extra is not None else None)
        return image.contiguous(), planes[1].contiguous()

    def _random_crop(self, planes: list[Tensor]) -> list[Tensor]:
        """Cut the same random window out of all planes, and resize it to the crop."""
        # Draw the size of the window, then its position.
        sides = planes[1].shape[-2:]
        low, high = (math.log(scale) for scale in self.scale)
        factor = math.exp(low + (high - low) * float(torch.rand(())))
        out = list(self.crop if any(self.crop) else sides)
        height, width = (max(1, round(side / factor)) for side in out)
        top = _randint(min(0, sides[0] - height), max(0, sides[0] - height))
        left = _randint(min(0, sides[1] - width), max(0, sides[1] - width))

        # Cut out its part inside the image, pad the rest, and resize.
        right, bottom = left + width - sides[1], top + height - sides[0]  # beyond the image
        padding = [max(0, side) for side in (-left, -top, right, bottom)]
        box_height, box_width = height - padding[1] - padding[3], width - padding[0] - padding[2]
        box = [max(0, top), max(0, left), box_height, box_width]
        color = [round(255 * fraction) for fraction in self.mean]
        fills = [color, self.ignore_index, list(self.extra_mean)]
        windows = []
        for k, plane in enumerate(planes):
            window = tv.crop_image(plane if plane.ndim == 3 else plane[None], *box)
            if any(padding):
                window = tv.pad_image(window, padding, fill=fills[k])
            # NEAREST, torchvision's default for masks, is half a pixel off from the image.
            mode = v2.InterpolationMode.NEAREST_EXACT if k == 1 else v2.InterpolationMode.BILINEAR
            window = tv.resize_image(window, out, interpolation=mode, antialias=k != 1)
            windows.append(window if plane.ndim == 3 else window[0])
        return windows


def _randint(low: int, high: int) -> int:
    """Return a random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, ()))
