"""File names and lists: which mask belongs to which image."""

from __future__ import annotations

from pathlib import Path

import pytest

from fullconv.data.layouts.file_names import Pair, pair_by_name
from fullconv.data.layouts.pairing import (
    IMAGE_FOLDERS,
    find_folder,
    folders_in,
    images_in,
    listed_pairs,
    listed_stems,
    resolve,
    split_lists,
)


@pytest.mark.parametrize(
    ("images", "masks", "image", "mask"),
    [
        ("a.jpg", "a.png", "a.jpg", "a.png"),
        ("a.jpg", "a_mask.png", "a.jpg", "a_mask.png"),
        ("a.jpg", "a_L.png", "a.jpg", "a_L.png"),
        ("a.jpg", "a_label.tif", "a.jpg", "a_label.tif"),
        ("a_sat.jpg", "a_mask.png", "a_sat.jpg", "a_mask.png"),
        ("a.jpg b.jpg", "b.png c.png ab_gt.png", "b.jpg", "b.png"),
        ("a.jpg a.png", "a.bmp a.png a_gt.png", "a.jpg", "a.bmp"),  # the first of several
    ],
)
def test_one_pair_by_name(images: str, masks: str, image: str, mask: str) -> None:
    files = [[Path(name) for name in names.split()] for names in (images, masks)]
    named = pair_by_name(*files)
    assert named.pairs == [Pair(Path(image).stem, Path(image), Path(mask))]
    files[0].remove(Path(image))
    files[1].remove(Path(mask))
    assert [named.images, named.masks] == files  # the others are alone


def test_hidden_files_and_other_files_are_skipped(tmp_path: Path) -> None:
    for name in (".DS_Store", "._a.png", "Thumbs.db", "b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    for name in ("x.png", ".git", "__MACOSX"):
        (tmp_path / name).mkdir()
    assert [path.name for path in images_in(tmp_path)] == ["a.png", "b.JPG"]
    assert [path.name for path in folders_in(tmp_path)] == ["x.png"]


@pytest.mark.parametrize("name", ["Images", "imgs", "pictures", "photos"])
def test_a_folder_is_found_in_any_case_if_it_has_images(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "Train").mkdir(parents=True)
    (tmp_path / name / "a.txt").touch()
    assert find_folder(tmp_path, IMAGE_FOLDERS) is None
    (tmp_path / name / "Train" / "a.png").touch()
    assert find_folder(tmp_path, IMAGE_FOLDERS) == tmp_path / name


def test_lists_have_the_names_of_splits(tmp_path: Path) -> None:
    for name in ("train.txt", "Validation.txt", "testing.TXT", "classes.txt", "trainval.txt"):
        (tmp_path / name).touch()
    names = {split: path.name for split, path in split_lists(tmp_path).items()}
    assert names == {"train": "train.txt", "val": "Validation.txt", "test": "testing.TXT"}
    assert "trainval" in split_lists(tmp_path, extra=("trainval",))
    assert split_lists(tmp_path / "none") == {}


def test_lists_of_names_and_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("# mine\na\nb.jpg\nx/c.PNG m/c.png\n\nmy photo 1\nd.v2\n")
    assert listed_stems(path) == {"a", "b", "c", "my photo 1", "d.v2"}
    assert listed_pairs(path) == []
    path.write_text("a.jpg a.png\nb.jpg\tb.png\nc.jpg, c.png\n")
    assert listed_pairs(path) == [("a.jpg", "a.png"), ("b.jpg", "b.png"), ("c.jpg", "c.png")]


def test_a_listed_file_is_found_by_the_end_of_its_path_and_with_another_suffix(
    tmp_path: Path,
) -> None:
    file = tmp_path / "train" / "a.jpg"
    file.parent.mkdir()
    file.touch()
    for text in ("train/a.jpg", "/SegNet/CamVid/train/a.jpg", "/x/train/a.png", "..\\train\\a.jpg"):
        assert resolve(tmp_path, text) == file, text
    assert resolve(tmp_path, str(file)) == file
    assert resolve(tmp_path, "train/b.jpg") is None
