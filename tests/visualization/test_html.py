"""HTML in one piece that no name can break."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from html_reader import Reader
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from PIL import Image

from fullconv.visualization.html import (
    bar,
    data_uri,
    downscale_to,
    fragment,
    image_tag,
    interval_bar,
    muted,
    page,
    swatch,
    table,
)


@given(st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc"))))
def test_text_stays_text(name: str) -> None:
    reader = Reader(fragment(muted(name)))
    assert "".join(reader.parts).removesuffix("\n") == name
    assert reader.tags == ["div", "style", "p"]


def test_control_characters_do_not_break_the_page() -> None:
    assert Reader(fragment(muted("a\x00b\x1b"))).text == "a\ufffdb\ufffd"


def test_a_page_is_complete() -> None:
    text = page("Über <all>", Markup("<p>x</p>"))
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert "<title>Über &lt;all&gt;</title>" in text
    for part in ('charset="utf-8"', "color-scheme: light dark", "<p>x</p>"):
        assert part in text


@pytest.mark.parametrize("count", [0, 5, 30, 31, 200])
def test_a_table_has_every_row(count: int) -> None:
    rows = [[f"<{k}>", str(k)] for k in range(count)]
    text = table(["name", "number"], rows, numbers=1)
    assert text.count('<td class="number">') == count
    assert ("<details>" in text) == (count > 30)
    assert all(f"&lt;{k}&gt;" in text for k in range(count))


def test_swatches_and_bars() -> None:
    assert 'style="background: #804080"' in swatch((128, 64, 128))
    assert re.search(r'class="swatch none"(?!.*style)', swatch(None))
    assert 'style="width: 25.0%"' in bar(0.25)
    assert 'style="width: 100.0%"' in bar(7)
    interval = interval_bar(0.0, -0.1, 0.05, 0.1, True)
    assert "significant" in interval
    assert 'left: 3.0%; width: 70.5%"' in interval
    assert 'left: 50.0%"' in interval


@pytest.mark.parametrize("photo", [True, False])
@pytest.mark.parametrize(("size", "expected"), [((2000, 500), (640, 160)), ((30, 20), (30, 20))])
def test_images_are_bounded_and_inside(
    photo: bool, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = Image.new("RGB", size, (200, 30, 90))
    tag = image_tag(image, 'a "photo"', photo=photo)
    match = re.search(r'src="data:image/(\w+);base64,([^"]*)"', tag)
    assert match
    assert match[1] == ("jpeg" if photo else "png")
    with Image.open(io.BytesIO(base64.b64decode(match[2]))) as decoded:
        assert decoded.size == expected == downscale_to(image, 640).size
        assert np.abs(np.asarray(decoded.convert("RGB")).astype(int) - (200, 30, 90)).max() < 6
    assert 'alt="a &#34;photo&#34;"' in tag


def test_an_image_with_a_palette_stays_exact() -> None:
    ids = (np.indices((20, 30))[1] // 10 * 99).astype(np.uint8)
    image = Image.fromarray(ids).convert("RGB").quantize(256)
    head, _, content = data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as decoded:
        assert (np.asarray(decoded.convert("L")) == ids).all()
