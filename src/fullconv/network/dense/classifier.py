"""A whole classifier, and what one must know to use it: its size, its images, its classes."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from fullconv.core.errors import FullconvError
from fullconv.network.backbone import resolve_card, timm_classifier, torchvision_classifier
from fullconv.network.backbone_card import BackboneCard

USUAL_SIZE = 224


@dataclass(frozen=True)
class Classifier:
    """A classifier of images.

    Args:
        module: maps (N, 3, H, W) to class scores (N, K), in evaluation mode.
        card: where it comes from, and the mean and standard deviation of its images.
        size: H = W of the images that it is made for, in pixels.
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
        size: H = W of its images, in pixels. Default: what the source says, or else 224.

    Raises:
        FullconvError: unknown name, weights out of reach, a size below 1.
    """
    card = resolve_card(classifier)
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
            f"{card.name} is for images of {height} x {width} pixels (height x width); expected "
            "as many rows as columns, 1 or more.",
            "size=224",
        )
    return Classifier(module.eval(), card, height)


def _facts(module: nn.Module, card: BackboneCard) -> dict[str, Any]:
    """Size, mean and std of the images that the weights were made with, as the source says."""
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


_OFFERED = 6  # near names in an error


def class_names(card: BackboneCard, num_classes: int) -> tuple[str, ...]:
    """The names of a classifier's classes, from timm's lists of ImageNet and its larger kin; none
    for a module of one's own, for other numbers of classes, and where a card says that the weights
    come from elsewhere.

    >>> class_names(BackboneCard("timm", "resnet18"), 1000)[281]
    'tabby, tabby cat'
    """
    from timm.data import ImageNetInfo, infer_imagenet_subset

    elsewhere = card.pretrained_on and "imagenet" not in card.pretrained_on.lower()
    subset = infer_imagenet_subset({"num_classes": num_classes})
    if card.source not in ("timm", "torchvision") or elsewhere or subset is None:
        return ()
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(num_classes))


def find_class(wanted: str, names: Sequence[str], num_classes: int) -> int:
    """The id of a class, from its id in digits, its whole name, or one of its words; upper and
    lower case are the same.

    >>> find_class("Tabby Cat", ["goldfish, Carassius auratus", "tabby, tabby cat"], 2)
    1

    Raises:
        FullconvError: no such class, or several of that name.
    """
    text = _plain(wanted)
    if text.isdecimal():
        if int(text) < num_classes:
            return int(text)
        raise FullconvError(
            f"no class {text}: there are {num_classes}, 0 to {num_classes - 1}.", "--class 0"
        )
    if not names:
        raise FullconvError(
            f"the class {wanted!r} cannot be found: the names of this classifier's classes are not "
            f"known, only that there are {num_classes}.",
            "--class 0   # the class's id",
        )
    words = [[_plain(word) for word in name.split(",")] for name in names]
    # The whole name, then the first word for it, then any: "cardigan" is the garment, not the
    # corgi "Cardigan, Cardigan Welsh corgi".
    whole = [k for k, name in enumerate(names) if _plain(name) == text]
    first = [k for k, all_words in enumerate(words) if all_words[0] == text]
    found = whole or first or [k for k, all_words in enumerate(words) if text in all_words]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"{names[k]!r} ({k})" for k in found)
        raise FullconvError(
            f"{wanted!r} names {len(found)} classes: {listed}.", f"--class {found[0]}"
        )
    near = _near(text, names)
    offered = "; near it: " + ", ".join(f"{word!r} ({k})" for word, k in near) if near else ""
    raise FullconvError(
        f"no class is called {wanted!r}{offered}.",
        f'--class "{near[0][0]}"' if near else "--class 0   # a class's id",
    )


def _near(text: str, names: Sequence[str]) -> list[tuple[str, int]]:
    """(word, class id) of names that end with the text ("tabby cat"), hold it as a word of theirs
    ("cat bear"), or are written almost so; one per class."""
    every = {word.strip(): k for k, name in enumerate(names) for word in name.split(",")}
    ending = [w for w in every if _plain(w).split()[-1:] == [text]]
    holding = [w for w in every if text in _plain(w).split()]
    by_plain = {_plain(word): word for word in every}
    alike = difflib.get_close_matches(text, by_plain, n=_OFFERED, cutoff=0.7)
    found: dict[int, str] = {}
    for word in [*ending, *holding, *(by_plain[plain] for plain in alike)]:
        found.setdefault(every[word], word)
    return [(word, k) for k, word in found.items()][:_OFFERED]


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())
