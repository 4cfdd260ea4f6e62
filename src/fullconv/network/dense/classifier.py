"""A whole classifier, and what one must know to use it: its size, its pictures, its classes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from fullconv.core.errors import FullconvError
from fullconv.network.backbone import card_of, timm_classifier, torchvision_classifier
from fullconv.network.backbone_card import BackboneCard

USUAL_SIZE = 224


@dataclass(frozen=True)
class Classifier:
    """A classifier of pictures.

    Args:
        module: maps (N, 3, H, W) to class scores (N, K), in evaluation mode.
        card: where it comes from, and the mean and standard deviation of its pictures.
        size: H = W of the pictures that it is made for, in pixels.
    """

    module: nn.Module
    card: BackboneCard
    size: int

    @property
    def name(self) -> str:
        """ "timm resnet18"; a module of one's own goes by its class."""
        return (
            self.card.name
            if self.card.source == "module"
            else f"{self.card.source} {self.card.name}"
        )


def load_classifier(
    classifier: str | Path | BackboneCard | nn.Module,
    *,
    pretrained: bool = False,
    size: int | None = None,
) -> Classifier:
    """A classifier of timm ("resnet18"), of torchvision ("torchvision:NAME"), of a card (.toml), or
    a module of your own, which is copied.

    Args:
        pretrained: load the source's published weights (needs the network once). A card brings its
            own weights.
        size: H = W of its pictures, in pixels. Default: what the source says, or else 224.

    Raises:
        FullconvError: unknown name, weights out of reach, a size below 1.
    """
    card = card_of(classifier)
    try:
        if isinstance(classifier, nn.Module):
            module = copy.deepcopy(classifier)
        elif card.source == "timm":
            module = timm_classifier(card, pretrained)
        elif card.source == "torchvision":
            module = torchvision_classifier(card, pretrained)
        else:
            raise FullconvError(
                f"classifier source {card.source!r} is not known.",
                'source = "timm"  # or "torchvision"',
            )
    except FullconvError as error:  # here a classifier is no option but the first word
        raise FullconvError(error.message, error.hint.replace("--backbone ", "")) from error
    facts = _facts(module, card)
    if not isinstance(classifier, (Path, BackboneCard)) and not str(classifier).endswith(".toml"):
        card = replace(card, mean=facts.get("mean", card.mean), std=facts.get("std", card.std))
    height, width = (size, size) if size is not None else facts["size"]
    if height != width or height < 1:
        raise FullconvError(
            f"{card.name} is for pictures of {height} x {width} pixels (height x width); expected "
            "as many rows as columns, 1 or more.",
            "size=224",
        )
    return Classifier(module.eval(), card, height)


def _facts(module: nn.Module, card: BackboneCard) -> dict[str, Any]:
    """Size, mean and std of the pictures that the weights were made with, as the source says."""
    if card.source == "torchvision":
        import torchvision

        as_trained = torchvision.models.get_model_weights(card.name).DEFAULT.transforms()
        size = as_trained.crop_size[0]
        return {
            "size": (size, size),
            "mean": tuple(as_trained.mean),
            "std": tuple(as_trained.std),
        }
    told = getattr(module, "pretrained_cfg", None) or {}  # timm's
    facts = {key: tuple(told[key]) for key in ("mean", "std") if key in told}
    return {**facts, "size": tuple(told.get("input_size", (3, USUAL_SIZE, USUAL_SIZE))[1:])}
