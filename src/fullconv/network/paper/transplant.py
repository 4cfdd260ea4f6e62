"""Copy weights from elsewhere into the paper's networks, layer by layer, by name.

| origin                               | names of the layers                                   |
|--------------------------------------|-------------------------------------------------------|
| Caffe: VGG16, CaffeNet, GoogLeNet    | conv1_1 ... fc6, fc7 (fully connected), fc8: left out |
| Caffe: released FCNs; pytorch-fcn    | conv1_1 ... fc7, score_fr, score_pool4, upscore2 ...  |
| torchvision, timm: VGG16, AlexNet    | features.0 ..., classifier.0 or pre_logits.fc1 ...    |

Fully connected weights become those of a convolution. Caffe's images are BGR, 0 to 255, less
their mean: the first convolution is converted to RGB, and `CAFFE_MEAN` and `CAFFE_STD` hold the
rest. The network computes the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.network.paper.weight_files import Weights, compare_weights

CAFFE_MEAN = tuple(mean / 255 for mean in (122.67892, 116.66877, 104.00699))  # RGB
CAFFE_STD = (1 / 255, 1 / 255, 1 / 255)
# Layers of a file that no backbone has: scores, losses, and upsampling.
HEADS = ("fc8", "score", "upscore", "scale_pool", "loss", "prob", "classifier", "head")
_DENSE = ("fc6", "fc7")


@dataclass(frozen=True)
class Layers:
    """The layers of a file under the paper's names."""

    path: str  # of the file, for messages
    tensors: Mapping[str, Mapping[str, Tensor]]  # layer -> "weight" and "bias" -> tensor
    caffe: bool  # whether the layers expect Caffe's images


def match_layers(weights: Weights, backbone: nn.Module) -> Layers:
    """Return the layers of a file under the names that a backbone uses for them."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.tensors.items():
        layer, _, part = name.rpartition(".")
        grouped.setdefault(layer, {})[part] = tensor
    features = [name for name in grouped if name.startswith("features.")]
    if not features:
        return Layers(weights.path.name, grouped, caffe=True)
    # torchvision and timm number their layers: pair them in order.
    convolutions = [name for name in named_convolutions(backbone) if name not in _DENSE]
    numbered = sorted(features, key=lambda name: (len(name), name))
    if len(numbered) != len(convolutions):
        raise FullconvError(
            msg(
                "{file} has {count} layers with weights under `features`; expected {expected}: "
                "{names}.",
                file=weights.path.name,
                count=len(numbered),
                expected=len(convolutions),
                names=", ".join(convolutions),
            ),
            msg('name = "vgg16"   # or "alexnet_owt": the network that the weights belong to'),
        )
    renamed = dict(zip(numbered, convolutions, strict=True))
    dense = [n for n in grouped if n.startswith(("classifier.", "pre_logits."))]
    renamed.update(zip(sorted(dense), _DENSE, strict=False))
    return Layers(
        weights.path.name, {renamed.get(n, n): parts for n, parts in grouped.items()}, caffe=False
    )


def named_convolutions(backbone: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the convolutions by their Caffe names; parts of inception modules follow a slash."""
    return {
        name.replace(".", "/"): module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def copy_weights(
    modules: Mapping[str, nn.Module], layers: Layers, *, others: Iterable[str] = HEADS
) -> None:
    """Copy weights into modules, each by its layer's name in the file. Layers with a prefix in
    `others` may be in the file in addition; they are left out.

    Raises:
        FullconvError: a layer is missing, unknown or has the wrong shape. Nothing is copied then.
    """
    tensors = {
        f"{layer}.{part}": tensor
        for layer, parts in layers.tensors.items()
        if layer in modules or not layer.startswith(tuple(others))
        for part, tensor in parts.items()
    }
    targets = {
        f"{layer}.{part}": parameter
        for layer, module in modules.items()
        for part, parameter in module.named_parameters(recurse=False)
    }
    if mismatch := compare_weights(tensors, targets, fits):
        message = msg(
            "{file} does not fit this network: {mismatch}.",
            file=layers.path,
            mismatch=mismatch.message,
        )
        hint = msg(
            "--backbone paper:vgg16   # or paper:alexnet, ...: the network that the weights "
            "belong to"
        )
        raise FullconvError(message, hint)
    with torch.no_grad():
        for name, target in targets.items():
            target.data.copy_(tensors[name].reshape(target.shape))


def fits(tensor: Tensor, target: Tensor) -> bool:
    """Return whether a tensor has the target's shape; it may be fully connected (O, I k k), or have
    the leading ones of old Caffe files."""
    outputs, *inputs = target.shape
    shape, convolution = ([n for n in s if n != 1] for s in (tensor.shape, target.shape))
    connected = [n for n in (outputs, math.prod(inputs)) if n != 1]
    return shape in (convolution, connected)


def fill_backbone(backbone: nn.Module, weights: Weights, *, missing: Iterable[str] = ()) -> bool:
    """Copy a file's weights into a backbone, without the scores. Layers in `missing` stay as they
    are. Return whether the weights expect Caffe's images, with `CAFFE_MEAN` and `CAFFE_STD`.

    Raises:
        FullconvError: the file belongs to another network.
    """
    layers = match_layers(weights, backbone)
    convolutions = named_convolutions(backbone)
    skipped = set(missing)
    copy_weights({name: c for name, c in convolutions.items() if name not in skipped}, layers)
    if layers.caffe:
        swap_bgr_to_rgb(next(iter(convolutions.values())))
    return layers.caffe


def swap_bgr_to_rgb(convolution: nn.Conv2d) -> None:
    with torch.no_grad():
        convolution.weight.copy_(convolution.weight.flip(1))
