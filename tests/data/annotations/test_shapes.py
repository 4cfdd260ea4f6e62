from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.annotations.detect import read_annotations, read_json
from fullconv.data.annotations.image_finder import ImageFinder, split_from_folders
from fullconv.data.annotations.rasterize import Stamp, rectangle
from fullconv.data.annotations.shapes import (
    AnnotatedImage,
    Shape,
    check_image,
    class_name,
    class_table,
    numbered,
    paint,
)
from fullconv.data.layouts.annotation_formats import tool_of_file
from fullconv.data.layouts.dataset import load_dataset

COCO = {"images": [], "annotations": [], "categories": []}


def image_of(*shapes: Shape, size: tuple[int, int] = (4, 6)) -> AnnotatedImage:
    return AnnotatedImage(Path("a.json"), "a", "", None, ".jpg", size, shapes)


def test_later_shapes_are_painted_over_earlier_ones() -> None:
    labels = class_table(["road", "car"])
    road, car = Shape("road", (rectangle(0, 0, 4, 4),)), Shape("car", (rectangle(2, 0, 6, 2),))
    void = Shape("ignore", (rectangle(0, 0, 6, 4),))
    ids, empty = paint(image_of(road, car), labels)
    assert (ids.dtype, empty) == (np.uint8, 0)
    assert ids.tolist() == [[1, 1, 2, 2, 2, 2]] * 2 + [[1, 1, 1, 1, 0, 0]] * 2
    assert paint(image_of(car, road), labels)[0][0].tolist() == [1, 1, 1, 1, 2, 2]
    assert paint(image_of(void, car), labels)[0][0].tolist() == [255, 255, 2, 2, 2, 2]


def test_all_parts_count_and_shapes_without_a_pixel_are_counted() -> None:
    two = Shape("road", (rectangle(0, 0, 1, 1), rectangle(5, 3, 6, 4)))
    tiny = Shape("road", (rectangle(1.1, 1.1, 1.4, 1.4),))
    ids, empty = paint(image_of(two, tiny), class_table(["road"]))
    assert (int(ids.sum()), empty, two.area) == (2, 1, 2)


@pytest.mark.parametrize("place", [(1, 1), (-1, -2), (5, 3), (9, 9), (-9, 0)])
def test_a_stamp_is_cut_at_the_border(place: tuple[int, int]) -> None:
    x, y = place
    stamp = Stamp(x, y, np.array([[1, 0, 1], [1, 1, 1]], bool))
    large = np.zeros((40, 40), bool)
    large[20 + y : 22 + y, 20 + x : 23 + x] = stamp.mask
    ids, _ = paint(image_of(Shape("road", (stamp,))), class_table(["road"]))
    np.testing.assert_array_equal(ids == 1, large[20:24, 20:26])
    assert stamp.area == 5


def test_names_of_classes() -> None:
    names = {"potted plant": "potted plant", " road ": "road", 7: "7", "_background_": "background"}
    names |= {"Background": "background", "__ignore__": "ignore", "void": "ignore"}
    assert {label: class_name(label) for label in names} == names
    for label in (None, "", "  ", 1.5, ["road"], "a\nb", "\ud800"):
        with pytest.raises(FullconvError, match="is not a name"):
            class_name(label)
    assert class_table(["b", "background", "a", "ignore", "b"]).names == ("background", "b", "a")
    assert class_table([str(i) for i in range(300)]).ignore_index == 65535
    assert list(numbered([{}], "shape")) == [(1, {})]
    with pytest.raises(FullconvError, match="shape 2 is 'x'"):
        list(numbered([{}, "x"], "shape"))


def test_an_image_must_have_the_stated_size(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (6, 4)).save(path)
    assert check_image(path, 4, 6) == check_image(path) == ((4, 6), ".png")
    with pytest.raises(FullconvError, match=r"says 5 x 4 pixels, but .*a.png has 6 x 4"):
        check_image(path, 4, 5)
    with pytest.raises(FullconvError, match="before the EXIF rotation"):
        check_image(path, 6, 4)
    path.rename(tmp_path / "a.bin")  # the suffix is that of the format
    assert check_image(tmp_path / "a.bin")[1] == ".png"
    Image.new("RGB", (6, 4)).save(tmp_path / "b.ico")
    with pytest.raises(FullconvError, match="not in an image format"):
        check_image(tmp_path / "b.ico")


