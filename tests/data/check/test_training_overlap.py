"""The images that a model was trained on, recognized by content."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fullconv.core.metric_names import current_names
from fullconv.data.check.check import CheckReport, check
from fullconv.data.check.training_overlap import describe_training_overlap as describe
from fullconv.data.check.training_overlap import training_split_fingerprint as fingerprint
from fullconv.data.synthetic import scenes as synthetic


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    return synthetic.write(folder, train=3, val=2, test=2, size=(48, 64))


def check_with(root: Path, to: Path, split: str) -> CheckReport:
    """Check a copy of the dataset that has the images of a split in train, too."""
    shutil.copytree(root, to)
    for folder in ("images", "masks"):
        for path in (to / folder / split).iterdir():
            shutil.copy(path, to / folder / "train" / f"more_{path.name}")
    return check(to)


def test_a_split_is_recognized_by_its_images(root: Path, tmp_path: Path) -> None:
    report, both = check(root), check_with(root, tmp_path / "both", "val")
    records = fingerprint(report, None)
    assert describe(records, report) == "train (3 images)"
    assert len(records[0]["fingerprint"]) == 16
    assert describe([], report) == ""
    # Train and val together are recognized in the official split.
    assert describe(fingerprint(both, None), report) == "train+val (5 images)"
    assert describe(fingerprint(both, None), both) == "train (5 images)"
    assert describe(records, both).startswith("3 other images (fingerprint ")


def test_images_of_earlier_runs_count_too(root: Path, tmp_path: Path) -> None:
    report = check(root)
    earlier = fingerprint(check_with(root, tmp_path / "both", "test"), None)
    records = fingerprint(report, {"trained_on": earlier})
    assert describe(records, report) == "train+test (5 images), then train (3 images)"
    assert fingerprint(report, {"trained_on": records}) == records  # the same images add nothing
    unknown = fingerprint(report, {})
    assert describe(unknown, report) == "unknown images, then train (3 images)"


def test_records_of_version_0_1_0_are_read(root: Path) -> None:
    """They count "pictures"."""
    report = check(root)
    (record,) = fingerprint(report, None)
    old = {"pictures": record["images"], "fingerprint": record["fingerprint"]}
    current = current_names({"trained_on": [old]})  # as a model's file is read
    assert describe(current["trained_on"], report) == "train (3 images)"
    assert fingerprint(report, current) == [record]
