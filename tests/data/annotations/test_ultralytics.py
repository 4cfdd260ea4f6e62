from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.annotations import ultralytics
from fullconv.data.annotations.shapes import Annotations, class_table, paint
from fullconv.data.layouts import annotation_formats

SIZE = (20, 40)
LEFT, ALL = "0 0 0 0.5 0 0.5 1 0 1", "1 0 0 1 0 1 1 0 1"


def draw(root: Path, text: str, *, name: str = "train/a", swapped: bool = False) -> Path:
    """Write images/train/a.png and labels/train/a.txt, or train/images/a.png and so on."""
    split, _, stem = name.rpartition("/")
    images, labels = (
        root / (f"{split}/{folder}" if swapped else f"{folder}/{split}")
        for folder in ("images", "labels")
    )
    for folder in (images, labels):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1]).save(images / f"{stem}.png")
    (labels / f"{stem}.txt").write_text(text)
    (root / "data.yaml").write_text("names: [road, car]\n")
    return root


def read(root: Path, order: str = "auto") -> Annotations:
    return ultralytics.gather(root, annotation_formats.outline_files(root), order)


def ids(annotations: Annotations) -> np.ndarray:
    assert annotations.problems == []
    return paint(annotations.images[0], class_table(annotations.names))[0]


def test_outlines_are_fractions_of_width_and_height(tmp_path: Path) -> None:
    points = np.array([(0.102, 0.075), (0.813, 0.221), (0.604, 0.933), (0.310, 0.555)])
    line = "1 " + " ".join(f"{x} {y}" for x, y in points)
    rows, columns = np.indices(SIZE) + 0.5
    centers = np.stack([columns.ravel(), rows.ravel()], axis=1)
    expected = Outline(points * (40, 20)).contains_points(centers).reshape(SIZE)
    np.testing.assert_array_equal(ids(read(draw(tmp_path, line + "\n\n"))), expected * 2)


def test_an_empty_file_is_all_background(tmp_path: Path) -> None:
    annotations = read(draw(tmp_path, ""))
    assert ids(annotations).sum() == 0
    assert annotations.names == ["road", "car"]


@pytest.mark.parametrize(("order", "left"), [("auto", 1), ("area", 1), ("file", 2)])
def test_the_smaller_or_the_later_shape_is_on_top(tmp_path: Path, order: str, left: int) -> None:
    annotations = read(draw(tmp_path, f"{LEFT}\n{ALL}\n"), order)
    assert ids(annotations)[0, [0, -1]].tolist() == [left, 2]
    assert ("smaller is on top" in annotations.notes[-1]) == (left == 1)


@pytest.mark.parametrize("swapped", [False, True])
def test_splits_are_folders_on_either_side(tmp_path: Path, swapped: bool) -> None:
    for name in ("train/a", "valid/b", "test/c"):
        draw(tmp_path, LEFT, name=name, swapped=swapped)
    annotations = read(tmp_path)
    assert annotations.reason == "3 text files in labels, next to images"
    splits = {image.name[-1]: image.split for image in annotations.images}
    assert splits == {"a": "train", "b": "val", "c": "test"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "names:\n  1: car\n  0: road\n"),
        ("coco8-seg.yml", "names: ['road', 'car']"),
        ("classes.txt", "road\ncar\n"),
    ],
)
def test_class_names_are_read_from_a_file(tmp_path: Path, name: str, text: str) -> None:
    draw(tmp_path, LEFT)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(FullconvError, match=r"has no class names; expected a data\.yaml") as caught:
        read(tmp_path)
    assert caught.value.hint == f"names: [road, car]   # in {tmp_path / 'data.yaml'}"
    (tmp_path / name).write_text(text)
    annotations = read(tmp_path)
    assert annotations.names == ["road", "car"]
    assert annotations.notes[0] == f"class names from {name}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2 0.1", "4 numbers after the class id are a box"),
        ("0 0.5 0.5 0.2 0.1 0.3", "5 numbers after the class id; expected x and y of at least 3"),
        ("0 0 0 1 0 1 1 0", "7 numbers after the class id"),
        ("0", "0 numbers after the class id"),
        ("2 0 0 1 0 1 1", "no class 2; expected one of 0 road, 1 car"),
        ("0.5 0 0 1 0 1 1", "is not a class id and an outline"),
        ("road 0 0 1 0 1 1", "'road 0 0 1 0 1 1' is not a class id and an outline"),
        ("0 0 0 nan 0 1 1", "is not a class id and an outline"),
        ("0 0 0 40 0 40 20", "coordinates from 0 to 40; expected fractions"),
        ("0 -0.2 0 1 0 1 1", "coordinates from -0.2 to 1"),
    ],
)
def test_lines_that_are_refused(tmp_path: Path, line: str, message: str) -> None:
    (error,) = read(draw(tmp_path, f"{LEFT}\n{line}\n")).problems
    assert error.message.startswith(f"{tmp_path / 'labels/train/a.txt'}, line 2: ")
    assert message in error.message
    assert error.hint


def test_coordinates_slightly_outside_are_accepted(tmp_path: Path) -> None:
    assert ids(read(draw(tmp_path, "0 -0.001 0 1.004 0 1.004 1 -0.001 1"))).all()


def test_images_and_files_that_are_refused(tmp_path: Path) -> None:
    for name in ("train/gone", "train/twice", "train/broken", "train/latin"):
        draw(tmp_path, LEFT, name=name)
    images = tmp_path / "images/train"
    (images / "gone.png").unlink()
    (images / "twice.jpg").touch()
    (images / "broken.png").write_bytes(b"x")
    (tmp_path / "labels/train/latin.txt").write_bytes(b"0 \xe9")
    hints = {error.message: error.hint for error in read(tmp_path).problems}
    broken, gone, latin, twice = hints
    assert f"image {images / 'broken.png'} cannot be read" in broken
    assert "gone.txt: the image is missing; expected " in gone
    assert hints[gone] == f"ls {images}   # one image for gone"
    assert "latin.txt is not a text file" in latin
    assert "twice.txt: 2 images have its name" in twice


def test_other_text_files_are_not_read(tmp_path: Path) -> None:
    draw(tmp_path, LEFT)
    for other in ("labels/classes.txt", "labels/train/.hidden.txt", "notes.txt", "docs/x.txt"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).touch()
    (tmp_path / "alone/labels").mkdir(parents=True)
    (tmp_path / "alone/labels/a.txt").touch()
    assert annotation_formats.outline_files(tmp_path) == [tmp_path / "labels/train/a.txt"]


def test_damaged_files_never_become_a_traceback(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    draw(tmp_path, "")
    path, whole = tmp_path / "labels/train/a.txt", f"{LEFT}\n{ALL}\n".encode()
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(3):
            data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        with contextlib.suppress(FullconvError):
            read(tmp_path)
