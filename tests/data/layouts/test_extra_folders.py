"""Additional folders of a dataset: which file belongs to which image, and errors."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cards
import numpy as np
import pytest
import trees
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.check.check import check
from fullconv.data.check.extra_heads import add_extra_heads, fingerprint
from fullconv.data.io.masks import read_mask
from fullconv.data.layouts.dataset import load_dataset
from fullconv.data.layouts.extra_folders import (
    extra_files,
    head_dataset,
    with_channel_statistics,
    with_extra_inputs,
    without_extras,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return cards.write(tmp_path / "cards", sized=True, train=4, val=2)


def test_a_head_has_the_masks_and_classes_of_its_folder(data: Path) -> None:
    dataset, (report,) = add_extra_heads(check(data), ["order"])
    assert [name for name, _ in dataset.heads] == ["order"]
    assert dataset.tables[1].names == cards.ORDER.names
    assert report.dataset.root == data / "order"
    for split, pairs in dataset.splits.items():
        for k, pair in enumerate(pairs):
            _, materials, order, _ = cards.scene((split == "val") * 100_000 + k, sized=True)
            assert np.array_equal(read_mask(pair.mask, dataset.labels), materials)
            assert np.array_equal(read_mask(pair.masks[0], dataset.tables[1]), order)
    assert sum(report.class_pixels["train"]) == 4 * 96 * 128


def test_the_geometric_labels_of_sift_flow(tmp_path: Path) -> None:
    """Their names are in the files, counted from 1; -1 and 0 are ignored."""
    trees.sift_flow(tmp_path)
    names = np.array(["sky", "vertical", "horizontal"], dtype=object)
    for stem, ids in trees.IDS.items():
        geometric = (ids % 5).astype(np.int16) - 1
        trees.mat(tmp_path / f"GeoLabels/scenes/{stem}.mat", {"S": geometric, "names": names})
    dataset, (report,) = add_extra_heads(check(tmp_path), ["GeoLabels"])
    assert dataset.tables[1].names == ("sky", "vertical", "horizontal")
    assert not report.errors
    for pairs in dataset.splits.values():
        for pair in pairs:
            wanted = trees.IDS[pair.name].astype(int) % 5 - 2
            wanted[wanted < 0] = 255
            assert np.array_equal(read_mask(pair.masks[0], dataset.tables[1]), wanted)


def test_extra_inputs_have_channel_statistics(data: Path) -> None:
    dataset = with_channel_statistics(with_extra_inputs(load_dataset(data), ["depth"]))
    (extra,) = dataset.inputs
    depths = np.stack([cards.scene(k, sized=True)[3] for k in range(4)]).astype(np.float64)
    assert (extra.name, extra.channels) == ("depth", 1)
    assert extra.mean == pytest.approx([depths.mean()])
    assert extra.std == pytest.approx([depths.std()])
    assert without_extras(dataset).splits == load_dataset(data).splits


def test_each_channel_has_its_own_statistics(data: Path) -> None:
    for path in sorted((data / "depth").rglob("*.png")):
        depth = np.asarray(Image.open(path)).astype(np.float32)
        path.unlink()
        np.save(path.with_suffix(".npy"), np.dstack([depth, -2 * depth, depth / 1000]))
    (extra,) = with_channel_statistics(with_extra_inputs(load_dataset(data), ["depth"])).inputs
    first = extra.mean[0], extra.std[0]
    assert extra.mean == pytest.approx([first[0], -2 * first[0], first[0] / 1000])
    assert extra.std == pytest.approx([first[1], 2 * first[1], first[1] / 1000])


def test_a_flat_folder_with_endings_of_masks(data: Path) -> None:
    shutil.rmtree(data / "images/val")
    shutil.rmtree(data / "masks/val")
    for path in (data / "order/train").iterdir():
        path.rename(data / "order" / f"{path.stem}_gt.png")
    shutil.rmtree(data / "order/val")
    (data / "order/.card_000.png").write_bytes(b"")  # hidden files are skipped
    head = head_dataset(load_dataset(data), "order")
    assert {pair.mask.name for pairs in head.splits.values() for pair in pairs} == {
        f"card_{k:03}_gt.png" for k in range(4)
    }


def test_a_folder_elsewhere(data: Path, tmp_path: Path) -> None:
    (data / "depth").rename(tmp_path / "far")
    dataset = with_extra_inputs(load_dataset(data), [str(tmp_path / "far")])
    assert dataset.inputs[0].name == "far"
    for split, pairs in dataset.splits.items():  # card_000 is in train and in val
        assert [pair.inputs[0].parent.name for pair in pairs] == [split] * len(pairs)


def fill_depth(data: Path, name: str, size: tuple[int, int], value: int) -> None:
    for path in (data / "depth").glob(name):
        Image.fromarray(np.full(size, value, np.uint16)).save(path)


CARD = "depth/train/card_001"
DAMAGES: dict[str, Callable[[Path], Any]] = {
    "card_001.png has 0": lambda r: (r / f"{CARD}.png").unlink(),
    "card_001.png has 2": lambda r: shutil.copy(r / f"{CARD}.png", r / f"{CARD}.tif"),
    "the same value, 7, at every pixel of every training file": lambda r: fill_depth(
        r, "*/*.png", (96, 128), 7
    ),
    "64 x 48 pixels but": lambda r: fill_depth(r, "val/card_000.png", (48, 64), 1),
    "has 3 channels; ": lambda r: Image.new("RGB", (128, 96)).save(r / f"{CARD}.png"),
    "no folder depth in ": lambda r: shutil.rmtree(r / "depth"),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_faults_are_reported_before_training(data: Path, message: str) -> None:
    DAMAGES[message](data)
    with pytest.raises(FullconvError, match=re.escape(message)):
        with_channel_statistics(with_extra_inputs(load_dataset(data), ["depth"]))


def test_a_missing_folder(data: Path) -> None:
    message = r"no folder dept in .*; it has depth, images, masks, o"
    with pytest.raises(FullconvError, match=message):
        head_dataset(load_dataset(data), "dept")
    with pytest.raises(FullconvError, match=r"no folder .*/dept; the model needs its input depth"):
        extra_files([data / "images/val/card_000.png"], data / "dept", "depth")


def test_names_must_be_unique(data: Path) -> None:
    with pytest.raises(FullconvError, match="two inputs are called depth"):
        with_extra_inputs(load_dataset(data), ["depth", "depth"])
    with pytest.raises(FullconvError, match="two heads are called order"):
        add_extra_heads(check(data), ["order", "order"])


def test_errors_in_the_masks_of_a_head(data: Path) -> None:
    ids = np.full((96, 128), 9, np.uint8)
    Image.fromarray(ids).save(data / "order/train/card_003.png")
    with pytest.raises(FullconvError, match="1 mask value has no class") as caught:
        add_extra_heads(check(data), ["order"])
    assert caught.value.hint == f"fullconv check {data} --heads order"
    dataset, _ = add_extra_heads(check(data), ["order"], ignore_rules="unknown-value")
    pair = dataset.splits["train"][3]
    assert (read_mask(pair.masks[0], dataset.tables[1]) == 255).all()


def test_the_fingerprint_includes_the_extra_inputs(data: Path) -> None:
    report = check(data)
    plain = load_dataset(data)
    assert fingerprint(report, plain) == report.fingerprint
    before = fingerprint(report, with_extra_inputs(plain, ["depth"]))
    fill_depth(data, "val/card_000.png", (48, 64), 1)
    after = fingerprint(report, with_extra_inputs(plain, ["depth"]))
    assert len({report.fingerprint, before, after}) == 3


def test_files_for_images_outside_of_the_dataset(data: Path, tmp_path: Path) -> None:
    images = shutil.copytree(data / "images/val", tmp_path / "photos")
    paths = sorted(Path(images).iterdir())
    files = extra_files(paths, data / "depth/val", "depth")
    assert [path.stem for path in files] == [path.stem for path in paths]
