"""Where the cells of a feature map sit in the image: `Grid`, and `trace()` which computes it.

Cell `i` of a feature map looks at the image around pixel `offset + stride * i` and sees `field`
pixels. Both axes share one grid. `trace` runs the network once on a meta tensor (no arithmetic, no
weights) and composes every layer on the way (Long et al. 2015, sections 3.1-3.2):

    offset += stride * ((k - 1) * d / 2 - p_before)
    stride *= s

The bookkeeping is per tensor dimension, in `fullconv.geometry`; this file holds what it means.
Where composition cannot follow (an operation it does not know), the tap is probed numerically: the
gradient of one cell shows where it looks. That is the least it can see (a branch whose last norm
starts at zero shows nothing), so the field then counts as the whole image. Padding that depends
on the image's size (TensorFlow's SAME) makes the offset depend on it too: `trace` answers for the
size it is given, and `fullconv.network.backbone` holds the phase by padding such images to
`32 k + 1`, where SAME padding is symmetric.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid, Grids
from fullconv.geometry.positions import SpatialLayout, State, layout_of
from fullconv.geometry.tracer import mark, run_traced

# Odd at every level of a stride-32 pyramid: SAME padding is symmetric there.
CANONICAL_SIZE = 257

CHANNELS_FIRST = (None, None, (0, 1), (1, 1))
CHANNELS_LAST = (None, (0, 1), (1, 1), None)  # Swin returns its maps so


def trace(network: str | nn.Module, *, size: int | tuple[int, int] | None = None) -> Grids:
    """The grid of every feature map that a network returns.

    Args:
        network: a module that maps (N, 3, H, W) to one feature map (N, C, h, w) or to a list, tuple
            or dict of them; or the name of a timm backbone, whose pyramid is traced.
        size: the image's size in pixels, H = W or (H, W). It matters only where padding depends
            on it. Default: 257, or the network's own fixed size.

    Returns:
        One Grid per feature map, in the order returned.

    Raises:
        FullconvError: no feature map comes out, or rows and columns have different grids.

    >>> trace("resnet18")[2]
    Grid(stride=8, offset=0, field=99)
    """
    module = _timm_pyramid(network) if isinstance(network, str) else network
    sizes = [size] if size is not None else [CANONICAL_SIZE, 224, 256]
    outputs, shape = _run_at_first_size(module, sizes)
    grids = []
    for index, state in enumerate(outputs):
        name = f"feature map {index} of {type(module).__name__}"
        grid = _as_grid(state, name) if isinstance(state, SpatialLayout) else None
        grids.append(grid or probe(module, tap=index, size=shape))
    return Grids(grids)


def feature_maps(output: Any) -> list[Tensor]:
    """The feature maps (N, C, h, w) in whatever a network returns, in order."""
    if isinstance(output, Tensor):
        maps = [output]
    elif isinstance(output, dict):
        maps = list(output.values())
    elif isinstance(output, (list, tuple)):
        maps = list(output)
    else:
        maps = []
    if not maps or any(not isinstance(m, Tensor) or m.ndim != 4 for m in maps):
        found = [tuple(m.shape) if isinstance(m, Tensor) else type(m).__name__ for m in maps]
        raise FullconvError(
            f"expected feature maps (N, C, h, w), found {found or type(output).__name__}.",
            "return [x8, x16, x32] from the module's forward",
        )
    return maps


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: tracing must not move batch statistics."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes.items():
            child.training = mode


def run_on_meta(module: nn.Module, image: Tensor) -> Any:
    """The module's output for an image on the meta device: shapes without arithmetic."""
    meta = {}
    # By module, each once: where one module stands in two places, functional_call would swap it
    # twice and leave it on the meta device.
    for prefix, child in module.named_modules():
        for name, tensor in (
            *child.named_parameters(prefix, recurse=False, remove_duplicate=False),
            *child.named_buffers(prefix, recurse=False, remove_duplicate=False),
        ):
            kind = image.dtype if tensor.is_floating_point() else tensor.dtype
            meta[name] = torch.empty_like(tensor, device="meta", dtype=kind)
    with evaluating(module), torch.no_grad():
        return torch.func.functional_call(module, meta, (image,), tie_weights=False)


def run_on_device(module: nn.Module, image: Tensor) -> Any:
    """The same on the module's own device, for networks that make tensors of their own there."""
    like = next(module.parameters(), torch.zeros(()))
    real = torch.zeros(image.shape, device=like.device, dtype=like.dtype)
    mark(real, layout_of(image))
    with evaluating(module), torch.no_grad():
        return module(real)


