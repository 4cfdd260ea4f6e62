"""Open models that others trained and published, as a `Model`.

| what                                                | recognized by                            |
|-----------------------------------------------------|------------------------------------------|
| torchvision:fcn_resnet50, torchvision:fcn_resnet101 | name; the weights are downloaded         |
| a .pth of one of these                              | backbone.layer3 ..., classifier.4        |
| a .caffemodel or .pth of a released FCN             | conv1_1 ..., score_fr, score_pool4 ...   |

With 21 classes, they are those of PASCAL VOC. The released FCNs are opened in their original form
unless the aligned form is requested.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import Labels
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.layouts.class_table import VOC
from fullconv.models.model import Model
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
from fullconv.network.paper.weight_files import (
    TORCH_SUFFIXES,
    Weights,
    begins_like_torch_file,
    download_torchvision_weights,
    read_weights,
)

_FILE_SUFFIXES = (".caffemodel", ".h5", *TORCH_SUFFIXES)
# Score layers and transposed convolutions of the released networks, by the stride of their cells.
SCORES = {32: "score_fr", 16: "score_pool4", 8: "score_pool3"}
SKIP_UPSAMPLING = {32: "upscore2", 16: "upscore_pool4"}
FINAL_UPSAMPLING = {32: "upscore", 16: "upscore16", 8: "upscore8"}
_AT_ONCE_FACTORS = {"scale_pool4": 0.01, "scale_pool3": 0.0001}
_FIRST_LAYERS = {"conv1_1": ("vgg16", 64), "conv1": ("alexnet", 96)}  # -> network, its channels


def is_third_party(path: str | Path) -> bool:
    """Return whether a path is the name of a published model, or a third-party file of weights."""
    if str(path).startswith(("torchvision:", "paper:")):
        return True
    path = Path(path)
    if not path.is_file() or path.suffix in _FILE_SUFFIXES:
        return path.is_file()
    try:
        with path.open("rb") as file:
            return begins_like_torch_file(file.read(16))
    except OSError:  # reading it as a model reports the error
        return False


def load_third_party(
    source: str | Path,
    *,
    weights: str | Path | None = None,
    backbone: str | None = None,
    labels: Labels | None = None,
) -> Model:
    """Load a third-party model.

    Args:
        source: "torchvision:fcn_resnet50", "torchvision:fcn_resnet101", or a file of weights.
        weights: a local file for one of these two, instead of a download.
        backbone: the network for a file's layers, if not the one that it is recognized as:
            "paper:vgg16-aligned", "paper:vgg16-atonce".
        labels: the classes; by default those of PASCAL VOC, or numbered classes.

    Raises:
        FullconvError: an unknown name, or weights that cannot be downloaded or read, or do not fit.
    """
    name = str(source)
    if name.startswith("torchvision:"):
        return _load_torchvision(name.removeprefix("torchvision:"), weights, labels)
    if name.startswith("paper:"):
        message = msg(
            "{name} is a network without trained scores; expected a file of weights or a model.",
            name=name,
        )
        hint = shell_command("fullconv", "train", "DATA", "--backbone", name)
        raise FullconvError(message, hint)
    file = read_weights(source)
    architecture = torchvision_fcn.identify_architecture(file)
    if architecture:
        return _fill_torchvision(BackboneCard("torchvision", architecture), file, labels)
    return _load_released(file, backbone, labels)


def _load_torchvision(name: str, weights: str | Path | None, labels: Labels | None) -> Model:
    card = BackboneCard("torchvision", name)
    if name not in torchvision_fcn.NAMES:
        names = truncated_list([f"torchvision:{known}" for known in torchvision_fcn.NAMES])
        message = msg(
            "torchvision:{name} is not a segmentation network; there are {names}.",
            name=name,
            names=names,
        )
        command = shell_command("fullconv", "train", "DATA", "--backbone", f"torchvision:{name}")
        hint = msg(
            "{command}   # to train a segmentation network on this classifier", command=command
        )
        raise FullconvError(message, hint)
    if weights is not None:
        return _fill_torchvision(card, read_weights(weights), labels)
    try:
        file = download_torchvision_weights(card, name)
    except FullconvError as error:
        command = shell_command("fullconv", "predict", f"{name}.pth", "IMAGE")
        hint = msg("{command}   # with a copy of its weights", command=command)
        raise FullconvError(error.message, hint) from error
    card = replace(card, pretrained_on=torchvision_fcn.PRETRAINED_ON)
    return _fill_torchvision(card, file, labels)


def _fill_torchvision(card: BackboneCard, weights: Weights, labels: Labels | None) -> Model:
    architecture = torchvision_fcn.identify_architecture(weights)
    if architecture != card.name:
        values = {"file": weights.path.name, "expected": card.name, "found": architecture}
        message = msg("{file} contains no weights of {expected}.", **values)
        if architecture:
            message = msg("{file} contains weights of {found}, not of {expected}.", **values)
        name = f"torchvision:{architecture or card.name}"
        raise FullconvError(message, shell_command("fullconv", "predict", name, "IMAGE"))
    num_classes = torchvision_fcn.count_classes(weights)
    network = FCN(card, num_classes, stride=8)
    pyramid = network.backbone.pyramid
    assert isinstance(pyramid, torchvision_fcn.DilatedPyramid)
    torchvision_fcn.fill_pyramid(pyramid, weights)
    torchvision_fcn.fill_score(network.score["stride8"], weights)
    card = replace(card, pretrained_on=card.pretrained_on or weights.path.name)
    labels = labels or _default_labels(num_classes)
    return Model(network.eval(), labels, card, short_side=torchvision_fcn.SIDE)


def _load_released(weights: Weights, backbone: str | None, labels: Labels | None) -> Model:
    """Load one of the paper's networks, recognized by its layers."""
    # Build the network.
    card, stride = _recognize(weights)
    if backbone is not None:
        options = card.options
        card = nets.paper_card(backbone.removeprefix("paper:"))
        card = replace(card, options={**options, **card.options})
    num_classes = len(weights.tensors["score_fr.bias"].flatten())
    network = FCN(card, num_classes, stride=stride, upsampling="learned")

    # Copy the weights. The files expect BGR images.
    layers = match_layers(weights, network.backbone.pyramid)
    convolutions = named_convolutions(network.backbone.pyramid)
    scores = {SCORES[s]: network.score[f"stride{s}"] for s in SCORES if s >= stride}
    copy_weights({**convolutions, **scores}, layers, others=("upscore", *_AT_ONCE_FACTORS))
    swap_bgr_to_rgb(next(iter(convolutions.values())))

    # Transposed convolutions that are plain interpolation are replaced by the exact kernel.
    if not _copy_upsampling(network, layers):
        interpolating = FCN(network.backbone, num_classes, stride=stride)
        interpolating.score = network.score
        network = interpolating
    card = replace(card, mean=CAFFE_MEAN, std=CAFFE_STD, pretrained_on=weights.path.name)
    network.backbone.card = card
    return Model(network.eval(), labels or _default_labels(num_classes), card)


