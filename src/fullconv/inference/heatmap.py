"""Heat maps: where in an image a classifier sees its classes (Long et al. 2015, figure 2).

A convolutionalized classifier looks at the image through windows of its own input size, one stride
apart: as many as fit at each scale, centered. Each window gives a probability per class. Scale 1 is
the image as it is. If the shorter side of a photo has more than twice the pixels of the
classifier's input, it is first reduced to twice: windows of 224 pixels on a photo of 4000 see
single roof tiles.

Shapes: K classes · H, W image · h, w cells. Positions are pixels of the original image.
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
from PIL import Image, ImageDraw

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, translate
from fullconv.data.io.images import image_size, read_reduced
from fullconv.geometry.grid import Grid
from fullconv.network.dense.convolutionalize import DenseClassifier
from fullconv.network.kernels.reference import interpolation_matrix
from fullconv.visualization.contact_sheet import contact_sheet, reduced_size
from fullconv.visualization.legend import INK, PAPER, draw_text, text_width

MAX_PIXELS = 6_000_000  # of a scaled image: VGG needs about 3 GB for it
MAX_INPUT_SIZES = 2  # shorter side of the image at scale 1, in sides of the classifier's input
DISPLAY_SIDE = 480  # pixels on the longer side of a drawn image
COLORMAP = "inferno"  # of matplotlib: even steps in brightness, readable in gray
_MIN_WEIGHT, _MAX_WEIGHT = 0.1, 0.75  # of the colors where a class is improbable, and probable
_KEY = msg(
    "highest probability of the class; pale: no cell looks there; frame: what the best cell saw"
)

ImageArray = NDArray[np.uint8]


@dataclass(frozen=True)
class Heat:
    """Class probabilities at one scale."""

    scale: float  # as requested
    size: tuple[int, int]  # (H, W) of the scaled image in pixels
    rows: Grid  # where the cells look
    columns: Grid
    windows: tuple[Grid, Grid]  # where the windows are; the field is their width
    probabilities: NDArray[np.float32]  # (K, h, w), fractions; the sum over the classes is 1

    def read(self, class_id: int, size: tuple[int, int], shape: tuple[int, int]) -> NDArray[Any]:
        """Return a class's probability over an image of `size` (H, W), drawn with `shape` (h, w).

        It is interpolated bilinearly between the cells, and NaN further than half a stride outside
        the outermost cells, where no cell looks.
        """
        values = torch.from_numpy(self.probabilities[class_id].astype(np.float64))
        matrices, outside = [], []
        for grid, cells, pixels, drawn in zip(
            (self.rows, self.columns), values.shape, size, shape, strict=True
        ):
            target = Grid(pixels / drawn, (pixels / drawn - 1) / 2)
            matrices.append(interpolation_matrix(grid, cells, target, drawn))
            positions = target.offset + target.stride * np.arange(drawn)
            cell = (positions - grid.offset) / grid.stride
            outside.append((cell < -0.5) | (cell > cells - 0.5))
        heat = (matrices[0] @ values @ matrices[1].T).numpy()
        heat[outside[0]] = np.nan
        heat[:, outside[1]] = np.nan
        return heat


@dataclass(frozen=True)
class Peak:
    """The cell at which a class is most probable."""

    class_id: int
    name: str
    probability: float  # fraction
    row: int  # the pixel that the cell looks at
    column: int
    window: tuple[int, int, int, int]  # top, left, bottom, right of what the classifier saw
    scale: float

    def to_dict(self) -> dict[str, Any]:
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
    """The scores of a classifier over an image."""

    names: tuple[str, ...]  # of the classes; empty if unknown
    size: tuple[int, int]  # (H, W) of the image
    image: ImageArray  # (h, w, 3) uint8 RGB, reduced for display
    heats: tuple[Heat, ...]  # one per scale

    def peaks(self, class_id: int) -> list[Peak]:
        """Return the class's peak at each scale."""
        name = self.names[class_id] if self.names else f"class {class_id}"
        peaks = []
        for heat in self.heats:
            values = heat.probabilities[class_id]
            cell = divmod(int(values.argmax()), values.shape[1])
            row, column = (
                min(max(round(grid.center(k)), 0), pixels - 1)
                for grid, k, pixels in zip((heat.rows, heat.columns), cell, self.size, strict=True)
            )
            # Edges are between pixels: those of the first pixel are at -0.5 and 0.5.
            y, x = (grid.center(k) + 0.5 for grid, k in zip(heat.windows, cell, strict=True))
            height, width = (grid.field for grid in heat.windows)
            top, left = round(y - height / 2), round(x - width / 2)
            window = (top, left, round(y + height / 2), round(x + width / 2))
            probability = float(values[cell])
            peaks.append(Peak(class_id, name, probability, row, column, window, heat.scale))
        return peaks

    def best(self, class_id: int) -> Peak:
        """Return the highest peak of a class over all scales."""
        return max(self.peaks(class_id), key=lambda peak: peak.probability)

    def top(self, count: int) -> list[Peak]:
        """Return the peaks of the classes that are most probable anywhere."""
        highest = np.max([heat.probabilities.max(axis=(1, 2)) for heat in self.heats], axis=0)
        return [self.best(int(k)) for k in np.argsort(-highest, kind="stable")[:count]]


