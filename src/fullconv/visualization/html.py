"""HTML for notebooks, pages and reports, by Jinja templates that escape every text.

The pieces carry their own style, load nothing from a network, use the colors of the text around
them (light or dark), and are plain tables where a notebook removes the style.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from PIL import Image

from fullconv.core.labels import RGB, format_color
from fullconv.core.text import markdown_cell, percent
from fullconv.visualization.contact_sheet import reduced_size

_TEMPLATES = Path(__file__).with_name("templates")
_OPEN_ROWS = 30  # of a table; the other rows are folded away


@lru_cache(maxsize=8)
def environment(*folders: Path) -> Environment:
    """Return the Jinja environment of some template folders, and of the parts in this package."""
    templates = Environment(
        loader=FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "percent": percent,
        "count": "{:,}".format,
        "data_uri": data_uri,
        "hex_color": format_color,
        "markdown_cell": markdown_cell,
    }
    templates.filters |= filters
    return templates


def fragment(*parts: str) -> str:
    """Return parts with their style, for a notebook."""
    return environment().get_template("fragment.html").render(parts=parts)


def page(title: str, *parts: str) -> str:
    """Return a whole page in one file, light or dark as the reader's system is."""
    return environment().get_template("page.html").render(title=title, parts=parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> Markup:
    """Return a table; the rows after the 30th are folded away.

    Args:
        head: one cell per column, or nothing.
        numbers: how many columns after the first hold numbers.
    """
    return _part("table", head, rows, numbers, _OPEN_ROWS)


def swatch(color: RGB | None) -> Markup:
    """Return a small square of a color, or an empty one, struck through."""
    return _part("swatch", color)


def bar(share: float) -> Markup:
    """Return a fraction as a bar."""
    return _part("bar", 100 * min(1.0, max(0.0, share)))


def interval_bar(value: float, low: float, high: float, reach: float, significant: bool) -> Markup:
    """Return an interval between -reach and reach, with 0 in the middle."""
    places = [50 + 47 * x / reach for x in (value, low, high)]
    return _part("interval", *places, significant)


def title(text: str) -> Markup:
    """Return a title."""
    return _part("title", text)


def muted(text: str) -> Markup:
    """Return a line of less weight."""
    return _part("muted", text)


def image_tag(
    image: Image.Image, description: str, *, longest: int = 640, photo: bool = False
) -> Markup:
    """Return an image inside the page, its longer side at most `longest` pixels; a photo as JPEG.

    `description` is for readers who do not see it.
    """
    return _part("image", downscale_to(image, longest), description, photo)


def data_uri(image: Image.Image, photo: bool = True) -> str:
    """Return the content of an image for a page: JPEG if it is a photo, PNG if not or if it has a
    palette."""
    file, is_jpeg = io.BytesIO(), photo and image.mode != "P"
    if is_jpeg:
        image.convert("RGB").save(file, "JPEG", quality=85, optimize=True)
    else:
        image.save(file, "PNG", optimize=True)
    kind = "jpeg" if is_jpeg else "png"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def downscale_to(image: Image.Image, longest: int) -> Image.Image:
    """Return an image whose longer side has at most this many pixels."""
    size = reduced_size(image.size, longest / max(image.size))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def _part(macro: str, *values: Any) -> Markup:
    return Markup(getattr(environment().get_template("parts.html").module, macro)(*values))


def _printable(value: Any) -> Any:
    """Replace control characters, which no page may contain, in texts."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(letter if letter >= " " or letter in "\n\t" else "\ufffd" for letter in value)
