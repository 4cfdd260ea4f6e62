"""Strips, interpolation matrices and full scores of the torch reference. test_dispatch.py compares
it with the definition."""

from __future__ import annotations

import pytest
import torch
from definition import full_by_definition
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.geometry.grid import Grid
from fullconv.network.kernels import dispatch, reference


@given(
    cells=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.sampled_from([1, 2.5, 8, 32]),
    offset=st.integers(-80, 80),
    size=st.sampled_from([(1, 1), (3, 5), (8, 8), (2, 13)]),
)
@settings(max_examples=40)
def test_full_is_as_defined(
    cells: tuple[int, int], stride: float, offset: int, size: tuple[int, int]
) -> None:
    values = torch.randn(2, 3, *cells, generator=torch.Generator().manual_seed(0)).double()
    grid = Grid(stride, offset / 2)
    expected = full_by_definition(values, grid, size)
    torch.testing.assert_close(reference.full(values, grid, size), expected)


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of many strips, wider than one by itself."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(2, 3, 9, 40, generator=generator, dtype=torch.float64)
    grid, size = Grid(8, 3.5), (71, 319)
    target = torch.randint(0, 3, (2, *size), generator=generator)
    results = []
    for strip_bytes in (1, 2**16, 2**30):
        monkeypatch.setattr(reference, "STRIP_BYTES", strip_bytes)
        tracked = values.clone().requires_grad_()
        loss = dispatch.loss(tracked, grid, target)
        loss.backward()
        results.append((loss.detach(), tracked.grad, reference.labels(values, grid, size)))
    for loss, gradient, labels in results[1:]:
        torch.testing.assert_close(loss, results[0][0])
        torch.testing.assert_close(gradient, results[0][1])
        assert torch.equal(labels, results[0][2])
    assert torch.equal(results[0][2].long(), reference.full(values, grid, size).argmax(dim=1))


def test_a_row_is_read_at_the_cells_of_another_grid() -> None:
    """Coarse cells at 15.5, 47.5; fine ones at 3.5, 11.5, ..., the first two before them."""
    matrix = reference.interpolation_matrix(Grid(32, 15.5), 2, Grid(8, 3.5), 6)
    expected = [[1, 0], [1, 0], [0.875, 0.125], [0.625, 0.375], [0.375, 0.625], [0.125, 0.875]]
    assert matrix.tolist() == expected
    assert matrix.dtype == torch.float64


def test_far_pixels_stay_in_place() -> None:
    """Positions are computed in float64: at 20000 px float32 would still do, bfloat16 would not."""
    values = torch.arange(2501, dtype=torch.float32).view(1, 1, 1, -1) * 8
    read = reference.full(values, Grid(8, 0), (1, 20001))
    assert (read[0, 0, 0] - torch.arange(20001)).abs().max() <= 20001 * 2**-23