def heatmap(
    dense: DenseClassifier, image: str | Path, *, scales: Sequence[float] = (1.0,)
) -> Heatmap:
    """Compute the probability of every class over an image file.

    Args:
        dense: the result of `fullconv.convolutionalize`.
        scales: of the image; the top of this file explains scale 1.

    Raises:
        FullconvError: not an image, or at some scale the image is smaller than the classifier's
            input or too large for memory.
    """
    size = image_size(image)
    unit = min(1.0, MAX_INPUT_SIZES * dense.size / min(size))
    sizes = [_scaled_size(size, unit, scale, dense, image) for scale in scales]
    _, pixels = read_reduced(image, max(min(shape) for shape in sizes))
    full = Image.fromarray(pixels)
    heats = []
    for scale, shape in zip(scales, sizes, strict=True):
        scaled = full.resize(shape[::-1], Image.Resampling.BICUBIC, reducing_gap=3.0)
        heats.append(_compute_heat(dense, scaled, scale, size))
    display_size = reduced_size(size[::-1], DISPLAY_SIDE / max(size))
    reduced = np.asarray(full.resize(display_size, Image.Resampling.LANCZOS, reducing_gap=3.0))
    return Heatmap(dense.names, size, reduced, tuple(heats))


def _scaled_size(
    size: tuple[int, int], unit: float, scale: float, dense: DenseClassifier, image: str | Path
) -> tuple[int, int]:
    if not (math.isfinite(scale) and scale > 0):
        raise FullconvError(
            msg("scale {scale}; expected a number above 0.", scale=scale), "--scales 1,1.5,2"
        )
    height, width = (round(n * unit * scale) for n in size)
    values = {"image": image, "height": height, "width": width, "scale": scale}
    if min(height, width) < dense.size:
        fitting = dense.size / (min(size) * unit)
        message = msg(
            "{image} has {height} x {width} pixels at scale {scale:g} (height x width); {name} "
            "needs at least {size} x {size}.",
            **values,
            name=dense.name,
            size=dense.size,
        )
        raise FullconvError(message, f"--scales {math.ceil(fitting * 100) / 100:g}")
    if height * width > MAX_PIXELS:
        fitting = math.sqrt(MAX_PIXELS / (size[0] * size[1])) / unit
        message = msg(
            "{image} has {height} x {width} pixels at scale {scale:g} (height x width); at "
            "most {limit:g} million pixels fit into memory.",
            **values,
            limit=MAX_PIXELS / 1e6,
        )
        raise FullconvError(message, f"--scales {math.floor(fitting * 10) / 10:g}")
    return height, width


