"""What is said of folders that no layout fits: what was found, and a line that mends it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.cli.main import run
from fullconv.core.errors import FullconvError
from fullconv.data.layouts import unrecognized as unknown
from fullconv.data.layouts.dataset import load_dataset


def draw(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 2, (40, 50), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def refused(root: Path, **options: str) -> FullconvError:
    with pytest.raises(FullconvError) as caught:
        load_dataset(root, **options)
    return caught.value


def pasted(hint: str) -> None:
    subprocess.run(["sh", "-c", hint], check=True)


def test_no_folder_at_all(tmp_path: Path) -> None:
    error = refused(tmp_path / "no ne" / "deep")
    assert error.message.startswith(f"there is no folder {tmp_path / 'no ne' / 'deep'}; expected ")
    assert "DATA/images/train/a.jpg" in error.message
    assert error.hint == f"ls {tmp_path}"
    (tmp_path / "my dir").mkdir()
    (tmp_path / "my dir" / "a.txt").touch()
    error = refused(tmp_path / "my dir" / "a.txt")
    assert "a.txt is a file" in error.message
    assert error.hint == f"fullconv check '{tmp_path / 'my dir'}'"


def test_photos_without_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = draw(tmp_path / "my photos", *(f"{k}.jpg" for k in range(25)))
    assert run(["check", str(root)]) == 1
    first, hint = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {root} holds 25 images and no masks. Looked for a folder ")
    assert "called masks, mask, labels, " in first
    line = hint.removeprefix("  try: ")
    pasted(line)
    draw(root / "masks", *(f"{k}.png" for k in range(25)))
    data = load_dataset(root)
    assert {split: len(pairs) for split, pairs in data.splits.items()} == {"train": 20, "val": 5}
    assert data.reason == "images beside masks"


def test_photos_in_a_folder_below(tmp_path: Path) -> None:
    draw(tmp_path / "2020/june", "a.jpg")
    draw(tmp_path / "2021", "b.jpg", "c.jpg")
    error = refused(tmp_path)
    assert error.message.startswith(f"{tmp_path} holds 3 images in 2 folders and no masks.")
    assert error.hint.startswith(f"mkdir {tmp_path / '2021' / 'masks'}   # ")


@pytest.mark.parametrize("inside", ["images", "images/train", "masks", "masks/train"])
def test_a_folder_inside_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    root = tmp_path / "my data"
    for split in ("train", "val"):
        draw(root / "images" / split, f"{split}.jpg")
        draw(root / "masks" / split, f"{split}.png")
    here, other = ("images", "masks") if "images" in inside else ("masks", "images")
    count = 1 if "train" in inside else 2
    where = f"{'masks' if here == 'images' else 'images'}/train"
    held = (
        f"holds {count} {here[: 7 if here == 'images' else 4] + 's' * (count > 1)} and no {other}"
    )
    error = refused(root / inside)
    assert error.message == (
        f"{root / inside} {held}. It is a part of the data set {root}, which has those in {where}."
    )
    assert error.hint == f"fullconv check '{root}'"
    monkeypatch.chdir(root / inside)
    error = refused(Path())
    up = "/".join([".."] * len(Path(inside).parts))
    assert error.hint == f"fullconv check {up}"


def test_masks_in_a_folder_of_another_name(tmp_path: Path) -> None:
    root = tmp_path / "set"
    draw(root / "shots" / "train", "a.jpg", "b.jpg", "c.jpg")
    draw(root / "truth" / "train", "a_gt.png", "b_gt.png")
    draw(root / "other", "x.jpg")
    error = refused(root)
    assert error.message == (
        f"{root} holds 6 images in 3 folders and no folder called masks, mask, labels or the "
        "like. truth may be the masks of shots: 2 names agree."
    )
    sentence, _, lines = error.hint.partition("\n")
    assert sentence == f"write {root / 'dataset.toml'}:"
    (root / "dataset.toml").write_text(lines)
    data = load_dataset(root)
    masks = [pair.mask.name for pairs in data.splits.values() for pair in pairs]
    assert sorted(masks) == ["a_gt.png", "b_gt.png"]
    assert data.reason == "shots and truth with a folder per split"


def test_which_of_two_folders_holds_the_masks(tmp_path: Path) -> None:
    """The JPEG files are the photos; of two folders of PNG files those with the larger ones."""
    for folder, names in (("a", "x.png"), ("b", "x.jpg")):
        draw(tmp_path / "kinds" / folder, names)
    assert 'images = "b"\nmasks = "a"' in refused(tmp_path / "kinds").hint
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    draw(tmp_path / "sizes/a", "x.png")
    (tmp_path / "sizes/b").mkdir()
    Image.fromarray(noise).save(tmp_path / "sizes/b/x.png")
    assert 'images = "b"\nmasks = "a"' in refused(tmp_path / "sizes").hint


def test_masks_among_their_photos(tmp_path: Path) -> None:
    root = draw(tmp_path / "my set", "a.jpg", "b.jpg", "a_mask.png", "b_mask.png")
    error = refused(root)
    assert error.message == (
        f"{root} holds 4 images and no folder of masks. Those in {root} are called *_mask and "
        "lie among the photos; expected a folder of their own."
    )
    pasted(error.hint)
    data = load_dataset(root)
    assert {split: len(pairs) for split, pairs in data.splits.items()} == {"train": 1, "val": 1}


def test_nothing_to_look_at(tmp_path: Path) -> None:
    root = tmp_path / "new set"
    root.mkdir()
    error = refused(root)
    assert error.message.startswith(f"{root} holds no images: there is nothing in it. Looked in")
    assert "DATA/images/train/a.jpg   DATA/masks/train/a.png" in error.message
    pasted(error.hint)
    assert (root / "images").is_dir()
    assert (root / "masks").is_dir()
    for k in range(10):
        (root / f"{k}.txt").touch()
    assert "there is 0.txt, 1.txt, 2.txt, " in refused(root).message
    assert "5.txt, 6.txt, 7.txt and 4 more. Looked" in refused(root).message


def test_images_too_far_down(tmp_path: Path) -> None:
    draw(tmp_path / "a/b/c/images", "x.jpg")
    draw(tmp_path / "a/b/c/masks", "x.png")
    error = refused(tmp_path)
    assert "the first images lie in " in error.message
    assert error.hint == f"fullconv check {tmp_path / 'a/b/c'}"
    assert len(load_dataset(tmp_path / "a/b/c").splits["train"]) == 1


def test_more_data_sets_than_are_listed(tmp_path: Path) -> None:
    for number in range(10):
        for folder, name in (("images", "x.jpg"), ("masks", "x.png")):
            draw(tmp_path / f"set {number}" / folder, name)
    error = refused(tmp_path)
    assert error.message.startswith(f"{tmp_path} holds 10 data sets: {tmp_path / 'set 0'}, ")
    assert error.message.endswith(f"{tmp_path / 'set 7'} and 2 more; expected one.")
    assert error.hint == f"fullconv check '{tmp_path / 'set 0'}'"


def test_a_layout_that_does_not_fit_says_what_it_wants(tmp_path: Path) -> None:
    draw(tmp_path, "a.jpg")
    error = refused(tmp_path, layout="camvid")
    assert error.message == (
        f"{tmp_path} is no data set of the layout 'camvid'. Looked for train.txt with 'image "
        "mask' lines, or train/ and trainannot/ (folders without an image do not count). "
        "Found a.jpg."
    )
    assert error.hint.startswith(f"fullconv check {tmp_path}   # without --layout")


def test_a_broken_data_set_above_does_not_get_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("gone.jpg gone.png\n")
    root = draw(tmp_path / "photos", "a.jpg")
    assert "holds 1 image and no masks" in refused(root).message


def test_of_very_many_folders_only_the_fullest_are_held_against_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos sorted into folders by what they show: comparing all would take the square of them."""
    for number in range(60):
        folder = tmp_path / f"kind{number}"
        folder.mkdir()
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    compared: list[int] = []
    real = unknown.pair_by_name

    def counted(images: list[Path], masks: list[Path]) -> Any:
        compared.append(len(images))
        return real(images, masks)

    monkeypatch.setattr(unknown, "pair_by_name", counted)
    with pytest.raises(FullconvError, match="holds 60 images in 60 folders and no masks"):
        load_dataset(tmp_path)
    assert 0 < len(compared) <= 40 * 39
