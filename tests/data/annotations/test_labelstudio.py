"""Label Studio: every kind of region, every form of the export, which annotation counts, finding
images, and what is refused."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image
from trees import brush

from fullconv.data.annotations import labelstudio, shapes
from fullconv.data.annotations.shapes import Annotations, class_table, paint
from fullconv.data.layouts import annotation_formats

SIZE = (20, 40)
MASK = np.zeros(SIZE, bool)
MASK[3:11, 5:33] = True
MASK[6, 7] = False


def region(kind: str, label: Any = "car", **value: Any) -> dict[str, Any]:
    labels = {} if label is None else {kind: [label] if isinstance(label, str) else label}
    size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    return {"id": "r", "type": kind, "to_name": "img", **size, "value": {**value, **labels}}


def box(label: Any, x: float, y: float, width: float, height: float, turn: float = 0) -> Any:
    """In pixels."""
    across, down = 100 / SIZE[1], 100 / SIZE[0]
    place = {"x": x * across, "y": y * down, "width": width * across, "height": height * down}
    return region("rectanglelabels", label, **place, rotation=turn)


def task(*results: Any, number: int = 1, image: Any = "a.png", **more: Any) -> dict[str, Any]:
    entry = {"id": 3, "result": list(results)}
    return {"id": number, "data": {"image": image}, "annotations": [entry], **more}


def read(folder: Path, *tasks: Any, name: str = "a.png") -> Annotations:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1]).save(folder / name)
    table = json.loads(json.dumps(list(tasks)))  # as a file holds it
    assert annotation_formats.is_label_studio(table)
    return labelstudio.gather(folder, [(folder / "x.json", table)])


def ids(found: Annotations) -> np.ndarray:
    assert found.problems == []
    return paint(found.images[0], class_table(found.names))[0]


def problem(folder: Path, *tasks: Any) -> str:
    (error,) = read(folder, *tasks).problems
    assert error.message.startswith(f"{folder / 'x.json'}, task 1: ")
    assert error.hint
    return error.message


def png(mask: np.ndarray) -> str:
    """Black where it is drawn, transparent elsewhere."""
    file = io.BytesIO()
    Image.fromarray(np.stack([*[np.zeros_like(mask)] * 3, mask], -1).astype(np.uint8) * 255).save(
        file, format="PNG"
    )
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    "drawn",
    [
        region("brushlabels", format="rle", rle=brush(MASK)),
        region("bitmasklabels", imageDataURL=png(MASK)),
    ],
)
def test_masks(tmp_path: Path, drawn: Any) -> None:
    np.testing.assert_array_equal(ids(read(tmp_path, task(drawn))) == 1, MASK)


def test_an_image_is_opened_once_for_all_regions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, image_size = [], shapes.image_size
    monkeypatch.setattr(shapes, "image_size", lambda path: opened.append(path) or image_size(path))
    boxes = [box("car", x, 2, 3, 4) for x in range(20)]
    assert len(read(tmp_path, task(*boxes)).images[0].shapes) == 20
    assert len(opened) == 1


def test_polygons_are_in_percent_of_width_and_height(tmp_path: Path) -> None:
    points = np.array([(10.2, 7.5), (81.3, 22.1), (60.4, 93.3), (31.0, 55.5)])
    found = ids(read(tmp_path, task(region("polygonlabels", points=points.tolist()))))
    rows, columns = np.indices(SIZE) + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)
    expected = Outline(points * (0.4, 0.2)).contains_points(centres).reshape(SIZE)
    np.testing.assert_array_equal(found == 1, expected)


@pytest.mark.parametrize("turn", [0, 90, 25, 330])
def test_rectangles_turn_about_their_upper_left_corner(tmp_path: Path, turn: float) -> None:
    """Turned in pixels, not in percent: the image is twice as wide as high."""
    found = ids(read(tmp_path, task(box("car", 18, 8, 12, 5, turn))))
    rows, columns = np.indices(SIZE) + 0.5
    place = ((columns - 18) + 1j * (rows - 8)) * np.exp(-1j * np.radians(turn))
    expected = (place.real >= 0) & (place.real < 12) & (place.imag >= 0) & (place.imag < 5)
    np.testing.assert_array_equal(found == 1, expected)


def test_ellipses_lie_around_their_centre(tmp_path: Path) -> None:
    drawn = region("ellipselabels", x=50, y=40, radiusX=20, radiusY=15, rotation=70)
    found = ids(read(tmp_path, task(drawn)))
    rows, columns = np.indices(SIZE) + 0.5
    place = ((columns - 20) + 1j * (rows - 8)) * np.exp(-1j * np.radians(70))
    np.testing.assert_array_equal(found == 1, (place.real / 8) ** 2 + (place.imag / 3) ** 2 <= 1)


def test_later_regions_lie_over_earlier_ones_and_classes_are_by_name(tmp_path: Path) -> None:
    found = read(tmp_path, task(box("road", 0, 0, 40, 20), box("car", 0, 0, 2, 1)))
    assert found.names == ["car", "road"]
    assert ids(found)[0, :4].tolist() == [1, 1, 2, 2]
    void = read(tmp_path, task(box("road", 0, 0, 40, 20), box("void", 0, 0, 2, 1)))
    assert ids(void)[0, :4].tolist() == [255, 255, 1, 1]


def test_labels_and_tools_apart(tmp_path: Path) -> None:
    """<Rectangle> beside <Labels>: each region stands there twice, or with its labels inside."""
    place = {"x": 0, "y": 0, "width": 50, "height": 100}
    bare, named = region("rectangle", None, **place), region("labels", "car", **place)
    inside = region("rectangle", None, **place, labels=["car"])
    for results in ((bare, named), (named, bare), (inside,)):
        found = read(tmp_path, task(*results))
        assert ids(found).sum() == 20 * 20
        assert not found.left_out
    alone = read(tmp_path, task({**bare, "id": "other"}, box("car", 0, 0, 1, 1)))
    assert alone.left_out == {"regions without a label": 1}


def test_what_has_no_area_is_counted(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        task(
            region("keypointlabels", x=1, y=1, width=1),
            region("choices", None, choices=["day"]),
            {"type": "relation", "from_id": "a", "to_id": "b"},
            region("polygonlabels", points=[[1, 1], [2, 2]]),
        ),
        {"id": 2, "data": {"image": "b.png"}, "annotations": [], "predictions": [{"result": []}]},
        {"id": 4, "data": {"image": "b.png"}},
    )
    assert found.images[0].shapes == ()
    assert found.left_out == {
        "results of the type keypointlabels, which have no area": 1,
        "results of the type choices, which have no area": 1,
        "results of the type relation, which have no area": 1,
        "polygons with fewer than three points": 1,
        "tasks without an annotation": 2,
    }


def test_the_annotation_that_counts(tmp_path: Path) -> None:
    def entry(number: Any, label: str, **more: Any) -> Any:
        return {"id": number, "result": [box(label, 0, 0, 40, 20)], **more}

    several = [
        entry(2, "cancelled", was_cancelled=True),
        entry(9, "nine"),
        entry(5, "five"),
        entry("x", "text"),
    ]
    found = read(tmp_path, {**task(), "annotations": several})
    assert found.names == ["five"]
    assert "1 task has several annotations" in found.notes[-1]
    several.append(entry(7, "truth", ground_truth=True))
    assert read(tmp_path, {**task(), "annotations": several}).names == ["truth"]
    cancelled = read(tmp_path, {**task(), "annotations": several[:1]}, task(number=2))
    assert cancelled.left_out == {"tasks without an annotation": 1}
    assert len(cancelled.notes) == 1
    assert ids(cancelled).sum() == 0  # an annotation without a region: all background


def test_every_form_of_the_export(tmp_path: Path) -> None:
    drawn = box("car", 0, 0, 4, 5)
    size = {"original_width": SIZE[1], "original_height": SIZE[0]}
    short = {"tag": [{**drawn["value"], **size}], "image": "a.png", "annotator": 1}
    older = {"id": 1, "data": {"image": "a.png"}, "completions": [{"id": 1, "result": [drawn]}]}
    forms = [
        task(drawn),
        older,
        {"id": 7, "result": [drawn], "task": {"id": 1, "data": {"image": "a.png"}}},
        {**short, "id": 1, "annotation_id": 7},
    ]
    for form in forms:
        found = read(tmp_path, form)
        assert ids(found).sum() == 20, form
        assert annotation_formats.is_label_studio(form)  # a file for each task
        alone = labelstudio.gather(tmp_path, [(tmp_path / "1.json", form)])
        assert ids(alone).sum() == 20
    twice = [
        {**short, "id": 1, "annotation_id": 9, "tag": []},
        {**short, "id": 1, "annotation_id": 7},
    ]
    assert ids(read(tmp_path, *twice)).sum() == 20
    beside = [{**short, "id": 2, "annotation_id": 8, "image": "b.png"}, twice[0]]
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "b.png")
    full, empty = read(tmp_path, *beside).images
    assert (len(full.shapes), len(empty.shapes)) == (1, 0)


@pytest.mark.parametrize(
    "image",
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
def test_images_are_found_by_their_name(tmp_path: Path, image: str) -> None:
    found = read(tmp_path, task(image=image), name="val/my photo.png")
    (image,) = found.images
    assert image.image == (tmp_path / "val/my photo.png").resolve()
    assert (image.name, image.split) == ("val/my photo", "val")


def test_names_are_taken_as_they_are_too(tmp_path: Path) -> None:
    for name in ("50%25 off.png", "a#1.png", "0a1b2c3d-kept.png"):
        assert len(read(tmp_path / "x", task(image=name), name=name).images) == 1, name
    other = {**task(), "data": {"photo": "a.png", "text": "one", "n": 3}}
    assert len(read(tmp_path, other).images) == 1


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (task(image="gone.png"), "the image is missing"),
        (
            {**task(), "data": {}},
            "0 of the keys in its data name an image (it has none); expected one",
        ),
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
        (task({**box("car", 0, 0, 1, 1), "original_width": 41}), "says 41 x 20 pixels, but"),
        (task({**box("car", 0, 0, 1, 1), "image_rotation": 90}), "was rotated by 90 degrees"),
        (
            task(box("car", 0, 0, 1, 1), {**box("car", 0, 0, 1, 1), "to_name": "b"}),
            "several images",
        ),
        (task({**box("car", 0, 0, 1, 1), "item_index": 1}), "regions on several images"),
        (task({**box("car", 0, 0, 1, 1), "value": 3}), "its value is '3'; expected an object"),
        (task("x"), "result 1 is 'x'"),
        ({**task(), "annotations": [{"result": None}]}, "its result is 'None'; expected a list"),
    ],
)
def test_tasks_that_are_refused(tmp_path: Path, entry: Any, said: str) -> None:
    assert said in problem(tmp_path, entry)


def test_two_tasks_of_one_image(tmp_path: Path) -> None:
    """As where two uploads had one name, and only one of them was copied back."""
    found = read(
        tmp_path,
        task(image="/data/upload/0a1b2c3d-a.png"),
        task(image="/data/upload/ffffffff-a.png", number=2),
    )
    assert len(found.images) == 1
    assert "task 2: its image" in found.problems[0].message
    assert "is also the image of" in found.problems[0].message
