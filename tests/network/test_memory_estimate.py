"""The memory of a network, against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fullconv.network.backbone import build
from fullconv.network.memory_estimate import bytes_per_pixel


class Layers(nn.Module):
    """32 pixels to a cell, in one convolution and what follows."""

    def __init__(self, channels: int, *layers: nn.Module) -> None:
        super().__init__()
        self.first, self.rest = nn.Conv2d(3, channels, 32, 32), nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        cells: torch.Tensor = self.rest(self.first(images))
        return cells


@pytest.mark.parametrize(("in_place", "maps"), [(False, 2), (True, 1)])
def test_the_memory_of_a_network_is_counted(in_place: bool, maps: int) -> None:
    """By hand: 3 x 4 bytes as handed over and 3 as read; 4096 channels in float32 on every 1024th
    pixel, twice where relu keeps its input; then a channel more, or not at once."""
    backbone = build(Layers(4096, nn.ReLU(in_place)), stride=32)
    assert bytes_per_pixel(backbone) == pytest.approx(15 + maps * 16, rel=0.1)


def test_a_image_is_counted_once_though_it_is_padded() -> None:
    """By hand: the image; 64 channels on every 16th pixel, and a quarter of them pooled, each
    with its place in 8 bytes."""
    backbone = build("torchvision:alexnet", stride=8)
    assert backbone.pad_before > 0
    assert backbone.pad_after(2049) > 0
    assert bytes_per_pixel(backbone) == pytest.approx(15 + 16 + 4 + 8, rel=0.05)
