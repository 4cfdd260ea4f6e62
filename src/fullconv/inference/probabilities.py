"""Probabilities of the classes at every pixel, read from the scores a few rows at a time, of one
view of an image or averaged over several: mirrored, at other sizes.

The scores of each view are read at the pixels of the image as it is: where its cells sit is known
exactly, at any size. Of a mirrored view the rows that were read are turned back. So the result for
a mirrored image is the mirrored result, bit for bit, where the network repeats itself.

Nothing here needs torch. Shapes: K classes · C channels · H, W image.
"""

from __future__ import annotations

import os
import uuid
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.inference.options import PredictOptions
from fullconv.network.kernels.library import non_finite_error

_STRIP = 1 << 21  # probabilities that are looked at together
LARGEST = 1 << 24  # pixels of a view at another size, which is never cut into tiles


def ids_dtype(classes: int) -> type[np.uint8] | type[np.uint16]:
    """Of the ids of so many classes."""
    return np.uint8 if classes <= 255 else np.uint16


class Probabilities(ABC):
    """Of an image.

    Attributes:
        size: (H, W) in pixels.
        counts: K of each head.
    """

    size: tuple[int, int]
    counts: tuple[int, ...]

    @abstractmethod
    def rows(self, head: int, start: int, stop: int) -> NDArray[np.float32]:
        """The softmax of the scores of a head in rows [start, stop), (K, rows, W)."""

    def strips(self, head: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Rows after rows, few enough for a cache, and `rows` of them."""
        height, width = self.size
        step = max(1, _STRIP // (self.counts[head] * width))
        for start in range(0, height, step):
            stop = min(start + step, height)
            found = self.rows(head, start, stop)
            if not np.isfinite(found).all():
                raise non_finite_error()
            yield slice(start, stop), found

    def labels(self, head: int) -> NDArray[Any]:
        """The likeliest class at every pixel, (H, W); the lowest id wins a tie."""
        ids = np.empty(self.size, ids_dtype(self.counts[head]))
        for rows, found in self.strips(head):
            ids[rows] = found.argmax(axis=0)
        return ids

    def confidence(self, head: int) -> NDArray[np.float32]:
        """The probability of that class, (H, W)."""
        out = np.empty(self.size, np.float32)
        for rows, found in self.strips(head):
            out[rows] = found.max(axis=0)
        return out

    def label_maps(self) -> list[NDArray[Any]]:
        """The labels of each head."""
        return [self.labels(head) for head in range(len(self.counts))]


class Averaged(Probabilities):
    """The mean over several views of an image.

    Args:
        views: as they are read at the image's pixels, in pairs where they are mirrored.
        mirrored: whether the second of each pair is of the mirrored image.
    """

    def __init__(self, views: list[Probabilities], *, mirrored: bool) -> None:
        self.views, self.mirrored = views, mirrored
        self.size, self.counts = views[0].size, views[0].counts

    def rows(self, head: int, start: int, stop: int) -> NDArray[np.float32]:
        """The mean over the views."""
        read = [view.rows(head, start, stop) for view in self.views]
        if self.mirrored:  # each pair first: it is the same sum for the mirrored image
            read = [one + other[..., ::-1] for one, other in zip(*[iter(read)] * 2, strict=True)]
        return sum(read[1:], read[0]) / np.float32(len(self.views))


def averaged(
    read: Callable[[NDArray[Any], tuple[int, int]], Probabilities],
    planes: NDArray[Any],
    options: PredictOptions,
) -> Averaged:
    """Over the views that are asked for.

    Args:
        read: runs the network on (h, w, C) and reads at the pixels of an image (H, W).
        planes: (H, W, C) what the network takes: uint8 RGB, or float32 with further inputs behind.

    Raises:
        FullconvError: a view would have more than `LARGEST` pixels.
    """
    size = (planes.shape[0], planes.shape[1])
    views = []
    for scale in options.scales:
        shown = rescaled(planes, scale)
        views.append(read(shown, size))
        if options.flip:
            views.append(read(np.ascontiguousarray(shown[:, ::-1]), size))
    return Averaged(views, mirrored=options.flip)


def rescaled(planes: NDArray[Any], scale: float) -> NDArray[Any]:
    """(H, W, C) -> the same image at another size: its colours bilinear, with antialiasing;
    further inputs as their nearest value, for the mean of two depths may be the depth of nothing.
    """
    height, width = (max(1, round(pixels * scale)) for pixels in planes.shape[:2])
    if scale == 1:
        return planes
    if height * width > LARGEST:
        raise FullconvError(
            f"an image of {planes.shape[0]} x {planes.shape[1]} pixels (height x width) at scale "
            f"{scale:g} has {height * width / 1e6:.1f} million; up to {LARGEST / 1e6:.1f} million "
            "are averaged over scales.",
            "--scales 1   # or smaller images",
        )
    if planes.dtype == np.uint8:
        image = Image.fromarray(planes).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image)
    kinds = [Image.Resampling.BILINEAR] * 3 + [Image.Resampling.NEAREST] * (planes.shape[2] - 3)
    parts = [
        np.asarray(Image.fromarray(planes[..., k]).resize((width, height), kind))
        for k, kind in enumerate(kinds)
    ]
    return np.stack(parts, axis=2)


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """(K, ...) scores -> probabilities."""
    grown = np.exp(scores - scores.max(axis=0))
    shares: NDArray[np.float32] = grown / grown.sum(axis=0)
    return shares


def write_probabilities(path: Path, found: Probabilities, head: int, labels: Labels) -> None:
    """A NumPy archive: "probability", (H, W, K) float16, and "classes", the K names. It is written
    a few rows at a time, whole or not at all."""
    height, width = found.size
    about = {"descr": "<f2", "fortran_order": False, "shape": (height, width, len(labels))}
    unfinished = path.with_name(f".{path.stem}-{uuid.uuid4().hex}.unfinished")
    try:
        with zipfile.ZipFile(unfinished, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open("probability.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, about)
                for _, rows in found.strips(head):
                    member.write(rows.transpose(1, 2, 0).astype("<f2").tobytes())
            with archive.open("classes.npy", "w") as member:
                np.lib.format.write_array(member, np.array(labels.names), allow_pickle=False)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
