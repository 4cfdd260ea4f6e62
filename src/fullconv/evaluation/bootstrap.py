"""Confidence intervals of the differences between models: a paired bootstrap over images (Efron &
Tibshirani, An Introduction to the Bootstrap, 1993).

A resample draws as many images as there are, with replacement, the same ones for every model; its
value is that of the summed confusion matrices, not a mean over images. The middle 95 % of the
resampled differences are the interval. For few images it is too narrow, for two reasons, and both
are corrected around the estimate:

- a resample varies about its own mean with n degrees of freedom instead of n - 1, and the normal
  quantile is used instead of Student's (Hesterberg's expanded percentiles, The American
  Statistician 69, 2015);
- classes that few images show are missing in many resamples. The jackknife, which leaves out one
  image at a time, keeps them, and its spread is rather too large than too small (Efron & Stein,
  1981). If it is larger, the interval of a class is stretched to it, and that of a metric, in which
  classes compensate for each other, half of the way.

`benchmarks/bootstrap.py` measures how often such intervals contain the true difference.

n images · K classes · B resamples. Margins are (n, 3, K): see
`fullconv.evaluation.per_image.ImageConfusions.margins`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fullconv.core.metric_names import TITLES
from fullconv.evaluation.metrics import iou_from_sums, ratios

METRICS = tuple(TITLES)
RESAMPLES = 4000
LEVEL = 0.95
FEW = 6  # images that show a class; with fewer there is no interval
_CHUNK = 1 << 22  # numbers of drawn images that are held at once


@dataclass(frozen=True)
class Interval:
    """A difference as a fraction with its 95 % confidence interval."""

    value: float  # on these images; NaN if one of the two is undefined
    low: float  # NaN with too few images
    high: float
    significant_familywise: bool = False  # a class differs if all are tested at once

    @property
    def significant(self) -> bool:
        """True if the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Difference:
    """The differences of one model from another."""

    metrics: dict[str, Interval]  # `METRICS` by name
    classes: tuple[Interval, ...]  # IoU of the K classes


def metric_values(sums: np.ndarray) -> np.ndarray:
    """Compute `METRICS` and the IoU of each class, as `Metrics` does: (..., 4 + K), from correct,
    true and predicted pixels: (..., 3, K)."""
    correct, true, predicted = np.moveaxis(np.asarray(sums, np.float64), -2, 0)
    iou = iou_from_sums(correct, true, predicted)
    pixels = true.sum(-1)
    metrics = (
        _nan_mean(iou),
        ratios(correct.sum(-1), pixels),
        _nan_mean(ratios(correct, true)),
        ratios((true * np.nan_to_num(iou)).sum(-1), pixels),
    )
    return np.concatenate([np.stack(metrics, -1), iou], -1)


def differences(
    margins: Sequence[np.ndarray], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Difference]:
    """Compute the differences of each model after the first from the first.

    Args:
        margins: of each model, (n, 3, K) of the same images and classes in the same order.
        resamples: B.
        seed: of the drawn images; the same seed gives the same intervals.
    """
    images = (margins[0][:, 1] > 0).sum(0)  # that show each class: the same for every model
    appearances = np.concatenate([np.full(len(METRICS), len(margins[0])), images])
    exact = [metric_values(model.sum(0)) for model in margins]
    drawn = _resample(margins, resamples, seed)
    left_out = [metric_values(model.sum(0) - model) for model in margins]
    results = []
    for k in range(1, len(margins)):
        familywise = _familywise(margins[0], margins[k], images >= FEW, resamples, seed)
        whole, resampled, reduced = (x[k] - x[0] for x in (exact, drawn, left_out))
        results.append(_difference(whole, resampled, reduced, appearances, familywise))
    return results


