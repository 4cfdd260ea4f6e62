"""Datasets with a mask file per class or per object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.annotations.class_masks import read_inside
from fullconv.data.annotations.convert import convert
from fullconv.data.io.masks import read_values
from fullconv.data.layouts.dataset import load_dataset

IDS = np.zeros((6, 8), np.uint8)
IDS[1:4, 1:5] = 1
IDS[3:5, 4:7] = 2  # the pixel (3, 4) is in both files


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


def files_of(k: int) -> dict[str, np.ndarray]:
    disc = np.zeros(IDS.shape, np.uint8)
    disc[1:4, 1:5] = 255
    return {"disc": disc, "cross": (IDS == 2) * np.uint8(1 + k)}


def folder_per_class(root: Path, place: str) -> None:
    for k, split in enumerate(("train", "train", "val")):
        inner = f"{split}/" if "SPLIT" in place else ""
        save(root / f"images/{inner}{k}.png", np.full((*IDS.shape, 3), k))
        for name, values in files_of(k).items():
            path = place.replace("CLASS", name).replace("SPLIT", split)
            save(root / f"masks/{path}/{k}.png", values)


@pytest.mark.parametrize("place", ["CLASS", "SPLIT/CLASS", "CLASS/SPLIT"])
def test_a_folder_of_masks_per_class(tmp_path: Path, place: str) -> None:
    root = tmp_path / "set"
    folder_per_class(root, place)
    with pytest.raises(FullconvError) as caught:
        load_dataset(root)
    assert caught.value.message == (
        f"{root} has a mask for each class (cross, disc) of its 3 images; expected one mask per "
        "image. Convert them."
    )
    assert caught.value.hint == f"fullconv convert {root} {root}_masks"
    result = convert(root, tmp_path / "out")
    assert result.layout == "class-masks"
    assert result.labels.names == ("background", "cross", "disc")
    assert result.splits == ({"train": 2, "val": 1} if "SPLIT" in place else {"all": 3})
    assert (
        "3 pixels are in several masks of their image: they get the class whose name is last in "
        "the alphabet" in result.notes
    )
    expected = np.array([0, 2, 1], np.uint8)[IDS]
    expected[3, 4] = 2  # "disc" is after "cross"
    masks = sorted((tmp_path / "out/masks").rglob("*.png"))
    assert len(masks) == 3
    for path in masks:
        np.testing.assert_array_equal(read_values(path), expected)


def test_a_folder_of_masks_per_image(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for k in range(3):
        save(root / f"stage1_train/{k}/images/{k}.png", np.full((*IDS.shape, 3), k))
        for number, value in enumerate((1, 2), 10):
            save(root / f"stage1_train/{k}/masks/m{number}.png", (value == IDS) * 255)
    with pytest.raises(FullconvError, match="a mask for each object of its 3 images"):
        load_dataset(root)
    result = convert(root, tmp_path / "out")
    assert result.labels.names == ("background", "object")
    for path in (tmp_path / "out/masks").iterdir():
        np.testing.assert_array_equal(read_values(path), IDS > 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.arange(48).reshape(6, 8) % 3, "disc/0.png has 3 values (0, 1, 2); expected two"),
        (np.zeros((6, 7)), "disc/0.png has 6 x 7 pixels (height x width), but"),
        (np.dstack([np.eye(6, 8) * 200] * 2 + [np.eye(6, 8) * 9]), "has 2 values (000000, c8c809)"),
    ],
)
def test_files_that_are_not_black_and_white(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    folder_per_class(tmp_path / "set", "CLASS")
    save(tmp_path / "set/masks/disc/0.png", values)
    with pytest.raises(FullconvError) as caught:
        convert(tmp_path / "set", tmp_path / "out")
    assert message in caught.value.message
    assert not (tmp_path / "out").exists()


def test_one_folder_of_masks_is_no_class(tmp_path: Path) -> None:
    for k in range(3):
        save(tmp_path / f"images/{k}.png", np.full((*IDS.shape, 3), k))
        save(tmp_path / f"masks/v1/{k}.png", IDS)
    with pytest.raises(FullconvError, match="no image has a mask"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("values", "mode", "inside"), [(0, "L", 0), (1, "L", 48), (255, "L", 48), (255, "1", 48)]
)
def test_a_file_with_one_value(tmp_path: Path, values: int, mode: str, inside: int) -> None:
    Image.new(mode, (8, 6), values).save(tmp_path / "a.png")
    assert read_inside(tmp_path / "a.png").sum() == inside
