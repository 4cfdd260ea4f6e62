"""The names of the metrics, and what a table of them says in a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fullconv.core.text import plural

# What the paper's four numbers are called.
TITLES = {
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency weighted IoU",
}


def headline(metrics: Mapping[str, Any]) -> str:
    """`Metrics.to_dict()` with its protocol card, in a line."""
    card, value = metrics["protocol"], metrics["mean_iou"]
    further = "".join(f", {k} {_number(v['mean_iou'])}" for k, v in further_heads(metrics).items())
    number = _number(value) + further
    return f"mean IoU {number} on {card['split']} ({plural(card['images'], 'image')})"


def never_predicted(metrics: Mapping[str, Any]) -> list[str]:
    """The classes in `Metrics.to_dict()` that occur in the truth and that no pixel was called."""
    confusion = np.asarray(metrics["confusion"])
    both = zip(metrics["per_class_iou"], confusion.sum(axis=1), confusion.sum(axis=0), strict=True)
    return [name for name, own, called in both if own and not called]


def _number(value: float | None) -> str:
    return "is not defined (no labelled pixel)" if value is None else f"{value:.1%}"


def further_heads(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(metrics.get("heads", {}))
