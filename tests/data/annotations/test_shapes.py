"""Shapes: names of labels, what lies over what, stamps at the border, and looking at images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.annotations.rasterize import rectangle
from fullconv.data.annotations.shapes import (
    AnnotatedImage,
    Shape,
    Stamp,
    check_image,
    class_name,
    class_table,
    numbered,
    paint,
)


def of(*shapes: Shape, size: tuple[int, int] = (4, 6)) -> AnnotatedImage:
    return AnnotatedImage(Path("a.json"), "a", "", None, ".jpg", size, shapes)


def test_later_shapes_lie_over_earlier_ones() -> None:
    labels = class_table(["road", "car"])
    road, car = Shape("road", (rectangle(0, 0, 4, 4),)), Shape("car", (rectangle(2, 0, 6, 2),))
    ids, lost = paint(of(road, car), labels)
    assert (ids.dtype, lost) == (np.uint8, 0)
    assert ids.tolist() == [[1, 1, 2, 2, 2, 2]] * 2 + [[1, 1, 1, 1, 0, 0]] * 2
    assert paint(of(car, road), labels)[0][0].tolist() == [1, 1, 1, 1, 2, 2]


def test_what_is_ignored_is_painted_in_its_turn() -> None:
    labels = class_table(["road"])
    void, road = Shape("ignore", (rectangle(0, 0, 6, 4),)), Shape("road", (rectangle(0, 0, 1, 1),))
    assert paint(of(void, road), labels)[0][0].tolist() == [1, *[255] * 5]


def test_all_parts_count_and_shapes_without_a_pixel_are_counted() -> None:
    two = Shape("road", (rectangle(0, 0, 1, 1), rectangle(5, 3, 6, 4)))
    ids, lost = paint(
        of(two, Shape("road", (rectangle(1.1, 1.1, 1.4, 1.4),))), class_table(["road"])
    )
    assert (int(ids.sum()), lost) == (2, 1)
    assert two.area == 2


@pytest.mark.parametrize("place", [(1, 1), (-1, -2), (5, 3), (9, 9), (-9, 0)])
def test_a_stamp_is_cut_at_the_border(place: tuple[int, int]) -> None:
    x, y = place
    stamp = Stamp(x, y, np.array([[1, 0, 1], [1, 1, 1]], bool))
    large = np.zeros((40, 40), bool)
    large[20 + y : 22 + y, 20 + x : 23 + x] = stamp.mask
    ids, _ = paint(of(Shape("road", (stamp,))), class_table(["road"]))
    np.testing.assert_array_equal(ids == 1, large[20:24, 20:26])
    assert stamp.area == 5


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("potted plant", "potted plant"),
        ("tv/monitor", "tv/monitor"),
        (" road ", "road"),
        (7, "7"),
        ("_background_", "background"),
        ("Background", "background"),
        ("__ignore__", "ignore"),
        ("ignore", "ignore"),
        ("void", "ignore"),
    ],
)
def test_what_labels_stand_for(label: Any, name: str) -> None:
    assert class_name(label) == name


@pytest.mark.parametrize("label", [None, "", "  ", 1.5, ["road"], "a\nb", "\ud800"])
def test_what_is_no_label(label: Any) -> None:
    with pytest.raises(FullconvError, match="is not a name"):
        class_name(label)


def test_the_table_begins_with_background_and_has_each_name_once() -> None:
    assert class_table(["b", "background", "a", "ignore", "b"]).names == ("background", "b", "a")
    assert class_table([str(i) for i in range(300)]).ignore_index == 65535


def test_a_image_must_have_the_size_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (6, 4)).save(path)
    assert check_image(path, 4, 6) == check_image(path) == ((4, 6), ".png")
    with pytest.raises(FullconvError, match=r"says 5 x 4 pixels, but .*a.png has 6 x 4"):
        check_image(path, 4, 5)
    with pytest.raises(FullconvError, match="before the EXIF rotation"):
        check_image(path, 6, 4)


def test_the_suffix_is_that_of_the_format_where_the_name_has_none(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jfif")
    assert check_image(tmp_path / "a.jfif")[1] == ".png"
    Image.new("RGB", (6, 4)).save(tmp_path / "b.ico")
    with pytest.raises(FullconvError, match="not in an image format"):
        check_image(tmp_path / "b.ico")


def test_entries_that_are_no_objects_are_named() -> None:
    assert list(numbered([{}], "shape")) == [(1, {})]
    with pytest.raises(FullconvError, match="shape 2 is 'x'"):
        list(numbered([{}, "x"], "shape"))
