"""Regions against SciPy's labelling, and the merging of small ones against its definition."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from fullconv.inference.postprocess import label_regions, remove_small_regions

IDS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 2))


@given(IDS)
def test_regions_are_those_of_scipy_in_the_order_of_their_first_pixels(ids: np.ndarray) -> None:
    numbers = label_regions(ids)
    assert numbers.shape == ids.shape
    seen = list(dict.fromkeys(numbers.ravel().tolist()))
    assert seen == list(range(len(seen)))
    by_class = [ndimage.label(ids == k) for k in np.unique(ids)]
    assert len(seen) == sum(count for _, count in by_class)
    for found, count in by_class:
        for k in range(1, count + 1):
            (number,) = np.unique(numbers[found == k])
            assert ((numbers == number) == (found == k)).all()


def by_definition(ids: np.ndarray, least: int) -> np.ndarray:
    """One region after the other, everything counted anew each time."""
    ids = ids.copy()
    while True:
        regions = []
        for k in np.unique(ids):
            found, count = ndimage.label(ids == k)
            regions += [found == n for n in range(1, count + 1)]
        small = [r for r in regions if r.sum() < least]
        if not small or len(regions) == 1:
            return ids
        region = min(small, key=lambda r: (r.sum(), np.flatnonzero(r)[0]))
        shared: Counter[int] = Counter()
        for i, j in np.argwhere(region):
            for y, x in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= y < ids.shape[0] and 0 <= x < ids.shape[1] and not region[y, x]:
                    shared[int(ids[y, x])] += 1
        ids[region] = min(shared, key=lambda k: (-shared[k], k))


@settings(max_examples=150)
@given(IDS, st.integers(1, 20))
def test_small_regions_take_what_surrounds_them_most(ids: np.ndarray, least: int) -> None:
    before = ids.copy()
    cleaned = remove_small_regions(ids, least)
    assert (cleaned == by_definition(ids, least)).all()
    assert cleaned.dtype == ids.dtype
    assert (ids == before).all()


def test_a_speck_goes_and_a_thing_stays() -> None:
    ids = np.zeros((20, 20), np.uint8)
    ids[2:8, 2:8] = 1
    ids[4, 4] = 255  # a hole of one pixel, of the ignored id
    ids[15, 15:17] = 2
    cleaned = remove_small_regions(ids, 3)
    assert np.unique(cleaned).tolist() == [0, 1]
    assert (cleaned == 1).sum() == 36
    assert (remove_small_regions(ids, 2) == np.where(ids == 255, 1, ids)).all()


@pytest.mark.parametrize("least", [1, 5, 1000])
def test_one_class_alone_stays(least: int) -> None:
    assert (remove_small_regions(np.full((3, 4), 7, np.uint16), least) == 7).all()
