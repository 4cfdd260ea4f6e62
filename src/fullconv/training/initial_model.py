"""What a training starts from: a classifier's weights, or a model that is there.

An FCN-16s may start from an FCN-32s, new classes from old ones. Long et al. 2015, section 4.3: each
finer network starts from the coarser one. Its new scores are zero, so that at first it says what
the coarser one said.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import translate
from fullconv.core.packages import __version__
from fullconv.core.settings import Settings
from fullconv.data.check.check import CheckReport
from fullconv.data.check.training_overlap import training_split_fingerprint
from fullconv.data.layouts.dataset import Dataset
from fullconv.inference.runtime import Runtime, label_disagreement
from fullconv.models.model import Model, load_model
from fullconv.network.backbone import build
from fullconv.network.backbone_card import published_license, read_card
from fullconv.network.fcn import FCN
from fullconv.network.multi_input import fuse
from fullconv.training.finalize import some_images

_BACKBONE, _SCORE, _LAST_STEP = "backbone.", "score.", "final_upsampling."


def build_initial_model(
    report: CheckReport, settings: Settings, module: Any, *, quiet: bool
) -> Model:
    """The model that a training begins with.

    Args:
        report: of the data set; further heads and inputs are those of `report.dataset`.
        settings: decided.
        module: a backbone of one's own, or None.
        quiet: do not say what is taken over from a model to start from.
    """
    torch.manual_seed(settings.seed)
    named, earlier = _begun_with(settings, module)
    dataset = report.dataset
    if earlier:
        _require_its_inputs(earlier, dataset, settings)
    network = _network(named, earlier, dataset, settings)
    card = network.backbone.card
    if settings.pretrained and not card.pretrained_on:
        licence = card.license or published_license(card)
        card = replace(card, pretrained_on=f"{card.source}'s default weights", license=licence)
    settings_kept = {
        k: v for k, v in settings.to_dict().items() if k not in ("backbone", "init_from")
    }
    facts: dict[str, Any] = {
        "data_fingerprint": report.fingerprint,
        "trained_on": training_split_fingerprint(report, earlier.training if earlier else None),
        "mask_values": [meaning.to_dict() for meaning in report.meanings],
        "fullconv": __version__,
        "settings": settings_kept,
        "data": _about(report),
    }
    if earlier:
        facts["start"] = f"{earlier.network.name} on {earlier.card.name}"
    model = Model(network, dataset.labels, card, training=facts, heads=dict(dataset.heads))
    if dataset.heads:
        model.head = dataset.name_of_masks
    how = ""
    if earlier and not earlier.extra_inputs:  # what it knows of images, before there is more
        how = transfer_weights(model, earlier)
    if dataset.inputs:
        fuse(network, [one.channels for one in dataset.inputs], settings.fusion)
        model.extra_inputs, model.fusion = dataset.inputs, settings.fusion
    if earlier and earlier.extra_inputs:
        how = transfer_weights(model, earlier)
    network.to(memory_format=torch.channels_last)
    if earlier:
        alike = [_names(one) for one in (model, earlier)]
        if alike[0] == alike[1]:
            facts["unchanged_at_start"] = _unchanged(model, earlier, dataset)
            how += f"; {facts['unchanged_at_start']:.2%} of the pixels keep their label"
        if not quiet:
            print(translate(f"starts from {settings.init_from}: {how}"), file=sys.stderr)
    return model


def _about(report: CheckReport) -> dict[str, Any]:
    """What a model notes of its training data; sizes are (height, width) in pixels."""
    dataset, sizes = report.dataset, report.sizes
    names, pixels = dataset.labels.names, report.class_pixels.get("train", [])
    facts: dict[str, Any] = {
        "name": dataset.root.resolve().name,
        "named": dataset.named,
        "images": {split: len(pairs) for split, pairs in dataset.splits.items()},
        "class_pixels": dict(zip(names, pixels, strict=False)),
        "ignored_pixels": report.ignored_pixels.get("train", 0),
    }
    if sizes:
        small, large = (of(sizes, key=lambda size: size[0] * size[1]) for of in (min, max))
        common = sizes.most_common(1)[0][0]
        facts["sizes"] = {
            "smallest": list(small),
            "largest": list(large),
            "commonest": list(common),
        }
    return facts


def _network(named: Any, earlier: Model | None, dataset: Dataset, settings: Settings) -> FCN:
    """Fresh, for images alone. Where its cells sit stays as it was in the model to start from."""
    before = earlier.network if earlier else None
    backbone = build(
        named,
        stride=settings.stride,
        pretrained=settings.pretrained,
        placement=before.backbone.placement if before else None,
    )
    return FCN(
        backbone,
        sum(len(labels) for labels in dataset.tables),
        stride=settings.stride,
        upsampling=settings.upsampling,
        border=before.border if before else None,
    )


def _require_its_inputs(earlier: Model, dataset: Dataset, settings: Settings) -> None:
    """A model of images may become one of more; one of more stays what it is."""
    theirs = [(one.name, one.channels) for one in earlier.extra_inputs]
    ours = [(one.name, one.channels) for one in dataset.inputs]
    if theirs and (theirs != ours or earlier.fusion != settings.fusion):
        names = [name for name, _ in theirs]
        raise FullconvError(
            f"the model to start from takes {' and '.join(names)} beside images, by "
            f"{earlier.fusion} fusion; this training would not.",
            f"--extra-inputs {','.join(names)} --fusion {earlier.fusion}",
        )


def _names(model: Model) -> tuple[list[tuple[str, ...]], list[str]]:
    """Of the classes of all heads, and of the further inputs."""
    return [labels.names for labels in model.tables], [one.name for one in model.extra_inputs]


def strides_of(settings: Settings, module: Any) -> list[int]:
    """The strides of the backbone down to the one that is asked for, coarsest first."""
    named, _ = _begun_with(settings, module)
    return [int(grid.stride) for grid in reversed(build(named, stride=settings.stride).grids)]


def _begun_with(settings: Settings, module: Any) -> tuple[Any, Model | None]:
    """What the backbone is built from, and the model to start from."""
    earlier = load_model(settings.init_from, backbone=module) if settings.init_from else None
    named = earlier.card if earlier else settings.backbone
    return (module if module is not None else named), earlier


def _unchanged(model: Model, earlier: Model, dataset: Dataset) -> float:
    """The share of pixels (fraction) of some images that an untrained successor labels alike."""
    device = torch.device("cpu")
    one, other = (Runtime(m, device=device, precision="float32") for m in (model, earlier))
    return 1 - label_disagreement(one, other, some_images(dataset, dataset.held_out))


def transfer_weights(model: Model, earlier: Model) -> str:
    """Copies the backbone of an earlier model into a fresh one, and the scores where the classes
    of all heads are the same.

    Args:
        model: on the same backbone. Its scores at strides that the earlier one has not stay as
            they are, zero.

    Returns:
        What was taken over, in words.

    Raises:
        FullconvError: the backbones differ.
    """
    network = model.network
    fresh = network.state_dict()
    known = {
        key: value
        for key, value in earlier.network.state_dict().items()
        if key in fresh and value.shape == fresh[key].shape
    }
    lacking = [key for key in fresh if key.startswith(_BACKBONE) and key not in known]
    if lacking:
        raise FullconvError(
            f"the model to start from is an {earlier.network.name} on {earlier.card.name}, which "
            f"has other weights: {len(lacking)} are missing or of another shape, such as "
            f"{lacking[0]}.",
            f"--backbone {earlier.card.source}:{earlier.card.name}",
        )
    if _names(model)[0] != _names(earlier)[0]:
        known = {key: value for key, value in known.items() if key.startswith(_BACKBONE)}
    elif network.stride != earlier.network.stride:  # to the pixels: another filter per stride
        known = {key: value for key, value in known.items() if not key.startswith(_LAST_STEP)}
    network.load_state_dict({**fresh, **known})
    scores = [k.split(".")[1] for k in known if k.startswith(_SCORE) and k.endswith(".weight")]
    if scores:
        return f"its backbone and its scores at {', '.join(scores)}"
    return "its backbone; the scores start afresh, for other classes"


def require_backbone(name: str) -> None:
    """Says at once that timm or torchvision has no network of a name, or what is wrong with a card;
    whether it can be built, and with which weights, is seen when it is.

    Args:
        name: a timm name, "torchvision:NAME", or the path of a backbone card.

    Raises:
        FullconvError: there is none of that name, or a card that cannot be read.
    """
    card = read_card(name) if name.endswith(".toml") else None
    source, _, plain = (f"{card.source}:{card.name}" if card else name).rpartition(":")
    source = source or "timm"
    if source == "timm":
        import timm

        known, models = timm.is_model(plain), timm.list_models()
    elif source == "torchvision":
        import torchvision

        models = torchvision.models.list_models(module=torchvision.models)
        known = plain in models
    else:
        return  # `fullconv.network.backbone.build` says which sources there are
    if known:
        return
    near = get_close_matches(plain, models, 4)
    nearest = f"; the nearest are {', '.join(near)}" if near else ""
    prefix = "" if source == "timm" else f"{source}:"
    best = (near or ["resnet18"])[0]
    raise FullconvError(
        f"{source} has no network {plain!r}{nearest}.",
        f'name = "{best}"   # in {name}' if card else f"--backbone {prefix}{best}",
    )
