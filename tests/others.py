"""Third-party networks to compare with; benchmarks/ use them too."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any

import torch
import torchvision
from torch import Tensor, nn


class Taught(nn.Module):
    """The FCN-32s of the textbooks (d2l.ai, "Fully Convolutional Networks"): ResNet-18 without its
    pooling and last layer, 1x1 scores, and one 64x64 transposed convolution that starts as
    interpolation."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*list(torchvision.models.resnet18(weights=None).children())[:-2])
        self.scores = nn.Conv2d(512, classes, 1)
        nn.init.xavier_uniform_(self.scores.weight)
        self.upsampling = nn.ConvTranspose2d(classes, classes, 64, padding=16, stride=32)
        with torch.no_grad():
            self.upsampling.weight.zero_()
            hat = 1 - (torch.arange(64) - 31.5).abs() / 32
            for k in range(classes):
                self.upsampling.weight[k, k] = hat[:, None] * hat

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) of multiples of 32 -> (N, K, H, W)."""
        scores: Tensor = self.upsampling(self.scores(self.trunk(images)))
        return scores


def torchfcn_models() -> Any:
    """Return the networks of the published package, or None if it is not installed.

    Its `__init__` imports a trainer that needs packages of 2017, and the networks' files import a
    package that only downloads; neither is needed for the networks.
    """
    spec = importlib.util.find_spec("torchfcn")
    if spec is None:
        return None
    if not hasattr(sys.modules.get("torchfcn"), "models"):
        package = types.ModuleType("torchfcn")
        package.__spec__ = spec
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules["torchfcn"] = package
        sys.modules.setdefault("fcn", types.ModuleType("fcn"))
    return importlib.import_module("torchfcn.models")


def torchvision_fcn(classes: int) -> nn.Module:
    """Return torchvision's network with its auxiliary head and adapted batch statistics."""
    torch.manual_seed(4)
    network: nn.Module = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=classes, aux_loss=True
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(torch.randn(2, 3, 64, 64))
    return network.eval()
