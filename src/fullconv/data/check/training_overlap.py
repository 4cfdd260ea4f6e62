"""Detect whether an evaluation split overlaps the training data, by content hash.

A training run records the number of its images and a fingerprint of them. An evaluation compares
these with the splits of its own dataset: a model trained on train and val together is recognized,
however its own dataset was organized.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from fullconv.core.i18n import join, msg, nmsg
from fullconv.data.check.check import CheckReport

UNKNOWN: dict[str, Any] = {"images": 0, "fingerprint": ""}


def training_split_fingerprint(
    report: CheckReport, earlier: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return what a training run records: the images of earlier runs, then those of its own.

    Args:
        report: of the dataset.
        earlier: `training` of the model that the run starts from, or None.
    """
    before = [] if earlier is None else list(earlier.get("trained_on", [UNKNOWN]))
    now = _record(report, ("train",))
    same = before and before[-1]["fingerprint"] == now["fingerprint"]
    return before if same else [*before, now]


def describe_training_overlap(records: Sequence[Mapping[str, Any]], report: CheckReport) -> str:
    """Return the images that a model was trained on: "train+val (468 images)"; "" if unknown.

    Args:
        records: from `training_split_fingerprint`.
        report: of the dataset whose splits these images may be.
    """
    splits = [split for split, pairs in report.dataset.splits.items() if pairs]
    names: dict[str, str] = {}  # fingerprint -> the fewest splits with these images
    for count in range(1, len(splits) + 1):
        for subset in combinations(splits, count):
            names.setdefault(_record(report, subset)["fingerprint"], "+".join(subset))
    steps = [_describe(record, names.get(record["fingerprint"], "")) for record in records]
    text: str = join(steps[:1])
    for step in steps[1:]:
        text = msg("{before}, then {step}", before=text, step=step)
    return text


def _describe(record: Mapping[str, Any], name: str) -> str:
    count, fingerprint = record.get("images", 0), record["fingerprint"]
    if not fingerprint:
        return msg("unknown images")
    if not name:
        return nmsg(
            "{count} other image (fingerprint {fingerprint})",
            "{count} other images (fingerprint {fingerprint})",
            count=count,
            fingerprint=fingerprint,
        )
    return nmsg("{name} ({count} image)", "{name} ({count} images)", count=count, name=name)


def _record(report: CheckReport, splits: Sequence[str]) -> dict[str, Any]:
    """Return the number of images in some splits and their fingerprint; copies of an image count
    once, and masks do not count."""
    hashes = {
        report.contents[split, pair.name][0]
        for split in splits
        for pair in report.dataset.splits[split]
    }
    digest = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
    return {"images": len(hashes), "fingerprint": digest[:16]}
