"""What a training leaves open, decided from the data: crop, scale, class weights, rates.

Rates are for the loss that is averaged over the labelled pixels. The original networks were trained
with a sum in its place, whose rate hangs on the size of the images; it is converted here.

Each choice that depends on the data comes with its reason in words and the option that overrules
it. The same data gives the same choices: they hang on sizes and shares of pixels alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.settings import WHOLE, Settings
from fullconv.data.check.check import CheckReport
from fullconv.data.check.iou_ceiling import estimate_on_sample
from fullconv.models.hub import is_hub_name

LONGEST = 513  # pixels of a crop's side
# One class covers so much that predicting nothing else is a comfortable answer for the loss.
DOMINANT = 0.9
# What magnification 0.5 does to the labels is what twice the stride does. Where that would cost
# more of the mean IoU that can be reached at all, images are not made smaller.
FINE = 0.15

Reasons = list[str]


def resolve_settings(
    settings: Settings,
    report: CheckReport | None,
    module: Any = None,
    others: Sequence[CheckReport] = (),
) -> tuple[Settings, Reasons]:
    """Every `None` and "auto" decided, and the reasons of what the data decided.

    Args:
        settings: as given.
        report: of the data set; None leaves crop, scale and class weights at what suits any.
        module: a backbone of one's own, which starts fresh.
        others: reports of further heads, which have a say about class weights.
    """
    if report is not None:
        settings, reasons = _from_data(settings, report, others)
    else:
        reasons = []
    card_brings = str(settings.backbone).endswith(".toml")
    warm = bool(settings.init_from) or (module is None and (settings.pretrained or card_brings))
    # Of sgd the rate over 1 - momentum, by which it moves in the long run, stays the same.
    usual = 0.002 if settings.optimizer == "adamw" else round(0.2 * (1 - settings.momentum), 12)
    rate = settings.lr or usual
    decay = settings.weight_decay
    if decay is None:
        decay = 0.02 if settings.optimizer == "adamw" else 0.0005
    workers = settings.workers
    if workers is None:
        workers = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    decided = replace(
        settings,
        pretrained=settings.pretrained
        and not (card_brings or module is not None or settings.init_from),
        backbone=str(Path(settings.backbone).resolve()) if card_brings else settings.backbone,
        init_from=_resolved(settings.init_from),
        lr=rate,
        backbone_lr=settings.backbone_lr or (rate / 4 if warm else rate),
        weight_decay=decay,
        workers=workers,
        log_images_every=_images_every(settings),
    )
    return decided, reasons


def _images_every(settings: Settings) -> int:
    """Ten sheets or so show how a training goes, however long it is."""
    if settings.log_images_every is not None:
        return settings.log_images_every
    return max(1, round(settings.epochs / 10))


def mean_loss_lr(summed: float, pixels: float) -> float:
    """The rate for a loss averaged over pixels that moves weights as `summed` does for their sum.

    Args:
        summed: as published, 1e-10 for FCN-32s.
        pixels: labelled pixels of a step.

    >>> f"{mean_loss_lr(1e-10, 375 * 500):.2g}"  # an image of PASCAL VOC
    '1.9e-05'
    """
    return summed * pixels


def _resolved(start: str) -> str:
    """A path that holds from everywhere; a published model's name stays one."""
    named = not start or start.startswith("torchvision:") or is_hub_name(start)
    return start if named else str(Path(start).resolve())


def inverse_sqrt_frequency(class_pixels: list[int]) -> list[float]:
    """Inverse square root of each class's share of the pixels, scaled so that the mean weight over
    the pixels is 1; classes without a pixel weigh 1."""
    total = max(sum(class_pixels), 1)
    raw = [(total / count) ** 0.5 if count else 0.0 for count in class_pixels]
    mean = sum(w * count / total for w, count in zip(raw, class_pixels, strict=True)) or 1.0
    return [w / mean if w else 1.0 for w in raw]


