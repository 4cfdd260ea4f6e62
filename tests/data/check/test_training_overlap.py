"""Which images a model was trained on, however the data set lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

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
    """The data set with the images of one split in another, too."""
    shutil.copytree(root, to)
    for part in ("images", "masks"):
        for path in (to / part / source).iterdir():
            shutil.copy(path, to / part / target / f"more_{path.name}")
    return check(to)


def test_a_split_is_known_by_its_images(root: Path) -> None:
    report = check(root)
    seen = training_split_fingerprint(report, None)
    assert describe_training_overlap(seen, report) == "train (3 images)"
    assert len(seen[0]["fingerprint"]) == 16
    assert describe_training_overlap([], report) == ""


def test_train_and_val_together_are_known_in_the_official_split(root: Path, tmp_path: Path) -> None:
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


def test_what_was_seen_before_counts_too(root: Path, tmp_path: Path) -> None:
    report = check(root)
    both = added(root, tmp_path / "both", "test", "train")
    earlier = {"trained_on": training_split_fingerprint(both, None)}
    seen = training_split_fingerprint(report, earlier)
    assert describe_training_overlap(seen, report) == "train+test (5 images), then train (3 images)"
    assert (
        training_split_fingerprint(report, {"trained_on": seen}) == seen
    )  # the same again adds nothing
    unknown = training_split_fingerprint(report, {})
    assert (
        describe_training_overlap(unknown, report)
        == "images that are not stated, then train (3 images)"
    )
