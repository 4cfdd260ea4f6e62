"""Differences against their definition, and intervals against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from evaluated import confusions, matrices
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from fullconv.evaluation.bootstrap import FEW, METRICS, Difference, differences, metric_values
from fullconv.evaluation.metrics import Metrics


def margins(counts: np.ndarray) -> np.ndarray:
    return confusions([f"c{k}" for k in range(counts.shape[1])], counts).margins


def difference(first: np.ndarray, second: np.ndarray, **options: int) -> Difference:
    (result,) = differences([margins(first), margins(second)], **{"resamples": 300, **options})
    return result


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
def test_the_values_are_those_of_the_metrics(images: int, classes: int, seed: int) -> None:
    """Classes that are absent, only true, and only predicted among them."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 9, (images, classes, classes))
    counts *= random.random((1, classes, 1)) < 0.7
    counts *= random.random((1, 1, classes)) < 0.8
    metrics = Metrics([f"c{k}" for k in range(classes)], counts.sum(0))
    expected = [*(getattr(metrics, name) for name in METRICS), *metrics.class_iou]
    np.testing.assert_allclose(metric_values(margins(counts).sum(0)), expected, rtol=1e-12)


def test_a_model_does_not_differ_from_itself_in_any_resample() -> None:
    result = difference(matrices(30), matrices(30))
    for interval in (*result.metrics.values(), *result.classes):
        assert (interval.value, interval.low, interval.high) == (0, 0, 0)
        assert not interval.significant
        assert not interval.significant_familywise


def test_the_interval_is_that_of_the_summed_matrices() -> None:
    """Drawn here again, image by image, with another generator: only the noise of the ends is left.
    The stretch by the jackknife is computed from its definition."""
    first, second = matrices(40, right=0.6), matrices(40, right=0.66)
    interval = difference(first, second, resamples=4000).metrics["mean_iou"]
    random = np.random.default_rng(9)

    def value(chosen: np.ndarray) -> float:
        one, other = (Metrics("abc", counts[chosen].sum(0)).mean_iou for counts in (first, second))
        return other - one

    drawn = np.array([value(random.integers(0, 40, 40)) for _ in range(3000)])
    exact = value(np.arange(40))
    left_out = np.array([value(np.delete(np.arange(40), k)) for k in range(40)])
    jackknife = np.sqrt(39 / 40 * ((left_out - left_out.mean()) ** 2).sum())
    widening = np.sqrt(40 / 39)
    stretch = (1 + max(1, jackknife / (widening * drawn.std()))) / 2
    tail = norm.cdf(-widening * t.ppf(0.975, 39))
    low, high = (exact + stretch * (np.quantile(drawn, q) - exact) for q in (tail, 1 - tail))
    assert interval.value == pytest.approx(exact)
    assert interval.low == pytest.approx(low, abs=0.06 * (high - low))
    assert interval.high == pytest.approx(high, abs=0.06 * (high - low))


def test_the_same_seed_gives_the_same_interval() -> None:
    pair = [matrices(25, right=r) for r in (0.6, 0.7)]
    first, again, other = (difference(*pair, seed=s).metrics["mean_iou"] for s in (1, 1, 2))
    assert first == again
    assert first.value == other.value
    assert (first.low, first.high) != (other.low, other.high)


def test_intervals_contain_the_true_difference_about_as_often_as_promised() -> None:
    """150 samples of 40 from 4,000 images; `benchmarks/bootstrap.py` has thousands. By chance alone
    fewer than 133 of 150 would be met once in two thousand times."""
    models = [margins(matrices(4000, 4, right=r, seed=5)) for r in (0.62, 0.66)]
    true = metric_values(models[1].sum(0)) - metric_values(models[0].sum(0))
    random, hits = np.random.default_rng(0), np.zeros(8)
    for _ in range(150):
        chosen = random.integers(0, 4000, 40)
        (result,) = differences([model[chosen] for model in models], resamples=400)
        intervals = (*result.metrics.values(), *result.classes)
        hits += [i.low <= value <= i.high for i, value in zip(intervals, true, strict=True)]
    assert (hits >= 133).all(), hits
    assert hits.mean() <= 149


def test_a_large_difference_is_significant_and_a_small_one_is_not() -> None:
    first, second, third = (margins(matrices(60, right=r)) for r in (0.6, 0.62, 0.8))
    even = np.arange(60)[:, None, None] % 2 == 0  # each is better in every other image
    models = [np.where(even, first, second), np.where(even, second, first), third]
    small, large = differences(models, resamples=500)
    assert not small.metrics["mean_iou"].significant
    assert large.metrics["mean_iou"].significant
    assert all(i.significant and i.significant_familywise for i in large.classes)
    assert not any(i.significant_familywise for i in small.classes)


@pytest.mark.parametrize("images", [0, FEW - 1])
def test_a_class_in_few_images_has_no_interval(images: int) -> None:
    pair = [matrices(30, 4), matrices(30, 4, right=0.8)]
    for counts in pair:
        counts[images:, 3] = 0
        counts[images:, :, 3] = 0
    result = difference(*pair)
    rare = result.classes[3]
    assert np.isfinite(rare.value) == (images > 0)
    assert np.isnan([rare.low, rare.high]).all()
    assert not rare.significant
    assert not rare.significant_familywise
    assert np.isfinite([i.low for i in (*result.classes[:3], *result.metrics.values())]).all()


@pytest.mark.parametrize("images", [1, 2, FEW - 1])
def test_few_images_have_differences_and_no_intervals(images: int) -> None:
    result = difference(*(matrices(images, right=r) for r in (0.6, 0.7)))
    assert np.isfinite(result.metrics["mean_iou"].value)
    assert np.isnan(result.metrics["mean_iou"].low)
