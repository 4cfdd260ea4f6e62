"""Metrics of the FCN paper (section 5), from one confusion matrix over the whole split.

`confusion[i, j]` counts the pixels of true class i that were predicted as class j. Pixels whose
true id is outside 0 .. K-1 are ignored. Means are over the classes that occur in the ground truth
or in the prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fullconv.core.i18n import join, msg, translate
from fullconv.core.metric_names import TITLES, additional_heads, never_predicted
from fullconv.core.text import LIST_LIMIT, align_columns, percent, truncated_list


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the pixels of each true class that were predicted as each class: (K, K) int64.

    Both are class ids of any shape; true ones outside 0 .. K-1 are ignored.
    """
    valid = (truth >= 0) & (truth < num_classes)
    pairs = num_classes * truth[valid].astype(np.int64) + prediction[valid]
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def iou_from_sums(correct: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return intersection over union from the pixels of each class; NaN where it does not occur."""
    return ratios(correct, true + predicted - correct)


def ratios(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Divide elementwise; NaN where the whole is 0."""
    return np.divide(parts, wholes, out=np.full(np.shape(wholes), np.nan), where=wholes > 0)


def nan_mean(values: np.ndarray) -> float:
    """Return the mean of the non-NaN values; NaN if there are none."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if len(numbers) else float("nan")


def none_if_nan(value: float) -> float | None:
    """Return a number that JSON can hold: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True)
class Metrics:
    """Fractions 0-1 over all pixels of a split; NaN for a class that does not occur.

    Args:
        names: class names.
        confusion: (K, K) pixel counts; rows are the ground truth.
    """

    names: Sequence[str]
    confusion: np.ndarray

    @property
    def _sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels of each class that are correct, true and predicted: (K,) float64 each."""
        counts = np.asarray(self.confusion, dtype=np.float64)
        return np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)

    @property
    def pixel_accuracy(self) -> float:
        """Share of all pixels that are correct."""
        correct, true, _ = self._sums
        return float(ratios(correct.sum(), true.sum()))

    @property
    def class_accuracy(self) -> np.ndarray:
        """Recall: share of each true class's pixels that are correct, (K,)."""
        correct, true, _ = self._sums
        return ratios(correct, true)

    @property
    def class_precision(self) -> np.ndarray:
        """Share of the pixels predicted as each class that are correct, (K,)."""
        correct, _, predicted = self._sums
        return ratios(correct, predicted)

    @property
    def class_iou(self) -> np.ndarray:
        """Intersection over union of each class, (K,)."""
        return iou_from_sums(*self._sums)

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy over the classes that occur in the ground truth."""
        return nan_mean(self.class_accuracy)

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur in the ground truth or in the prediction."""
        return nan_mean(self.class_iou)

    @property
    def mean_iou_present(self) -> float:
        """Mean IoU over the classes of the ground truth only (the paper's rule for SIFT Flow)."""
        return nan_mean(self.class_iou[self._sums[1] > 0])

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU weighted by each class's share of the true pixels."""
        true = self._sums[1]
        present = true > 0
        return float(ratios((true[present] * self.class_iou[present]).sum(), true.sum()))

    def to_dict(self) -> dict[str, Any]:
        """Return all metrics for JSON; None for NaN."""
        return {
            "mean_iou": none_if_nan(self.mean_iou),
            "pixel_accuracy": none_if_nan(self.pixel_accuracy),
            "mean_accuracy": none_if_nan(self.mean_accuracy),
            "frequency_weighted_iou": none_if_nan(self.frequency_weighted_iou),
            "mean_iou_present": none_if_nan(self.mean_iou_present),
            "per_class_iou": self._by_name(self.class_iou),
            "per_class_accuracy": self._by_name(self.class_accuracy),
            "per_class_precision": self._by_name(self.class_precision),
            "confusion": np.asarray(self.confusion).tolist(),
        }

    def _by_name(self, values: np.ndarray) -> dict[str, float | None]:
        return dict(zip(self.names, map(none_if_nan, values), strict=True))


def heads_dict(heads: Mapping[str, Metrics]) -> dict[str, Any]:
    """Return the metrics of additional heads under "heads", or nothing if there are none."""
    return {"heads": {name: head.to_dict() for name, head in heads.items()}} if heads else {}


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Format `Metrics.to_dict()` for a terminal: the four metrics, then a line per class. The
    tables of additional heads follow."""
    tables = [_head_table(metrics)]
    for name, head in additional_heads(metrics).items():
        tables.append(translate(msg("head {name}", name=name)) + f"\n\n{_head_table(head)}")
    return "\n\n".join(tables)


def _head_table(metrics: Mapping[str, Any]) -> str:
    four = [[title, percent(metrics[key], 2)] for key, title in TITLES.items()]
    iou, recall = metrics["per_class_iou"], metrics["per_class_accuracy"]
    precision = metrics.get("per_class_precision", {})  # missing in files of earlier versions
    absent = [name for name, value in iou.items() if value is None]
    listed = [name for name in iou if name not in absent or len(absent) <= LIST_LIMIT]
    rows: list[list[str]] = [[msg("class"), msg("IoU"), msg("recall (accuracy)"), msg("precision")]]
    for name in listed:
        rows.append([name, *(percent(x.get(name), 2) for x in (iou, recall, precision))])
    notes = []
    if never := never_predicted(metrics):
        notes.append(msg("never predicted: {names}", names=truncated_list(never)))
    if absent:
        names = truncated_list(absent)
        notes.append(
            msg("in neither ground truth nor prediction, not averaged: {names}", names=names)
        )
    parts = [align_columns(four), align_columns(rows), *([translate(join(notes))] if notes else [])]
    return "\n\n".join(parts)
