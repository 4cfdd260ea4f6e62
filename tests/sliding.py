"""Small classifiers without padding. Their cells must equal the classifier on the crop of each
window, which is the definition that the dense tests compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

STRIDE, WINDOW = 4, 21  # of `trunk`, in pixels: a map of 5 x 5 cells on its own images
SIDE, CHANNELS = 5, 6


def trunk() -> nn.Module:
    """(N, 3, H, W) -> (N, 6, h, w), stride 4, without padding."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, CHANNELS, 2, stride=2), nn.Tanh()
    )


class Small(nn.Module):
    """A trunk and a head."""

    def __init__(self, head: Callable[[Tensor], Tensor] | nn.Module) -> None:
        super().__init__()
        self.features = trunk()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))  # type: ignore[operator, no-any-return]


class Head(nn.Module):
    """A function with layers."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **layers: Any) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def random_weights(module: nn.Module, *, seed: int = 0) -> nn.Module:
    """Randomize all parameters and batch statistics, in float64 and evaluation mode."""
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


@torch.no_grad()
def over_crops(
    classifier: nn.Module, images: Tensor, *, window: int = WINDOW, stride: int = STRIDE
) -> Tensor:
    """Run the classifier on the crop of every window, one after the other: (N, K, h, w)."""
    rows, columns = ([*range(0, n - window + 1, stride)] for n in images.shape[2:])
    scores = [
        classifier(images[:, :, i : i + window, j : j + window]) for i in rows for j in columns
    ]
    return torch.stack(scores, dim=-1).unflatten(-1, (len(rows), len(columns)))
