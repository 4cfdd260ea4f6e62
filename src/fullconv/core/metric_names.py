"""The names of the metrics, and one-line summaries of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fullconv.core.i18n import Message, join, msg, nmsg
from fullconv.core.text import percent

# The paper's four metrics, by their key in metrics.json.
TITLES = {
    "mean_iou": msg("mean IoU"),
    "pixel_accuracy": msg("pixel accuracy"),
    "mean_accuracy": msg("mean accuracy"),
    "frequency_weighted_iou": msg("frequency-weighted IoU"),
}


def headline(metrics: Mapping[str, Any]) -> Message:
    """Return the mean IoU of each head in one line, from `Metrics.to_dict()` with its protocol."""
    card = metrics["protocol"]
    parts = [_mean_iou(metrics)]
    for name, head in additional_heads(metrics).items():
        parts.append(msg("{head} {mean_iou}", head=name, mean_iou=_mean_iou(head)))
    return nmsg(
        "mean IoU {mean_iou} on {split} ({count} image)",
        "mean IoU {mean_iou} on {split} ({count} images)",
        card["images"],
        mean_iou=join(parts, ", "),
        split=card["split"],
    )


def never_predicted(metrics: Mapping[str, Any]) -> list[str]:
    """Return the classes of `Metrics.to_dict()` that occur in the ground truth only."""
    confusion = np.asarray(metrics["confusion"])
    actual_pixels, predicted_pixels = confusion.sum(axis=1), confusion.sum(axis=0)
    pixels = zip(metrics["per_class_iou"], actual_pixels, predicted_pixels, strict=True)
    return [name for name, actual, predicted in pixels if actual and not predicted]


def _mean_iou(metrics: Mapping[str, Any]) -> str:
    if metrics["mean_iou"] is None:
        return msg("is undefined (no labeled pixel)")
    return percent(metrics["mean_iou"])


def additional_heads(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics of the additional heads by name."""
    return dict(metrics.get("heads", {}))


# Keys of metrics, and phrases of a protocol's "trained_on", before they were renamed.
_RENAMED = {"pictures": "images", "picture_size": "image_size"}
_RENAMED_PHRASES = {"pictures that are not stated": "unknown images", "picture": "image"}


def current_names(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of metrics that were written before they were renamed.

    The names of classes and heads are keys, too; they stay, whatever they are called.
    """
    current = {_RENAMED.get(key, key): value for key, value in metrics.items()}
    for key in ("protocol", "data"):
        if isinstance(current.get(key), Mapping):
            current[key] = current_names(current[key])
    if isinstance(current.get("heads"), Mapping):
        current["heads"] = {
            name: current_names(head) if isinstance(head, Mapping) else head
            for name, head in current["heads"].items()
        }
    if isinstance(current.get("trained_on"), str):  # "train (367 images)", in a protocol
        for phrase, renamed in _RENAMED_PHRASES.items():
            current["trained_on"] = current["trained_on"].replace(phrase, renamed)
    elif isinstance(current.get("trained_on"), list):  # of a model: fingerprints and counts
        current["trained_on"] = [current_names(record) for record in current["trained_on"]]
    return current
