"""The memory of a network, against counts by hand."""

from __future__ import annotations

from torch import nn

from fullconv.network.activations import bytes_per_pixel


def test_the_memory_of_a_network_is_counted() -> None:
    """By hand: 3 x 4 bytes as handed over and 3 as read; padded by a pixel, or not at all; 8
    channels in float32 at full size twice, as relu keeps its input."""
    layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 1, 1))
    assert bytes_per_pixel(layers, 3) == 15 + 2 * 32
    in_place = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 1, 1))
    assert bytes_per_pixel(in_place, 3) == 15 + 32 + 4
