"""The canvas of a synthetic street, and the objects that are painted on it."""

import numpy as np
import pytest

from fullconv.data.synthetic import objects
from fullconv.data.synthetic.canvas import FINE, Canvas, shaded


@pytest.fixture
def canvas():
    return Canvas((60, 80), np.random.default_rng(5))


def test_projection_is_a_pinhole_camera(canvas):
    canvas.bend = 0.0
    straight_ahead = canvas.at((canvas.eye[0], canvas.eye[1], 7.0))
    assert straight_ahead == pytest.approx(canvas.vanish)
    for depth in (2.0, 4.0, 8.0):
        u, v = canvas.at((canvas.eye[0] + 1.0, canvas.eye[1] - 0.5, depth))
        assert u - canvas.vanish[0] == pytest.approx(canvas.focal / depth)
        assert v - canvas.vanish[1] == pytest.approx(0.5 * canvas.focal / depth)


def test_a_bend_moves_far_points_sideways(canvas):
    point = (0.0, 0.0, 40.0)
    canvas.bend = 0.0
    straight = canvas.at(point)
    canvas.bend = 0.002
    assert canvas.at(point)[0] - straight[0] == pytest.approx(canvas.focal * 0.002 * 40)
    assert canvas.at(point)[1] == straight[1]


def test_a_class_is_painted_on_both_images_at_the_same_pixels(canvas):
    blank = np.asarray(canvas.photo).copy()
    x, y = canvas.eye
    triangle = [(x - 1, y - 1, 5), (x + 1, y - 1, 5), (x, y + 1, 5)]
    canvas.shape(triangle, (250, 10, 10), 3)
    painted = (np.asarray(canvas.photo) != blank).any(axis=-1)
    stamped = np.asarray(canvas.mask) == 3
    assert stamped.any()
    assert (painted == stamped).all()
    canvas.shape(triangle, (10, 250, 10))  # without a class, ids do not change
    assert (np.asarray(canvas.mask) == 3).sum() == stamped.sum()


def test_a_thin_bar_far_away_is_a_pixel_wide(canvas):
    x, y = canvas.eye
    canvas.bar((x, y - 1, 90), (x, y + 9, 90), 0.001, (9, 9, 9), 7)
    columns = (np.asarray(canvas.mask) == 7).any(axis=0).sum()
    assert columns >= FINE  # one pixel of the image


def test_distant_colors_are_those_of_the_haze(canvas):
    near, far = canvas.lit((0, 0, 0), 0.0), canvas.lit((0, 0, 0), 1e5)
    assert near == (0, 0, 0, 255)
    assert far[:3] == tuple(int(c) for c in canvas.light.horizon)


def test_shaded_stays_in_range():
    assert shaded((100, 200, 20), 1.5) == [150.0, 255.0, 30.0]


PAINTERS = {
    "house": (lambda c: objects.house(c, 1, 6.0, 20.0, 3), objects.BUILDING),
    "hedge": (lambda c: objects.hedge(c, -1, 6.0, 20.0), objects.TREE),
    "tree": (lambda c: objects.tree(c, 1.0, 12.0), objects.TREE),
    "rear": (lambda c: objects.car(c, 0.0, 9.0, facing=1), objects.CAR),
    "front": (lambda c: objects.car(c, 0.0, 9.0, facing=-1), objects.CAR),
    "crossing": (lambda c: objects.car(c, 0.0, 9.0, facing=1, crossing=True), objects.CAR),
    "person": (lambda c: objects.person(c, 0.0, 9.0), objects.PERSON),
    "pole": (lambda c: objects.pole(c, 1.0, 9.0), objects.POLE),
}


def painted(name, seed):
    canvas = Canvas((90, 130), np.random.default_rng(seed))
    canvas.eye, canvas.line, canvas.bend = (0.0, 1.6), 4.5, 0.0  # so that both sides are in view
    PAINTERS[name][0](canvas)
    return np.asarray(canvas.photo), np.asarray(canvas.mask)


@pytest.mark.parametrize("name", PAINTERS)
def test_each_object_has_its_own_class_only_and_is_determined_by_the_seed(name):
    images = [painted(name, seed) for seed in range(12)]
    for seed, (_, mask) in enumerate(images):
        assert set(np.unique(mask).tolist()) <= {objects.SKY, PAINTERS[name][1]}
        assert (mask == PAINTERS[name][1]).sum() > 60, seed
    assert all(map(np.array_equal, painted(name, 3), images[3]))
    assert (images[3][0] != images[4][0]).any()


@pytest.mark.parametrize("name", ["rear", "front", "crossing", "house"])
def test_solid_objects_are_painted_at_all_pixels_of_their_class(name):
    photo, mask = painted(name, 7)
    stamped = mask == PAINTERS[name][1]
    assert (photo[stamped].sum(axis=-1) > 0).all()  # the canvas was black


def test_a_person_is_taller_than_wide_and_smaller_far_away():
    boxes = []
    for depth in (6.0, 24.0):
        canvas = Canvas((90, 130), np.random.default_rng(1))
        objects.person(canvas, canvas.eye[0], depth)
        v, u = np.nonzero(np.asarray(canvas.mask) == objects.PERSON)
        boxes.append((np.ptp(v) + 1, np.ptp(u) + 1))
    assert boxes[0][0] > 1.4 * boxes[0][1]
    assert boxes[0][0] / boxes[1][0] == pytest.approx(4.0, rel=0.12)
