"""Drawn scenes written as each published data set lies on disk, and read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fullconv.data import drawn
from fullconv.data.catalogue import cityscapes
from fullconv.data.layouts import read
from fullconv.data.masks import read_mask

IDS = {f"{k}": np.minimum(drawn.scene(k, size=(24, 32))[1], 7) for k in range(4)}


def photo(path: Path, stem: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn.scene(int(stem), size=(24, 32))[0]).save(path)


def png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def mat(path: Path, table: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, table)


def write_cityscapes(root: Path) -> None:
    labels = cityscapes(train_ids=False)
    label_ids = np.array([min(v for v, k in labels.values.items() if k == c) for c in range(8)])
    for stem, ids in IDS.items():
        split = "train" if stem < "3" else "val"
        photo(root / f"leftImg8bit/{split}/ulm/ulm_{stem}_leftImg8bit.png", stem)
        png(root / f"gtFine/{split}/ulm/ulm_{stem}_gtFine_labelIds.png", label_ids[ids])


def write_ade20k(root: Path) -> None:
    for stem, ids in IDS.items():
        split = "training" if stem < "3" else "validation"
        photo(root / f"images/{split}/{stem}.jpg", stem)
        png(root / f"annotations/{split}/{stem}.png", ids + 1)


def write_coco_stuff(root: Path) -> None:
    for stem, ids in IDS.items():
        split = "train2017" if stem < "3" else "val2017"
        photo(root / f"images/{split}/{stem}.jpg", stem)
        png(root / f"annotations/{split}/{stem}.png", ids)
    (root / "labels.txt").write_text("0: unlabeled\n1: person\n2: bicycle\n")


def write_sbd(root: Path) -> None:
    for stem, ids in IDS.items():
        photo(root / f"img/{stem}.jpg", stem)
        mat(root / f"cls/{stem}.mat", {"GTcls": {"Segmentation": ids}})
    lists(root)


def write_pascal_context(root: Path) -> None:
    for stem, ids in IDS.items():
        photo(root / f"JPEGImages/{stem}.jpg", stem)
        mat(root / f"trainval/{stem}.mat", {"LabelMap": ids.astype(np.uint16) + 1})
    (root / "labels.txt").write_text("".join(f"{k}: name {k}\n" for k in range(1, 460)))
    lists(root)


def write_sift_flow(root: Path) -> None:
    names = np.array([f"name {k}" for k in range(33)], dtype=object)
    for stem, ids in IDS.items():
        photo(root / f"Images/scenes/{stem}.jpg", stem)
        mat(root / f"SemanticLabels/scenes/{stem}.mat", {"S": ids + 1, "names": names})
    lists(root)


def write_nyud(root: Path) -> None:
    for stem, ids in IDS.items():
        photo(root / f"images/img_{stem}.png", stem)
        mat(root / f"segmentation/img_{stem}.mat", {"segmentation": ids + 1})
    lists(root)


def lists(root: Path) -> None:
    (root / "train.txt").write_text("0\n1\n2\n")
    (root / "val.txt").write_text("3\n")


@pytest.mark.parametrize(
    ("layout", "write", "classes"),
    [
        ("cityscapes", write_cityscapes, 19),
        ("ade20k", write_ade20k, 150),
        ("coco-stuff", write_coco_stuff, 182),
        ("sbd", write_sbd, 21),
        ("pascal-context", write_pascal_context, 459),
        ("sift-flow", write_sift_flow, 33),
        ("nyud", write_nyud, 40),
    ],
)
def test_what_is_written_is_read_back(
    tmp_path: Path, layout: str, write: Callable[[Path], None], classes: int
) -> None:
    write(tmp_path)
    data = read(tmp_path)
    assert data.layout == layout
    assert len(data.labels) == classes
    assert {split: len(pairs) for split, pairs in data.splits.items()} == {"train": 3, "val": 1}
    for pairs in data.splits.values():
        for pair in pairs:
            stem = pair.name.removeprefix("ulm_").removeprefix("img_")
            np.testing.assert_array_equal(read_mask(pair.mask, data.labels), IDS[stem])


def test_the_sample_of_ade20k(shared: Path) -> None:
    data = read(shared / "data/ade20k_sample")
    assert data.layout == "ade20k"
    assert data.labels.names[:2] == ("wall", "building")
    for pairs in data.splits.values():
        for pair in pairs:
            raw = np.asarray(Image.open(pair.mask)).astype(int)
            wanted = np.where(raw == 0, 255, raw - 1)
            np.testing.assert_array_equal(read_mask(pair.mask, data.labels), wanted)
