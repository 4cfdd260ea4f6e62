"""Which images a model was trained on, told by their content.

A training notes how many images it saw and a fingerprint of them. An evaluation looks which
splits of its own data set are just these images: a model that was trained on train and val
together is known as such, however its own data set was laid out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from fullconv.core.text import plural
from fullconv.data.check.check import CheckReport

UNKNOWN: dict[str, Any] = {"images": 0, "fingerprint": ""}


def training_split_fingerprint(
    report: CheckReport, earlier: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """What a training notes: the images of its training split, after those that the model it
    starts from has seen.

    Args:
        report: of the data set; the images are those of `report.dataset`.
        earlier: `training` of the model that it starts from, or None.
    """
    before = [] if earlier is None else list(earlier.get("trained_on", [UNKNOWN]))
    now = _seen(report, ("train",))
    return before if before[-1:] == [now] else [*before, now]


def describe_training_overlap(seen: Sequence[Mapping[str, Any]], report: CheckReport) -> str:
    """In words: "train+val (468 images)"; "" where nothing is noted.

    Args:
        seen: what `training_split_fingerprint` made.
        report: of the data set whose splits these may be.
    """
    there = [split for split, pairs in report.dataset.splits.items() if pairs]
    names: dict[str, str] = {}
    for count in range(1, len(there) + 1):
        for splits in combinations(there, count):
            names.setdefault(_seen(report, splits)["fingerprint"], "+".join(splits))
    return ", then ".join(_words(one, names.get(one["fingerprint"], "")) for one in seen)


def _words(one: Mapping[str, Any], name: str) -> str:
    if not one["fingerprint"]:
        return "images that are not stated"
    if not name:
        return f"{plural(one['images'], 'other image')} (fingerprint {one['fingerprint']})"
    return f"{name} ({plural(one['images'], 'image')})"


def _seen(report: CheckReport, splits: Sequence[str]) -> dict[str, Any]:
    """How many images of these splits there are, and a fingerprint of them; the same image
    twice counts once, and masks do not count."""
    found = {
        report.contents[split, pair.name][0]
        for split in splits
        for pair in report.dataset.splits[split]
    }
    digest = hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()
    return {"images": len(found), "fingerprint": digest[:16]}
