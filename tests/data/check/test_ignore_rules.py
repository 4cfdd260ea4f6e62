"""Datasets whose errors are ignored by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.check.check import check
from fullconv.data.check.ignore_rules import apply_ignore_rules
from fullconv.data.io.masks import read_mask
from fullconv.data.synthetic import scenes as drawn


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Scenes whose first training mask is damaged and whose second has an unknown value."""
    root = drawn.write(tmp_path / "scenes", train=4, val=2, test=1, size=(48, 64))
    masks = sorted((root / "masks" / "train").iterdir())
    masks[0].write_bytes(masks[0].read_bytes()[:60])
    ids = np.array(Image.open(masks[1]))
    ids[3, 4] = 77
    Image.fromarray(ids).save(masks[1])
    return root


def test_only_findings_of_the_rules_are_left_out(root: Path) -> None:
    report = check(root)
    dataset = apply_ignore_rules(report, " unreadable, unknown-value ,leak")
    before, after = report.dataset.splits, dataset.splits
    assert [p.name for p in after["train"]] == [p.name for p in before["train"]][1:]
    assert after["val"] == before["val"]
    assert after["test"] == before["test"]
    ids = read_mask(after["train"][0].mask, dataset.labels)
    assert ids[3, 4] == dataset.labels.ignore_index
    assert (ids == dataset.labels.ignore_index).sum() == 1
    check(dataset).raise_for_errors()  # no errors are left


@pytest.mark.parametrize("rules", ["", "unreadable", "unknown-value", "size"])
def test_other_errors_are_raised(root: Path, rules: str) -> None:
    with pytest.raises(FullconvError, match=r"errors? in the dataset"):
        apply_ignore_rules(check(root), rules)


def test_a_dataset_without_errors_does_not_change(scenes: Path) -> None:
    report = check(scenes)
    assert apply_ignore_rules(report, "size") is report.dataset


def test_masks_without_a_meaning_cannot_be_ignored(tmp_path: Path) -> None:
    for number in range(4):
        mask = np.zeros((8, 8), np.uint8)
        mask[number:, 2:] = 255
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(mask).save(tmp_path / folder / f"{number}.png")
    report = check(tmp_path)
    rule = report.errors[0].rule
    with pytest.raises(
        FullconvError,
        match=f"{rule} cannot be ignored: the masks contain only 0 and 255; .* no meaning yet",
    ):
        apply_ignore_rules(report, rule)


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "scenes", train=2, val=1, test=1, size=(48, 64))
    for mask in (root / "masks" / "train").iterdir():
        mask.write_bytes(b"")
    with pytest.raises(FullconvError, match="nothing is left to train on"):
        apply_ignore_rules(check(root), "unreadable")
