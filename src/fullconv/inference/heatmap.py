"""Where in an image a classifier sees its classes (Long et al. 2015, figure 2), at several scales.

A dense classifier looks at the image through windows of its own size, a stride apart: at every
scale as many as fit, laid centrally. Each gives a probability per class. Scale 1 is the image as
it is, but a photo whose shorter side has more than twice the pixels of the classifier's own
images is first reduced to twice: windows of 224 pixels on a photo of 4000 see single tiles of a
roof.

Shapes: K classes · H, W image · h, w cells. Places are pixels of the image as it was given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fullconv.core.errors import FullconvError
from fullconv.data.io.images import image_size, read_reduced
from fullconv.geometry.grid import Grid
from fullconv.network.dense.convolutionalize import DenseClassifier
from fullconv.network.kernels.reference import interpolation_matrix
from fullconv.visualization.contact_sheet import contact_sheet

MOST_PIXELS = 6_000_000  # of a scaled image: VGG takes about 3 GB for it
ENOUGH = 2  # times the classifier's size: what the shorter side is reduced to at scale 1
SHOWN = 480  # pixels of a drawn image's longer side

ImageArray = NDArray[np.uint8]


@dataclass(frozen=True)
class Heat:
    """Probabilities at one scale.

    Args:
        scale: as it was asked for.
        size: (H, W) of the scaled image, in pixels.
        rows, columns: where the cells look, in pixels of the image as it was given.
        windows: the same of the windows: the field is their width.
        probabilities: float32 (K, h, w), fractions; the sum over the classes is 1 at each cell.
    """

    scale: float
    size: tuple[int, int]
    rows: Grid
    columns: Grid
    windows: tuple[Grid, Grid]
    probabilities: NDArray[np.float32]

    def read(self, class_id: int, size: tuple[int, int], shown: tuple[int, int]) -> NDArray[Any]:
        """A class's probability over an image of (H, W) pixels shown in (h, w): bilinear between
        the cells; NaN further than half a stride outside the outermost, where no cell looks."""
        values = torch.from_numpy(self.probabilities[class_id].astype(np.float64))
        matrices, outside = [], []
        for grid, cells, n, m in zip(
            (self.rows, self.columns), values.shape, size, shown, strict=True
        ):
            pixels = Grid(n / m, (n / m - 1) / 2)
            matrices.append(interpolation_matrix(grid, cells, pixels, m))
            where = (pixels.offset + pixels.stride * np.arange(m) - grid.offset) / grid.stride
            outside.append((where < -0.5) | (where > cells - 0.5))
        read = (matrices[0] @ values @ matrices[1].T).numpy()
        read[outside[0]] = np.nan
        read[:, outside[1]] = np.nan
        return read


@dataclass(frozen=True)
class Peak:
    """The cell where a class is most probable.

    Args:
        class_id, name: the class.
        probability: fraction.
        row, column: the pixel that the cell looks at.
        window: (top, left, bottom, right) of what the classifier saw, in pixels.
        scale: at which it was found.
    """

    class_id: int
    name: str
    probability: float
    row: int
    column: int
    window: tuple[int, int, int, int]
    scale: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "id": self.class_id,
            "class": self.name,
            "probability": round(self.probability, 6),
            "row": self.row,
            "column": self.column,
            "window": list(self.window),
            "scale": self.scale,
        }


@dataclass(frozen=True)
class Heatmap:
    """What a classifier sees in an image.

    Args:
        names: of the classes; empty where they are not known.
        size: (H, W) of the image.
        image: (h, w, 3) uint8 RGB, reduced for display.
        heats: one per scale.
    """

    names: tuple[str, ...]
    size: tuple[int, int]
    image: ImageArray
    heats: tuple[Heat, ...]

    def places(self, class_id: int) -> list[Peak]:
        """The best place at each scale."""
        return [self._place(heat, class_id) for heat in self.heats]

    def best(self, class_id: int) -> Peak:
        """The best place at any scale."""
        return max(self.places(class_id), key=lambda place: place.probability)

    def top(self, count: int) -> list[Peak]:
        """The classes that are most probable anywhere, each at its best place."""
        highest = np.max([heat.probabilities.max(axis=(1, 2)) for heat in self.heats], axis=0)
        return [self.best(int(k)) for k in np.argsort(-highest, kind="stable")[:count]]

    def _place(self, heat: Heat, class_id: int) -> Peak:
        values = heat.probabilities[class_id]
        cell = divmod(int(values.argmax()), values.shape[1])
        row, column = (
            min(max(round(grid.center(k)), 0), pixels - 1)
            for grid, k, pixels in zip((heat.rows, heat.columns), cell, self.size, strict=True)
        )
        # Edges lie between pixels: those of the first one at -0.5 and 0.5.
        middle = [grid.center(k) + 0.5 for grid, k in zip(heat.windows, cell, strict=True)]
        half = [grid.field / 2 for grid in heat.windows]
        window = (
            *(round(m - h) for m, h in zip(middle, half, strict=True)),
            *(round(m + h) for m, h in zip(middle, half, strict=True)),
        )
        name = self.names[class_id] if self.names else f"class {class_id}"
        probability = float(values[cell])
        return Peak(class_id, name, probability, row, column, window, heat.scale)  # type: ignore[arg-type]


def heatmap(
    dense: DenseClassifier, image: str | Path, *, scales: Sequence[float] = (1.0,)
) -> Heatmap:
    """The probabilities of every class over an image.

    Args:
        dense: what `fullconv.convolutionalize` returns.
        image: a file.
        scales: of the image; see above what scale 1 is.

    Raises:
        FullconvError: no image; at some scale it is smaller than the classifier's own images,
            or has more pixels than fit into memory.
    """
    size = image_size(image)
    unit = min(1.0, ENOUGH * dense.size / min(size))
    sizes = [_scaled(size, unit, scale, dense, image) for scale in scales]
    _, pixels = read_reduced(image, max(min(shape) for shape in sizes))
    full = Image.fromarray(pixels)
    heats = []
    for scale, shape in zip(scales, sizes, strict=True):
        scaled = full.resize(shape[::-1], Image.Resampling.BICUBIC, reducing_gap=3.0)
        heats.append(_heat(dense, scaled, scale, size))
    factor = min(1.0, SHOWN / max(size))
    shown = [max(1, round(n * factor)) for n in size[::-1]]
    small = np.asarray(full.resize(shown, Image.Resampling.LANCZOS, reducing_gap=3.0))
    return Heatmap(dense.names, size, small, tuple(heats))


def _scaled(
    size: tuple[int, int], unit: float, scale: float, dense: DenseClassifier, image: str | Path
) -> tuple[int, int]:
    """(H, W) of the scaled image."""
    if not (math.isfinite(scale) and scale > 0):
        raise FullconvError(f"scale {scale}; expected a number above 0.", "--scales 1,1.5,2")
    height, width = (round(n * unit * scale) for n in size)
    what = f"{image} has {height} x {width} pixels at scale {scale:g} (height x width)"
    if min(height, width) < dense.size:
        fitting = dense.size / (min(size) * unit)
        raise FullconvError(
            f"{what}; {dense.name} looks at {dense.size} x {dense.size}, and takes nothing "
            "smaller.",
            f"--scales {math.ceil(fitting * 100) / 100:g}",
        )
    if height * width > MOST_PIXELS:
        fitting = math.sqrt(MOST_PIXELS / (size[0] * size[1])) / unit
        raise FullconvError(
            f"{what}; at most {MOST_PIXELS / 1e6:g} million fit into memory.",
            f"--scales {math.floor(fitting * 10) / 10:g}",
        )
    return height, width


def _heat(dense: DenseClassifier, image: Image.Image, scale: float, size: tuple[int, int]) -> Heat:
    """Of a scaled image, as many whole windows as fit."""
    shape = (image.height, image.width)
    stride = round(dense.grid.stride)
    left_over = [(n - dense.size) % stride for n in shape]
    top, left = (n // 2 for n in left_over)
    inner = np.asarray(image)[
        top : shape[0] - left_over[0] + top, left : shape[1] - left_over[1] + left
    ]
    like = next(dense.parameters())
    batch = torch.tensor(inner, device=like.device).permute(2, 0, 1)[None]
    with torch.inference_mode():
        scores = dense(dense.card.normalize(batch).to(like))[0]
        probabilities = scores.float().softmax(dim=0).cpu().numpy()
    axes = list(zip(size, shape, (top, left), strict=True))

    def back(offset: float, n: int, m: int, field: float = 1) -> Grid:
        return Grid(dense.grid.stride * n / m, (offset + 0.5) * n / m - 0.5, field * n / m)

    rows, columns = (back(dense.grid.offset + before, n, m) for n, m, before in axes)
    middle = (dense.size - 1) / 2
    windows = [back(middle + before, n, m, dense.size) for n, m, before in axes]
    return Heat(scale, shape, rows, columns, (windows[0], windows[1]), probabilities)


COLORS = "inferno"  # of matplotlib: even steps in brightness, readable in grey
# Weight of the colours where a class is improbable, and where it is not.
_FAINT, _STRONG = 0.1, 0.75
_KEY = "the class's highest probability; pale: no cell looks there; frame: what the best cell saw"
_INK, _PAPER = (33, 37, 41), (255, 255, 255)


def draw_heatmap(found: Heatmap, classes: Sequence[int]) -> Image.Image:
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
    return _with_key(contact_sheet(rows, titles, captions))


def marked(found: Heatmap, place: Peak) -> ImageArray:
    """The photo, a ring around a place and a frame around its window."""
    image = Image.fromarray(found.image)
    pen = ImageDraw.Draw(image)
    down, right = (n / m for n, m in zip(found.image.shape, found.size, strict=False))
    y, x = (place.row + 0.5) * down, (place.column + 0.5) * right
    radius, line = max(image.size) / 48, max(1, max(image.size) // 240)
    top, left, bottom, end = place.window
    for grow, color in ((line, _INK), (0, _PAPER)):
        r = radius + grow
        pen.ellipse((x - r, y - r, x + r, y + r), outline=color, width=line + grow)
        box = (left * right, top * down, end * right - 1, bottom * down - 1)
        pen.rectangle(box, outline=color, width=line + grow)
    return np.asarray(image)


def warm(found: Heatmap, heat: Heat, best: Peak) -> ImageArray:
    """The photo in grey under the heat of a class at one scale; `best` is the brightest place."""
    from matplotlib import colormaps

    shown = (found.image.shape[0], found.image.shape[1])
    share = heat.read(best.class_id, found.size, shown) / max(best.probability, 1e-12)
    grey = np.asarray(Image.fromarray(found.image).convert("L"), np.float64)[..., None]
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
