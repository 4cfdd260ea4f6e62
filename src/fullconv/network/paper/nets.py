"""The paper's networks as backbones: VGG16, AlexNet, GoogLeNet (Long et al. 2015, §4.1).

| name        | network                                        | strides      | trained weights    |
|-------------|------------------------------------------------|--------------|--------------------|
| vgg16       | VGG16                                          | 4, 8, 16, 32 | torchvision, Caffe |
| alexnet     | CaffeNet: two groups, response normalization   | 8, 16, 32    | Caffe              |
| alexnet_owt | torchvision's AlexNet: without either          | 8, 16, 32    | torchvision        |
| googlenet   | BVLC GoogLeNet without its average pooling     | 8, 16, 32    | Caffe              |

Fully connected layers are convolutions. Layers have the names of the Caffe definitions, so that
weights are matched by name. Two forms share all weights and differ only at the border:

- `original`, exactly as released: the first convolution pads by 100, fc6 does not pad, pooling
  rounds up, nothing else is padded, and scores are zero outside their cells.
- `aligned`: every layer pads by half its kernel and pooling rounds down, as in current networks.

`paper:NAME` is the original form, `paper:NAME-aligned` the other. `paper:vgg16-atonce` is the
original form whose pool4 and pool3 are multiplied by 0.01 and 0.0001, to train all skip connections
at once.

FCN-GoogLeNet was never released: this form follows the paper's text and the other networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import truncated_list
from fullconv.network.backbone_card import IMAGENET_MEAN, IMAGENET_STD, BackboneCard
from fullconv.network.paper.transplant import CAFFE_MEAN, CAFFE_STD, fill_backbone
from fullconv.network.paper.weight_files import Weights, download_torchvision_weights, read_weights

FORMS = ("original", "aligned")
PAD = 100  # pixels, of the first convolution in the original form
AT_ONCE = {"pool4": 0.01, "pool3": 0.0001}


class PaperBackbone(nn.Module):
    """Layers that run in sequence; the outputs of some of them are returned.

    Args:
        layers: by name.
        taps: the layers whose outputs are returned, each with a fixed factor.
        published: scores start at zero and are zero outside their cells, as in the released nets.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], taps: Mapping[str, float], *, published: bool
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.taps = dict(taps)
        self.published = published
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one feature map (N, C, h, w) per tap, finest first, of images (N, 3, H, W)."""
        maps = []
        for name, layer in self.named_children():
            images = layer(images)
            if name in self.taps:
                factor = self.taps[name]
                maps.append(images if factor == 1 else images * factor)
        return maps


class Inception(nn.Module):
    """Four branches side by side (Szegedy et al. 2015).

    Args:
        channels: of the input.
        widths: output channels of 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj.

    >>> Inception(192, (64, 96, 128, 16, 32, 32))(torch.zeros(1, 192, 28, 28)).shape
    torch.Size([1, 256, 28, 28])
    """

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        width1, reduce3, width3, reduce5, width5, pooled = widths
        self.add_module("1x1", nn.Conv2d(channels, width1, 1))
        self.add_module("3x3_reduce", nn.Conv2d(channels, reduce3, 1))
        self.add_module("3x3", nn.Conv2d(reduce3, width3, 3, padding=1))
        self.add_module("5x5_reduce", nn.Conv2d(channels, reduce5, 1))
        self.add_module("5x5", nn.Conv2d(reduce5, width5, 5, padding=2))
        self.add_module("pool_proj", nn.Conv2d(channels, pooled, 1))
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the four branches concatenated: (N, sum of the four widths, h, w)."""

        def conv(name: str, x: Tensor) -> Tensor:
            return torch.relu_(self.get_submodule(name)(x))

        branches = [
            conv("1x1", x),
            conv("3x3", conv("3x3_reduce", x)),
            conv("5x5", conv("5x5_reduce", x)),
            conv("pool_proj", self.pool(x)),
        ]
        return torch.cat(branches, dim=1)


