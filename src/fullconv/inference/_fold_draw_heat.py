"""Heat maps as pictures: the photo in grey, warm where a class is probable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fullconv.visualization import overlay as draw

if TYPE_CHECKING:
    from fullconv.inference.heatmap import Heat, Heatmap, Place

COLORS = "inferno"  # of matplotlib: even steps in brightness, readable in grey
# Weight of the colours where a class is improbable, and where it is not.
_FAINT, _STRONG = 0.1, 0.75
_KEY = "the class's highest probability; pale: no cell looks there; frame: what the best cell saw"
_INK, _PAPER = (33, 37, 41), (255, 255, 255)

Picture = NDArray[np.uint8]


def sheet(found: Heatmap, classes: Sequence[int]) -> Image.Image:
    """A row per class: the photo with a ring at the best place and the window that the classifier
    saw there, and the heat at each scale, framed where cells look. The brightest colour is the
    class's highest probability at any scale."""
    cells = [heat.probabilities.shape[1:] for heat in found.heats]
    titles = ["photo"]
    titles += [
        f"scale {heat.scale:g}: {h} x {w} cells"
        for heat, (h, w) in zip(found.heats, cells, strict=True)
    ]
    rows, captions = [], []
    for class_id in classes:
        best = found.best(class_id)
        rows.append([marked(found, best), *(warm(found, heat, best) for heat in found.heats)])
        captions.append(
            f"{best.name}: {best.probability:.1%} at x {best.column}, y {best.row}, "
            f"scale {best.scale:g}"
        )
    return _with_key(draw.grid(rows, titles, captions))


def marked(found: Heatmap, place: Place) -> Picture:
    """The photo, a ring around a place and a frame around its window."""
    image = Image.fromarray(found.picture)
    pen = ImageDraw.Draw(image)
    down, right = (n / m for n, m in zip(found.picture.shape, found.size, strict=False))
    y, x = (place.row + 0.5) * down, (place.column + 0.5) * right
    radius, line = max(image.size) / 48, max(1, max(image.size) // 240)
    top, left, bottom, end = place.window
    for grow, color in ((line, _INK), (0, _PAPER)):
        r = radius + grow
        pen.ellipse((x - r, y - r, x + r, y + r), outline=color, width=line + grow)
        box = (left * right, top * down, end * right - 1, bottom * down - 1)
        pen.rectangle(box, outline=color, width=line + grow)
    return np.asarray(image)


def warm(found: Heatmap, heat: Heat, best: Place) -> Picture:
    """The photo in grey under the heat of a class at one scale; `best` is the brightest place."""
    from matplotlib import colormaps

    shown = (found.picture.shape[0], found.picture.shape[1])
    share = heat.read(best.class_id, found.size, shown) / max(best.probability, 1e-12)
    grey = np.asarray(Image.fromarray(found.picture).convert("L"), np.float64)[..., None]
    looked = ~np.isnan(share)
    share = np.where(looked, share, 0)
    color = colormaps[COLORS](share)[..., :3] * 255
    weight = np.where(looked, _FAINT + (_STRONG - _FAINT) * share, 0)[..., None]
    mixed = (1 - weight) * grey + weight * color
    mixed = np.where(looked[..., None], mixed, 160 + 0.3 * grey)  # pale: nobody looks there
    return (mixed + 0.5).astype(np.uint8)


def _with_key(image: Image.Image) -> Image.Image:
    """What the colours mean, at the bottom."""
    from matplotlib import colormaps

    size = max(13, image.width // 110)
    font = ImageFont.load_default(size=size)
    wide = 12 * size
    ramp = colormaps[COLORS](np.linspace(0, 1, wide))[None, :, :3] * 255
    bar = Image.fromarray(np.repeat(ramp + 0.5, size, axis=0).astype(np.uint8))
    whole = Image.new("RGB", (image.width, image.height + 2 * size), _PAPER)
    whole.paste(image, (0, 0))
    pen = ImageDraw.Draw(whole)
    x, y = image.width // 41, image.height - size // 2
    for text in ("0", bar, _KEY):
        if isinstance(text, str):
            pen.text((x, y + size // 2), text, fill=_INK, font=font, anchor="lm")
            x += round(font.getlength(text)) + size // 2
        else:
            whole.paste(text, (x, y))
            x += wide + size // 2
    return whole
