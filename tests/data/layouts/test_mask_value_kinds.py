"""Kinds of masks by their values: blurred ones, and the threshold between black and white."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fullconv.data.layouts.mask_value_kinds import is_blurred, otsu_threshold


def test_blurred_is_not_many_classes_beside_ignore() -> None:
    assert is_blurred(dict.fromkeys(range(0, 256, 20), 10) | {0: 1000, 255: 1000})
    assert not is_blurred(dict.fromkeys(range(21), 10) | {0: 1000, 255: 100})
    assert not is_blurred(dict.fromkeys(range(256), 10))
    assert not is_blurred({0: 10, 255: 10})


@given(st.dictionaries(st.integers(0, 255), st.integers(1, 1000), min_size=2, max_size=12))
def test_otsu_has_the_least_variance_of_all_thresholds(counts: dict[int, int]) -> None:
    values = np.repeat(list(counts), list(counts.values())).astype(np.float64)

    def variance(threshold: float) -> float:
        sides = values[values <= threshold], values[values > threshold]
        return sum(side.var() * side.size for side in sides if side.size)

    best = min(variance(level) for level in sorted(counts)[:-1])
    assert variance(otsu_threshold(counts)) <= best * (1 + 1e-9) + 1e-6
