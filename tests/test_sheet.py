from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.data import drawn
from fullconv.data.check import check
from fullconv.errors import FullconvError
from fullconv.sheet import save_sheet


def colors_of(path: Path) -> set[tuple[int, ...]]:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return set(map(tuple, np.unique(pixels, axis=0).tolist()))


def rows_of(path: Path, cell: int = 240) -> float:
    """About how many rows of scenes (48 x 64, drawn `cell` pixels wide) a sheet has."""
    with Image.open(path) as image:
        return image.height / (cell * 48 / 64)


def test_photos_and_labels_stand_side_by_side(scenes: Path, tmp_path: Path) -> None:
    report = check(scenes)
    path = tmp_path / "deep" / "sheet.png"
    save_sheet(report, path)
    assert set(drawn.LABELS.colors) <= colors_of(path)
    assert 6 < rows_of(path) < 10  # six of the seven pairs, and a legend


def test_what_was_found_comes_first(tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "data", train=2, val=1, test=1, size=(48, 64))
    mask = root / "masks" / "train" / "street_0000.png"
    ids = np.array(Image.open(mask))
    ids[:20] = 77
    image = Image.fromarray(ids)
    image.putpalette([0] * 768)
    image.save(mask)
    report = check(root)
    with_, without = tmp_path / "a.png", tmp_path / "b.png"
    save_sheet(report, with_)
    save_sheet(report, without, findings=False)
    assert rows_of(with_) > rows_of(without) + 0.8
    assert (255, 0, 255) in colors_of(with_)  # values without a class are loud


@pytest.mark.parametrize("kind", ["black and white", "colours", "ids"])
def test_masks_without_a_meaning_are_shown_as_they_are(tmp_path: Path, kind: str) -> None:
    values = np.zeros((40, 50, 3), np.uint8)
    values[:20] = {"black and white": 255, "colours": (200, 30, 90), "ids": 3}[kind]
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            content = values if kind == "colours" or folder == "images" else values[..., 0]
            Image.fromarray(content).save(tmp_path / folder / f"{name}.png")
    save_sheet(check(tmp_path), tmp_path / "sheet.png")
    wanted = {"black and white": (255,) * 3, "colours": (200, 30, 90), "ids": (128, 128, 0)}[kind]
    assert wanted in colors_of(tmp_path / "sheet.png")


def test_pairs_of_different_sizes_are_shown_side_by_side(tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "data", train=1, val=1, test=1, size=(48, 64))
    mask = root / "masks" / "train" / "street_0000.png"
    Image.open(mask).resize((32, 24), Image.Resampling.NEAREST).save(mask)
    save_sheet(check(root), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_what_cannot_be_drawn_or_written_is_said(scenes: Path, tmp_path: Path) -> None:
    report = check(scenes)
    with pytest.raises(FullconvError, match=r"written as PNG, not as 'a\.jpg'") as caught:
        save_sheet(report, tmp_path / "a.jpg")
    assert caught.value.hint == "--sheet a.png"
    (tmp_path / "file").touch()
    with pytest.raises(FullconvError, match="could not be written to") as caught:
        save_sheet(report, tmp_path / "file" / "a.png")
    root = drawn.write(tmp_path / "data", train=1, val=1, test=1, size=(48, 64))
    for picture in root.glob("images/*/*"):
        picture.write_bytes(b"")
    with pytest.raises(FullconvError, match=r"no pair of .* can be drawn: .*file is empty"):
        save_sheet(check(root), tmp_path / "a.png")


def test_a_sheet_is_never_written_over_a_file_of_the_data_set(tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "data", train=1, val=1, test=1, size=(48, 64))
    report = check(root)
    mask = root / "masks/train/street_0000.png"
    before = mask.read_bytes()
    with pytest.raises(FullconvError, match="belongs to the data set; a sheet would be written"):
        save_sheet(report, mask)
    assert mask.read_bytes() == before