class _Stack:
    """Layers as they are added; the form sets their padding."""

    def __init__(self, form: str, width: float) -> None:
        self.layers: dict[str, nn.Module] = {}
        self.original, self.width, self.channels = form == "original", width, 3

    def conv(self, name: str, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = (kernel - 1) // 2
        if self.original:
            padding = PAD if not self.layers else 0 if name == "fc6" else padding
        channels = self.scaled(channels)
        self.layers[name] = nn.Conv2d(
            self.channels, channels, kernel, stride, padding, groups=groups
        )
        self.layers[f"relu_{name}"] = nn.ReLU(inplace=True)
        self.channels = channels

    def pool(self, name: str, kernel: int) -> None:
        padding = 0 if self.original else (kernel - 1) // 2
        self.layers[name] = nn.MaxPool2d(kernel, 2, padding, ceil_mode=self.original)

    def norm(self, name: str) -> None:
        self.layers[name] = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)

    def dense(self, kernel: int) -> None:
        """Add fc6 and fc7, with dropout of single elements."""
        for name, side in (("fc6", kernel), ("fc7", 1)):
            self.conv(name, 4096, side)
            self.layers[f"drop_{name}"] = nn.Dropout(0.5)

    def inception(self, name: str, *widths: int) -> None:
        module = Inception(self.channels, tuple(map(self.scaled, widths)))
        self.layers[f"inception_{name}"] = module
        self.channels = sum(self.scaled(widths[i]) for i in (0, 2, 4, 5))

    def scaled(self, channels: int) -> int:
        return max(1, round(channels * self.width))


def _vgg16(stack: _Stack) -> tuple[str, ...]:
    for block, (count, channels) in enumerate(
        ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1
    ):
        for layer in range(1, count + 1):
            stack.conv(f"conv{block}_{layer}", channels, 3)
        stack.pool(f"pool{block}", 2)
    stack.dense(7)
    return ("pool2", "pool3", "pool4", "drop_fc7")


def _alexnet(stack: _Stack) -> tuple[str, ...]:
    stack.conv("conv1", 96, 11, stride=4)
    stack.pool("pool1", 3)
    stack.norm("norm1")
    stack.conv("conv2", 256, 5, groups=2)
    stack.pool("pool2", 3)
    stack.norm("norm2")
    stack.conv("conv3", 384, 3)
    stack.conv("conv4", 384, 3, groups=2)
    stack.conv("conv5", 256, 3, groups=2)
    stack.pool("pool5", 3)
    stack.dense(6)
    return ("pool1", "pool2", "drop_fc7")


def _alexnet_owt(stack: _Stack) -> tuple[str, ...]:
    stack.conv("conv1", 64, 11, stride=4)
    stack.pool("pool1", 3)
    stack.conv("conv2", 192, 5)
    stack.pool("pool2", 3)
    for layer, channels in ((3, 384), (4, 256), (5, 256)):
        stack.conv(f"conv{layer}", channels, 3)
    stack.pool("pool5", 3)
    stack.dense(6)
    return ("pool1", "pool2", "drop_fc7")


def _googlenet(stack: _Stack) -> tuple[str, ...]:
    stack.conv("conv1/7x7_s2", 64, 7, stride=2)
    stack.pool("pool1/3x3_s2", 3)
    stack.norm("pool1/norm1")
    stack.conv("conv2/3x3_reduce", 64, 1)
    stack.conv("conv2/3x3", 192, 3)
    stack.norm("conv2/norm2")
    stack.pool("pool2/3x3_s2", 3)
    stack.inception("3a", 64, 96, 128, 16, 32, 32)
    stack.inception("3b", 128, 128, 192, 32, 96, 64)
    stack.pool("pool3/3x3_s2", 3)
    stack.inception("4a", 192, 96, 208, 16, 48, 64)
    stack.inception("4b", 160, 112, 224, 24, 64, 64)
    stack.inception("4c", 128, 128, 256, 24, 64, 64)
    stack.inception("4d", 112, 144, 288, 32, 64, 64)
    stack.inception("4e", 256, 160, 320, 32, 128, 128)
    stack.pool("pool4/3x3_s2", 3)
    stack.inception("5a", 256, 160, 320, 32, 128, 128)
    stack.inception("5b", 384, 192, 384, 48, 128, 128)
    stack.layers["pool5/drop"] = nn.Dropout(0.4)
    return ("inception_3b", "inception_4e", "pool5/drop")


