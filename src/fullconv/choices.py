"""What a training leaves open, decided from the data: crop, scale, class weights, rates.

Each choice that depends on the data comes with its reason in words and the option that overrules
it. The same data gives the same choices: they hang on sizes and shares of pixels alone.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from fullconv.data.ceiling import sampled
from fullconv.data.check import CheckReport
from fullconv.settings import Settings

LONGEST = 513  # pixels of a crop's side
# One class covers so much that predicting nothing else is a comfortable answer for the loss.
DOMINANT = 0.9
# What magnification 0.5 does to the labels is what twice the stride does. Where that would cost
# more of the mean IoU that can be reached at all, pictures are not made smaller.
FINE = 0.15

Reasons = list[str]


def decide(
    settings: Settings, report: CheckReport | None, module: Any = None
) -> tuple[Settings, Reasons]:
    """Every `None` and "auto" decided, and the reasons of what the data decided.

    Args:
        settings: as given.
        report: of the data set; None leaves crop, scale and class weights at what suits any.
        module: a backbone of one's own, which starts fresh.
    """
    card_brings = str(settings.backbone).endswith(".toml")
    warm = module is None and (settings.pretrained or card_brings)
    rate = settings.rate or (0.002 if settings.optimizer == "adamw" else 0.02)
    decay = settings.weight_decay
    if decay is None:
        decay = 0.02 if settings.optimizer == "adamw" else 0.0005
    workers = settings.workers
    if workers is None:
        workers = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    settings = replace(
        settings,
        pretrained=settings.pretrained and not card_brings and module is None,
        backbone=str(Path(settings.backbone).resolve()) if card_brings else settings.backbone,
        rate=rate,
        backbone_rate=settings.backbone_rate or (rate / 4 if warm else rate),
        weight_decay=decay,
        workers=workers,
    )
    return _from_data(settings, report) if report is not None else (settings, [])


def balanced_weights(class_pixels: list[int]) -> list[float]:
    """Inverse square root of each class's share of the pixels, scaled so that the mean weight over
    the pixels is 1; classes without a pixel weigh 1."""
    total = max(sum(class_pixels), 1)
    raw = [(total / count) ** 0.5 if count else 0.0 for count in class_pixels]
    mean = sum(w * count / total for w, count in zip(raw, class_pixels, strict=True)) or 1.0
    return [w / mean if w else 1.0 for w in raw]


def _from_data(settings: Settings, report: CheckReport) -> tuple[Settings, Reasons]:
    reasons: Reasons = []
    if settings.crop is None:
        crop, why = _crop(report)
        settings = replace(settings, crop=crop)
        reasons.append(f"crop {crop[0]} x {crop[1]}: {why} (--crop HEIGHT WIDTH)")
    if settings.scale is None:
        scale, why = _scale(report, settings.stride)
        settings = replace(settings, scale=scale)
        reasons.append(f"scale {scale[0]:g} to {scale[1]:g}: {why} (--scale LOW HIGH)")
    if settings.class_weights == "auto":
        kind, why = _weights(report)
        settings = replace(settings, class_weights=kind)
        other = "none" if kind == "balanced" else "balanced"
        reasons.append(f"class weights {kind}: {why} (--class-weights {other})")
    return settings, reasons


def _crop(report: CheckReport) -> tuple[tuple[int, int], str]:
    """The middle size of the pictures, at most `LONGEST`, one more than a multiple of 32: what a
    stride-32 pyramid covers without padding."""
    middle = []
    for axis in (0, 1):
        lengths = sorted(size[axis] for size in report.sizes.elements())
        middle.append(lengths[len(lengths) // 2])
    height, width = (max(33, (min(LONGEST, side) - 1) // 32 * 32 + 1) for side in middle)
    cut = f", at most {LONGEST}" if max(middle) > LONGEST else ""
    why = f"the middle size of the pictures is {middle[0]} x {middle[1]}{cut}; 32k + 1 has no rest"
    return (height, width), why


def _scale(report: CheckReport, stride: int) -> tuple[tuple[float, float], str]:
    """How small pictures may be made; twice as large is no risk for the labels."""
    if stride > 16:  # there is nothing fine that so coarse scores could lose
        return (0.5, 2.0), "photos show things near and far"
    found = sampled(report.dataset)
    if found is None:
        return (0.5, 2.0), "there are no labels to go by"
    here, halved = found.mean_iou[stride], found.mean_iou[2 * stride]
    reach = f"the labels allow a mean IoU of {halved:.2f} at half size, {here:.2f} as they are"
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
