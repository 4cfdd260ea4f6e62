"""Models with random weights that tell many classes apart, without training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fullconv.core.labels import Labels
from fullconv.data.synthetic import scenes as drawn
from fullconv.models.model import Model
from fullconv.network.fcn import FCN
from fullconv.network.multi_input import fuse


def lively(
    backbone: str = "test_resnet", stride: int = 32, labels: Labels = drawn.LABELS, **further: Any
) -> Model:
    """Of the classes of drawn street scenes or of others; `further` as of `Model`. Every branch
    speaks, and the scores of each class have mean 0 and spread 1 over a drawn scene."""
    heads = further.get("heads", {})
    count = len(labels) + sum(map(len, heads.values()))
    scene = torch.from_numpy(drawn.scene(1, size=(160, 224))[0].copy()).permute(2, 0, 1)[None]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = FCN(backbone, count, stride=stride).eval()
        for module in network.modules():  # a branch that starts at zero would hide what it sees
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
        features = network.backbone(network.backbone.card.normalize(scene))
        for score, feature in zip(network.score.values(), features, strict=True):
            nn.init.normal_(score.weight)  # type: ignore[arg-type]
            made = score(feature)
            score.weight /= made.std(dim=(0, 2, 3))[:, None, None, None]
            score.bias.copy_(-score(feature).mean(dim=(0, 2, 3)))
        if further.get("extra_inputs"):
            fuse(network, [one.channels for one in further["extra_inputs"]], "early")
    return Model(network, labels, network.backbone.card, **further)
