"""The readings of scores on a GPU, in Triton: the same as `reference`, with hardly any memory.

Every program reads the four cells around its pixels and makes their scores where it needs them, in
registers; nothing with classes and pixels is ever written. Labels and confidence need no memory
beside their result. The loss keeps two numbers per pixel for its gradient, which a second program
makes from the scores anew: it sums over the pixels between four cells and adds the four sums to the
gradient, in four launches of which none has two programs at one cell. So there are no atomic
additions, and every result repeats exactly.

Triton is imported when the first reading is asked for. It comes with PyTorch on Linux.

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
from fullconv.geometry.grid import Grid
from fullconv.network.kernels import reference

# A program reads up to ROWS rows of COLUMNS pixels (a multiple of the 32 threads of a warp), CHUNK
# classes at a time: ROWS * CHUNK scores are in the registers of a thread. A program of the gradient
# is one warp, which sums without waiting for others.
ROWS, COLUMNS, CHUNK = 8, 64, 8
GRADIENT_COLUMNS = 32


@dataclass(frozen=True)
class Axis:
    """How the pixels of one axis read its cells. Gap g lies between the cells g - 1 and g.

    Args:
        gaps: (pixels) the gap of every pixel, 0 to `cells`.
        weights: (pixels) share of the cell g; the cell g - 1 has the rest.
        starts: (cells + 2) the first pixel of every gap, and the end of the last.
        tiles: the first pixel of every tile of pixels within one gap.
    """

    gaps: Tensor
    weights: Tensor
    starts: Tensor
    tiles: Tensor


def available() -> bool:
    """Whether there is a GPU, and a Triton that compiles for it."""
    return (
        torch.cuda.is_available()
        and (torch.version.hip is not None or torch.cuda.get_device_capability() >= (7, 0))
        and cuda_kernels().INSTALLED
    )


def labels(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """The class with the largest score at every pixel: (N, K, h, w) float32 -> (N, H, W), uint8 up
    to 255 classes, else uint16. The lowest class id wins a tie.

    Raises:
        FullconvError: a score is NaN or infinite; no GPU, or no Triton.
    """
    dtype = reference.id_type(values.shape[1])
    ids = torch.empty(values.shape[0], *size, dtype=dtype, device=values.device)
    _read("labels", values, grid, ids)
    return ids


def confidence(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """The softmax probability of that class at every pixel, a fraction: (N, K, h, w) float32 ->
    (N, H, W) float32.

    Raises:
        FullconvError: a score is NaN or infinite; no GPU, or no Triton.
    """
    probability = values.new_empty(values.shape[0], *size)
    _read("confidence", values, grid, probability)
    return probability


def loss_and_gradient(
    values: Tensor,
    grid: Grid,
    target: Tensor,
    *,
    ignore_index: int,
    class_weights: Tensor | None,
    label_smoothing: float,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Softmax cross-entropy over the pixels of `target` (N, H, W) that are not ignored, of the
    scores (N, K, h, w) float32.

    Returns:
        The sum over the pixels and the sum of their class weights (float64 scalars), and the
        gradient of the first, like `values`, or None if it was not asked for. The first and the
        last are NaN where a score is not finite.

    Raises:
        FullconvError: an id outside 0 .. K-1 that is not ignored; no GPU, or no Triton.
    """
    require(values, target)
    values, device = values.detach(), values.device
    how = plan(values, grid, (target.shape[1], target.shape[2]))
    if class_weights is None:
        weights = values.new_ones(values.shape[1])
    else:
        weights = class_weights.detach().to(device, torch.float32).contiguous()
    truth = (target, *target.stride(), ignore_index, float(label_smoothing), weights)
    totals, counts = torch.zeros(2, how.programs, dtype=torch.float64, device=device)
    if target.numel() == 0:
        return totals.sum(), counts.sum(), torch.zeros_like(values) if gradient else None
    lowest, largest = torch.aminmax(values)
    poison = 0 * lowest + 0 * largest  # NaN where a score is not finite
    wrong = torch.zeros(1, dtype=torch.int32, device=device)
    # Of every pixel the largest score and the normaliser: all that the gradient needs to know.
    softmax = values.new_empty(2, *(target.shape if gradient else (0, 0, 0)))
    slope = torch.empty_like(values).fill_(poison) if gradient else None
    programs, smooth = cuda_kernels(), label_smoothing > 0
    with torch.cuda.device_of(values):
        programs.loss[(how.programs,)](
            *how.arguments, *truth, weights.sum(), totals, counts, wrong, *softmax,
            **how.constants, SMOOTH=smooth, KEEP=gradient,
        )  # fmt: skip
        if slope is not None:
            for phase, count in how.phases.items():
                programs.gradient[(count,)](
                    *how.arguments, *truth, *softmax, slope, *slope.stride(), *phase,
                    **how.gradient_constants, SMOOTH=smooth,
                )  # fmt: skip
    if wrong.item():  # asked last, for the answer waits for the GPU
        reference.require_ids(target.long(), values.shape[1], ignore_index)
    return totals.sum() + poison, counts.sum(), slope


