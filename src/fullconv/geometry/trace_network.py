"""Compute the positions of the cells of feature maps in the image: `trace` and `probe`.

Cell `i` of a feature map looks at the image around pixel `offset + stride * i` and sees `field`
pixels. Rows and columns share one grid. `trace` runs the network once on a meta tensor (no
arithmetic, no weights) and composes the layers (Long et al. 2015, sections 3.1-3.2):

    offset += stride * ((k - 1) * d / 2 - p_before)
    stride *= s

If composition cannot follow (an unknown operation), the tap is probed numerically: the gradient of
a cell shows where it looks. That is only a lower bound (a branch whose last norm starts at zero
shows nothing), so the field then counts as the whole image.

Padding that depends on the image's size (TensorFlow's SAME) makes the offset depend on it too.
`trace` answers for one size; `fullconv.network.backbone` keeps the offset constant by padding such
images to `32 k + 1`, where SAME padding is symmetric.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.geometry.grid import Grid, Grids
from fullconv.geometry.positions import SpatialLayout, State, layout_of
from fullconv.geometry.tracer import run_traced, set_layout

# Odd at every level of a stride-32 pyramid: SAME padding is symmetric there.
CANONICAL_SIZE = 257

CHANNELS_FIRST = (None, None, (0, 1), (1, 1))
CHANNELS_LAST = (None, (0, 1), (1, 1), None)  # Swin's feature maps
_RETURN_MAPS = msg("return [x8, x16, x32] from the module's forward")


def trace(network: str | nn.Module, *, size: int | tuple[int, int] | None = None) -> Grids:
    """Return the grid of every feature map that a network returns, in order.

    Args:
        network: a module that maps (N, 3, H, W) to one feature map (N, C, h, w) or to a list, tuple
            or dict of them; or the name of a timm backbone, whose feature pyramid is traced.
        size: the image's size in pixels, H = W or (H, W). It matters only if padding depends on
            it. Default: 257, or the network's own fixed size.

    Raises:
        FullconvError: no feature map comes out, or rows and columns have different grids.

    >>> trace("resnet18")[2]
    Grid(stride=8, offset=0, field=99)
    """
    module = _timm_pyramid(network) if isinstance(network, str) else network
    sizes = [size] if size is not None else [CANONICAL_SIZE, 224, 256]
    states, shape = _run_at_first_size(module, sizes)
    grids = []
    for index, state in enumerate(states):
        name = msg("feature map {index} of {name}", index=index, name=type(module).__name__)
        grid = _as_grid(state, name) if isinstance(state, SpatialLayout) else None
        grids.append(grid or probe(module, tap=index, size=shape))
    return Grids(grids)


def feature_maps(output: Any) -> list[Tensor]:
    """Return the feature maps (N, C, h, w) in a network's output; anything else is an error."""
    maps = []
    if isinstance(output, Tensor):
        maps = [output]
    elif isinstance(output, (dict, list, tuple)):
        maps = list(output.values() if isinstance(output, dict) else output)
    if not maps or any(not isinstance(m, Tensor) or m.ndim != 4 for m in maps):
        kinds = [tuple(m.shape) if isinstance(m, Tensor) else type(m).__name__ for m in maps]
        message = msg(
            "expected feature maps (N, C, h, w), found {output}.",
            output=kinds or type(output).__name__,
        )
        raise FullconvError(message, _RETURN_MAPS)
    return maps


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode temporarily: tracing must not change batch statistics."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes.items():
            child.training = mode


@contextmanager
def forward_hooks(module: nn.Module, make: Callable[[str], Any]) -> Iterator[None]:
    """Hook `make(name)` to every submodule temporarily."""
    children = [(name, child) for name, child in module.named_modules() if name]
    handles = [child.register_forward_hook(make(name)) for name, child in children]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_on_meta(module: nn.Module, image: Tensor) -> Any:
    """Return the module's output for an image on the meta device: shapes without arithmetic."""
    meta = {}
    # Go through the modules, each once: functional_call would swap a module that is registered
    # twice two times, and leave it on the meta device.
    for prefix, child in module.named_modules():
        for name, tensor in (
            *child.named_parameters(prefix, recurse=False, remove_duplicate=False),
            *child.named_buffers(prefix, recurse=False, remove_duplicate=False),
        ):
            dtype = image.dtype if tensor.is_floating_point() else tensor.dtype
            meta[name] = torch.empty_like(tensor, device="meta", dtype=dtype)
    with evaluating(module), torch.no_grad():
        return torch.func.functional_call(module, meta, (image,), tie_weights=False)


def run_on_device(module: nn.Module, image: Tensor) -> Any:
    """Return the module's output for zeros on its own device, if it creates tensors there."""
    like = next(module.parameters(), torch.zeros(()))
    zeros = torch.zeros(image.shape, device=like.device, dtype=like.dtype)
    set_layout(zeros, layout_of(image))
    with evaluating(module), torch.no_grad():
        return module(zeros)


