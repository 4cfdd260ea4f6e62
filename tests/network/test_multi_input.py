"""Early and late fusion: the sum over channels, and the average of whole networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.network.fcn import FCN
from fullconv.network.fold_batch_norm import fold_batch_norm
from fullconv.network.multi_input import fuse

K = 5


def plain(backbone: str = "resnet10t", stride: int = 8) -> FCN:
    torch.manual_seed(1)
    network = FCN(backbone, K, stride=stride).eval()
    for score in network.score.values():
        nn.init.normal_(score.weight, std=0.1)
        nn.init.normal_(score.bias)
    return network


def different(network: FCN) -> FCN:
    torch.manual_seed(7)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return other


@pytest.mark.parametrize("size", [(65, 97), (50, 71)])
@pytest.mark.parametrize("channels", [(1,), (3,), (1, 3)])
def test_late_fusion_is_the_average_of_whole_networks(
    channels: tuple[int, ...], size: tuple[int, int]
) -> None:
    first = plain()
    others = [different(first) for _ in channels]
    fused = copy.deepcopy(first)
    fuse(fused, channels, "late")
    with torch.no_grad():
        for trunk, other in zip(list(fused.backbone.pyramid.trunks)[1:], others, strict=True):
            trunk.load_state_dict(other.backbone.pyramid.state_dict())
        for name, score in fused.score.items():
            every = [network.score[name] for network in (first, *others)]
            score.weight.copy_(torch.cat([s.weight for s in every], 1) / len(every))
            score.bias.copy_(torch.stack([s.bias for s in every]).mean(0))
    images = torch.randn(2, 3 + sum(channels), *size)
    parts = images.split([3, *channels], dim=1)
    inputs = [part if part.shape[1] == 3 else part.repeat(1, 3, 1, 1) for part in parts]
    with torch.no_grad():
        expected = torch.stack([n(x).full() for n, x in zip((first, *others), inputs, strict=True)])
        actual = fused(images).full()
    torch.testing.assert_close(actual, expected.mean(0), atol=1e-5, rtol=1e-5)


def test_late_fusion_begins_as_the_average_of_one_network_on_each_input() -> None:
    network = plain()
    fused = copy.deepcopy(network)
    fuse(fused, [3], "late")
    images = torch.randn(1, 6, 65, 65)
    with torch.no_grad():
        expected = (network(images[:, :3]).values + network(images[:, 3:]).values) / 2
        torch.testing.assert_close(fused(images).values, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("extra", [(1,), (3, 1)])
def test_early_fusion_adds_the_mean_weight_of_the_colours(extra: tuple[int, ...]) -> None:
    """So that an input that is zero changes nothing, and a grey one counts as the colors do."""
    network = plain()
    fused = copy.deepcopy(network)
    fuse(fused, extra, "early")
    images = torch.randn(1, 3, 65, 97)
    extra_input = torch.randn(1, sum(extra), 65, 97)
    gray = images + extra_input.sum(1, keepdim=True) / 3  # of each hue, what the new weights see
    with torch.no_grad():
        silent = fused(torch.cat([images, torch.zeros_like(extra_input)], 1)).values
        torch.testing.assert_close(silent, network(images).values, atol=1e-5, rtol=1e-5)
        actual, expected = fused(torch.cat([images, extra_input], 1)).values, network(gray).values
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fusion", ["early", "late"])
@pytest.mark.parametrize(
    "name",
    ["mobilenetv2_050", "torchvision:resnet18", "swin_tiny_patch4_window7_224", "paper:alexnet"],
)
def test_backbones_of_all_kinds(name: str, fusion: str) -> None:
    torch.manual_seed(0)
    network = FCN(name, 2, stride=32)
    fuse(network, [1], fusion)
    network.eval()
    images = torch.randn(1, 4, 70, 90)
    with torch.no_grad():
        scores = network(images)
        assert scores.full().shape == (1, 2, 70, 90)
        if name != "paper:alexnet":  # whose scores start at zero
            other = network(torch.cat([images[:, :3], -images[:, 3:]], 1))
            assert not torch.equal(scores.values, other.values)  # it sees the fourth channel


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_folded_batch_norms_change_nothing(fusion: str) -> None:
    network = plain()
    fuse(network, [1], fusion)
    network.eval()
    images = torch.randn(1, 4, 64, 65)
    with torch.no_grad():
        before = network(images).values
        assert fold_batch_norm(network) > 0
        torch.testing.assert_close(network(images).values, before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_weights_are_loaded_into_one_of_the_same_kind(fusion: str) -> None:
    source, target = plain(), different(plain())
    for network in (source, target):
        fuse(network, [1, 1], fusion)
        network.eval()
    target.load_state_dict(source.state_dict())
    images = torch.randn(1, 5, 33, 40)
    with torch.no_grad():
        assert torch.equal(source(images).values, target(images).values)


class TwoEyes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.Conv2d(3, 4, 3, stride=32, padding=1) for _ in range(2))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.left(images) + self.right(images)]


class Picky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=32, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        red, green, blue = images.unbind(1)
        return [self.conv(torch.stack([blue, green, red], 1))]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (TwoEyes, "TwoEyes has 2 of them"),
        (Picky, "Picky does not accept 4 channels, even with a wider first convolution"),
    ],
)
def test_what_cannot_be_widened_is_sent_to_late_fusion(module: type[nn.Module], text: str) -> None:
    with pytest.raises(FullconvError) as caught:
        fuse(FCN(module(), 2, stride=32), [1], "early")
    assert text in caught.value.message
    assert caught.value.hint == "--fusion late"
    network = FCN(module(), 2, stride=32)
    fuse(network, [1], "late")
    assert network(torch.randn(1, 4, 65, 65)).full().shape == (1, 2, 65, 65)


def test_an_unknown_way() -> None:
    with pytest.raises(FullconvError, match="unknown fusion 'middle'; choose from early, late"):
        fuse(plain(), [1], "middle")


def test_every_parameter_learns() -> None:
    for fusion, channels in (("early", [1]), ("early", [3]), ("late", [1]), ("late", [3])):
        network = different(plain())
        fuse(network, channels, fusion)
        images = torch.randn(2, 3 + sum(channels), 64, 64)
        network(images).loss(torch.randint(0, K, (2, 64, 64))).backward()
        silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert silent == []
