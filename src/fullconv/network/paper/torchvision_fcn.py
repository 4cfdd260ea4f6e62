"""torchvision's fcn_resnet50 and fcn_resnet101 as backbones, with their weights.

They are dilated ResNets (stride 8) with a head: a 3x3 convolution, batch norm, ReLU, dropout, and
1x1 scores. All but the scores is a pyramid of one tap. The second head, used in training only, is
left out. torchvision stretches the scores over the image, and so does what is built here, unless
another placement is asked for: the cells sit at 8 i, and stretching reads them up to half a stride
off, which the published weights learned to live with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.text import shell_command
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.paper.weight_files import Weights, read_weights, torchvision_weights

NAMES = ("fcn_resnet50", "fcn_resnet101")
CARDS = tuple(("torchvision", name) for name in NAMES)  # source and name
SIDE = 520  # pixels: torchvision resizes the shorter side of an image to this
PRETRAINED_ON = "COCO train2017, the classes of PASCAL VOC"
_SCORE, _SECOND_HEAD = "classifier.4.", "aux_classifier."


class DilatedPyramid(nn.Module):
    """Everything but the scores; `placement` is torchvision's.

    Args:
        network: of torchvision.
    """

    placement = "stretched"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone = network.get_submodule("backbone")
        head = network.get_submodule("classifier")
        assert isinstance(head, nn.Sequential)
        self.classifier = nn.Sequential(*list(head)[:-1])

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> (N, 512, H/8, W/8), in a list."""
        return [self.classifier(self.backbone(images)["out"])]


def build_pyramid(
    card: BackboneCard, *, pretrained: bool = False
) -> tuple[DilatedPyramid, BackboneCard]:
    """The pyramid of a card; fresh, or with weights of the whole network, whose scores are left
    out. The card comes back with what it was pretrained on.

    Args:
        card: of source "torchvision", one of `NAMES`; weights may be a .pth or .safetensors file.
        pretrained: with torchvision's own.

    Raises:
        FullconvError: weights that do not fit or cannot be had; options that there are not.
    """
    from torchvision.models import get_model

    if card.options:
        raise FullconvError(
            f"torchvision's {card.name} has no options; found {dict(card.options)}.",
            "options = {}   # in the card",
        )
    pyramid = DilatedPyramid(get_model(card.name, weights=None, weights_backbone=None))
    if card.weights is not None:
        fill_pyramid(pyramid, read_weights(card.weights))
    elif pretrained:
        fill_pyramid(pyramid, torchvision_weights(card, card.name))
        card = replace(card, pretrained_on=PRETRAINED_ON)
    return pyramid, card


def identify_architecture(weights: Weights) -> str:
    """Which of `NAMES` these are the weights of, by the blocks of the third stage; "" if none."""
    if f"{_SCORE}weight" not in weights.tensors:
        return ""
    blocks = sum(
        name.startswith("backbone.layer3.") and name.endswith(".conv3.weight")
        for name in weights.tensors
    )
    return {6: "fcn_resnet50", 23: "fcn_resnet101"}.get(blocks, "")


def classes_of(weights: Weights) -> int:
    """How many classes the weights score."""
    return int(weights.tensors[f"{_SCORE}weight"].shape[0])


def fill_pyramid(pyramid: DilatedPyramid, weights: Weights) -> None:
    """Copies everything but the scores.

    Raises:
        FullconvError: they do not fit.
    """
    left_out = (_SCORE, _SECOND_HEAD)
    found = {n: t for n, t in weights.tensors.items() if not n.startswith(left_out)}
    _fill(pyramid, found, weights.path)


def fill_score(score: nn.Module, weights: Weights) -> None:
    """Copies the scores.

    Raises:
        FullconvError: they do not fit.
    """
    found = {
        name.removeprefix(_SCORE): tensor
        for name, tensor in weights.tensors.items()
        if name.startswith(_SCORE)
    }
    _fill(score, found, weights.path)


def _fill(module: nn.Module, found: Mapping[str, Tensor], path: Path) -> None:
    own = module.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in found]
    wrong += [f"{name} is one too many" for name in found if name not in own]
    wrong += [
        f"{name} is {tuple(found[name].shape)} (expected {tuple(tensor.shape)})"
        for name, tensor in own.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise FullconvError(
            f"{path.name} does not fit torchvision's network: {'; '.join(wrong[:4])}{more}.",
            shell_command("fullconv", "predict", f"torchvision:{NAMES[0]}", "IMAGE"),
        )
    with torch.no_grad():
        module.load_state_dict(dict(found))
