"""Polygons, discs and ellipses: against definitions, pixel by pixel (of polygons in exact
fractions), and against matplotlib and pycocotools."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path
from pycocotools import mask as coco

from fullconv.data.annotations import rasterize as polygons
from fullconv.data.annotations.rasterize import (
    Disc,
    Ellipse,
    Polygon,
    is_coordinate,
    read_points,
    rectangle,
    rotated_rectangle,
)

SIZE = (13, 17)
# Eighths, inside and outside the image, often just at the centre of a pixel.
PLACE = st.integers(-40, 180).map(lambda n: n / 8) | st.integers(-2, 19).map(lambda n: n + 0.5)
OUTLINE = st.lists(st.tuples(PLACE, PLACE), min_size=3, max_size=9)


def whole(part: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W) bool."""
    mask = np.zeros(size, bool)
    rows, columns, inside = part.pixels(size)
    assert mask[rows, columns].shape == inside.shape
    mask[rows, columns] = inside
    return mask


def defined(points: list[tuple[float, float]], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Even-odd: a ray from the centre to the left crosses an odd number of edges."""
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
def test_a_pixel_belongs_when_its_centre_does(points: list[tuple[float, float]]) -> None:
    found = whole(Polygon(np.array(points, np.float64)))
    np.testing.assert_array_equal(found, defined(points))


@settings(max_examples=50)
@given(points=OUTLINE)
def test_the_direction_and_the_first_point_do_not_matter(points: list[tuple[float, float]]) -> None:
    array = np.array(points, np.float64)
    expected = whole(Polygon(array))
    np.testing.assert_array_equal(whole(Polygon(array[::-1])), expected)
    np.testing.assert_array_equal(whole(Polygon(np.roll(array, 1, axis=0))), expected)


@pytest.mark.parametrize("seed", range(20))
def test_neighbours_leave_no_gap_and_no_pixel_twice(seed: int) -> None:
    """A fan of triangles around a point inside covers the image exactly once."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform((0, 0), SIZE[::-1])
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    angles = np.append(angles, np.arange(0, 6.3, 0.7))  # none of them wider than a half turn
    rim = middle + 60 * np.stack([np.cos(np.sort(angles)), np.sin(np.sort(angles))], axis=1)
    total = sum(
        whole(Polygon(np.stack([middle, a, b]))).astype(int)
        for a, b in zip(rim, np.roll(rim, -1, axis=0), strict=True)
    )
    np.testing.assert_array_equal(total, 1)


def test_whole_coordinates_bound_whole_pixels() -> None:
    expected = np.zeros(SIZE, bool)
    expected[2:5, 3:9] = True
    np.testing.assert_array_equal(whole(rectangle(3, 2, 9, 5)), expected)
    np.testing.assert_array_equal(whole(rectangle(9, 5, 3, 2)), expected)
    assert rectangle(3, 2, 9, 5).area == 18


def test_a_centre_on_the_outline_belongs_to_the_right_and_to_the_bottom() -> None:
    mask = whole(rectangle(1.5, 2.5, 4.5, 5.5))
    assert np.argwhere(mask).min(axis=0).tolist() == [2, 1]
    assert np.argwhere(mask).max(axis=0).tolist() == [4, 3]


def test_a_self_crossing_outline_has_a_hole() -> None:
    ring = [(0, 0), (9, 0), (9, 9), (0, 9), (0, 0), (3, 3), (6, 3), (6, 6), (3, 6), (3, 3)]
    mask = whole(Polygon(np.array(ring, np.float64)))
    assert mask[1, 1]
    assert not mask[4, 4]
    assert mask.sum() == 81 - 9


def star(seed: int) -> np.ndarray:
    """(N, 2) corners around a point, in an image of 120 x 160 pixels; no two edges cross."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 15))
    reach = rng.uniform(10, 70, 15)[:, None]
    return (80.3, 60.7) + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.mark.parametrize("seed", range(10))
def test_matplotlib_finds_the_same_pixels(seed: int) -> None:
    points = star(seed)
    rows, columns = np.indices((120, 160)) + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)
    theirs = Path(points).contains_points(centres).reshape(rows.shape)
    assert 500 < theirs.sum() < 15000
    np.testing.assert_array_equal(whole(Polygon(points), rows.shape), theirs)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
@pytest.mark.parametrize("seed", range(10))
def test_pycocotools_agrees_up_to_the_outline(seed: int) -> None:
    """It rounds to fifths of a pixel."""
    points = star(seed)
    runs = coco.frPyObjects([points.ravel().tolist()], 120, 160)
    differ = whole(Polygon(points), (120, 160)) != coco.decode(runs)[..., 0].astype(bool)
    length = np.abs(np.roll(points, -1, axis=0) - points).sum()
    assert differ.sum() < 0.25 * length


@pytest.mark.parametrize("far", [-polygons.FARTHEST, polygons.FARTHEST])
def test_coordinates_far_away_do_no_harm(far: float) -> None:
    assert not whole(rectangle(far, far, far, far)).any()
    assert whole(Polygon(np.array([(-1e9, -1e9), (1e9, -1e9), (1e9, 1e9), (-1e9, 1e9)]))).all()
    assert not whole(Disc(far, far, 3)).any()


def test_a_disc_is_what_lies_within_its_radius() -> None:
    disc = Disc(8.2, 6.4, 4.3)
    rows, columns = np.indices(SIZE) + 0.5
    np.testing.assert_array_equal(whole(disc), np.hypot(rows - 6.4, columns - 8.2) <= 4.3)
    assert disc.area == pytest.approx(np.pi * 4.3**2)
    assert whole(Disc(0, 0, 5))[:3, :3].all()


@pytest.mark.parametrize("turn", [0, 30, 90, -45, 400])
@pytest.mark.parametrize("sides", [(6.0, 2.5), (1.5, 7.0), (4.0, 4.0)])
def test_an_ellipse_is_a_circle_stretched_and_turned(turn: float, sides: tuple[float, ...]) -> None:
    """A pixel's centre, turned back and squeezed, lies in the unit circle."""
    ellipse = Ellipse(8.2, 6.4, *sides, turn)
    back = np.exp(-1j * np.radians(turn))
    rows, columns = np.indices(SIZE) + 0.5
    place = ((columns - 8.2) + 1j * (rows - 6.4)) * back
    expected = np.abs(place.real / sides[0] + 1j * place.imag / sides[1]) <= 1
    np.testing.assert_array_equal(whole(ellipse), expected)
    assert ellipse.area == pytest.approx(np.pi * sides[0] * sides[1])
    if sides[0] == sides[1]:
        np.testing.assert_array_equal(whole(ellipse), whole(Disc(8.2, 6.4, 4.0)))


@pytest.mark.parametrize("sides", [(0, 3), (3, 0), (0, 0)])
def test_a_flat_ellipse_covers_nothing(sides: tuple[int, int]) -> None:
    assert not whole(Ellipse(5.5, 5.5, *sides, 20)).any()


def test_a_rectangle_is_turned_about_its_upper_left_corner() -> None:
    whole_one = rotated_rectangle(3, 2, 6, 3, 0)
    np.testing.assert_array_equal(whole(whole_one), whole(rectangle(3, 2, 9, 5)))
    quarter = rotated_rectangle(7, 2, 6, 3, 90)  # clockwise: down from the corner, to its left
    np.testing.assert_array_equal(whole(quarter), whole(rectangle(4, 2, 7, 8)))
    tilted = rotated_rectangle(5, 1, 5, 10, 30)
    cosine, sine = np.cos(np.pi / 6), np.sin(np.pi / 6)
    expected = [[5, 1], [5 + 5 * cosine, 1 + 5 * sine]]
    np.testing.assert_allclose(tilted.points[:2], expected)
    np.testing.assert_allclose(tilted.points[3], [5 - 10 * sine, 1 + 10 * cosine])
    assert tilted.area == pytest.approx(50)


def test_what_a_coordinate_may_be() -> None:
    assert all(map(is_coordinate, (0, -1.5, 1e9)))
    assert not any(map(is_coordinate, (True, None, "1", float("nan"), float("inf"), 2e9)))


@pytest.mark.parametrize(
    ("value", "shape"),
    [([[1, 2], [3, 4.5]], (2, 2)), ([1, 2, 3, 4, 5, 6], (3, 2)), ([], (0, 2))],
)
def test_points_are_pairs_or_a_flat_list(value: list[Any], shape: tuple[int, int]) -> None:
    points = read_points(value)
    assert points is not None
    assert points.shape == shape


@pytest.mark.parametrize(
    "value",
    [
        *(None, "1 2", {}, [1], [[1, 2, 3]], [[1, 2], 3], [[1, "2"]], [True, 1], [1, None]),
        *([[1, float("nan")]], [[float("inf"), 0]], [[1, 10**12]]),
    ],
)
def test_what_are_no_points(value: Any) -> None:
    assert read_points(value) is None
