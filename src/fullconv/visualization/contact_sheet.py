"""Contact sheets: rows of images with titles, captions, a heading and a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import Message, msg, translate
from fullconv.core.labels import IGNORE, RGB, Labels
from fullconv.core.text import truncated_list
from fullconv.visualization.legend import INK, PAPER, draw_legend, draw_text, text_width
from fullconv.visualization.overlay import (
    MIN_WIDTH,
    ImageArray,
    check_image,
    class_colors,
    colorize,
)

LONGEST_SIDE = 480  # pixels of an image on a sheet
_MAP_COLORS = 256  # an image with at most as many colors is a map, not a photo
_SUBSAMPLED_SIDE = 640  # pixels
_HEADING = 22  # pixels
_TWO_BLOCKS_FROM = 4  # rows; fewer are drawn in one block
_BLOCK_IMAGES = 4  # images of a row; rows with more are drawn in one block


def contact_sheet(
    rows: Sequence[Sequence[NDArray[Any]]],
    titles: Sequence[str],
    captions: Sequence[str] | None = None,
    *,
    labels: Labels | None = None,
    legend: Mapping[str, RGB | None] | None = None,
    heading: str = "",
    longest_side: int = LONGEST_SIDE,
    two_blocks: bool = False,
) -> Image.Image:
    """Draw a sheet: a column per title, a caption below each row, a legend at the bottom.

    Photos are resized by Lanczos, maps (256 colors or fewer) by nearest neighbor, which adds no
    color. Images narrower than 240 pixels are enlarged by a whole factor.

    Args:
        rows: images (H, W, 3), or ids (H, W) if `labels` are given; one per title.
        labels: class table that colors the ids, and the default legend.
        legend: name -> color, instead of all classes; None draws an empty swatch.
        longest_side: pixels of an image on the sheet, at most.
        two_blocks: draw four or more rows of up to four images in two blocks side by side.

    Raises:
        FullconvError: rows, titles and captions that do not fit, or ids without a class table.
    """
    _check_rows(rows, titles, captions)
    if longest_side < 1:
        problem = msg("images {side} pixels wide; expected 1 or more.", side=longest_side)
        raise FullconvError(problem, "longest_side=320")
    images = [[_to_rgb(item, labels) for item in row] for row in rows]

    # One width for all images, so that columns align.
    sizes = [image.shape[:2] for row in images for image in row]
    widest = max(width for _, width in sizes)
    cell = widest * -(-MIN_WIDTH // widest) if widest < MIN_WIDTH else min(widest, longest_side)
    cell = max(1, min(cell, round(longest_side / max(h / w for h, w in sizes))))
    scaled = [[_resize_to_width(image, cell) for image in row] for row in images]
    heights = [max(image.height for image in row) for row in scaled]

    # Text sizes and spaces follow the images.
    size = max(13, min(28, round(cell / 19)))
    margin, gap, title_height = 2 * size, max(6, size // 2), round(2.2 * size)
    caption_height = 0 if captions is None else round(1.7 * size)
    split = two_blocks and len(rows) >= _TWO_BLOCKS_FROM and len(titles) <= _BLOCK_IMAGES
    per_block = -(-len(rows) // 2) if split else len(rows)
    blocks = [range(k, min(k + per_block, len(rows))) for k in range(0, len(rows), per_block)]
    block_width = len(titles) * (cell + gap) - gap
    width = len(blocks) * (block_width + 2 * margin)
    top = margin // 2 + (2 * _HEADING if heading else 0)
    body = max(sum(heights[k] + caption_height + gap for k in block) - gap for block in blocks)

    # The legend and the heading may be wider than the images.
    if legend is None and labels is not None:
        legend = _default_legend(rows, labels)
    strip = None
    if legend:
        entries, font_size = [(name, "") for name in legend], max(16, round(0.9 * size))
        strip = draw_legend(entries, legend, width - 2 * margin, font_size)
        width = max(width, strip.shape[1] + 2 * margin)
    heading = translate(heading)
    width = max(width, text_width(heading, _HEADING) + 2 * margin if heading else 0)
    below = margin if strip is None else gap + strip.shape[0] + margin // 2
    sheet = Image.new("RGB", (width, top + title_height + body + below), PAPER)
    pen = ImageDraw.Draw(sheet)
    if heading:
        place = (margin, round(1.4 * _HEADING))
        draw_text(pen, place, heading, _HEADING, width, anchor="lm", ink=INK)

    for number, block in enumerate(blocks):
        left = margin + number * (block_width + 2 * margin)
        for k, title in enumerate(titles):
            place = (left + k * (cell + gap) + cell // 2, top + title_height // 2)
            draw_text(pen, place, translate(title), size, cell, anchor="mm", ink=INK)
        y = top + title_height
        for r in block:
            for k, image in enumerate(scaled[r]):
                x = left + k * (cell + gap) + (cell - image.width) // 2
                sheet.paste(image, (x, y + (heights[r] - image.height) // 2))
            y += heights[r]
            if captions is not None:
                place = (left, y + caption_height // 2)
                caption = translate(captions[r])
                draw_text(pen, place, caption, round(0.85 * size), block_width, anchor="lm")
            y += caption_height + gap
    if strip is not None:
        sheet.paste(Image.fromarray(strip), (margin, top + title_height + body + gap))
    return sheet


def subsample(array: NDArray[Any]) -> NDArray[Any]:
    """Return every n-th pixel, so that the longer side is at most 640; no values are mixed."""
    step = -(-max(array.shape[:2]) // _SUBSAMPLED_SIDE)
    return np.ascontiguousarray(array[::step, ::step])


def reduced_size(size: Sequence[int], factor: float) -> tuple[int, int]:
    """Return a size times a factor, at most the size itself and at least one pixel per side."""
    factor = min(1.0, factor)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _default_legend(
    rows: Sequence[Sequence[NDArray[Any]]], labels: Labels
) -> dict[str, RGB | None]:
    """Return all classes, and 'ignore' if ids contain it."""
    colors: dict[str, RGB | None] = {**class_colors(labels)}
    ids = [item for row in rows for item in row if item.ndim == 2]
    if not any((item == labels.ignore_index).any() for item in ids):
        del colors[IGNORE]
    return colors


def _check_rows(
    rows: Sequence[Sequence[NDArray[Any]]], titles: Sequence[str], captions: Sequence[str] | None
) -> None:
    problem: Message | None = None
    uneven = [number for number, row in enumerate(rows) if len(row) != len(titles)]
    if not rows or not titles:
        problem = msg(
            "a sheet with {rows} rows and {titles} titles has nothing to draw.",
            rows=len(rows),
            titles=len(titles),
        )
    elif uneven:
        problem = msg(
            "row {number} has {images} images, but there are {count} titles: {titles}.",
            number=uneven[0],
            images=len(rows[uneven[0]]),
            count=len(titles),
            titles=truncated_list(titles),
        )
    elif captions is not None and len(captions) != len(rows):
        problem = msg(
            "{captions} captions for {rows} rows; expected one per row.",
            captions=len(captions),
            rows=len(rows),
        )
    if problem is not None:
        example = 'contact_sheet([[image, ids]], ["image", "labels"], ["a.jpg"], labels=labels)'
        raise FullconvError(problem, example)


def _to_rgb(item: NDArray[Any], labels: Labels | None) -> ImageArray:
    if item.ndim == 2 and labels is not None:
        return colorize(item, labels)
    if item.ndim == 2:
        raise FullconvError(msg("a sheet with ids needs the class table."), "labels=LABELS")
    check_image(item)
    return item


def _resize_to_width(image: ImageArray, width: int) -> Image.Image:
    photo_or_map = Image.fromarray(np.ascontiguousarray(image))
    size = (width, max(1, round(photo_or_map.height * width / photo_or_map.width)))
    is_map = photo_or_map.getcolors(_MAP_COLORS) is not None
    method = Image.Resampling.NEAREST if is_map else Image.Resampling.LANCZOS
    return photo_or_map.resize(size, method)
