"""Class ids as colors, alone or over the image, with a legend; error maps.

Images are (H, W, 3) uint8 RGB arrays; ids, ground truth and prediction are (H, W) arrays of class
ids and the ignore index. All functions return new arrays and need arguments of one size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import Message, msg
from fullconv.core.labels import IGNORE, RGB, Labels
from fullconv.core.text import percent, truncated_list
from fullconv.visualization.legend import ImageArray, draw_legend

Ids = NDArray[Any]  # (H, W) integers

NEUTRAL: RGB = (224, 224, 192)  # ignored pixels, as in the PASCAL VOC palette
RIGHT: RGB = (52, 58, 64)  # in an error map
WRONG: RGB = (235, 52, 52)
IGNORED: RGB = (165, 165, 165)

MIN_WIDTH = 240  # pixels; narrower images are enlarged for display
_DIM = 0.45  # brightness of the image in an error map where the prediction is right
_LISTED_IDS = 8  # that an error message spells out


def colorize(ids: Ids, labels: Labels) -> ImageArray:
    """Return the class colors, (H, W, 3); ignored pixels are `NEUTRAL`.

    Raises:
        FullconvError: the ids are no (H, W) integers, or some belong to no class.
    """
    return _color_rows(_table_rows(ids, labels), labels)


def overlay(image: ImageArray, ids: Ids, labels: Labels, *, outline: bool = True) -> ImageArray:
    """Blend the class colors over an image: the mean of both, rounded half up.

    Ignored pixels and the classes of `Labels.transparent_ids` keep the image. With `outline`, the
    border between two classes is drawn in the full color of the class above or left of it, one
    pixel wide per 500 pixels of the short side. Next to an unpainted class it is drawn on all
    sides, in the color of the other class.

    Raises:
        FullconvError: no RGB image, ids without a class, or different sizes.
    """
    check_image(image)
    _check_size(msg("the image"), image, msg("the ids"), ids)
    return _blend(image, ids, colorize(ids, labels), labels, outline)


def _blend(
    image: ImageArray, ids: Ids, colored: ImageArray, labels: Labels, outline: bool
) -> ImageArray:
    ignored = ids == labels.ignore_index
    bare = np.zeros(ids.shape, dtype=bool)
    for k in labels.transparent_ids:
        bare |= ids == k
    # a + b = 2 (a | b) - (a ^ b): the mean without a wider type.
    blended = (image | colored) - ((image ^ colored) >> 1)
    _copy_where(blended, image, ignored | bare)
    if outline:
        width = max(1, round(min(ids.shape) / 500))
        border = np.zeros(ids.shape, dtype=bool)  # within `width` above or left of another id
        for step in range(1, width + 1):
            border[:-step] |= ids[:-step] != ids[step:]
            border[:, :-step] |= ids[:, :-step] != ids[:, step:]
        if labels.transparent_ids:
            border = border & ~bare | outer_border(bare, width)
        _copy_where(blended, colored, border & ~ignored)
    return blended


def outer_border(region: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the pixels outside a region, (H, W), that are within `width` pixels above, below, left
    or right of it."""
    near = np.zeros_like(region)
    for step in range(1, width + 1):
        for source, target in ((region, near), (region.T, near.T)):
            target[step:] |= source[:-step]
            target[:-step] |= source[step:]
    return near & ~region


def area(ids: Ids, labels: Labels) -> dict[str, float]:
    """Return the share of each class that occurs, largest first; 'ignore' counts.

    >>> area(np.array([[0, 1, 1, 255]]), Labels(("sky", "road")))
    {'road': 0.5, 'sky': 0.25, 'ignore': 0.25}
    """
    return _shares(_table_rows(ids, labels), labels)


def legend(
    labels: Labels,
    ids: Ids | None = None,
    *,
    width: int = 480,
    font_size: int = 15,
    over_image: bool = False,
) -> ImageArray:
    """Draw a legend on a white strip, `width` pixels wide or as wide as its longest entry.

    Args:
        labels: the classes, listed in their order.
        ids: if given, only classes that occur are listed, largest first, with their share.
        over_image: leave the swatches of classes empty that an overlay does not paint.

    Raises:
        FullconvError: a width or font size below 1, or ids without a class.
    """
    if width < 1 or font_size < 1:
        raise FullconvError(
            msg(
                "a legend {width} pixels wide in a font of {size} pixels; expected 1 or more.",
                width=width,
                size=font_size,
            ),
            "legend(labels, width=480, font_size=15)",
        )
    shares = dict.fromkeys(labels.names) if ids is None else area(ids, labels)
    entries = [(name, "" if share is None else percent(share)) for name, share in shares.items()]
    colors = overlay_colors(labels) if over_image else class_colors(labels)
    return draw_legend(entries, colors, width, font_size)


def class_colors(labels: Labels) -> dict[str, RGB]:
    """Return the color of each class and of ignored pixels, by name."""
    return {**dict(zip(labels.names, labels.colors, strict=True)), IGNORE: NEUTRAL}


def overlay_colors(labels: Labels) -> Mapping[str, RGB | None]:
    """Return the color of each class in an overlay, by name; None where the image stays visible."""
    bare = {labels.names[k] for k in labels.transparent_ids} | {IGNORE}
    return {name: None if name in bare else color for name, color in class_colors(labels).items()}


