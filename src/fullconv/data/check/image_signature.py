"""Signatures that recognize an image again, and estimates of how far a mask is shifted.

A signature recognizes an image after resizing, compression or a change of brightness: 32 x 32 gray
levels, compared without their mean and in units of their standard deviation. Images without any
structure (fog, black) all look alike and are not compared.

`estimate_shift` compares the borders in a mask with the edges in its image at every offset up to 12
steps. If the mask was drawn on another version of the image, they agree best at another offset
than 0.

Shapes: H, W image · h, w steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

SIDE = 32  # cells of a signature
SAME = 0.16  # largest distance of two signatures of one image, in standard deviations
_COARSE_SIDE = 4  # cells of the means that the search tree uses, 8 x 8 cells each
_NEIGHBORS = 8  # that each signature is compared with
_MIN_SIGNATURES = 16  # to estimate how much the images of a dataset differ
_USUAL_SPREAD = 0.5  # how much those of street scenes differ, in standard deviations
_MIN_STD = 4.0  # gray levels; images with less are not compared

REACH = 12  # largest offset in steps, in each direction
LONGEST = 512  # most steps of an image's longer side: in large images a step is several pixels
_MIN_BORDER = 200  # pixels of border in a mask
_STRONG_EDGE = 90  # percentile of the edges that counts as a full edge
_PEAK = 3  # steps around the best offset that do not count as background


def signature(gray: Image.Image) -> bytes:
    """Return the SIDE * SIDE gray levels of an image, row by row."""
    return gray.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def near_duplicates(signatures: Sequence[bytes]) -> Iterator[tuple[int, int, float]]:
    """Yield the pairs (i, j), i < j, of signatures of the same image, and their distance.

    Each signature is compared with its few nearest ones, so that thousands of equal images take no
    longer.
    """
    if len(signatures) < 2:
        return
    levels = np.frombuffer(b"".join(signatures), np.uint8)
    levels = levels.reshape(len(signatures), -1).astype(np.float32)
    std = levels.std(axis=1)
    numbers = np.flatnonzero(std >= _MIN_STD)
    if len(numbers) < 2:
        return
    cells = (levels[numbers] - levels[numbers].mean(axis=1, keepdims=True)) / std[numbers, None]
    # If all images of a dataset resemble each other (the same frame, a fixed camera), only those
    # count that are much nearer than such images are.
    limit = SAME
    if len(numbers) >= _MIN_SIGNATURES:
        spread = float((cells - cells.mean(axis=0)).std())
        limit *= min(1.0, spread / _USUAL_SPREAD)

    # Candidates by block means, whose root mean square distance is never larger than that of the
    # cells.
    step = SIDE // _COARSE_SIDE
    blocks = cells.reshape(-1, _COARSE_SIDE, step, _COARSE_SIDE, step).mean(axis=(2, 4))
    points = blocks.reshape(len(numbers), _COARSE_SIDE**2)
    count = min(_NEIGHBORS + 1, len(points))
    radius = max(limit * _COARSE_SIDE, 1e-6)
    _, neighbors = cKDTree(points).query(points, count, distance_upper_bound=radius)
    pairs = {
        (min(i, j), max(i, j))
        for i, row in enumerate(neighbors.reshape(len(points), count).tolist())
        for j in row
        if j < len(points) and j != i
    }
    for i, j in sorted(pairs):
        distance = float(np.sqrt(((cells[i] - cells[j]) ** 2).mean()))
        if distance <= limit:
            yield int(numbers[i]), int(numbers[j]), distance


@dataclass(frozen=True)
class Shift:
    """The offset at which a mask fits its image best."""

    rows: int  # pixels; positive is down
    columns: int  # pixels; positive is right
    step: int  # resolution of the offset in pixels
    # How much better than at the median offset the borders fit the edges at that offset, and at
    # offset 0, in standard deviations over the other offsets.
    fit: float
    fit_at_zero: float


def step_of(size: tuple[int, int]) -> int:
    """Return the pixels of a step for an image of (H, W)."""
    return -(-max(size) // LONGEST)


def image_steps(gray: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return (h, w) gray levels, one per step, of an image of (H, W) read at any reduced size."""
    step = step_of(size)
    height, width = (-(-(side - step // 2) // step) for side in size)
    return np.asarray(gray.resize((width, height), Image.Resampling.BOX))


def mask_steps(values: NDArray[Any]) -> NDArray[Any]:
    """Return (h, w) or (h, w, 3) values, one per step, of those in a mask's file."""
    step = step_of((values.shape[0], values.shape[1]))
    return values[step // 2 :: step, step // 2 :: step].copy()


def estimate_shift(gray: NDArray[np.uint8], values: NDArray[Any], step: int) -> Shift | None:
    """Return the offset at which a mask fits its image best; None if it has too few borders.

    `gray` and `values` are (h, w) and (h, w) or (h, w, 3), one per step of some pixels.
    """
    if min(gray.shape) <= 4 * REACH:
        return None
    # The pixels whose right or lower neighbor differs, except near the frame.
    border = np.zeros(values.shape[:2], bool)
    for axis in (0, 1):
        differs = np.roll(values, -1, axis) != values
        border |= differs.any(axis=2) if differs.ndim == 3 else differs
    border[:REACH] = border[-REACH - 1 :] = False
    border[:, :REACH] = border[:, -REACH - 1 :] = False
    count = int(border.sum())
    if count < _MIN_BORDER:
        return None
    fit = _sum_of_edges(_edges(gray.astype(np.float32)), border) / count
    row, column = (int(k) for k in np.unravel_index(fit.argmax(), fit.shape))
    rows, columns = np.indices(fit.shape)
    far = np.maximum(abs(rows - row), abs(columns - column)) > _PEAK
    middle, std = float(np.median(fit)), float(fit[far].std()) or 1.0
    around_zero = fit[REACH - 1 : REACH + 2, REACH - 1 : REACH + 2]
    return Shift(
        (row - REACH) * step,
        (column - REACH) * step,
        step,
        (float(fit.max()) - middle) / std,
        (float(around_zero.max()) - middle) / std,
    )


def _edges(gray: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the edge strength at each pixel, (h, w) from 0 to 1, from the differences to its right
    and lower neighbors."""
    down, right = np.zeros_like(gray), np.zeros_like(gray)
    down[:-1] = gray[1:] - gray[:-1]
    right[:, :-1] = gray[:, 1:] - gray[:, :-1]
    strength = np.hypot(down, right)
    strong = float(np.percentile(strength, _STRONG_EDGE)) or 1.0
    return np.minimum(strength / strong, 1).astype(np.float32)


def _sum_of_edges(edges: NDArray[np.float32], border: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the sum of the edges below the borders at each offset from -REACH to REACH, as
    (2 * REACH + 1, 2 * REACH + 1)."""
    import scipy.fft  # takes a third of a second, and is not needed if all scans are cached

    shape = [scipy.fft.next_fast_len(side, real=True) for side in edges.shape]
    borders = scipy.fft.rfft2(border.astype(np.float32), shape)
    sums = scipy.fft.irfft2(scipy.fft.rfft2(edges, shape) * borders.conj(), shape)
    offsets = np.arange(-REACH, REACH + 1)
    return np.asarray(sums[np.ix_(offsets, offsets)], np.float32)
