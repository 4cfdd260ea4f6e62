from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import brush, packed

from fullconv.core.errors import FullconvError
from fullconv.data.annotations.brush import read_brush, unpack_brush

RUNS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 300)), min_size=1, max_size=30)
SIZES = st.tuples(*[st.integers(1, 16)] * 4)


def read(numbers: Any, size: tuple[int, int]) -> np.ndarray:
    runs = read_brush(numbers, size)
    assert runs.size == size
    return runs.pixels(size)[2]


@settings(max_examples=150)
@given(runs=RUNS, sizes=SIZES)
def test_words_come_back(runs: list[tuple[int, int]], sizes: tuple[int, ...]) -> None:
    words = np.concatenate([np.full(n if n > 8 else 1, 85 * k, np.uint8) for k, n in runs])
    stream = bytes(packed(words, tuple(sorted(sizes))))
    assert bytes(unpack_brush(stream, len(words))) == words.tobytes()


@pytest.mark.parametrize("count", [1, 2, 8, 9, 16, 17, 256, 257, 65535, 65536, 65537, 131073])
@pytest.mark.parametrize("kind", ["equal", "different"])
def test_runs_of_every_length(count: int, kind: str) -> None:
    words = np.full(count, 7, np.uint8) if kind == "equal" else np.arange(count).astype(np.uint8)
    assert bytes(unpack_brush(bytes(packed(words)), count)) == words.tobytes()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_masks_come_back(share: float) -> None:
    mask = np.random.default_rng(0).random((37, 53)) < share
    np.testing.assert_array_equal(read(brush(mask), mask.shape), mask)


def test_pixels_that_are_not_transparent_are_inside() -> None:
    """Older versions of Label Studio write the color of the label, with soft borders."""
    mask = np.zeros((20, 30), bool)
    mask[5:17, 8:21] = True
    colors = np.full((20, 30, 4), (9, 9, 9, 0), np.uint8)
    colors[mask] = (255, 163, 158, 0)
    colors[mask, 3] = np.random.default_rng(1).integers(1, 256, mask.sum())
    np.testing.assert_array_equal(read(packed(colors.ravel()), mask.shape), mask)


def test_twelve_megapixels_are_fast() -> None:
    mask = np.zeros((3000, 4000), bool)
    mask[500:2500, 700:3300] = True
    numbers = brush(mask)
    start = time.perf_counter()
    result = read(numbers, mask.shape)
    assert time.perf_counter() - start < 10  # a tenth of a second; the bound is for busy machines
    np.testing.assert_array_equal(result, mask)


WORDS = packed(np.zeros(24, np.uint8))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        *((wrong, "not a list of num") for wrong in (None, [], "x", [256], [-1], [1.5], {}, [[]])),
        *((WORDS[:count], "end too early") for count in (-1, 8, 7)),
        ([1], "of 16777216 words of 1 bits; expected 24 of 8 bits"),
        (packed(np.zeros(28, np.uint8)), "of 28 words of 8 bits; expected 24"),
        ([0, 0, 0, 24, *packed(np.zeros(9999, np.uint8))[4:]], "have more than 24 words"),
    ],
)
def test_other_streams_are_refused(numbers: Any, message: str) -> None:
    with pytest.raises(FullconvError, match=message) as caught:
        read_brush(numbers, (2, 3))
    assert caught.value.hint == "export the task again from Label Studio, as JSON"


def test_damaged_streams_are_errors_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    whole = brush(rng.random((9, 11)) < 0.3)
    for _ in range(300):
        numbers = list(whole[: rng.integers(7, len(whole) + 1)])
        for _ in range(3):
            numbers[rng.integers(len(numbers))] ^= 1 << rng.integers(8)
        with contextlib.suppress(FullconvError):
            assert read([int(n) for n in numbers], (9, 11)).shape == (9, 11)
