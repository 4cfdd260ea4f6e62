"""Outlines rasterised by others give the ids back; GeoJSON and COCO as their readers see them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.path import Path as Outline
from photos import photo, written
from scipy import ndimage

from fullconv.core.labels import Labels
from fullconv.data.annotations.convert import convert
from fullconv.data.io.masks import read_values
from fullconv.inference.vectorize import coco, geojson, trace_outlines

LABELS = Labels(("sky", "road", "tree"))
IDS = arrays(
    np.uint8,
    array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.sampled_from([0, 1, 2, 255]),
)


def painted(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Even-odd by matplotlib: the pixels whose centre is inside an odd number of rings."""
    rows, columns = np.indices(size)
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    inside = sum(Outline(ring).contains_points(centres).astype(int) for ring in rings)
    return (inside % 2 == 1).reshape(size)


@given(IDS)
def test_outlines_rasterised_give_the_ids_back(ids: np.ndarray) -> None:
    again = np.full(ids.shape, 255, np.uint8)
    seen = np.zeros(ids.shape, int)
    for region in trace_outlines(ids, LABELS):
        inside = painted(list(region.rings), ids.shape)
        again[inside] = region.class_id
        seen += inside
        assert region.area == inside.sum()
        assert ndimage.label(inside)[1] == 1  # which hangs together over its sides
        rows, columns = np.nonzero(inside)
        x, y, width, height = region.box
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
    assert (again == ids).all()
    assert (seen == (ids != 255)).all()


@given(IDS)
def test_rings_turn_as_they_should_and_meet_no_point_twice(ids: np.ndarray) -> None:
    for region in trace_outlines(ids, LABELS):
        for number, ring in enumerate(region.rings):
            points = [tuple(point) for point in ring.tolist()]
            assert len(set(points)) == len(points) >= 4
            steps = np.roll(ring, -1, axis=0) - ring
            assert ((steps == 0).sum(axis=1) == 1).all()  # along x or along y
            assert (np.sign(steps) != np.sign(np.roll(steps, 1, axis=0))).any(axis=1).all()  # turns
            x, y = ring.T
            twice = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
            assert (twice > 0) == (number == 0)
            # No point of another corner's side lies on it: rings touch themselves nowhere.
            on = [p for one, step in zip(ring, steps, strict=True) for p in along(one, step)]
            assert len(set(on)) == len(on)


def along(start: np.ndarray, step: np.ndarray) -> list[tuple[int, int]]:
    length = int(abs(step).sum())
    return [tuple((start + step // length * k).tolist()) for k in range(length)]


def test_a_ring_of_pixels_that_touches_itself_in_a_corner() -> None:
    """The hole and the outside meet in one point; neither ring goes through it twice."""
    ids = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 255]], np.uint8)
    (outer, sky) = trace_outlines(ids, LABELS)
    assert [ring.tolist() for ring in outer.rings] == [
        [[0, 0], [3, 0], [3, 2], [2, 2], [2, 3], [0, 3]],
        [[1, 2], [2, 2], [2, 1], [1, 1]],
    ]
    assert (outer.class_id, outer.area, outer.box) == (1, 7, (0, 0, 3, 3))
    assert [ring.tolist() for ring in sky.rings] == [[[1, 1], [2, 1], [2, 2], [1, 2]]]


def test_geojson_in_full() -> None:
    table = geojson(np.array([[1, 255], [1, 2]], np.uint8), LABELS, "a.png")
    assert table == {
        "type": "FeatureCollection",
        "image": {"source": "a.png", "height": 2, "width": 2},
        "features": [
            {
                "type": "Feature",
                "id": 0,
                "properties": {"class": "road", "class_id": 1, "area": 2},
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [[[0, 0], [1, 0], [1, 2], [0, 2], [0, 0]]],
                },
            },
            {
                "type": "Feature",
                "id": 1,
                "properties": {"class": "tree", "class_id": 2, "area": 1},
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [[[1, 1], [2, 1], [2, 2], [1, 2], [1, 1]]],
                },
            },
        ],
    }
    assert json.loads(json.dumps(table)) == table
    assert geojson(np.array([[255]], np.uint8), LABELS)["features"] == []


@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # of pycocotools
@given(IDS)
def test_coco_as_pycocotools_reads_it(ids: np.ndarray) -> None:
    masks = pytest.importorskip("pycocotools.mask")
    table = json.loads(json.dumps(coco(ids, LABELS, "a.png")))
    again = np.full(ids.shape, 255, np.uint8)
    for one in table["annotations"]:
        height, width = ids.shape
        packed = masks.frPyObjects(one["segmentation"], height, width)
        again[masks.decode(packed).astype(bool)] = one["category_id"]
        assert masks.area(packed) == one["area"]
        assert masks.toBbox(packed).tolist() == one["bbox"]
    assert (again == ids).all()
    assert [one["id"] for one in table["annotations"]] == list(
        range(1, len(table["annotations"]) + 1)
    )


def test_coco_converts_back_to_the_mask(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 3, (12, 17)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    written(tmp_path / "in" / "a.png", photo(12, 17))
    (tmp_path / "in" / "a.json").write_text(json.dumps(coco(ids, LABELS, "a.png")))
    result = convert(tmp_path / "in", tmp_path / "out")
    (mask,) = (tmp_path / "out" / "masks").rglob("a.png")
    names = np.array(result.labels.names)[read_values(mask)]
    assert (names == np.array(LABELS.names)[ids]).all()
