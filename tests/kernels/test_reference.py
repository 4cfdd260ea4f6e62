"""Every reading against the definition, written out pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fullconv.geometry import Grid
from fullconv.kernels import reference


def position(pixel: int, grid: Grid, cells: int) -> tuple[int, int, float]:
    """The two cells around a pixel, and how far it is from the first to the second."""
    u = min(max((pixel - grid.offset) / grid.stride, 0.0), cells - 1.0)
    below = min(math.floor(u), cells - 1)
    return below, min(below + 1, cells - 1), u - below


def full_by_definition(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    rows = []
    for y in range(size[0]):
        top, bottom, down = position(y, grid, values.shape[2])
        row = []
        for x in range(size[1]):
            left, right, along = position(x, grid, values.shape[3])
            above = (1 - along) * values[:, :, top, left] + along * values[:, :, top, right]
            below = (1 - along) * values[:, :, bottom, left] + along * values[:, :, bottom, right]
            row.append((1 - down) * above + down * below)
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


def loss_by_definition(
    values: Tensor,
    grid: Grid,
    target: Tensor,
    *,
    ignore_index: int,
    class_weights: Tensor | None,
    label_smoothing: float,
) -> Tensor:
    """The mean over the pixels that count of -sum_k q_k w_k log p_k, where q puts 1 - s on the true
    class and spreads s over all; weighted by the weight of the true class."""
    scores = full_by_definition(values, grid, (target.shape[1], target.shape[2]))
    classes = values.shape[1]
    weights = [1.0] * classes if class_weights is None else class_weights.tolist()
    total, weight = 0 * scores.sum(), 0.0
    for n in range(target.shape[0]):
        for y in range(target.shape[1]):
            for x in range(target.shape[2]):
                true = int(target[n, y, x])
                if true == ignore_index:
                    continue
                pixel = scores[n, :, y, x]
                largest = pixel.detach().max()
                normaliser = largest + (pixel - largest).exp().sum().log()
                for k in range(classes):
                    q = label_smoothing / classes + (1 - label_smoothing) * (k == true)
                    if q:
                        total = total + q * weights[k] * (normaliser - pixel[k])
                weight += weights[true]
    return total / weight if weight else total


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Few pixels, for the definition is slow; all else at random."""
    size = draw(st.sampled_from([(1, 1), (1, 7), (5, 1), (3, 5), (7, 4), (8, 8), (2, 13)]))
    classes = draw(st.integers(1, 5))
    count = draw(st.integers(1, 2))
    cells = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    scale = draw(st.sampled_from([1.0, 30.0]))
    target = torch.randint(0, classes, (count, *size), generator=generator)
    ignored = torch.rand(target.shape, generator=generator) < draw(st.sampled_from([0, 0.3, 1]))
    weights = torch.rand(classes, generator=generator) + 0.1
    return {
        "values": scale * torch.randn(count, classes, *cells, generator=generator).double(),
        "grid": Grid(draw(st.sampled_from([1, 2, 4, 8, 16, 32])), draw(st.integers(-80, 80)) / 2),
        "target": target.masked_fill(ignored, 255),
        "class_weights": draw(st.sampled_from([None, weights])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "strip_bytes": draw(st.sampled_from([1, 300, 2**23])),
    }


@given(case=cases())
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_loss_and_gradient_are_as_defined(case: dict[str, Any]) -> None:
    options = {
        "ignore_index": 255,
        "class_weights": case["class_weights"],
        "label_smoothing": case["label_smoothing"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "STRIP_BYTES", case["strip_bytes"])
        ours = case["values"].clone().requires_grad_()
        loss = reference.loss(ours, case["grid"], case["target"], **options)
        (3 * loss).backward()
        single = reference.loss(case["values"].float(), case["grid"], case["target"], **options)
    theirs = case["values"].clone().requires_grad_()
    expected = loss_by_definition(theirs, case["grid"], case["target"], **options)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
    assert single.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
    (3 * expected).backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-11)


@given(case=cases())
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_full_and_labels_are_as_defined(case: dict[str, Any]) -> None:
    values, grid = case["values"], case["grid"]
    size = (case["target"].shape[1], case["target"].shape[2])
    expected = full_by_definition(values, grid, size)
    torch.testing.assert_close(reference.full(values, grid, size), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "STRIP_BYTES", case["strip_bytes"])
        labels = reference.labels(values, grid, size)
        single = reference.labels(values.float(), grid, size)
    assert labels.shape == case["target"].shape
    best = expected.max(dim=1).values
    for chosen, within in ((labels, 1e-10), (single, 1e-3)):
        score = expected.gather(1, chosen.long()[:, None])[:, 0]
        assert (best - score).max() <= within


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of many strips, wider than one by itself."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(2, 3, 9, 40, generator=generator, dtype=torch.float64)
    grid, size = Grid(8, 3.5), (71, 319)
    target = torch.randint(0, 3, (2, *size), generator=generator)
    results = []
    for strip_bytes in (1, 2**16, 2**30):
        monkeypatch.setattr(reference, "STRIP_BYTES", strip_bytes)
        tracked = values.clone().requires_grad_()
        loss = reference.loss(tracked, grid, target)
        loss.backward()
        results.append((loss.detach(), tracked.grad, reference.labels(values, grid, size)))
    for loss, gradient, labels in results[1:]:
        torch.testing.assert_close(loss, results[0][0])
        torch.testing.assert_close(gradient, results[0][1])
        assert torch.equal(labels, results[0][2])
    assert torch.equal(results[0][2].long(), reference.full(values, grid, size).argmax(dim=1))


@pytest.mark.parametrize("strip_bytes", [1, 2**23])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0])])
def test_nothing_that_counts_is_a_loss_of_zero(
    monkeypatch: pytest.MonkeyPatch, weights: Tensor | None, strip_bytes: int
) -> None:
    monkeypatch.setattr(reference, "STRIP_BYTES", strip_bytes)
    values = torch.randn(1, 2, 3, 3, requires_grad=True)
    target = torch.full((1, 9, 9), 255, dtype=torch.uint8)
    loss = reference.loss(values, Grid(4, 0), target, class_weights=weights, label_smoothing=0.1)
    assert loss.item() == 0.0
    loss.backward()
    assert values.grad is not None
    assert values.grad.abs().max() == 0


