"""Differences against their definition, and intervals against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from evaluated import matrices
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.evaluation.bootstrap import FEW, METRICS, differences, metric_values
from fullconv.evaluation.metrics import Metrics
from fullconv.evaluation.per_image import ImageConfusions, sparse_row


def margins(every: np.ndarray) -> np.ndarray:
    names = [f"c{k}" for k in range(every.shape[1])]
    return ImageConfusions.from_rows(names, [sparse_row(one) for one in every]).margins


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
def test_the_values_are_those_of_the_metrics(images: int, classes: int, seed: int) -> None:
    """Classes that are nowhere, in the truth alone and in the prediction alone among them."""
    chance = np.random.default_rng(seed)
    every = chance.integers(0, 9, (images, classes, classes))
    every *= chance.random((1, classes, 1)) < 0.7
    every *= chance.random((1, 1, classes)) < 0.8
    found = metric_values(margins(every).sum(0))
    of = Metrics([f"c{k}" for k in range(classes)], every.sum(0))
    expected = [*(getattr(of, name) for name in METRICS), *of.class_iou]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_resample_is_of_the_same_images_for_both() -> None:
    """A model against itself differs by nothing, in every resample."""
    one = margins(matrices(30))
    (found,) = differences([one, one.copy()], resamples=200)
    for interval in (*found.metrics.values(), *found.classes):
        assert (interval.value, interval.low, interval.high) == (0, 0, 0)
        assert not interval.significant
        assert not interval.significant_familywise


def test_the_interval_is_that_of_the_summed_matrices() -> None:
    """Drawn again here, image by image, with another generator; only the edges' noise is left.
    The stretch by the jackknife, from its definition, is put on top."""
    one, other = matrices(40, right=0.6), matrices(40, right=0.66)
    (found,) = differences([margins(one), margins(other)], resamples=4000)
    chance = np.random.default_rng(9)

    def value(chosen: np.ndarray) -> float:
        a, b = (Metrics("abc", every[chosen].sum(0)).mean_iou for every in (one, other))
        return b - a

    drawn = np.array([value(chance.integers(0, 40, 40)) for _ in range(3000)])
    exact = value(np.arange(40))
    left = np.array([value(np.delete(np.arange(40), k)) for k in range(40)])
    jackknife = np.sqrt(39 / 40 * ((left - left.mean()) ** 2).sum())
    wide = np.sqrt(40 / 39)
    stretch = (1 + max(1, jackknife / (wide * drawn.std()))) / 2
    from scipy.stats import norm, t

    tail = norm.cdf(-wide * t.ppf(0.975, 39))
    low, high = (exact + stretch * (np.quantile(drawn, q) - exact) for q in (tail, 1 - tail))
    interval = found.metrics["mean_iou"]
    assert interval.value == pytest.approx(exact)
    assert interval.low == pytest.approx(low, abs=0.06 * (high - low))
    assert interval.high == pytest.approx(high, abs=0.06 * (high - low))


def test_the_same_seed_gives_the_same_interval() -> None:
    sets = [margins(matrices(25, right=r)) for r in (0.6, 0.7)]
    first, again, other = (
        differences(sets, resamples=300, seed=s)[0].metrics["mean_iou"] for s in (1, 1, 2)
    )
    assert first == again
    assert first.value == other.value
    assert (first.low, first.high) != (other.low, other.high)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """150 samples of 40 from 4,000 images; `benchmarks/bootstrap.py` has thousands. By chance
    alone fewer than 133 of 150 would be met once in two thousand times."""
    every = [margins(matrices(4000, 4, right=r, seed=5)) for r in (0.62, 0.66)]
    truth = metric_values(every[1].sum(0)) - metric_values(every[0].sum(0))
    chance = np.random.default_rng(0)
    hits = np.zeros(8)
    for _ in range(150):
        chosen = chance.integers(0, 4000, 40)
        (found,) = differences([of[chosen] for of in every], resamples=400)
        intervals = (*found.metrics.values(), *found.classes)
        hits += [one.low <= true <= one.high for one, true in zip(intervals, truth, strict=True)]
    assert (hits >= 133).all(), hits
    assert hits.mean() <= 149


def test_a_large_difference_is_real_and_a_small_one_is_not() -> None:
    first, second, third = (margins(matrices(60, right=r)) for r in (0.6, 0.62, 0.8))
    turns = np.arange(60)[:, None, None] % 2 == 0  # each is the better one in every other image
    sets = [np.where(turns, first, second), np.where(turns, second, first), third]
    small, large = differences(sets, resamples=500)
    assert not small.metrics["mean_iou"].significant
    assert large.metrics["mean_iou"].significant
    assert all(one.significant and one.significant_familywise for one in large.classes)
    assert not any(one.significant_familywise for one in small.classes)


def test_a_class_that_few_images_show_has_no_interval() -> None:
    one, other = matrices(30, 4), matrices(30, 4, right=0.8)
    for every in (one, other):
        every[FEW - 1 :, 3] = 0
    (found,) = differences([margins(one), margins(other)], resamples=300)
    rare = found.classes[3]
    assert np.isfinite(rare.value)
    assert np.isnan([rare.low, rare.high]).all()
    assert not rare.significant
    assert not rare.significant_familywise
    assert np.isfinite([of.low for of in found.classes[:3]]).all()


def test_a_class_that_is_nowhere_has_no_difference() -> None:
    one, other = matrices(30, 4), matrices(30, 4, right=0.8)
    for every in (one, other):
        every[:, 3] = 0
        every[:, :, 3] = 0
    (found,) = differences([margins(one), margins(other)], resamples=300)
    assert np.isnan(found.classes[3].value)
    assert np.isfinite(found.metrics["mean_iou"].low)


@pytest.mark.parametrize("images", [1, 2, FEW - 1])
def test_few_images_have_differences_and_no_intervals(images: int) -> None:
    sets = [margins(matrices(images, right=r)) for r in (0.6, 0.7)]
    (found,) = differences(sets, resamples=200)
    assert np.isfinite(found.metrics["mean_iou"].value)
    assert np.isnan(found.metrics["mean_iou"].low)
