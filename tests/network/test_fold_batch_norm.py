from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullconv.network.fcn import FCN
from fullconv.network.fold_batch_norm import fold_batch_norm


def lived_in(network: nn.Module) -> nn.Module:
    """Norms that do something, as after training."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            ranges = {"weight": (0.5, 1.5), "bias": (-1, 1)}
            ranges |= {"running_mean": (-0.5, 0.5), "running_var": (0.5, 2)}
            for name, (low, high) in ranges.items():
                if getattr(module, name) is not None:
                    getattr(module, name).data.uniform_(low, high, generator=generator)
    return network.eval()


def scores(network: nn.Module) -> Tensor:
    images = torch.randn(2, 3, 90, 70, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        values: Tensor = network(images).values
    return values


NETWORKS = {
    "resnet18": 20,
    "mobilenetv2_035": 51,
    "efficientnet_b0": 48,
    "torchvision:vgg11_bn": 8,
    "densenet121": 59,  # elsewhere the norm comes before the convolution
    "convnext_atto": 0,
}


@pytest.mark.parametrize(("name", "count"), NETWORKS.items())
def test_the_same_function_with_fewer_layers(name: str, count: int) -> None:
    network = lived_in(FCN(name, 5, stride=8))
    for score in network.score.values():
        nn.init.normal_(score.weight, std=0.1)
    folded = copy.deepcopy(network).eval()
    assert fold_batch_norm(folded) == count
    ours, theirs = scores(folded), scores(network)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


class Own(nn.Module):
    """Norms that go, one of them with two names behind a convolution whose weight is another's too;
    and norms that must stay: of a sum, of an output that others read, of a layer that runs twice,
    one that uses the statistics of the image, and one behind a weight that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, 32, 3)
        self.plain = nn.Conv2d(8, 8, 1, bias=False)
        self.plain_norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 1)
        self.shared_norm = nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, 1)
        self.twice_norm = nn.BatchNorm2d(8)
        self.sum_norm = nn.BatchNorm2d(8)
        self.live = nn.Conv2d(8, 8, 1)
        self.live_norm = nn.BatchNorm2d(8, track_running_stats=False)
        self.bare = nn.Conv2d(8, 8, 1)
        self.tied = nn.Conv2d(8, 8, 1)
        self.tied.weight = self.bare.weight
        self.tied_norm = self.second_name = nn.BatchNorm2d(8)
        self.made = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
        self.made_norm = nn.BatchNorm2d(8)
        self.bare_norm = nn.BatchNorm2d(8, affine=False)

    def forward(self, x: Tensor) -> Any:
        x = self.plain_norm(self.plain(self.stem(x)))
        between = self.shared(x)
        x = self.shared_norm(between) + between
        x = self.twice_norm(self.twice(self.twice(x)))
        x = self.sum_norm(x + between)
        x = self.live_norm(self.live(x))
        x = self.made_norm(self.made(x))
        x = self.second_name(self.tied(x))
        return [self.bare_norm(self.bare(x))]


def test_norms_that_cannot_be_folded_stay() -> None:
    network = lived_in(FCN(Own(), 5, stride=32))
    folded = copy.deepcopy(network).eval()
    assert fold_batch_norm(folded) == 3
    ours, theirs = scores(folded), scores(network)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    left = folded.backbone.pyramid
    assert isinstance(left.plain_norm, nn.Identity)
    assert isinstance(left.bare_norm, nn.Identity)
    assert isinstance(left.shared_norm, nn.BatchNorm2d)
