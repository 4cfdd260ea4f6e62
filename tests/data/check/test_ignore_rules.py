from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pairs import save, write_pairs

from fullconv.core.errors import FullconvError
from fullconv.data.check.check import check
from fullconv.data.check.ignore_rules import apply_ignore_rules
from fullconv.data.io.masks import read_mask, read_values
from fullconv.data.synthetic import scenes as synthetic


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Scenes whose first training mask is damaged and whose second has an unknown value."""
    root = synthetic.write(tmp_path / "scenes", train=4, val=2, test=1, size=(48, 64))
    masks = sorted((root / "masks" / "train").iterdir())
    masks[0].write_bytes(masks[0].read_bytes()[:60])
    ids = read_values(masks[1])
    ids[3, 4] = 77
    save(masks[1], ids)
    return root


def test_only_findings_of_the_rules_are_left_out(root: Path) -> None:
    report = check(root)
    dataset = apply_ignore_rules(report, " unreadable, unknown-value ,leak")
    before, after = report.dataset.splits, dataset.splits
    assert after == before | {"train": before["train"][1:]}
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
    report = check(write_pairs(tmp_path, {f"{k}": 255 * np.eye(8, k=k) for k in range(4)}))
    message = "black-and-white cannot be ignored: the masks contain only 0 and 255; .* no meaning"
    with pytest.raises(FullconvError, match=message):
        apply_ignore_rules(report, "black-and-white")


def test_nothing_left_to_train_on(root: Path) -> None:
    for mask in (root / "masks" / "train").iterdir():
        mask.write_bytes(b"")
    with pytest.raises(FullconvError, match="nothing is left to train on"):
        apply_ignore_rules(check(root), "unreadable")
