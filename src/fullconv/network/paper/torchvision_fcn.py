"""torchvision's fcn_resnet50 and fcn_resnet101 as backbones, with their weights.

They are dilated ResNets (stride 8) with a head: a 3x3 convolution, batch norm, ReLU, dropout, and
1x1 scores. Everything but the scores is a pyramid with one tap. The auxiliary head, which is used
in training only, is left out.

torchvision stretches the scores over the image, and so does this backbone by default. The center
of cell i is at 8 i. Stretching interpolates up to half a stride away from there, which the
published weights have learned to compensate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import shell_command
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.paper.weight_files import (
    Weights,
    compare_weights,
    download_torchvision_weights,
    read_weights,
)

NAMES = ("fcn_resnet50", "fcn_resnet101")
CARDS = tuple(("torchvision", name) for name in NAMES)  # source and name
SIDE = 520  # pixels: torchvision resizes the shorter side of an image to this
PRETRAINED_ON = "COCO train2017, the classes of PASCAL VOC"
_SCORE, _AUXILIARY_HEAD = "classifier.4.", "aux_classifier."


class DilatedPyramid(nn.Module):
    """Everything but the scores of torchvision's FCN `network`. `placement` is torchvision's."""

    placement = "stretched"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone = network.get_submodule("backbone")
        head = network.get_submodule("classifier")
        assert isinstance(head, nn.Sequential)
        self.classifier = nn.Sequential(*list(head)[:-1])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the feature map (N, 512, H/8, W/8) of images (N, 3, H, W), in a list."""
        return [self.classifier(self.backbone(images)["out"])]


def build_pyramid(
    card: BackboneCard, *, pretrained: bool = False
) -> tuple[DilatedPyramid, BackboneCard]:
    """Build the pyramid of a card (one of `CARDS`), and return it with the card, which names the
    training data of the weights. They may be a .pth or .safetensors file of the whole network (the
    scores are left out); `pretrained` loads torchvision's own.

    Raises:
        FullconvError: the card has options, or the weights do not fit or cannot be downloaded.
    """
    from torchvision.models import get_model

    if card.options:
        message = msg(
            "torchvision's {name} has no options; found {options}.",
            name=card.name,
            options=dict(card.options),
        )
        raise FullconvError(message, msg("options = {{}}   # in the card"))
    pyramid = DilatedPyramid(get_model(card.name, weights=None, weights_backbone=None))
    if card.weights is not None:
        fill_pyramid(pyramid, read_weights(card.weights))
    elif pretrained:
        fill_pyramid(pyramid, download_torchvision_weights(card, card.name))
        card = replace(card, pretrained_on=PRETRAINED_ON)
    return pyramid, card


def identify_architecture(weights: Weights) -> str:
    """Return which of `NAMES` the weights belong to, by the blocks of the third stage, or ""."""
    if f"{_SCORE}weight" not in weights.tensors:
        return ""
    blocks = sum(
        name.startswith("backbone.layer3.") and name.endswith(".conv3.weight")
        for name in weights.tensors
    )
    return {6: "fcn_resnet50", 23: "fcn_resnet101"}.get(blocks, "")


def count_classes(weights: Weights) -> int:
    return int(weights.tensors[f"{_SCORE}weight"].shape[0])


def fill_pyramid(pyramid: DilatedPyramid, weights: Weights) -> None:
    """Copy all weights but the scores' into a pyramid; they must fit."""
    _fill(pyramid, weights, lambda name: "" if name.startswith((_SCORE, _AUXILIARY_HEAD)) else name)


def fill_score(score: nn.Module, weights: Weights) -> None:
    """Copy the scores' weights into a 1x1 convolution; they must fit."""
    _fill(score, weights, lambda name: name[len(_SCORE) :] if name.startswith(_SCORE) else "")


def _fill(module: nn.Module, weights: Weights, rename: Callable[[str], str]) -> None:
    """Load the tensors whose new name is not empty."""
    tensors = {rename(name): tensor for name, tensor in weights.tensors.items() if rename(name)}
    if mismatch := compare_weights(tensors, module.state_dict()):
        raise FullconvError(
            msg(
                "{file} does not fit torchvision's network: {mismatch}.",
                file=weights.path.name,
                mismatch=mismatch.message,
            ),
            shell_command("fullconv", "predict", f"torchvision:{NAMES[0]}", "IMAGE"),
        )
    module.load_state_dict(tensors)
