"""A whole classifier with its image size, normalization, and class names."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import join, msg
from fullconv.network.backbone import resolve_card
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.classifiers import timm_classifier, torchvision_classifier

USUAL_SIZE = 224
_OFFERED = 6  # similar names in an error


@dataclass(frozen=True)
class Classifier:
    """A classifier of images."""

    module: nn.Module  # maps (N, 3, H, W) to class scores (N, K), in evaluation mode
    card: BackboneCard  # its origin, and the mean and standard deviation of its images
    size: int  # H = W of its own images, in pixels

    @property
    def name(self) -> str:
        """The source and name, "timm resnet18"; the class name of a user's module."""
        if self.card.source == "module":
            return self.card.name
        return f"{self.card.source} {self.card.name}"


def load_classifier(
    classifier: str | Path | BackboneCard | nn.Module,
    *,
    pretrained: bool = False,
    size: int | None = None,
) -> Classifier:
    """Load a classifier from timm ("resnet18"), torchvision ("torchvision:NAME") or a backbone
    card, or copy a module. The arguments are those of `convolutionalize`.

    Raises:
        FullconvError: the name is unknown, the weights cannot be downloaded, or the size is below
            1.
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
                msg("unknown classifier source {source!r}.", source=card.source),
                msg('source = "timm"  # or "torchvision"'),
            )
    except FullconvError as error:  # a classifier is an argument, not an option
        raise FullconvError(error.message, error.hint.replace("--backbone ", "")) from error
    properties = _image_properties(module, card)
    if not isinstance(classifier, (Path, BackboneCard)) and not str(classifier).endswith(".toml"):
        mean, std = properties.get("mean", card.mean), properties.get("std", card.std)
        card = replace(card, mean=mean, std=std)
    height, width = (size, size) if size is not None else properties["size"]
    if height != width or height < 1:
        message = msg(
            "the images of {name} are {height} x {width} pixels (height x width); expected a "
            "square of 1 pixel or more.",
            name=card.name,
            height=height,
            width=width,
        )
        raise FullconvError(message, "size=224")
    return Classifier(module.eval(), card, height)


def _image_properties(module: nn.Module, card: BackboneCard) -> dict[str, Any]:
    """Return the size, mean and std of the training images, if the source documents them."""
    if card.source == "torchvision":
        import torchvision

        preset = torchvision.models.get_model_weights(card.name).DEFAULT.transforms()
        size = preset.crop_size[0]
        return {"size": (size, size), "mean": tuple(preset.mean), "std": tuple(preset.std)}
    config = getattr(module, "pretrained_cfg", None) or {}  # timm's
    properties = {key: tuple(config[key]) for key in ("mean", "std") if key in config}
    size = tuple(config.get("input_size", (3, USUAL_SIZE, USUAL_SIZE))[1:])
    return {**properties, "size": size}


def class_names(card: BackboneCard, num_classes: int) -> tuple[str, ...]:
    """Return the names of a classifier's classes, from timm's lists of ImageNet and its supersets;
    empty for a user's module, for other numbers of classes, and for other training data.

    >>> class_names(BackboneCard("timm", "resnet18"), 1000)[281]
    'tabby, tabby cat'
    """
    from timm.data import ImageNetInfo, infer_imagenet_subset

    other_data = card.pretrained_on and "imagenet" not in card.pretrained_on.lower()
    subset = infer_imagenet_subset({"num_classes": num_classes})
    if card.source not in ("timm", "torchvision") or other_data or subset is None:
        return ()
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(num_classes))


def find_class(wanted: str, names: Sequence[str], num_classes: int) -> int:
    """Return the id of a class, given as digits, as its whole name, or as one of its words, in any
    case. `names` are those of all classes; may be empty.

    Raises:
        FullconvError: no class, or more than one, has this name.

    >>> find_class("Tabby Cat", ["goldfish, Carassius auratus", "tabby, tabby cat"], 2)
    1
    """
    text = _normalized(wanted)
    if text.isdecimal():
        if int(text) < num_classes:
            return int(text)
        message = msg(
            "there is no class {id}; the ids are 0 to {last}.", id=text, last=num_classes - 1
        )
        raise FullconvError(message, "--class 0")
    if not names:
        message = msg(
            "class {name!r} cannot be found: this classifier has {count} classes without names.",
            name=wanted,
            count=num_classes,
        )
        raise FullconvError(message, msg("--class 0   # the class's id"))

    # Prefer the whole name, then the first word, then any word: "cardigan" is the garment, not the
    # corgi "Cardigan, Cardigan Welsh corgi".
    words = [[_normalized(word) for word in name.split(",")] for name in names]
    by_name = [k for k, name in enumerate(names) if _normalized(name) == text]
    by_first_word = [k for k, class_words in enumerate(words) if class_words[0] == text]
    by_word = [k for k, class_words in enumerate(words) if text in class_words]
    matches = by_name or by_first_word or by_word
    if len(matches) == 1:
        return matches[0]
    if matches:
        message = msg(
            "{name!r} is the name of {count} classes: {classes}.",
            name=wanted,
            count=len(matches),
            classes=", ".join(f"{names[k]!r} ({k})" for k in matches),
        )
        raise FullconvError(message, f"--class {matches[0]}")
    similar = _similar_words(text, names)
    message = msg("no class has the name {name!r}.", name=wanted)
    if not similar:
        raise FullconvError(message, msg("--class 0   # a class's id"))
    listed = ", ".join(f"{word!r} ({k})" for word, k in similar)
    message = join([message, msg("Similar names: {names}.", names=listed)], " ")
    raise FullconvError(message, f'--class "{similar[0][0]}"')


def _similar_words(text: str, names: Sequence[str]) -> list[tuple[str, int]]:
    """Return (word, class id), one per class, of names that end with the text ("tabby cat"),
    contain it as a word ("cat bear"), or are spelled similarly."""
    ids = {word.strip(): k for k, name in enumerate(names) for word in name.split(",")}
    ending = [w for w in ids if _normalized(w).split()[-1:] == [text]]
    containing = [w for w in ids if text in _normalized(w).split()]
    originals = {_normalized(word): word for word in ids}
    close = difflib.get_close_matches(text, originals, n=_OFFERED, cutoff=0.7)
    by_class: dict[int, str] = {}
    for word in [*ending, *containing, *(originals[match] for match in close)]:
        by_class.setdefault(ids[word], word)
    return [(word, k) for k, word in by_class.items()][:_OFFERED]


def _normalized(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())
