from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.data.annotations import coco
from fullconv.data.annotations.image_finder import split_from_name
from fullconv.data.annotations.shapes import Annotations, class_table, paint

BOX = [[0, 0, 4, 0, 4, 4, 0, 4]]
CATEGORIES = [{"id": 90, "name": "car"}, {"id": 3, "name": "road"}]
IMAGE = {"id": 1, "file_name": "a.png", "height": 6, "width": 10}


def note(category: Any, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": 1, "category_id": category, "segmentation": segmentation, **more}


SMALL, LARGE = note(90, BOX), note(3, [[0, 0, 10, 0, 10, 6, 0, 6]])


def read(folder: Path, *entries: Any, order: str = "auto", **more: Any) -> Annotations:
    Image.new("RGB", (10, 6)).save(folder / "a.png")
    table = {"images": [IMAGE], "annotations": list(entries), "categories": CATEGORIES, **more}
    return coco.gather(folder, folder, [(folder / "x.json", table)], order)


def ids(annotations: Annotations) -> np.ndarray:
    assert annotations.problems == []
    return paint(annotations.images[0], class_table(annotations.names))[0]


def problem(folder: Path, *entries: Any, **more: Any) -> str:
    (error,) = read(folder, *entries, **more).problems
    assert str(folder / "x.json") in error.message
    return str(error)


def test_categories_become_classes_in_the_order_of_their_ids(tmp_path: Path) -> None:
    annotations = read(tmp_path, SMALL, note(3, [[5, 0, 10, 0, 10, 6, 5, 6]]))
    assert annotations.names == ["road", "car"]
    assert np.unique(ids(annotations)).tolist() == [0, 1, 2]
    assert (ids(annotations)[0, 0], ids(annotations)[0, 9]) == (2, 1)
    same_name = read(tmp_path, categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}])
    assert same_name.names == ["a"]


@pytest.mark.parametrize("counts", [[2, 2, 56], "2" + "2" + chr(48 + 32 + 24) + "1"])
def test_outlines_of_several_parts_and_run_lengths(tmp_path: Path, counts: Any) -> None:
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [4, 0, 6, 0, 6, 2, 4, 2]]
    assert ids(read(tmp_path, note(3, parts)))[0].tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 0, 0]
    runs = ids(read(tmp_path, note(3, {"size": [6, 10], "counts": counts})))
    assert np.argwhere(runs == 1).tolist() == [[2, 0], [3, 0]]
    flat = ids(read(tmp_path, note(3, parts[0])))
    assert flat.sum() == 4


@pytest.mark.parametrize(("order", "top"), [("auto", 2), ("area", 2), ("file", 1)])
def test_the_smaller_shape_is_on_top(tmp_path: Path, order: str, top: int) -> None:
    annotations = read(tmp_path, SMALL, LARGE, order=order)
    assert ids(annotations)[0, 0] == top
    assert ("the smaller is on top" in annotations.notes[0]) == (order != "file")


def test_crowd_regions_are_below_all_others(tmp_path: Path) -> None:
    crowd = {**SMALL, "iscrowd": 1}
    annotations = read(tmp_path, crowd, LARGE)
    text = "1 crowd region is painted as its class"
    assert annotations.notes[1:] == [f"{text}, below all other shapes"]
    assert ids(annotations)[0, 0] == 1
    assert read(tmp_path, crowd, LARGE, order="file").notes[1:] == [text]


def test_a_file_made_from_labelme_keeps_its_order(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "_background_"}, *CATEGORIES]
    annotations = read(tmp_path, SMALL, LARGE, categories=categories)
    assert annotations.names == ["background", "road", "car"]
    assert ids(annotations)[0, 0] == 1
    assert "the later is on top" in annotations.notes[0]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (note(7, BOX), "annotation 5: category_id 7 is not in the table; expected one of 90 car,"),
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
def test_annotations_that_are_refused(tmp_path: Path, entry: Any, message: str) -> None:
    assert message in problem(tmp_path, entry)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"id": 1, "file_name": "gone.jpg"}, "image 'gone.jpg': the image is missing"),
        ({"id": 1, "file_name": "a.png", "width": 11}, "says 11 x 6 pixels"),
        ({"id": 1}, "no file_name"),
    ],
)
def test_images_that_are_refused(tmp_path: Path, image: Any, message: str) -> None:
    assert message in problem(tmp_path, images=[image])
    others = [{**IMAGE, "id": 2}, {**image, "id": 3}]
    annotations = read(tmp_path, images=[image, *others])
    assert (len(annotations.images), len(annotations.problems)) == (1, 2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"categories": [{"id": "1", "name": "a"}]}, "category 1 has the id '1'"),
        ({"categories": [{"id": 1, "name": "a"}] * 2}, "category 2 has the id 1"),
        ({"categories": [{"id": 1}]}, "the label None is not a name"),
        ({"images": [IMAGE, 3]}, "image 2 is '3'"),
        ({"annotations": [{"segments_info": []}]}, "is a panoptic file"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, more: Any, message: str) -> None:
    assert message in problem(tmp_path, **more)
    assert read(tmp_path, **more).images == []


def test_annotations_without_an_image_are_counted(tmp_path: Path) -> None:
    annotations = read(tmp_path, note(3, BOX, image_id=8), note(3, [[1, 2, 3, 4]]))
    assert annotations.left_out == {
        "annotations of images that x.json does not list": 1,
        "polygons with fewer than three points": 1,
    }


def test_two_images_with_one_id_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (10, 6)).save(tmp_path / "b.png")
    message = problem(tmp_path, SMALL, images=[IMAGE, {**IMAGE, "file_name": "b.png"}])
    assert "image 'b.png': its id 1 is also that of 'a.png'" in message


@pytest.mark.parametrize("key", ["1", 1.0, " 1 "])
def test_ids_and_sizes_may_be_text(tmp_path: Path, key: Any) -> None:
    image = {**IMAGE, "id": key, "width": "10", "height": 6.0}
    annotations = read(tmp_path, SMALL, LARGE, images=[image])
    assert ids(annotations)[0, 0] == 2
    assert read(tmp_path, note(3, BOX, image_id=key)).left_out == {}


def test_images_without_annotations_are_named_if_some_annotations_belong_to_none(
    tmp_path: Path,
) -> None:
    annotations = read(tmp_path, note(3, BOX, image_id=8))
    assert "1 image has no annotations, such as a.png" in annotations.notes[0]
    assert len(read(tmp_path).notes) == 1  # an image of background alone is usual


def test_the_split_in_a_name() -> None:
    splits = {"instances_train2017.json": "train", "annotations/val.json": "val"}
    splits |= {"valid/_annotations.coco.json": "val", "test/_annotations.coco.json": "test"}
    splits |= {"annotations.json": "", "train_val.json": ""}
    assert {name: split_from_name(Path(name)) for name in splits} == splits