def _compute_heat(
    dense: DenseClassifier, image: Image.Image, scale: float, size: tuple[int, int]
) -> Heat:
    """Run the classifier on a scaled image, in as many whole windows as fit."""
    # Center the windows: crop what remains beside them.
    shape = (image.height, image.width)
    stride = round(dense.grid.stride)
    remainders = [(n - dense.size) % stride for n in shape]
    top, left = (n // 2 for n in remainders)
    bottom, right = shape[0] - remainders[0] + top, shape[1] - remainders[1] + left
    crop = np.asarray(image)[top:bottom, left:right]

    parameter = next(dense.parameters())
    batch = torch.tensor(crop, device=parameter.device).permute(2, 0, 1)[None]
    with torch.inference_mode():
        logits = dense(dense.card.normalize(batch).to(parameter))[0]
        probabilities = logits.float().softmax(dim=0).cpu().numpy()

    # Convert positions to pixels of the original image.
    def to_original(offset: float, axis: int, field: float = 1) -> Grid:
        pixels, scaled_pixels = size[axis], shape[axis]
        return Grid(
            dense.grid.stride * pixels / scaled_pixels,
            (offset + 0.5) * pixels / scaled_pixels - 0.5,
            field * pixels / scaled_pixels,
        )

    offset, middle = dense.grid.offset, (dense.size - 1) / 2
    rows, columns = to_original(top + offset, 0), to_original(left + offset, 1)
    row_windows = to_original(top + middle, 0, dense.size)
    column_windows = to_original(left + middle, 1, dense.size)
    return Heat(scale, shape, rows, columns, (row_windows, column_windows), probabilities)


def draw_heatmap(result: Heatmap, classes: Sequence[int]) -> Image.Image:
    """Draw a row per class: the photo with a ring at the peak and the window that the classifier
    saw there, and the heat at each scale. The brightest color is the highest at any scale."""
    titles, rows, captions = [msg("photo")], [], []
    for heat in result.heats:
        height, width = heat.probabilities.shape[1:]
        values: dict[str, Any] = {"scale": heat.scale, "height": height, "width": width}
        titles.append(msg("scale {scale:g}: {height} x {width} cells", **values))
    for class_id in classes:
        best = result.best(class_id)
        heats = [draw_heat(result, heat, best) for heat in result.heats]
        rows.append([draw_peak(result, best), *heats])
        values = {"name": best.name, "probability": best.probability, "scale": best.scale}
        values |= {"x": best.column, "y": best.row}
        captions.append(msg("{name}: {probability:.1%} at x {x}, y {y}, scale {scale:g}", **values))
    return _add_color_key(contact_sheet(rows, titles, captions))


def draw_peak(result: Heatmap, peak: Peak) -> ImageArray:
    """Draw a ring around a peak and a frame around its window on the photo."""
    image = Image.fromarray(result.image)
    pen = ImageDraw.Draw(image)
    down, right = (n / m for n, m in zip(result.image.shape, result.size, strict=False))
    y, x = (peak.row + 0.5) * down, (peak.column + 0.5) * right
    radius, line = max(image.size) / 48, max(1, max(image.size) // 240)
    top, left, bottom, end = peak.window
    for margin, color in ((line, INK), (0, PAPER)):
        r = radius + margin
        pen.ellipse((x - r, y - r, x + r, y + r), outline=color, width=line + margin)
        box = (left * right, top * down, end * right - 1, bottom * down - 1)
        pen.rectangle(box, outline=color, width=line + margin)
    return np.asarray(image)


def draw_heat(result: Heatmap, heat: Heat, best: Peak) -> ImageArray:
    """Draw the heat of a class at one scale over the gray photo; `best` is its brightest cell."""
    from matplotlib import colormaps

    shape = (result.image.shape[0], result.image.shape[1])
    share = heat.read(best.class_id, result.size, shape) / max(best.probability, 1e-12)
    gray = np.asarray(Image.fromarray(result.image).convert("L"), np.float64)[..., None]
    is_covered = ~np.isnan(share)
    share = np.where(is_covered, share, 0)
    color = colormaps[COLORMAP](share)[..., :3] * 255
    weight = _MIN_WEIGHT + (_MAX_WEIGHT - _MIN_WEIGHT) * share
    weight = np.where(is_covered, weight, 0)[..., None]
    blended = (1 - weight) * gray + weight * color
    pale = 160 + 0.3 * gray  # no cell looks there
    blended = np.where(is_covered[..., None], blended, pale)
    return (blended + 0.5).astype(np.uint8)


def _add_color_key(image: Image.Image) -> Image.Image:
    """Return the image with the meaning of the colors at the bottom."""
    from matplotlib import colormaps

    size = max(13, image.width // 110)
    ramp_width = 12 * size
    ramp = colormaps[COLORMAP](np.linspace(0, 1, ramp_width))[None, :, :3] * 255
    bar = np.repeat(ramp + 0.5, size, axis=0).astype(np.uint8)
    whole = Image.new("RGB", (image.width, image.height + 2 * size), PAPER)
    whole.paste(image, (0, 0))
    pen = ImageDraw.Draw(whole)
    x, y = image.width // 41, image.height
    draw_text(pen, (x, y), "0", size, size, anchor="lm", ink=INK)
    x += text_width("0", size) + size // 2
    whole.paste(Image.fromarray(bar), (x, y - size // 2))
    x += ramp_width + size // 2
    draw_text(pen, (x, y), translate(_KEY), size, image.width - x, anchor="lm", ink=INK)
    return whole
