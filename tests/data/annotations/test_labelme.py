"""labelme files: every kind of shape, images inside and beside them, and what is refused."""

from __future__ import annotations

import base64
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.annotations import labelme
from fullconv.data.annotations.shapes import AnnotatedImage, class_table, paint

SIZE = (20, 30)


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(label: Any, kind: Any, points: Any, **more: Any) -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": points, **more}


def read(folder: Path, *shapes: Any, left_out: Any = None, **more: Any) -> AnnotatedImage:
    Image.new("RGB", SIZE[::-1]).save(folder / "a b.png")
    table = {"shapes": list(shapes), "imagePath": "a b.png", "imageHeight": 20, "imageWidth": 30}
    counts: Counter[str] = Counter() if left_out is None else left_out
    return labelme.read_file(folder / "a b.json", {**table, **more}, folder, counts)


def refused(folder: Path, *shapes: Any, **more: Any) -> str:
    with pytest.raises(FullconvError) as caught:
        read(folder, *shapes, **more)
    assert str(folder / "a b.json") in caught.value.message
    return str(caught.value)


def test_every_kind_of_shape_with_an_area(tmp_path: Path) -> None:
    small = np.zeros((3, 4), np.uint8)
    small[1, 2] = 1
    rows, columns = np.indices(SIZE)
    wanted = {
        "polygon": (shape("x", "polygon", [[2, 3], [8, 3], [8, 9], [2, 9]]), None),
        "no type": ({"label": "x", "points": [[2, 3], [8, 3], [8, 9], [2, 9]]}, None),
        "rectangle": (shape("x", "rectangle", [[8, 9], [2, 3]]), None),
        "corners": (shape("x", "rectangle", [[2, 3], [8, 3], [8, 9], [2, 9]]), None),
        "circle": (
            shape("x", "circle", [[10, 10], [13, 14]]),
            np.hypot(rows + 0.5 - 10, columns + 0.5 - 10) <= 5,
        ),
        "mask": (
            shape("x", "mask", [[5, 6], [8, 8]], mask=encoded(Image.fromarray(small * 255))),
            (rows == 7) & (columns == 7),
        ),
        "1-bit": (
            shape("x", "mask", [[5, 6], [8, 8]], mask=encoded(Image.fromarray(small > 0))),
            (rows == 7) & (columns == 7),
        ),
    }
    square = (rows >= 3) & (rows < 9) & (columns >= 2) & (columns < 8)
    for kind, (drawn, expected) in wanted.items():
        ids, _ = paint(read(tmp_path, drawn), class_table(["x"]))
        np.testing.assert_array_equal(ids == 1, square if expected is None else expected, kind)


def test_points_and_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    left_out: Counter[str] = Counter()
    found = read(
        tmp_path,
        shape("x", "point", [[1, 1]]),
        shape("x", "line", [[1, 1], [5, 5]]),
        shape("x", "linestrip", [[1, 1], [5, 5], [9, 1]]),
        shape("x", "polygon", [[1, 1], [5, 5]]),
        left_out=left_out,
    )
    assert found.shapes == ()
    assert left_out == {
        "points or lines, which have no area": 3,
        "polygons with fewer than three points": 1,
    }


def test_the_name_the_split_and_the_image(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.name, found.split, found.suffix, found.size) == ("a b", "", ".png", SIZE)
    assert found.image == tmp_path / "a b.png"
    (tmp_path / "Valid").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "Valid/a.png")
    path, table = tmp_path / "Valid/x.y.json", {"shapes": [], "imagePath": "C:\\photos\\a.png"}
    found = labelme.read_file(path, table, tmp_path, Counter())
    assert (found.name, found.split, found.size) == ("Valid/x.y", "val", (2, 3))


def test_the_image_inside_the_file_counts_first(tmp_path: Path) -> None:
    table = {"imageData": encoded(Image.new("RGB", (30, 20), (1, 2, 3)))}
    found = read(tmp_path, **table, imagePath="gone.jpg")
    assert (found.image, found.suffix) == (None, ".png")
    image = Image.open(io.BytesIO(labelme.image_bytes(table)))
    assert image.getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (
            shape("x", "cuboid", [[1, 1], [2, 2]]),
            "unknown shape_type 'cuboid'; expected one of polygon",
        ),
        (shape("x", ["polygon"], [[1, 1], [2, 2]]), "unknown shape_type"),
        (shape("x", "polygon", None), "not a list of [x, y]"),
        (shape("x", "polygon", [[1, None], [2, 2], [3, 4]]), "not a list of [x, y]"),
        (shape("x", "circle", [[1, 1]]), "a circle with 1 point; expected two"),
        (shape("x", "mask", [[1, 1], [3, 3]]), "its mask is not an image as base64"),
        (shape("x", "mask", [[1, 1], [3, 3]], mask="AAAA"), "cannot be read"),
        (shape(None, "polygon", [[1, 1], [2, 2], [3, 4]]), "the label None is not a name"),
        ("x", "shape 1 is 'x'"),
    ],
)
def test_shapes_that_are_refused(tmp_path: Path, drawn: Any, said: str) -> None:
    assert said in refused(tmp_path, drawn)


def test_images_that_are_refused(tmp_path: Path) -> None:
    missing = refused(tmp_path, imagePath="gone.jpg")
    assert "the image is missing; its imagePath is 'gone.jpg'" in missing
    assert "try: cp /path/to/gone.jpg" in missing
    assert "neither imageData nor imagePath" in refused(tmp_path, imagePath=None)
    assert "says 31 x 20 pixels" in refused(tmp_path, imageWidth=31)
    assert "imageData is not an image" in refused(tmp_path, imageData="A")
    assert "cannot be read" in refused(tmp_path, imageData="AAAA")
    (tmp_path / "b.png").write_bytes(b"no image")
    assert "cannot be read" in refused(tmp_path, imagePath="b.png")


def test_the_class_list(tmp_path: Path) -> None:
    assert labelme.read_class_list([tmp_path]) is None
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\npotted plant\n\ntv/monitor\n")
    names, path = labelme.read_class_list([tmp_path / "none", tmp_path]) or ([], None)
    assert path == tmp_path / "labels.txt"
    assert class_table(names).names == ("background", "potted plant", "tv/monitor")
