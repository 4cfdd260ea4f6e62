from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io import mask_values as values
from fullconv.data.io.mask_values import (
    are_colors,
    bands,
    make_class_lookup,
    pack,
    pack_color,
    unpack_color,
    value_counts,
)

LABELS = Labels(("sky", "road", "car"), values={7: 255, 300: 2, (9, 9, 9): 1})
GRIDS = st.tuples(st.integers(1, 30), st.integers(1, 30))
RGB_GRIDS = st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))


@pytest.fixture(autouse=True)
def narrow_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small masks have several."""
    monkeypatch.setattr(values, "_BAND", 64)


def test_bands_cover_every_row_once() -> None:
    for shape in ((1, 1), (7, 300), (100, 3), (64, 64)):
        rows = np.zeros(shape[0], int)
        for band in bands(np.zeros(shape)):
            rows[band] += 1
        assert (rows == 1).all()


@given(
    arrays(np.uint8, GRIDS) | arrays(np.uint16, GRIDS) | arrays(np.int32, GRIDS),
)
def test_numbers_are_counted_as_numpy_counts_them(grid: np.ndarray) -> None:
    found, pixels = value_counts(grid)
    wanted, counts = np.unique(grid, return_counts=True)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(pixels, counts)


@pytest.mark.parametrize("many", [1 << 16, 10])
def test_colours_are_counted_as_numpy_counts_them(
    monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(values, "_MAX_VALUES", many)
    random = np.random.default_rng(0)
    for top in (2, 256):
        grid = random.integers(0, top, (40, 30, 3)).astype(np.uint8)
        found, pixels = value_counts(grid)
        wanted, counts = np.unique(grid.reshape(-1, 3), axis=0, return_counts=True)
        assert [unpack_color(int(v)) for v in found] == [tuple(row) for row in wanted.tolist()]
        np.testing.assert_array_equal(pixels, counts)


def test_numbers_that_are_no_ids_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_MAX_VALUES", 100)
    heights = np.arange(-500, 500, dtype=np.int32).reshape(20, 50)
    with pytest.raises(FullconvError, match=r"mask a\.tif has more than 100 different") as caught:
        value_counts(heights, "a.tif")
    assert "expected class ids" in caught.value.message
    assert caught.value.hint.startswith("save the class ids as 8-bit PNG")


@given(arrays(np.uint8, GRIDS) | arrays(np.uint16, GRIDS) | arrays(np.int32, GRIDS))
def test_the_class_of_every_number(grid: np.ndarray) -> None:
    wanted = [LABELS.class_of(int(v)) for v in grid.ravel()]
    found = make_class_lookup(grid, LABELS)(grid)
    assert found.ravel().tolist() == [-1 if k is None else k for k in wanted]


@given(arrays(np.uint8, RGB_GRIDS, elements=st.sampled_from([0, 9, 128])))
def test_the_class_of_every_colour(grid: np.ndarray) -> None:
    wanted = [LABELS.class_of((r, g, b)) for r, g, b in grid.reshape(-1, 3).tolist()]
    found = make_class_lookup(grid, LABELS)(grid)
    assert found.ravel().tolist() == [-1 if k is None else k for k in wanted]


def test_greys_of_a_colour_file_are_colours_where_the_table_names_them_all() -> None:
    greys = np.array([[9, 9]], np.uint8)
    assert make_class_lookup(greys, LABELS, gray_rgb=True)(greys).tolist() == [[1, 1]]
    assert make_class_lookup(greys, LABELS)(greys).tolist() == [[-1, -1]]
    assert are_colors([9], LABELS)
    assert not are_colors([9, 0], LABELS)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_colours_are_packed_and_unpacked(color: tuple[int, int, int]) -> None:
    assert unpack_color(pack_color(color)) == color
    assert pack(np.array([[color]], np.uint8)).tolist() == [[pack_color(color)]]
