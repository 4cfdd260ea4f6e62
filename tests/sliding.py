"""Small classifiers without padding, whose cells must be the classifier on the crop of its window:
the definition that everything dense is held against. Nothing here uses `fullconv.network.dense.rewrite`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

STRIDE, WINDOW = 4, 21  # of `trunk`, in pixels: a map of 5 x 5 cells on its own images
CHANNELS = 6


def trunk() -> nn.Module:
    """(N, 3, H, W) -> (N, 6, h, w), stride 4, no padding anywhere."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, CHANNELS, 2, stride=2), nn.Tanh()
    )


class Made(nn.Module):
    """A trunk and an end; `shape` is that of the map on the classifier's own images."""

    def __init__(self, end: Callable[[Tensor], Tensor] | nn.Module) -> None:
        super().__init__()
        self.features = trunk()
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.features(x))  # type: ignore[operator, no-any-return]


class End(nn.Module):
    """A function with layers."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **layers: Any) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def random_weights(module: nn.Module, *, seed: int = 0) -> nn.Module:
    """In float64 and evaluation mode, nothing left as it starts: norms and their statistics too."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.normal_(0, 0.4, generator=generator)
        for name, tensor in module.named_buffers():
            if name.endswith("running_mean"):
                tensor.normal_(0, 0.3, generator=generator)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
    return module


def random_image(height: int, width: int, *, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, height, width, dtype=torch.float64, generator=generator)


def over_crops(
    classifier: nn.Module, images: Tensor, *, window: int = WINDOW, stride: int = STRIDE
) -> Tensor:
    """The classifier slid over crops, one after the other: (N, K, h, w)."""
    rows, columns = ((n - window) // stride + 1 for n in images.shape[2:])
    with torch.no_grad():
        return torch.stack(
            [
                torch.stack(
                    [
                        classifier(
                            images[
                                :,
                                :,
                                i * stride : i * stride + window,
                                j * stride : j * stride + window,
                            ]
                        )
                        for j in range(columns)
                    ],
                    dim=-1,
                )
                for i in range(rows)
            ],
            dim=-2,
        )
