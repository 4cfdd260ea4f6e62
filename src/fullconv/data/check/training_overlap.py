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

    `earlier` is `training` of the model that the run starts from, or None.
    """
    before = [] if earlier is None else list(earlier.get("trained_on", [UNKNOWN]))
    now = _record(report, ("train",))
    same = before and before[-1]["fingerprint"] == now["fingerprint"]
    return before if same else [*before, now]


def describe_training_overlap(records: Sequence[Mapping[str, Any]], report: CheckReport) -> str:
    """Return the images that a model was trained on: "train+val (468 images)"; "" if unknown.

    `records` are from `training_split_fingerprint`; the images may be splits of the report's
    dataset.
    """
    splits = [split for split, pairs in report.dataset.splits.items() if pairs]
    names: dict[str, str] = {}  # fingerprint -> the fewest splits with these images
    for count in range(1, len(splits) + 1):
        for subset in combinations(splits, count):
            names.setdefault(_record(report, subset)["fingerprint"], "+".join(subset))
    text: str = join([])
    for record in records:
        count, fingerprint = record.get("images", 0), record["fingerprint"]
        if not fingerprint:
            step = msg("unknown images")
        elif name := names.get(fingerprint):
            step = nmsg("{name} ({count} image)", "{name} ({count} images)", count, name=name)
        else:
            step = nmsg(
                "{count} other image (fingerprint {fingerprint})",
                "{count} other images (fingerprint {fingerprint})",
                count,
                fingerprint=fingerprint,
            )
        text = msg("{before}, then {step}", before=text, step=step) if text else step
    return text


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
