"""Every way to write a classifier's head: supported ones equal the classifier on crops, in float64;
the others are refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sliding import (
    CHANNELS,
    SIDE,
    STRIDE,
    WINDOW,
    Head,
    Small,
    over_crops,
    random_image,
    random_weights,
)
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.network.dense.convolutionalize import convolutionalize

FLAT = CHANNELS * SIDE * SIDE


def fc(inputs: int = CHANNELS, classes: int = 7) -> nn.Linear:
    return nn.Linear(inputs, classes)


def with_fc(run: Callable[[nn.Module, Tensor], Tensor], inputs: int = CHANNELS) -> nn.Module:
    return Head(run, fc=fc(inputs))


class RmsNorm(nn.Module):
    """Over the channels, as a module that is opened; of a vector or of a map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.weight = nn.Parameter(torch.ones(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.dim == -1 else self.weight[:, None, None]
        return x * torch.rsqrt(x.pow(2).mean(self.dim, keepdim=True) + 1e-3) * weight


HEADS: dict[str, Callable[[], nn.Module]] = {
    "fc6 and fc7": lambda: nn.Sequential(
        nn.Flatten(), fc(FLAT, 9), nn.ReLU(True), nn.Dropout(), fc(9, 8), nn.ReLU(), fc(8)
    ),
    "adaptive pooling that is the identity": lambda: nn.Sequential(
        nn.AdaptiveAvgPool2d(SIDE), nn.Dropout(0.3), nn.Flatten(), fc(FLAT)
    ),
    "average": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), fc()),
    "maximum": lambda: nn.Sequential(nn.AdaptiveMaxPool2d((1, 1)), nn.Flatten(1), fc()),
    "pooling of a fixed size": lambda: nn.Sequential(nn.AvgPool2d(SIDE), nn.Flatten(), fc()),
    "maximum of a fixed size": lambda: nn.Sequential(
        nn.MaxPool2d(SIDE), nn.Conv2d(CHANNELS, 4, 1), nn.Hardswish(), nn.Flatten(), fc(4)
    ),
    "pooling of the map's size": lambda: with_fc(
        lambda m, x: m.fc(F.avg_pool2d(x, x.shape[2:])[:, :, 0, 0])
    ),
    "mean": lambda: with_fc(lambda m, x: m.fc(x.mean((2, 3)))),
    "mean, one axis after the other": lambda: with_fc(lambda m, x: m.fc(x.mean(-1).mean(-1))),
    "mean of a view": lambda: with_fc(lambda m, x: m.fc(x.flatten(2).mean(2))),
    "mean of the rows only": lambda: with_fc(
        lambda m, x: m.fc(x.mean(2).flatten(1)), CHANNELS * SIDE
    ),
    "sum over the number of cells": lambda: with_fc(
        lambda m, x: m.fc(x.sum((2, 3)) / (x.shape[2] * x.size(3)))
    ),
    "amax": lambda: with_fc(lambda m, x: m.fc(x.amax(dim=(2, 3), keepdim=True)[..., 0, 0])),
    "average and maximum, concatenated": lambda: with_fc(
        lambda m, x: m.fc(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)), 2 * CHANNELS
    ),
    "average and maximum, added": lambda: with_fc(
        lambda m, x: m.fc(
            (F.adaptive_avg_pool2d(x, 1) + F.adaptive_max_pool2d(x, 1)).flatten(1) * 0.5
        )
    ),
    "generalized mean": lambda: with_fc(
        lambda m, x: m.fc((x.clamp(min=1e-2) ** 3).mean((2, 3)) ** (1 / 3))
    ),
    "view by sizes": lambda: with_fc(
        lambda m, x: m.fc(x.view(x.size(0), x.size(1) * x.size(2) * x.size(3))), FLAT
    ),
    "channels last, flattened": lambda: with_fc(
        lambda m, x: m.fc(x.permute(0, 2, 3, 1).flatten(1)), FLAT
    ),
    "channels last, layer norm": lambda: Head(
        lambda m, x: m.fc(m.norm(x.permute(0, 2, 3, 1)).mean((1, 2))),
        norm=nn.LayerNorm(CHANNELS),
        fc=fc(),
    ),
    "scores at every cell, averaged": lambda: with_fc(
        lambda m, x: m.fc(x.permute(0, 2, 3, 1)).mean(dim=[1, 2])
    ),
    "transposed": lambda: with_fc(
        lambda m, x: m.fc(x.flatten(2).transpose(1, 2).reshape(x.shape[0], -1)), FLAT
    ),
    "layer norm": lambda: Head(
        lambda m, x: m.fc(m.norm(x.mean((2, 3)))), fc=fc(), norm=nn.LayerNorm(CHANNELS)
    ),
    "batch norm of a vector": lambda: Head(
        lambda m, x: m.fc(m.norm(x.mean((2, 3)))), fc=fc(), norm=nn.BatchNorm1d(CHANNELS)
    ),
    "batch norm without weights": lambda: Head(
        lambda m, x: m.norm(m.fc(x.mean((2, 3)))), fc=fc(), norm=nn.BatchNorm1d(7, affine=False)
    ),
    "hand-written norm of a vector": lambda: Head(
        lambda m, x: m.fc(m.norm(x.mean((2, 3)))), fc=fc(), norm=RmsNorm(-1)
    ),
    "hand-written norm of a map": lambda: Head(
        lambda m, x: m.fc(m.norm(x.mean((2, 3), keepdim=True)).flatten(1)), fc=fc(), norm=RmsNorm(1)
    ),
    "1x1 convolution after the pooling": lambda: nn.Sequential(
        *(nn.AdaptiveAvgPool2d(1), nn.Conv2d(CHANNELS, 8, 1), nn.BatchNorm2d(8)),
        *(nn.Hardswish(), nn.Flatten(), fc(8)),
    ),
    "convolution as large as the map": lambda: nn.Sequential(
        nn.Conv2d(CHANNELS, 8, SIDE), nn.ReLU(), nn.Conv2d(8, 7, 1), nn.Flatten()
    ),
    "probabilities": lambda: with_fc(lambda m, x: m.fc(x.mean((2, 3))).softmax(-1)),
    "angles to class vectors": lambda: Head(
        lambda m, x: F.linear(F.normalize(x.mean((2, 3))), F.normalize(m.weight)),
        weight=nn.Parameter(torch.ones(7, CHANNELS)),
    ),
    "weights of the channels": lambda: Head(
        lambda m, x: m.fc(F.prelu(m.scale * x.mean((2, 3)) + m.shift, m.slope)) * m.sharpness,
        fc=fc(),
        scale=nn.Parameter(torch.ones(CHANNELS)),
        shift=nn.Parameter(torch.ones(1, CHANNELS)),
        slope=nn.Parameter(torch.ones(CHANNELS)),
        sharpness=nn.Parameter(torch.ones(())),
    ),
    "two heads": lambda: Head(
        lambda m, x: (m.fc(x.mean((2, 3))) + m.other(x.flatten(1))) / 2, fc=fc(), other=fc(FLAT)
    ),
    "gate on the pooled map": lambda: Head(
        lambda m, x: m.fc((p := x.mean((2, 3))) * torch.sigmoid(m.gate(p))),
        fc=fc(),
        gate=fc(CHANNELS, CHANNELS),
    ),
    "no bias, one layer twice": lambda: Head(
        lambda m, x: m.fc(m.twice(m.twice(x.mean((2, 3))).relu())),
        fc=nn.Linear(CHANNELS, 1, bias=False),
        twice=fc(CHANNELS, CHANNELS),
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_every_cell_equals_the_classifier_on_the_crop_of_its_window(name: str) -> None:
    classifier = random_weights(Small(HEADS[name]()))
    dense = convolutionalize(classifier, size=WINDOW)
    assert dense.is_local
    assert (dense.grid.stride, dense.grid.offset) == (STRIDE, (WINDOW - 1) / 2)
    for size in ((WINDOW, WINDOW), (WINDOW + STRIDE, WINDOW + 3 * STRIDE + 2)):
        images = random_image(*size)
        expected = over_crops(classifier, images)
        assert float(expected.std()) > 1e-3  # otherwise equality would prove nothing
        with torch.no_grad():
            torch.testing.assert_close(dense(images), expected, rtol=1e-10, atol=1e-10)


def test_layers_become_convolutions_under_the_same_names_and_the_trunk_is_unchanged() -> None:
    classifier = random_weights(Small(HEADS["fc6 and fc7"]()))
    network = convolutionalize(classifier, size=WINDOW).network
    layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and "head" in n}
    kernels = {name: layer.kernel_size for name, layer in layers.items()}
    assert kernels == {"head.1": (SIDE, SIDE), "head.4": (1, 1), "head.6": (1, 1)}
    fc6 = classifier.head[1]
    assert torch.equal(layers["head.1"].weight, fc6.weight.view(9, CHANNELS, SIDE, SIDE))
    assert torch.equal(layers["head.1"].bias, fc6.bias)
    kinds = {type(layer) for layer in network.modules()}
    assert not kinds & {nn.Linear, nn.Flatten, nn.Dropout, nn.AdaptiveAvgPool2d}
    assert str(network.features) == str(classifier.features)
    state = network.state_dict()
    trunk = {k: v for k, v in classifier.state_dict().items() if k.startswith("features")}
    assert trunk.keys() == {k for k in state if k.startswith("features")}
    assert all(torch.equal(state[k], trunk[k]) for k in trunk)
    pooled = convolutionalize(random_weights(Small(HEADS["average"]())), size=WINDOW).network
    pools = [layer for layer in pooled.modules() if isinstance(layer, nn.AvgPool2d)]
    assert [(pool.kernel_size, pool.stride) for pool in pools] == [((SIDE, SIDE), 1)]


