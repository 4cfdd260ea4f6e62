"""The images that a model was trained on, recognized by content."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fullconv.core.metric_names import current_names
from fullconv.data.check.check import CheckReport, check
from fullconv.data.check.training_overlap import (
    describe_training_overlap,
    training_split_fingerprint,
)
from fullconv.data.synthetic import scenes as drawn


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("scenes")
    return drawn.write(place, train=3, val=2, test=2, size=(48, 64))


def added(root: Path, to: Path, source: str, target: str) -> CheckReport:
    """Check a copy of the dataset that has the images of one split in another, too."""
    shutil.copytree(root, to)
    for part in ("images", "masks"):
        for path in (to / part / source).iterdir():
            shutil.copy(path, to / part / target / f"more_{path.name}")
    return check(to)


def test_a_split_is_recognized_by_its_images(root: Path) -> None:
    report = check(root)
    records = training_split_fingerprint(report, None)
    assert describe_training_overlap(records, report) == "train (3 images)"
    assert len(records[0]["fingerprint"]) == 16
    assert describe_training_overlap([], report) == ""


def test_train_and_val_together_are_recognized_in_the_official_split(
    root: Path, tmp_path: Path
) -> None:
    both = added(root, tmp_path / "both", "val", "train")
    assert (
        describe_training_overlap(training_split_fingerprint(both, None), check(root))
        == "train+val (5 images)"
    )
    assert (
        describe_training_overlap(training_split_fingerprint(both, None), both)
        == "train (5 images)"
    )
    assert describe_training_overlap(
        training_split_fingerprint(check(root), None), both
    ).startswith("3 other images (fingerprint ")


def test_images_of_earlier_runs_count_too(root: Path, tmp_path: Path) -> None:
    report = check(root)
    both = added(root, tmp_path / "both", "test", "train")
    earlier = {"trained_on": training_split_fingerprint(both, None)}
    records = training_split_fingerprint(report, earlier)
    assert (
        describe_training_overlap(records, report) == "train+test (5 images), then train (3 images)"
    )
    assert (
        training_split_fingerprint(report, {"trained_on": records}) == records
    )  # the same images again add nothing
    unknown = training_split_fingerprint(report, {})
    assert describe_training_overlap(unknown, report) == "unknown images, then train (3 images)"


def test_records_of_version_0_1_0_are_read(root: Path) -> None:
    """They count "pictures"."""
    report = check(root)
    (record,) = training_split_fingerprint(report, None)
    old = {"pictures": record["images"], "fingerprint": record["fingerprint"]}
    current = current_names({"trained_on": [old]})  # as a model's file is read
    assert describe_training_overlap(current["trained_on"], report) == "train (3 images)"
    assert training_split_fingerprint(report, current) == [record]
