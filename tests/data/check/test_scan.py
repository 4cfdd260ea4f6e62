from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.data.check.check import check
from fullconv.data.check.scan import DatasetScan, scan_pair
from fullconv.data.io.scan_cache import ScanCache
from fullconv.data.layouts.dataset import load_dataset


def test_one_pass_adds_up_the_content_of_the_files(tmp_path: Path) -> None:
    for split, values in (("train", ((0, 1), (1, 255))), ("val", ((255, 255), (255, 255)))):
        for folder, image in (
            ("images", Image.new("RGB", (2, 2))),
            ("masks", Image.fromarray(np.array(values, np.uint8))),
        ):
            (tmp_path / folder / split).mkdir(parents=True)
            image.save(tmp_path / folder / split / "a.png")
    (tmp_path / "dataset.toml").write_text('classes = ["sky", "road"]')
    data = load_dataset(tmp_path)
    scans = [scan_pair(split, data.splits[split][0], ScanCache()) for split in data.splits]
    mask = tmp_path / "masks" / "train" / "a.png"
    assert scans[0].mask_hash == hashlib.sha256(mask.read_bytes()).hexdigest()
    assert scans[0].image_size == (2, 2)
    scan = DatasetScan(data)
    for pair_scan in scans:
        scan.add(pair_scan)
    assert scan.values == {0: 1, 1: 2, 255: 5}
    assert scan.class_pixels == {"train": [1, 2], "val": [0, 0]}
    assert scan.ignored_pixels == {"train": 1, "val": 4}
    assert scan.names(scan.all_ignored) == ("masks/val/a.png",)
    assert scan.unknown == Counter()


def test_the_same_bytes_with_another_suffix_are_read_again(
    tmp_path: Path,
) -> None:
    """An array that is renamed to .png is no mask any more, although its bytes are cached."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "images/a.png")
    array, image = tmp_path / "masks/a.npy", tmp_path / "masks/a.png"
    np.save(array, np.ones((3, 4), np.uint8))
    (tmp_path / "dataset.toml").write_text('classes = ["sky", "road"]')
    for cached in (False, True):
        report = check(tmp_path)
        assert (report.class_pixels["train"], report.errors) == ([0, 12], ()), cached
    array.rename(image)
    (error,) = check(tmp_path).errors
    assert error.rule == "unreadable"
    image.rename(array)
    assert check(tmp_path).errors == ()


def test_files_that_cannot_be_read_are_recorded(tmp_path: Path) -> None:
    for name in ("images/a.png", "masks/a.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("L", (2, 2)).save(tmp_path / name)
    pair = load_dataset(tmp_path).splits["train"][0]
    pair.image.write_bytes(b"")
    pair.mask.unlink()
    scan = scan_pair("train", pair, ScanCache())
    assert (scan.image, scan.histogram, scan.mask_hash) == (None, None, "")
    assert [path for path, _ in scan.errors] == [pair.mask, pair.image]
    assert "the file is empty" in scan.errors[1][1]
    assert "no such file" in scan.errors[0][1]


def test_cached_files_are_not_decoded(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_dataset(scenes)
    with ScanCache() as cache:
        first = [scan_pair("train", pair, cache) for pair in data.splits["train"]]

    monkeypatch.setattr("fullconv.data.check.scan.read_histogram", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("fullconv.data.check.scan.read_reduced", lambda *_, **__: 1 / 0)
    with ScanCache() as cache:
        again = [scan_pair("train", pair, cache) for pair in data.splits["train"]]
    assert again == first
    assert all(scan.image and scan.histogram for scan in again)


def test_a_changed_file_is_decoded_again(tmp_path: Path) -> None:
    for name in ("images/a.png", "masks/a.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("L", (40, 40)).save(tmp_path / name)
    pair = load_dataset(tmp_path).splits["train"][0]
    for value in (0, 1, 2):
        Image.new("L", (40, 40), value).save(pair.mask)
        Image.new("L", (40, 40), 50 * value).save(pair.image)
        with ScanCache() as cache:
            scan = scan_pair("train", pair, cache)
        assert scan.histogram is not None
        assert scan.histogram.counts == {value: 1600}
        assert scan.image is not None
        assert scan.image.mean == (50 * value,) * 3
        Image.new("L", (40, 40), 7).save(pair.image)  # only the image changes
        with ScanCache() as cache:
            scan = scan_pair("train", pair, cache)
        assert scan.image is not None
        assert scan.image.mean == (7, 7, 7)


def test_mean_and_square_are_those_of_the_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), np.uint8)
    for name in ("images/a.png", "masks/a.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(pixels if name[0] == "i" else pixels[..., 0] % 2).save(tmp_path / name)
    scan = scan_pair("train", load_dataset(tmp_path).splits["train"][0], ScanCache())
    assert scan.image is not None
    np.testing.assert_allclose(scan.image.mean, pixels.mean((0, 1), np.float64))
    np.testing.assert_allclose(scan.image.square, (pixels.astype(float) ** 2).mean((0, 1)))


@pytest.mark.parametrize("table", [None, [], {}, {"size": [1, 2]}, "text"])
def test_cached_content_in_another_form_is_scanned_again(
    scenes: Path, monkeypatch: pytest.MonkeyPatch, table: object
) -> None:
    cache = ScanCache()
    monkeypatch.setattr(cache, "get", lambda key: table)
    scan = scan_pair("train", load_dataset(scenes).splits["train"][0], cache)
    assert scan.image_size == (48, 64)


def test_of_very_many_values_only_the_common_ones_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks that are photos need little memory, and every pixel counts."""
    random = np.random.default_rng(0)
    for number in range(4):
        noise = random.integers(0, 256, (40, 50, 3), np.uint8)
        noise[:10] = (1, 2, 3)
        for folder in ("images", "masks"):
            path = tmp_path / folder / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(noise).save(path)
    monkeypatch.setattr("fullconv.data.check.scan._MAX_VALUES", 2000)
    (tmp_path / "dataset.toml").write_text('classes = ["sky", "road"]')
    data = load_dataset(tmp_path)
    pairs = [(split, pair) for split in data.splits for pair in data.splits[split]]
    scan = DatasetScan(data)
    for split, pair in pairs:
        scan.add(scan_pair(split, pair, ScanCache()))
    assert scan.truncated
    assert len(scan.values) <= 2000
    assert scan.values[1, 2, 3] == 4 * 10 * 50
    assert scan.pixels == scan.unknown_pixels == 4 * 40 * 50
    assert all(mask.values > 1400 for _, mask in scan.masks)
    assert all(scan.histogram is None for scan in scan.scans)
