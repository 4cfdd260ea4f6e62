"""Models that others trained and published, ready to use and to save as one of ours.

| what                                                | how it is known                          |
|-----------------------------------------------------|------------------------------------------|
| torchvision:fcn_resnet50, torchvision:fcn_resnet101 | by name; their weights are downloaded    |
| a .pth of one of these                              | backbone.layer3 ..., classifier.4        |
| a .caffemodel or .pth of a released FCN             | conv1_1 ..., score_fr, score_pool4 ...   |

Of 21 classes they are those of PASCAL VOC. The released FCNs come in their original form, unless
the aligned one is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.core.text import shell_command
from fullconv.data.layouts import class_table as tables
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.fcn import FCN
from fullconv.network.paper import nets, torchvision_fcn
from fullconv.network.paper.transplant import (
    CAFFE_MEAN,
    CAFFE_STD,
    Layers,
    copy_weights,
    match_layers,
    named_convolutions,
    swap_bgr_to_rgb,
)
from fullconv.network.paper.weight_files import Weights, download_torchvision_weights, read_weights

# Score layers and transposed convolutions of the released networks, by the stride of their cells.
SCORES = {32: "score_fr", 16: "score_pool4", 8: "score_pool3"}
SKIPS = {32: "upscore2", 16: "upscore_pool4"}
LAST = {32: "upscore", 16: "upscore16", 8: "upscore8"}
_SCALES = {"scale_pool4": 0.01, "scale_pool3": 0.0001}
_FIRST = {"conv1_1": ("vgg16", 64), "conv1": ("alexnet", 96)}  # layer -> network, its channels


@dataclass(frozen=True)
class Foreign:
    """What a model of others is made of; see `fullconv.models.model.Model`."""

    network: FCN
    labels: Labels
    card: BackboneCard
    short_side: int | None = None


def load_third_party(
    source: str | Path,
    *,
    weights: str | Path | None = None,
    backbone: str | None = None,
    labels: Labels | None = None,
) -> Foreign:
    """A model of others.

    Args:
        source: "torchvision:fcn_resnet50", "torchvision:fcn_resnet101", or a file of weights.
        weights: a file for one of these two, instead of a download.
        backbone: the network that a file's layers go into, if not the one that it is recognised as:
            "paper:vgg16-aligned", "paper:vgg16-atonce".
        labels: the classes; by default those of PASCAL VOC, or numbers.

    Raises:
        FullconvError: nothing of that name, weights that cannot be had, read, or do not fit.
    """
    name = str(source)
    if name.startswith("torchvision:"):
        return _torchvision(name.removeprefix("torchvision:"), weights, labels)
    if name.startswith("paper:"):
        raise FullconvError(
            f"{name} is a network without trained scores; expected a file of weights, or a model.",
            shell_command("fullconv", "train", "DATA", "--backbone", name),
        )
    found = read_weights(source)
    known = torchvision_fcn.identify_architecture(found)
    if known:
        return _of_torchvision(BackboneCard("torchvision", known), found, labels)
    return _released(found, backbone, labels)


def _torchvision(name: str, weights: str | Path | None, labels: Labels | None) -> Foreign:
    card = BackboneCard("torchvision", name)
    if name not in torchvision_fcn.NAMES:
        raise FullconvError(
            f"torchvision:{name} is no network that labels pixels; there are "
            f"{' and '.join(f'torchvision:{n}' for n in torchvision_fcn.NAMES)}.",
            shell_command("fullconv", "train", "DATA", "--backbone", f"torchvision:{name}")
            + "   # to make a classifier into one",
        )
    if weights is not None:
        return _of_torchvision(card, read_weights(weights), labels)
    try:
        found = download_torchvision_weights(card, name)
    except FullconvError as error:
        raise FullconvError(
            error.message,
            shell_command("fullconv", "predict", f"{name}.pth", "IMAGE")
            + "   # the file of its weights, from elsewhere",
        ) from error
    card = replace(card, pretrained_on=torchvision_fcn.PRETRAINED_ON)
    return _of_torchvision(card, found, labels)


def _of_torchvision(card: BackboneCard, weights: Weights, labels: Labels | None) -> Foreign:
    known = torchvision_fcn.identify_architecture(weights)
    if known != card.name:
        raise FullconvError(
            f"{weights.path.name} holds no weights of {card.name}"
            f"{f', but of {known}' if known else ''}.",
            shell_command("fullconv", "predict", f"torchvision:{known or card.name}", "IMAGE"),
        )
    classes = torchvision_fcn.count_classes(weights)
    network = FCN(card, classes, stride=8)
    pyramid = network.backbone.pyramid
    assert isinstance(pyramid, torchvision_fcn.DilatedPyramid)
    torchvision_fcn.fill_pyramid(pyramid, weights)
    torchvision_fcn.fill_score(network.score["stride8"], weights)
    card = replace(card, pretrained_on=card.pretrained_on or weights.path.name)
    return Foreign(network.eval(), labels or _classes(classes), card, torchvision_fcn.SIDE)


def _released(weights: Weights, backbone: str | None, labels: Labels | None) -> Foreign:
    """One of the paper's networks, by its layers."""
    found, stride = _recognised(weights)
    card = found
    if backbone is not None:
        card = nets.paper_card(backbone.removeprefix("paper:"))
        card = replace(card, options={**found.options, **card.options})
    classes = len(weights.tensors["score_fr.bias"].flatten())
    network = FCN(card, classes, stride=stride, upsampling="learned")
    layers = match_layers(weights, network.backbone.pyramid)
    convolutions = named_convolutions(network.backbone.pyramid)
    scores = {SCORES[s]: network.score[f"stride{s}"] for s in SCORES if s >= stride}
    copy_weights({**convolutions, **scores}, layers, others=("upscore", *_SCALES))
    swap_bgr_to_rgb(next(iter(convolutions.values())))
    if not _learned(network, layers):
        fixed = FCN(network.backbone, classes, stride=stride)
        fixed.score = network.score
        network = fixed
    card = replace(card, mean=CAFFE_MEAN, std=CAFFE_STD, pretrained_on=weights.path.name)
    network.backbone.card = card
    return Foreign(network.eval(), labels or _classes(classes), card)


