"""COCO files: classes, outlines and run lengths, what lies over what, finding images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.annotations import coco
from fullconv.data.annotations.image_finder import ImageFinder
from fullconv.data.annotations.shapes import class_table, paint

BOX = [[0, 0, 4, 0, 4, 4, 0, 4]]
CATEGORIES = [{"id": 90, "name": "car"}, {"id": 3, "name": "road"}]


def note(category: Any, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": 1, "category_id": category, "segmentation": segmentation, **more}


def read(
    folder: Path, *entries: Any, order: str = "auto", left_out: Any = None, **more: Any
) -> coco.CocoFile:
    Image.new("RGB", (10, 6)).save(folder / "a.png")
    image = {"id": 1, "file_name": "a.png", "height": 6, "width": 10}
    table = {"images": [image], "annotations": list(entries), "categories": CATEGORIES, **more}
    return coco.read_file(
        folder / "x.json",
        table,
        split="",
        order=order,
        find=ImageFinder(folder, "file_name"),
        left_out=Counter() if left_out is None else left_out,
    )


def ids(contents: coco.CocoFile) -> np.ndarray:
    assert contents.problems == []
    return paint(contents.images[0], class_table(contents.names))[0]


def problem(folder: Path, *entries: Any, **more: Any) -> str:
    (found,) = read(folder, *entries, **more).problems
    assert str(folder / "x.json") in found.message
    return str(found)


def test_categories_become_classes_in_the_order_of_their_ids(tmp_path: Path) -> None:
    found = read(tmp_path, note(90, BOX), note(3, [[5, 0, 10, 0, 10, 6, 5, 6]]))
    assert found.names == ["road", "car"]
    assert np.unique(ids(found)).tolist() == [0, 1, 2]
    assert (ids(found)[0, 0], ids(found)[0, 9]) == (2, 1)


def test_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    found = read(tmp_path, categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}])
    assert found.names == ["a"]


@pytest.mark.parametrize("counts", [[2, 2, 56], "2" + "2" + chr(48 + 32 + 24) + "1"])
def test_outlines_of_several_parts_and_run_lengths(tmp_path: Path, counts: Any) -> None:
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [4, 0, 6, 0, 6, 2, 4, 2]]
    assert ids(read(tmp_path, note(3, parts)))[0].tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 0, 0]
    runs = ids(read(tmp_path, note(3, {"size": [6, 10], "counts": counts})))
    assert np.argwhere(runs == 1).tolist() == [[2, 0], [3, 0]]
    flat = ids(read(tmp_path, note(3, parts[0])))
    assert flat.sum() == 4


def test_the_smaller_lies_on_top_and_a_crowd_below(tmp_path: Path) -> None:
    small, large = note(90, BOX), note(3, [[0, 0, 10, 0, 10, 6, 0, 6]])
    for order, top in (("auto", 2), ("area", 2), ("file", 1)):
        found = read(tmp_path, small, large, order=order)
        assert ids(found)[0, 0] == top, order
        assert found.by_area == (order != "file")
    crowd = read(tmp_path, {**small, "iscrowd": 1}, large)
    assert crowd.crowds == 1
    assert ids(crowd)[0, 0] == 1


def test_what_labelme_made_keeps_its_order(tmp_path: Path) -> None:
    small, large = note(90, BOX), note(3, [[0, 0, 10, 0, 10, 6, 0, 6]])
    found = read(
        tmp_path, small, large, categories=[{"id": 0, "name": "_background_"}, *CATEGORIES]
    )
    assert found.names == ["background", "road", "car"]
    assert (found.by_area, int(ids(found)[0, 0])) == (False, 1)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            note(7, BOX),
            "annotation 5: category_id 7 is not in the table; expected one of 90 car, 3 road",
        ),
        (note(None, BOX), "category_id None is not in the table"),
        (note([1], BOX), "category_id None is not in the table"),
        (note(3, []), "no segmentation, perhaps only a box"),
        (note(3, None), "no segmentation, perhaps only a box"),
        (note(3, "x"), "neither outlines"),
        (note(3, [[1, 2, 3]]), "neither outlines"),
        (note(3, [[1, 2, 3, "4", 5, 6]]), "neither outlines"),
        (note(3, {"size": [6, 9], "counts": [54]}), "run lengths of the size (6, 9)"),
        (note(3, {"size": [6, 10], "counts": [54]}), "run lengths of 54 pixels; expected"),
    ],
)
def test_annotations_that_are_refused(tmp_path: Path, entry: Any, said: str) -> None:
    assert said in problem(tmp_path, entry)


def test_images_that_are_refused(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "a.png"}
    gone = problem(tmp_path, images=[{**image, "file_name": "gone.jpg"}])
    assert "image 'gone.jpg': the image is missing" in gone
    assert "says 11 x 6 pixels" in problem(tmp_path, images=[{**image, "width": 11}])
    assert "no file_name" in problem(tmp_path, images=[{"id": 1}])
    both = read(tmp_path, images=[image, {"id": 2, "file_name": "b"}, {"id": 3, "file_name": "c"}])
    assert (len(both.images), len(both.problems)) == (1, 2)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"categories": [{"id": "1", "name": "a"}]}, "category 1 has the id '1'"),
        ({"categories": [{"id": 1, "name": "a"}] * 2}, "category 2 has the id 1"),
        ({"categories": [{"id": 1}]}, "the label None is not a name"),
        ({"images": [3]}, "image 1 is '3'"),
        ({"annotations": [{"segments_info": []}]}, "is a panoptic file"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, more: Any, said: str) -> None:
    with pytest.raises(FullconvError, match=said):
        read(tmp_path, **more)


def test_annotations_without_a_image_are_counted(tmp_path: Path) -> None:
    left_out: Counter[str] = Counter()
    read(tmp_path, note(3, BOX, image_id=8), note(3, [[1, 2, 3, 4]]), left_out=left_out)
    assert left_out == {
        "annotations of images that x.json does not list": 1,
        "polygons with fewer than three points": 1,
    }


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_train2017.json", "train"),
        ("annotations/val.json", "val"),
        ("valid/_annotations.coco.json", "val"),
        ("test/_annotations.coco.json", "test"),
        ("annotations.json", ""),
        ("train_val.json", ""),
    ],
)
def test_the_split_in_a_name(name: str, split: str) -> None:
    assert coco.split_from_name(Path(name)) == split
