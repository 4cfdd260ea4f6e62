from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path
from pycocotools import mask as coco

from fullconv.core.errors import FullconvError
from fullconv.data.annotations.rasterize import (
    FARTHEST,
    Disc,
    Ellipse,
    Polygon,
    decompress,
    encode_run_lengths,
    is_coordinate,
    read_points,
    read_run_lengths,
    rectangle,
    rotated_rectangle,
)

SIZE = (13, 17)
# Eighths, inside and outside the image, often exactly at the center of a pixel.
COORDINATE = st.integers(-40, 180).map(lambda n: n / 8) | st.integers(-2, 19).map(lambda n: n + 0.5)
OUTLINE = st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=9)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def filled(part: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, bool)
    rows, columns, inside = part.pixels(size)
    assert mask[rows, columns].shape == inside.shape
    mask[rows, columns] = inside
    return mask


def defined(points: list[tuple[float, float]], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Fill by the even-odd rule: a ray to the left crosses an odd number of edges."""
    corners = [(Fraction(x), Fraction(y)) for x, y in points]
    mask = np.zeros(size, bool)
    for i, j in np.ndindex(size):
        x, y = Fraction(2 * j + 1, 2), Fraction(2 * i + 1, 2)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if (y0 <= y) != (y1 <= y):
                mask[i, j] ^= x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x
    return mask


@settings(max_examples=150)
@given(points=OUTLINE)
def test_a_pixel_belongs_to_a_polygon_if_its_center_does(points: list[tuple[float, float]]) -> None:
    array = np.array(points, np.float64)
    expected = defined(points)
    np.testing.assert_array_equal(filled(Polygon(array)), expected)
    np.testing.assert_array_equal(filled(Polygon(array[::-1])), expected)
    np.testing.assert_array_equal(filled(Polygon(np.roll(array, 1, axis=0))), expected)


@pytest.mark.parametrize("seed", range(20))
def test_neighbors_leave_no_gap_and_share_no_pixel(seed: int) -> None:
    # A fan of triangles around a point covers the image exactly once.
    rng = np.random.default_rng(seed)
    middle = rng.uniform((0, 0), SIZE[::-1])
    angles = np.append(rng.uniform(0, 2 * np.pi, 9), np.arange(0, 6.3, 0.7))
    rim = middle + 60 * np.stack([np.cos(np.sort(angles)), np.sin(np.sort(angles))], axis=1)
    corners = zip(rim, np.roll(rim, -1, axis=0), strict=True)
    triangles = [Polygon(np.stack([middle, *pair])) for pair in corners]
    np.testing.assert_array_equal(sum(filled(part).astype(int) for part in triangles), 1)


@pytest.mark.parametrize("seed", range(10))
def test_matplotlib_and_pycocotools_agree(seed: int) -> None:
    # Corners around a point in an image of 120 x 160 pixels; no two edges cross.
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 15))
    reach = rng.uniform(10, 70, 15)[:, None]
    points = (80.3, 60.7) + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rows, columns = np.indices((120, 160)) + 0.5
    centers = np.stack([columns.ravel(), rows.ravel()], axis=1)
    inside = Path(points).contains_points(centers).reshape(rows.shape)
    assert 500 < inside.sum() < 15000
    np.testing.assert_array_equal(filled(Polygon(points), rows.shape), inside)
    runs = coco.frPyObjects([points.ravel().tolist()], 120, 160)  # rounds to fifths of a pixel
    length = np.abs(np.roll(points, -1, axis=0) - points).sum()
    assert (coco.decode(runs)[..., 0] != inside).sum() < 0.25 * length


def test_rectangles_and_rings() -> None:
    expected = np.zeros(SIZE, bool)
    expected[2:5, 3:9] = True
    for shape in (rectangle(3, 2, 9, 5), rectangle(9, 5, 3, 2), rotated_rectangle(3, 2, 6, 3, 0)):
        np.testing.assert_array_equal(filled(shape), expected)
        assert shape.area == pytest.approx(18)
    # A center on the outline belongs to the shape on its right or below it.
    positions = np.argwhere(filled(rectangle(1.5, 2.5, 4.5, 5.5)))
    assert (positions.min(axis=0).tolist(), positions.max(axis=0).tolist()) == ([2, 1], [4, 3])
    # Clockwise about the upper left corner: a quarter turn goes down from it, to its left.
    quarter = rotated_rectangle(7, 2, 6, 3, 90)
    np.testing.assert_array_equal(filled(quarter), filled(rectangle(4, 2, 7, 8)))
    cosine, sine = np.cos(np.pi / 6), np.sin(np.pi / 6)
    corners = rotated_rectangle(5, 1, 5, 10, 30).points[[0, 1, 3]]
    expected = [[5, 1], [5 + 5 * cosine, 1 + 5 * sine], [5 - 10 * sine, 1 + 10 * cosine]]
    np.testing.assert_allclose(corners, expected)
    # An outline that encircles a part twice has a hole there.
    ring = [(0, 0), (9, 0), (9, 9), (0, 9), (0, 0), (3, 3), (6, 3), (6, 6), (3, 6), (3, 3)]
    mask = filled(Polygon(np.array(ring, np.float64)))
    assert (mask[1, 1], mask[4, 4], mask.sum()) == (True, False, 81 - 9)


@pytest.mark.parametrize("far", [-FARTHEST, FARTHEST])
def test_coordinates_far_away_are_harmless(far: float) -> None:
    assert not filled(rectangle(far, far, far, far)).any()
    assert filled(rectangle(-1e9, -1e9, 1e9, 1e9)).all()
    assert not filled(Disc(far, far, 3)).any()


@pytest.mark.parametrize("rotation", [0, 30, 90, -45, 400])
@pytest.mark.parametrize("radii", [(6.0, 2.5), (1.5, 7.0), (4.0, 4.0), (0, 3), (3, 0), (0, 0)])
def test_an_ellipse_is_a_stretched_and_rotated_circle(
    rotation: float, radii: tuple[float, ...]
) -> None:
    ellipse = Ellipse(8.2, 6.4, *radii, rotation)
    rows, columns = np.indices(SIZE) + 0.5
    place = ((columns - 8.2) + 1j * (rows - 6.4)) * np.exp(-1j * np.radians(rotation))
    if min(radii) > 0:
        expected = np.abs(place.real / radii[0] + 1j * place.imag / radii[1]) <= 1
        np.testing.assert_array_equal(filled(ellipse), expected)
    else:
        assert not filled(ellipse).any()
    assert ellipse.area == pytest.approx(np.pi * radii[0] * radii[1])
    if radii[0] == radii[1]:
        np.testing.assert_array_equal(filled(ellipse), filled(Disc(8.2, 6.4, radii[0])))
        assert Disc(8.2, 6.4, radii[0]).area == pytest.approx(ellipse.area)


def test_points_are_pairs_or_a_flat_list() -> None:
    assert all(map(is_coordinate, (0, -1.5, 1e9)))
    assert not any(map(is_coordinate, (True, None, "1", float("nan"), float("inf"), 2e9)))
    for value, shape in (([[1, 2], [3, 4.5]], (2, 2)), ([1, 2, 3, 4, 5, 6], (3, 2)), ([], (0, 2))):
        points = read_points(value)
        assert points is not None
        assert points.shape == shape
    wrong = (None, "1 2", {}, [1], [[1, 2, 3]], [[1, 2], 3], [[1, "2"]], [True, 1], [1, None])
    for value in (*wrong, [[1, float("nan")]], [[float("inf"), 0]], [[1, 10**12]]):
        assert read_points(value) is None, value


def runs_by_pixel(mask: np.ndarray) -> list[int]:
    """Count down the columns, one pixel after the other, zeros first."""
    counts, last = [0], 0
    for pixel in mask.T.ravel().astype(int).tolist():
        if pixel != last:
            counts.append(0)
        counts[-1] += 1
        last = pixel
    return counts


def compress(counts: list[int]) -> str:
    """Compress as COCO's own code does."""
    text = ""
    for k, count in enumerate(counts):
        value, more = count - (counts[k - 2] if k > 2 else 0), True
        while more:
            low, value = value & 31, value >> 5
            more = value != -1 if low & 16 else value != 0
            text += chr(48 + low + 32 * more)
    return text


RANDOM = np.random.default_rng(0)
BLOB = np.zeros((300, 500), bool)
BLOB[20:250, 30:470] = True


@pytest.mark.parametrize(
    "mask",
    [
        *(RANDOM.random(size) < p for size, p in (((7, 5), 0.5), ((40, 60), 0.1), ((1, 9), 0.9))),
        *(BLOB, np.ones((3, 4), bool), np.zeros((3, 4), bool)),
    ],
)
def test_run_lengths_give_the_mask_back(mask: np.ndarray) -> None:
    counts = runs_by_pixel(mask)
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert encoded == compress(counts)
    assert decompress(encoded) == counts
    for form in (counts, encoded):
        runs = read_run_lengths({"size": list(mask.shape), "counts": form})
        np.testing.assert_array_equal(filled(runs, mask.shape), mask)
        assert runs.area == mask.sum()
    runs = encode_run_lengths(mask)
    assert (runs.counts.tolist(), runs.size) == (counts, mask.shape)


@settings(max_examples=200)
@given(counts=st.lists(st.integers(0, 5000), max_size=30))
def test_compressed_numbers_come_back(counts: list[int]) -> None:
    assert decompress(compress(counts)) == counts


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"counts": [6]}, "size None"),
        ({"size": [2, 3, 1], "counts": [6]}, "size"),
        ({"size": [2, -3], "counts": [6]}, "size"),
        ({"size": [2, 3]}, "neither text nor a list"),
        ({"size": [2, 3], "counts": [7, -1]}, "whole numbers from 0"),
        ({"size": [2, 3], "counts": [1.0, 5]}, "whole numbers from 0"),
        ({"size": [2, 3], "counts": [1, 4]}, "run lengths of 5 pixels; expected 2 x 3 = 6"),
        ({"size": [10, 10], "counts": "111"}, "expected 10 x 10 = 100"),  # crashes pycocotools
        ({"size": [2, 3], "counts": [1, 10**30]}, "pixels; expected"),
        ({"size": [2, 3], "counts": "1 5"}, "' ' out of place"),
        ({"size": [2, 3], "counts": "1é"}, "'é' out of place"),
        ({"size": [2, 3], "counts": "1\ud8001"}, r"'\\ud800' out of place"),
        ({"size": [2, 3], "counts": "o" * 50 + "1"}, "out of place"),
        ({"size": [2, 3], "counts": "1P"}, "in the middle of a number"),
        ({"size": [2, 3], "counts": "O7"}, "whole numbers from 0"),
    ],
)
def test_wrong_run_lengths_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(FullconvError, match=message):
        read_run_lengths(table)
