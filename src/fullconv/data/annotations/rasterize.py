"""Polygons, discs and ellipses as pixels: a pixel belongs to a shape when its centre does.

The pixel in row i and column j covers i .. i + 1 down and j .. j + 1 right, as labelme and COCO
count; its centre is (j + 0.5, i + 0.5). Inside is even-odd. A centre on the outline itself belongs
to the shape on its right or below it, so that shapes with a common edge leave no gap and no pixel
twice. (PIL.ImageDraw.polygon puts centres on whole numbers and paints the outline too: its shapes
are half a pixel larger on every side and lie half a pixel off.)

Shapes: H, W image · N points, each (x, y) in pixels, float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError

Size: TypeAlias = tuple[int, int]  # (H, W)
Patch: TypeAlias = tuple[slice, slice, NDArray[np.bool_]]  # rows, columns, which pixels of these

FARTHEST = 1e9  # pixels; a coordinate beyond is no place in an image
_AT_ONCE = 1 << 22  # crossings of edges and rows that are held at a time


@dataclass(frozen=True, eq=False)
class Polygon:
    """The inside of a closed outline.

    Args:
        points: (N, 2) float64, x and y; the last one is joined to the first.

    >>> Polygon(np.array([(0.0, 0.0), (2.0, 0.0), (0.0, 2.0)])).pixels((2, 2))[2].tolist()
    [[True, False], [False, False]]
    """

    points: NDArray[np.float64]

    @property
    def area(self) -> float:
        """In square pixels; of what the outline goes round twice, twice."""
        x, y = (self.points - self.points[:1]).T
        return float(abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2)

    def pixels(self, size: Size) -> Patch:
        """The pixels whose centre is inside."""
        left, top = np.clip(np.ceil(self.points.min(axis=0) - 0.5), 0, size[::-1]).astype(int)
        right, bottom = np.clip(np.ceil(self.points.max(axis=0) - 0.5), 0, size[::-1]).astype(int)
        shape = int(bottom - top), int(right - left) + 1  # one column more, for what ends there
        # How often an edge is crossed on the way to a pixel from its left neighbour; modulo 256,
        # of which only odd or even counts.
        crossed = np.zeros(shape, np.uint8)
        for rows, columns in _crossings(self.points, int(top), int(bottom)):
            columns = np.clip(columns - left, 0, shape[1] - 1).astype(np.int64)
            np.add.at(crossed, (rows - top, columns), 1)
        inside = (np.bitwise_xor.accumulate(crossed, axis=1)[:, :-1] & 1).astype(bool)
        return slice(int(top), int(bottom)), slice(int(left), int(right)), inside


@dataclass(frozen=True, eq=False)
class Disc:
    """What lies within `radius` of (x, y), in pixels."""

    x: float
    y: float
    radius: float

    @property
    def area(self) -> float:
        """In square pixels."""
        return float(np.pi * self.radius**2)

    def pixels(self, size: Size) -> Patch:
        """The pixels whose centre is inside."""
        rows = _around(self.y, self.radius, size[0])
        columns = _around(self.x, self.radius, size[1])
        down = np.arange(rows.start, rows.stop)[:, None] + 0.5 - self.y
        along = np.arange(columns.start, columns.stop)[None, :] + 0.5 - self.x
        return rows, columns, down**2 + along**2 <= self.radius**2


@dataclass(frozen=True, eq=False)
class Ellipse:
    """What lies inside an ellipse around (x, y).

    Args:
        across, down: half its width and height, in pixels, before it is turned.
        turn: about its centre, in degrees, clockwise.
    """

    x: float
    y: float
    across: float
    down: float
    turn: float = 0.0

    @property
    def area(self) -> float:
        """In square pixels."""
        return float(np.pi * self.across * self.down)

    def pixels(self, size: Size) -> Patch:
        """The pixels whose centre is inside."""
        farthest = max(self.across, self.down)
        rows, columns = _around(self.y, farthest, size[0]), _around(self.x, farthest, size[1])
        if not min(self.across, self.down) > 0:
            return (
                rows,
                columns,
                np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool),
            )
        y = np.arange(rows.start, rows.stop)[:, None] + 0.5 - self.y
        x = np.arange(columns.start, columns.stop)[None, :] + 0.5 - self.x
        cosine, sine = np.cos(np.radians(self.turn)), np.sin(np.radians(self.turn))
        along, aside = (x * cosine + y * sine) / self.across, (y * cosine - x * sine) / self.down
        return rows, columns, along**2 + aside**2 <= 1


def turned_rectangle(x: float, y: float, width: float, height: float, turn: float) -> Polygon:
    """Of its upper left corner and its sides, turned about that corner by degrees, clockwise."""
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    along = np.array([width * cosine, width * sine])
    down = np.array([-height * sine, height * cosine])
    corner = np.array([x, y], np.float64)
    return Polygon(np.stack([corner, corner + along, corner + along + down, corner + down]))


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """Of two opposite corners."""
    return Polygon(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64))


def read_points(value: Any) -> NDArray[np.float64] | None:
    """(N, 2) of [[x, y], ...] or of [x, y, x, y, ...], or None where it is neither of the two."""
    if not isinstance(value, list):
        return None
    if any(isinstance(entry, list) for entry in value):
        if not all(isinstance(entry, list) and len(entry) == 2 for entry in value):
            return None
        value = [number for entry in value for number in entry]
    if len(value) % 2 or not all(is_place(number) for number in value):
        return None
    return np.array(value, np.float64).reshape(-1, 2)


def is_place(number: Any) -> bool:
    """Whether it is a number that a coordinate may be."""
    good = isinstance(number, int | float) and not isinstance(number, bool)
    return good and abs(number) <= FARTHEST  # False for nan


def _around(centre: float, radius: float, end: int) -> slice:
    """The rows or columns that a disc or an ellipse may touch."""
    first, last = np.floor(centre - radius), np.ceil(centre + radius)
    return slice(int(np.clip(first, 0, end)), int(np.clip(last, 0, end)))


def _crossings(
    points: NDArray[np.float64], top: int, bottom: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Where edges cross the lines through the centres of the rows `top` .. `bottom`: (rows, the
    first column whose centre is not left of it, as float64), a part of the edges at a time."""
    start, end = points, np.roll(points, -1, axis=0)
    # Each edge downwards: two shapes that share it get the same crossings to the last bit.
    flip = start[:, 1] > end[:, 1]
    start, end = np.where(flip[:, None], end, start), np.where(flip[:, None], start, end)
    first = np.clip(np.ceil(start[:, 1] - 0.5), top, bottom).astype(np.int64)
    count = np.clip(np.ceil(end[:, 1] - 0.5), top, bottom).astype(np.int64) - first
    keep = count > 0
    start, end, first, count = start[keep], end[keep], first[keep], count[keep]
    step = max(1, _AT_ONCE // max(1, bottom - top))
    for k in range(0, len(first), step):
        part = slice(k, k + step)
        edge = np.repeat(np.arange(len(first))[part], count[part])
        before = np.cumsum(count[part]) - count[part]
        rows = first[edge] + np.arange(len(edge)) - np.repeat(before, count[part])
        (x0, y0), (x1, y1) = start[edge].T, end[edge].T
        # The product first: a crossing at a centre comes out exactly.
        yield rows, np.ceil(x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0) - 0.5)