def _recognised(weights: Weights) -> tuple[BackboneCard, int]:
    """The card and the stride of the network that these are the weights of."""
    tensors = weights.tensors
    first = next((name for name in _FIRST if f"{name}.weight" in tensors), None)
    if first is None or "score_fr.weight" not in tensors or "score_fr.bias" not in tensors:
        layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in tensors))
        raise FullconvError(
            f"{weights.path} is no model that labels pixels and is known: its layers are "
            f"{', '.join(layers[:6])}{', ...' if len(layers) > 6 else ''}; expected those of a "
            "released FCN (conv1_1 ... score_fr) or of torchvision's.",
            'weights = "FILE"   # in a backbone card, to train from the weights of a classifier',
        )
    network, channels = _FIRST[first]
    stride = next(s for s in (8, 16, 32) if f"{SCORES[s]}.weight" in tensors)
    card = nets.paper_card(f"{network}-atonce" if _at_once(weights) else network)
    width = tensors[f"{first}.weight"].shape[0] / channels
    return replace(
        card, options={**card.options, **({"width": width} if width != 1 else {})}
    ), stride


def _at_once(weights: Weights) -> bool:
    """Whether pool4 and pool3 are scaled. A Caffe file says so; the tensors of a .pth do not, but
    a checkpoint's architecture or the name of the file may."""
    for layer, factor in _SCALES.items():
        scale = weights.tensors.get(f"{layer}.weight")
        if scale is not None and not torch.allclose(scale, torch.tensor(factor), rtol=1e-3):
            raise FullconvError(
                f"{weights.path}: {layer} multiplies by {scale.flatten()[:3].tolist()} ...; "
                f"expected {factor} throughout.",
                f"copy or download {weights.path.name} again",
            )
    said = f"{weights.architecture} {weights.path.name}".lower().replace("-", "").replace("_", "")
    return "scale_pool4.weight" in weights.tensors or "atonce" in said


def _learned(network: FCN, layers: Layers) -> bool:
    """Copies the transposed convolutions of a file. Returns whether one of them is more than
    interpolation, as which they start."""
    own: dict[str, nn.Module] = {LAST[network.stride]: network.final_upsampling or nn.Identity()}
    own |= {SKIPS[s]: network.skip_upsampling[f"stride{s}"] for s in SKIPS if s > network.stride}
    present = {name: module for name, module in own.items() if name in layers.tensors}
    before = {name: _weight(module).clone() for name, module in present.items()}
    here = {n: parts for n, parts in layers.tensors.items() if n.startswith("upscore")}
    copy_weights(present, replace(layers, tensors=here), others=())
    return any(
        not torch.allclose(_weight(module), before[name], rtol=0, atol=1e-3)
        for name, module in present.items()
    )


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def _classes(count: int) -> Labels:
    return (
        tables.VOC
        if count == len(tables.VOC)
        else Labels(tuple(f"class {k}" for k in range(count)))
    )
