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
from fullconv.data.annotations.shapes import AnnotatedImage, Annotations, class_table, paint

SIZE = (20, 30)


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(label: Any, kind: Any, points: Any, **more: Any) -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": points, **more}


def read(
    folder: Path, *shapes: Any, left_out: Counter[str] | None = None, **more: Any
) -> AnnotatedImage:
    Image.new("RGB", SIZE[::-1]).save(folder / "a b.png")
    table = {"shapes": list(shapes), "imagePath": "a b.png", "imageHeight": 20, "imageWidth": 30}
    counts = Counter() if left_out is None else left_out
    return labelme.read_file(folder / "a b.json", {**table, **more}, folder, counts)


def refused(folder: Path, *shapes: Any, **more: Any) -> str:
    with pytest.raises(FullconvError) as caught:
        read(folder, *shapes, **more)
    assert str(folder / "a b.json") in caught.value.message
    return str(caught.value)


ROWS, COLUMNS = np.indices(SIZE)
CORNERS = [[2, 3], [8, 3], [8, 9], [2, 9]]
SQUARE = (ROWS >= 3) & (ROWS < 9) & (COLUMNS >= 2) & (COLUMNS < 8)
CIRCLE = np.hypot(ROWS + 0.5 - 10, COLUMNS + 0.5 - 10) <= 5
DOT = np.zeros((3, 4), np.uint8)
DOT[1, 2] = 255
PIXEL = (ROWS == 7) & (COLUMNS == 7)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (shape("x", "polygon", CORNERS), SQUARE),
        ({"label": "x", "points": CORNERS}, SQUARE),
        (shape("x", "rectangle", [[8, 9], [2, 3]]), SQUARE),
        (shape("x", "rectangle", CORNERS), SQUARE),
        (shape("x", "circle", [[10, 10], [13, 14]]), CIRCLE),
        (shape("x", "mask", [[5, 6], [8, 8]], mask=encoded(Image.fromarray(DOT))), PIXEL),
        (shape("x", "mask", [[5, 6], [8, 8]], mask=encoded(Image.fromarray(DOT > 0))), PIXEL),
    ],
    ids=["polygon", "no type", "rectangle", "corners", "circle", "mask", "1-bit mask"],
)
def test_shapes_with_an_area(tmp_path: Path, entry: Any, expected: np.ndarray) -> None:
    ids, _ = paint(read(tmp_path, entry), class_table(["x"]))
    np.testing.assert_array_equal(ids == 1, expected)


def test_points_and_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    left_out: Counter[str] = Counter()
    annotated = read(
        tmp_path,
        shape("x", "point", [[1, 1]]),
        shape("x", "line", [[1, 1], [5, 5]]),
        shape("x", "linestrip", [[1, 1], [5, 5], [9, 1]]),
        shape("x", "polygon", [[1, 1], [5, 5]]),
        left_out=left_out,
    )
    assert annotated.shapes == ()
    assert left_out == {
        "points or lines, which have no area": 3,
        "polygons with fewer than three points": 1,
    }


def test_the_name_the_split_and_the_image(tmp_path: Path) -> None:
    image = read(tmp_path)
    assert (image.name, image.split, image.suffix, image.size) == ("a b", "", ".png", SIZE)
    assert image.image == tmp_path / "a b.png"
    (tmp_path / "Valid").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "Valid/a.png")
    path, table = tmp_path / "Valid/x.y.json", {"shapes": [], "imagePath": "C:\\photos\\a.png"}
    image = labelme.read_file(path, table, tmp_path, Counter())
    assert (image.name, image.split, image.size) == ("Valid/x.y", "val", (2, 3))


def test_the_image_inside_the_file_counts_first(tmp_path: Path) -> None:
    table = {"imageData": encoded(Image.new("RGB", (30, 20), (1, 2, 3)))}
    annotated = read(tmp_path, **table, imagePath="gone.jpg")
    assert (annotated.image, annotated.suffix) == (None, ".png")
    image = Image.open(io.BytesIO(labelme.image_bytes(table)))
    assert image.getpixel((0, 0)) == (1, 2, 3)


MASK = shape("x", "mask", [[1, 1], [3, 3]])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (shape("x", "cuboid", [[1, 1]]), "unknown shape_type 'cuboid'; expected one of polygon"),
        (shape("x", ["polygon"], [[1, 1], [2, 2]]), "unknown shape_type"),
        (shape("x", "polygon", None), "not a list of [x, y]"),
        (shape("x", "polygon", [[1, None], [2, 2], [3, 4]]), "not a list of [x, y]"),
        (shape("x", "circle", [[1, 1]]), "a circle with 1 point; expected two"),
        (MASK, "its mask is not an image as base64"),
        ({**MASK, "mask": "AAAA"}, "cannot be read"),
        (shape(None, "polygon", CORNERS), "the label None is not a name"),
        ("x", "shape 1 is 'x'"),
    ],
)
def test_shapes_that_are_refused(tmp_path: Path, entry: Any, message: str) -> None:
    assert message in refused(tmp_path, entry)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"imagePath": "gone.jpg"}, "the image is missing; its imagePath is 'gone.jpg'"),
        ({"imagePath": "gone.jpg"}, "try: cp /path/to/gone.jpg"),
        ({"imagePath": None}, "neither imageData nor imagePath"),
        ({"imageWidth": 31}, "says 31 x 20 pixels"),
        ({"imageData": "A"}, "imageData is not an image"),
        ({"imageData": "AAAA"}, "cannot be read"),
        ({"imagePath": "b.png"}, "cannot be read"),
    ],
)
def test_images_that_are_refused(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    (tmp_path / "b.png").write_bytes(b"no image")
    assert message in refused(tmp_path, **table)


@pytest.mark.parametrize("folder", [".", ".."])
def test_the_class_list(tmp_path: Path, folder: str) -> None:
    root = tmp_path / "images"
    root.mkdir()
    path = (root / folder / "labels.txt").resolve()
    path.write_text("__ignore__\n_background_\npotted plant\n\ntv/monitor\n")
    annotations = Annotations("labelme", "", images=[read(root)])
    labelme.gather(root, annotations)
    assert annotations.notes == [f"class names from {path}"]
    names = class_table(annotations.names).names
    assert names == ("background", "potted plant", "tv/monitor")
