"""What people look at: class ids in colour, over the photo, with a legend; error maps; sheets.

Over a photo, the classes of `Labels.transparent_ids` and ignored pixels have no colour.

Images are (H, W, 3) uint8 RGB arrays; ids, truth and prediction are (H, W) arrays of class ids
and the ignore index. All functions give new arrays, `grid` gives a Pillow image. Nothing is read,
written or shown here, and sizes must agree: images are resized for display alone (`grid`,
`overlay_with_legend`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import IGNORE, RGB, Labels
from fullconv.visualization.legend import strip

ImageArray = NDArray[np.uint8]  # (H, W, 3) RGB
Ids = NDArray[Any]  # (H, W) integers

NEUTRAL: RGB = (224, 224, 192)  # ignored pixels; the colour VOC prints them in
RIGHT: RGB = (52, 58, 64)  # in an error map
WRONG: RGB = (235, 52, 52)
IGNORED: RGB = (165, 165, 165)

_DIM = 0.45  # what is left of the photo's brightness where a prediction is right
_READABLE = 240  # pixels; narrower images are enlarged for display


def colorize(ids: Ids, labels: Labels) -> ImageArray:
    """Each pixel in the colour of its class; ignored ones in `NEUTRAL`. (H, W) -> (H, W, 3)."""
    table = np.array([*labels.colors, NEUTRAL], dtype=np.uint8)  # (K + 1, 3)
    return table.take(_rows(ids, labels), axis=0)


def overlay(image: ImageArray, ids: Ids, labels: Labels, *, outline: bool = True) -> ImageArray:
    """The photo under the colours of the classes at half strength: the rounded mean of both, halves
    upwards.

    Ignored pixels and the classes of `Labels.transparent_ids` stay as photographed. With `outline`, the
    border between two classes is drawn in the full colour of the class above or left of it, a pixel
    wide per 500 of the short side. Beside a transparent class it is drawn on all sides, in the
    colour of the other.
    """
    _check_image(image)
    _check_size("the image", image, "the ids", ids)
    colored = colorize(ids, labels)
    ignored = ids == labels.ignore_index
    bare = (
        np.any([ids == k for k in labels.transparent_ids], axis=0)
        if labels.transparent_ids
        else None
    )
    # a + b = 2 (a | b) - (a ^ b): the mean without a wider type.
    blended = (image | colored) - ((image ^ colored) >> 1)
    copy_where(blended, image, ignored if bare is None else ignored | bare)
    if outline:
        width = max(1, round(min(ids.shape) / 500))
        border = _border(ids, width)
        if bare is not None:
            border = border & ~bare | outer_border(bare, width)
        copy_where(blended, colored, border & ~ignored)
    return blended


def copy_where(onto: ImageArray, other: ImageArray, where: NDArray[np.bool_]) -> None:
    """The pixels of another image where (H, W) says so; by number, which is faster for few."""
    places = np.flatnonzero(where)
    onto.reshape(-1, 3)[places] = other.reshape(-1, 3)[places]


def outer_border(bare: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """(H, W): pixels that lie within `width` pixels above, below, left or right of bare ones, and
    are none themselves."""
    near = np.zeros_like(bare)
    for step in range(1, width + 1):
        for one, other in ((bare, near), (bare.T, near.T)):
            other[step:] |= one[:-step]
            other[:-step] |= one[step:]
    return near & ~bare


def area(ids: Ids, labels: Labels) -> dict[str, float]:
    """Class name -> fraction of all pixels, largest first, present classes only; 'ignore' counts.

    >>> area(np.array([[0, 1, 1, 255]]), Labels(("sky", "road")))
    {'road': 0.5, 'sky': 0.25, 'ignore': 0.25}
    """
    counts = np.bincount(_rows(ids, labels).ravel(), minlength=len(labels) + 1)
    names = (*labels.names, IGNORE)
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda k: (-counts[k], k))
    return {names[k]: float(counts[k] / ids.size) for k in order}


def legend(
    labels: Labels,
    ids: Ids | None = None,
    *,
    width: int = 480,
    font_size: int = 15,
    over_photo: bool = False,
) -> ImageArray:
    """A white strip, `width` pixels wide: swatch, name and, given `ids`, the share of the area.

    Without `ids` every class in the order of `labels`; with them the present ones, largest first.
    It grows in rows; a strip is never narrower than its longest entry. With `over_photo` the swatch
    of what an overlay leaves as photographed is empty.
    """
    if width < 1 or font_size < 1:
        raise FullconvError(
            f"a legend {width} pixels wide in a font of {font_size}; expected 1 or more.",
            "legend(labels, width=480, font_size=15)",
        )
    if ids is None:
        entries = [(name, "") for name in labels.names]
    else:
        entries = [(name, _percent(share)) for name, share in area(ids, labels).items()]
    colors = shown_over_photo(labels) if over_photo else _colors(labels)
    return strip(entries, colors, width, font_size)


def shown_over_photo(labels: Labels) -> dict[str, RGB | None]:
    """Name -> colour in an overlay, None where that leaves the photo as it is; 'ignore', too."""
    bare = {labels.names[k] for k in labels.transparent_ids} | {IGNORE}
    return {name: None if name in bare else color for name, color in _colors(labels).items()}


def swatches(
    colors: Mapping[str, RGB | None], *, width: int = 480, font_size: int = 15
) -> ImageArray:
    """A white strip, `width` pixels wide or more: the swatch and name of each colour; an empty
    swatch where there is none."""
    return strip([(name, "") for name in colors], colors, width, font_size)


def overlay_with_legend(
    image: ImageArray, ids: Ids, labels: Labels, *, outline: bool = True
) -> ImageArray:
    """The overlay with the legend of its present classes below.

    The text grows with the image; one too narrow for a legend is enlarged by a whole factor.
    """
    top = overlay(image, ids, labels, outline=outline)
    factor = -(-_READABLE // top.shape[1])
    if factor > 1:
        top = top.repeat(factor, axis=0).repeat(factor, axis=1)
    size = max(13, round(top.shape[1] / 42))
    pad = size // 2
    room = top.shape[1] - 2 * pad
    below = legend(labels, ids, width=room, font_size=size, over_photo=True)
    width = max(top.shape[1], below.shape[1] + 2 * pad)
    sheet = np.full((top.shape[0] + below.shape[0] + 2 * pad, width, 3), 255, dtype=np.uint8)
    left = (width - top.shape[1]) // 2
    sheet[: top.shape[0], left : left + top.shape[1]] = top
    sheet[top.shape[0] + pad : -pad, pad : pad + below.shape[1]] = below
    return sheet


def error_map(
    truth: Ids, prediction: Ids, ignore_index: int = 255, *, image: ImageArray | None = None
) -> ImageArray:
    """Where a prediction is wrong: wrong pixels red, ignored ones grey, right ones dark.

    Given the `image`, right pixels show it in dim grey, to find the mistake in the photo.
    """
    for name, ids in (("the truth", truth), ("the prediction", prediction)):
        _check_ids(name, ids)
    _check_size("the truth", truth, "the prediction", prediction)
    sheet = np.empty((*truth.shape, 3), dtype=np.uint8)
    sheet[:] = RIGHT
    if image is not None:
        _check_image(image)
        _check_size("the image", image, "the truth", truth)
        grey = np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L"))
        sheet[:] = (grey * np.float32(_DIM) + np.float32(0.5)).astype(np.uint8)[..., None]
    sheet[truth != prediction] = WRONG
    sheet[truth == ignore_index] = IGNORED
    return sheet


def _colors(labels: Labels) -> dict[str, RGB]:
    """Name -> colour, that of ignored pixels too."""
    return {**dict(zip(labels.names, labels.colors, strict=True)), IGNORE: NEUTRAL}


def _rows(ids: Ids, labels: Labels) -> NDArray[np.int64]:
    """Row of the colour table for each pixel: the class id, or K where ignored."""
    _check_ids("the ids", ids)
    ignored = ids == labels.ignore_index
    strange = np.unique(ids[((ids < 0) | (ids >= len(labels))) & ~ignored])
    if strange.size:
        listed = ", ".join(str(value) for value in strange[:8].tolist())
        more = ", ..." if strange.size > 8 else ""
        raise FullconvError(
            f"ids {listed}{more} belong to no class; expected 0..{len(labels) - 1} "
            f"or {labels.ignore_index} for ignore.",
            f"np.where((ids >= 0) & (ids < {len(labels)}), ids, {labels.ignore_index})",
        )
    rows = ids.astype(np.int64)
    rows[ignored] = len(labels)
    return rows


def _border(ids: Ids, width: int) -> NDArray[np.bool_]:
    """Pixels within `width` above or left of a pixel of another id."""
    border = np.zeros(ids.shape, dtype=bool)
    for step in range(1, width + 1):
        border[:-step] |= ids[:-step] != ids[step:]
        border[:, :-step] |= ids[:, :-step] != ids[:, step:]
    return border


def _percent(share: float) -> str:
    """0.5 -> '50.0 %'; what is there is never shown as nothing.

    >>> _percent(0.5), _percent(0.0001)
    ('50.0 %', '< 0.1 %')
    """
    return f"{share:.1%}".replace("%", " %") if share >= 0.0005 else "< 0.1 %"


def _check_image(image: NDArray[Any]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise FullconvError(
            f"an image of shape {image.shape} and type {image.dtype}; "
            "expected (H, W, 3) uint8 RGB.",
            'np.asarray(Image.open("photo.jpg").convert("RGB"))',
        )


def _check_ids(name: str, ids: NDArray[Any]) -> None:
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or not ids.size:
        raise FullconvError(
            f"{name} of shape {ids.shape} and type {ids.dtype}; expected (H, W) integers.",
            'np.asarray(ids).squeeze().astype("uint8")',
        )


def _check_size(one: str, first: NDArray[Any], other: str, second: NDArray[Any]) -> None:
    if first.shape[:2] != second.shape[:2]:
        (h, w), (k, m) = first.shape[:2], second.shape[:2]
        raise FullconvError(
            f"{one} of {h} x {w} pixels and {other} of {k} x {m} differ in size (height x width); "
            "expected the same.",
            f"np.asarray(Image.fromarray(ids).resize(({w}, {h}), Image.Resampling.NEAREST))",
        )
