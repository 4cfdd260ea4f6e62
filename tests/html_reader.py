"""A reader of HTML: its text without style and script, its tags, links and images."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

from PIL import Image

_VOID = ("meta", "input", "img", "br")
_LINKS = ("src", "href", "xlink:href", "data", "action", "srcset")


class Reader(HTMLParser):
    """Every tag that is opened must be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []
        self.text = " ".join(" ".join(self.parts).split())

    @property
    def images(self) -> list[Image.Image]:
        contents = (link.partition(";base64,")[2] for link in self.links if "image/" in link)
        return [Image.open(io.BytesIO(base64.b64decode(content))) for content in contents]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in _LINKS and value]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.parts.append(data)