def probe(
    module: nn.Module, *, tap: int = 0, size: tuple[int, int] | None = None, cells: int = 3
) -> Grid:
    """Measure the grid of feature map `tap` of a module by where the gradient of its cells falls.

    Slower than `trace`, but independent of the operations inside. If cells see a part of the image,
    its middle is the center; otherwise the center of mass of the gradient is, which is coarse. The
    field is always `math.inf`, because a branch may be silent for these weights and this image;
    `whole` reports what was measured. Default: 3 cells in the middle of a random image of 257 x 257
    pixels; `size` is its (H, W).

    Raises:
        FullconvError: the gradient is zero everywhere.
    """
    height, width = size or (CANONICAL_SIZE, CANONICAL_SIZE)
    parameter = next(module.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, height, width, generator=generator).to(parameter)
    image.requires_grad_(True)
    with evaluating(module), torch.enable_grad():
        feature = feature_maps(module(image))[tap]
        rows = feature.shape[2]
        stride = _measure_stride(module, tap, image, rows)
        middle = rows // 2
        # Of each cell, in pixels relative to `stride * row`.
        centers, firsts, lasts = [], [], []
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
            pixels = torch.nonzero(profile).flatten().tolist()
            if not pixels:
                continue
            # Squared twice: a faint gradient from everywhere (attention) must not pull the center.
            weight = profile.square()
            positions = torch.arange(height, dtype=torch.float64, device=weight.device)
            centers.append(float((weight * positions).sum() / weight.sum()) - stride * row)
            firsts.append(pixels[0] - stride * row)
            lasts.append(pixels[-1] - stride * row)
            inside = inside and pixels[0] > 0 and pixels[-1] < height - 1
            field = max(field, pixels[-1] - pixels[0] + 1)
    if not centers:
        message = msg(
            "feature map {index} does not depend on the image: its gradient is zero everywhere.",
            index=tap,
        )
        raise FullconvError(message, _RETURN_MAPS)
    offset = round(2 * statistics.median(centers)) / 2
    if inside:
        first, last = min(firsts), max(lasts)
        offset, field = (first + last) / 2, last - first + 1
    measured = f"measured, not derived: {field:g} pixels or more"
    if not inside and field > height - stride:  # no cell may see the rows at the border
        measured = "probed: sees the whole image"
    return Grid(stride, offset, math.inf, (measured,))


def _measure_stride(module: nn.Module, tap: int, image: Tensor, rows: int) -> float:
    """Return the additional pixels per additional row of cells. If the network takes no other size,
    return the ratio of the sizes (257 pixels and 9 rows of stride 32 give 28.6)."""
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
        message = msg("timm has no feature pyramid of {name!r}: {error}", name=name, error=error)
        raise FullconvError(message, "timm.list_models()") from None


def _run_at_first_size(
    module: nn.Module, sizes: Sequence[int | tuple[int, int]]
) -> tuple[list[State | None], tuple[int, int]]:
    """Return the state of each output, and the first size that the network accepts."""
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
    message = msg(
        "{name} does not run on an image of {size} pixels: {error}",
        name=type(module).__name__,
        size=sizes[0],
        error=problem,
    )
    hint = msg(
        "fullconv.geometry.trace(module, size=(224, 224))   # or another size that it accepts"
    )
    raise FullconvError(message, hint)


def _as_grid(layout: SpatialLayout, name: str) -> Grid | None:
    """Return the grid of both axes; None if rows and columns are not two whole dimensions."""
    if layout.dims not in (CHANNELS_FIRST, CHANNELS_LAST):
        return None
    rows, columns = layout.axes
    if (rows.stride, rows.offset) != (columns.stride, columns.offset):
        raise FullconvError(
            msg(
                "{name} has stride {row_stride:g} and offset {row_offset:g} along the rows, but "
                "stride {column_stride:g} and offset {column_offset:g} along the columns; they "
                "must be equal.",
                name=name,
                row_stride=rows.stride,
                row_offset=rows.offset,
                column_stride=columns.stride,
                column_offset=columns.offset,
            ),
            msg("kernel_size=3, stride=2, padding=1   # one number for rows and columns"),
        )
    reach = max(max(axis.offset - axis.low, axis.high - axis.offset) for axis in layout.axes)
    field = math.inf if layout.whole else 2 * reach + 1
    return Grid(rows.stride, rows.offset, field, tuple(sorted(layout.whole)))


def module_grids(module: nn.Module) -> list[tuple[str, Grid]]:
    """Return the name and grid of every submodule that returns a feature map, in running order."""
    layouts: list[tuple[str, SpatialLayout]] = []

    def run(module: nn.Module, image: Tensor) -> Any:
        def record(name: str) -> Any:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                state = layout_of(output)
                if isinstance(state, SpatialLayout) and output.ndim == 4:
                    layouts.append((name, state))

            return hook

        with forward_hooks(module, record):
            return run_on_meta(module, image)

    try:
        run_traced(module, (CANONICAL_SIZE, CANONICAL_SIZE), run)
    except (RuntimeError, ValueError, TypeError) as error:
        if not layouts:
            kind = type(module).__name__
            message = msg("{name} does not run on an image: {error}", name=kind, error=error)
            hint = msg(
                "module(torch.zeros(1, 3, {size}, {size}))   # must run", size=CANONICAL_SIZE
            )
            raise FullconvError(message, hint) from error
    grids = []
    for name, layout in layouts:
        # Between two factorized convolutions rows and columns differ: not a usable feature map.
        with suppress(FullconvError):
            grids.append((name, _as_grid(layout, name)))
    return [(name, grid) for name, grid in grids if grid is not None]
