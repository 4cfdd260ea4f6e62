"""HTML that no name can break, in one piece."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fullconv.visualization.html import (
    bar,
    downscale_to,
    element,
    fragment,
    image_node,
    page,
    swatch,
    table,
)


class Words(HTMLParser):
    """The text and the tags of a page, without its style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.inside = "", [], ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        self.text += data if self.inside != "style" else ""


@given(st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc"))))
def test_text_stays_text(name: str) -> None:
    read = Words(fragment(element("p", name, title=name)))
    assert read.text == name
    assert read.tags == ["div", "style", "p"]


def test_control_characters_do_not_break_the_page() -> None:
    assert Words(fragment("a\x00b\x1b")).text == "a\ufffdb\ufffd"


def test_children_stand_in_their_order() -> None:
    node = element("p", "a", element("b", "c"), "d", ["e", element("i")], "f", class_="x")
    assert fragment(node).endswith('<p class="x">a<b>c</b>de<i></i>f</p></div>')


def test_a_page_is_whole() -> None:
    text = page("Über <all>", element("p", "x"))
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert "<title>Über &lt;all&gt;</title>" in text
    assert 'charset="utf-8"' in text
    assert "color-scheme: light dark" in text


@pytest.mark.parametrize("count", [0, 5, 30, 31, 200])
def test_every_row_of_a_table_is_there(count: int) -> None:
    rows = [[f"<{k}>", str(k)] for k in range(count)]
    text = fragment(table(["name", "number"], rows, numbers=1))
    assert text.count('<td class="number">') == count
    assert ("<details>" in text) == (count > 30)
    assert [f"&lt;{k}&gt;" in text for k in range(count)] == [True] * count


def test_swatches_and_bars() -> None:
    assert 'style="background: #804080"' in fragment(swatch((128, 64, 128)))
    empty = swatch(None)
    assert empty.get("class") == "swatch none"
    assert empty.get("style") is None
    assert 'style="width: 25.0%"' in fragment(bar(0.25))
    assert 'style="width: 100.0%"' in fragment(bar(7))


@pytest.mark.parametrize("photo", [True, False])
@pytest.mark.parametrize(("size", "expected"), [((2000, 500), (640, 160)), ((30, 20), (30, 20))])
def test_images_are_bounded_and_inside(
    photo: bool, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = Image.fromarray(np.full((size[1], size[0], 3), (200, 30, 90), np.uint8))
    node = image_node(image, 'a "photo"', photo=photo)
    kind, _, content = node.attrib["src"].partition(";base64,")
    assert kind == ("data:image/jpeg" if photo else "data:image/png")
    with Image.open(io.BytesIO(base64.b64decode(content))) as found:
        assert found.size == expected == downscale_to(image, 640).size
        assert np.abs(np.asarray(found.convert("RGB")).astype(int) - (200, 30, 90)).max() < 6
    assert node.attrib["alt"] == 'a "photo"'
