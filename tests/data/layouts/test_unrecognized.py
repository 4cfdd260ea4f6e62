"""Errors for folders that no layout fits, and the commands that they suggest."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from pairs import noise, save

from fullconv.cli.main import run
from fullconv.core.errors import FullconvError
from fullconv.data.layouts import unrecognized
from fullconv.data.layouts.dataset import load_dataset


def write(root: Path, files: Iterable[str]) -> Path:
    """Write small images, and other files without content."""
    for number, name in enumerate(files):
        path = root / name
        if path.suffix in (".jpg", ".png"):
            save(path, noise(number, (40, 50))[..., 0] % 2)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def refused(root: Path) -> FullconvError:
    with pytest.raises(FullconvError) as caught:
        load_dataset(root)
    return caught.value


def shell(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=True)


def counts(root: Path) -> dict[str, int]:
    return {split: len(pairs) for split, pairs in load_dataset(root).splits.items()}


SETS = [f"set{number}/{file}" for number in range(10) for file in ("images/x.jpg", "masks/x.png")]
# The files, the folder that is read, parts of the message, start of the hint; R is the folder.
# fmt: off
ERRORS = {
    "no folder": ([], "deep", ("there is no folder R; expected the folder of a dataset",
                               "DATA/images/train/a.jpg"), "ls "),
    "a file": (["a.txt"], "a.txt", ("R is a file; expected",), "fullconv check "),
    "texts": ([f"{k}.txt" for k in range(10)], "",
              ("R contains no images: found 0.txt, 1.txt, ",
               "7.txt and 2 more. Searched it and 2 levels"), "mkdir -p R/images R/masks"),
    "deep": (["a/b/c/images/x.jpg", "a/b/c/masks/x.png"], "",
             ("R contains no dataset. ", "the first images are in R/a/b/c/i"),
             "fullconv check R/a/b/c"),
    "several": (SETS, "", ("R contains 10 datasets: R/set0, ", "R/set7 and 2 more; ex"),
                "fullconv check R/set0"),
    "images below": (["2020/june/a.jpg", "2021/b.jpg", "2021/c.jpg"], "",
                     ("R contains 3 images in 2 folders and no masks.",), "mkdir R/2021/masks   "),
    "broken list above": (["photos/a.jpg"], "photos", ("R contains 1 image and no masks.",),
                          "mkdir R/masks   # and"),
}
# fmt: on


@pytest.mark.parametrize(("files", "folder", "message", "hint"), ERRORS.values(), ids=ERRORS)
def test_errors(
    tmp_path: Path, files: list[str], folder: str, message: tuple[str, ...], hint: str
) -> None:
    root = write(tmp_path / "data", files) / folder
    if folder == "photos":
        (tmp_path / "data/train.txt").write_text("gone.jpg gone.png\n")
    error = refused(root)
    for part in message:
        assert part.replace("R", str(root)) in error.message.replace("R ", f"{root} ")
    assert error.hint.startswith(hint.replace("R", str(root)))


def test_images_without_masks_and_the_command_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "my photos", (f"{k}.jpg" for k in range(25)))
    assert run(["check", str(root)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].startswith(f"error: {root} contains 25 images and no masks. Searched for a ")
    shell(lines[-1].removeprefix("  try: "))
    write(root / "masks", (f"{k}.png" for k in range(25)))
    assert counts(root) == {"train": 20, "val": 5}
    assert load_dataset(root).reason == "images beside masks"


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
    files = ("images/train/a.jpg", "masks/train/a.png", "images/val/b.jpg", "masks/val/b.png")
    root = write(tmp_path / "my data", files)
    other = "masks/train" if inside.startswith("images") else "images/train"
    error = refused(root / inside)
    assert error.message.startswith(f"{root / inside} contains {content}It is a part of the data")
    assert error.message.endswith(f"dataset {root}, which has the others in {other}.")
    assert error.hint == f"fullconv check '{root}'"
    monkeypatch.chdir(root / inside)
    up = "/".join([".."] * len(Path(inside).parts))
    assert refused(Path()).hint == f"fullconv check {up}"


def test_masks_in_a_folder_of_another_name(tmp_path: Path) -> None:
    root = write(tmp_path / "set", (f"shots/train/{name}.jpg" for name in "abc"))
    write(root, ("truth/train/a_gt.png", "truth/train/b_gt.png", "other/x.jpg"))
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
    write(tmp_path, ("formats/a/x.png", "formats/b/x.jpg", "sizes/a/x.png"))
    save(tmp_path / "sizes/b/x.png", noise(0, (40, 50)))
    for folder in ("formats", "sizes"):
        assert 'images = "b"\nmasks = "a"' in refused(tmp_path / folder).hint


def test_only_the_fullest_folders_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, (f"kind{number}/{number}.png" for number in range(60)))
    calls: list[int] = []
    pair_by_name = unrecognized.pair_by_name
    monkeypatch.setattr(
        unrecognized, "pair_by_name", lambda *args: (calls.append(1), pair_by_name(*args))[1]
    )
    assert "contains 60 images in 60 folders and no masks" in refused(tmp_path).message
    assert 0 < len(calls) <= 40 * 39
