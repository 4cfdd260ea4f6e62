from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trees import brush

from fullconv.data.annotations import labelstudio, shapes
from fullconv.data.annotations.rasterize import Ellipse, Part, Polygon, rotated_rectangle
from fullconv.data.annotations.shapes import (
    AnnotatedImage,
    Annotations,
    Shape,
    class_table,
    paint,
)
from fullconv.data.layouts import annotation_formats

SIZE = (20, 40)
STATED = {"original_width": 40, "original_height": 20}
MASK = np.zeros(SIZE, bool)
MASK[3:11, 5:33] = True
MASK[6, 7] = False


def region(kind: str, label: Any = "car", **value: Any) -> dict[str, Any]:
    labels = {} if label is None else {kind: [label] if isinstance(label, str) else label}
    place = {"id": "r", "type": kind, "to_name": "img", **STATED, "image_rotation": 0}
    return {**place, "value": {**value, **labels}}


def box(label: Any, x: float, y: float, width: float, height: float) -> Any:
    """Return a rectangle that is given in pixels."""
    place = {"x": x * 2.5, "y": y * 5, "width": width * 2.5, "height": height * 5, "rotation": 0}
    return region("rectanglelabels", label, **place)


def task(*results: Any, number: int = 1, image: Any = "a.png", **more: Any) -> dict[str, Any]:
    entry = {"id": 3, "result": list(results)}
    return {"id": number, "data": {"image": image}, "annotations": [entry], **more}


def read(folder: Path, *tasks: Any, name: str = "a.png") -> Annotations:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1]).save(folder / name)
    table = json.loads(json.dumps(list(tasks)))  # as a file holds it
    assert annotation_formats.tool_of(table) == "label-studio"
    return labelstudio.gather(folder, [(folder / "x.json", table)])


def ids(annotations: Annotations) -> np.ndarray:
    assert annotations.problems == []
    return paint(annotations.images[0], class_table(annotations.names))[0]


def png(mask: np.ndarray) -> str:
    """Return a black image that is transparent outside the mask."""
    file = io.BytesIO()
    channels = np.stack([*[np.zeros_like(mask)] * 3, mask], -1).astype(np.uint8) * 255
    Image.fromarray(channels).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    "entry",
    [
        region("brushlabels", format="rle", rle=brush(MASK)),
        region("bitmasklabels", imageDataURL=png(MASK)),
    ],
)
def test_masks(tmp_path: Path, entry: Any) -> None:
    np.testing.assert_array_equal(ids(read(tmp_path, task(entry))) == 1, MASK)


POINTS = np.array([(10.2, 7.5), (81.3, 22.1), (60.4, 93.3), (31.0, 55.5)])
PLACE = {"x": 45, "y": 40, "width": 30, "height": 25}


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        (region("polygonlabels", points=POINTS.tolist()), Polygon(POINTS * (0.4, 0.2))),
        (
            region("ellipselabels", x=50, y=40, radiusX=20, radiusY=15, rotation=70),
            Ellipse(20, 8, 8, 3, 70),
        ),
        *(
            (
                region("rectanglelabels", **PLACE, rotation=angle),
                rotated_rectangle(18, 8, 12, 5, angle),
            )
            for angle in (0, 90, 25, 330)
        ),
    ],
)
def test_coordinates_are_in_percent_of_width_and_height(
    tmp_path: Path, entry: Any, part: Part
) -> None:
    image = AnnotatedImage(Path(), "", "", None, "", SIZE, (Shape("car", (part,)),))
    expected, _ = paint(image, class_table(["car"]))
    assert expected.any()
    np.testing.assert_array_equal(ids(read(tmp_path, task(entry))), expected)


def test_an_image_is_opened_once_for_all_regions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, image_size = [], shapes.image_size
    monkeypatch.setattr(shapes, "image_size", lambda path: opened.append(path) or image_size(path))
    boxes = [box("car", x, 2, 3, 4) for x in range(20)]
    assert len(read(tmp_path, task(*boxes)).images[0].shapes) == 20
    assert len(opened) == 1


