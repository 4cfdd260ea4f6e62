from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fullconv.data.synthetic import objects as scenery
from fullconv.data.synthetic.canvas import Canvas

PAINTERS: dict[str, tuple[Callable[[Canvas], None], int]] = {
    "house": (lambda c: scenery.house(c, 1, 6.0, 20.0, 3), scenery.BUILDING),
    "hedge": (lambda c: scenery.hedge(c, -1, 6.0, 20.0), scenery.TREE),
    "tree": (lambda c: scenery.tree(c, 1.0, 12.0), scenery.TREE),
    "rear": (lambda c: scenery.car(c, 0.0, 9.0, facing=1), scenery.CAR),
    "front": (lambda c: scenery.car(c, 0.0, 9.0, facing=-1), scenery.CAR),
    "crossing": (lambda c: scenery.car(c, 0.0, 9.0, facing=1, crossing=True), scenery.CAR),
    "person": (lambda c: scenery.person(c, 0.0, 9.0), scenery.PERSON),
    "pole": (lambda c: scenery.pole(c, 1.0, 9.0), scenery.POLE),
}


def painted(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    canvas = Canvas((90, 130), np.random.default_rng(seed))
    canvas.eye, canvas.line, canvas.bend = (0.0, 1.6), 4.5, 0.0  # so that both sides are in view
    PAINTERS[name][0](canvas)
    return np.asarray(canvas.photo), np.asarray(canvas.mask)


@pytest.mark.parametrize("name", PAINTERS)
def test_each_thing_stamps_its_own_class_and_no_other(name: str) -> None:
    for seed in range(12):
        _, mask = painted(name, seed)
        assert set(np.unique(mask).tolist()) <= {scenery.SKY, PAINTERS[name][1]}
        assert (mask == PAINTERS[name][1]).sum() > 60, seed


@pytest.mark.parametrize("name", PAINTERS)
def test_things_differ_from_seed_to_seed_and_repeat_with_one(name: str) -> None:
    first, second, other = painted(name, 3), painted(name, 3), painted(name, 4)
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize("name", ["rear", "front", "crossing", "house"])
def test_hard_things_are_painted_wherever_they_are_stamped(name: str) -> None:
    photo, mask = painted(name, 7)
    stamped = mask == PAINTERS[name][1]
    assert (photo[stamped].sum(axis=-1) > 0).all()  # the canvas was black


def test_a_person_is_taller_than_wide_and_smaller_far_away() -> None:
    boxes = []
    for depth in (6.0, 24.0):
        canvas = Canvas((90, 130), np.random.default_rng(1))
        scenery.person(canvas, canvas.eye[0], depth)
        v, u = np.nonzero(np.asarray(canvas.mask) == scenery.PERSON)
        boxes.append((np.ptp(v) + 1, np.ptp(u) + 1))
    assert boxes[0][0] > 1.4 * boxes[0][1]
    assert boxes[0][0] / boxes[1][0] == pytest.approx(4.0, rel=0.12)