def _recognize(weights: Weights) -> tuple[BackboneCard, int]:
    """Return the card and the stride of the network that the weights belong to."""
    tensors = weights.tensors
    first = next((name for name in _FIRST_LAYERS if f"{name}.weight" in tensors), None)
    if first is None or "score_fr.weight" not in tensors or "score_fr.bias" not in tensors:
        layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in tensors))
        message = msg(
            "{path} is not a known segmentation model: its layers are {layers}; expected those "
            "of a released FCN (conv1_1 ... score_fr) or of a torchvision FCN.",
            path=weights.path,
            layers=truncated_list(layers, 6),
        )
        hint = msg('weights = "FILE"   # in a backbone config file, to train from a classifier')
        raise FullconvError(message, hint)
    # The two "at once" networks scale pool4 and pool3. A Caffe file has these layers; for a .pth,
    # the architecture of the checkpoint or the file name may tell.
    for layer, factor in _AT_ONCE_FACTORS.items():
        scale = tensors.get(f"{layer}.weight")
        if scale is not None and not torch.allclose(scale, torch.tensor(factor), rtol=1e-3):
            message = msg(
                "{path}: {layer} multiplies by {values} ...; expected {factor} throughout.",
                path=weights.path,
                layer=layer,
                values=scale.flatten()[:3].tolist(),
                factor=factor,
            )
            hint = msg("copy or download {file} again", file=weights.path.name)
            raise FullconvError(message, hint)
    names = f"{weights.architecture} {weights.path.name}".lower()
    named_at_once = "atonce" in names.replace("-", "").replace("_", "")
    network, channels = _FIRST_LAYERS[first]
    if "scale_pool4.weight" in tensors or named_at_once:
        network = f"{network}-atonce"
    card = nets.paper_card(network)
    width = tensors[f"{first}.weight"].shape[0] / channels
    options = {**card.options, **({"width": width} if width != 1 else {})}
    stride = next(s for s in (8, 16, 32) if f"{SCORES[s]}.weight" in tensors)
    return replace(card, options=options), stride


def _copy_upsampling(network: FCN, layers: Layers) -> bool:
    """Copy the transposed convolutions of a file, and return whether one of them differs from the
    interpolation that they are initialized with."""
    modules: dict[str, nn.Module] = {
        FINAL_UPSAMPLING[network.stride]: network.final_upsampling or nn.Identity()
    }
    for stride, name in SKIP_UPSAMPLING.items():
        if stride > network.stride:
            modules[name] = network.skip_upsampling[f"stride{stride}"]
    present = {name: module for name, module in modules.items() if name in layers.tensors}
    initial = {name: _weight(module).clone() for name, module in present.items()}
    tensors = {name: t for name, t in layers.tensors.items() if name.startswith("upscore")}
    copy_weights(present, replace(layers, tensors=tensors), others=())
    return any(
        not torch.allclose(_weight(module), initial[name], rtol=0, atol=1e-3)
        for name, module in present.items()
    )


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def _default_labels(count: int) -> Labels:
    return VOC if count == len(VOC) else Labels(tuple(f"class {k}" for k in range(count)))
