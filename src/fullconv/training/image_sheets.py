"""The album of a training: what the network sees, and what it makes of the same few images.

    images/batches.png     the first crops: augmented, normalised, put back to colours; their labels
    images/epoch_0005.png  validation images: photo, truth, prediction

Shapes: H, W image or crop · C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fullconv.core.labels import RGB, Labels
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.models.model import Model
from fullconv.visualization import overlay as draw
from fullconv.visualization.contact_sheet import contact_sheet, subsample

BATCHES = "batches.png"
_CELL = 320  # pixels of an image's longer side on a sheet, at most
_OUTSIDE = "outside the image (striped)"
_STRIPES: tuple[RGB, RGB] = ((255, 255, 255), (196, 202, 208))
_SPREAD = 2  # standard deviations of a further input, to each side, from black to white

ImageArray = NDArray[np.uint8]  # (H, W, 3) RGB
Ids = NDArray[Any]  # (H, W)


@dataclass(frozen=True)
class Crop:
    """What the network gets of an image in training.

    Args:
        name: of the image.
        seen: (C, H, W) as the network sees it, put back to colours: see `as_seen`.
        targets: (H, W) class ids of each head.
        outside: (H, W) bool, where the crop is beyond the image.
    """

    name: str
    seen: list[ImageArray]
    targets: list[Ids]
    outside: NDArray[np.bool_]


@dataclass(frozen=True)
class Labelled:
    """A validation image.

    Args:
        name: of the image.
        photo: (H, W, 3) uint8 RGB.
        truths, found: (H, W) class ids of each head.
    """

    name: str
    photo: ImageArray
    truths: list[Ids]
    found: list[Ids]


def as_seen(model: Model, images: Tensor) -> list[list[ImageArray]]:
    """What goes into the network, put back to colours: of each image one (H, W, 3), and one for
    each further input, from two standard deviations below its mean (black) to two above (white).

    Args:
        images: (N, C, H, W) as a batch holds them.
    """
    inputs = model.normalise(images)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.card.mean, model.card.std))
    planes = [inputs[:, :3] * std + mean]
    first = 3
    for one in model.extra_inputs:
        values = inputs[:, first : first + one.channels] / (2 * _SPREAD) + 0.5
        planes.append(values.expand(-1, 3, -1, -1))
        first += one.channels
    shown = [(p.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy() for p in planes]
    return [[of[n] for of in shown] for n in range(len(images))]


def batches_sheet(
    crops: Sequence[Crop],
    tables: Sequence[tuple[str, Labels]],
    inputs: Sequence[ExtraInput],
    ignore_index: int,
    how: str,
) -> Image.Image:
    """The sheet of the first batches.

    Args:
        crops: in the order of the training.
        tables: of each head, its name ("" of a single one) and classes.
        inputs: what the network takes beside images.
        ignore_index: in the targets of all heads.
        how: the crops came about, in words.
    """
    rows, captions = [], []
    for crop in crops:
        maps = [
            _colors(ids, labels, ignore_index)
            for ids, (_, labels) in zip(crop.targets, tables, strict=True)
        ]
        for one in maps:
            one[crop.outside] = _striped(one.shape[:2])[crop.outside]
        rows.append([subsample(image) for image in (*crop.seen, *maps)])
        captions.append(crop.name)
    titles = ["as the network sees it", *(one.name for one in inputs)]
    titles += [f"labels: {name}".removesuffix(": ") for name, _ in tables]
    shown = [[ids[~crop.outside] for ids in crop.targets] for crop in crops]
    key = _legend(shown, tables, ignore_index)
    if any(crop.outside.any() for crop in crops):
        key[_OUTSIDE] = _STRIPES[1]
    return contact_sheet(
        rows, titles, captions, legend=key, heading=how, longest_side=_CELL, two_blocks=True
    )


def epoch_sheet(
    images: Sequence[Labelled],
    tables: Sequence[tuple[str, Labels]],
    ignore_index: int,
    heading: str,
) -> Image.Image:
    """The sheet of an epoch. See `batches_sheet`; the caption of each image says which share of
    its labelled pixels is right."""
    rows, captions = [], []
    for one in images:
        row, right = [one.photo], []
        for truth, found, (name, labels) in zip(one.truths, one.found, tables, strict=True):
            row += [_colors(ids, labels, ignore_index) for ids in (truth, found)]
            counted = truth != ignore_index
            if counted.any():
                share = float((truth == found)[counted].mean())
                right.append(f"{name} {share:.1%} right".strip().replace("%", " %"))
        rows.append(row)
        captions.append(": ".join([one.name, *[", ".join(right)] * bool(right)]))
    titles = ["photo"]
    for name, _ in tables:
        titles += [f"{what}: {name}".removesuffix(": ") for what in ("truth", "prediction")]
    key = _legend([one.truths for one in images], tables, ignore_index)
    key |= _legend([one.found for one in images], tables, ignore_index)
    return contact_sheet(
        rows, titles, captions, legend=key, heading=heading, longest_side=_CELL, two_blocks=True
    )


def save(sheet: Image.Image, path: Path) -> None:
    """As PNG. It is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}")
    sheet.save(fresh, "PNG", compress_level=4)  # half the time of 6, and little larger
    fresh.replace(path)


def _colors(ids: Ids, labels: Labels, ignore_index: int) -> ImageArray:
    """(H, W) of a head among several, which has the ignored id of all, in its colours."""
    own = np.where(ids == ignore_index, labels.ignore_index, ids.astype(np.int64))
    return draw.colorize(own, labels)


def _striped(size: tuple[int, ...]) -> ImageArray:
    """(H, W, 3)"""
    width = max(3, round(max(size) / 50))
    rows, columns = np.ogrid[: size[0], : size[1]]
    stripes = np.array(_STRIPES, np.uint8)
    return stripes[(rows + columns) // width % 2]


def _legend(
    shown: Iterable[Sequence[Ids]], tables: Sequence[tuple[str, Labels]], ignore_index: int
) -> dict[str, RGB]:
    """Name -> colour of the classes in some maps, in the order of the tables."""
    present: list[set[int]] = [set() for _ in tables]
    for maps in shown:
        for ids, found in zip(maps, present, strict=True):
            found.update(np.unique(ids).tolist())
    key: dict[str, RGB] = {}
    for found, (name, labels) in zip(present, tables, strict=True):
        before = f"{name}: " if name else ""
        for k, (word, color) in enumerate(zip(labels.names, labels.colors, strict=True)):
            if k in found:
                key[f"{before}{word}"] = color
    if any(ignore_index in found for found in present):
        key["(ignored)"] = draw.NEUTRAL
    return key