def test_later_regions_are_on_top_and_classes_are_sorted_by_name(tmp_path: Path) -> None:
    annotations = read(tmp_path, task(box("road", 0, 0, 40, 20), box("car", 0, 0, 2, 1)))
    assert annotations.names == ["car", "road"]
    assert ids(annotations)[0, :4].tolist() == [1, 1, 2, 2]
    ignored = read(tmp_path, task(box("road", 0, 0, 40, 20), box("void", 0, 0, 2, 1)))
    assert ids(ignored)[0, :4].tolist() == [255, 255, 1, 1]


def test_labels_that_are_separate_from_tools(tmp_path: Path) -> None:
    """<Rectangle> beside <Labels>: each region is there twice, or contains its labels."""
    place = {"x": 0, "y": 0, "width": 50, "height": 100}
    bare, labeled = region("rectangle", None, **place), region("labels", "car", **place)
    inside = region("rectangle", None, **place, labels=["car"])
    for results in ((bare, labeled), (labeled, bare), (inside,)):
        annotations = read(tmp_path, task(*results))
        assert ids(annotations).sum() == 20 * 20
        assert not annotations.left_out
    alone = read(tmp_path, task({**bare, "id": "other"}, box("car", 0, 0, 1, 1)))
    assert alone.left_out == {"regions without a label": 1}


def test_entries_without_an_area_are_counted(tmp_path: Path) -> None:
    results = (
        region("keypointlabels", x=1, y=1, width=1),
        region("choices", None, choices=["day"]),
        {"type": "relation", "from_id": "a", "to_id": "b"},
        region("polygonlabels", points=[[1, 1], [2, 2]]),
    )
    empty = {"id": 2, "data": {"image": "b.png"}}
    predicted = {**empty, "annotations": [], "predictions": [{"result": []}]}
    annotations = read(tmp_path, task(*results), predicted, empty)
    assert annotations.images[0].shapes == ()
    assert annotations.left_out == {
        "results of the type keypointlabels, which have no area": 1,
        "results of the type choices, which have no area": 1,
        "results of the type relation, which have no area": 1,
        "polygons with fewer than three points": 1,
        "tasks without an annotation": 2,
    }


def test_one_of_several_annotations_is_used(tmp_path: Path) -> None:
    def entry(number: Any, label: str, **more: Any) -> Any:
        return {"id": number, "result": [box(label, 0, 0, 40, 20)], **more}

    canceled = entry(2, "canceled", was_cancelled=True)
    several = [canceled, entry(9, "nine"), entry(5, "five"), entry("x", "text")]
    annotations = read(tmp_path, {**task(), "annotations": several})
    assert annotations.names == ["five"]
    assert "1 task has several annotations" in annotations.notes[-1]
    several.append(entry(7, "truth", ground_truth=True))
    assert read(tmp_path, {**task(), "annotations": several}).names == ["truth"]
    annotations = read(tmp_path, {**task(), "annotations": [canceled]}, task(number=2))
    assert annotations.left_out == {"tasks without an annotation": 1}
    assert len(annotations.notes) == 1
    assert ids(annotations).sum() == 0  # an annotation without a region: all background


BOX = box("car", 0, 0, 4, 5)
MIN = {"tag": [{**BOX["value"], **STATED}], "image": "a.png", "annotator": 1, "id": 1}


@pytest.mark.parametrize(
    "entry",
    [
        task(BOX),
        {"id": 1, "data": {"image": "a.png"}, "completions": [{"id": 1, "result": [BOX]}]},
        {"id": 7, "result": [BOX], "task": {"id": 1, "data": {"image": "a.png"}}},
        {**MIN, "annotation_id": 7},
    ],
    ids=["task", "older export", "annotation with its task", "JSON-MIN"],
)
def test_every_form_of_the_export(tmp_path: Path, entry: Any) -> None:
    assert ids(read(tmp_path, entry)).sum() == 20
    assert annotation_formats.tool_of(entry) == "label-studio"  # a file for each task
    assert ids(labelstudio.gather(tmp_path, [(tmp_path / "1.json", entry)])).sum() == 20


