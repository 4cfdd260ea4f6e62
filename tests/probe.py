"""An independent check of `trace`: where does a real network look, measured by gradients?

A network is reduced to averaging: uniform convolutions, no biases, no norms, no gates, average
pooling for max pooling, attention silenced. What one cell sees is then a mass distribution over the
picture: its centre is the cell's centre, its support the receptive field, and a ramp comes out of
it as the coordinate of each cell. Nothing here uses a formula of `fullconv.tracing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Modules that change values, not places, by the beginning of their names (torch's, timm's,
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
    """The identity, whatever else is passed."""

    def forward(self, x: Tensor, *_args: Any, **_options: Any) -> Tensor:
        return x


def averaged(module: nn.Module) -> nn.Module:
    """Reduces a network to averaging, in place, in float64 and evaluation mode."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            replacement = _replacement(child)
            if replacement is not None:
                setattr(parent, name, replacement)
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
    if "Attention" in kind or kind == "Attn":
        return Zero()
    if kind.startswith(IDENTITIES):
        return Same()
    if isinstance(child, nn.MaxPool2d):
        if hasattr(child, "dynamic_padding"):
            raise NotImplementedError(kind)
        return nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
    if isinstance(child, nn.Conv2d) and "StdConv" in kind:  # standardised weights have mean zero
        plain = nn.Conv2d(
            child.in_channels,
            child.out_channels,
            child.kernel_size,
            child.stride,
            child.padding,
            child.dilation,
            child.groups,
        )
        assert "Same" not in kind
        return plain
    return None


@dataclass(frozen=True)
class Seen:
    """What one cell sees along one axis: the centre of mass, the first and the last pixel."""

    centre: float
    first: int
    last: int


def seen(module: nn.Module, tap: int, cell: int, size: tuple[int, int], *, axis: int = 0) -> Seen:
    """Where the gradient of one cell falls along the rows (axis 0) or columns."""
    return seen_of(_maps(module, size)[tap], cell, axis=axis)
