from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from fullconv.data.findings.scan import Facts, scan_pair
from fullconv.data.layouts import read


def test_one_pass_sums_up_what_the_files_hold(tmp_path: Path) -> None:
    for split, values in (("train", ((0, 1), (1, 255))), ("val", ((255, 255), (255, 255)))):
        for folder, image in (
            ("images", Image.new("RGB", (2, 2))),
            ("masks", Image.fromarray(np.array(values, np.uint8))),
        ):
            (tmp_path / folder / split).mkdir(parents=True)
            image.save(tmp_path / folder / split / "a.png")
    (tmp_path / "dataset.toml").write_text('classes = ["sky", "road"]')
    data = read(tmp_path)
    scans = [scan_pair(split, data.splits[split][0]) for split in data.splits]
    mask = tmp_path / "masks" / "train" / "a.png"
    assert scans[0].mask_hash == hashlib.sha256(mask.read_bytes()).hexdigest()
    assert scans[0].picture_size == (2, 2)
    facts = Facts(data, scans)
    assert facts.values == {0: 1, 1: 2, 255: 5}
    assert facts.classes == {"train": [1, 2], "val": [0, 0]}
    assert facts.ignored == {"train": 1, "val": 4}
    assert facts.names(facts.all_ignored) == ("masks/val/a.png",)
    assert facts.unknown == Counter()


def test_files_that_cannot_be_read_are_noted(tmp_path: Path) -> None:
    for name in ("images/a.png", "masks/a.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("L", (2, 2)).save(tmp_path / name)
    pair = read(tmp_path).splits["train"][0]
    pair.picture.write_bytes(b"")
    pair.mask.unlink()
    scan = scan_pair("train", pair)
    assert (scan.picture_size, scan.tally, scan.mask_hash) == (None, None, "")
    assert [path for path, _ in scan.errors] == [pair.picture, pair.mask]
    assert "the file is empty" in scan.errors[0][1]
    assert "No such file" in scan.errors[1][1]
