"""Contact sheets: what is on them, and at which size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.visualization.contact_sheet import contact_sheet, subsample

LABELS = Labels(("sky", "road", "person"), ((10, 20, 30), (200, 100, 50), (5, 250, 125)))
IDS = np.array([[0, 0, 1, 1], [0, 0, 1, 255], [1, 1, 1, 255]], dtype=np.uint8)
PURPLE = (90, 10, 200)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


SMALL = noise(3, 3)
UNEVEN = "row 0 has 1 images, but there are 2 titles: a, b"


def count(sheet: Any, color: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == color).all(axis=-1).sum())


def test_columns_titles_captions_and_the_legend(texts: list[str]) -> None:
    image = np.full((30, 40, 3), PURPLE, dtype=np.uint8)
    ids = np.zeros((30, 40), dtype=np.uint8)
    ids[:, 20:] = 1
    rows = [[image, ids], [image, ids]]
    sheet = contact_sheet(rows, ["image", "truth"], ["a", "b"], labels=LABELS, heading="street")
    assert sorted(texts) == sorted(["street", "image", "truth", "a", "b", *LABELS.names])
    assert count(sheet, PURPLE) == 2 * 240 * 180  # enlarged by a whole factor, 6
    assert count(sheet, LABELS.colors[1]) >= 2 * 120 * 180
    pixels = np.asarray(sheet)
    for edge in (pixels[:6], pixels[-6:], pixels[:, :6], pixels[:, -6:]):
        assert (edge == 255).all()


def test_the_legend_is_the_given_one_or_that_of_the_labels(texts: list[str]) -> None:
    contact_sheet([[IDS]], ["truth"], labels=LABELS)
    assert sorted(texts) == sorted(["truth", *LABELS.names, "ignore"])
    texts.clear()
    sheet = contact_sheet([[noise(9, 9)]], ["image"], legend={"(ignored)": None, "car": PURPLE})
    assert sorted(texts) == ["(ignored)", "car", "image"]
    assert count(sheet, PURPLE)


def test_maps_keep_their_colors_and_photos_are_smoothed() -> None:
    ids = np.random.default_rng(0).integers(0, 3, (700, 1000)).astype(np.uint8)
    sheet = np.asarray(contact_sheet([[ids]], ["ids"], labels=LABELS))
    middle = np.unique(sheet[120:300, 60:400].reshape(-1, 3), axis=0)
    assert set(map(tuple, middle.tolist())) <= {*LABELS.colors, (255, 255, 255)}
    image = noise(700, 1000)
    sheet = np.asarray(contact_sheet([[image]], ["image"]))
    assert sheet[120:300, 60:400].std() < 0.8 * image.std()  # averaged, not picked


def test_images_of_several_shapes_have_one_width_and_bounded_height() -> None:
    tall = np.full((300, 100, 3), (1, 2, 3), dtype=np.uint8)
    wide = np.full((20, 60, 3), (200, 2, 3), dtype=np.uint8)
    sheet = contact_sheet([[tall, wide]], ["a very long title of a column", "b"])
    assert count(sheet, (1, 2, 3)) == 160 * 480
    assert count(sheet, (200, 2, 3)) == 160 * 53


@pytest.mark.parametrize(("rows", "images", "blocks"), [(3, 3, 1), (5, 3, 2), (5, 5, 1)])
def test_many_rows_are_drawn_in_two_blocks(
    rows: int, images: int, blocks: int, texts: list[str]
) -> None:
    cells = [[np.full((240, 320, 3), PURPLE, np.uint8)] * images] * rows
    names = [f"row {k}" for k in range(rows)]
    titles = list("abcde"[:images])
    sheet = contact_sheet(cells, titles, names, two_blocks=True)
    assert texts.count("a") == blocks
    assert set(names) <= set(texts)
    assert count(sheet, PURPLE) == rows * images * 240 * 320
    assert (sheet.width > 2 * images * 320) == (blocks == 2)


def test_subsampling_mixes_no_values() -> None:
    ids = np.arange(1400)[None].repeat(20, 0)
    assert subsample(ids).tolist() == ids[::3, ::3].tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contact_sheet([], ["a"]), "0 rows and 1 titles has nothing to draw"),
        (lambda: contact_sheet([[SMALL]], ["a", "b"]), UNEVEN),
        (lambda: contact_sheet([[SMALL]], ["a"], ["x", "y"]), "2 captions for 1 rows"),
        (lambda: contact_sheet([[IDS]], ["a"]), "a sheet with ids needs the class table"),
        (lambda: contact_sheet([[SMALL]], ["a"], longest_side=0), "0 pixels wide"),
        (lambda: contact_sheet([[SMALL / 2]], ["a"]), "type float64; expected"),
    ],
)
def test_mistakes_are_explained(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(FullconvError, match=message) as caught:
        call()
    assert caught.value.hint
