"""Loss, labels and confidence on a GPU, in Triton: equal to `reference`, with hardly any memory.

Every program loads the four cells around its pixels and computes the scores where it needs them, in
registers; no array of classes and pixels is ever written. Labels and confidence need no memory
besides their result. The loss keeps two numbers per pixel for its gradient, for which a second
program computes the scores again: it sums over the pixels between four cells and adds the four sums
to the gradient. Of its four launches none has two programs at one cell, so there are no atomic
additions, and every result is repeatable.

Triton is imported on first use. It comes with PyTorch on Linux.

Shapes: N batch · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from math import ceil
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.geometry.grid import Grid
from fullconv.network.kernels import reference
from fullconv.network.kernels.reference import LossOptions

# A program computes up to ROWS rows of COLUMNS pixels (a multiple of the 32 threads of a warp),
# CHUNK classes at a time: a thread has ROWS * CHUNK scores in registers. A program of the gradient
# is one warp, which sums without waiting for others.
ROWS, COLUMNS, CHUNK = 8, 64, 8
GRADIENT_COLUMNS = 32


@dataclass(frozen=True)
class Axis:
    """The interpolation of the pixels of one axis. Gap g is between the cells g - 1 and g."""

    gaps: Tensor  # (pixels) the gap of every pixel, 0 to `cells`
    weights: Tensor  # (pixels) of the cell g; the cell g - 1 has the rest
    starts: Tensor  # (cells + 2) the first pixel of every gap, and the end of the last
    tiles: Tensor  # the first pixel of every tile of pixels within one gap


def available() -> bool:
    """Return whether there is a GPU, and a Triton that compiles for it."""
    return (
        torch.cuda.is_available()
        and (torch.version.hip is not None or torch.cuda.get_device_capability() >= (7, 0))
        and cuda_kernels().INSTALLED
    )


def labels(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Return what `reference.labels` returns."""
    dtype = reference.id_type(values.shape[1])
    ids = torch.empty(values.shape[0], *size, dtype=dtype, device=values.device)
    _run("labels", values, grid, ids)
    return ids


