"""Weights of others in the paper's networks, layer by layer, by name.

| where they come from                 | layers named                                          |
|--------------------------------------|-------------------------------------------------------|
| Caffe: VGG16, CaffeNet, GoogLeNet    | conv1_1 ... fc6, fc7 (fully connected), fc8: left out |
| Caffe: released FCNs; pytorch-fcn    | conv1_1 ... fc7, score_fr, score_pool4, upscore2 ...  |
| torchvision, timm: VGG16, AlexNet    | features.0 ..., classifier.0 or pre_logits.fc1 ...    |

Fully connected weights become those of a convolution. Caffe's images are BGR, 0 to 255, less
their mean: the first convolution is turned to RGB, and the rest stands in `CAFFE_MEAN` and
`CAFFE_STD`. The network is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.network.paper.weight_files import Weights

CAFFE_MEAN = tuple(mean / 255 for mean in (122.67892, 116.66877, 104.00699))  # RGB
CAFFE_STD = (1 / 255, 1 / 255, 1 / 255)
# Layers of a file that no trunk has: scores, losses, and how they are brought to full size.
HEADS = ("fc8", "score", "upscore", "scale_pool", "loss", "prob", "classifier", "head")
_DENSE = ("fc6", "fc7")


@dataclass(frozen=True)
class Layers:
    """The layers of a file under the paper's names.

    Args:
        path: of the file, for messages.
        tensors: layer -> "weight" and "bias" -> tensor.
        caffe: whether they expect images as Caffe has them.
    """

    path: str
    tensors: Mapping[str, Mapping[str, Tensor]]
    caffe: bool


def match_layers(weights: Weights, trunk: nn.Module) -> Layers:
    """The layers of a file under the names that a trunk has for them."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.tensors.items():
        layer, _, part = name.rpartition(".")
        grouped.setdefault(layer, {})[part] = tensor
    features = [name for name in grouped if name.startswith("features.")]
    if not features:
        return Layers(weights.path.name, grouped, caffe=True)
    convolutions = [name for name in named_convolutions(trunk) if name not in _DENSE]
    numbered = sorted(features, key=lambda name: (len(name), name))
    if len(numbered) != len(convolutions):
        raise FullconvError(
            f"{weights.path.name} has {len(numbered)} layers with weights under `features`; "
            f"expected {len(convolutions)}: {', '.join(convolutions)}.",
            'name = "vgg16"   # or "alexnet_owt": the network that the weights are of',
        )
    renamed = dict(zip(numbered, convolutions, strict=True))
    dense = [n for n in grouped if n.startswith(("classifier.", "pre_logits."))]
    renamed.update(zip(sorted(dense), _DENSE, strict=False))
    return Layers(
        weights.path.name, {renamed.get(n, n): parts for n, parts in grouped.items()}, caffe=False
    )


def named_convolutions(trunk: nn.Module) -> dict[str, nn.Conv2d]:
    """By their names in Caffe: the parts of an inception module stand behind a slash."""
    return {
        name.replace(".", "/"): module
        for name, module in trunk.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def copy_weights(
    modules: Mapping[str, nn.Module], layers: Layers, *, others: Iterable[str] = HEADS
) -> None:
    """Copies weights into modules, each by its layer's name.

    Args:
        modules: by the names that their layers have in the file.
        layers: of the file.
        others: how the names of layers begin that may be in the file and are left out.

    Raises:
        FullconvError: a layer is missing, has another shape, or is one too many. Nothing was
            copied then.
    """
    wrong = [
        f"{name} is missing (expected {_said(module)})"
        for name, module in modules.items()
        if name not in layers.tensors
    ]
    wrong += [
        f"{name} is a layer that this network has not ({_shapes(parts)})"
        for name, parts in layers.tensors.items()
        if name not in modules and not name.startswith(tuple(others))
    ]
    copies: list[tuple[Tensor, Tensor]] = []
    for name, module in modules.items():
        if name not in layers.tensors:
            continue
        parts = layers.tensors[name]
        own = dict(module.named_parameters(recurse=False))
        if set(own) != set(parts) or not all(fits(parts[key], own[key]) for key in own):
            wrong.append(f"{name} has {_shapes(parts)} (expected {_said(module)})")
            continue
        copies += [(own[key].data, parts[key]) for key in own]
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise FullconvError(
            f"{layers.path} does not fit this network: {'; '.join(wrong[:4])}{more}.",
            "--backbone paper:vgg16   # or paper:alexnet, ...: the network that the weights are of",
        )
    with torch.no_grad():
        for target, source in copies:
            target.copy_(source.reshape(target.shape))


def fits(found: Tensor, expected: Tensor) -> bool:
    """Whether a tensor is of this shape, or is it fully connected (O, I k k), or with the leading
    ones of old Caffe files."""
    outputs, *inputs = expected.shape
    shape, wanted = ([n for n in s if n != 1] for s in (found.shape, expected.shape))
    connected = [n for n in (outputs, math.prod(inputs)) if n != 1]
    return shape in (wanted, connected)


def fill_trunk(trunk: nn.Module, weights: Weights, *, missing: Iterable[str] = ()) -> bool:
    """A file's weights in a trunk; its scores are left out.

    Args:
        missing: layers that the file lacks, to stay as they are.

    Returns:
        Whether they expect Caffe's images, with `CAFFE_MEAN` and `CAFFE_STD`.

    Raises:
        FullconvError: the file is of another network.
    """
    layers = match_layers(weights, trunk)
    convolutions = named_convolutions(trunk)
    copy_weights(
        {name: c for name, c in convolutions.items() if name not in tuple(missing)}, layers
    )
    if layers.caffe:
        turn_to_rgb(next(iter(convolutions.values())))
    return layers.caffe


def turn_to_rgb(convolution: nn.Conv2d) -> None:
    """Weights for BGR become those for RGB."""
    with torch.no_grad():
        convolution.weight.copy_(convolution.weight.flip(1))


def _shapes(parts: Mapping[str, Tensor]) -> str:
    return " and ".join(f"{key} {tuple(tensor.shape)}" for key, tensor in parts.items())


def _said(module: nn.Module) -> str:
    return _shapes(dict(module.named_parameters(recurse=False)))
