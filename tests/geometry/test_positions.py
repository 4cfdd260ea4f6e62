from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.geometry.positions import (
    Axis,
    SpatialLayout,
    Tokens,
    Untracked,
    merge_layouts,
    reshape_layout,
)

MAP = SpatialLayout((None, None, (0, 1), (1, 1)), (Axis(4, 1.5, 0, 3), Axis(4, 1.5, 0, 3)))


def positions(layout: SpatialLayout, shape: tuple[int, ...]) -> list[torch.Tensor]:
    """Row and column number of every entry according to the tags."""
    numbers = []
    for axis in (0, 1):
        total = torch.zeros(shape)
        for dim, tag in enumerate(layout.dims):
            if isinstance(tag, tuple) and tag[0] == axis:
                view = [1] * len(shape)
                view[dim] = -1
                total = total + layout.axes[axis].stride / 4 * tag[1] * torch.arange(
                    shape[dim]
                ).view(view)
        numbers.append(total.expand(shape))
    return numbers


@pytest.mark.parametrize(
    ("before", "after", "tracked"),
    [
        ((1, 8, 6, 4), (1, 2, 4, 6, 4), True),  # channels split
        ((1, 8, 6, 4), (2, 4, 6, 4), True),
        ((1, 8, 6, 4), (1, 8, 3, 2, 4), True),  # rows split: windows
        ((1, 8, 6, 4), (1, 8, 3, 2, 2, 2), True),
        ((1, 8, 6, 4), (1, 8, 24), True),  # tokens
        ((1, 8, 6, 4), (1, 8, 1, 24), True),
        ((1, 8, 6, 4), (1, 8, 4, 6), False),  # rows and columns mixed
        ((1, 8, 6, 4), (1, 8, 2, 12), True),  # rows split, the inner ones joined with columns
        ((1, 8, 6, 4), (1, 192), False),  # flattened with the channels
        ((1, 8, 6, 4), (192,), False),
        ((1, 8, 6, 4), (1, 6, 4, 8), False),  # no permute
    ],
)
def test_reshaping_keeps_the_place_or_says_that_it_does_not(
    before: tuple[int, ...], after: tuple[int, ...], tracked: bool
) -> None:
    layout = reshape_layout(MAP, before, after)
    assert (layout is not None) == tracked
    if layout is None:
        return
    assert len(layout.dims) == len(after)
    numbers = [
        torch.arange(n)
        .view([-1 if d == dim else 1 for d in range(4)])
        .expand(before)
        .reshape(after)
        for dim, n in ((2, 6), (3, 4))
    ]
    if not any(isinstance(d, Tokens) for d in layout.dims):
        for claimed, true in zip(positions(layout, after), numbers, strict=True):
            assert torch.equal(claimed, true.float())


def test_tokens_come_apart_again() -> None:
    tokens = reshape_layout(MAP, (1, 8, 6, 4), (1, 8, 24))
    assert tokens.dims == (None, None, Tokens((((0, 1), 6), ((1, 1), 4))))
    assert reshape_layout(tokens, (1, 8, 24), (1, 8, 6, 4)) == MAP
    assert reshape_layout(tokens, (1, 8, 24), (1, 8, 4, 6)) is None
    assert reshape_layout(tokens, (1, 8, 24), (1, 8, 3, 2, 4)) is not None


def test_phases_join_the_channels() -> None:
    """Space to depth: 2 x 2 cells become one, which sits between them and sees all four."""
    split = reshape_layout(MAP, (1, 8, 6, 4), (1, 8, 3, 2, 2, 2))
    order = (0, 2, 4, 1, 3, 5)
    moved = SpatialLayout(tuple(split.dims[i] for i in order), split.axes)
    joined = reshape_layout(moved, (1, 3, 2, 8, 2, 2), (1, 3, 2, 32))
    assert joined.dims == (None, (0, 1), (1, 1), None)
    assert joined.axes == (Axis(8, 3.5, 0, 7), Axis(8, 3.5, 0, 7))


def view_of(axis: Axis, cell: int) -> tuple[float, float, float]:
    """Center, first and last pixel of a cell."""
    at = axis.stride * cell
    return axis.offset + at, axis.low + at, axis.high + at


windows = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3))


@given(st.lists(windows, min_size=1, max_size=4), st.integers(0, 9))
@settings(max_examples=60)
def test_windows_compose_as_cells_do(layers: list[tuple[int, int, int, int]], cell: int) -> None:
    """Against a walk back through the layers, from one cell to the pixels that it sees."""
    axis = Axis()
    for kernel, stride, before, dilation in layers:
        axis = axis.window(kernel, stride, before, dilation)
    first = last = cell
    for kernel, stride, before, dilation in reversed(layers):
        first = first * stride - before
        last = last * stride - before + (kernel - 1) * dilation
    assert view_of(axis, cell) == ((first + last) / 2, first, last)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3))
@settings(max_examples=60)
def test_transposed_windows(kernel: int, stride: int, before: int, dilation: int) -> None:
    """Against the definition: coarse cell i adds to the fine cells stride * i - before + k * d."""
    axis = Axis(8, 3.5, 0, 7)
    fine = axis.transposed(kernel, stride, before, dilation)
    assert fine.stride == 8 / stride
    offsets = []
    for j in range(40, 40 + stride):
        coarse = [
            i
            for i in range(-20, 90)
            for k in range(kernel)
            if stride * i - before + k * dilation == j
        ]
        for i in coarse:
            assert view_of(fine, j)[1] <= view_of(axis, i)[1]
            assert view_of(axis, i)[2] <= view_of(fine, j)[2] + 8 * (stride - 1) / stride
        offsets += [view_of(axis, i)[0] - view_of(fine, j)[0] for i in coarse]
    assert sum(offsets) == pytest.approx(0, abs=1e-9)


def test_shifts() -> None:
    assert Axis(4, 1.5, 0, 3).shifted(2) == Axis(4, 9.5, 8, 11)


def test_merging_keeps_the_path_that_localizes_best() -> None:
    narrow, wide, same = Axis(4, 1.5, 0, 3), Axis(4, 5.5, -10, 21), Axis(4, 3.5, 2, 5)
    assert narrow.merge(wide) == wide.merge(narrow) == Axis(4, 1.5, -10, 21)
    assert narrow.merge(same) == Axis(4, 2.5, 0, 5)
    assert narrow.merge(narrow) == narrow
    # All at once: met in pairs, the first two would look wider than the third.
    slices = [narrow.shifted(cells) for cells in (0, 1, 0, 1)]
    assert slices[0].merge(*slices[1:]) == Axis(4, 3.5, 0, 7)


def test_merging_broadcasts_and_names_what_does_not_match() -> None:
    assert merge_layouts([(MAP, 4), (SpatialLayout(MAP.dims[1:], MAP.axes), 3)], 4, "x") == MAP
    assert merge_layouts([(MAP, 4), (Untracked(frozenset({"why"})), 4)], 4, "x") == SpatialLayout(
        MAP.dims, MAP.axes, frozenset({"why"})
    )
    turned = SpatialLayout((None, None, (1, 1), (0, 1)), MAP.axes)
    finer = SpatialLayout(MAP.dims, (Axis(2), Axis(2)))
    for other in (turned, finer):
        assert merge_layouts([(MAP, 4), (other, 4)], 4, "two kinds") == Untracked(
            frozenset({"two kinds"})
        )
    assert merge_layouts(
        [(Untracked(frozenset("a")), 4), (Untracked(frozenset("b")), 4)], 4, "x"
    ) == Untracked(frozenset("ab"))
