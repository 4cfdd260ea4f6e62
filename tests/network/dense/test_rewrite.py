"""Every way to write a classifier's end, against the classifier slid over crops in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sliding import CHANNELS, STRIDE, WINDOW, End, Made, over_crops, random_image, random_weights
from torch import Tensor, nn

from fullconv.network.dense.convolutionalize import convolutionalize

SIDE = 5  # cells of the map on the classifier's own images


class Normed(nn.Module):
    """Root mean square over the channels, as a module that is opened; any number of dimensions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.weight = nn.Parameter(torch.ones(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.dim == -1 else self.weight[:, None, None]
        return x * torch.rsqrt(x.pow(2).mean(self.dim, keepdim=True) + 1e-3) * weight


class ChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


def fc(inputs: int = CHANNELS, classes: int = 7) -> nn.Linear:
    return nn.Linear(inputs, classes)


FLAT = CHANNELS * SIDE * SIDE
ENDS: dict[str, Callable[[], nn.Module]] = {
    "fc6 and fc7": lambda: nn.Sequential(
        nn.Flatten(), fc(FLAT, 9), nn.ReLU(True), nn.Dropout(), fc(9, 8), nn.ReLU(), fc(8)
    ),
    "adaptive pooling that is the identity": lambda: nn.Sequential(
        nn.AdaptiveAvgPool2d(SIDE), nn.Dropout(0.3), nn.Flatten(), fc(FLAT)
    ),
    "average": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), fc()),
    "maximum": lambda: nn.Sequential(nn.AdaptiveMaxPool2d((1, 1)), nn.Flatten(1), fc()),
    "pooling of a fixed size": lambda: nn.Sequential(nn.AvgPool2d(SIDE), nn.Flatten(), fc()),
    "largest of a fixed size": lambda: nn.Sequential(
        nn.MaxPool2d(SIDE), nn.Conv2d(CHANNELS, 4, 1), nn.Hardswish(), nn.Flatten(), fc(4)
    ),
    "pooling of the map's size": lambda: End(
        lambda m, x: m.fc(F.avg_pool2d(x, x.shape[2:])[:, :, 0, 0]), fc=fc()
    ),
    "mean": lambda: End(lambda m, x: m.fc(x.mean((2, 3))), fc=fc()),
    "mean, one axis after the other": lambda: End(lambda m, x: m.fc(x.mean(-1).mean(-1)), fc=fc()),
    "mean of a view": lambda: End(lambda m, x: m.fc(x.flatten(2).mean(2)), fc=fc()),
    "rows averaged, columns read": lambda: End(
        lambda m, x: m.fc(x.mean(2).flatten(1)), fc=fc(CHANNELS * SIDE)
    ),
    "sum over the number of cells": lambda: End(
        lambda m, x: m.fc(x.sum((2, 3)) / (x.shape[2] * x.size(3))), fc=fc()
    ),
    "largest": lambda: End(lambda m, x: m.fc(x.amax(dim=(2, 3), keepdim=True)[..., 0, 0]), fc=fc()),
    "average and maximum, side by side": lambda: End(
        lambda m, x: m.fc(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)), fc=fc(2 * CHANNELS)
    ),
    "average and maximum, added": lambda: End(
        lambda m, x: m.fc(
            (F.adaptive_avg_pool2d(x, 1) + F.adaptive_max_pool2d(x, 1)).flatten(1) * 0.5
        ),
        fc=fc(),
    ),
    "generalised mean": lambda: End(
        lambda m, x: m.fc((x.clamp(min=1e-2) ** 3).mean((2, 3)) ** (1 / 3)), fc=fc()
    ),
    "view by sizes": lambda: End(
        lambda m, x: m.fc(x.view(x.size(0), x.size(1) * x.size(2) * x.size(3))), fc=fc(FLAT)
    ),
    "channels last, flattened": lambda: End(
        lambda m, x: m.fc(x.permute(0, 2, 3, 1).flatten(1)), fc=fc(FLAT)
    ),
    "channels last all along": lambda: nn.Sequential(
        ChannelsLast(), nn.LayerNorm(CHANNELS), End(lambda m, x: m.fc(x.mean((1, 2))), fc=fc())
    ),
    "scores at every cell, averaged": lambda: End(
        lambda m, x: m.fc(x.permute(0, 2, 3, 1)).mean(dim=[1, 2]), fc=fc()
    ),
    "transposed": lambda: End(
        lambda m, x: m.fc(x.flatten(2).transpose(1, 2).reshape(x.shape[0], -1)), fc=fc(FLAT)
    ),
    "layer norm": lambda: End(
        lambda m, x: m.fc(m.norm(x.mean((2, 3)))), fc=fc(), norm=nn.LayerNorm(CHANNELS)
    ),
    "batch norm of one dimension": lambda: End(
        lambda m, x: m.fc(m.norm(x.mean((2, 3)))), fc=fc(), norm=nn.BatchNorm1d(CHANNELS)
    ),
    "batch norm without weights": lambda: End(
        lambda m, x: m.norm(m.fc(x.mean((2, 3)))), fc=fc(), norm=nn.BatchNorm1d(7, affine=False)
    ),
    "norm of one's own, flat": lambda: End(
        lambda m, x: m.fc(m.norm(x.mean((2, 3)))), fc=fc(), norm=Normed(-1)
    ),
    "norm of one's own, of a map": lambda: End(
        lambda m, x: m.fc(m.norm(x.mean((2, 3), keepdim=True)).flatten(1)), fc=fc(), norm=Normed(1)
    ),
    "1x1 convolution behind the pooling": lambda: nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(CHANNELS, 8, 1),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        nn.Flatten(),
        fc(8),
    ),
    "convolution as large as the map": lambda: nn.Sequential(
        nn.Conv2d(CHANNELS, 8, SIDE), nn.ReLU(), nn.Conv2d(8, 7, 1), nn.Flatten()
    ),
    "probabilities": lambda: End(lambda m, x: m.fc(x.mean((2, 3))).softmax(-1), fc=fc()),
    "angles to class vectors": lambda: End(
        lambda m, x: F.linear(F.normalize(x.mean((2, 3))), F.normalize(m.weight)),
        weight=nn.Parameter(torch.ones(7, CHANNELS)),
    ),
    "weights of the channels": lambda: End(
        lambda m, x: m.fc(F.prelu(m.scale * x.mean((2, 3)) + m.shift, m.slope)) * m.sharpness,
        fc=fc(),
        scale=nn.Parameter(torch.ones(CHANNELS)),
        shift=nn.Parameter(torch.ones(1, CHANNELS)),
        slope=nn.Parameter(torch.ones(CHANNELS)),
        sharpness=nn.Parameter(torch.ones(())),
    ),
    "two heads": lambda: End(
        lambda m, x: (m.fc(x.mean((2, 3))) + m.other(x.flatten(1))) / 2, fc=fc(), other=fc(FLAT)
    ),
    "gate on what is pooled": lambda: End(
        lambda m, x: m.fc((p := x.mean((2, 3))) * torch.sigmoid(m.gate(p))),
        fc=fc(),
        gate=fc(CHANNELS, CHANNELS),
    ),
    "no bias, one layer twice": lambda: End(
        lambda m, x: m.fc(m.twice(m.twice(x.mean((2, 3))).relu())),
        fc=nn.Linear(CHANNELS, 1, bias=False),
        twice=fc(CHANNELS, CHANNELS),
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_every_cell_is_the_classifier_on_the_crop_of_its_window(name: str) -> None:
    classifier = random_weights(Made(ENDS[name]()))
    dense = convolutionalize(classifier, size=WINDOW)
    assert dense.is_local
    assert (dense.grid.stride, dense.grid.offset) == (STRIDE, (WINDOW - 1) / 2)
    for size in ((WINDOW, WINDOW), (WINDOW + STRIDE, WINDOW + 3 * STRIDE + 2)):
        images = random_image(*size)
        wanted = over_crops(classifier, images)
        with torch.no_grad():
            found = dense(images)
        assert float(wanted.std()) > 1e-3  # or equality would say nothing
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_fully_connected_layers_become_convolutions_under_the_same_names() -> None:
    classifier = random_weights(Made(ENDS["fc6 and fc7"]()))
    network = convolutionalize(classifier, size=WINDOW).network
    layers = {
        name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)
    }
    assert {name: layer.kernel_size for name, layer in layers.items() if "end" in name} == {
        "end.1": (SIDE, SIDE),
        "end.4": (1, 1),
        "end.6": (1, 1),
    }
    fc6 = classifier.end[1]  # type: ignore[index, union-attr]
    assert torch.equal(layers["end.1"].weight, fc6.weight.view(9, CHANNELS, SIDE, SIDE))
    assert torch.equal(layers["end.1"].bias, fc6.bias)  # type: ignore[arg-type]
    kinds = {type(layer) for layer in network.modules()}
    assert not kinds & {nn.Linear, nn.Flatten, nn.Dropout, nn.AdaptiveAvgPool2d}


def test_the_trunk_stays_as_it_is() -> None:
    classifier = random_weights(Made(ENDS["average"]()))
    network = convolutionalize(classifier, size=WINDOW).network
    assert str(network.features) == str(classifier.features)
    wanted = {k: v for k, v in classifier.state_dict().items() if k.startswith("features")}
    found = {k: v for k, v in network.state_dict().items() if k.startswith("features")}
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[k], found[k]) for k in wanted)
    pools = [layer for layer in network.modules() if isinstance(layer, nn.AvgPool2d)]
    assert [(pool.kernel_size, pool.stride) for pool in pools] == [((SIDE, SIDE), 1)]
