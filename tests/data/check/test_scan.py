from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pairs import noise, save, write_pairs

from fullconv.data.check.check import check
from fullconv.data.check.scan import DatasetScan, PairScan, scan_pair
from fullconv.data.io.scan_cache import ScanCache
from fullconv.data.layouts.dataset import load_dataset

TOML = 'classes = ["sky", "road"]'


def scan_first(root: Path) -> PairScan:
    """Scan the only pair of a folder, with the cache of the user."""
    with ScanCache() as cache:
        return scan_pair("train", load_dataset(root).splits["train"][0], cache)


def scan_all(root: Path) -> DatasetScan:
    dataset = load_dataset(root)
    scan = DatasetScan(dataset)
    for split, pairs in dataset.splits.items():
        for pair in pairs:
            scan.add(scan_pair(split, pair, ScanCache()))
    return scan


def test_the_same_bytes_with_another_suffix_are_read_again(tmp_path: Path) -> None:
    """An array that is renamed to .png is no mask any more, although its bytes are cached."""
    ids = np.eye(3, 4, dtype=np.uint8)
    write_pairs(tmp_path, {"a": ids}, toml=TOML)
    array, image = tmp_path / "masks/a.npy", tmp_path / "masks/a.png"
    image.unlink()
    np.save(array, ids)
    for cached in (False, True):
        report = check(tmp_path)
        assert (report.class_pixels["train"], report.errors) == ([9, 3], ()), cached
    array.rename(image)
    (error,) = check(tmp_path).errors
    assert error.rule == "unreadable"
    image.rename(array)
    assert check(tmp_path).errors == ()


def test_files_that_cannot_be_read_are_recorded(tmp_path: Path) -> None:
    pair = load_dataset(write_pairs(tmp_path, {"a": np.zeros((2, 2))})).splits["train"][0]
    pair.image.write_bytes(b"")
    pair.mask.unlink()
    scan = scan_pair("train", pair, ScanCache())
    assert (scan.image, scan.histogram, scan.mask_hash) == (None, None, "")
    assert [path for path, _ in scan.errors] == [pair.mask, pair.image]
    assert "no such file" in scan.errors[0][1]
    assert "the file is empty" in scan.errors[1][1]


def test_cached_files_are_not_decoded(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scan_first(scenes)
    monkeypatch.setattr("fullconv.data.check.scan.read_histogram", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("fullconv.data.check.scan.read_reduced", lambda *_, **__: 1 / 0)
    again = scan_first(scenes)
    assert again == first
    assert again.image
    assert again.histogram


def test_a_changed_file_is_decoded_again(tmp_path: Path) -> None:
    for value, gray in ((0, 0), (1, 50), (2, 100), (2, 7)):  # at last only the image changes
        save(tmp_path / "masks/a.png", np.full((40, 40), value))
        save(tmp_path / "images/a.png", np.full((40, 40), gray))
        scan = scan_first(tmp_path)
        assert scan.histogram is not None
        assert scan.histogram.counts == {value: 1600}
        assert scan.image is not None
        assert scan.image.mean == (gray, gray, gray)


@pytest.mark.parametrize("table", [None, [], {}, {"size": [1, 2]}, "text"])
def test_cached_content_in_another_form_is_scanned_again(
    scenes: Path, monkeypatch: pytest.MonkeyPatch, table: object
) -> None:
    monkeypatch.setattr(ScanCache, "get", lambda *_: table)
    assert scan_first(scenes).image_size == (48, 64)


def test_of_very_many_values_only_the_common_ones_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks that are photos need little memory, and every pixel counts."""
    photos = {f"{seed}": noise(seed, (40, 50)) for seed in range(4)}
    for photo in photos.values():
        photo[:10] = (1, 2, 3)
    monkeypatch.setattr("fullconv.data.check.scan._MAX_VALUES", 2000)
    scan = scan_all(write_pairs(tmp_path, photos, toml=TOML))
    assert scan.truncated
    assert len(scan.values) <= 2000
    assert scan.values[1, 2, 3] == 4 * 10 * 50
    assert scan.pixels == scan.unknown_pixels == 4 * 40 * 50
    assert all(mask.values > 1400 for _, mask in scan.masks)
    assert all(pair_scan.histogram is None for pair_scan in scan.scans)
