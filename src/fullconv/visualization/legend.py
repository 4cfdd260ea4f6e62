"""Legends: swatches with their names, and lines of text, in a font that has letters for them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fullconv.core.labels import RGB

INK: RGB = (33, 37, 41)
PALE: RGB = (110, 116, 122)
PAPER: RGB = (255, 255, 255)
_KEPT_SIZE = 24  # of a font, pixels: up to here 2048 lines take some 30 MB
_ASIDE = 2  # pixels left and right of a line that its letters may reach into

_WIDE_FONTS: tuple[str, ...] = ("Noto Sans CJK", "Noto Sans SC", "Source Han Sans", "WenQuanYi")
_WIDE_FONTS += ("PingFang", "Microsoft YaHei", "SimHei", "Hiragino Sans", "Arial Unicode")


def strip(
    entries: list[tuple[str, str]], colors: Mapping[str, RGB | None], width: int, size: int
) -> NDArray[np.uint8]:
    """Swatch, name and share of each (name, share), in columns of equal width."""
    row, box, space, gap = round(size * 1.7), size, round(size * 0.45), round(size * 1.6)
    spans = [
        (_span(name, size), _span(share, size) + space if share else 0) for name, share in entries
    ]
    cell = max(box + space + sum(parts) for parts in spans)
    columns = max(1, (width + gap) // (cell + gap))
    lines = -(-len(entries) // columns)
    sheet = Image.new("RGB", (max(width, cell), lines * row), PAPER)
    pen = ImageDraw.Draw(sheet)
    for k, (name, share) in enumerate(entries):
        x, y = k % columns * (cell + gap), k // columns * row + row // 2
        _swatch(pen, (x, y - box // 2, x + box - 1, y - box // 2 + box - 1), colors[name])
        left = x + box + space
        for text, ink in ((name, INK), (share, PALE)):
            if text:
                sheet.paste(_line(text, size, row, ink), (left - _ASIDE, y - row // 2))
                left += spans[k][0] + space
    return np.asarray(sheet)


def write(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    room: int,
    *,
    anchor: str,
    ink: RGB = PALE,
) -> None:
    """One line of text, smaller where it would not fit into `room` pixels, cut at nine points."""
    while _span(text, size) > room and size > 9:
        size -= 1
    cut = text
    while _span(cut, size) > room and len(cut) > 1:
        cut = cut.removesuffix("…")[:-1] + "…"
    pen.text(place, cut, fill=ink, font=_font(size, cut), anchor=anchor)


def _swatch(pen: ImageDraw.ImageDraw, place: tuple[int, int, int, int], color: RGB | None) -> None:
    """A square of a colour, or an empty one, struck through: white is a colour, too."""
    left, top, right, bottom = place
    if color is not None:
        pen.rectangle(place, fill=color, outline=tuple(c * 3 // 4 for c in color))
        return
    pen.rectangle(place, outline=PALE)
    pen.line((left, bottom, right, top), fill=PALE)


@lru_cache(maxsize=4096)
def _span(text: str, size: int) -> int:
    """Width of a text in pixels, with one to spare for its soft edge."""
    return int(_font(size, text).getlength(text)) + 2


def _line(text: str, size: int, height: int, ink: RGB) -> Image.Image:
    """A line of text as an image. Legends have the same ones again and again: small ones are
    kept."""
    return (_kept if size <= _KEPT_SIZE else _written)(text, size, height, ink)


def _written(text: str, size: int, height: int, ink: RGB) -> Image.Image:
    line = Image.new("RGB", (_span(text, size) + 2 * _ASIDE, height), PAPER)
    place = (_ASIDE, height // 2)
    ImageDraw.Draw(line).text(place, text, fill=ink, font=_font(size, text), anchor="lm")
    return line


_kept = lru_cache(maxsize=2048)(_written)


def _font(size: int, text: str) -> Any:
    """Pillow's own font, or an installed one for scripts it has no letters for."""
    return _loaded(_wide_font() if any(ord(letter) > 0x2E7F for letter in text) else None, size)


@lru_cache(maxsize=64)
def _loaded(path: str | None, size: int) -> Any:
    return ImageFont.load_default(size=size) if path is None else ImageFont.truetype(path, size)


@lru_cache(maxsize=1)
def _wide_font() -> str | None:
    """A font with Chinese, Japanese and Korean letters, if one is installed."""
    from matplotlib import font_manager  # slow to import, and rarely needed

    for name in _WIDE_FONTS:
        for one in font_manager.fontManager.ttflist:
            if one.name.startswith(name):
                return str(one.fname)
    return None
