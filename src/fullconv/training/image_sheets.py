"""Contact sheets of a training run: the network's input, and its predictions on a few images.

    images/batches.png     the first crops: augmented, normalized, converted back to colors; labels
    images/epoch_0005.png  validation images: photo, ground truth, prediction

Shapes: H, W image or crop · C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fullconv.core.i18n import join, msg, translate
from fullconv.core.labels import RGB, Labels
from fullconv.core.text import percent
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.models.model import Model
from fullconv.visualization.contact_sheet import contact_sheet, subsample
from fullconv.visualization.overlay import NEUTRAL, Ids, ImageArray, colorize

_SHEET: dict[str, Any] = {"longest_side": 320, "two_blocks": True}  # pixels of an image
_STRIPES: tuple[RGB, RGB] = ((255, 255, 255), (196, 202, 208))
_DEVIATIONS = 2  # of an extra input, to each side of its mean, from black to white

Heads = Sequence[tuple[str, Labels]]  # name ("" if there is one head) and classes


@dataclass(frozen=True)
class Crop:
    """A training crop as the network receives it."""

    name: str
    inputs: list[ImageArray]  # (H, W, 3) each; see `network_inputs`
    targets: list[Ids]  # (H, W) of each head
    outside: NDArray[np.bool_]  # (H, W), true where the crop extends beyond the image


@dataclass(frozen=True)
class ValidationImage:
    """A validation image with ground truth and prediction of each head."""

    name: str
    photo: ImageArray
    targets: list[Ids]
    predictions: list[Ids]


def network_inputs(model: Model, image: Tensor) -> list[ImageArray]:
    """Return what the network sees of an image (C, H, W), converted back to colors: (H, W, 3), and
    one more for each extra input, from two standard deviations below its mean (black) to two above
    (white)."""
    inputs = model.normalize(image[None])[0]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.card.mean, model.card.std))
    images, first = [inputs[:3] * std + mean], 3
    for extra in model.extra_inputs:
        channels = inputs[first : first + extra.channels]
        images.append((channels / (2 * _DEVIATIONS) + 0.5).expand(3, -1, -1))
        first += extra.channels
    return [(i.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy() for i in images]


def batches_sheet(
    crops: Sequence[Crop],
    heads: Heads,
    extra_inputs: Sequence[ExtraInput],
    ignore_index: int,
    heading: str,
) -> Image.Image:
    """Draw the first training crops with the labels of each head; all share one ignored id."""
    rows = []
    for crop in crops:
        height, width = crop.outside.shape
        y, x = np.ogrid[:height, :width]
        stripes = (y + x) // max(3, round(max(height, width) / 50)) % 2
        striped = np.array(_STRIPES, np.uint8)[stripes]
        images = list(crop.inputs)
        for ids, (_, labels) in zip(crop.targets, heads, strict=True):
            colors = _colorize(ids, labels, ignore_index)
            colors[crop.outside] = striped[crop.outside]
            images.append(colors)
        rows.append([subsample(image) for image in images])
    titles = [msg("network input"), *(extra.name for extra in extra_inputs)]
    titles += [msg("labels: {head}", head=name) if name else msg("labels") for name, _ in heads]
    inside = [[ids[~crop.outside] for ids in crop.targets] for crop in crops]
    legend = _legend(inside, heads, ignore_index)
    if any(crop.outside.any() for crop in crops):
        legend[translate(msg("outside the image (striped)"))] = _STRIPES[1]
    names = [crop.name for crop in crops]
    return contact_sheet(rows, titles, names, legend=legend, heading=heading, **_SHEET)


def epoch_sheet(
    images: Sequence[ValidationImage], heads: Heads, ignore_index: int, heading: str
) -> Image.Image:
    """Draw validation images with ground truth and prediction of each head; the caption has the
    share of labeled pixels that are right."""
    rows, captions = [], []
    for image in images:
        row, accuracies = [image.photo], []
        maps = zip(image.targets, image.predictions, heads, strict=True)
        for truth, predicted, (head, labels) in maps:
            row += [_colorize(ids, labels, ignore_index) for ids in (truth, predicted)]
            labeled = truth != ignore_index
            if labeled.any():
                share = percent(float((truth == predicted)[labeled].mean()))
                if head:
                    accuracies.append(msg("{head} {share} right", head=head, share=share))
                else:
                    accuracies.append(msg("{share} right", share=share))
        rows.append(row)
        parts = [image.name, join(accuracies, ", ")] if accuracies else [image.name]
        captions.append(join(parts, ": "))
    titles: list[str] = [msg("photo")]
    for head, _ in heads:
        if head:
            titles += [msg("ground truth: {head}", head=head), msg("prediction: {head}", head=head)]
        else:
            titles += [msg("ground truth"), msg("prediction")]
    maps_of_images = [maps for image in images for maps in (image.targets, image.predictions)]
    legend = _legend(maps_of_images, heads, ignore_index)
    return contact_sheet(rows, titles, captions, legend=legend, heading=heading, **_SHEET)


def _colorize(ids: Ids, labels: Labels, ignore_index: int) -> ImageArray:
    """Color the ids of one head, which have the ignored id that all heads share."""
    return colorize(np.where(ids == ignore_index, labels.ignore_index, ids.astype(int)), labels)


def _legend(maps: Iterable[Sequence[Ids]], heads: Heads, ignore_index: int) -> dict[str, RGB]:
    """Return the color of each class that occurs, by name."""
    present: list[set[int]] = [set() for _ in heads]
    for ids_of_heads in maps:
        for ids, values in zip(ids_of_heads, present, strict=True):
            values.update(np.unique(ids).tolist())
    legend: dict[str, RGB] = {}
    for values, (head, labels) in zip(present, heads, strict=True):
        for k, (name, color) in enumerate(zip(labels.names, labels.colors, strict=True)):
            if k in values:
                legend[f"{head}: {name}" if head else name] = color
    if any(ignore_index in values for values in present):
        legend[translate(msg("(ignored)"))] = NEUTRAL
    return legend
