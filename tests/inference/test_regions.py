"""Regions, small regions, outlines: against SciPy, by definition, and as other readers see them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.path import Path as Outline
from photos import photo, written
from pycocotools import mask as coco_mask
from scipy import ndimage

from fullconv.core.labels import Labels
from fullconv.data.annotations.convert import convert
from fullconv.data.io.masks import read_values
from fullconv.inference.postprocess import label_regions, remove_small_regions
from fullconv.inference.vectorize import coco, geojson, trace_outlines

LABELS = Labels(("sky", "road", "tree"))
SMALL = array_shapes(min_dims=2, max_dims=2, max_side=9)
IDS = arrays(np.uint8, SMALL, elements=st.sampled_from([0, 1, 2, 255]))


@given(IDS)
def test_regions_are_those_of_scipy_in_the_order_of_their_first_pixels(ids: np.ndarray) -> None:
    numbers = label_regions(ids)
    order = list(dict.fromkeys(numbers.ravel().tolist()))
    assert order == list(range(len(order)))
    by_class = [ndimage.label(ids == k) for k in np.unique(ids)]
    assert len(order) == sum(count for _, count in by_class)
    for regions, count in by_class:
        for k in range(1, count + 1):
            (number,) = np.unique(numbers[regions == k])
            assert ((numbers == number) == (regions == k)).all()


def remove_by_definition(ids: np.ndarray, min_area: int) -> np.ndarray:
    """Remove one region after the other, and count everything again each time."""
    ids = ids.copy()
    while True:
        regions = []
        for k in np.unique(ids):
            components, count = ndimage.label(ids == k)
            regions += [components == n for n in range(1, count + 1)]
        small = [region for region in regions if region.sum() < min_area]
        if not small or len(regions) == 1:
            return ids
        region = min(small, key=lambda r: (r.sum(), np.flatnonzero(r)[0]))
        shared: Counter[int] = Counter()
        for i, j in np.argwhere(region):
            for y, x in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= y < ids.shape[0] and 0 <= x < ids.shape[1] and not region[y, x]:
                    shared[int(ids[y, x])] += 1
        ids[region] = min(shared, key=lambda k: (-shared[k], k))


@settings(max_examples=150)
@given(IDS, st.integers(1, 20))
def test_small_regions_take_the_id_that_surrounds_them_most(ids: np.ndarray, least: int) -> None:
    before = ids.copy()
    result = remove_small_regions(ids, least)
    assert (result == remove_by_definition(ids, least)).all()
    assert result.dtype == ids.dtype
    assert (ids == before).all()


def test_unsure_pixels_are_regions_too() -> None:
    ids = np.array([[-1, -1, 255], [0, 0, 255]], np.int32)
    assert label_regions(ids).tolist() == [[0, 0, 1], [2, 2, 1]]
    assert (remove_small_regions(ids, 2) == ids).all()


def paint(rings: tuple[np.ndarray, ...], size: tuple[int, int]) -> np.ndarray:
    """Return the pixels whose center is inside an odd number of rings, by matplotlib."""
    rows, columns = np.indices(size)
    centers = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    counts = sum(Outline(ring).contains_points(centers).astype(int) for ring in rings)
    return (counts % 2 == 1).reshape(size)


@given(IDS)
def test_rasterized_outlines_give_the_ids_back(ids: np.ndarray) -> None:
    painted, covered = np.full(ids.shape, 255, np.uint8), np.zeros(ids.shape, int)
    for region in trace_outlines(ids, LABELS):
        inside = paint(region.rings, ids.shape)
        painted[inside] = region.class_id
        covered += inside
        assert region.area == inside.sum()
        assert ndimage.label(inside)[1] == 1
        rows, columns = np.nonzero(inside)
        x, y, width, height = region.box
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
    assert (painted == ids).all()
    assert (covered == (ids != 255)).all()


@given(IDS)
def test_rings_turn_the_right_way_and_pass_no_point_twice(ids: np.ndarray) -> None:
    for region in trace_outlines(ids, LABELS):
        for number, ring in enumerate(region.rings):
            steps = np.roll(ring, -1, axis=0) - ring
            assert ((steps == 0).sum(axis=1) == 1).all()  # along x or along y
            assert (np.sign(steps) != np.sign(np.roll(steps, 1, axis=0))).any(axis=1).all()
            x, y = ring.T
            doubled_area = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
            assert (doubled_area > 0) == (number == 0)
            points = [
                tuple((start + step // abs(step).sum() * k).tolist())
                for start, step in zip(ring, steps, strict=True)
                for k in range(abs(step).sum())
            ]
            assert len(set(points)) == len(points) >= 4


def test_a_hole_that_touches_the_outside_in_a_corner() -> None:
    ids = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 255]], np.uint8)
    road, sky = trace_outlines(ids, LABELS)
    assert [ring.tolist() for ring in road.rings] == [
        [[0, 0], [3, 0], [3, 2], [2, 2], [2, 3], [0, 3]],
        [[1, 2], [2, 2], [2, 1], [1, 1]],
    ]
    assert (road.class_id, road.area, road.box) == (1, 7, (0, 0, 3, 3))
    assert [ring.tolist() for ring in sky.rings] == [[[1, 1], [2, 1], [2, 2], [1, 2]]]


def test_geojson() -> None:
    table = geojson(np.array([[1, 255], [1, 2]], np.uint8), LABELS, "a.png")
    boxes = [("road", 1, 2, 0, 0, 1, 2), ("tree", 2, 1, 1, 1, 2, 2)]
    features = [
        {
            "type": "Feature",
            "id": number,
            "properties": {"class": name, "class_id": k, "area": area},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x, y], [x2, y], [x2, y2], [x, y2], [x, y]]],
            },
        }
        for number, (name, k, area, x, y, x2, y2) in enumerate(boxes)
    ]
    image = {"source": "a.png", "height": 2, "width": 2}
    assert table == {"type": "FeatureCollection", "image": image, "features": features}
    assert json.loads(json.dumps(table)) == table
    assert geojson(np.array([[255]], np.uint8), LABELS)["features"] == []


@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # of pycocotools
@given(IDS)
def test_coco_is_read_by_pycocotools(ids: np.ndarray) -> None:
    table = json.loads(json.dumps(coco(ids, LABELS, "a.png")))
    decoded = np.full(ids.shape, 255, np.uint8)
    for number, annotation in enumerate(table["annotations"], 1):
        packed = coco_mask.frPyObjects(annotation["segmentation"], *ids.shape)
        decoded[coco_mask.decode(packed).astype(bool)] = annotation["category_id"]
        assert coco_mask.area(packed) == annotation["area"]
        assert coco_mask.toBbox(packed).tolist() == annotation["bbox"]
        assert annotation["id"] == number
    assert (decoded == ids).all()


def test_coco_converts_back_to_the_mask(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 3, (12, 17)).astype(np.uint8)
    written(tmp_path / "in" / "a.png", photo(12, 17))
    (tmp_path / "in" / "a.json").write_text(json.dumps(coco(ids, LABELS, "a.png")))
    result = convert(tmp_path / "in", tmp_path / "out")
    (mask,) = (tmp_path / "out" / "masks").rglob("a.png")
    names = np.array(result.labels.names)[read_values(mask)]
    assert (names == np.array(LABELS.names)[ids]).all()
