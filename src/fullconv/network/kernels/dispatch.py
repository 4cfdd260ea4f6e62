"""Loss, labels and confidence from scores at cells, each on the fastest backend available.

| backend   | runs                                             | file         |
|-----------|--------------------------------------------------|--------------|
| native    | compiled C++, float32 on the CPU                 | native.py    |
| triton    | Triton, float32 on CUDA                          | cuda.py      |
| reference | torch, any type on any device: always works      | reference.py |

The environment variable FULLCONV_KERNELS forces a backend. If rows and columns have different
grids, the backend is always the reference.

Shapes: N batch · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.geometry.grid import Grid
from fullconv.network.kernels import reference
from fullconv.network.kernels.library import forced_backend
from fullconv.network.kernels.reference import AxisGrids, LossOptions

DEFAULT_OPTIONS = LossOptions()


def select_backend(values: Tensor, grid: AxisGrids | None = None) -> ModuleType:
    """Return the module that computes loss, labels and confidence of these scores; without a grid,
    of scores with one grid for rows and columns.

    Raises:
        FullconvError: the forced backend does not exist or cannot run here.
    """
    if grid is not None and not isinstance(grid, Grid):
        return reference
    forced = forced_backend()
    if forced == "reference" or (values.dtype != torch.float32 and not forced):
        return reference
    if forced == "triton" or (not forced and values.device.type == "cuda"):
        from fullconv.network.kernels import cuda

        if forced or cuda.available():
            return cuda
    elif forced == "native" or values.device.type == "cpu":
        from fullconv.network.kernels import native

        if forced or native.available():
            return native
    return reference


def labels(values: Tensor, grid: AxisGrids, size: tuple[int, int]) -> Tensor:
    """Return the class with the largest score at every pixel, from scores (N, K, h, w): ids
    (N, H, W), uint8 up to 255 classes, else uint16. The lowest id wins a tie.

    Raises:
        FullconvError: a score is NaN or infinite.
    """
    ids: Tensor = select_backend(values, grid).labels(values, grid, size)
    return ids


def confidence(values: Tensor, grid: AxisGrids, size: tuple[int, int]) -> Tensor:
    """Return the softmax probability of that class at every pixel, a fraction: (N, H, W).

    Raises:
        FullconvError: a score is NaN or infinite.
    """
    probability: Tensor = select_backend(values, grid).confidence(values, grid, size)
    return probability


def loss(
    values: Tensor, grid: AxisGrids, target: Tensor, options: LossOptions = DEFAULT_OPTIONS
) -> Tensor:
    """Return the mean softmax cross-entropy over the pixels of `target` (N, H, W) that are not
    ignored, summed in float64; 0 if there are none, NaN if a score is not finite.

    Raises:
        FullconvError: an option is out of range, the target is on another device, or it has ids
            outside 0 .. K-1.
    """
    _, class_weights, label_smoothing = options
    classes = values.shape[1]
    if class_weights is not None and tuple(class_weights.shape) != (classes,):
        message = msg(
            "class_weights has the shape {shape}; expected one weight for each of the "
            "{classes} classes.",
            shape=tuple(class_weights.shape),
            classes=classes,
        )
        raise FullconvError(message, f"torch.ones({classes})")
    if not 0 <= label_smoothing <= 1:
        message = msg("label_smoothing is {value}; expected 0 to 1.", value=label_smoothing)
        raise FullconvError(message, "label_smoothing=0.1")
    if target.device != values.device:
        raise reference.device_error(target, values)
    result: Tensor = _Loss.apply(values, grid, target, options)
    return result


class _Loss(torch.autograd.Function):
    """The gradient is computed together with the loss, in one pass."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, grid: AxisGrids, target: Tensor, options: LossOptions
    ) -> Tensor:
        backend = select_backend(values, grid)
        total, weight, gradient = backend.loss_and_gradient(
            values, grid, target, options, gradient=ctx.needs_input_grad[0]
        )
        ctx.gradient, ctx.weight = gradient, weight.clamp(min=1e-12)
        mean: Tensor = (total / ctx.weight).to(values.dtype)
        return mean

    @staticmethod
    @once_differentiable  # the gradient is a computed number without a graph
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        scale = (grad_outputs[0].double() / ctx.weight).to(ctx.gradient.dtype)
        return ctx.gradient * scale, None, None, None