def test_images_are_found_by_their_names(tmp_path: Path) -> None:
    for name in ("val2017/a.jpg", "one/b.jpg", "two/b.jpg", "annotations/c.jpg", "x/photos/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    path = tmp_path / "annotations/instances_val2017.json"
    for root in (tmp_path, path.parent):
        find = ImageFinder(root, "file_name")
        assert find(path, "a.jpg") == tmp_path / "val2017/a.jpg"
        assert find(path, "two\\b.jpg") == tmp_path / "two/b.jpg"
        assert find(path, "c.jpg") == tmp_path / "annotations/c.jpg"
        assert find(path, "gone.jpg", "data/a.jpg") == tmp_path / "val2017/a.jpg"
        assert find(tmp_path / "x/json/1.json", "d.jpg") == tmp_path / "x/photos/d.jpg"
        with pytest.raises(FullconvError, match="2 images have its name") as caught:
            find(path, "b.jpg")
        assert caught.value.hint == '"file_name": "../one/b.jpg"'
        with pytest.raises(FullconvError, match=r"no file called c-e\.jpg, e\.jpg in") as caught:
            find(path, "upload/c-e.jpg", "e.jpg")
        assert caught.value.hint == f"cp /path/to/c-e.jpg {path.parent}"


def test_the_split_that_a_folder_names() -> None:
    splits = {"labels/train2017/a.txt": "train", "valid/images/train.jpg": "val"}
    splits |= {"testing/a.jpg": "test", "training_set/a.jpg": "train", "train/val/a.jpg": ""}
    splits |= {"restrain/a.jpg": "", "train.jpg": ""}
    assert {path: split_from_folders(Path(path)) for path in splits} == splits


def test_files_of_one_tool_are_read(tmp_path: Path) -> None:
    def read(source: Path, tool: str | None = None) -> Any:
        return read_annotations(tmp_path, source, tool=tool, order="auto")

    assert read(tmp_path).tool == ""
    (tmp_path / "a.json").write_text(json.dumps(COCO))
    (tmp_path / "b.json").write_text('[{"data": {}, "annotations": []}]')
    (tmp_path / "c.json").write_text('{"other": 1}')
    message = r"2 tools: coco \(.*a\.json\), label-studio \("
    with pytest.raises(FullconvError, match=message) as caught:
        read(tmp_path)
    assert caught.value.hint.endswith("OUT --layout coco   # or --layout label-studio")
    for tool in ("coco", "label-studio", "labelme", "ultralytics"):
        annotations = read(tmp_path, tool)
        assert (annotations.tool, annotations.images, annotations.problems) == (tool, [], [])
        assert len(annotations.others) == (tool != "ultralytics")
    single = read(tmp_path / "a.json")
    assert (single.tool, single.others) == ("coco", [])
    (tmp_path / "a.json").write_text('{\n"shapes": [')
    with pytest.raises(FullconvError, match=r"a\.json, line 2, column 12: .*truncated"):
        read_json(tmp_path / "a.json")
    assert len(read(tmp_path).problems) == 1


@pytest.mark.parametrize(
    ("table", "tool"),
    [
        ({"shapes": []}, "labelme"),
        (COCO, "coco"),
        ([{"data": {}, "annotations": []}], "label-studio"),
        ({"data": {}, "completions": []}, "label-studio"),
        *((other, None) for other in ({"other": 1}, [1, 2], [], {}, None, "x", {"images": []})),
        *((other, None) for other in ({"shapes": {}}, [{"data": {}}], [{"annotations": []}])),
        # Of long files only the beginning is read.
        ({**COCO, "info": "x" * (1 << 22)}, "coco"),
        ({"other": "x" * (1 << 22)}, None),
        ([{"annotations": [], "data": {"text": "x" * (1 << 22)}}], "label-studio"),
        (["x" * (1 << 22)], None),
    ],
)
def test_tools_are_recognized_by_keys(tmp_path: Path, table: Any, tool: str | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(table))
    assert tool_of_file(path) == tool
    path.write_text("{")
    assert tool_of_file(path) is None


@pytest.mark.parametrize("folder", ["", "train"])
def test_annotations_are_not_a_dataset(tmp_path: Path, folder: str) -> None:
    for root, name in ((tmp_path / "json", "a.json"), (tmp_path / "text", "labels/a.txt")):
        path = root / folder / name
        path.parent.mkdir(parents=True)
        path.write_text('{"shapes": []}' if name == "a.json" else "0 0 0 1 0 1 1")
        (root / folder / "images").mkdir()
        with pytest.raises(FullconvError, match="contains annotations, not masks") as caught:
            load_dataset(root)
        assert caught.value.hint == f"fullconv convert {root} {root}_masks"
