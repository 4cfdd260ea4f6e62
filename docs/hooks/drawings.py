"""Draw docs/drawings/*.svg from the grids that `fullconv.geometry` computes.

python docs/hooks/drawings.py
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import timm
import torch

from fullconv.geometry.grid import Grid
from fullconv.geometry.trace_network import run_on_meta, trace
from fullconv.network.kernels.reference import interpolation_matrix

FOLDER = Path(__file__).parents[1] / "drawings"
SIZE = 97  # pixels in the row
TRUE, WRONG, INK, FAINT = "#3949ab", "#d84315", "#24292f", "#8b949e"
SHADES = {8: "#9fa8da", 16: "#5c6bc0", 32: "#283593"}


@dataclass
class Drawing:
    """An SVG drawing, in screen pixels."""

    width: float
    height: float
    title: str
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, color: str, **more: float) -> None:
        extra = "".join(f' {key.replace("_", "-")}="{value:g}"' for key, value in more.items())
        place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self.parts.append(f'<line {place} stroke="{color}"{extra}/>')

    def dot(self, x: float, y: float, color: str, *, hollow: bool = False, r: float = 5) -> None:
        paint = f'fill="none" stroke="{color}" stroke-width="2"' if hollow else f'fill="{color}"'
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}" {paint}/>')

    def bar(self, x: float, y: float, width: float, height: float, color: str) -> None:
        place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:g}"'
        self.parts.append(f'<rect {place} rx="3" fill="{color}"/>')

    def text(
        self, x: float, y: float, words: str, color: str = INK, *, at: str = "start", size: int = 13
    ) -> None:
        bold = ' font-weight="600"' if size > 13 else ""
        place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{at}"'
        self.parts.append(f'<text {place} fill="{color}"{bold}>{words}</text>')

    def svg(self) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} '
                f'{self.height:g}" role="img" font-family="system-ui, sans-serif">',
                f"<title>{self.title}</title>",
                f'<rect width="{self.width:g}" height="{self.height:g}" rx="8" fill="#fbfbfd"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def grids_of(name: str, size: int) -> dict[int, tuple[Grid, int]]:
    """Return the grid of a timm network at each stride, with its number of cells along a row."""
    with torch.device("meta"):
        pyramid = timm.create_model(name, features_only=True)
    feature_maps = run_on_meta(pyramid, torch.zeros(1, 3, size, size).to("meta"))
    counts = [feature_map.shape[3] for feature_map in feature_maps]
    grids = trace(name, size=size)
    return {int(grid.stride): (grid, count) for grid, count in zip(grids, counts, strict=True)}


def assumed_positions(size: int, count: int) -> Iterator[float]:
    """Yield the pixel positions that F.interpolate(size=size, align_corners=False) assumes."""
    for cell in range(count):
        yield (cell + 0.5) * size / count - 0.5


def places() -> Drawing:
    """Draw the cells of three networks over a row of pixels, and where F.interpolate puts them."""
    left, scale, strides = 96, 8, (8, 16, 32)
    networks = (("vgg16", "VGG16"), ("resnet18", "ResNet-18"), ("densenet121", "DenseNet-121"))
    title = f"Grid positions over a row of {SIZE} pixels, and where F.interpolate assumes them"
    drawing = Drawing(left + scale * SIZE + 24, 96 + 154 * len(networks), title)

    def x(pixel: float) -> float:
        return left + scale * (pixel + 0.5)

    drawing.dot(left + 6, 26, TRUE)
    drawing.text(left + 18, 31, "true position of the cell")
    drawing.dot(left + 216, 26, WRONG, hollow=True)
    drawing.text(left + 228, 31, "position that F.interpolate(size=97) assumes")
    y = 64.0
    for name, label in networks:
        grids = grids_of(name, SIZE)
        drawing.text(16, y, label, size=15)
        for stride in strides:
            y += 34
            grid, count = grids[stride]
            drawing.text(left - 14, y + 4, f"stride {stride}", FAINT, at="end")
            drawing.line(x(-0.5), y, x(SIZE - 0.5), y, "#d0d7de", stroke_width=6)
            for cell, assumed in enumerate(assumed_positions(SIZE, count)):
                true = x(grid.center(cell))
                drawing.line(true, y, x(assumed), y, WRONG, stroke_width=2)
                drawing.dot(x(assumed), y, WRONG, hollow=True)
                drawing.dot(true, y, TRUE, r=5 if stride > 8 else 4)
        y += 52
    for pixel in range(0, SIZE, 16):
        drawing.line(x(pixel), y - 24, x(pixel), y - 18, FAINT)
        drawing.text(x(pixel), y - 4, str(pixel), FAINT, at="middle")
    drawing.text(16, y - 4, "pixel", FAINT)
    return drawing


def fields() -> Drawing:
    """Draw the receptive field of one cell at each stride."""
    networks = (("vgg16", "VGG16"), ("resnet18", "ResNet-18"), ("resnet50", "ResNet-50"))
    left, scale, longest = 96, 1.6, 500
    title = "Receptive field in pixels along a row, by network and stride"
    drawing = Drawing(left + scale * longest + 24, 40 + 124 * len(networks), title)
    y = 30.0
    middle = left + scale * longest / 2
    for name, label in networks:
        drawing.text(16, y, label, size=15)
        for grid in trace(name):
            if grid.stride not in SHADES:
                continue
            y += 28
            width = scale * min(grid.field, longest)
            drawing.text(left - 14, y + 4, f"stride {grid.stride:g}", FAINT, at="end")
            drawing.line(left, y, left + scale * longest, y, "#d0d7de", stroke_width=6)
            drawing.bar(middle - width / 2, y - 8, width, 16, SHADES[int(grid.stride)])
            color = INK if grid.stride == 8 else "#ffffff"
            drawing.text(middle, y + 4, f"{grid.field:g}", color, at="middle", size=12)
        y += 40
    return drawing


def sums() -> Drawing:
    """Draw FCN-8s with a ResNet-18: coarse logits are interpolated at finer cells and added."""
    left, scale = 150, 7.5
    grids = grids_of("resnet18", SIZE)
    levels = [(32, 56.0), (16, 146.0), (8, 236.0)]
    title = "FCN-8s: logits at stride 32 are interpolated at the cells of stride 16, and so on"
    drawing = Drawing(left + scale * SIZE + 24, 384, title)

    def x(pixel: float) -> float:
        return left + scale * (pixel + 0.5)

    for (coarse, above), (fine, below) in pairwise(levels):
        (coarse_grid, coarse_count), (fine_grid, fine_count) = grids[coarse], grids[fine]
        matrix = interpolation_matrix(coarse_grid, coarse_count, fine_grid, fine_count)
        for row, weights in enumerate(matrix.tolist()):
            for cell, weight in enumerate(weights):
                if weight > 0.001:
                    drawing.line(
                        x(coarse_grid.center(cell)), above, x(fine_grid.center(row)), below,
                        SHADES[coarse],
                        stroke_width=0.8 + 1.6 * weight, opacity=round(0.25 + 0.75 * weight, 3),
                    )  # fmt: skip
    grid, count = grids[8]
    for pixel, weights in enumerate(interpolation_matrix(grid, count, Grid(1, 0), SIZE).tolist()):
        for cell, weight in enumerate(weights):
            if weight > 0.001:
                drawing.line(
                    x(grid.center(cell)), 236, x(pixel), 318, SHADES[8],
                    stroke_width=1, opacity=round(0.9 * weight, 3),
                )  # fmt: skip
        drawing.bar(x(pixel) - 3, 318, 6, 10, "#c5cae9" if pixel % 8 else "#7986cb")
    for stride, y in levels:
        grid, count = grids[stride]
        plus = "logits" if stride == 32 else "+ logits"
        drawing.text(left - 20, y + 5, f"{plus}, stride {stride}", at="end")
        for cell in range(count):
            drawing.dot(x(grid.center(cell)), y, SHADES[stride], r=7 if stride > 8 else 5.5)
    drawing.text(left - 20, 328, "label of each pixel", at="end")
    for pixel in range(0, SIZE, 16):
        drawing.text(x(pixel), 352, str(pixel), FAINT, at="middle")
    return drawing


DRAWINGS = {"places": places, "fields": fields, "sums": sums}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
