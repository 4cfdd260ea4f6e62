"""Fill polygons, discs, ellipses and run lengths: a pixel belongs to a shape if its center does.

The center of the pixel in row i and column j is (j + 0.5, i + 0.5), as labelme and COCO count.
Overlaps within one outline cancel (even-odd rule). A center exactly on an outline belongs to the
shape on its right or below it, so that neighbors leave no gap and share no pixel.
PIL.ImageDraw.polygon is not used: its shapes are half a pixel too large, and half a pixel off.

Run lengths are not read by pycocotools, which returns uninitialized memory if their sum is wrong.

Shapes: H, W image · N points, each (x, y) in pixels, float64.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg

Size: TypeAlias = tuple[int, int]  # (H, W)
Patch: TypeAlias = tuple[slice, slice, NDArray[np.bool_]]  # rows, columns, mask of these pixels

FARTHEST = 1e9  # pixels; coordinates beyond are not in an image
# GDAL gives a center on an outline to the left and the upper shape. Centers that are moved right by
# this much, and down by a thousandth of it, are on no outline, and go to the right and lower one.
_NUDGE = 1e-8
_LOCK = threading.Lock()  # rasterio silences a warning in a way that is not thread-safe
RLE_EXAMPLE = '"segmentation": {"size": [2, 3], "counts": [1, 4, 1]}'  # 1 out, 4 in, 1 out


class Part(Protocol):
    """A part of a shape: its area in square pixels, and its pixels in an image of a size."""

    @property
    def area(self) -> float: ...

    def pixels(self, size: Size) -> Patch: ...


@dataclass(frozen=True, eq=False)
class Polygon:
    """The inside of a closed outline: (N, 2) points, the last one joined to the first.

    >>> Polygon(np.array([(0.0, 0.0), (2.0, 0.0), (0.0, 2.0)])).pixels((2, 2))[2].tolist()
    [[True, False], [False, False]]
    """

    points: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Parts that the outline encircles twice count twice."""
        x, y = (self.points - self.points[:1]).T
        return float(abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2)

    def pixels(self, size: Size) -> Patch:
        from rasterio.features import rasterize
        from rasterio.transform import Affine

        left, top = np.clip(np.floor(self.points.min(axis=0)), 0, size[::-1]).astype(int).tolist()
        right, bottom = np.clip(np.ceil(self.points.max(axis=0)), 0, size[::-1]).astype(int)
        rows, columns = slice(top, int(bottom)), slice(left, int(right))
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        if 0 in shape:
            return rows, columns, np.zeros(shape, bool)
        ring = self.points.tolist()
        polygon = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        origin = Affine(1, 0, left + _NUDGE, 0, 1, top + _NUDGE / 1000)
        with _LOCK:
            inside = rasterize([polygon], out_shape=shape, transform=origin, dtype="uint8")
        return rows, columns, inside.view(bool)


@dataclass(frozen=True, eq=False)
class Ellipse:
    """The inside of an ellipse around (x, y), rotated about it by degrees, clockwise."""

    x: float
    y: float
    radius_x: float
    radius_y: float
    rotation: float = 0.0

    @property
    def area(self) -> float:
        return float(np.pi * self.radius_x * self.radius_y)

    def pixels(self, size: Size) -> Patch:
        reach = max(self.radius_x, self.radius_y)
        rows, columns, x, y = _centers(self.x, self.y, reach, size)
        if not min(self.radius_x, self.radius_y) > 0:
            return rows, columns, np.zeros((len(y), x.shape[1]), bool)
        cosine, sine = np.cos(np.radians(self.rotation)), np.sin(np.radians(self.rotation))
        across = (x * cosine + y * sine) / self.radius_x
        down = (y * cosine - x * sine) / self.radius_y
        return rows, columns, across**2 + down**2 <= 1


@dataclass(frozen=True, eq=False)
class Disc:
    """The pixels within a radius of (x, y), in pixels."""

    x: float
    y: float
    radius: float

    @property
    def area(self) -> float:
        return float(np.pi * self.radius**2)

    def pixels(self, size: Size) -> Patch:
        rows, columns, x, y = _centers(self.x, self.y, self.radius, size)
        return rows, columns, y**2 + x**2 <= self.radius**2


@dataclass(frozen=True, eq=False)
class RunLengths:
    """A mask (H, W) as run lengths down its columns; the first run is of zeros and may be 0."""

    counts: NDArray[np.int64]
    size: Size

    @property
    def area(self) -> float:
        return float(self.counts[1::2].sum())

    def pixels(self, size: Size) -> Patch:
        height, width = self.size
        is_one = np.arange(len(self.counts)) % 2 == 1
        mask = np.repeat(is_one, self.counts).reshape(width, height).T
        return slice(0, height), slice(0, width), mask


