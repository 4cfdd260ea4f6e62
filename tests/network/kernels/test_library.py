"""The compiled library's door: what it is called with, and what is said where it fails."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.network.kernels import library


def test_scores_are_described_as_the_library_reads_them() -> None:
    values = np.zeros((2, 3, 4, 5), np.float32)
    pointer, shape, strides, grid, size = library.scores_arguments(
        values.ctypes.data, values.shape, [60, 20, 5, 1], Grid(8, -3.5), (30, 40)
    )
    assert pointer.value == values.ctypes.data
    assert list(shape) == [2, 3, 4, 5]
    assert list(strides) == [60, 20, 5, 1]
    assert list(grid) == [-3.5, 8.0]  # offset, stride
    assert list(size) == [30, 40]


def test_why_there_is_none_is_said_or_it_is_there() -> None:
    actual, why = library.load_library()
    assert (actual is None) == bool(why)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (library.NO_MEMORY, "not enough memory to interpolate the scores"),
        (library.NOT_FINITE, "no class has the largest score"),
    ],
)
def test_a_failed_call_is_an_error(status: int, message: str) -> None:
    failing = SimpleNamespace(fullconv_labels=lambda: status)
    with pytest.raises(FullconvError, match=message):
        library.call_library(failing, "fullconv_labels")
