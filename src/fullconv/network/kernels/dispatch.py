"""The readings of scores, each run in the fastest way that there is.

| way       | where it runs                                    | file         |
|-----------|--------------------------------------------------|--------------|
| native    | compiled C++, float32 on the CPU                 | native.py    |
| triton    | Triton, float32 on CUDA                          | cuda.py      |
| reference | torch, any type on any device: always works      | reference.py |

The environment variable FULLCONV_KERNELS names one of them to force it. Scores whose two axes have
grids of their own are always read by the reference.

Shapes: N batch · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fullconv.core.errors import FullconvError
from fullconv.network.kernels import reference
from fullconv.network.kernels.reference import Grids

WAYS = ("native", "triton", "reference")
VARIABLE = "FULLCONV_KERNELS"


def select_backend(values: Tensor) -> ModuleType:
    """The module that reads these scores.

    Raises:
        FullconvError: the way that is asked for does not exist or cannot run here.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked and asked not in WAYS:
        raise FullconvError(
            f"{VARIABLE} is {asked!r}; the ways to run are {', '.join(WAYS)}.",
            f"export {VARIABLE}=reference",
        )
    if asked == "reference" or (values.dtype != torch.float32 and not asked):
        return reference
    if asked == "triton" or (not asked and values.device.type == "cuda"):
        from fullconv.network.kernels import cuda

        if asked or cuda.available():
            return cuda
    elif asked == "native" or values.device.type == "cpu":
        from fullconv.network.kernels import native

        if asked or native.available():
            return native
    return reference


def labels(values: Tensor, grid: Grids, size: tuple[int, int]) -> Tensor:
    """The class with the largest score at every pixel: (N, K, h, w) -> (N, H, W), uint8 up to 255
    classes, else uint16. The lowest class id wins a tie."""
    ids: Tensor = _way(values, grid).labels(values, grid, size)
    return ids


def confidence(values: Tensor, grid: Grids, size: tuple[int, int]) -> Tensor:
    """The softmax probability of that class at every pixel, a fraction: (N, H, W)."""
    probability: Tensor = _way(values, grid).confidence(values, grid, size)
    return probability


def loss(
    values: Tensor,
    grid: Grids,
    target: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean softmax cross-entropy over the pixels of `target` (N, H, W) that are not ignored; 0
    where there is none, NaN where a score is not finite. With class weights the mean is weighted,
    as in `torch.nn.CrossEntropyLoss`. Summed in float64."""
    classes = values.shape[1]
    if class_weights is not None and tuple(class_weights.shape) != (classes,):
        raise FullconvError(
            f"class_weights is {tuple(class_weights.shape)}; expected one weight for each of the "
            f"{classes} classes.",
            f"torch.ones({classes})",
        )
    if not 0 <= label_smoothing <= 1:
        raise FullconvError(
            f"label_smoothing is {label_smoothing}; expected 0 to 1.", "label_smoothing=0.1"
        )
    if target.device != values.device:
        raise FullconvError(
            f"the target is on {target.device} and the scores on {values.device}; expected both on "
            "one device.",
            "target = target.to(scores.values.device)",
        )
    options = (ignore_index, class_weights, label_smoothing)
    result: Tensor = _Loss.apply(values, grid, target, options)
    return result


def _way(values: Tensor, grid: Grids) -> ModuleType:
    return reference if isinstance(grid, tuple) else select_backend(values)


class _Loss(torch.autograd.Function):
    """The gradient is computed together with the loss, in one pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Grids, target: Tensor, options: Any) -> Tensor:
        ignore_index, class_weights, label_smoothing = options
        total, weight, gradient = _way(values, grid).loss_and_gradient(
            values,
            grid,
            target,
            ignore_index=ignore_index,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
            gradient=ctx.needs_input_grad[0],
        )
        ctx.gradient, ctx.weight = gradient, weight.clamp(min=1e-12)
        mean: Tensor = (total / ctx.weight).to(values.dtype)
        return mean

    @staticmethod
    @once_differentiable  # the gradient is a number of its own: it has no graph
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        slope = (grad_outputs[0].double() / ctx.weight).to(ctx.gradient.dtype)
        return ctx.gradient * slope, None, None, None
