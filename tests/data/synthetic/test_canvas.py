from __future__ import annotations

import numpy as np
import pytest

from fullconv.data.synthetic.canvas import FINE, Canvas, shaded


@pytest.fixture
def canvas() -> Canvas:
    return Canvas((60, 80), np.random.default_rng(5))


def test_projection_is_a_pinhole_camera(canvas: Canvas) -> None:
    canvas.bend = 0.0
    straight = canvas.at((canvas.eye[0], canvas.eye[1], 7.0))
    assert straight == pytest.approx(
        canvas.vanish
    )  # eye level, straight ahead: the vanishing point
    for depth in (2.0, 4.0, 8.0):
        u, v = canvas.at((canvas.eye[0] + 1.0, canvas.eye[1] - 0.5, depth))
        assert u - canvas.vanish[0] == pytest.approx(canvas.focal / depth)
        assert v - canvas.vanish[1] == pytest.approx(0.5 * canvas.focal / depth)


def test_a_bend_moves_far_points_sideways(canvas: Canvas) -> None:
    point = (0.0, 0.0, 40.0)
    canvas.bend = 0.0
    straight = canvas.at(point)
    canvas.bend = 0.002
    assert canvas.at(point)[0] - straight[0] == pytest.approx(canvas.focal * 0.002 * 40)
    assert canvas.at(point)[1] == straight[1]


def test_what_has_a_kind_lands_on_both_images_at_the_same_pixels(canvas: Canvas) -> None:
    blank = np.asarray(canvas.photo).copy()
    x, y = canvas.eye
    canvas.shape([(x - 1, y - 1, 5), (x + 1, y - 1, 5), (x, y + 1, 5)], (250, 10, 10), 3)
    painted = (np.asarray(canvas.photo) != blank).any(axis=-1)
    stamped = np.asarray(canvas.mask) == 3
    assert stamped.any()
    assert (painted == stamped).all()
    canvas.shape([(x - 1, y - 1, 5), (x + 1, y - 1, 5), (x, y + 1, 5)], (10, 250, 10))
    assert (np.asarray(canvas.mask) == 3).sum() == stamped.sum()  # detail changes no id


def test_bar_keeps_a_pole_visible_from_afar(canvas: Canvas) -> None:
    x, y = canvas.eye
    canvas.bar((x, y - 1, 90), (x, y + 9, 90), 0.001, (9, 9, 9), 7)
    columns = (np.asarray(canvas.mask) == 7).any(axis=0).sum()
    assert columns >= FINE  # one pixel of the image


def test_haze_takes_over_with_depth(canvas: Canvas) -> None:
    near, far = canvas.lit((0, 0, 0), 0.0), canvas.lit((0, 0, 0), 1e5)
    assert near == (0, 0, 0, 255)
    assert far[:3] == tuple(int(c) for c in canvas.light.horizon)


def test_shaded_stays_in_range() -> None:
    assert shaded((100, 200, 20), 1.5) == [150.0, 255.0, 30.0]
