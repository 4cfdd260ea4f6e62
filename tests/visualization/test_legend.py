from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fullconv.visualization import legend as draw_legend
from fullconv.visualization.legend import INK, PALE, PAPER, _font, _span, strip, write

RED = (200, 0, 0)


def swatch(color: tuple[int, int, int] | None, size: int = 20) -> np.ndarray:
    """The swatch of a strip with one entry."""
    shown = strip([("a", "")], {"a": color}, 100, size)
    top = round(size * 1.7) // 2 - size // 2
    return shown[top : top + size, :size]


@pytest.mark.parametrize("size", [9, 13, 20, 31])
def test_a_swatch_is_full_of_its_colour_with_a_darker_border(size: int) -> None:
    shown = swatch(RED, size)
    assert (shown[1:-1, 1:-1] == RED).all()
    assert (shown[[0, -1]] == (150, 0, 0)).all()
    assert (shown[:, [0, -1]] == (150, 0, 0)).all()


@pytest.mark.parametrize("size", [9, 13, 20, 31])
def test_an_empty_swatch_is_no_white_one(size: int) -> None:
    shown = swatch(None, size)
    inner = shown[1:-1, 1:-1]
    struck = (inner != PAPER).any(axis=2)
    assert np.array_equal(struck, np.eye(size - 2, dtype=bool)[::-1])  # one stroke, else paper
    assert (shown[[0, -1]] < 150).all()
    assert (shown[:, [0, -1]] < 150).all()
    white = swatch((255, 255, 255), size)
    assert (white[1:-1, 1:-1] == 255).all()


def test_entries_wrap_into_rows_and_a_strip_is_as_wide_as_asked() -> None:
    entries, colors = [(name, "50.0 %") for name in "abcd"], dict.fromkeys("abcd", RED)
    one, two = strip(entries, colors, 2000, 15), strip(entries, colors, 10, 15)
    assert one.shape[1] == 2000
    assert two.shape[0] == 4 * one.shape[0]
    assert (one == RED).all(axis=2).sum() == (two == RED).all(axis=2).sum() == 4 * 13 * 13


@pytest.mark.parametrize("name", ["sky", "fjÄgq|", "WWW", "_void_", "a name of several words"])
@pytest.mark.parametrize("size", [9, 13, 24])
def test_an_entry_is_its_name_and_its_share_written_side_by_side(name: str, size: int) -> None:
    """As Pillow writes them onto the strip itself; also when they come again."""
    space, row = round(size * 0.45), round(size * 1.7)
    for _ in range(2):
        shown = strip([(name, "12.3 %")], {name: RED}, 400, size)
        wanted = Image.fromarray(shown.copy())
        pen, left = ImageDraw.Draw(wanted), size + space
        pen.rectangle((left - space, 0, 400, row), fill=PAPER)
        pen.text((left, row // 2), name, fill=INK, font=_font(size, name), anchor="lm")
        left += _span(name, size) + space
        pen.text((left, row // 2), "12.3 %", fill=PALE, font=_font(size, name), anchor="lm")
        assert (shown == np.asarray(wanted)).all()


@pytest.mark.parametrize(("text", "room"), [("a few words", 60), ("many words " * 20, 90)])
def test_a_line_that_is_too_long_becomes_smaller_and_is_cut(text: str, room: int) -> None:
    def width(room: int) -> int:
        image = Image.new("RGB", (3000, 60), PAPER)
        write(ImageDraw.Draw(image), (0, 30), text, 20, room, anchor="lm", ink=(0, 0, 0))
        return int(np.flatnonzero((np.asarray(image) < 128).any(axis=(0, 2)))[-1])

    assert width(3000) > room
    assert 0 < width(room) <= room


def test_lines_of_large_images_are_not_kept() -> None:
    """A thousand different shares of an image 8000 pixels wide would be hundreds of megabytes."""
    before = draw_legend._kept.cache_info().currsize
    for share in range(5):
        strip([("sky", f"{share}.5 %")], {"sky": RED}, 8000, 190)
    assert draw_legend._kept.cache_info().currsize == before
