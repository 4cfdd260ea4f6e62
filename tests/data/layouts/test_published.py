"""Drawn scenes written as each published data set lies on disk, and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import IDS, TREES

from fullconv.data.io.masks import read_mask
from fullconv.data.layouts.dataset import load_dataset


@pytest.mark.parametrize(
    ("layout", "classes"),
    [
        ("cityscapes", 19),
        ("ade20k", 150),
        ("coco-stuff", 182),
        ("sbd", 21),
        ("pascal-context", 459),
        ("sift-flow", 33),
        ("nyud", 40),
    ],
)
def test_what_is_written_is_read_back(tmp_path: Path, layout: str, classes: int) -> None:
    TREES[layout].write(tmp_path)
    data = load_dataset(tmp_path)
    assert data.layout == layout
    assert len(data.labels) == classes
    assert {split: len(pairs) for split, pairs in data.splits.items()} == {"train": 3, "val": 1}
    for pairs in data.splits.values():
        for pair in pairs:
            stem = pair.name.removeprefix("ulm_").removeprefix("img_")
            np.testing.assert_array_equal(read_mask(pair.mask, data.labels), IDS[stem])


def test_the_sample_of_ade20k(shared: Path) -> None:
    data = load_dataset(shared / "data/ade20k_sample")
    assert data.layout == "ade20k"
    assert data.labels.names[:2] == ("wall", "building")
    for pairs in data.splits.values():
        for pair in pairs:
            raw = np.asarray(Image.open(pair.mask)).astype(int)
            wanted = np.where(raw == 0, 255, raw - 1)
            np.testing.assert_array_equal(read_mask(pair.mask, data.labels), wanted)
