"""Labels: the class table. Names, colours, the ignore index, what a value in a mask file means.

A *class id* is 0 .. K-1 in the order of `names`; background counts. `ignore_index` marks pixels
that are neither trained nor scored. A *value* is what stands in a mask file: an integer, or an RGB
colour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError

RGB = tuple[int, int, int]
IGNORE = "ignore"  # the class name that stands for the ignore index in dataset.toml
_BACKGROUNDS = {"background", "bg", "other", "others", "none", "void", "unlabeled", "unlabelled"}


def ids_dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """Return the smallest dtype for this many class ids that leaves 255 to `ignore_index`."""
    return np.uint8 if num_classes <= 255 else np.uint16


@cache
def voc_color(index: int) -> RGB:
    """Colour `index` (0-255) of the PASCAL VOC palette: the bits of the index, spread over RGB.

    >>> voc_color(1), voc_color(15), voc_color(255)
    ((128, 0, 0), (192, 128, 128), (224, 224, 192))
    """
    red = green = blue = 0
    for bit in range(8):
        red |= (index >> (3 * bit) & 1) << (7 - bit)
        green |= (index >> (3 * bit + 1) & 1) << (7 - bit)
        blue |= (index >> (3 * bit + 2) & 1) << (7 - bit)
    return red, green, blue


def parse_color(text: str) -> RGB:
    """'#804080' -> (128, 64, 128)."""
    digits = text.removeprefix("#")
    if len(digits) != 6 or any(c not in "0123456789abcdefABCDEF" for c in digits):
        raise FullconvError(f"colour {text!r} is not of the form '#rrggbb'.", 'road = "#804080"')
    return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def format_color(color: RGB) -> str:
    """(128, 64, 128) -> '#804080'."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def is_background(name: str) -> bool:
    """Whether a class of this name is what is left over: pixels that show none of the others.

    >>> is_background("Background"), is_background("__background__"), is_background("sky")
    (True, True, False)
    """
    return name.lower().strip("_") in _BACKGROUNDS


@dataclass(frozen=True)
class Labels:
    """The classes of a data set or a model.

    Args:
        names: one per class; the position is the class id.
        colors: one RGB triple (0-255) per class; the VOC palette where left out.
        ignore_index: class id of pixels that do not count. Outside 0 .. K-1.
        values: value in a mask file -> class id or `ignore_index`, for integers and for RGB
            triples. Integers that are not listed mean themselves; colours that are not listed
            are unknown, unless they are the `colors` of a class.
        closed: True where integers that are not listed in `values` have no class.
        lenient: True where values without a class are ignored instead of refused.

    >>> Labels(("sky", "road"), values={11: 255}).class_of(11)
    255
    """

    names: tuple[str, ...]
    colors: tuple[RGB, ...] = ()
    ignore_index: int = 255
    values: Mapping[int | RGB, int] = field(default_factory=dict)
    closed: bool = False
    lenient: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        palette = tuple(voc_color(i % 256) for i in range(len(self.names)))
        colors = tuple((int(r), int(g), int(b)) for r, g, b in self.colors)
        object.__setattr__(self, "colors", colors or palette)
        if not self.names:
            raise FullconvError(
                "a class table without a class.", 'classes = ["background", "road"]'
            )
        doubled = {name for name, count in Counter(self.names).items() if count > 1}
        if doubled or IGNORE in self.names:
            raise FullconvError(
                f"class names must differ and must not be {IGNORE!r}; found {sorted(self.names)}.",
                'classes = ["background", "road"]',
            )
        if len(self.colors) != len(self.names):
            raise FullconvError(
                f"{len(self.names)} classes but {len(self.colors)} colours.",
                "Labels(names)   # the colours of PASCAL VOC",
            )
        if 0 <= self.ignore_index < len(self.names):
            raise FullconvError(
                f"ignore_index {self.ignore_index} is also the id of class "
                f"{self.names[self.ignore_index]!r}; it must lie outside 0..{len(self.names) - 1}.",
                f"ignore_index = {255 if len(self.names) <= 255 else 65535}",
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_classes(self) -> int:
        """K; background counts."""
        return len(self.names)

    @property
    def unpainted(self) -> tuple[int, ...]:
        """The class ids that lie over a photo without a colour: a background in black, which would
        only darken it.

        >>> Labels(("background", "crack")).unpainted
        (0,)
        """
        pairs = enumerate(zip(self.names, self.colors, strict=True))
        return tuple(k for k, (name, color) in pairs if color == (0, 0, 0) and is_background(name))

    def class_of(self, value: int | RGB) -> int | None:
        """The class id (or `ignore_index`) of a value in a mask file, or None where it has none."""
        none = self.ignore_index if self.lenient else None
        if value in self.values:
            return self.values[value]
        if isinstance(value, tuple):
            return self.colors.index(value) if value in self.colors else none
        if value == self.ignore_index:
            return value
        return value if 0 <= value < len(self) and not self.closed else none

    def index(self, name: str) -> int:
        """The class id of a name; 'ignore' gives `ignore_index`."""
        if name == IGNORE:
            return self.ignore_index
        if name not in self.names:
            near = get_close_matches(str(name), self.names, 1, 0)[0]
            raise FullconvError(
                f"no class {name!r}; there are {', '.join(self.names)}.", f'"{near}"'
            )
        return self.names.index(name)

    def to_dict(self) -> dict[str, Any]:
        """For config.json; `from_dict` reads it back. File values stay behind: they belong to the
        data set, not to a model."""
        return {
            "classes": list(self.names),
            "colors": [format_color(color) for color in self.colors],
            "ignore_index": self.ignore_index,
        }

    def to_list(self) -> list[dict[str, Any]]:
        """For the web page, a class each: id, name, color (0-255), and whether an overlay shows it
        (`painted`)."""
        pairs = enumerate(zip(self.names, self.colors, strict=True))
        bare = self.unpainted
        return [
            {"id": k, "name": name, "color": color, "painted": k not in bare}
            for k, (name, color) in pairs
        ]

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Labels:
        """Of what `to_dict` wrote."""
        names: Sequence[str] = table["classes"]
        colors = tuple(parse_color(color) for color in table.get("colors", ()))
        return cls(tuple(names), colors, int(table.get("ignore_index", 255)))
