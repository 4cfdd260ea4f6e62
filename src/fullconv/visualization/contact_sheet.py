"""Rows of images with titles and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fullconv.core.errors import FullconvError
from fullconv.core.labels import IGNORE, RGB, Labels
from fullconv.visualization import overlay as draw
from fullconv.visualization.legend import INK, PAPER, strip, write
from fullconv.visualization.overlay import _READABLE, ImageArray, _check_image, _colors, colorize

_WIDEST = 480  # pixels; a column of a sheet is not wider unless asked for
_FLAT = 256  # an image with no more colours than this is a map, not a photo
_GRID = 'grid([[image, ids]], ["image", "labels"], ["street.jpg"], labels=labels)'


def contact_sheet(
    rows: Sequence[Sequence[NDArray[Any]]],
    titles: Sequence[str],
    captions: Sequence[str] | None = None,
    *,
    labels: Labels | None = None,
    cell: int | None = None,
) -> Image.Image:
    """A sheet: one column per title, a caption under each row, a legend of `labels` at the bottom.

    A cell is an image, or, given `labels`, ids. Columns are `cell` pixels wide (by itself 240-480,
    by the widest image). Photos are scaled by Lanczos, maps (256 colours or fewer) by nearest
    neighbour, which invents no class.
    """
    _check_rows(rows, titles, captions)
    images = [[_cell(item, labels) for item in row] for row in rows]
    widest = max(image.shape[1] for row in images for image in row)
    if cell is None:  # a whole factor keeps the pixels of a small map square
        cell = widest * -(-_READABLE // widest) if widest < _READABLE else min(widest, _WIDEST)
    if cell < 1:
        raise FullconvError(f"a column {cell} pixels wide; expected 1 or more.", "cell=320")
    scaled = [[_fit(image, cell) for image in row] for row in images]
    size = max(13, min(28, round(cell / 19)))
    margin, gap, head = size * 2, max(6, size // 2), round(size * 2.2)
    under = 0 if captions is None else round(size * 1.7)
    heights = [max(image.height for image in row) for row in scaled]
    width = 2 * margin + len(titles) * cell + (len(titles) - 1) * gap
    key = None if labels is None else _key(rows, labels, width - 2 * margin, round(size * 0.9))
    width = width if key is None else max(width, key.shape[1] + 2 * margin)
    body = sum(height + under for height in heights) + gap * (len(rows) - 1)
    bottom = margin if key is None else gap + key.shape[0] + margin // 2
    sheet = Image.new("RGB", (width, margin // 2 + head + body + bottom), PAPER)
    pen = ImageDraw.Draw(sheet)
    for k, title in enumerate(titles):
        x = margin + k * (cell + gap) + cell // 2
        write(pen, (x, margin // 2 + head // 2), title, size, cell, anchor="mm", ink=INK)
    y = margin // 2 + head
    for r, row in enumerate(scaled):
        for k, image in enumerate(row):
            x = margin + k * (cell + gap) + (cell - image.width) // 2
            sheet.paste(image, (x, y + (heights[r] - image.height) // 2))
        y += heights[r]
        if captions is not None:
            place = (margin, y + under // 2)
            room = width - 2 * margin
            write(pen, place, captions[r], round(size * 0.85), room, anchor="lm")
        y += under + gap
    if key is not None:
        sheet.paste(Image.fromarray(key), (margin, y))
    return sheet


def _key(
    rows: Sequence[Sequence[NDArray[Any]]], labels: Labels, width: int, font_size: int
) -> ImageArray:
    """The legend of a sheet: all classes, and 'ignore' where some ids hold it."""
    ids = [item for row in rows for item in row if item.ndim == 2]
    names = [*labels.names]
    if any((item == labels.ignore_index).any() for item in ids):
        names.append(IGNORE)
    return strip([(name, "") for name in names], _colors(labels), width, font_size)


def _check_rows(
    rows: Sequence[Sequence[NDArray[Any]]], titles: Sequence[str], captions: Sequence[str] | None
) -> None:
    if not rows or not titles:
        raise FullconvError(
            f"a sheet of {len(rows)} row(s) and {len(titles)} title(s); nothing to draw.",
            _GRID,
        )
    for number, row in enumerate(rows):
        if len(row) != len(titles):
            raise FullconvError(
                f"row {number} has {len(row)} image(s) but there are {len(titles)} titles: "
                f"{', '.join(titles)}.",
                _GRID,
            )
    if captions is not None and len(captions) != len(rows):
        raise FullconvError(
            f"{len(captions)} caption(s) for {len(rows)} row(s); expected one each.",
            _GRID,
        )


def _cell(item: NDArray[Any], labels: Labels | None) -> ImageArray:
    if item.ndim == 2 and labels is not None:
        return colorize(item, labels)
    if item.ndim == 2:
        raise FullconvError("a sheet with ids in it needs the class table.", "labels=LABELS")
    _check_image(item)
    return item


def _fit(image: ImageArray, width: int) -> Image.Image:
    """The image, `width` pixels wide."""
    pil = Image.fromarray(np.ascontiguousarray(image))
    size = (width, max(1, round(pil.height * width / pil.width)))
    flat = pil.getcolors(_FLAT) is not None
    return pil.resize(size, Image.Resampling.NEAREST if flat else Image.Resampling.LANCZOS)


_LONGEST = 640  # pixels of a side that are kept
_NARROW, _CELL = 240, 480  # pixels of an image's longer side on the sheet, at least and at most
_HEADING = 22  # pixels of its letters
_BROAD = 4  # images of a row; of more, rows stand in one column, too
_ALONE = 3  # rows that stand in one column


def paired_sheet(
    rows: Sequence[Sequence[ImageArray]],
    titles: Sequence[str],
    captions: Sequence[str],
    legend: Mapping[str, RGB],
    *,
    heading: str = "",
    widest: int = _CELL,
) -> Image.Image:
    """A sheet: the rows in one column or two, a heading above and the legend below.

    Args:
        rows: images (H, W, 3), one for each title.
        captions: one for each row.
        legend: name -> colour.
        widest: pixels of an image's longer side on the sheet, at most; maps of fewer than 240
            are enlarged.
    """
    shapes = [image.shape for row in rows for image in row]
    width = max(shape[1] for shape in shapes)
    small = width * -(-_NARROW // width)  # a whole factor keeps the pixels of small maps square
    cell = small if width < _NARROW else min(width, widest)
    highest = max(shape[0] / shape[1] for shape in shapes)
    cell = max(1, min(cell, round(widest / highest)))
    alone = len(rows) <= _ALONE or len(titles) > _BROAD
    half = len(rows) if alone else -(-len(rows) // 2)
    parts = [
        contact_sheet(rows[at : at + half], titles, captions[at : at + half], cell=cell)
        for at in range(0, len(rows), half)
    ]
    width, height = sum(part.width for part in parts), max(part.height for part in parts)
    # That of the grid, or nearly.
    margin = (parts[0].width - len(titles) * cell) * 4 // (len(titles) + 7)
    key = draw.swatches(legend, width=width - 2 * margin, font_size=20) if legend else None
    below = key.shape[0] + margin if key is not None else 0
    above = 2 * _HEADING if heading else 0
    font = ImageFont.load_default(size=_HEADING)
    whole = max(width, key.shape[1] + 2 * margin if key is not None else 0)
    whole = max(whole, round(font.getlength(heading)) + 2 * margin)
    sheet = Image.new("RGB", (whole, above + height + below), (255, 255, 255))
    place = (margin, round(1.4 * _HEADING))
    ImageDraw.Draw(sheet).text(place, heading, fill=(33, 37, 41), font=font, anchor="lm")
    left = 0
    for part in parts:
        sheet.paste(part, (left, above))
        left += part.width
    if key is not None:
        sheet.paste(Image.fromarray(key), (margin, above + height))
    return sheet


def subsample(array: NDArray[Any]) -> NDArray[Any]:
    """Every n-th pixel: no value is mixed."""
    step = -(-max(array.shape[:2]) // _LONGEST)
    return np.ascontiguousarray(array[::step, ::step])
