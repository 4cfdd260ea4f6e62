"""An independent check of `trace`: where a real network looks, measured by gradients.

A network is reduced to averaging: uniform convolutions, no biases, no norms, no gates, average
pooling for max pooling, attention silenced. What one cell sees is then a mass distribution over the
image: its center is the cell's center, its support the receptive field. Nothing here uses a formula
of `fullconv.geometry`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Modules that change values, not positions, by the beginning of their names (torch's, timm's,
# torchvision's): each becomes the identity.
IDENTITIES = (
    *("BatchNorm", "LayerNorm", "GroupNorm", "RmsNorm", "GlobalResponseNorm", "FrozenBatchNorm"),
    *("Dropout", "DropPath", "DropBlock", "StochasticDepth", "LayerScale", "Affine", "Scale"),
    *("ReLU", "GELU", "SiLU", "Swish", "Hardswish", "Hardsigmoid", "HardSwish", "HardMish"),
    *("Sigmoid", "Mish", "PReLU", "StarReLU", "Tanh", "LeakyReLU", "QuickGELU", "LocalResponse"),
    *("SqueezeExcite", "SqueezeExcitation", "SEModule", "EffectiveSE", "EcaModule", "SEBlock"),
)


class Zero(nn.Module):
    """A silenced branch."""

    def forward(self, x: Tensor, *_args: Any, **_options: Any) -> Tensor:
        return torch.zeros_like(x)


class Same(nn.Module):
    """The identity, whatever the other arguments."""

    def forward(self, x: Tensor, *_args: Any, **_options: Any) -> Tensor:
        return x


def averaged(module: nn.Module) -> nn.Module:
    """Reduce a network to averaging, in place, in float64 and evaluation mode."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            replacement = _replacement(child)
            if replacement is not None:
                setattr(parent, name, replacement)
            if type(child).__name__ == "SwinTransformerBlock":
                child._attn = lambda x: torch.zeros(x.shape, dtype=x.dtype)
    for child in module.modules():
        if isinstance(child, (nn.Conv2d, nn.Linear)):
            fan_in = child.weight[0].numel()
            child.weight.data = torch.full_like(child.weight, 1 / fan_in, dtype=torch.float64)
            if child.bias is not None:
                child.bias.data = torch.zeros_like(child.bias, dtype=torch.float64)
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] in ("gamma", "gamma_1", "gamma_2", "layer_scale"):
            parameter.data.fill_(1)
    return module.double().eval()


def _replacement(child: nn.Module) -> nn.Module | None:
    kind = type(child).__name__
    if "Attention" in kind:
        return Zero()
    if kind.startswith(IDENTITIES):
        return Same()
    if isinstance(child, nn.MaxPool2d):
        return nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
    if isinstance(child, nn.Conv2d) and kind.startswith("StdConv"):  # its weights have mean zero
        return nn.Conv2d(
            child.in_channels,
            child.out_channels,
            child.kernel_size,  # type: ignore[arg-type]
            child.stride,  # type: ignore[arg-type]
            child.padding,  # type: ignore[arg-type]
            child.dilation,  # type: ignore[arg-type]
            child.groups,
        )
    return None


@dataclass(frozen=True)
class View:
    """The view of one cell along one axis: the center of mass, the first and the last pixel."""

    center: float
    first: int
    last: int


def views(
    module: nn.Module, size: tuple[int, int], *, axis: int = 0, cells: int | None = None
) -> list[tuple[int, View, View]]:
    """Per feature map of a network, measure a cell near the middle: its index, what it sees along
    the rows (axis 0) or columns, and what the cell 32 pixels (or `cells`) further sees.

    Backpropagates a whole row (column) of cells: their views along the other axis do not matter.
    """
    like = next(module.parameters(), torch.zeros((), dtype=torch.float64))
    image = torch.rand(1, 3, *size, dtype=like.dtype).requires_grad_()
    result = []
    for feature in maps(module, image):
        count = feature.shape[2 + axis]
        step = cells or max(1, round(32 * count / size[axis]))
        middle = max(0, (count - step) // 2)
        first, second = (
            _view(feature.select(2 + axis, cell), image, axis)
            for cell in (middle, min(middle + step, count - 1))
        )
        result.append((middle, first, second))
    return result


def _view(cells: Tensor, image: Tensor, axis: int) -> View:
    (gradient,) = torch.autograd.grad(cells.sum(), image, retain_graph=True)
    mass = gradient.abs().double().sum(dim=(0, 1, 3 - axis))
    pixels = torch.nonzero(mass).flatten()
    center = float((mass * torch.arange(len(mass))).sum() / mass.sum())
    return View(center, int(pixels[0]), int(pixels[-1]))


def maps(module: nn.Module, image: Tensor) -> list[Tensor]:
    """Return the feature maps (N, C, h, w) of a network; timm's Swin returns (N, h, w, C)."""
    output = module(image)
    if isinstance(output, Tensor):
        output = [output]
    elif isinstance(output, dict):
        output = list(output.values())
    info = getattr(module, "feature_info", None)
    channels = info.channels() if info else [m.shape[1] for m in output]
    return [
        m if m.shape[1] == c else m.permute(0, 3, 1, 2)
        for m, c in zip(output, channels, strict=True)
    ]
