"""Pieces of HTML for notebooks and pages: built as a tree, so that every name is escaped.

They carry their own style, ask no network for anything, take the colours of the text around them
(light or dark), and are plain tables where a notebook takes the style away.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import TypeAlias
from xml.etree import ElementTree

from PIL import Image

from fullconv.core.labels import RGB, format_color

Node: TypeAlias = ElementTree.Element
Child: TypeAlias = "str | Node | Iterable[Child]"

STYLE = """
.fullconv { font-size: 13px; line-height: 1.45; max-width: 1000px; }
.fullconv table { border-collapse: collapse; margin: 6px 0 10px; border: 0; font-size: inherit;
  color: inherit; }
.fullconv th, .fullconv td { padding: 2px 12px 2px 0; text-align: left; border: 0;
  border-bottom: 1px solid rgba(127, 127, 127, 0.3); background: transparent; font-weight: normal;
  vertical-align: middle; }
.fullconv thead th { opacity: 0.75; }
.fullconv .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.fullconv .title { font-size: 15px; font-weight: 600; margin: 4px 0; }
.fullconv .quiet { opacity: 0.75; margin: 4px 0; }
.fullconv .swatch { display: inline-block; width: 12px; height: 12px; border-radius: 2px;
  border: 1px solid rgba(127, 127, 127, 0.7); vertical-align: -1px; margin-right: 7px; }
.fullconv .none { background: linear-gradient(to top right, transparent 46%,
  rgba(127, 127, 127, 0.9) 46% 54%, transparent 54%); }
.fullconv .track { display: block; width: 180px; height: 9px; border-radius: 2px;
  background: rgba(127, 127, 127, 0.2); }
.fullconv .bar { display: block; height: 9px; border-radius: 2px; background: #4c8bd8; }
.fullconv img { max-width: 100%; height: auto; margin: 4px 6px 4px 0; background: #fff; }
.fullconv figure { display: inline-block; margin: 4px 12px 6px 0; vertical-align: top; }
.fullconv figcaption { opacity: 0.75; }
.fullconv svg { max-width: 100%; height: auto; vertical-align: middle; }
.fullconv td svg { max-width: none; }
.fullconv .whole { white-space: nowrap; }
.fullconv summary { cursor: pointer; }
.fullconv .wide { overflow-x: auto; }
"""
_ROWS = 30  # of a table that is always open


def element(tag: str, *children: Child, **attributes: object) -> Node:
    """A node of the tree: `element("td", "road", class_="number")`. What is text stays text."""
    names = {key.rstrip("_").replace("_", "-"): str(of) for key, of in attributes.items()}
    node = ElementTree.Element(tag, names)
    _append(node, children)
    return node


def _append(node: Node, children: Iterable[Child]) -> None:
    for child in children:
        if isinstance(child, ElementTree.Element):
            node.append(child)
        elif not isinstance(child, str):
            _append(node, child)
        elif len(node):
            node[-1].tail = (node[-1].tail or "") + _plain(child)
        else:
            node.text = (node.text or "") + _plain(child)


def _plain(text: str) -> str:
    """Without the control characters that no page may hold."""
    return "".join(letter if letter >= " " or letter in "\n\t" else "\ufffd" for letter in text)


def fragment(*children: Child) -> str:
    """What a notebook shows, with its style."""
    return _text(element("div", element("style", STYLE), children, class_="fullconv"))


def page(title: str, *children: Child) -> str:
    """A whole page in one file, light or dark as the reader's system is."""
    colors = (
        ":root { color-scheme: light dark; } "
        "body { margin: 24px auto; padding: 0 16px; max-width: 1000px; "
        "font-family: system-ui, sans-serif; background: Canvas; color: CanvasText; }"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", colors + STYLE),
    )
    body = element("body", element("main", element("h1", title), children, class_="fullconv"))
    return "<!doctype html>\n" + _text(element("html", head, body, lang="en")) + "\n"


def _text(node: Node) -> str:
    return ElementTree.tostring(node, encoding="unicode", method="html")


def table(head: Sequence[Child], rows: Sequence[Sequence[Child]], *, numbers: int = 0) -> Node:
    """A table whose cells are text or nodes. Of a long one most is folded away.

    Args:
        numbers: so many columns after the first hold numbers.
    """
    if len(rows) <= _ROWS:
        return element("div", _table(head, rows, numbers), class_="wide", tabindex=0)
    rest = element("summary", f"all {len(rows)}")
    return element(
        "div",
        _table(head, rows[:_ROWS], numbers),
        element("details", rest, _table(head, rows[_ROWS:], numbers)),
        class_="wide",
        tabindex=0,
    )


def _table(head: Sequence[Child], rows: Sequence[Sequence[Child]], numbers: int) -> Node:
    def line(cells: Sequence[Child], tag: str) -> Node:
        kinds = [{"class_": "number"} if 0 < k <= numbers else {} for k in range(len(cells))]
        return element(
            "tr", [element(tag, cell, **kind) for cell, kind in zip(cells, kinds, strict=True)]
        )

    body = element("tbody", [line(row, "td") for row in rows])
    return element("table", [element("thead", line(head, "th"))] * any(head), body)


def swatch(color: RGB | None) -> Node:
    """A small square of a colour, or an empty one, struck through."""
    if color is None:
        return element("span", class_="swatch none", title="as photographed")
    return element("span", class_="swatch", style=f"background: {format_color(color)}")


def bar(share: float) -> Node:
    """A share (fraction) as a bar."""
    width = 100 * min(1.0, max(0.0, share))
    return element("span", element("span", class_="bar", style=f"width: {width:.1f}%"),
                   class_="track")  # fmt: skip


def muted(*text: Child) -> Node:
    """A line of less weight."""
    return element("p", text, class_="quiet")


def title(*text: Child) -> Node:
    """The first line."""
    return element("p", text, class_="title")


def image_node(image: Image.Image, said: str, *, longest: int = 640, photo: bool = False) -> Node:
    """An image inside the page.

    Args:
        said: what it shows, for those who do not see it.
        longest: pixels of the longer side, at most.
        photo: JPEG is good enough.
    """
    image = downscale_to(image, longest)
    file = io.BytesIO()
    if photo:
        image.convert("RGB").save(file, "JPEG", quality=85)
    else:
        image.save(file, "PNG")
    kind = "jpeg" if photo else "png"
    content = base64.b64encode(file.getvalue()).decode()
    size = {"width": image.width, "height": image.height}
    return element("img", src=f"data:image/{kind};base64,{content}", alt=said, **size)


def downscale_to(image: Image.Image, longest: int) -> Image.Image:
    """Smaller, where its longer side has more pixels."""
    factor = longest / max(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)
