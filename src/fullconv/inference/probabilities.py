"""Class probabilities at every pixel, computed a few rows at a time; test-time augmentation.

Test-time augmentation averages the probabilities of several views of an image: flipped, and at
other sizes. The logits of each view are interpolated at the pixels of the original image, which is
exact at any size because the position of every cell is known. Rows of a flipped view are flipped
back. So the result for a flipped image is the flipped result, bit for bit, if the network is
deterministic.

Nothing here needs torch. Shapes: K classes · C channels · H, W image.
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.files import atomic_path
from fullconv.core.i18n import msg
from fullconv.core.labels import Labels, ids_dtype
from fullconv.inference.options import PredictOptions
from fullconv.network.kernels.library import non_finite_error

MAX_VIEW_PIXELS = 1 << 24  # of a view at another size, which is never cut into tiles
_STRIP = 1 << 21  # probabilities in memory at once


class Probabilities(ABC):
    """The class probabilities of an image."""

    size: tuple[int, int]
    counts: tuple[int, ...]

    @abstractmethod
    def rows(self, head: int, start: int, stop: int) -> NDArray[np.float32]:
        """Return the softmax of a head's logits in rows [start, stop), (K, rows, W)."""

    def strips(self, head: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield strip after strip the rows of the image and their probabilities, (K, rows, W).

        Raises:
            FullconvError: a probability is NaN.
        """
        height, width = self.size
        step = max(1, _STRIP // (self.counts[head] * width))
        for start in range(0, height, step):
            stop = min(start + step, height)
            strip = self.rows(head, start, stop)
            if not np.isfinite(strip).all():
                raise non_finite_error()
            yield slice(start, stop), strip

    def labels(self, head: int) -> NDArray[Any]:
        """Return the most likely class at every pixel, (H, W); the lowest id wins a tie."""
        ids = np.empty(self.size, ids_dtype(self.counts[head]))
        for rows, strip in self.strips(head):
            ids[rows] = strip.argmax(axis=0)
        return ids

    def confidence(self, head: int) -> NDArray[np.float32]:
        """Return the probability of the most likely class, (H, W)."""
        confidence = np.empty(self.size, np.float32)
        for rows, strip in self.strips(head):
            confidence[rows] = strip.max(axis=0)
        return confidence

    def label_maps(self) -> list[NDArray[Any]]:
        """Return `labels` of each head."""
        return [self.labels(head) for head in range(len(self.counts))]


class MeanProbabilities(Probabilities):
    """The mean over several views of an image, given their probabilities at the image's pixels. If
    `flipped`, every second view is the one before it, flipped."""

    def __init__(self, views: list[Probabilities], *, flipped: bool) -> None:
        self.views, self.flipped = views, flipped
        self.size, self.counts = views[0].size, views[0].counts

    def rows(self, head: int, start: int, stop: int) -> NDArray[np.float32]:
        rows = [view.rows(head, start, stop) for view in self.views]
        if self.flipped:  # add each pair first: the sum is then the same for the flipped image
            rows = [a + b[..., ::-1] for a, b in zip(rows[::2], rows[1::2], strict=True)]
        return sum(rows[1:], rows[0]) / np.float32(len(self.views))


def average_views(
    predict: Callable[[NDArray[Any], tuple[int, int]], Probabilities],
    channels: NDArray[Any],
    options: PredictOptions,
) -> MeanProbabilities:
    """Return the mean over the views of (H, W, C) that `options` asks for: uint8 RGB, or float32
    RGB and extra channels. `predict` runs the network on (h, w, C) and returns the probabilities at
    the pixels of an image of size (H, W).

    Raises:
        FullconvError: a view would have more than `MAX_VIEW_PIXELS` pixels.
    """
    size = (channels.shape[0], channels.shape[1])
    views = []
    for scale in options.scales:
        view = rescale(channels, scale)
        views.append(predict(view, size))
        if options.flip:
            views.append(predict(np.ascontiguousarray(view[:, ::-1]), size))
    return MeanProbabilities(views, flipped=options.flip)


def rescale(channels: NDArray[Any], scale: float) -> NDArray[Any]:
    """Resize (H, W, C) by a factor: colors with antialiased bilinear interpolation, extra channels
    to the nearest value, because the mean of two depths may be the depth of nothing."""
    if scale == 1:
        return channels
    height, width = (max(1, round(pixels * scale)) for pixels in channels.shape[:2])
    if height * width > MAX_VIEW_PIXELS:
        message = msg(
            "an image of {height} x {width} pixels (height x width) at scale {scale:g} has "
            "{pixels:.1f} million pixels; --scales supports up to {limit:.1f} million.",
            height=channels.shape[0],
            width=channels.shape[1],
            scale=scale,
            pixels=height * width / 1e6,
            limit=MAX_VIEW_PIXELS / 1e6,
        )
        raise FullconvError(message, msg("--scales 1   # or smaller images"))
    if channels.dtype == np.uint8:
        image = Image.fromarray(channels).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image)
    bilinear, nearest = Image.Resampling.BILINEAR, Image.Resampling.NEAREST
    planes = [
        Image.fromarray(channels[..., k]).resize((width, height), bilinear if k < 3 else nearest)
        for k in range(channels.shape[2])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax of (K, ...) over the first axis."""
    powers = np.exp(logits - logits.max(axis=0))
    shares: NDArray[np.float32] = powers / powers.sum(axis=0)
    return shares


def write_probabilities(
    path: Path, probabilities: Probabilities, head: int, labels: Labels
) -> None:
    """Write a NumPy archive: "probability", (H, W, K) float16, and "classes", the K names. A few
    rows are in memory at a time."""
    height, width = probabilities.size
    header = {"descr": "<f2", "fortran_order": False, "shape": (height, width, len(labels))}
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        with archive.open("probability.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for _, strip in probabilities.strips(head):
                member.write(strip.transpose(1, 2, 0).astype("<f2").tobytes())
        with archive.open("classes.npy", "w") as member:
            np.lib.format.write_array(member, np.array(labels.names), allow_pickle=False)
