"""What a training starts from: a classifier's weights, or a model that is there.

An FCN-16s may start from an FCN-32s, new classes from old ones. Long et al. 2015, section 4.3: each
finer network starts from the coarser one. Its new scores are zero, so that at first it says what
the coarser one said.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch

import fullconv
from fullconv.data.check import CheckReport
from fullconv.data.layouts import Dataset
from fullconv.engine import Engine, disagreement
from fullconv.errors import FullconvError
from fullconv.finish import some_pictures
from fullconv.labels import Labels
from fullconv.model import Model, load_model
from fullconv.network.backbone import build
from fullconv.network.fcn import FCN
from fullconv.settings import Settings

_BACKBONE, _SCORE, _LAST_STEP = "backbone.", "score.", "final_upsampling."


def fresh_model(report: CheckReport, settings: Settings, module: Any, *, quiet: bool) -> Model:
    """The model that a training begins with.

    Args:
        report: of the data set.
        settings: decided.
        module: a backbone of one's own, or None.
        quiet: do not say what is taken over from a model to start from.
    """
    torch.manual_seed(settings.seed)
    named, earlier = _begun_with(settings, module)
    backbone = build(named, stride=settings.stride, pretrained=settings.pretrained)
    classes = report.dataset.labels
    network = FCN(backbone, len(classes), stride=settings.stride, upsampling=settings.upsampling)
    card = backbone.card
    if settings.pretrained and not card.pretrained_on:
        card = replace(card, pretrained_on=f"{card.source}'s default weights")
    settings_kept = {k: v for k, v in settings.to_dict().items() if k not in ("backbone", "start")}
    facts: dict[str, Any] = {
        "data_fingerprint": report.fingerprint,
        "mask_values": [meaning.to_dict() for meaning in report.meanings],
        "fullconv": fullconv.__version__,
        "settings": settings_kept,
    }
    network = network.to(memory_format=torch.channels_last)
    model = Model(network, classes, card, training=facts)
    if earlier:
        said = take_over(network, classes, earlier)
        if earlier.labels.names == classes.names:
            facts["unchanged_at_start"] = _unchanged(model, earlier, report.dataset)
            said += f"; {facts['unchanged_at_start']:.2%} of the pixels keep their label"
        if not quiet:
            print(f"starts from {settings.start}: {said}", file=sys.stderr)
    return model


def strides_of(settings: Settings, module: Any) -> list[int]:
    """The strides of the backbone down to the one that is asked for, coarsest first."""
    named, _ = _begun_with(settings, module)
    return [int(grid.stride) for grid in reversed(build(named, stride=settings.stride).grids)]


def _begun_with(settings: Settings, module: Any) -> tuple[Any, Model | None]:
    """What the backbone is built from, and the model to start from."""
    earlier = load_model(settings.start, backbone=module) if settings.start else None
    named = earlier.card if earlier else settings.backbone
    return (module if module is not None else named), earlier


def _unchanged(model: Model, earlier: Model, dataset: Dataset) -> float:
    """The share of pixels (fraction) of some pictures that an untrained successor labels alike."""
    device = torch.device("cpu")
    one, other = (Engine(m, device=device, precision="float32") for m in (model, earlier))
    return 1 - disagreement(one, other, some_pictures(dataset, dataset.held_out))


def take_over(network: FCN, labels: Labels, earlier: Model) -> str:
    """Copies the backbone of an earlier model into a fresh network, and the scores where the
    classes are the same.

    Args:
        network: on the same backbone. Its scores at strides that the earlier one has not stay as
            they are, zero.
        labels: its classes.

    Returns:
        What was taken over, in words.

    Raises:
        FullconvError: the backbones differ.
    """
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
    if labels.names != earlier.labels.names:
        known = {key: value for key, value in known.items() if key.startswith(_BACKBONE)}
    elif network.stride != earlier.network.stride:  # to the pixels: another filter per stride
        known = {key: value for key, value in known.items() if not key.startswith(_LAST_STEP)}
    network.load_state_dict({**fresh, **known})
    scores = [k.split(".")[1] for k in known if k.startswith(_SCORE) and k.endswith(".weight")]
    if scores:
        return f"its backbone and its scores at {', '.join(scores)}"
    return "its backbone; the scores start afresh, for other classes"
