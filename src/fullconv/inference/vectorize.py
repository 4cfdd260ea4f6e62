"""Class ids as outlines: GeoJSON, and COCO.

An outline follows the sides of pixels. The pixel in row i and column j covers j .. j + 1 along x
and i .. i + 1 along y, which points down, as labelme and COCO count: rasterised by the centres of
pixels, outlines give back the ids they were made of.

A region is what hangs together over the sides of pixels. Its outer ring and the rings of its holes
go through no point twice: where two of its pixels meet in a corner alone, each ring stays with the
pixel outside, so that a ring may touch another one in a point but never itself. Outer rings turn
from x to y (their area by the shoelace formula is positive), holes the other way, as RFC 7946 wants
it of the numbers; on a screen, where y points down, outer rings so go clockwise.

Nothing here needs torch. Shapes: H, W image · N points (x, y).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.core.labels import Labels
from fullconv.inference.postprocess import label_regions

Ring = NDArray[np.int64]  # (N, 2): x, y in pixels; the last point is joined to the first
_RIGHT, _DOWN, _LEFT, _UP = range(4)


@dataclass(frozen=True, eq=False)
class Region:
    """A region of one class.

    Args:
        class_id: of its pixels.
        area: in pixels.
        box: x, y, width and height of what is around it, in pixels.
        rings: the outer one, and those of the holes.
    """

    class_id: int
    area: int
    box: tuple[int, int, int, int]
    rings: tuple[Ring, ...]


def trace_outlines(ids: NDArray[Any], labels: Labels) -> list[Region]:
    """The regions of (H, W) class ids in the order of their first pixels, row by row. Pixels of no
    class (the ignored id) are in none."""
    numbers = label_regions(ids)
    count = int(numbers.max()) + 1
    class_of = np.empty(count, np.int64)
    class_of[numbers.ravel()] = ids.ravel()
    classes, areas = class_of.tolist(), np.bincount(numbers.ravel(), minlength=count).tolist()
    rings: list[list[Ring]] = [[] for _ in range(count)]
    boxes: list[list[int]] = [[] for _ in range(count)]
    for region, ring, box in _rings(numbers):
        if box:  # the outer one
            rings[region].insert(0, ring)
            boxes[region] = box
        else:
            rings[region].append(ring)
    return [
        Region(classes[k], areas[k], (*boxes[k],), tuple(rings[k]))  # type: ignore[arg-type]
        for k in np.flatnonzero(class_of < len(labels)).tolist()
    ]


def geojson(
    ids: NDArray[Any],
    labels: Labels,
    source: str | None = None,
    at: Callable[[Ring], list[list[float]]] | None = None,
) -> dict[str, Any]:
    """A FeatureCollection: a Polygon for each region, with "class", "class_id" and "area" (pixels).

    Args:
        source: the image, for the member "image", which GeoJSON does not know.
        at: gives the coordinates of points; None: pixels.
    """
    at = at or (lambda ring: ring.tolist())
    features = [
        {
            "type": "Feature",
            "id": number,
            "properties": {
                "class": labels.names[region.class_id],
                "class_id": region.class_id,
                "area": region.area,
            },
            "geometry": {
                "type": "Polygon",
                "coordinates": [at(np.concatenate([ring, ring[:1]])) for ring in region.rings],
            },
        }
        for number, region in enumerate(trace_outlines(ids, labels))
    ]
    height, width = ids.shape
    image = {"source": source, "height": height, "width": width}
    return {"type": "FeatureCollection", "image": image, "features": features}


def coco(ids: NDArray[Any], labels: Labels, file_name: str = "") -> dict[str, Any]:
    """Images, annotations and categories as COCO has them: an annotation for each region, as run
    lengths (its polygons know no holes). A category's id is the class id."""
    height, width = ids.shape
    numbers = label_regions(ids)
    annotations: list[dict[str, Any]] = []
    for region in trace_outlines(ids, labels):
        x, y, wide, high = region.box
        # The outer ring begins at the upper left corner of the region's first pixel.
        left, top = region.rings[0][0].tolist()
        inside = numbers[y : y + high, x : x + wide] == numbers[top, left]
        runs = _runs(inside, (x, y), (height, width))
        annotations.append({
            "id": len(annotations) + 1,
            "image_id": 1,
            "category_id": region.class_id,
            "segmentation": {"size": [height, width], "counts": runs},
            "area": region.area,
            "bbox": [x, y, wide, high],
            "iscrowd": 0,
        })  # fmt: skip
    return {
        "images": [{"id": 1, "file_name": file_name, "height": height, "width": width}],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(labels.names)],
    }


