from __future__ import annotations

from pathlib import Path

import pytest

from fullconv.data.layouts.pairing import (
    find_folder,
    folders_in,
    images_in,
    listed_pairs,
    listed_stems,
    pair_by_name,
    resolve,
    split_lists,
)


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


@pytest.mark.parametrize("mask", ["a.png", "a_mask.png", "a_label.tif", "a_gt.PNG", "a_L.png"])
def test_a_mask_has_the_stem_of_its_image_or_that_and_an_ending(mask: str) -> None:
    pairs, alone, masks = pair_by_name(paths("p/a.jpg"), paths(f"m/{mask}"))
    found = [(pair.name, pair.image, pair.mask) for pair in pairs]
    assert found == [("a", Path("p/a.jpg"), Path("m") / mask)]
    assert alone == masks == []


def test_what_has_no_partner_is_left() -> None:
    pairs, alone, masks = pair_by_name(
        paths("a.jpg", "b.jpg"), paths("b.png", "c.png", "ab_mask.png")
    )
    assert [pair.name for pair in pairs] == ["b"]
    assert alone == paths("a.jpg")
    assert masks == paths("c.png", "ab_mask.png")


def test_of_doubled_stems_the_first_one_counts_and_the_others_are_left() -> None:
    pairs, alone, masks = pair_by_name(
        paths("a.jpg", "a.png"), paths("a.bmp", "a.png", "a_mask.png")
    )
    assert [(pair.image, pair.mask) for pair in pairs] == [(Path("a.jpg"), Path("a.bmp"))]
    assert alone == paths("a.png")
    assert masks == paths("a.png", "a_mask.png")


def test_hidden_files_and_other_files_are_not_seen(tmp_path: Path) -> None:
    for name in (".DS_Store", "._a.png", "Thumbs.db", "b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    for name in ("x.png", ".git", "__MACOSX"):
        (tmp_path / name).mkdir()
    assert [path.name for path in images_in(tmp_path)] == ["a.png", "b.JPG"]
    assert [path.name for path in folders_in(tmp_path)] == ["x.png"]


def test_a_folder_counts_in_any_case_and_with_images_only(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").touch()
    (tmp_path / "Masks" / "Train").mkdir(parents=True)
    assert find_folder(tmp_path, ("labels", "masks")) is None
    (tmp_path / "Masks" / "Train" / "a.png").touch()
    assert find_folder(tmp_path, ("labels", "masks")) == tmp_path / "Masks"


def test_lists_have_the_names_of_splits(tmp_path: Path) -> None:
    for name in ("train.txt", "Validation.txt", "testing.TXT", "classes.txt", "trainval.txt"):
        (tmp_path / name).touch()
    assert {split: path.name for split, path in split_lists(tmp_path).items()} == {
        "train": "train.txt",
        "val": "Validation.txt",
        "test": "testing.TXT",
    }
    assert "trainval" in split_lists(tmp_path, extra=("trainval",))
    assert split_lists(tmp_path / "none") == {}


def test_lists_of_stems_take_names_paths_and_spaces(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("# mine\na\nb.jpg\nx/c.PNG m/c.png\n\nmy photo 1\nd.v2\n")
    assert listed_stems(path) == {"a", "b", "c", "my photo 1", "d.v2"}
    assert listed_pairs(path) == []


def test_lists_of_pairs_are_cut_at_spaces_tabs_and_commas(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("a.jpg a.png\nb.jpg\tb.png\nc.jpg, c.png\n")
    assert listed_pairs(path) == [("a.jpg", "a.png"), ("b.jpg", "b.png"), ("c.jpg", "c.png")]


def test_a_listed_file_is_found_by_its_tail_and_with_another_suffix(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    file = tmp_path / "train" / "a.jpg"
    file.touch()
    for text in ("train/a.jpg", "/SegNet/CamVid/train/a.jpg", "/x/train/a.png", "..\\train\\a.jpg"):
        assert resolve(tmp_path, text) == file, text
    assert resolve(tmp_path, str(file)) == file
    assert resolve(tmp_path, "train/b.jpg") is None