def _from_data(
    settings: Settings, report: CheckReport, others: Sequence[CheckReport]
) -> tuple[Settings, Reasons]:
    reasons: Reasons = []
    if settings.crop is None:
        crop, why = _crop(report)
        settings = replace(settings, crop=crop)
        reasons.append(f"crop {crop[0]} x {crop[1]}: {why} (--crop HEIGHT WIDTH)")
    if settings.crop == WHOLE:
        settings = _whole(settings, report)
    if settings.scale is None:
        scale, why = _scale(report, settings.stride)
        settings = replace(settings, scale=scale)
        reasons.append(f"scale {scale[0]:g} to {scale[1]:g}: {why} (--scale LOW HIGH)")
    if settings.class_weights == "auto":
        found = [_weights(one) for one in (report, *others)]
        kind, why = next((one for one in found if one[0] == "balanced"), found[0])
        settings = replace(settings, class_weights=kind)
        other = "none" if kind == "balanced" else "balanced"
        reasons.append(f"class weights {kind}: {why} (--class-weights {other})")
    if settings.sum_loss_lr is not None:
        settings, why = _converted(settings, report)
        reasons.append(why)
    return settings, reasons


def _whole(settings: Settings, report: CheckReport) -> Settings:
    """Whole images make one batch where their sizes are the same, and keep their scale."""
    scale = settings.scale or (1.0, 1.0)
    if settings.batch_size > 1 and len(report.sizes) > 1:
        raise FullconvError(
            f"whole images (crop 0 0) of {len(report.sizes)} different sizes make no batch of "
            f"{settings.batch_size}.",
            f"--batch-size 1 --grad-accumulation {settings.batch_size}",
        )
    return replace(settings, scale=scale)


def _converted(settings: Settings, report: CheckReport) -> tuple[Settings, str]:
    """The rate, and the weight decay beside it, of a loss summed over pixels (FCN's solvers)."""
    assert settings.crop is not None
    assert settings.sum_loss_lr is not None
    labelled, images = sum(report.class_pixels["train"]), len(report.dataset.splits["train"])
    each = labelled / max(images, 1)
    where = "an image, on average"
    if settings.crop != WHOLE:
        share = labelled / max(labelled + report.ignored_pixels["train"], 1)
        each = settings.crop[0] * settings.crop[1] * share
        where = "a crop"
    pixels = max(1.0, each * settings.batch_size)
    rate = mean_loss_lr(settings.sum_loss_lr, pixels)
    decay = settings.weight_decay if settings.weight_decay is not None else 0.0005
    batch = f" x {settings.batch_size} images" if settings.batch_size > 1 else ""
    why = (
        f"rate {rate:.3g} of the mean loss: {settings.sum_loss_lr:g} of the summed loss x "
        f"{each:,.0f} labelled pixels of {where}{batch}; weight decay {decay / pixels:.3g}: "
        f"{decay:g} over the same (--lr, --weight-decay)"
    )
    settings = replace(
        settings, sum_loss_lr=None, lr=rate, backbone_lr=rate, weight_decay=decay / pixels
    )
    return settings, why


def _crop(report: CheckReport) -> tuple[tuple[int, int], str]:
    """The middle size of the images, at most `LONGEST`, one more than a multiple of 32: what a
    stride-32 pyramid covers without padding."""
    middle = []
    for axis in (0, 1):
        lengths = sorted(size[axis] for size in report.sizes.elements())
        middle.append(lengths[len(lengths) // 2])
    height, width = (max(33, (min(LONGEST, side) - 1) // 32 * 32 + 1) for side in middle)
    cut = f", at most {LONGEST}" if max(middle) > LONGEST else ""
    why = f"the middle size of the images is {middle[0]} x {middle[1]}{cut}; 32k + 1 has no rest"
    return (height, width), why


def _scale(report: CheckReport, stride: int) -> tuple[tuple[float, float], str]:
    """How small images may be made; twice as large is no risk for the labels."""
    if stride > 16:  # there is nothing fine that so coarse scores could lose
        return (0.5, 2.0), "photos show things near and far"
    found = estimate_on_sample(report.dataset)
    if found is None:
        return (0.5, 2.0), "there are no labels to go by"
    here, halved = found.mean_iou[stride], found.mean_iou[2 * stride]
    reach = f"the labels allow a mean IoU of {halved:.1%} at half size, {here:.1%} as they are"
    if here - halved > FINE:
        return (1.0, 2.0), f"{reach}, so nothing is made smaller"
    return (0.5, 2.0), reach


def _weights(report: CheckReport) -> tuple[str, str]:
    pixels = report.class_pixels.get("train", [])
    total = sum(pixels)
    if not total:
        return "none", "no pixel is labelled"
    most = max(range(len(pixels)), key=pixels.__getitem__)
    share = pixels[most] / total
    words = f"{report.dataset.labels.names[most]} covers {share:.1%} of the labelled pixels"
    if share > DOMINANT and sum(count > 0 for count in pixels) > 1:
        return "balanced", words
    return "none", f"{words}, no class nearly everything"