def overlay_with_legend(
    image: ImageArray, ids: Ids, labels: Labels, *, outline: bool = True
) -> ImageArray:
    """Draw an overlay with the legend of its classes below, in a size that follows the image.

    An image that is too narrow for a legend is enlarged by a whole factor.
    """
    check_image(image)
    _check_size(msg("the image"), image, msg("the ids"), ids)
    colored, shares = _colors_and_shares(ids, labels)
    top = _blend(image, ids, colored, labels, outline)
    factor = -(-MIN_WIDTH // top.shape[1])
    if factor > 1:
        top = top.repeat(factor, axis=0).repeat(factor, axis=1)
    size = max(13, round(top.shape[1] / 42))
    pad = size // 2
    entries = [(name, percent(share)) for name, share in shares.items()]
    below = draw_legend(entries, overlay_colors(labels), top.shape[1] - 2 * pad, size)
    width = max(top.shape[1], below.shape[1] + 2 * pad)
    sheet = np.full((top.shape[0] + below.shape[0] + 2 * pad, width, 3), 255, dtype=np.uint8)
    left = (width - top.shape[1]) // 2
    sheet[: top.shape[0], left : left + top.shape[1]] = top
    sheet[top.shape[0] + pad : -pad, pad : pad + below.shape[1]] = below
    return sheet


def error_map(
    truth: Ids, prediction: Ids, ignore_index: int = 255, *, image: ImageArray | None = None
) -> ImageArray:
    """Draw where a prediction is wrong: wrong pixels red, ignored ones gray, right ones dark.

    With an `image`, right pixels show it in dim gray.

    Raises:
        FullconvError: ids that are no (H, W) integers, or different sizes.
    """
    _check_ids(msg("the ground truth"), truth)
    _check_ids(msg("the prediction"), prediction)
    _check_size(msg("the ground truth"), truth, msg("the prediction"), prediction)
    sheet = np.empty((*truth.shape, 3), dtype=np.uint8)
    sheet[:] = RIGHT
    if image is not None:
        check_image(image)
        _check_size(msg("the image"), image, msg("the ground truth"), truth)
        gray = np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L"))
        sheet[:] = (gray * np.float32(_DIM) + np.float32(0.5)).astype(np.uint8)[..., None]
    sheet[truth != prediction] = WRONG
    sheet[truth == ignore_index] = IGNORED
    return sheet


def _copy_where(target: ImageArray, source: ImageArray, where: NDArray[np.bool_]) -> None:
    """Copy the pixels where (H, W) is true; by index, which is faster for few pixels."""
    places = np.flatnonzero(where)
    target.reshape(-1, 3)[places] = source.reshape(-1, 3)[places]


def _table_rows(ids: Ids, labels: Labels) -> NDArray[np.int64]:
    """Return the row of the color table for each pixel: the class id, or K where ignored."""
    _check_ids(msg("the ids"), ids)
    ignored = ids == labels.ignore_index
    unknown = np.unique(ids[((ids < 0) | (ids >= len(labels))) & ~ignored])
    if unknown.size:
        raise FullconvError(
            msg(
                "ids without a class: {ids}; expected 0..{last}, or {ignored} for ignored pixels.",
                ids=truncated_list(unknown.tolist(), _LISTED_IDS),
                last=len(labels) - 1,
                ignored=labels.ignore_index,
            ),
            f"np.where((ids >= 0) & (ids < {len(labels)}), ids, {labels.ignore_index})",
        )
    rows = ids.astype(np.int64)
    rows[ignored] = len(labels)
    return rows


def _color_rows(rows: NDArray[np.int64], labels: Labels) -> ImageArray:
    return np.array([*labels.colors, NEUTRAL], dtype=np.uint8).take(rows, axis=0)


def _colors_and_shares(ids: Ids, labels: Labels) -> tuple[ImageArray, dict[str, float]]:
    """Return `colorize` and `area`; the ids are looked up once, and the rows do not stay in memory,
    which blending then reuses."""
    rows = _table_rows(ids, labels)
    return _color_rows(rows, labels), _shares(rows, labels)


def _shares(rows: NDArray[np.int64], labels: Labels) -> dict[str, float]:
    counts = np.bincount(rows.ravel(), minlength=len(labels) + 1)
    names = (*labels.names, IGNORE)
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda k: (-counts[k], k))
    return {names[k]: float(counts[k] / rows.size) for k in order}


def check_image(image: NDArray[Any]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        problem = msg(
            "an image of shape {shape} and type {dtype}; expected (H, W, 3) uint8 RGB.",
            shape=image.shape,
            dtype=image.dtype,
        )
        raise FullconvError(problem, 'np.asarray(Image.open("photo.jpg").convert("RGB"))')


def _check_ids(name: Message, ids: NDArray[Any]) -> None:
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or not ids.size:
        problem = msg(
            "{name} of shape {shape} and type {dtype}; expected (H, W) integers.",
            name=name,
            shape=ids.shape,
            dtype=ids.dtype,
        )
        raise FullconvError(problem, 'np.asarray(ids).squeeze().astype("uint8")')


def _check_size(
    name: Message, array: NDArray[Any], other_name: Message, other: NDArray[Any]
) -> None:
    if array.shape[:2] == other.shape[:2]:
        return
    height, width = array.shape[:2]
    problem = msg(
        "{name} of {height} x {width} pixels and {other} of {other_height} x {other_width} "
        "differ in size (height x width).",
        name=name,
        height=height,
        width=width,
        other=other_name,
        other_height=other.shape[0],
        other_width=other.shape[1],
    )
    hint = f"np.asarray(Image.fromarray(ids).resize(({width}, {height}), Image.Resampling.NEAREST))"
    raise FullconvError(problem, hint)
