"""Images that annotation files name, and the splits in paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from fullconv.core.errors import FullconvError
from fullconv.data.annotations.image_finder import ImageFinder, split_from_folders


def test_images_are_found_by_their_name(tmp_path: Path) -> None:
    """As COCO itself lies on disk: annotations/instances_val2017.json and val2017/."""
    for name in ("val2017/a.jpg", "one/b.jpg", "two/b.jpg", "annotations/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    path = tmp_path / "annotations/instances_val2017.json"
    for root in (tmp_path, path.parent):
        find = ImageFinder(root, "file_name")
        assert find(path, "a.jpg") == tmp_path / "val2017/a.jpg"
        assert find(path, "two\\b.jpg") == tmp_path / "two/b.jpg"
        assert find(path, "c.jpg") == tmp_path / "annotations/c.jpg"
        with pytest.raises(FullconvError, match="2 images have its name") as caught:
            find(path, "b.jpg")
        assert caught.value.hint == '"file_name": "../one/b.jpg"'


def test_each_file_finds_what_lies_beside_its_own_folder(tmp_path: Path) -> None:
    for part in ("one", "two"):
        (tmp_path / part / "json").mkdir(parents=True)
        (tmp_path / part / "photos").mkdir()
        (tmp_path / part / "photos" / f"{part}.jpg").touch()
    find = ImageFinder(tmp_path / "one" / "json", "image")
    for part in ("one", "two"):
        found = find(tmp_path / part / "json" / "a.json", f"{part}.jpg")
        assert found == tmp_path / part / "photos" / f"{part}.jpg"


def test_the_first_name_that_is_there_counts(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    find, path = ImageFinder(tmp_path, "image"), tmp_path / "x.json"
    assert find(path, "data/0a1b2c3d-a.jpg", "data/a.jpg") == tmp_path / "a.jpg"
    with pytest.raises(FullconvError, match=r"and no file called b\.jpg in or below") as caught:
        find(path, "upload/b.jpg")
    assert caught.value.hint == f"cp /path/to/b.jpg {tmp_path}"
    with pytest.raises(FullconvError, match=r"no file called c-b\.jpg, b\.jpg in or below"):
        find(path, "c-b.jpg", "b.jpg")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("labels/train2017/a.txt", "train"),
        ("valid/images/train.jpg", "val"),
        ("testing/a.jpg", "test"),
        ("train/val/a.jpg", ""),
        ("training_set/a.jpg", "train"),
        ("restrain/a.jpg", ""),
        ("train.jpg", ""),
    ],
)
def test_the_split_that_a_folder_names(path: str, split: str) -> None:
    assert split_from_folders(Path(path)) == split
