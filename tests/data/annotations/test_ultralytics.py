"""Ultralytics: outlines in text files, class names, splits, order, and what is refused."""

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
    """images/train/a.png and labels/train/a.txt, or train/images/a.png and train/labels/a.txt."""
    split, _, stem = name.rpartition("/")
    for kind, suffix in (("images", ".png"), ("labels", ".txt")):
        folder = root / (f"{split}/{kind}" if swapped else f"{kind}/{split}")
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "images":
            Image.new("RGB", SIZE[::-1]).save(folder / (stem + suffix))
        else:
            (folder / (stem + suffix)).write_text(text)
    (root / "data.yaml").write_text("names: [road, car]\n")
    return root


def read(root: Path, order: str = "auto") -> Annotations:
    return ultralytics.gather(root, annotation_formats.outline_files(root), order)


def ids(found: Annotations) -> np.ndarray:
    assert found.problems == []
    return paint(found.images[0], class_table(found.names))[0]


def test_outlines_are_shares_of_width_and_height(tmp_path: Path) -> None:
    points = np.array([(0.102, 0.075), (0.813, 0.221), (0.604, 0.933), (0.310, 0.555)])
    line = "1 " + " ".join(f"{x} {y}" for x, y in points)
    found = ids(read(draw(tmp_path, line + "\n\n")))
    rows, columns = np.indices(SIZE) + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)
    expected = Outline(points * (40, 20)).contains_points(centres).reshape(SIZE)
    np.testing.assert_array_equal(found, expected * 2)


def test_an_empty_file_is_all_background(tmp_path: Path) -> None:
    found = read(draw(tmp_path, ""))
    assert ids(found).sum() == 0
    assert found.names == ["road", "car"]


def test_the_smaller_lies_on_top_or_the_later(tmp_path: Path) -> None:
    draw(tmp_path, f"{LEFT}\n{ALL}\n")
    for order, left in (("auto", 1), ("area", 1), ("file", 2)):
        found = read(tmp_path, order)
        assert ids(found)[0, [0, -1]].tolist() == [left, 2], order
        assert ("smaller is on top" in found.notes[-1]) == (left == 1)


@pytest.mark.parametrize("swapped", [False, True])
def test_splits_are_folders_on_either_side(tmp_path: Path, swapped: bool) -> None:
    for name in ("train/a", "valid/b", "test/c"):
        draw(tmp_path, LEFT, name=name, swapped=swapped)
    found = read(tmp_path)
    assert found.reason == "3 text files in labels, next to images"
    splits = {image.name[-1]: image.split for image in found.images}
    assert splits == {"a": "train", "b": "val", "c": "test"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "names:\n  1: car\n  0: road\n"),
        ("coco8-seg.yml", "names: ['road', 'car']"),
        ("classes.txt", "road\ncar\n"),
    ],
)
def test_where_class_names_stand(tmp_path: Path, name: str, text: str) -> None:
    draw(tmp_path, LEFT)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(FullconvError, match=r"has no class names; expected a data\.yaml") as caught:
        read(tmp_path)
    assert caught.value.hint == f"names: [road, car]   # in {tmp_path / 'data.yaml'}"
    (tmp_path / name).write_text(text)
    found = read(tmp_path)
    assert found.names == ["road", "car"]
    assert found.notes[0] == f"class names from {name}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.2 0.1", "4 numbers after the class id are a box"),
        (
            "0 0.5 0.5 0.2 0.1 0.3",
            "5 numbers after the class id; expected x and y of at least 3 corners",
        ),
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
def test_lines_that_are_refused(tmp_path: Path, line: str, said: str) -> None:
    (error,) = read(draw(tmp_path, f"{LEFT}\n{line}\n")).problems
    assert error.message.startswith(f"{tmp_path / 'labels/train/a.txt'}, line 2: ")
    assert said in error.message
    assert error.hint


def test_what_lies_a_hair_outside_is_taken(tmp_path: Path) -> None:
    assert ids(read(draw(tmp_path, "0 -0.001 0 1.004 0 1.004 1 -0.001 1"))).all()


def test_images_and_files_that_are_refused(tmp_path: Path) -> None:
    for name in ("train/gone", "train/twice", "train/broken", "train/latin"):
        draw(tmp_path, LEFT, name=name)
    images = tmp_path / "images/train"
    (images / "gone.png").unlink()
    (images / "twice.jpg").touch()
    (images / "broken.png").write_bytes(b"x")
    (tmp_path / "labels/train/latin.txt").write_bytes(b"0 \xe9")
    found = {error.message: error.hint for error in read(tmp_path).problems}
    broken, gone, latin, twice = found
    assert f"image {images / 'broken.png'} cannot be read" in broken
    assert "gone.txt: the image is missing; expected " in gone
    assert found[gone] == f"ls {images}   # one image for gone"
    assert "latin.txt is not a text file" in latin
    assert "twice.txt: 2 images have its name" in twice


def test_what_are_its_files(tmp_path: Path) -> None:
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
