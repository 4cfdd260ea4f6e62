"""Resolve the training options that are left open: crop, scale, class weights, learning rates.

Each value that the dataset decides comes with its reason and the option that overrides it. The
values depend on image sizes and class frequencies only, so the same data gives the same settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.hardware import cpu_count
from fullconv.core.i18n import msg
from fullconv.core.settings import WHOLE, Settings
from fullconv.core.text import percent
from fullconv.data.check.check import CheckReport
from fullconv.data.check.iou_ceiling import estimate_on_sample
from fullconv.models.hub import is_hub_name

LONGEST = 513  # pixels of a crop's side
# If one class covers more than this share, predicting nothing else is a comfortable minimum.
DOMINANT = 0.9
# Halving an image costs the labels what doubling the stride costs. If that lowers the achievable
# mean IoU by more than this, images are not made smaller.
FINE = 0.15


def resolve_settings(
    settings: Settings, reports: Sequence[CheckReport] = (), *, own_backbone: bool = False
) -> tuple[Settings, list[str]]:
    """Resolve every option that is None or "auto"; also return a reason for what the data decides.

    Args:
        reports: of the dataset and of the masks of additional heads. Without them, crop, scale and
            class weights stay open.
        own_backbone: the backbone is a module of the user's, without pretrained weights.

    Raises:
        FullconvError: whole images of different sizes in one batch.
    """
    reasons: list[str] = []
    if reports:
        settings, reasons = _resolve_from_data(settings, reports)
    card = str(settings.backbone).endswith(".toml")  # names its own weights
    warm = bool(settings.init_from) or (not own_backbone and (settings.pretrained or card))
    adamw = settings.optimizer == "adamw"
    # SGD moves by lr / (1 - momentum) in the long run: this ratio is the same for any momentum.
    lr = settings.lr or (0.002 if adamw else round(0.2 * (1 - settings.momentum), 12))
    decay, workers, every = settings.weight_decay, settings.workers, settings.log_images_every
    init_from = settings.init_from
    if init_from and not init_from.startswith("torchvision:") and not is_hub_name(init_from):
        init_from = str(Path(init_from).resolve())  # names of published models stay as they are
    resolved = replace(
        settings,
        pretrained=settings.pretrained and not (card or own_backbone or settings.init_from),
        backbone=str(Path(settings.backbone).resolve()) if card else settings.backbone,
        init_from=init_from,
        lr=lr,
        backbone_lr=settings.backbone_lr or (lr / 4 if warm else lr),
        weight_decay=(0.02 if adamw else 0.0005) if decay is None else decay,
        workers=min(4, cpu_count()) if workers is None else workers,
        log_images_every=max(1, round(settings.epochs / 10)) if every is None else every,
    )
    return resolved, reasons


def _resolve_from_data(
    settings: Settings, reports: Sequence[CheckReport]
) -> tuple[Settings, list[str]]:
    report = reports[0]
    batch_size = settings.batch_size
    crop, scale, class_weights = settings.crop, settings.scale, settings.class_weights
    reasons: list[str] = []
    if crop is None:
        crop, reason = _choose_crop(report)
        reasons.append(reason)

    # Whole images keep their scale, and form a batch only if their sizes are equal.
    if crop == WHOLE:
        scale = scale or (1.0, 1.0)
        if batch_size > 1 and len(report.sizes) > 1:
            raise FullconvError(
                msg(
                    "whole images (crop 0 0) of {count} different sizes cannot form a batch of "
                    "{batch_size}.",
                    count=len(report.sizes),
                    batch_size=batch_size,
                ),
                f"--batch-size 1 --grad-accumulation {batch_size}",
            )
    if scale is None:
        scale, reason = _choose_scale(report, settings.stride)
        values: dict[str, Any] = {"low": scale[0], "high": scale[1], "reason": reason}
        reasons.append(msg("scale {low:g} to {high:g}: {reason} (--scale LOW HIGH)", **values))

    # One head with a dominant class is enough to balance the loss of all.
    if class_weights == "auto":
        choices = [_choose_class_weights(head) for head in reports]
        balanced = [choice for choice in choices if choice[0] == "balanced"]
        class_weights, reason = (balanced or choices)[0]
        values = {"kind": class_weights, "other": "none" if balanced else "balanced"}
        values["reason"] = reason
        reasons.append(msg("class weights {kind}: {reason} (--class-weights {other})", **values))
    settings = replace(settings, crop=crop, scale=scale, class_weights=class_weights)

    # The learning rate of a loss that is summed over pixels (FCN's solvers: 1e-10), for our mean
    # loss, which moves weights as far at one that is larger by the number of pixels.
    if settings.sum_loss_lr is not None:
        labeled, ignored = sum(report.class_pixels["train"]), report.ignored_pixels["train"]
        if crop == WHOLE:
            pixels = labeled / max(len(report.dataset.splits["train"]), 1)
        else:
            pixels = crop[0] * crop[1] * labeled / max(labeled + ignored, 1)
        step_pixels = max(1.0, pixels * batch_size)
        given = 0.0005 if settings.weight_decay is None else settings.weight_decay
        lr, decay = settings.sum_loss_lr * step_pixels, given / step_pixels
        values = {"lr": lr, "summed": settings.sum_loss_lr, "pixels": pixels}
        values |= {"batch_size": batch_size, "decay": decay, "given": given}
        reasons.append(
            msg(
                "learning rate {lr:.3g} for the mean loss: {summed:g} for the summed loss, times "
                "{pixels:,.0f} labeled pixels per image, times a batch size of {batch_size}; "
                "weight decay {decay:.3g}: {given:g} divided by the same number (--lr, "
                "--weight-decay)",
                **values,
            )
        )
        settings = replace(settings, lr=lr, backbone_lr=lr, weight_decay=decay, sum_loss_lr=None)
    return settings, reasons


def _choose_crop(report: CheckReport) -> tuple[tuple[int, int], str]:
    """Return the median image size, at most `LONGEST`, rounded down to 32k + 1: the size that a
    stride-32 pyramid covers without padding."""
    median = []
    for axis in (0, 1):
        lengths = sorted(size[axis] for size in report.sizes.elements())
        median.append(lengths[len(lengths) // 2])
    height, width = (max(33, (min(LONGEST, side) - 1) // 32 * 32 + 1) for side in median)
    values = {"height": height, "width": width, "rows": median[0], "columns": median[1]}
    if max(median) > LONGEST:
        return (height, width), msg(
            "crop {height} x {width}: the median image size ({rows} x {columns}), at most "
            "{longest}, rounded down to 32k + 1 so that feature maps align exactly "
            "(--crop HEIGHT WIDTH)",
            longest=LONGEST,
            **values,
        )
    return (height, width), msg(
        "crop {height} x {width}: the median image size ({rows} x {columns}), rounded down to "
        "32k + 1 so that feature maps align exactly (--crop HEIGHT WIDTH)",
        **values,
    )


def _choose_scale(report: CheckReport, stride: int) -> tuple[tuple[float, float], str]:
    """Return how much images may be resized. Enlarging to twice the size never harms labels."""
    if stride > 16:  # coarse scores have no fine detail to lose
        return (0.5, 2.0), msg("objects appear near and far")
    bound = estimate_on_sample(report.dataset)
    if bound is None:
        return (0.5, 2.0), msg("no pixel is labeled")
    full, half = bound.mean_iou[stride], bound.mean_iou[2 * stride]
    values = {"half": percent(half), "full": percent(full)}
    if full - half > FINE:
        return (1.0, 2.0), msg(
            "the masks allow a mean IoU of {half} at half size and {full} at full size, so images "
            "are not made smaller",
            **values,
        )
    return (0.5, 2.0), msg(
        "the masks allow a mean IoU of {half} at half size and {full} at full size", **values
    )


def _choose_class_weights(report: CheckReport) -> tuple[str, str]:
    pixels = report.class_pixels.get("train", [])
    total = sum(pixels)
    if not total:
        return "none", msg("no pixel is labeled")
    most = max(range(len(pixels)), key=pixels.__getitem__)
    share, name = pixels[most] / total, report.dataset.labels.names[most]
    values = {"name": name, "share": percent(share)}
    if share > DOMINANT and sum(count > 0 for count in pixels) > 1:
        return "balanced", msg("{name} covers {share} of the labeled pixels", **values)
    return "none", msg(
        "{name} covers {share} of the labeled pixels, so no class dominates", **values
    )


def inverse_sqrt_frequency(class_pixels: Sequence[int]) -> list[float]:
    """Return the inverse square root of each class's frequency, scaled such that the mean weight
    over all pixels is 1. Classes without a pixel get weight 1."""
    total = max(sum(class_pixels), 1)
    raw = [(total / count) ** 0.5 if count else 0.0 for count in class_pixels]
    mean = sum(w * count / total for w, count in zip(raw, class_pixels, strict=True)) or 1.0
    return [w / mean if w else 1.0 for w in raw]