_LONGEST = 7  # groups of five bits: more than any image needs

FORM = '"segmentation": {"size": [2, 3], "counts": [1, 4, 1]}'  # 2 x 3 pixels: 1 out, 4 in, 1 out


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask of (H, W) pixels.

    Args:
        counts: lengths of the runs; the first one is of zeros, and may be 0.
        size: (H, W); H * W is the sum of the counts.
    """

    counts: NDArray[np.int64]
    size: Size

    @property
    def area(self) -> float:
        """In pixels."""
        return float(self.counts[1::2].sum())

    def pixels(self, size: Size) -> Patch:
        """The pixels of its runs of ones; `size` is its own."""
        height, width = self.size
        ones = np.arange(len(self.counts)) % 2 == 1
        mask = np.repeat(ones, self.counts).reshape(width, height).T
        return slice(0, height), slice(0, width), mask


def read_runs(table: Any) -> Runs:
    """Of {"size": [H, W], "counts": [...] or "..."}.

    >>> read_runs({"size": [2, 3], "counts": [1, 3, 2]}).pixels((2, 3))[2].astype(int).tolist()
    [[0, 1, 0], [1, 1, 0]]
    """
    size, counts = table.get("size"), table.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(map(_is_count, size))):
        raise FullconvError(f"run lengths of the size {size!r}; expected [height, width].", FORM)
    if isinstance(counts, str):
        counts = decompress(counts)
    if not (isinstance(counts, list) and all(map(_is_count, counts))):
        raise FullconvError(
            "run lengths that are neither text nor a list of numbers from 0 up.", FORM
        )
    total, area = sum(counts), size[0] * size[1]
    if total != area:
        raise FullconvError(
            f"run lengths of {total} pixels in all; expected {size[0]} x {size[1]} = {area}.",
            FORM,
        )
    return Runs(np.array(counts, np.int64), (size[0], size[1]))


def runs_of(mask: NDArray[np.bool_]) -> Runs:
    """Of a mask (H, W).

    >>> runs_of(np.array([[0, 1, 0], [1, 1, 0]], bool)).counts.tolist()
    [1, 3, 2]
    """
    flat = mask.T.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = [0, 0] if flat[:1].any() else [0]  # the first run is of zeros
    counts = np.diff(np.concatenate([starts, edges, [flat.size]]))
    return Runs(counts.astype(np.int64), (mask.shape[0], mask.shape[1]))


def decompress(text: str) -> list[int]:
    """The numbers in compressed run lengths.

    >>> decompress("11T1")
    [1, 1, 36]
    """
    counts: list[int] = []
    value = groups = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or groups >= _LONGEST:
            raise FullconvError(f"compressed run lengths with {character!r} out of place.", FORM)
        value |= (code & 31) << 5 * groups
        groups += 1
        if code & 32:
            continue
        if code & 16:  # negative
            value -= 1 << 5 * groups
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = groups = 0
    if groups:
        raise FullconvError("compressed run lengths that end in the middle of a number.", FORM)
    return counts


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0