def test_a_class_that_weighs_nothing() -> None:
    """As ignored; and if there is no other, a loss of 0 and not NaN."""
    values = torch.randn(1, 2, 3, 3, requires_grad=True)
    weights = torch.tensor([0.0, 1.0])
    target = torch.zeros(1, 9, 9, dtype=torch.uint8)
    assert reference.loss(values, Grid(4, 0), target, class_weights=weights).item() == 0.0
    target[0, 0, 0] = 1
    ignoring = reference.loss(values, Grid(4, 0), target, ignore_index=0)
    assert reference.loss(values, Grid(4, 0), target, class_weights=weights) == ignoring


def test_the_lowest_class_wins_a_tie() -> None:
    assert reference.labels(torch.zeros(1, 4, 2, 2), Grid(4, 0), (5, 5)).unique().tolist() == [0]
    tied = torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert reference.labels(tied, Grid(4, 0), (5, 5)).unique().tolist() == [1]


def test_a_row_is_read_at_the_cells_of_another_grid() -> None:
    """Coarse cells at 15.5, 47.5; fine ones at 3.5, 11.5, ..., the first two before them."""
    matrix = reference.reading_matrix(Grid(32, 15.5), 2, Grid(8, 3.5), 6)
    expected = [[1, 0], [1, 0], [0.875, 0.125], [0.625, 0.375], [0.375, 0.625], [0.125, 0.875]]
    assert matrix.tolist() == expected
    assert matrix.dtype == torch.float64


def test_far_pixels_stay_in_place() -> None:
    """Positions are computed in float64: at 20000 px float32 would still do, bfloat16 would not."""
    values = torch.arange(2501, dtype=torch.float32).view(1, 1, 1, -1) * 8
    read = reference.full(values, Grid(8, 0), (1, 20001))
    assert (read[0, 0, 0] - torch.arange(20001)).abs().max() <= 20001 * 2**-23


def test_the_gradient_repeats_exactly() -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(2, 4, 8, 8, generator=generator)
    target = torch.randint(0, 4, (2, 60, 60), generator=generator)
    gradients = []
    for _ in range(2):
        tracked = values.clone().requires_grad_()
        reference.loss(tracked, Grid(8, 0), target).backward()
        gradients.append(tracked.grad)
    assert torch.equal(*gradients)  # type: ignore[arg-type]


def test_no_gradient_is_computed_where_none_is_asked() -> None:
    values = torch.randn(1, 2, 3, 3)
    loss = reference.loss(values, Grid(4, 0), torch.zeros(1, 9, 9, dtype=torch.uint8))
    assert not loss.requires_grad
    with torch.no_grad():
        tracked = values.clone().requires_grad_()
        assert loss == reference.loss(tracked, Grid(4, 0), torch.zeros(1, 9, 9).long())
