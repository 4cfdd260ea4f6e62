"""Errors for folders that no layout fits, and the commands that they suggest."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.cli.main import run
from fullconv.core.errors import FullconvError
from fullconv.data.layouts import unrecognized
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


def shell(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=True)


def file(root: Path) -> Path:
    root.mkdir()
    (root / "a.txt").touch()
    return root / "a.txt"


def no_images(root: Path) -> Path:
    root.mkdir()
    for k in range(10):
        (root / f"{k}.txt").touch()
    return root


def deep(root: Path) -> Path:
    draw(root / "a/b/c/images", "x.jpg")
    draw(root / "a/b/c/masks", "x.png")
    return root


def several(root: Path) -> Path:
    for number in range(10):
        draw(root / f"set{number}" / "images", "x.jpg")
        draw(root / f"set{number}" / "masks", "x.png")
    return root


def below(root: Path) -> Path:
    draw(root / "2020/june", "a.jpg")
    draw(root / "2021", "b.jpg", "c.jpg")
    return root


def broken_above(root: Path) -> Path:
    draw(root)
    (root / "train.txt").write_text("gone.jpg gone.png\n")
    return draw(root / "photos", "a.jpg")


# how the folder is made, parts of the message, start of the hint; R is the folder.
# fmt: off
ERRORS: list[tuple[Callable[[Path], Path], tuple[str, ...], str]] = [
    (lambda root: root / "deep",
     ("there is no folder R; expected the folder of a dataset", "DATA/images/train/a.jpg"),
     "ls "),
    (file, ("R is a file; expected",), "fullconv check "),
    (no_images,
     ("R contains no images: found 0.txt, 1.txt, ", "7.txt and 2 more. Searched it and 2 levels",),
     "mkdir -p R/images R/masks"),
    (deep, ("R contains no dataset. ", "the first images are in R/a/b/c/i"),
     "fullconv check R/a/b/c"),
    (several, ("R contains 10 datasets: R/set0, ", "R/set7 and 2 more; ex"),
     "fullconv check R/set0"),
    (below, ("R contains 3 images in 2 folders and no masks.",), "mkdir R/2021/masks   # and"),
    (broken_above, ("R contains 1 image and no masks.",), "mkdir R/masks   # and"),
]
# fmt: on


@pytest.mark.parametrize(("make", "message", "hint"), ERRORS)
def test_errors(
    tmp_path: Path, make: Callable[[Path], Path], message: tuple[str, ...], hint: str
) -> None:
    root = make(tmp_path / "data")
    error = refused(root)
    for part in message:
        assert part.replace("R", str(root)) in error.message.replace("R ", f"{root} ")
    assert error.hint.startswith(hint.replace("R", str(root)))


def test_images_without_masks_and_the_command_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = draw(tmp_path / "my photos", *(f"{k}.jpg" for k in range(25)))
    assert run(["check", str(root)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].startswith(f"error: {root} contains 25 images and no masks. Searched for a ")
    shell(lines[-1].removeprefix("  try: "))
    draw(root / "masks", *(f"{k}.png" for k in range(25)))
    data = load_dataset(root)
    assert {split: len(pairs) for split, pairs in data.splits.items()} == {"train": 20, "val": 5}
    assert data.reason == "images beside masks"


@pytest.mark.parametrize(
    ("inside", "content"),
    [
        ("images", "2 images and no masks. "),
        ("images/train", "1 image and no masks. "),
        ("masks", "2 masks and no images. "),
        ("masks/train", "1 mask and no images. "),
    ],
)
def test_a_folder_inside_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, content: str
) -> None:
    root = tmp_path / "my data"
    for split in ("train", "val"):
        draw(root / "images" / split, f"{split}.jpg")
        draw(root / "masks" / split, f"{split}.png")
    other = "masks/train" if inside.startswith("images") else "images/train"
    error = refused(root / inside)
    assert error.message.startswith(f"{root / inside} contains {content}It is a part of the data")
    assert error.message.endswith(f"dataset {root}, which has the others in {other}.")
    assert error.hint == f"fullconv check '{root}'"
    monkeypatch.chdir(root / inside)
    up = "/".join([".."] * len(Path(inside).parts))
    assert refused(Path()).hint == f"fullconv check {up}"


def test_masks_in_a_folder_of_another_name(tmp_path: Path) -> None:
    root = tmp_path / "set"
    draw(root / "shots" / "train", "a.jpg", "b.jpg", "c.jpg")
    draw(root / "truth" / "train", "a_gt.png", "b_gt.png")
    draw(root / "other", "x.jpg")
    error = refused(root)
    assert error.message == (
        f"{root} contains 6 images in 3 folders and no folder called masks, mask, labels or "
        "similar. truth may be the masks of shots: 2 file names agree."
    )
    first, _, lines = error.hint.partition("\n")
    assert first == f"write {root / 'dataset.toml'}:"
    (root / "dataset.toml").write_text(lines)
    data = load_dataset(root)
    masks = [pair.mask.name for pairs in data.splits.values() for pair in pairs]
    assert sorted(masks) == ["a_gt.png", "b_gt.png"]
    assert data.reason == "shots and truth with a folder per split"


def test_the_jpeg_files_are_the_images_else_the_larger_ones(tmp_path: Path) -> None:
    for folder, name in (("a", "x.png"), ("b", "x.jpg")):
        draw(tmp_path / "formats" / folder, name)
    assert 'images = "b"\nmasks = "a"' in refused(tmp_path / "formats").hint
    draw(tmp_path / "sizes/a", "x.png")
    (tmp_path / "sizes/b").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "sizes/b/x.png")
    assert 'images = "b"\nmasks = "a"' in refused(tmp_path / "sizes").hint


def test_only_the_fullest_folders_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        draw(tmp_path / f"kind{number}", f"{number}.png")
    calls: list[int] = []
    pair_by_name = unrecognized.pair_by_name
    monkeypatch.setattr(
        unrecognized, "pair_by_name", lambda *args: (calls.append(1), pair_by_name(*args))[1]
    )
    assert "contains 60 images in 60 folders and no masks" in refused(tmp_path).message
    assert 0 < len(calls) <= 40 * 39