def _runs(inside: NDArray[np.bool_], at: tuple[int, int], size: tuple[int, int]) -> list[int]:
    """COCO's run lengths, column by column: outside, inside, outside ... of a patch at (x, y) of a
    image (H, W)."""
    (x, y), (height, width) = at, size
    padded = np.zeros((inside.shape[1], inside.shape[0] + 2), np.int8)
    padded[:, 1:-1] = inside.T
    column, row = np.nonzero(np.diff(padded, axis=1))  # where a run begins or ends
    turns = (x + column) * height + y + row
    # A run that ends at the foot of one column goes on at the head of the next.
    kept = np.ones(len(turns), bool)
    meet = np.flatnonzero(turns[1:] == turns[:-1])
    kept[meet] = kept[meet + 1] = False
    lengths: list[int] = np.diff([0, *turns[kept].tolist(), height * width]).tolist()
    return lengths[:-1] if lengths[-1] == 0 else lengths


def _rings(numbers: NDArray[np.int32]) -> Iterator[tuple[int, Ring, list[int]]]:
    """Every ring: its region, its corners, and of an outer one x, y, width and height."""
    start, towards, region, following = _edges(numbers)
    order, begins = _followed(following)
    # A corner is where an edge has another direction than the one before it on its ring.
    before = np.empty(len(order), np.int64)
    before[following] = np.arange(len(following))
    corner = (towards != towards[before])[order]
    ring_of = np.repeat(np.arange(len(begins)), np.diff([*begins, len(order)]))[corner]
    points = np.stack(np.divmod(start[order[corner]], numbers.shape[1] + 1)[::-1], axis=1)
    cuts = np.searchsorted(ring_of, np.arange(len(begins) + 1))
    # Twice the area: every edge with the next one, the last with the first.
    following_point = np.roll(points, -1, axis=0)
    following_point[cuts[1:] - 1] = points[cuts[:-1]]
    (x, y), (next_x, next_y) = points.T, following_point.T
    outer = np.add.reduceat(x * next_y - next_x * y, cuts[:-1]) > 0
    low = np.minimum.reduceat(points, cuts[:-1], axis=0)
    boxes = np.concatenate([low, np.maximum.reduceat(points, cuts[:-1], axis=0) - low], axis=1)
    of_rings = zip(region[order[begins]].tolist(), outer.tolist(), boxes.tolist(), strict=True)
    spans = zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
    for (number, is_outer, box), span in zip(of_rings, spans, strict=True):
        yield number, points[slice(*span)], box if is_outer else []


def _edges(
    numbers: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The sides between regions, each with its region on the right of its direction: the point
    where it starts (row by row), its direction, its region, and the edge that follows it."""
    height, width = numbers.shape
    around = np.full((height + 2, width + 2), -1, np.int64)
    around[1:-1, 1:-1] = numbers
    # The four pixels around each point (i, j).
    north_west, north_east = around[:-1, :-1], around[:-1, 1:]
    south_west, south_east = around[1:, :-1], around[1:, 1:]
    points = (height + 1) * (width + 1)
    # Of an edge from a point: the pixel on its right and the one on its left.
    right = {_RIGHT: south_east, _DOWN: south_west, _LEFT: north_west, _UP: north_east}
    left = {_RIGHT: north_east, _DOWN: south_east, _LEFT: south_west, _UP: north_west}
    steps = {_RIGHT: 1, _DOWN: width + 1, _LEFT: -1, _UP: -(width + 1)}
    start, towards, region, wanted = [], [], [], []
    for way in range(4):
        own = right[way].ravel()
        there = np.flatnonzero((own != left[way].ravel()) & (own >= 0))
        own = own[there]
        end = there + steps[way]
        # Ahead of its end: left first, so that a ring stays with the pixel outside at a corner
        # where two pixels of the region touch.
        ahead_left = left[way].ravel()[end] == own
        ahead_right = right[way].ravel()[end] == own
        turn = np.where(ahead_left, (way - 1) % 4, np.where(ahead_right, way, (way + 1) % 4))
        start.append(there)
        towards.append(np.full(len(there), way))
        region.append(own)
        wanted.append(turn * points + end)
    keys = np.concatenate([way * points + of for way, of in enumerate(start)])
    following = np.searchsorted(keys, np.concatenate(wanted))
    return np.concatenate(start), np.concatenate(towards), np.concatenate(region), following


def _followed(following: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[int]]:
    """The edges ring after ring, and where in that order each ring begins."""
    after: list[int] = following.tolist()
    seen = bytearray(len(after))
    order: list[int] = []
    begins = []
    for first in range(len(after)):
        if not seen[first]:
            begins.append(len(order))
            edge = first
            while not seen[edge]:
                seen[edge] = 1
                order.append(edge)
                edge = after[edge]
    return np.array(order, np.int64), begins