def confidence(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Return what `reference.confidence` returns."""
    probability = values.new_empty(values.shape[0], *size)
    _run("confidence", values, grid, probability)
    return probability


def loss_and_gradient(
    values: Tensor, grid: Grid, target: Tensor, options: LossOptions, gradient: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return what `reference.loss_and_gradient` returns; the loss and the gradient are NaN if a
    score is not finite."""
    require(values, target)
    ignore_index, class_weights, label_smoothing = options
    values, device = values.detach(), values.device
    launch = plan(values, grid, (target.shape[1], target.shape[2]))
    if class_weights is None:
        weights = values.new_ones(values.shape[1])
    else:
        weights = class_weights.detach().to(device, torch.float32).contiguous()
    targets = (target, *target.stride(), ignore_index, float(label_smoothing), weights)
    totals, counts = torch.zeros(2, launch.programs, dtype=torch.float64, device=device)
    if target.numel() == 0:
        return totals.sum(), counts.sum(), torch.zeros_like(values) if gradient else None
    lowest, largest = torch.aminmax(values)
    poison = 0 * lowest + 0 * largest  # NaN if a score is not finite
    wrong = torch.zeros(1, dtype=torch.int32, device=device)
    # Per pixel the largest score and the normalizer: all that the gradient needs.
    softmax = values.new_empty(2, *(target.shape if gradient else (0, 0, 0)))
    slope = torch.empty_like(values).fill_(poison) if gradient else None
    programs, smooth = cuda_kernels(), label_smoothing > 0
    with torch.cuda.device_of(values):
        programs.loss[(launch.programs,)](
            *launch.arguments, *targets, weights.sum(), totals, counts, wrong, *softmax,
            **launch.constants, SMOOTH=smooth, KEEP=gradient,
        )  # fmt: skip
        if slope is not None:
            for phase, count in launch.phases.items():
                programs.gradient[(count,)](
                    *launch.arguments, *targets, *softmax, slope, *slope.stride(), *phase,
                    **launch.gradient_constants, SMOOTH=smooth,
                )  # fmt: skip
    if wrong.item():  # last, because it waits for the GPU
        reference.require_ids(target.long(), values.shape[1], ignore_index)
    return totals.sum() + poison, counts.sum(), slope


def _run(name: str, values: Tensor, grid: Grid, out: Tensor) -> None:
    """Run the program that computes `out` (N, H, W). A score that is not finite is an error."""
    require(values)
    if out.numel() == 0:
        return
    launch = plan(values.detach(), grid, (out.shape[1], out.shape[2]))
    with torch.cuda.device_of(values):
        getattr(cuda_kernels(), name)[(launch.programs,)](
            *launch.arguments, out, **launch.constants
        )
    reference.require_finite(values)  # last, because it waits for the GPU


@dataclass(frozen=True)
class Plan:
    """The division of one computation into programs."""

    arguments: tuple[Any, ...]  # the first ones of every program
    programs: int  # number of programs that cover all pixels
    constants: dict[str, Any]  # compile-time constants of these programs
    phases: dict[tuple[int, int], int]  # of the gradient, with the number of programs in each
    gradient_constants: dict[str, Any]  # compile-time constants of the gradient's programs


def plan(values: Tensor, grid: Grid, size: tuple[int, int]) -> Plan:
    count, classes, *cells = values.shape
    stride = _power_of_two(ceil(grid.stride))
    tile, place = min(ROWS, stride), (grid.stride, grid.offset)
    rows = axis(*place, cells[0], size[0], tile, values.device)
    columns = axis(*place, cells[1], size[1], tile, values.device)
    tables = (
        *(rows.gaps, rows.weights, rows.starts, rows.tiles),
        *(columns.gaps, columns.weights, columns.starts),
    )
    chunk = min(CHUNK, _power_of_two(classes))
    # Without fusion every addition of a product would be rounded twice and take two instructions.
    constants = {"CHUNK": chunk, "ROWS": tile, "enable_fp_fusion": True}
    gaps = GRADIENT_COLUMNS // min(GRADIENT_COLUMNS, stride)
    row_gaps, blocks = cells[0] + 1, ceil((cells[1] + 1) / gaps)
    each = count * ceil(classes / chunk)
    phases = {
        (i, j): each * len(range(i, row_gaps, 2)) * len(range(j, blocks, 2))
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))
    }
    return Plan(
        (values, *values.stride(), *values.shape[1:], *size, len(rows.tiles), tables),
        count * len(rows.tiles) * ceil(size[1] / COLUMNS),
        {**constants, "COLUMNS": COLUMNS, "num_warps": COLUMNS // 32},
        {phase: programs for phase, programs in phases.items() if programs},
        {**constants, "COLUMNS": GRADIENT_COLUMNS, "GAPS": gaps, "num_warps": 1},
    )


@lru_cache(maxsize=256)
def axis(
    stride: float, offset: float, cells: int, pixels: int, tile: int, device: torch.device
) -> Axis:
    """Return the tables of one axis, computed in float64 on the CPU and cached."""
    positions = (torch.arange(pixels, dtype=torch.float64) - offset) / stride
    below = positions.floor().clamp(-1, cells - 1)
    gaps = below.long() + 1
    weights = torch.where(gaps == 0, 1, torch.where(gaps == cells, 0, positions - below))
    starts = torch.searchsorted(gaps, torch.arange(cells + 2))
    tiles = torch.nonzero((torch.arange(pixels) - starts[gaps]) % tile == 0).flatten()
    gaps, starts, tiles = (table.to(torch.int32).to(device) for table in (gaps, starts, tiles))
    return Axis(gaps, weights.float().to(device), starts, tiles)


def _power_of_two(at_least: int) -> int:
    return 1 << (at_least - 1).bit_length()


def cuda_kernels() -> ModuleType:
    """Return the module of the programs; the first call imports Triton."""
    return import_module("fullconv.network.kernels.triton_kernels")


def require(values: Tensor, target: Tensor | None = None) -> None:
    """Raise FullconvError if the programs cannot run on these tensors."""
    programs = cuda_kernels()
    hint = "export FULLCONV_KERNELS=reference"
    if not programs.INSTALLED:
        message = msg(
            "Triton was requested, but the Python package triton is not installed (PyTorch "
            "brings it on Linux)."
        )
        raise FullconvError(message, hint)
    if not values.is_cuda and not programs.INTERPRETED:
        if torch.cuda.is_available():
            message = msg(
                "Triton was requested, but the scores are on the device {device}; expected cuda.",
                device=values.device,
            )
        else:
            message = msg("Triton was requested, but PyTorch finds no GPU.")
        raise FullconvError(message, hint)
    if values.dtype != torch.float32:
        raise FullconvError(
            msg("Triton needs float32 scores; these are {dtype}.", dtype=values.dtype), hint
        )
    if target is not None and target.device != values.device:
        raise reference.device_error(target, values)
