"""Looks: what is kept of an image, so that it is known again, and of how its mask lies on it.

A look knows an image again after it was scaled, compressed or made lighter: 32 x 32 grey levels,
compared without their mean and in units of their spread. Images without anything in them (fog,
black) are alike without being the same, so they are not compared.

`shift` compares the borders in a mask with the edges in its image, at every offset up to 12
steps: where the mask was drawn on another version of the image they agree elsewhere than at none.

Shapes: H, W image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

SIDE = 32  # of a look, in cells
SAME = 0.16  # largest distance of two looks of one image, in units of its spread
_COARSE = 4  # cells a side of what is looked up: means of 8 x 8 others
_NEIGHBOURS = 8  # that each look is compared with
_ENOUGH = 16  # looks that tell how much the images of a set differ
_USUAL = 0.5  # how much those of street scenes do, in units of their spread
_PLAIN = 4.0  # grey levels of spread below which there is nothing to know again

REACH = 12  # steps that a mask is moved, each way
LONGEST = 512  # steps of an image's longer side, at most: a step is then several pixels
_BORDERS = 200  # pixels of border that a mask must have
_STRONG = 90  # percentile of the edges that counts as fully strong


def signature(grey: Image.Image) -> bytes:
    """SIDE * SIDE grey levels, row by row."""
    return grey.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def near_duplicates(looks: Sequence[bytes]) -> Iterator[tuple[int, int, float]]:
    """The pairs (i, j), i < j, of looks of the same image, and how far apart they are; of each
    look with the few that are nearest to it, so that thousands of equal ones take no longer.

    Where all images of a set are alike (one frame around them, a camera that stands still), only
    those count that are nearer than such images are anyway."""
    if len(looks) < 2:
        return
    levels = np.frombuffer(b"".join(looks), np.uint8).reshape(len(looks), -1).astype(np.float32)
    spread = levels.std(axis=1)
    numbers = np.flatnonzero(spread >= _PLAIN)
    cells = (levels[numbers] - levels[numbers].mean(axis=1, keepdims=True)) / spread[numbers, None]
    if len(numbers) < 2:
        return
    step = SIDE // _COARSE
    blocks = cells.reshape(-1, _COARSE, step, _COARSE, step).mean(axis=(2, 4))
    limit = SAME
    if len(numbers) >= _ENOUGH:
        differ = float((cells - cells.mean(axis=0)).std())
        limit *= min(1.0, differ / _USUAL)
    # The mean over a block moves two looks no further apart (in root mean square) than they are.
    points = blocks.reshape(len(numbers), _COARSE**2)
    nearest = min(_NEIGHBOURS + 1, len(points))
    room = max(limit * _COARSE, 1e-6)
    _, found = cKDTree(points).query(points, nearest, distance_upper_bound=room)
    found = found.reshape(len(points), nearest)
    pairs = {
        (min(i, j), max(i, j))
        for i, row in enumerate(found.tolist())
        for j in row
        if j < len(points) and j != i
    }
    for i, j in sorted(pairs):
        apart = float(np.sqrt(((cells[i] - cells[j]) ** 2).mean()))
        if apart <= limit:
            yield int(numbers[i]), int(numbers[j]), apart


@dataclass(frozen=True)
class Shift:
    """How a mask lies on its image.

    Args:
        rows, columns: where its borders agree best with the image's edges, in pixels from where
            they lie; positive is down and right.
        step: of the offsets, in pixels.
        there, here: how much better the edges fit there, and where the mask lies, than at a
            middling offset; in units of how much this wavers over the other offsets.
    """

    rows: int
    columns: int
    step: int
    there: float
    here: float


def step_of(size: tuple[int, int]) -> int:
    """Pixels of a step, for an image of (H, W)."""
    return -(-max(size) // LONGEST)


def image_steps(grey: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(h, w) grey levels step by step, of an image of (H, W) that was read at any reduced size."""
    step = step_of(size)
    height, width = (-(-(side - step // 2) // step) for side in size)
    return np.asarray(grey.resize((width, height), Image.Resampling.BOX))


def mask_steps(values: NDArray[Any]) -> NDArray[Any]:
    """(h, w) or (h, w, 3) values step by step, of those in a mask's file."""
    step = step_of((values.shape[0], values.shape[1]))
    return values[step // 2 :: step, step // 2 :: step].copy()


def shift(grey: NDArray[np.uint8], values: NDArray[Any], step: int) -> Shift | None:
    """Where a mask agrees best with its image; None where it has too few borders to say.

    Args:
        grey, values: (h, w) and (h, w) or (h, w, 3), step by step, of an image and a mask of one
            size.
        step: in pixels.
    """
    if min(grey.shape) <= 4 * REACH:
        return None
    border = _borders(values)
    count = int(border.sum())
    if count < _BORDERS:
        return None
    edges = _edges(grey.astype(np.float32))
    found = _agreement(edges, border) / count
    row, column = (int(k) for k in np.unravel_index(found.argmax(), found.shape))
    rows, columns = np.indices(found.shape)
    far = np.maximum(abs(rows - row), abs(columns - column)) > 3
    middle, wavers = float(np.median(found)), float(found[far].std()) or 1.0
    around = found[REACH - 1 : REACH + 2, REACH - 1 : REACH + 2]
    return Shift(
        (row - REACH) * step,
        (column - REACH) * step,
        step,
        (float(found.max()) - middle) / wavers,
        (float(around.max()) - middle) / wavers,
    )


def _borders(values: NDArray[Any]) -> NDArray[np.bool_]:
    """(h, w) whether a pixel's right or lower neighbour is another one, away from the frame."""
    different = np.zeros(values.shape[:2], bool)
    for axis in (0, 1):
        ahead = np.roll(values, -1, axis)
        other = ahead != values
        different |= other.any(axis=2) if other.ndim == 3 else other
    different[:REACH] = different[-REACH - 1 :] = False
    different[:, :REACH] = different[:, -REACH - 1 :] = False
    return different


def _edges(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) how strong the edge between a pixel and its right and lower neighbours is, 0-1."""
    down, right = np.zeros_like(grey), np.zeros_like(grey)
    down[:-1] = grey[1:] - grey[:-1]
    right[:, :-1] = grey[:, 1:] - grey[:, :-1]
    strength = np.hypot(down, right)
    strong = float(np.percentile(strength, _STRONG)) or 1.0
    return np.minimum(strength / strong, 1).astype(np.float32)


def _agreement(edges: NDArray[np.float32], border: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(2 * REACH + 1, 2 * REACH + 1) the sum of the edges under the borders, moved by each offset
    from -REACH to REACH."""
    import scipy.fft  # here: it takes a third of a second, and what is remembered needs it not

    shape = [scipy.fft.next_fast_len(side, real=True) for side in edges.shape]
    under = scipy.fft.rfft2(edges, shape) * scipy.fft.rfft2(border.astype(np.float32), shape).conj()
    sums = scipy.fft.irfft2(under, shape)
    offsets = np.arange(-REACH, REACH + 1)
    return np.asarray(sums[np.ix_(offsets, offsets)], np.float32)
