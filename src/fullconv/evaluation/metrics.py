"""The paper's four numbers, from one confusion matrix over the whole split (its score.py, §5).

`hist[i, j]` counts the pixels of true class i that were called j. Pixels whose true id lies outside
0 .. K-1 do not count. Every mean is over classes that occur in the truth or in the prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fullconv.core.metric_names import further_heads, never_predicted
from fullconv.core.text import LIST_LIMIT, truncated_list


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """(K, K) pixel counts of true class i called class j, int64.

    Args:
        truth: class ids of any shape; those outside 0 .. K-1 are left out.
        prediction: class ids 0 .. K-1 of the same shape.
    """
    valid = (truth >= 0) & (truth < num_classes)
    pairs = num_classes * truth[valid].astype(np.int64) + prediction[valid]
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


@dataclass(frozen=True)
class Metrics:
    """Fractions 0-1 over all pixels of a split; nan where a class does not occur.

    Args:
        names: of the classes.
        confusion: (K, K) pixel counts, rows are the truth.
    """

    names: Sequence[str]
    confusion: np.ndarray

    @property
    def _hist(self) -> np.ndarray:
        return np.asarray(self.confusion, dtype=np.float64)

    @property
    def pixel_accuracy(self) -> float:
        """Share of the pixels that are right."""
        return _ratio(np.trace(self._hist), self._hist.sum())

    @property
    def class_accuracy(self) -> np.ndarray:
        """(K,) share of each class's pixels that are right."""
        return ratios(np.diag(self._hist), self._hist.sum(axis=1))

    @property
    def class_precision(self) -> np.ndarray:
        """(K,) share of the pixels called each class that are right."""
        return ratios(np.diag(self._hist), self._hist.sum(axis=0))

    @property
    def class_iou(self) -> np.ndarray:
        """(K,) intersection over union of truth and prediction."""
        hist = self._hist
        union = hist.sum(axis=1) + hist.sum(axis=0) - np.diag(hist)
        return ratios(np.diag(hist), union)

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes that occur in the truth."""
        return known_mean(self.class_accuracy)

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that occur in the truth or in the prediction."""
        return known_mean(self.class_iou)

    @property
    def mean_iou_present(self) -> float:
        """Mean over the classes that occur in the truth only (the paper's rule for SIFT Flow)."""
        return known_mean(self.class_iou[self._hist.sum(axis=1) > 0])

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU weighted by each class's share of the true pixels."""
        freq = self._hist.sum(axis=1)
        return _ratio((freq[freq > 0] * self.class_iou[freq > 0]).sum(), freq.sum())

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; None for nan."""
        return {
            "mean_iou": plain(self.mean_iou),
            "pixel_accuracy": plain(self.pixel_accuracy),
            "mean_accuracy": plain(self.mean_accuracy),
            "frequency_weighted_iou": plain(self.frequency_weighted_iou),
            "mean_iou_present": plain(self.mean_iou_present),
            "per_class_iou": self._by_name(self.class_iou),
            "per_class_accuracy": self._by_name(self.class_accuracy),
            "per_class_precision": self._by_name(self.class_precision),
            "confusion": np.asarray(self.confusion).tolist(),
        }

    def _by_name(self, values: np.ndarray) -> dict[str, float | None]:
        return {name: plain(v) for name, v in zip(self.names, values, strict=True)}


def heads_dict(heads: Mapping[str, Metrics]) -> dict[str, Any]:
    """What goes beside `Metrics.to_dict()` of the first head where there are further ones: theirs,
    by name, under "heads"."""
    return {"heads": {name: of.to_dict() for name, of in heads.items()}} if heads else {}


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """`Metrics.to_dict()` as text for a terminal: the four numbers, then a line per class. Further
    heads follow."""
    tables = [_table(metrics)]
    tables += [f"head {name}\n\n{_table(of)}" for name, of in further_heads(metrics).items()]
    return "\n\n".join(tables)


def _table(metrics: Mapping[str, Any]) -> str:
    lines = [
        f"{'mean IoU':<24}{_percent(metrics['mean_iou'])}",
        f"{'pixel accuracy':<24}{_percent(metrics['pixel_accuracy'])}",
        f"{'mean accuracy':<24}{_percent(metrics['mean_accuracy'])}",
        f"{'frequency weighted IoU':<24}{_percent(metrics['frequency_weighted_iou'])}",
    ]
    lines += ["", f"{'class':<24}{'IoU':>6}{'accuracy':>10}{'precision':>11}"]
    right = metrics["per_class_accuracy"]
    precise = metrics.get("per_class_precision", {})  # not in files of earlier versions
    absent = [name for name, iou in metrics["per_class_iou"].items() if iou is None]
    lines += [
        f"{name[:23]:<24}{_percent(iou)}{_percent(right[name]):>10}{_percent(precise.get(name)):>11}"
        for name, iou in metrics["per_class_iou"].items()
        if iou is not None or len(absent) <= LIST_LIMIT
    ]
    never = never_predicted(metrics)
    if absent or never:
        lines.append("")
    if never:
        lines.append(f"never predicted: {truncated_list(never)}")
    if absent:
        lines.append(
            f"neither present nor predicted, left out of the means: {truncated_list(absent)}"
        )
    return "\n".join(lines)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def ratios(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Of any shape; nan where there is no whole."""
    return np.divide(parts, wholes, out=np.full(np.shape(wholes), np.nan), where=wholes > 0)


def known_mean(values: np.ndarray) -> float:
    """Of those that are not nan; nan where none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def plain(value: float) -> float | None:
    """JSON-able: None for nan."""
    return None if np.isnan(value) else float(value)


def _percent(value: float | None) -> str:
    return "     -" if value is None else f"{100 * value:6.2f}"
