"""Run lengths: against the definition, run by run, and against pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from fullconv.core.errors import FullconvError
from fullconv.data.annotations.rasterize import decompress, encode_run_lengths, read_run_lengths

COUNTS = st.lists(st.integers(0, 5000), min_size=0, max_size=30)


def encoded(mask: np.ndarray) -> list[int]:
    """The definition: down the columns, one pixel after the other, zeros first."""
    counts, last = [0], 0
    for pixel in mask.T.ravel().astype(int).tolist():
        if pixel != last:
            counts.append(0)
        counts[-1] += 1
        last = pixel
    return counts


def compressed(counts: list[int]) -> str:
    """As COCO's own code writes it."""
    text = ""
    for k, count in enumerate(counts):
        value, more = count - (counts[k - 2] if k > 2 else 0), True
        while more:
            low, value = value & 31, value >> 5
            more = value != -1 if low & 16 else value != 0
            text += chr(48 + low + 32 * more)
    return text


def masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    random = [rng.random((h, w)) < p for h, w, p in ((7, 5, 0.5), (40, 60, 0.1), (1, 9, 0.9))]
    blob = np.zeros((300, 500), bool)
    blob[20:250, 30:470] = True
    return [*random, blob, np.ones((3, 4), bool), np.zeros((3, 4), bool)]


@pytest.mark.parametrize("mask", masks())
def test_both_kinds_give_the_mask(mask: np.ndarray) -> None:
    counts = encoded(mask)
    for form in (counts, compressed(counts)):
        runs = read_run_lengths({"size": list(mask.shape), "counts": form})
        rows, columns, found = runs.pixels(mask.shape)
        assert (rows, columns) == (slice(0, mask.shape[0]), slice(0, mask.shape[1]))
        np.testing.assert_array_equal(found, mask)
        assert runs.area == mask.sum()
    again = encode_run_lengths(mask)
    assert (again.counts.tolist(), again.size) == (counts, mask.shape)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
@pytest.mark.parametrize("mask", masks())
def test_pycocotools_writes_and_reads_the_same(mask: np.ndarray) -> None:
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = theirs["counts"].decode()
    assert decompress(text) == encoded(mask)
    assert text == compressed(encoded(mask))
    mine = read_run_lengths({"size": list(mask.shape), "counts": text}).pixels(mask.shape)[2]
    np.testing.assert_array_equal(mine, coco.decode(theirs).astype(bool))


@settings(max_examples=200)
@given(counts=COUNTS)
def test_compressed_numbers_come_back(counts: list[int]) -> None:
    assert decompress(compressed(counts)) == counts


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"counts": [6]}, "size None"),
        ({"size": [2, 3, 1], "counts": [6]}, "size"),
        ({"size": [2, -3], "counts": [6]}, "size"),
        ({"size": [2, 3]}, "neither text nor a list"),
        ({"size": [2, 3], "counts": [7, -1]}, "whole numbers from 0"),
        ({"size": [2, 3], "counts": [1.0, 5]}, "whole numbers from 0"),
        ({"size": [2, 3], "counts": [1, 4]}, "run lengths of 5 pixels; expected 2 x 3 = 6"),
        ({"size": [2, 3], "counts": [1, 10**30]}, "pixels; expected"),
        ({"size": [2, 3], "counts": "1 5"}, "' ' out of place"),
        ({"size": [2, 3], "counts": "1é"}, "'é' out of place"),
        ({"size": [2, 3], "counts": "o" * 50 + "1"}, "out of place"),
        ({"size": [2, 3], "counts": "1P"}, "in the middle of a number"),
        ({"size": [2, 3], "counts": "O7"}, "whole numbers from 0"),
    ],
)
def test_what_is_no_run_lengths_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(FullconvError, match=said):
        read_run_lengths(table)
