"""Networks with extra input channels, such as depth (Long et al. 2015, section 5, NYUDv2).

Early fusion widens the first convolution. Late fusion runs a separate backbone on each extra input
and averages the scores. Averaging is linear, and so are the skip connections and the upsampling:
the average of whole networks is one network whose 1x1 scores read the features of all backbones.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import first_line, truncated_list
from fullconv.geometry.trace_network import feature_maps, run_on_device
from fullconv.network.backbone import Backbone
from fullconv.network.fcn import FCN

FUSIONS = ("early", "late")
_COLORS = 3
_SIZE = 65  # pixels a side of the image that shows which convolution reads it


class LateFusion(nn.Module):
    """Backbones side by side: the first reads the colors, each other one its own extra input.

    Args:
        backbone: of the colors; the others start as copies of it.
        channels: of each extra input. One channel is repeated as gray, three are read as colors.
        taps, channels_last: as in `Backbone`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: Sequence[int],
        taps: Sequence[int],
        channels_last: Sequence[bool],
    ) -> None:
        super().__init__()
        # Keys of saved models contain the name `trunks`.
        self.trunks = nn.ModuleList([backbone, *(copy.deepcopy(backbone) for _ in channels)])
        self.channels = (_COLORS, *channels)
        self.taps = tuple(taps)
        self.channels_last = tuple(channels_last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return a feature map per tap of images (N, 3 + E, H, W), of all backbones together."""
        parts = images.split(list(self.channels), dim=1)
        maps_by_backbone = [
            feature_maps(backbone(part if part.shape[1] == _COLORS else part.expand(-1, 3, -1, -1)))
            for backbone, part in zip(self.trunks, parts, strict=True)
        ]
        return [
            torch.cat([maps[tap] for maps in maps_by_backbone], dim=-1 if last else 1)
            for tap, last in zip(self.taps, self.channels_last, strict=True)
        ]


def fuse(network: FCN, channels: Sequence[int], fusion: str) -> None:
    """Give an FCN extra input channels, in place.

    It then reads the extra channels behind the colors, in their order, each input normalized to
    mean 0 and standard deviation 1. With early fusion, the new weights of the first convolution
    start as the mean over the colors. With late fusion, every backbone starts as a copy of the
    colors' backbone, and the scores as their average.

    Args:
        network: with a backbone for 3 channels.
        channels: of each extra input, 1 or 3.
        fusion: "early" or "late".

    Raises:
        FullconvError: the backbone has no single first convolution to widen.
    """
    if fusion not in FUSIONS:
        message = msg(
            "unknown fusion {fusion!r}; choose from {choices}.",
            fusion=fusion,
            choices=truncated_list(FUSIONS),
        )
        raise FullconvError(message, "--fusion early")
    backbone = network.backbone
    if fusion == "early":
        _widen(backbone, sum(channels))
    else:
        pyramid = backbone.pyramid
        backbone.pyramid = LateFusion(pyramid, channels, backbone.taps, backbone.channels_last)
        backbone.taps = tuple(range(len(backbone.taps)))
        copies = 1 + len(channels)
        backbone.channels = tuple(copies * count for count in backbone.channels)
        for score in network.score.values():
            assert isinstance(score, nn.Conv2d)
            weight = torch.cat([score.weight.detach()] * copies, dim=1) / copies
            score.weight, score.in_channels = nn.Parameter(weight), weight.shape[1]
    backbone.in_channels = _COLORS + sum(channels)


def _widen(backbone: Backbone, extra: int) -> None:
    """Give the first convolution `extra` more input channels."""
    name, first = backbone.card.name, _first_convolutions(backbone)
    if len(first) != 1:
        message = msg(
            "early fusion widens the one convolution that reads the image; {name} has "
            "{count} of them.",
            name=name,
            count=len(first),
        )
        raise FullconvError(message, "--fusion late")
    conv = first[0]
    weight = conv.weight.detach()
    new = weight.mean(dim=1, keepdim=True).expand(-1, extra, -1, -1)
    conv.weight, conv.in_channels = nn.Parameter(torch.cat([weight, new], 1)), _COLORS + extra
    try:
        run_on_device(backbone, torch.zeros(1, conv.in_channels, _SIZE, _SIZE))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        message = msg(
            "{name} does not accept {count} channels, even with a wider first convolution: {error}",
            name=name,
            count=conv.in_channels,
            error=first_line(error),
        )
        raise FullconvError(message, "--fusion late") from error


def _first_convolutions(backbone: Backbone) -> list[nn.Conv2d]:
    """Return the convolutions that run on three channels."""
    convolutions: list[nn.Conv2d] = []

    def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Conv2d)
        if module not in convolutions:
            convolutions.append(module)

    handles = [
        layer.register_forward_pre_hook(record)
        for layer in backbone.modules()
        if isinstance(layer, nn.Conv2d) and layer.in_channels == _COLORS and layer.groups == 1
    ]
    try:
        run_on_device(backbone, torch.zeros(1, _COLORS, _SIZE, _SIZE))
    finally:
        for handle in handles:
            handle.remove()
    return convolutions
