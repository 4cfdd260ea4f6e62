"""The names of the metrics, and their summary in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fullconv.core.i18n import Message, join, msg, nmsg
from fullconv.core.text import percent

TITLES = {
    "mean_iou": msg("mean IoU"),
    "pixel_accuracy": msg("pixel accuracy"),
    "mean_accuracy": msg("mean accuracy"),
    "frequency_weighted_iou": msg("frequency weighted IoU"),
}


def headline(metrics: Mapping[str, Any]) -> Message:
    """Summarize `Metrics.to_dict()` with its protocol card in one line."""
    card = metrics["protocol"]
    heads = [
        msg("{head} {value}", head=name, value=_value(head["mean_iou"]))
        for name, head in additional_heads(metrics).items()
    ]
    return msg(
        "mean IoU {values} on {split} ({images})",
        values=join([_value(metrics["mean_iou"]), *heads], ", "),
        split=card["split"],
        images=nmsg("{count} image", "{count} images", card["images"]),
    )


def never_predicted(metrics: Mapping[str, Any]) -> list[str]:
    """Return the classes of `Metrics.to_dict()` that occur but were predicted for no pixel."""
    confusion = np.asarray(metrics["confusion"])
    sums = zip(metrics["per_class_iou"], confusion.sum(axis=1), confusion.sum(axis=0), strict=True)
    return [name for name, true, predicted in sums if true and not predicted]


def additional_heads(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics of the heads after the first one, by name."""
    return dict(metrics.get("heads", {}))


def _value(mean_iou: float | None) -> str:
    return msg("is not defined (no labeled pixel)") if mean_iou is None else percent(mean_iou)