def probe(
    module: nn.Module, *, tap: int = 0, size: tuple[int, int] | None = None, cells: int = 3
) -> Grid:
    """The grid of one feature map, measured: where does the gradient of a cell fall?

    Slower than `trace`, but it needs to know nothing about the operations inside. Where cells see
    a part of the image, its middle is the centre; else the middle of what they see most is, which
    is coarse. The field is never promised: a branch may be silent with these weights and on this
    image, and speak with others. It is `math.inf`, and `whole` says what was measured.

    Args:
        module: maps (N, 3, H, W) to feature maps.
        tap: which of them.
        size: of the random image (H, W), in pixels.
        cells: how many cells around the middle are looked at, per axis.
    """
    height, width = size or (CANONICAL_SIZE, CANONICAL_SIZE)
    parameter = next(module.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, height, width, generator=generator).to(parameter)
    image.requires_grad_(True)
    with evaluating(module), torch.enable_grad():
        feature = feature_maps(module(image))[tap]
        rows = feature.shape[2]
        stride = _measured_stride(module, tap, image, rows)
        middle = rows // 2
        centres, firsts, lasts = [], [], []  # of each cell, in pixels from where it would be
        inside, field = True, 0
        for row in range(max(0, middle - cells // 2), min(rows, middle + cells // 2 + 1)):
            if not feature.requires_grad:
                break
            column = min(round(row * feature.shape[3] / rows), feature.shape[3] - 1)
            weights = torch.randn(feature.shape[1], generator=generator).to(feature)
            (gradient,) = torch.autograd.grad(
                (feature[0, :, row, column] * weights).sum(), image, retain_graph=True
            )
            profile = gradient[0].double().square().sum(dim=(0, 2))  # (H,)
            seen = torch.nonzero(profile).flatten().tolist()
            if not seen:
                continue
            # Squared twice: a faint gradient from everywhere (attention) must not pull the centre.
            weight = profile.square()
            where = torch.arange(height, dtype=torch.float64, device=weight.device)
            centres.append(float((weight * where).sum() / weight.sum()) - stride * row)
            firsts.append(seen[0] - stride * row)
            lasts.append(seen[-1] - stride * row)
            inside = inside and seen[0] > 0 and seen[-1] < height - 1
            field = max(field, seen[-1] - seen[0] + 1)
    if not centres:
        raise FullconvError(
            f"feature map {tap} does not depend on the image: its gradient is zero everywhere.",
            "return [x8, x16, x32] from the module's forward",
        )
    if inside:
        first, last = min(firsts), max(lasts)
        return Grid(stride, (first + last) / 2, math.inf, _measured(last - first + 1))
    offset = round(2 * statistics.median(centres)) / 2
    if field > height - stride:  # rows that no cell sees may be left at the border
        return Grid(stride, offset, math.inf, ("probed: sees the whole image",))
    return Grid(stride, offset, math.inf, _measured(field))


def _measured(field: float) -> tuple[str]:
    return (f"measured, not derived: {field:g} pixels or more",)


def _measured_stride(module: nn.Module, tap: int, image: Tensor, rows: int) -> float:
    """By how many pixels more give how many rows more; of the size alone where the network takes no
    other (257 pixels and 9 rows of stride 32 make 28.6)."""
    height, more = image.shape[2], 256
    taller = image.new_zeros(1, 3, height + more, image.shape[3])
    try:
        with torch.no_grad():
            ratio = more / (feature_maps(module(taller))[tap].shape[2] - rows)
    except (RuntimeError, AssertionError, ValueError, ZeroDivisionError):
        ratio = height / rows
    return float(round(ratio)) if ratio >= 1 else ratio


def _timm_pyramid(name: str) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, features_only=True, pretrained=False)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise FullconvError(
            f"timm has no pyramid of {name!r}: {error}", "timm.list_models()"
        ) from None


def _run_at_first_size(
    module: nn.Module, sizes: Sequence[int | tuple[int, int]]
) -> tuple[list[State | None], tuple[int, int]]:
    """What is known of each output, at the first size that the network accepts."""
    problem: Exception | None = None
    for size in sizes:
        shape = (size, size) if isinstance(size, int) else size
        for run in (run_on_meta, run_on_device):
            try:
                maps = feature_maps(run_traced(module, shape, run))
            except (RuntimeError, AssertionError, ValueError, TypeError) as error:
                problem = problem or error
                continue
            return [layout_of(m) for m in maps], shape
    raise FullconvError(
        f"{type(module).__name__} does not run on an image of {sizes[0]} pixels: {problem}",
        "fullconv.geometry.trace_network.trace(module, size=(224, 224))   # or another size that it takes",
    )


def _as_grid(place: SpatialLayout, name: str) -> Grid | None:
    """The one grid of both axes; None where rows and columns are not two whole dimensions."""
    if place.dims not in (CHANNELS_FIRST, CHANNELS_LAST):
        return None
    rows, columns = place.axes
    if (rows.stride, rows.offset) != (columns.stride, columns.offset):
        raise FullconvError(
            f"{name} has cells {rows.stride:g} px apart from {rows.offset:g} along the rows but "
            f"{columns.stride:g} px apart from {columns.offset:g} along the columns; "
            "both must be equal.",
            "kernel_size=3, stride=2, padding=1   # one number for both, in place of a pair",
        )
    reach = max(max(axis.offset - axis.low, axis.high - axis.offset) for axis in place.axes)
    field = math.inf if place.whole else 2 * reach + 1
    return Grid(rows.stride, rows.offset, field, tuple(sorted(place.whole)))


def module_grids(module: nn.Module) -> list[tuple[str, Grid]]:
    """Name and grid of every submodule whose output is a feature map, in the order they ran."""
    found: list[tuple[str, SpatialLayout]] = []

    def run(module: nn.Module, image: Tensor) -> Any:
        def note(name: str) -> Any:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                state = layout_of(output)
                if isinstance(state, SpatialLayout) and output.ndim == 4:
                    found.append((name, state))

            return hook

        handles = [
            child.register_forward_hook(note(name))
            for name, child in module.named_modules()
            if name
        ]
        try:
            return run_on_meta(module, image)
        finally:
            for handle in handles:
                handle.remove()

    try:
        run_traced(module, (CANONICAL_SIZE, CANONICAL_SIZE), run)
    except (RuntimeError, ValueError, TypeError) as error:
        if not found:
            raise FullconvError(
                f"{type(module).__name__} does not run on an image: {error}",
                f"module(torch.zeros(1, 3, {CANONICAL_SIZE}, {CANONICAL_SIZE}))   # must run",
            ) from error
    grids = []
    for name, state in found:
        # Between two factorised convolutions rows and columns differ: no feature map of use.
        with suppress(FullconvError):
            grids.append((name, _as_grid(state, name)))
    return [(name, grid) for name, grid in grids if grid is not None]
