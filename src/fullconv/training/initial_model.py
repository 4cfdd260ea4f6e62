"""The model that a run starts from: a pretrained classifier, or an existing model.

An FCN-16s can start from an FCN-32s, and new classes from old ones. Long et al. 2015, section 4.3:
each finer network starts from the coarser one. Its new scores are zero, so its first predictions
are those of the coarser network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import join, msg
from fullconv.core.packages import __version__
from fullconv.core.progress import say
from fullconv.core.settings import Settings
from fullconv.core.text import percent
from fullconv.data.check.check import CheckReport
from fullconv.data.check.training_overlap import training_split_fingerprint
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.inference.runtime import Runtime, label_disagreement
from fullconv.models.model import Model
from fullconv.models.open import open_model
from fullconv.network.backbone import build
from fullconv.network.backbone_card import published_license, read_card
from fullconv.network.fcn import FCN
from fullconv.network.multi_input import fuse
from fullconv.training.finalize import sample_images

_BACKBONE, _SCORE, _LAST_STEP = "backbone.", "score.", "final_upsampling."  # of state_dict keys


def build_initial_model(
    report: CheckReport, settings: Settings, module: nn.Module | None = None, *, quiet: bool = True
) -> Model:
    """Build the model that a run starts from; unless `quiet`, print what an existing one provides.

    Args:
        report: of the dataset, with the heads and extra inputs that the model gets.
        settings: resolved.
        module: the user's own backbone, if any.

    Raises:
        FullconvError: an existing model with another backbone or other extra inputs.
    """
    torch.manual_seed(settings.seed)
    dataset = report.dataset
    earlier = open_model(settings.init_from, backbone=module) if settings.init_from else None
    backbone: Any = module if module is not None else settings.backbone
    placement = border = None
    if earlier:
        _require_same_inputs(earlier, dataset.inputs, settings.fusion)
        backbone = module if module is not None else earlier.card
        placement, border = earlier.network.backbone.placement, earlier.network.border

    # The network, for images alone. Feature-map cells are placed as in the existing model.
    stride = settings.stride
    outputs = sum(len(labels) for labels in dataset.tables)
    pyramid = build(backbone, stride=stride, pretrained=settings.pretrained, placement=placement)
    network = FCN(pyramid, outputs, stride=stride, upsampling=settings.upsampling, border=border)
    card = network.backbone.card
    if settings.pretrained and not card.pretrained_on:
        weights = f"{card.source}'s default weights"
        license_name = card.license or published_license(card)
        card = replace(card, pretrained_on=weights, license=license_name)

    # What the model notes about its training.
    options = settings.to_dict()
    for name, value in options.items():
        options[name] = list(value) if isinstance(value, tuple) else value
    del options["backbone"], options["init_from"]
    facts: dict[str, Any] = {
        "data_fingerprint": report.fingerprint,
        "trained_on": training_split_fingerprint(report, earlier.training if earlier else None),
        "mask_values": [meaning.to_dict() for meaning in report.meanings],
        "fullconv": __version__,
        "settings": options,
        "data": _dataset_facts(report),
    }
    if earlier:
        facts["start"] = f"{earlier.network.name} on {earlier.card.name}"
    model = Model(network, dataset.labels, card, training=facts, heads=dict(dataset.heads))
    if dataset.heads:
        model.head = dataset.name_of_masks

    # Weights of a model of images alone are copied before extra inputs are added.
    transferred = ""
    if earlier and not earlier.extra_inputs:
        transferred = transfer_weights(model, earlier)
    if dataset.inputs:
        fuse(network, [extra.channels for extra in dataset.inputs], settings.fusion)
        model.extra_inputs, model.fusion = dataset.inputs, settings.fusion
    if earlier and earlier.extra_inputs:
        transferred = transfer_weights(model, earlier)
    network.to(memory_format=torch.channels_last)
    if not earlier:
        return model

    notes = [msg("starts from {model}: {parts}", model=settings.init_from, parts=transferred)]
    same_inputs = bool(model.extra_inputs) == bool(earlier.extra_inputs)
    if same_inputs and _class_names(model) == _class_names(earlier):
        cpu = torch.device("cpu")
        first, second = (Runtime(m, device=cpu, precision="float32") for m in (model, earlier))
        images = sample_images(dataset, dataset.held_out)
        unchanged = facts["unchanged_at_start"] = 1 - label_disagreement(first, second, images)
        share = percent(unchanged, 2)
        notes.append(msg("{share} of the pixels keep their label", share=share))
    if not quiet:
        say(join(notes, "; "))
    return model


def pyramid_strides(settings: Settings, module: nn.Module | None = None) -> list[int]:
    """Return the strides of the backbone down to `settings.stride`, coarsest first."""
    backbone: Any = settings.backbone
    if module is not None:
        backbone = module
    elif settings.init_from:
        backbone = open_model(settings.init_from).card
    return [int(grid.stride) for grid in reversed(build(backbone, stride=settings.stride).grids)]


def transfer_weights(model: Model, earlier: Model) -> str:
    """Copy the backbone of an existing model into a new one, and the scores if the classes of all
    heads are the same; return in words what was copied. Scores at strides that the existing model
    lacks stay zero.

    Raises:
        FullconvError: the backbones differ.
    """
    network = model.network
    fresh = network.state_dict()
    shared = {
        key: value
        for key, value in earlier.network.state_dict().items()
        if key in fresh and value.shape == fresh[key].shape
    }
    missing = [key for key in fresh if key.startswith(_BACKBONE) and key not in shared]
    if missing:
        values = {"network": earlier.network.name, "backbone": earlier.card.name}
        raise FullconvError(
            msg(
                "the model to start from is an {network} on {backbone}, whose weights differ: "
                "{count} are missing or have another shape, such as {example}.",
                **values,
                count=len(missing),
                example=missing[0],
            ),
            f"--backbone {earlier.card.source}:{earlier.card.name}",
        )
    if _class_names(model) != _class_names(earlier):
        shared = {key: value for key, value in shared.items() if key.startswith(_BACKBONE)}
    elif network.stride != earlier.network.stride:  # the last filter depends on the stride
        shared = {key: value for key, value in shared.items() if not key.startswith(_LAST_STEP)}
    network.load_state_dict({**fresh, **shared})
    scores = [k.split(".")[1] for k in shared if k.startswith(_SCORE) and k.endswith(".weight")]
    if scores:
        return msg("its backbone and its scores at {levels}", levels=", ".join(scores))
    return msg("its backbone; the scores start untrained because the classes differ")


def require_backbone(name: str) -> None:
    """Raise a FullconvError if timm or torchvision has no network of this name, or of that in a
    backbone card (*.toml). Nothing is built or downloaded; other sources are checked when built."""
    card = read_card(name) if name.endswith(".toml") else None
    source, _, network = (f"{card.source}:{card.name}" if card else name).rpartition(":")
    source = source or "timm"
    if source == "timm":
        import timm

        exists, names = timm.is_model(network), timm.list_models()
    elif source == "torchvision":
        import torchvision

        names = torchvision.models.list_models(module=torchvision.models)
        exists = network in names
    else:
        return
    if exists:
        return
    near = get_close_matches(network, names, 4)
    values = {"source": source, "name": network, "nearest": ", ".join(near)}
    message = msg("{source} has no network {name!r}.", **values)
    if near:
        message = msg("{source} has no network {name!r}; the nearest are {nearest}.", **values)
    best = near[0] if near else "resnet18"
    prefix = "" if source == "timm" else f"{source}:"
    hint = msg('name = "{best}"   # in {card}', best=best, card=name)
    raise FullconvError(message, hint if card else f"--backbone {prefix}{best}")


def _dataset_facts(report: CheckReport) -> dict[str, Any]:
    """Return what a model notes about its dataset; sizes are (height, width) in pixels."""
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
        smallest, largest = (choose(sizes, key=math.prod) for choose in (min, max))
        facts["sizes"] = {
            "smallest": list(smallest),
            "largest": list(largest),
            "commonest": list(sizes.most_common(1)[0][0]),
        }
    return facts


def _require_same_inputs(earlier: Model, inputs: Sequence[ExtraInput], fusion: str) -> None:
    """Raise a FullconvError unless a model with extra inputs gets the same ones again."""
    before = [(extra.name, extra.channels) for extra in earlier.extra_inputs]
    now = [(extra.name, extra.channels) for extra in inputs]
    if not before or (before == now and earlier.fusion == fusion):
        return
    names = [name for name, _ in before]
    raise FullconvError(
        msg(
            "the model to start from takes the extra inputs {names}, by {fusion} fusion; this "
            "run would not.",
            names=", ".join(names),
            fusion=earlier.fusion,
        ),
        f"--extra-inputs {','.join(names)} --fusion {earlier.fusion}",
    )


def _class_names(model: Model) -> list[tuple[str, ...]]:
    return [labels.names for labels in model.tables]
