"""Labels and confidence from NumPy arrays: as torch's definition has them, with and without the
compiled library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.network.kernels import library, numpy_arrays, reference

WAYS = ["compiled", "reference"]


def by_definition(values: np.ndarray, grid: Grid, size: tuple[int, int]) -> torch.Tensor:
    scores = torch.from_numpy(values).double()
    return reference.full(scores, Grid(grid.stride, grid.offset), size)


@pytest.fixture(params=WAYS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "compiled" and library.load_library()[0] is None:
        pytest.skip("there is no compiled library here")
    monkeypatch.setenv("FULLCONV_KERNELS", "reference" if request.param == "reference" else "")
    return str(request.param)


@pytest.mark.parametrize("classes", [1, 2, 21, 300])
@pytest.mark.parametrize("grid", [Grid(8, 0), Grid(8, 3.5), Grid(32, -16), Grid(4, 1)])
def test_as_the_definition(backend: str, grid: Grid, classes: int) -> None:
    rng = np.random.default_rng(classes)
    values = rng.normal(0, 3, (2, classes, 5, 7)).astype(np.float32)
    full = by_definition(values, grid, (37, 50))
    actual = numpy_arrays.labels(values, grid, (37, 50))
    assert actual.dtype == (np.uint16 if classes > 255 else np.uint8)
    chosen = full.gather(1, torch.from_numpy(actual.astype(np.int64))[:, None])[:, 0]
    assert (full.amax(1) - chosen).max() < 1e-4  # but for ties of float32
    assert (actual == full.argmax(1).numpy()).mean() > 0.9999
    sure = numpy_arrays.confidence(values, grid, (37, 50))
    np.testing.assert_allclose(sure, full.softmax(1).amax(1).numpy(), atol=1e-5)


@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([4, 8, 16, 32]),
    st.floats(-20, 20),
)
def test_any_size(size: tuple[int, int], stride: int, offset: float) -> None:
    values = np.random.default_rng(0).normal(0, 3, (1, 4, 3, 2)).astype(np.float32)
    grid = Grid(stride, offset)
    full = by_definition(values, grid, size)
    actual = torch.from_numpy(numpy_arrays.labels(values, grid, size).astype(np.int64))
    assert (full.amax(1) - full.gather(1, actual[:, None])[:, 0]).max() < 1e-4


def test_a_part_of_an_array_is_read_as_it_lies(backend: str) -> None:
    values = np.random.default_rng(0).normal(0, 3, (1, 9, 4, 4)).astype(np.float32)
    grid = Grid(8, 0)
    actual = numpy_arrays.labels(values[:, 2:7], grid, (30, 30))
    assert (actual == numpy_arrays.labels(values[:, 2:7].copy(), grid, (30, 30))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite(backend: str, bad: float) -> None:
    values = np.zeros((1, 3, 4, 4), np.float32)
    values[0, 1, 2, 2] = bad
    for read in (numpy_arrays.labels, numpy_arrays.confidence):
        with pytest.raises(FullconvError, match="NaN or infinite"):
            read(values, Grid(8, 0), (30, 30))


@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.floats(0.5, 33), st.floats(-20, 20)),
    st.tuples(st.floats(0.5, 33), st.floats(-20, 20)),
    st.data(),
)
def test_the_scores_in_some_rows(
    cells: tuple[int, int],
    size: tuple[int, int],
    down: tuple[float, float],
    along: tuple[float, float],
    data: st.DataObject,
) -> None:
    start = data.draw(st.integers(0, size[0] - 1))
    stop = data.draw(st.integers(start + 1, size[0]))
    values = np.random.default_rng(0).normal(size=(3, *cells)).astype(np.float32)
    grids = (Grid(*down), Grid(*along))
    full = reference.full(torch.from_numpy(values).double()[None], grids, size)[0].numpy()
    actual = numpy_arrays.scores(values, (Grid(*down), Grid(*along)), range(start, stop), size[1])
    np.testing.assert_allclose(actual, full[:, start:stop], atol=1e-5)