NETWORKS = {
    "vgg16": _vgg16,
    "alexnet": _alexnet,
    "alexnet_owt": _alexnet_owt,
    "googlenet": _googlenet,
}


def paper_card(name: str) -> BackboneCard:
    """Return the card of "vgg16", "vgg16-aligned", "vgg16-atonce", ..."""
    network, _, variant = name.partition("-")
    options: dict[str, dict[str, Any]] = {
        "": {"form": "original"},
        "original": {"form": "original"},
        "aligned": {"form": "aligned"},
        "atonce": {"form": "original", "at_once": True},
    }
    if network not in NETWORKS or variant not in options:
        message = msg(
            "the paper has no network {name!r}; choose from {networks}, each as NAME (original "
            "form) or NAME-aligned, or vgg16-atonce.",
            name=name,
            networks=truncated_list(list(NETWORKS)),
        )
        raise FullconvError(message, "--backbone paper:vgg16")
    return BackboneCard("paper", network, options[variant])


def build_paper_backbone(
    card: BackboneCard, *, pretrained: bool = False
) -> tuple[PaperBackbone, BackboneCard]:
    """Build the backbone of a card, and return it with the card, which has the mean and std that
    the weights expect.

    Its options are `form` ("original" or "aligned"), `at_once`, and `width` (a factor for all
    channels). Its weights may be a .caffemodel, .pth or .safetensors file with the layers of a
    classifier or of an FCN; `pretrained` loads torchvision's, if torchvision has that network.

    Raises:
        FullconvError: the name or an option is unknown, or the weights do not fit or cannot be
            downloaded.
    """
    if card.name not in NETWORKS:
        message = msg(
            "the paper has no network {name!r}; choose from {networks}.",
            name=card.name,
            networks=truncated_list(list(NETWORKS)),
        )
        raise FullconvError(message, 'name = "vgg16"')
    options = {"form": "original", "at_once": False, "width": 1.0, **card.options}
    width = options["width"]
    if len(options) != 3 or options["form"] not in FORMS or not isinstance(width, (int, float)):
        message = msg(
            "the options of {name} are {options}; expected only form (original or aligned), "
            "at_once (true or false) and width (a number).",
            name=card.name,
            options=dict(card.options),
        )
        raise FullconvError(message, 'options = { form = "original" }')
    stack = _Stack(options["form"], width)
    names = NETWORKS[card.name](stack)
    scales = AT_ONCE if options["at_once"] else {}
    taps = {name: scales.get(name, 1.0) for name in names}
    backbone = PaperBackbone(stack.layers, taps, published=stack.original)
    if card.weights is not None:
        weights = read_weights(card.weights)
    elif pretrained:
        weights = _torchvision_weights(card)
        card = replace(card, pretrained_on=f"ImageNet-1k, torchvision {card.name}")
    else:
        return backbone, card
    caffe = fill_backbone(backbone, weights, missing=card.missing)
    default_images = (card.mean, card.std) == (IMAGENET_MEAN, IMAGENET_STD)
    if caffe and default_images:  # otherwise the card overrides them
        card = replace(card, mean=CAFFE_MEAN, std=CAFFE_STD)
    return backbone, card


def _torchvision_weights(card: BackboneCard) -> Weights:
    names, name = {"vgg16": "vgg16", "alexnet_owt": "alexnet"}, card.name
    if name not in names:
        message = msg(
            "there are no weights of {name} to download by name; Caffe's weights are a file.",
            name=name,
        )
        hint = msg(
            "--no-pretrained   # or --backbone card.toml, with:\n"
            'source = "paper"\nname = "{name}"\nweights = "FILE.caffemodel"',
            name=name,
        )
        raise FullconvError(message, hint)
    return download_torchvision_weights(card, names[name])
