from __future__ import annotations

import pytest
from torch import fx

from fullconv.network.dense.tensor_layout import (
    BATCH,
    CHANNELS,
    COLUMNS,
    POOLED,
    ROWS,
    TensorLayout,
    UnlikeError,
    alike,
    argument,
    kernel_of,
)

NODE = fx.Graph().placeholder("x")
SIZES = {BATCH: 1, CHANNELS: 6, ROWS: 5, COLUMNS: 4}
MAP = TensorLayout(NODE, ((BATCH,), (CHANNELS,), (ROWS,), (COLUMNS,)), SIZES)


def test_rows_and_columns_of_one_cell_are_not_spoken_of() -> None:
    assert MAP.window == (5, 4)
    line = MAP.become(NODE, MAP.dims, rows=1)
    assert (line.window, line.dims) == ((1, 4), ((BATCH,), (CHANNELS,), (), (COLUMNS,)))
    flat = MAP.become(NODE, ((BATCH,), (CHANNELS, ROWS, COLUMNS)), rows=1, columns=1)
    assert flat.dims == POOLED


@pytest.mark.parametrize(
    ("dims", "kernel", "order"),
    [
        (((BATCH,), (CHANNELS, ROWS, COLUMNS)), (5, 4), (0, 1, 2, 3)),
        (((BATCH,), (ROWS, COLUMNS, CHANNELS)), (5, 4), (0, 3, 1, 2)),
        (((BATCH,), (COLUMNS, CHANNELS)), (1, 4), (0, 2, 1)),
        (((BATCH,), (CHANNELS,)), (1, 1), (0, 1)),
        (((BATCH,), (ROWS,), (COLUMNS,), (CHANNELS,)), (1, 1), (0, 1)),
    ],
)
def test_the_kernel_of_a_fully_connected_layer(
    dims: tuple[tuple[str, ...], ...], kernel: tuple[int, int], order: tuple[int, ...]
) -> None:
    assert kernel_of(TensorLayout(NODE, dims, SIZES)) == (kernel, order)


@pytest.mark.parametrize(
    "dims",
    [
        ((BATCH,), (CHANNELS,), (ROWS, COLUMNS)),  # mixes the cells of each channel
        ((BATCH,), (ROWS,), (COLUMNS, CHANNELS)),
    ],
)
def test_a_layer_along_the_cells_cannot_slide(dims: tuple[tuple[str, ...], ...]) -> None:
    with pytest.raises(UnlikeError, match="along more than the channels"):
        kernel_of(TensorLayout(NODE, dims, SIZES))


def test_what_may_be_added() -> None:
    gate = TensorLayout(NODE, ((BATCH,), (), (ROWS,), (COLUMNS,)), {**SIZES, CHANNELS: 1})
    assert alike(gate, MAP)
    assert alike(MAP, MAP)
    assert not alike(MAP, gate)
    assert not alike(MAP.become(NODE, MAP.dims, rows=1), MAP)
    assert not alike(TensorLayout(NODE, POOLED, SIZES), MAP)


def test_arguments_by_position_or_by_name() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    node = graph.call_method("mean", (x, 1), {"keepdim": True})
    assert argument(node, 1, "dim") == 1
    assert argument(node, 2, "keepdim") is True
    assert argument(node, 3, "dtype", "none") == "none"
