from __future__ import annotations

import numpy as np
import pytest

from fullconv.geometry.grid import Grid
from fullconv.inference.heatmap import Heat, Heatmap, draw_heat, draw_heatmap, draw_peak


def found(*, brightest: tuple[int, int] = (1, 2)) -> Heatmap:
    """A grey photo of 60 x 80 pixels, 3 x 5 cells from (10, 8) on, 20 and 16 apart; two classes."""
    values = np.full((2, 3, 5), 0.1, np.float32)
    values[1][brightest] = 0.8
    values[0] = 1 - values[1]
    rows, columns = Grid(20, 10), Grid(16, 8)
    windows = (Grid(20, 10, 20), Grid(16, 8, 16))
    image = np.full((60, 80, 3), 100, np.uint8)
    heat = Heat(1, (60, 80), rows, columns, windows, values)
    return Heatmap(("cat", "dog"), (60, 80), image, (heat, heat))


def test_the_heat_is_warmest_at_the_best_place_and_grey_where_there_is_none() -> None:
    heats = found()
    best = heats.best(1)
    assert (best.row, best.column, best.name) == (30, 40, "dog")
    drawn = draw_heat(heats, heats.heats[0], best).astype(int)
    assert drawn.shape == (60, 80, 3)
    bright, redness = drawn.sum(axis=-1), drawn[..., 0] - drawn[..., 2]
    y, x = np.unravel_index(bright.argmax(), bright.shape)
    assert abs(y - 30) <= 1
    assert abs(x - 40) <= 1
    assert redness.max() > 100
    assert redness[10, 8] < 25


def test_it_is_drawn_at_the_size_of_the_image_that_is_shown() -> None:
    heats = found(brightest=(2, 0))
    smaller = Heatmap(heats.names, heats.size, heats.image[::2, ::2], heats.heats)
    drawn = draw_heat(smaller, smaller.heats[0], smaller.best(1)).astype(int)
    assert drawn.shape == (30, 40, 3)
    bright = drawn.sum(axis=-1)
    y, x = np.unravel_index(bright.argmax(), bright.shape)
    assert abs(y - 25) <= 1
    assert x <= 4  # left of the outermost cell it is as there


def test_where_no_cell_looks_it_is_pale() -> None:
    heats = found()
    heat = heats.heats[0]
    narrow = Heat(1, heat.size, Grid(20, 30), heat.columns, heat.windows, heat.probabilities[:, :1])
    drawn = draw_heat(Heatmap((), (60, 80), heats.image, (narrow,)), narrow, heats.best(1))
    assert (drawn[:19] == 190).all()
    assert (drawn[41:] == 190).all()
    assert (drawn[21:39] < 190).any(axis=-1).all()


def test_a_ring_and_a_frame_mark_the_place() -> None:
    heats = found()
    drawn = draw_peak(heats, heats.best(1))
    changed = (drawn != 100).any(axis=-1)
    y, x = np.nonzero(changed)
    assert (y.min(), y.max(), x.min(), x.max()) == (20, 39, 32, 47)  # the window of that cell
    assert not changed[30, 40]
    ring = changed[24:37, 34:47]
    assert 8 < ring.sum() < ring.size / 2


@pytest.mark.parametrize("classes", [[1], [0, 1]])
def test_a_sheet_has_a_row_for_each_class_and_a_key(classes: list[int]) -> None:
    image = draw_heatmap(found(), classes)
    one = draw_heatmap(found(), [1])
    assert image.width == one.width > 3 * 80
    assert (image.height > one.height + 60) == (len(classes) == 2)
    bottom = np.asarray(image)[-one.height // 6 :].astype(int)
    warmth = bottom[..., 0] - bottom[..., 2]
    assert warmth.max() > 150  # the colours of the key
