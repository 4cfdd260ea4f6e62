"""Overlays against a definition pixel by pixel, and legends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from fullconv.core.errors import FullconvError
from fullconv.core.labels import RGB, Labels
from fullconv.data.layouts.class_table import CAMVID, VOC
from fullconv.visualization import legend
from fullconv.visualization.legend import INK, PALE, PAPER, draw_legend, draw_text
from fullconv.visualization.overlay import (
    IGNORED,
    NEUTRAL,
    RIGHT,
    WRONG,
    area,
    colorize,
    error_map,
    overlay,
    overlay_colors,
    overlay_with_legend,
)
from fullconv.visualization.overlay import legend as class_legend

LABELS = Labels(("sky", "road", "person"), ((10, 20, 30), (200, 100, 50), (5, 250, 125)))
IDS = np.array([[0, 0, 1, 1], [0, 0, 1, 255], [1, 1, 1, 255]], dtype=np.uint8)
RED: RGB = (200, 0, 0)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def has(image: np.ndarray, color: RGB) -> bool:
    return bool((np.asarray(image) == color).all(axis=-1).any())


def by_definition(image: np.ndarray, ids: np.ndarray, labels: Labels, bare: set[int]) -> np.ndarray:
    """The overlay pixel by pixel, with an outline of one pixel; `bare`: classes without a color."""
    (height, width), none = ids.shape, {*bare, labels.ignore_index}
    result = image.copy()

    def neighbors(y: int, x: int, steps: list[tuple[int, int]]) -> list[int]:
        places = [(y + dy, x + dx) for dy, dx in steps]
        return [int(ids[i, j]) for i, j in places if 0 <= i < height and 0 <= j < width]

    for y, x in np.ndindex(height, width):
        own = int(ids[y, x])
        if own in none:
            continue
        sides = neighbors(y, x, [(1, 0), (0, 1), (-1, 0), (0, -1)])
        border = any(other != own for other in neighbors(y, x, [(1, 0), (0, 1)]))
        strength = 1.0 if border or any(other in bare for other in sides) else 0.5
        mixed = (1 - strength) * image[y, x].astype(np.float64)
        result[y, x] = np.floor(mixed + strength * np.array(labels.colors[own], np.float64) + 0.5)
    return result


@pytest.mark.parametrize(
    ("dtype", "ignore", "count"),
    [
        (np.uint8, 9, 2),
        (np.int16, -1, 2),
        (np.int64, -1, 2),
        (np.uint16, 300, 2),
        (np.uint16, 65535, 300),
    ],
)
def test_colorize_gives_each_class_its_color(dtype: type, ignore: int, count: int) -> None:
    labels = Labels(tuple(map(str, range(count))), ignore_index=ignore)
    classes = [count - 1, min(255, count - 1), 0]
    colors = colorize(np.array([[ignore, *classes]], dtype=dtype), labels)
    assert colors.dtype == np.uint8
    expected = [NEUTRAL, *(labels.colors[k] for k in classes)]
    assert colors.tolist() == [list(map(list, expected))]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99), st.sampled_from([0, 2, 255]))
def test_an_overlay_is_what_is_defined(height: int, width: int, seed: int, common: int) -> None:
    """With a black background that stays as it is, and another black class that does not."""
    colors = ((0, 0, 0), (128, 0, 0), (5, 250, 125), (0, 0, 0))
    labels = Labels(("background", "crack", "leaf", "hole"), colors)
    random = np.random.default_rng(seed)
    ids = random.choice(np.array([0, 1, 2, 3, 255], np.uint8), (height, width))
    ids[random.random((height, width)) < 0.6] = common
    image = noise(height, width, seed)
    assert (overlay(image, ids, labels) == by_definition(image, ids, labels, {0})).all()
    plain = overlay(image, ids, labels, outline=False)
    halves = (image.astype(int) + colorize(ids, labels) + 1) // 2
    assert (plain == np.where(np.isin(ids, (0, 255))[..., None], image, halves)).all()


@pytest.mark.parametrize(
    ("name", "color", "bare"),
    [
        ("background", (0, 0, 0), {0}),
        ("__background__", (0, 0, 0), {0}),
        ("Background", (0, 0, 0), {0}),
        ("background", (0, 0, 1), set()),
        ("sky", (0, 0, 0), set()),
    ],
)
def test_only_a_black_background_is_transparent(name: str, color: RGB, bare: set[int]) -> None:
    ids = np.zeros((6, 8), dtype=np.uint8)
    ids[2:4, 3:6] = 1
    labels = Labels((name, "crack"), (color, (128, 0, 0)))
    drawn = overlay(noise(6, 8), ids, labels)
    assert (drawn == by_definition(noise(6, 8), ids, labels, bare)).all()
    assert (CAMVID.transparent_ids, VOC.transparent_ids) == ((), (0,))


def test_the_outline_grows_with_the_image() -> None:
    ids = np.zeros((1000, 1200), dtype=np.uint8)
    ids[:, 600:] = 1
    drawn = overlay(np.zeros((1000, 1200, 3), np.uint8), ids, LABELS)
    full = (drawn[0] == LABELS.colors[0]).all(axis=-1)
    assert np.flatnonzero(full).tolist() == [598, 599]
    ids = np.zeros((1000, 1000), dtype=np.uint8)
    ids[300:320, 400:440] = 1
    drawn = overlay(np.full((1000, 1000, 3), 200, np.uint8), ids, Labels(("background", "a")))
    expected = ids == 1
    expected[302:318, 402:438] = False  # closed, beside a transparent class
    assert np.array_equal((drawn == (128, 0, 0)).all(axis=2), expected)


def test_an_error_map_shows_right_wrong_and_ignored_pixels() -> None:
    truth, prediction = np.array([[0, 1, 255, 255]], np.uint8), np.array([[0, 2, 1, 255]])
    expected = np.array([[RIGHT, WRONG, IGNORED, IGNORED]])
    assert np.array_equal(error_map(truth, prediction), expected)
    image = np.array([[[200] * 3, [9] * 3, [9] * 3, [9] * 3]], np.uint8)
    assert error_map(truth, prediction, image=image)[0, :2].tolist() == [[90] * 3, list(WRONG)]


def test_inputs_stay_unchanged() -> None:
    image, ids = noise(3, 4), IDS.copy()
    overlay_with_legend(image, ids, LABELS)
    error_map(ids, ids, 255, image=image)
    assert np.array_equal(image, noise(3, 4))
    assert np.array_equal(ids, IDS)


def test_the_legend_lists_present_classes_with_their_share(texts: list[str]) -> None:
    assert list(area(IDS, LABELS).items()) == [("road", 0.5), ("sky", 1 / 3), ("ignore", 1 / 6)]
    few = np.zeros((100, 100), dtype=np.uint8)
    few[0, 0] = 2
    colors = (*LABELS.colors, NEUTRAL)
    for ids, entries, shown in (
        (IDS, ["road", "50.0%", "sky", "33.3%", "ignore", "16.7%"], [True, True, False, True]),
        (None, ["sky", "road", "person"], [True, True, True, False]),
        (few, ["sky", "100.0%", "person", "<0.1%"], [True, False, True, False]),
    ):
        texts.clear()
        strip = class_legend(LABELS, ids, width=400)
        assert texts == entries
        assert strip.shape[1:] == (400, 3)
        assert [has(strip, color) for color in colors] == shown


def test_over_an_image_what_is_transparent_has_an_empty_swatch() -> None:
    labels, ids = Labels(("background", "crack")), np.array([[0, 0, 1, 255]], dtype=np.uint8)
    plain, over = class_legend(labels, ids), class_legend(labels, ids, over_image=True)
    for color in ((0, 0, 0), NEUTRAL):
        assert has(plain, color)
        assert not has(over, color)
    assert has(over, labels.colors[1])
    assert overlay_colors(labels) == {"background": None, "crack": (128, 0, 0), "ignore": None}


@pytest.mark.parametrize("size", [9, 13, 20, 31])
def test_swatches(size: int) -> None:
    def swatch(color: RGB | None) -> np.ndarray:
        strip = draw_legend([("a", "")], {"a": color}, 100, size)
        top = round(size * 1.7) // 2 - size // 2
        return strip[top : top + size, :size]

    full, empty = swatch(RED), swatch(None)
    assert (full[1:-1, 1:-1] == RED).all()
    assert (full[[0, -1]] == (150, 0, 0)).all()
    stroke = (empty[1:-1, 1:-1] != PAPER).any(axis=2)
    assert np.array_equal(stroke, np.eye(size - 2, dtype=bool)[::-1])
    assert (empty[:, [0, -1]] < 150).all()


@pytest.mark.parametrize("name", ["sky", "fjÄgq|", "_void_", "a name of several words"])
@pytest.mark.parametrize("size", [9, 24, 31])
def test_an_entry_looks_as_pillow_draws_it_on_the_strip(name: str, size: int) -> None:
    """Also from the cache, the second time."""
    space, row = round(size * 0.45), round(size * 1.7)
    for _ in range(2):
        strip = draw_legend([(name, "12.3%")], {name: RED}, 600, size)
        expected = Image.fromarray(strip.copy())
        pen, left = ImageDraw.Draw(expected), size + space
        pen.rectangle((left - space, 0, 600, row), fill=PAPER)
        font = legend._font(size, name)
        pen.text((left, row // 2), name, fill=INK, font=font, anchor="lm")
        left += legend.text_width(name, size) + space
        pen.text((left, row // 2), "12.3%", fill=PALE, font=font, anchor="lm")
        assert (strip == np.asarray(expected)).all()


def test_a_legend_wraps_and_cuts_no_name() -> None:
    names = tuple(f"a rather long class name {i}" for i in range(6))
    labels = Labels(names, tuple((i * 40, 80, 255 - i * 40) for i in range(6)))
    wide, narrow, tiny = (class_legend(labels, width=w) for w in (3000, 500, 10))
    assert wide.shape[0] < narrow.shape[0] < tiny.shape[0]
    assert wide.shape[1] == 3000
    assert tiny.shape[1] > 10  # never narrower than its longest entry
    assert (tiny[:, -1] == 255).all()  # and no letter is cut at its edge
    assert all(has(strip, color) for strip in (wide, narrow, tiny) for color in labels.colors)


@pytest.mark.parametrize(("text", "room"), [("a few words", 60), ("many words " * 20, 90)])
def test_a_line_that_is_too_long_becomes_smaller_and_is_cut(text: str, room: int) -> None:
    def width(room: int) -> int:
        image = Image.new("RGB", (3000, 60), PAPER)
        draw_text(ImageDraw.Draw(image), (0, 30), text, 20, room, anchor="lm", ink=(0, 0, 0))
        return int(np.flatnonzero((np.asarray(image) < 128).any(axis=(0, 2)))[-1])

    assert width(3000) > room
    assert 0 < width(room) <= room


def test_lines_of_large_images_are_not_cached() -> None:
    """A thousand different shares of an image 8000 pixels wide would be hundreds of megabytes."""
    before = legend._text_line.cache_info().currsize
    for share in range(5):
        draw_legend([("sky", f"{share}.5%")], {"sky": RED}, 8000, 190)
    assert legend._text_line.cache_info().currsize == before


@pytest.mark.parametrize(("height", "width"), [(3, 4), (50, 300), (700, 900), (301, 77)])
def test_an_overlay_with_a_readable_legend(height: int, width: int, texts: list[str]) -> None:
    image, ids = noise(height, width), np.zeros((height, width), dtype=np.uint8)
    ids[:, width // 2 :] = 2
    drawn = overlay_with_legend(image, ids, LABELS)
    factor = -(-240 // width)
    top = overlay(image, ids, LABELS).repeat(factor, 0).repeat(factor, 1)
    assert drawn.shape[1] == width * factor
    assert drawn.shape[0] >= height * factor + 15
    assert (drawn[: height * factor] == top).all()
    assert {"sky", "person"} <= set(texts)
    assert (drawn[height * factor :] < 120).any()  # letters


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: colorize(IDS[None], LABELS), r"the ids of shape \(1, 3, 4\)"),
        (lambda: colorize(IDS.astype(float), LABELS), r"float64; expected \(H, W\) integers"),
        (lambda: colorize(IDS + 3, LABELS), r"ids without a class: 3, 4; expected 0\.\.2, or 255"),
        (lambda: colorize(np.array([[-7]]), LABELS), "ids without a class: -7"),
        (lambda: colorize(np.arange(20)[None], LABELS), "3, 4, 5, 6, 7, 8, 9, 10 and 9 more"),
        (lambda: overlay(noise(4, 4), IDS, LABELS), "image of 4 x 4 pixels and the ids of 3 x 4"),
        (lambda: overlay(noise(3, 4)[..., :1], IDS, LABELS), r"shape \(3, 4, 1\).*uint8 RGB"),
        (lambda: overlay(noise(3, 4) / 255, IDS, LABELS), "type float64; expected"),
        (lambda: error_map(IDS, IDS.T), "truth of 3 x 4 pixels and the prediction of 4 x 3"),
        (lambda: error_map(IDS, IDS / 2), r"the prediction of shape \(3, 4\) and type float64"),
        (lambda: error_map(IDS, IDS, image=noise(1, 4)), "image of 1 x 4 pixels and the ground"),
        (lambda: class_legend(LABELS, width=0), "legend 0 pixels wide"),
    ],
)
def test_mistakes_are_explained(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(FullconvError, match=message) as caught:
        call()
    assert caught.value.hint


def test_importing_it_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, fullconv.visualization.contact_sheet; "
        "print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code]) == b"set()\n"
