"""Models with random weights that tell many classes apart, without training."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from fullconv.core.labels import Labels
from fullconv.data.synthetic import scenes as drawn
from fullconv.models.model import Model
from fullconv.network.fcn import FCN
from fullconv.network.multi_input import fuse


class Tiny(nn.Module):
    """A backbone of strides 4 and 8, which is exported in a fifth of the time of a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 12, 5, 4, 2), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(12, 24, 3, padding=1), nn.ReLU())
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images)
        return [fine, self.pool(self.coarse(fine))]


def lively(
    backbone: str = "test_resnet", stride: int = 32, labels: Labels = drawn.LABELS, **options: Any
) -> Model:
    """Return a model with `options` as of `Model`; the backbone "tiny" is `Tiny`. Every branch
    contributes, and the logits of each class have mean 0 and spread 1 over a synthetic scene."""
    count = len(labels) + sum(map(len, options.get("heads", {}).values()))
    channels = tuple(extra.channels for extra in options.get("extra_inputs", ()))
    network = copy.deepcopy(_lively_network(backbone, stride, count, channels))
    return Model(network, labels, network.backbone.card, **options)


@cache  # tracing a network takes half a second
def _lively_network(backbone: str, stride: int, count: int, channels: tuple[int, ...]) -> FCN:
    scene = torch.from_numpy(drawn.scene(1, size=(160, 224))[0].copy()).permute(2, 0, 1)[None]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = FCN(Tiny() if backbone == "tiny" else backbone, count, stride=stride).eval()
        for module in network.modules():  # a branch that starts at zero would hide its input
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
        features = network.backbone(network.backbone.card.normalize(scene))
        for score, feature in zip(network.score.values(), features, strict=True):
            nn.init.normal_(score.weight)  # type: ignore[arg-type]
            score.weight /= score(feature).std(dim=(0, 2, 3))[:, None, None, None]
            score.bias.copy_(-score(feature).mean(dim=(0, 2, 3)))
        if channels:
            fuse(network, channels, "early")
    return network