def _chunks(resamples: int, images: int) -> Iterator[int]:
    """Yield how many resamples to draw at once, so that memory is bounded."""
    step = max(1, _CHUNK // images)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def _resample(margins: Sequence[np.ndarray], resamples: int, seed: int) -> list[np.ndarray]:
    """Return the values of each model, (B, 4 + K), with the same images in each resample."""
    count, _, classes = margins[0].shape
    random = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in margins]
    for size in _chunks(resamples, count):
        drawn = random.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        for part, model in zip(parts, margins, strict=True):
            sums = times.astype(np.float64) @ model.reshape(count, -1)
            part.append(metric_values(sums.reshape(size, 3, classes)))
    return [np.concatenate(part) for part in parts]


def _difference(
    exact: np.ndarray,
    drawn: np.ndarray,
    left_out: np.ndarray,
    images: np.ndarray,
    familywise: np.ndarray,
) -> Difference:
    """Build the intervals from the differences on all images (4 + K,), in the resamples (B, 4 + K),
    and without one image each (n, 4 + K); `images` (4 + K,) counts those that show a class."""
    from scipy.stats import norm, t

    count, metrics = len(left_out), len(METRICS)
    if count < FEW:
        images = np.zeros_like(images)

    # The expanded percentile interval, stretched by the jackknife.
    widening = np.sqrt(count / (count - 1)) if count > 1 else 1.0
    tail = norm.cdf(-widening * t.ppf((1 + LEVEL) / 2, max(1, count - 1)))
    with warnings.catch_warnings():  # a class that no resample shows
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
        spread = np.nanstd(drawn, axis=0)
        deviations = left_out - np.nanmean(left_out, axis=0)
        jackknife = np.sqrt((1 - 1 / count) * np.nansum(deviations**2, axis=0))
        stretch = np.fmax(1, jackknife / (widening * spread))
        stretch[:metrics] = (1 + stretch[:metrics]) / 2

    # No interval with too few images; a point if the difference is the same in every image.
    enough = np.isfinite(exact) & (images >= FEW)
    varies, constant = enough & (spread > 0), enough & (spread == 0)
    low, high = (
        np.where(varies, exact + stretch * (end - exact), np.where(constant, exact, np.nan))
        for end in (low, high)
    )
    intervals = list(map(Interval, exact.tolist(), low.tolist(), high.tolist()))
    classes = [
        replace(interval, significant_familywise=bool(interval.significant and flag))
        for interval, flag in zip(intervals[metrics:], familywise, strict=True)
    ]
    return Difference(dict(zip(METRICS, intervals, strict=False)), tuple(classes))


def _familywise(
    first: np.ndarray, second: np.ndarray, tested: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """Test which of the `tested` classes (K,) differ when all are tested at once: (K,).

    If the models did not differ, their counts of an image could be swapped. Each swap has a largest
    difference of any class, in units of the spread of that class. A class differs if its own
    difference exceeds 95 % of these (Westfall & Young, Resampling-Based Multiple Testing, 1993).
    """
    count, _, classes = first.shape
    random = np.random.default_rng(seed)
    flat_first, flat_second = first.reshape(count, -1), second.reshape(count, -1)
    both = (flat_first + flat_second).sum(0)
    parts = []
    for size in _chunks(resamples, count):
        swaps = random.integers(0, 2, (size, count)).astype(np.float64)
        sums = flat_first.sum(0) + swaps @ (flat_second - flat_first)
        values = (metric_values(s.reshape(size, 3, classes)) for s in (sums, both - sums))
        parts.append(np.subtract(*values)[:, len(METRICS) :])
    swapped = np.concatenate(parts)
    exact = (metric_values(second.sum(0)) - metric_values(first.sum(0)))[len(METRICS) :]
    units = np.sqrt(np.nan_to_num(swapped**2).mean(0))
    tested = tested & np.isfinite(exact) & (units > 0)
    if not tested.any():
        return tested
    largest = np.nanmax(np.abs(swapped[:, tested]) / units[tested], axis=1)
    differs = np.zeros_like(tested)
    differs[tested] = np.abs(exact[tested]) / units[tested] > np.quantile(largest, LEVEL)
    return differs


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of the non-NaN values over the last axis."""
    valid = ~np.isnan(values)
    return ratios(np.where(valid, values, 0).sum(-1), valid.sum(-1))
