"""More than images: networks with further input channels (Long et al. 2015, section 5, NYUDv2).

Early fusion widens the first convolution. Late fusion runs a trunk of its own on each further input
and averages the scores. Averaging is linear, and so are the skips and the upsampling: the average
of whole networks is one network whose 1x1 scores read the features of all trunks side by side.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.geometry.trace_network import feature_maps, run_on_device
from fullconv.network.backbone import Backbone
from fullconv.network.fcn import FCN

FUSIONS = ("early", "late")
_COLORS = 3
_SIZE = 65  # pixels a side of the image that shows which convolution reads it


class LateFusion(nn.Module):
    """Trunks side by side: the first sees the colours, each further one its own input.

    Args:
        trunk: of the colours; the others begin as copies of it.
        channels: of each further input. One channel is shown as grey, three as colours.
        taps: which of the trunk's feature maps are wanted.
        channels_last: of each tap, whether its map is (N, h, w, C).
    """

    def __init__(
        self,
        trunk: nn.Module,
        channels: Sequence[int],
        taps: Sequence[int],
        channels_last: Sequence[bool],
    ) -> None:
        super().__init__()
        self.trunks = nn.ModuleList([trunk, *(copy.deepcopy(trunk) for _ in channels)])
        self.channels = (_COLORS, *channels)
        self.taps = tuple(taps)
        self.channels_last = tuple(channels_last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3 + E, H, W) -> one map per tap, the trunks' channels behind each other."""
        parts = images.split(list(self.channels), dim=1)
        maps = [
            feature_maps(trunk(part if part.shape[1] == _COLORS else part.expand(-1, 3, -1, -1)))
            for trunk, part in zip(self.trunks, parts, strict=True)
        ]
        return [
            torch.cat([of_trunk[tap] for of_trunk in maps], dim=-1 if last else 1)
            for tap, last in zip(self.taps, self.channels_last, strict=True)
        ]


def fuse(network: FCN, channels: Sequence[int], fusion: str) -> None:
    """Makes an FCN for images one for images and further inputs, in place. Behind (N, 3, H, W)
    it takes `channels` more, in their order, each input normalised to mean 0 and spread 1.

    Early: each new weight of the first convolution starts as the mean of those of the colours.
    Late: every trunk starts as the one of the colours, the scores as their average.

    Args:
        network: with a backbone for 3 channels.
        channels: of each further input, 1 or 3.
        fusion: "early" or "late".

    Raises:
        FullconvError: the backbone has no single first convolution that could be widened.
    """
    if fusion not in FUSIONS:
        raise FullconvError(
            f"fusion {fusion!r} is not known; there are {', '.join(FUSIONS)}.", "--fusion early"
        )
    backbone = network.backbone
    if fusion == "early":
        _widen(backbone, sum(channels))
    else:
        pyramid = backbone.pyramid
        backbone.pyramid = LateFusion(pyramid, channels, backbone.taps, backbone.channels_last)
        backbone.taps = tuple(range(len(backbone.taps)))
        trunks = 1 + len(channels)
        backbone.channels = tuple(trunks * count for count in backbone.channels)
        for score in network.score.values():
            assert isinstance(score, nn.Conv2d)
            weight = torch.cat([score.weight.detach()] * trunks, dim=1) / trunks
            score.weight, score.in_channels = nn.Parameter(weight), weight.shape[1]
    backbone.in_channels = _COLORS + sum(channels)


def _widen(backbone: Backbone, extra: int) -> None:
    """Gives the first convolution `extra` more input channels."""
    name, first = backbone.card.name, _first_convolutions(backbone)
    if len(first) != 1:
        found = ", ".join(type(layer).__name__ for layer in first) or "none"
        raise FullconvError(
            f"early fusion widens the one convolution that reads the image; in {name} there is "
            f"no single one ({found}).",
            "--fusion late",
        )
    conv = first[0]
    weight = conv.weight.detach()
    new = weight.mean(dim=1, keepdim=True).expand(-1, extra, -1, -1)
    conv.weight, conv.in_channels = nn.Parameter(torch.cat([weight, new], 1)), _COLORS + extra
    try:
        run_on_device(backbone, torch.zeros(1, conv.in_channels, _SIZE, _SIZE))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise FullconvError(
            f"{name} does not take {conv.in_channels} channels, even with a wider first "
            f"convolution: {str(error).splitlines()[0]}",
            "--fusion late",
        ) from error


def _first_convolutions(backbone: Backbone) -> list[nn.Conv2d]:
    """Those that read three channels."""
    found: list[nn.Conv2d] = []

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Conv2d)
        if module not in found:
            found.append(module)

    handles = [
        layer.register_forward_pre_hook(note)
        for layer in backbone.modules()
        if isinstance(layer, nn.Conv2d) and layer.in_channels == _COLORS and layer.groups == 1
    ]
    try:
        run_on_device(backbone, torch.zeros(1, _COLORS, _SIZE, _SIZE))
    finally:
        for handle in handles:
            handle.remove()
    return found
