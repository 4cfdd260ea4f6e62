"""How far the difference of two models would be another on other images of the same kind: a
bootstrap over images, paired (Efron & Tibshirani, An Introduction to the Bootstrap, 1993).

A resample draws as many images as there are, with replacement, the same ones for every model; its
value is that of the summed confusion matrices, not a mean over images. The middle 95 % of the
resamples' differences are the interval. For few images that is too narrow, for two reasons, and
both are put right about the estimate:

- a resample varies about its own mean with n degrees of freedom where there are n - 1, and the
  normal quantile stands where Student's belongs (Hesterberg's expanded percentiles, The American
  Statistician 69, 2015);
- classes that few images show are lost in many resamples. The jackknife, which leaves one image
  out at a time, does not lose them, and its spread is rather too large than too small (Efron &
  Stein, 1981). Where it is the larger one, the interval of a class is stretched to it, and that of
  a metric, in which classes make up for each other, half of the way.

How often such intervals hold the truth is measured by `benchmarks/bootstrap.py`.

n images · K classes · B resamples. Margins are (n, 3, K): see `fullconv.evaluation.per_image.ImageConfusions.margins`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fullconv.core.metric_names import TITLES
from fullconv.evaluation.metrics import ratios

METRICS = tuple(TITLES)
RESAMPLES = 4000
LEVEL = 0.95
FEW = 6  # images that show a class; where fewer do, there is no interval
_CHUNK = 1 << 22  # numbers of drawn images that are held at once


@dataclass(frozen=True)
class Interval:
    """A difference, and where the true one lies.

    Args:
        value: the difference on these images, fraction; nan where one of both is not defined.
        low, high: of the 95 % interval; nan where there are too few images for one.
        together: of classes, whether they still differ when all are asked at once.
    """

    value: float
    low: float
    high: float
    together: bool = False

    @property
    def real(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Difference:
    """Of one model against another.

    Args:
        metrics: the differences of `METRICS`, by name.
        classes: the differences of the K classes' IoU.
    """

    metrics: dict[str, Interval]
    classes: tuple[Interval, ...]


def values_of(sums: np.ndarray) -> np.ndarray:
    """(..., 3, K) right, true and called pixels, summed -> (..., 4 + K): `METRICS` and the IoU of
    each class; nan where a class does not occur. As `fullconv.evaluation.metrics.Metrics` has them."""
    right, true, called = np.moveaxis(np.asarray(sums, np.float64), -2, 0)
    iou = ratios(right, true + called - right)
    accuracy = ratios(right, true)
    whole = true.sum(-1)
    metrics = (
        _mean(iou),
        ratios(right.sum(-1), whole),
        _mean(accuracy),
        ratios((true * np.nan_to_num(iou)).sum(-1), whole),
    )
    return np.concatenate([np.stack(metrics, -1), iou], -1)


def differences(
    margins: Sequence[np.ndarray], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Difference]:
    """Of each model but the first against the first.

    Args:
        margins: of each model, (n, 3, K) of the same images and classes in the same order.
        resamples: B.
        seed: of the images that are drawn; the same seed gives the same intervals.
    """
    shown = (margins[0][:, 1] > 0).sum(0)  # images, by class; in truth, and so of every model
    exact = [values_of(of.sum(0)) for of in margins]
    drawn = _resampled(margins, resamples, seed)
    left_out = [values_of(of.sum(0) - of) for of in margins]
    images = np.concatenate([np.full(len(METRICS), len(margins[0])), shown])
    return [
        _difference(
            exact[k] - exact[0],
            drawn[k] - drawn[0],
            left_out[k] - left_out[0],
            images,
            _together(margins[0], margins[k], shown >= FEW, resamples, seed),
        )
        for k in range(1, len(margins))
    ]


def _resampled(margins: Sequence[np.ndarray], resamples: int, seed: int) -> list[np.ndarray]:
    """(B, 4 + K) the values of each model, of the same images in each resample."""
    count, _, classes = margins[0].shape
    chance = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in margins]
    step = max(1, _CHUNK // count)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = chance.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        for part, of in zip(parts, margins, strict=True):
            sums = times.astype(np.float64) @ of.reshape(count, -1)
            part.append(values_of(sums.reshape(size, 3, classes)))
    return [np.concatenate(part) for part in parts]


def _difference(
    exact: np.ndarray,
    drawn: np.ndarray,
    left_out: np.ndarray,
    images: np.ndarray,
    together: np.ndarray,
) -> Difference:
    """Of (4 + K,) differences: as they are, of the resamples (B, ...), with each image left out
    (n, ...), and how many images show what each is about; and of (K,) `_together`."""
    from scipy.stats import norm, t

    count, ahead = len(left_out), len(METRICS)
    if count < FEW:
        images = np.zeros_like(images)
    wide = np.sqrt(count / (count - 1)) if count > 1 else 1.0
    student = t.ppf((1 + LEVEL) / 2, max(1, count - 1))
    tail = norm.cdf(-wide * student)
    with warnings.catch_warnings():  # a class that no resample shows
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
        spread = np.nanstd(drawn, axis=0)
        off = left_out - np.nanmean(left_out, axis=0)
        jackknife = np.sqrt((1 - 1 / count) * np.nansum(off**2, axis=0))
        stretch = np.fmax(1, jackknife / (wide * spread))
        stretch[:ahead] = (1 + stretch[:ahead]) / 2
    known = (images >= FEW) & np.isfinite(exact) & (spread > 0)
    low = np.where(known, exact + stretch * (low - exact), np.nan)
    high = np.where(known, exact + stretch * (high - exact), np.nan)
    none = np.isfinite(exact) & (images >= FEW) & (spread == 0)  # the same in every image
    low, high = np.where(none, exact, low), np.where(none, exact, high)
    table = zip(exact.tolist(), low.tolist(), high.tolist(), strict=True)
    rows = [Interval(value, first, last) for value, first, last in table]
    classes = [
        replace(one, together=bool(one.real and flag))
        for one, flag in zip(rows[ahead:], together, strict=True)
    ]
    return Difference(dict(zip(METRICS, rows, strict=False)), tuple(classes))


def _together(
    one: np.ndarray, other: np.ndarray, enough: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """(K,) which classes differ when all are asked at once: if it did not matter which of the
    models counted an image, what each counted could be swapped. A class differs where it does so
    by more than the class that differs most does in 95 % of such swaps, each in units of its
    spread (Westfall & Young, Resampling-Based Multiple Testing, 1993).

    Args:
        enough: (K,) which classes are asked.
    """
    count, _, classes = one.shape
    chance = np.random.default_rng(seed)
    first, second = (of.reshape(count, -1) for of in (one, other))
    both = (first + second).sum(0)
    parts = []
    step = max(1, _CHUNK // count)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        kept = chance.integers(0, 2, (size, count)).astype(np.float64)
        sums = first.sum(0) + kept @ (second - first)
        ious = (values_of(of.reshape(size, 3, classes)) for of in (sums, both - sums))
        parts.append(np.subtract(*ious)[:, len(METRICS) :])
    swapped = np.concatenate(parts)
    exact = (values_of(other.sum(0)) - values_of(one.sum(0)))[len(METRICS) :]
    units = np.sqrt(np.nan_to_num(swapped**2).mean(0))
    asked = enough & np.isfinite(exact) & (units > 0)
    if not asked.any():
        return asked
    largest = np.nanmax(np.abs(swapped[:, asked]) / units[asked], axis=1)
    found = np.zeros_like(asked)
    found[asked] = np.abs(exact[asked]) / units[asked] > np.quantile(largest, LEVEL)
    return found


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the last axis, of what is known."""
    known = ~np.isnan(values)
    return ratios(np.where(known, values, 0).sum(-1), known.sum(-1))
