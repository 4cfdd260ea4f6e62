"""Class ids as outlines: GeoJSON and COCO.

An outline follows the sides of pixels. The pixel in row i and column j covers j .. j + 1 along x
and i .. i + 1 along y, which points down, as in labelme and COCO: an outline that is rasterized by
pixel centers gives back the ids that it was made from.

A region is a set of 4-connected pixels of one class. Its outer ring and the rings of its holes pass
no point twice: if two of its pixels touch in a corner only, each ring turns such that it may touch
another ring in a point, but never itself. Outer rings turn from x to y (their area by the shoelace
formula is positive) and holes the other way, as RFC 7946 requires of the numbers; on a screen,
where y points down, outer rings run clockwise.

Nothing here needs torch. Shapes: H, W image · N points (x, y).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.core.labels import Labels
from fullconv.inference.postprocess import label_regions

Ring = NDArray[np.int64]  # (N, 2): x, y in pixels; the last point is connected to the first


@dataclass(frozen=True, eq=False)
class Region:
    """A region of one class."""

    class_id: int
    area: int  # in pixels
    box: tuple[int, int, int, int]  # x, y, width and height in pixels
    rings: tuple[Ring, ...]  # the outer ring, and those of the holes


def trace_outlines(
    ids: NDArray[Any], labels: Labels, numbers: NDArray[Any] | None = None
) -> list[Region]:
    """Return the regions of (H, W) class ids without ignored pixels, ordered by their first pixel,
    row by row."""
    from rasterio.features import shapes  # here: it takes a fifth of a second

    numbers = label_regions(ids) if numbers is None else numbers
    areas = np.bincount(numbers.ravel())
    class_ids = np.empty(len(areas), np.int64)
    class_ids[numbers.ravel()] = ids.ravel()
    regions = {}
    for polygon, number in shapes(numbers, mask=ids < len(labels), connectivity=4):
        # GDAL repeats the first point at the end, and turns the other way.
        outer, *holes = (np.array(ring[:0:-1], np.int64) for ring in polygon["coordinates"])
        x, y = outer.min(axis=0).tolist()
        right, bottom = outer.max(axis=0).tolist()
        holes = sorted(map(_rotate_hole, holes), key=lambda ring: ring[0, ::-1].tolist())
        k, box = int(number), (x, y, right - x, bottom - y)
        regions[k] = Region(int(class_ids[k]), int(areas[k]), box, (outer, *holes))
    return [regions[k] for k in sorted(regions)]


def _rotate_hole(ring: Ring) -> Ring:
    """Return the ring beginning at its topmost edge that goes right, the leftmost of them."""
    goes_right = np.flatnonzero(np.roll(ring[:, 0], -1) > ring[:, 0])
    first = min(goes_right.tolist(), key=lambda k: ring[k, ::-1].tolist())
    return np.roll(ring, -first, axis=0)


def geojson(
    ids: NDArray[Any],
    labels: Labels,
    source: str | None = None,
    to_coordinates: Callable[[Ring], list[list[float]]] | None = None,
) -> dict[str, Any]:
    """Return a FeatureCollection: a Polygon for each region, with "class", "class_id" and "area" in
    pixels. The name of the image is in the member "image", an extension of GeoJSON.

    `to_coordinates` converts points from pixels; None: the points stay in pixels.
    """
    convert = to_coordinates or (lambda ring: ring.tolist())
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
                "coordinates": [convert(np.concatenate([ring, ring[:1]])) for ring in region.rings],
            },
        }
        for number, region in enumerate(trace_outlines(ids, labels))
    ]
    height, width = ids.shape
    image = {"source": source, "height": height, "width": width}
    return {"type": "FeatureCollection", "image": image, "features": features}


def coco(ids: NDArray[Any], labels: Labels, file_name: str = "") -> dict[str, Any]:
    """Return images, annotations and categories in COCO format: an annotation for each region, as
    uncompressed run lengths because polygons of COCO have no holes. Category ids are class ids."""
    height, width = ids.shape
    numbers = label_regions(ids)
    annotations: list[dict[str, Any]] = []
    for region in trace_outlines(ids, labels, numbers):
        x, y, box_width, box_height = region.box
        left, top = region.rings[0][0].tolist()  # the corner of the region's first pixel
        inside = numbers[y : y + box_height, x : x + box_width] == numbers[top, left]
        counts = _run_lengths(inside, (x, y), (height, width))
        annotations.append({
            "id": len(annotations) + 1,
            "image_id": 1,
            "category_id": region.class_id,
            "segmentation": {"size": [height, width], "counts": counts},
            "area": region.area,
            "bbox": list(region.box),
            "iscrowd": 0,
        })  # fmt: skip
    return {
        "images": [{"id": 1, "file_name": file_name, "height": height, "width": width}],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(labels.names)],
    }


def _run_lengths(
    inside: NDArray[np.bool_], origin: tuple[int, int], size: tuple[int, int]
) -> list[int]:
    """Return COCO's run lengths, column by column: outside, inside, outside ... `inside` is a patch
    of the image (H, W) at `origin` (x, y)."""
    (x, y), (height, width) = origin, size
    padded = np.zeros((inside.shape[1], inside.shape[0] + 2), np.int8)
    padded[:, 1:-1] = inside.T
    column, row = np.nonzero(np.diff(padded, axis=1))  # where a run begins or ends
    turns = (x + column) * height + y + row
    # A run that ends at the bottom of a column continues at the top of the next one.
    is_turn = np.ones(len(turns), bool)
    joints = np.flatnonzero(turns[1:] == turns[:-1])
    is_turn[joints] = is_turn[joints + 1] = False
    lengths: list[int] = np.diff([0, *turns[is_turn].tolist(), height * width]).tolist()
    return lengths[:-1] if lengths[-1] == 0 else lengths