def test_json_min_has_an_object_per_annotation(tmp_path: Path) -> None:
    empty = {**MIN, "annotation_id": 9, "tag": []}
    assert ids(read(tmp_path, empty, {**MIN, "annotation_id": 7})).sum() == 20
    other = {**MIN, "id": 2, "annotation_id": 8, "image": "b.png"}
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "b.png")
    assert [len(image.shapes) for image in read(tmp_path, other, empty).images] == [1, 0]


@pytest.mark.parametrize(
    "name",
    [
        "/data/upload/1/0a1b2c3d-my%20photo.png",
        "/data/local-files/?d=drive/my%20photo.png",
        "https://example.com/x/my%20photo.png?key=1&b=2",
        "s3://bucket/deep/my photo.png",
        "C:\\photos\\my photo.png",
        "my photo.png",
        "/absolute/but/elsewhere/my photo.png",
    ],
)
def test_images_are_found_by_their_name(tmp_path: Path, name: str) -> None:
    (image,) = read(tmp_path, task(image=name), name="val/my photo.png").images
    assert image.image == (tmp_path / "val/my photo.png").resolve()
    assert (image.name, image.split) == ("val/my photo", "val")


def test_names_are_also_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("50%25 off.png", "a#1.png", "0a1b2c3d-kept.png"):
        assert len(read(tmp_path / "x", task(image=name), name=name).images) == 1, name
    other = {**task(), "data": {"photo": "a.png", "text": "one", "n": 3}}
    assert len(read(tmp_path, other).images) == 1


CAR = box("car", 0, 0, 1, 1)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (task(image="gone.png"), "the image is missing"),
        ({**task(), "data": {}}, "0 of the keys in its data name an image (it has none); expected"),
        (
            {**task(), "data": {"l": "a.png", "r": "b.png"}},
            "2 of the keys in its data name an image (l, r)",
        ),
        (task(region("brushlabels", rle=[1, 2])), "region 1 (brushlabels): brush strokes of"),
        (task(region("brushlabels", rle="x")), "not a list of numbers"),
        (task(region("bitmasklabels", imageDataURL="x")), "cannot be read"),
        (task(region("bitmasklabels", imageDataURL=png(MASK[1:]))), "a bitmask of 40 x 19 pixels"),
        (task(region("polygonlabels", points=[[1, 2], [3]])), "not a list of [x, y] in percent"),
        (task(region("rectanglelabels", x=1, y=2, width=3)), "height None, rotation 0; expected"),
        (task(region("rectanglelabels", x=1, y=2, width=-3, height=1)), "width -3"),
        (task(region("ellipselabels", x=1, y=2, radiusX=3)), "radiusY None"),
        (task(box(["car", "bus"], 0, 0, 1, 1)), "2 labels: car, bus; expected one"),
        (task(box([None], 0, 0, 1, 1)), "the label None is not a name"),
        (task({**CAR, "original_width": 41}), "says 41 x 20 pixels, but"),
        (task({**CAR, "image_rotation": 90}), "was rotated by 90 degrees"),
        (task(CAR, {**CAR, "to_name": "b"}), "several images"),
        (task({**CAR, "item_index": 1}), "regions on several images"),
        (task({**CAR, "value": 3}), "its value is '3'; expected an object"),
        (task("x"), "result 1 is 'x'"),
        ({**task(), "annotations": [{"result": None}]}, "its result is 'None'; expected a list"),
    ],
)
def test_tasks_that_are_refused(tmp_path: Path, entry: Any, message: str) -> None:
    (error,) = read(tmp_path, entry).problems
    assert error.message.startswith(f"{tmp_path / 'x.json'}, task 1: ")
    assert message in error.message
    assert error.hint


def test_two_tasks_of_one_image(tmp_path: Path) -> None:
    """Two uploads had the same name, and only one of them was copied back."""
    names = ("/data/upload/0a1b2c3d-a.png", "/data/upload/ffffffff-a.png")
    annotations = read(tmp_path, *(task(image=names[k], number=k + 1) for k in range(2)))
    assert len(annotations.images) == 1
    assert "task 2: its image" in annotations.problems[0].message
    assert "is also the image of" in annotations.problems[0].message