def _read(name: str, values: Tensor, grid: Grid, out: Tensor) -> None:
    """Runs the program that computes `out` (N, H, W)."""
    require(values)
    if out.numel() == 0:
        return
    how = plan(values.detach(), grid, (out.shape[1], out.shape[2]))
    with torch.cuda.device_of(values):
        getattr(cuda_kernels(), name)[(how.programs,)](*how.arguments, out, **how.constants)
    reference.require_finite(values)  # asked last, for the answer waits for the GPU


@dataclass(frozen=True)
class Plan:
    """How one reading is divided into programs.

    Args:
        arguments: those that every program takes first.
        programs: how many read all pixels.
        constants: what these are compiled for.
        phases: of the gradient, and how many programs run in each.
        gradient_constants: what these are compiled for.
    """

    arguments: tuple[Any, ...]
    programs: int
    constants: dict[str, Any]
    phases: dict[tuple[int, int], int]
    gradient_constants: dict[str, Any]


def plan(values: Tensor, grid: Grid, size: tuple[int, int]) -> Plan:
    """For scores (N, K, h, w) read at (H, W) pixels."""
    count, classes, *cells = values.shape
    stride = _power_of_two(ceil(grid.stride))
    tile = min(ROWS, stride)
    rows, columns = (
        axis(grid.stride, grid.offset, of, pixels, tile, values.device)
        for of, pixels in zip(cells, size, strict=True)
    )
    place = (
        *(rows.gaps, rows.weights, rows.starts, rows.tiles),
        *(columns.gaps, columns.weights, columns.starts),
    )
    chunk = min(CHUNK, _power_of_two(classes))
    # Without fusion every addition of a product would be rounded twice, and take two instructions.
    constants = {"CHUNK": chunk, "ROWS": tile, "enable_fp_fusion": True}
    gaps = GRADIENT_COLUMNS // min(GRADIENT_COLUMNS, stride)
    row_gaps, blocks = cells[0] + 1, ceil((cells[1] + 1) / gaps)
    each = count * ceil(classes / chunk)
    phases = {
        (i, j): each * len(range(i, row_gaps, 2)) * len(range(j, blocks, 2))
        for i in range(2)
        for j in range(2)
    }
    return Plan(
        (values, *values.stride(), *values.shape[1:], *size, len(rows.tiles), place),
        count * len(rows.tiles) * ceil(size[1] / COLUMNS),
        {**constants, "COLUMNS": COLUMNS, "num_warps": COLUMNS // 32},
        {phase: programs for phase, programs in phases.items() if programs},
        {**constants, "COLUMNS": GRADIENT_COLUMNS, "GAPS": gaps, "num_warps": 1},
    )


@lru_cache(maxsize=256)
def axis(
    stride: float, offset: float, cells: int, pixels: int, tile: int, device: torch.device
) -> Axis:
    """Tables of one axis: positions in float64, on the host, once.

    >>> axis(2, 0.5, cells=2, pixels=4, tile=2, device=torch.device("cpu")).weights
    tensor([1.0000, 0.2500, 0.7500, 0.0000])
    """
    where = (torch.arange(pixels, dtype=torch.float64) - offset) / stride
    below = where.floor().clamp(-1, cells - 1)
    gaps = below.long() + 1
    weights = torch.where(gaps == 0, 1, torch.where(gaps == cells, 0, where - below))
    starts = torch.searchsorted(gaps, torch.arange(cells + 2))
    tiles = torch.nonzero((torch.arange(pixels) - starts[gaps]) % tile == 0).flatten()
    ints = (table.to(torch.int32).to(device) for table in (gaps, starts, tiles))
    gaps, starts, tiles = ints
    return Axis(gaps, weights.float().to(device), starts, tiles)


def _power_of_two(at_least: int) -> int:
    return 1 << (at_least - 1).bit_length()


def cuda_kernels() -> ModuleType:
    """The programs; the first call imports Triton."""
    return import_module("fullconv.network.kernels.triton_kernels")


def require(values: Tensor, target: Tensor | None = None) -> None:
    """Raises FullconvError where the programs cannot run on these tensors."""
    programs = cuda_kernels()
    instead = "export FULLCONV_KERNELS=reference"
    if not programs.INSTALLED:
        raise FullconvError(
            "Triton is asked for, but the Python package triton is not installed "
            "(PyTorch brings it on Linux).",
            instead,
        )
    if not values.is_cuda and not programs.INTERPRETED:
        found = "a GPU is there" if torch.cuda.is_available() else "PyTorch finds no GPU"
        raise FullconvError(
            f"Triton is asked for, but the scores are on the device {values.device} ({found}); "
            "expected cuda.",
            instead,
        )
    if values.dtype != torch.float32:
        raise FullconvError(f"Triton reads float32 scores; these are {values.dtype}.", instead)
    if target is not None and target.device != values.device:
        raise FullconvError(
            f"target is on {target.device}, the scores on {values.device}.",
            "target = target.to(scores.values.device)",
        )