@dataclass(frozen=True, eq=False)
class Stamp:
    """A small mask with its upper left pixel at column x and row y."""

    x: int
    y: int
    mask: NDArray[np.bool_]

    @property
    def area(self) -> float:
        return float(self.mask.sum())

    def pixels(self, size: Size) -> Patch:
        height, width = self.mask.shape
        top, bottom = np.clip((self.y, self.y + height), 0, size[0]).tolist()
        left, right = np.clip((self.x, self.x + width), 0, size[1]).tolist()
        inside = self.mask[top - self.y : bottom - self.y, left - self.x : right - self.x]
        return slice(top, bottom), slice(left, right), inside


# Each has an area in square pixels, and pixels(size): those whose centers are inside.


def _centers(
    x: float, y: float, reach: float, size: Size
) -> tuple[slice, slice, NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows and columns within reach of (x, y), and how far their centers are from it."""
    top, bottom = np.clip((np.floor(y - reach), np.ceil(y + reach)), 0, size[0]).astype(int)
    left, right = np.clip((np.floor(x - reach), np.ceil(x + reach)), 0, size[1]).astype(int)
    down = np.arange(top, bottom)[:, None] + 0.5 - y
    across = np.arange(left, right)[None, :] + 0.5 - x
    return slice(int(top), int(bottom)), slice(int(left), int(right)), across, down


def rotated_rectangle(x: float, y: float, width: float, height: float, rotation: float) -> Polygon:
    """Return a rectangle that is rotated by degrees, clockwise, about its corner (x, y)."""
    cosine, sine = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    across = np.array([width * cosine, width * sine])
    down = np.array([-height * sine, height * cosine])
    corner = np.array([x, y], np.float64)
    return Polygon(np.stack([corner, corner + across, corner + across + down, corner + down]))


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """Return the rectangle between two opposite corners."""
    return Polygon(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64))


def read_points(value: Any) -> NDArray[np.float64] | None:
    """Return (N, 2) points from [[x, y], ...] or [x, y, x, y, ...]; None if it is neither."""
    if not isinstance(value, list):
        return None
    if any(isinstance(entry, list) for entry in value):
        if not all(isinstance(entry, list) and len(entry) == 2 for entry in value):
            return None
        value = [number for entry in value for number in entry]
    if len(value) % 2 or not all(is_coordinate(number) for number in value):
        return None
    return np.array(value, np.float64).reshape(-1, 2)


def is_coordinate(number: Any) -> bool:
    """Return whether a value is a number that a coordinate may be."""
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return is_number and abs(number) <= FARTHEST  # False for NaN


def read_run_lengths(table: Any) -> RunLengths:
    """Read {"size": [H, W], "counts": [...] or "..."}, as COCO stores them."""
    size, counts = table.get("size"), table.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(map(_is_count, size))):
        message = msg("run lengths with the size {size!r}; expected [height, width].", size=size)
        raise FullconvError(message, RLE_EXAMPLE)
    if isinstance(counts, str):
        counts = decompress(counts)
    if not (isinstance(counts, list) and all(map(_is_count, counts))):
        message = msg("run lengths that are neither text nor a list of whole numbers from 0.")
        raise FullconvError(message, RLE_EXAMPLE)
    height, width = size
    if sum(counts) != height * width:
        values = {"total": sum(counts), "height": height, "width": width, "area": height * width}
        message = msg(
            "run lengths of {total} pixels; expected {height} x {width} = {area}.", **values
        )
        raise FullconvError(message, RLE_EXAMPLE)
    return RunLengths(np.array(counts, np.int64), (height, width))


def encode_run_lengths(mask: NDArray[np.bool_]) -> RunLengths:
    """Return the run lengths of a mask (H, W)."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = [0, 0] if flat[:1].any() else [0]  # the first run is of zeros
    counts = np.diff(np.concatenate([starts, edges, [flat.size]]))
    return RunLengths(counts.astype(np.int64), (mask.shape[0], mask.shape[1]))


def decompress(text: str) -> list[int]:
    """Return the numbers in compressed run lengths of COCO.

    Each character holds 5 bits of a number and whether more follow; from the fourth number on,
    the number is a difference to the one two before.
    """
    points = text.encode("utf-32-le", "surrogatepass")  # JSON may hold half of a surrogate pair
    codes = np.frombuffer(points, np.uint32).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    starts = ends - lengths + 1
    invalid = np.concatenate([np.flatnonzero((codes < 0) | (codes >= 64)), starts[lengths > 7]])
    if invalid.size:
        character = text[int(invalid[0])]
        message = msg(
            "compressed run lengths with {character!r} out of place.", character=character
        )
        raise FullconvError(message, RLE_EXAMPLE)
    if len(codes) and codes[-1] & 32:
        message = msg("compressed run lengths that end in the middle of a number.")
        raise FullconvError(message, RLE_EXAMPLE)
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & 31) << shifts, starts) if len(codes) else codes
    values = values - np.where(codes[ends] & 16, 1 << 5 * lengths, 0)  # negative numbers
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values.tolist()


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0