class Attention(nn.Module):
    """Pools by attention over all cells; its control flow depends on tensors."""

    def forward(self, x: Tensor) -> Tensor:
        cells = x.flatten(2).transpose(1, 2)
        if cells.sum() > -1e9:
            cells = (cells @ cells.transpose(1, 2)).softmax(-1) @ cells
        return cells.mean(1)


class Centered(nn.Module):
    """Treats a map of one cell differently; closed, because its control flow depends on tensors."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean((2, 3), keepdim=True) / 2 if x.sum() > -1e9 else x


class HiddenPooling(nn.Module):
    """Pools by the map's own size in a closed module, because it returns a map."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, (x.shape[2], x.shape[3]))


POOL = nn.AdaptiveAvgPool2d(1)
UNSUPPORTED: list[tuple[nn.Module, str]] = [
    (
        with_fc(lambda m, x: m.fc(F.adaptive_avg_pool2d(x, 3).flatten(1)), 9 * CHANNELS),
        "pooling of 5 x 5 cells to 3 x 3",
    ),
    (with_fc(lambda m, x: m.fc(x[:, :, 2, 2])), "its head reads only a part of the rows"),
    (
        with_fc(lambda m, x: m.fc(x.mean((2, 3))) + x.flatten(1)[:, :7]),
        "its head reads only a part of the channels, rows, columns",
    ),
    (with_fc(lambda m, x: m.fc(x.amax((2, 3)).cumsum(1))), "the operation 'cumsum'"),
    (
        Head(lambda m, x: (x.flatten(2) @ m.weight).amax(1), weight=torch.ones(25, 2)),
        "the operation 'matmul'",
    ),
    (
        with_fc(lambda m, x: m.fc(x.flatten(2)).amax(1), 25),
        "a fully connected layer along more than the channels",
    ),
    (
        with_fc(lambda m, x: m.fc(x.permute(0, 2, 3, 1).flatten(2)).amax(1), 5 * CHANNELS),
        "a fully connected layer along more than the channels",
    ),
    (
        Head(
            lambda m, x: m.fc(x.flatten(1) * m.weight),
            fc=fc(FLAT),
            weight=nn.Parameter(torch.ones(FLAT)),
        ),
        "mul with a weight for each cell",
    ),
    (
        Head(lambda m, x: m.fc(m.norm(x.flatten(1))), fc=fc(FLAT), norm=nn.BatchNorm1d(FLAT)),
        "separate weights for each cell of a flattened map",
    ),
    (
        with_fc(lambda m, x: m.fc(F.layer_norm(x, (5, 5)).flatten(1)), FLAT),
        "Small accepts only images of 21 x 21 pixels, so it cannot be convolutionalized",
    ),
    (
        Head(lambda m, x: m.fc(x.mean((2, 3)).view(x.shape[0], 3, 2).amax(1)), fc=nn.Linear(2, 2)),
        "view to (1, 3, 2), which splits the channels",
    ),
    (Head(lambda m, x: x.mean((2, 3), True).amax(1).flatten(1)), "amax over the channels"),
    (Head(lambda m, x: x.mean((2, 3)) + x.flatten(1).sum()), "sum over all dimensions"),
    (
        with_fc(lambda m, x: m.fc(x.flatten(1).softmax(0)), FLAT),
        "softmax along something other than the channels",
    ),
    (
        with_fc(lambda m, x: torch.cat([m.fc(x.mean((2, 3)))] * 2, dim=0).amax(0, keepdim=True)),
        "concatenation of something other than channels",
    ),
    (
        with_fc(lambda m, x: m.fc(torch.cat([x.amax(2), x.mean(3)], 1).mean(2)), 2 * CHANNELS),
        "concatenation of tensors with different layouts",
    ),
    (with_fc(lambda m, x: m.fc((x.amax(2) + x.mean(3)).mean(2))), "add of tensors with different"),
    (Head(lambda m, x: m.fc(m.pool(x)), fc=fc(), pool=Attention()), "its head has the module Att"),
    (
        nn.Sequential(POOL, nn.Conv2d(CHANNELS, 7, 3, padding=1), nn.Flatten()),
        "a convolution of several cells after the pooling",
    ),
    (nn.Flatten(2), "a classifier returns scores (1, K)"),
    (nn.Flatten(), "its scores are not those of one window"),
    (nn.Sequential(POOL, nn.GroupNorm(2, CHANNELS), nn.Flatten(), fc()), "group_norm"),
    (
        nn.Sequential(POOL, Centered(), nn.Flatten(), fc()),
        "the convolutionalized Small differs from the classifier by",
    ),
    (
        nn.Sequential(HiddenPooling(), nn.Flatten(), fc()),
        "it returns 1 x 1 cells for an image of 41 x 61 pixels",
    ),
]


@pytest.mark.parametrize(("head", "message"), UNSUPPORTED)
def test_an_unsupported_head_is_named(head: nn.Module, message: str) -> None:
    with pytest.raises(FullconvError) as caught:
        convolutionalize(random_weights(Small(head)), size=WINDOW)
    assert message in caught.value.message
    assert caught.value.hint


def test_what_the_head_reads_from_the_whole_image_is_named() -> None:
    class PooledTwice(Small):
        def forward(self, x: Tensor) -> Tensor:
            x = self.features(x)
            pooled = x.mean((2, 3))
            x = x * pooled[:, :, None, None]
            return self.head(x.mean((2, 3)) + pooled)

    class Positioned(Small):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features(x) + torch.ones(1, CHANNELS, 5, 5))

    for module, message in (
        (PooledTwice(fc()), "computed from the whole image by PooledTwice"),
        (Positioned(nn.Sequential(nn.Flatten(), fc(FLAT))), "Positioned accepts only images of 21"),
    ):
        with pytest.raises(FullconvError, match=message):
            convolutionalize(module, size=WINDOW)
