"""Legends (swatches with names and shares) and lines of text on images.

The font is Pillow's own, or an installed one for scripts that it has no letters for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fullconv.core.labels import RGB

ImageArray = NDArray[np.uint8]  # (H, W, 3) RGB

INK: RGB = (33, 37, 41)
PALE: RGB = (110, 116, 122)
PAPER: RGB = (255, 255, 255)
_CACHED_SIZE = 24  # pixels of a font; up to here 2048 cached lines take some 30 MB
_MARGIN = 2  # pixels left and right of a line that its letters may reach into
_WIDE_FONTS = (
    "Noto Sans CJK", "Noto Sans SC", "Source Han Sans", "WenQuanYi", "PingFang", "Microsoft YaHei",
    "SimHei", "Hiragino Sans", "Arial Unicode",
)  # fmt: skip


def draw_legend(
    entries: Sequence[tuple[str, str]], colors: Mapping[str, RGB | None], width: int, font_size: int
) -> ImageArray:
    """Draw a swatch, the name and the share of each entry, in columns of equal width.

    A share may be empty. A color of None draws an empty swatch, struck through: white is a color,
    too. The strip is `width` pixels wide, or as wide as the longest entry.
    """
    row, box = round(font_size * 1.7), font_size
    space, gap = round(font_size * 0.45), round(font_size * 1.6)
    widths = [
        (text_width(name, font_size), text_width(share, font_size) + space if share else 0)
        for name, share in entries
    ]
    cell = max(box + space + sum(parts) for parts in widths)
    columns = max(1, (width + gap) // (cell + gap))
    strip = Image.new("RGB", (max(width, cell), -(-len(entries) // columns) * row), PAPER)
    pen = ImageDraw.Draw(strip)
    # Legends repeat their lines, so small ones are cached.
    draw_line = _text_line if font_size <= _CACHED_SIZE else _text_line.__wrapped__
    for k, (name, share) in enumerate(entries):
        x, y = k % columns * (cell + gap), k // columns * row + row // 2
        top = y - box // 2
        right, bottom, color = x + box - 1, top + box - 1, colors[name]
        if color is None:
            pen.rectangle((x, top, right, bottom), outline=PALE)
            pen.line((x, bottom, right, top), fill=PALE)
        else:
            edge = tuple(c * 3 // 4 for c in color)
            pen.rectangle((x, top, right, bottom), fill=color, outline=edge)
        left = x + box + space
        for text, ink in ((name, INK), (share, PALE)):
            if text:
                line = draw_line(text, font_size, row, ink)
                strip.paste(line, (left - _MARGIN, y - row // 2))
                left += widths[k][0] + space
    return np.asarray(strip)


def draw_text(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    room: int,
    *,
    anchor: str,
    ink: RGB = PALE,
) -> None:
    """Draw a line of text; if it needs more than `room` pixels, smaller (down to 9), then cut."""
    while text_width(text, size) > room and size > 9:
        size -= 1
    while text_width(text, size) > room and len(text) > 1:
        text = text.removesuffix("…")[:-1] + "…"
    pen.text(place, text, fill=ink, font=_font(size, text), anchor=anchor)


@lru_cache(maxsize=4096)
def text_width(text: str, size: int) -> int:
    """Return the width of a text in pixels, with one pixel to spare on each side."""
    return int(_font(size, text).getlength(text)) + 2


@lru_cache(maxsize=2048)
def _text_line(text: str, size: int, height: int, ink: RGB) -> Image.Image:
    line = Image.new("RGB", (text_width(text, size) + 2 * _MARGIN, height), PAPER)
    place = (_MARGIN, height // 2)
    ImageDraw.Draw(line).text(place, text, fill=ink, font=_font(size, text), anchor="lm")
    return line


def _font(size: int, text: str) -> Any:
    return _load_font(any(ord(letter) > 0x2E7F for letter in text), size)


@lru_cache(maxsize=64)
def _load_font(wide: bool, size: int) -> Any:
    path = _wide_font_path() if wide else None
    return ImageFont.load_default(size=size) if path is None else ImageFont.truetype(path, size)


@lru_cache(maxsize=1)
def _wide_font_path() -> str | None:
    """Return a font with Chinese, Japanese and Korean letters, if one is installed."""
    from matplotlib import font_manager  # slow to import, and rarely needed

    fonts = font_manager.fontManager.ttflist
    paths = (font.fname for name in _WIDE_FONTS for font in fonts if font.name.startswith(name))
    return next(map(str, paths), None)
