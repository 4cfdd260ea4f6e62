"""The class table: names, colors, the ignored id, and what a value in a mask file means.

A *class id* is 0 .. K-1 in the order of `names`; the background counts. `ignore_index` marks pixels
that are neither trained on nor scored. A *value* is what a mask file stores: an integer or an RGB
color.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import nearest, truncated_list

if TYPE_CHECKING:
    import numpy as np

RGB = tuple[int, int, int]
IGNORE = "ignore"  # the class name that stands for the ignored id in dataset.toml
_BACKGROUNDS = {"background", "bg", "other", "others", "none", "void", "unlabeled", "unlabelled"}


def ids_dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """Return the smallest dtype for this many class ids that leaves 255 to `ignore_index`."""
    import numpy as np  # `import fullconv` does not need it

    return np.uint8 if num_classes <= 255 else np.uint16


@cache
def voc_color(index: int) -> RGB:
    """Return color `index` (0-255) of the PASCAL VOC palette: its bits, spread over RGB.

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
    """Return the RGB triple of a hex color: '#804080' -> (128, 64, 128).

    Raises:
        FullconvError: the text is not of the form '#rrggbb'.
    """
    digits = text.removeprefix("#")
    if len(digits) != 6 or any(c not in "0123456789abcdefABCDEF" for c in digits):
        message = msg("color {text!r} is not of the form '#rrggbb'.", text=text)
        raise FullconvError(message, 'road = "#804080"')
    return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def format_color(color: RGB) -> str:
    """Return the hex form of a color: (128, 64, 128) -> '#804080'."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def is_background(name: str) -> bool:
    """Return whether a class name means "none of the other classes", like "__background__"."""
    return name.lower().strip("_") in _BACKGROUNDS


@dataclass(frozen=True)
class Labels:
    """The classes of a dataset or a model.

    Args:
        names: one per class; the position is the class id.
        colors: one RGB triple (0-255) per class. Default: the PASCAL VOC palette.
        ignore_index: id of ignored pixels, outside 0 .. K-1.
        values: integer or RGB triple in a mask file -> class id or `ignore_index`. Other integers
            are class ids themselves; other colors are unknown, unless they are in `colors`.
        strict_values: integers that are not in `values` have no class.
        unknown_as_ignore: values without a class are ignored instead of refused.
    """

    names: tuple[str, ...]
    colors: tuple[RGB, ...] = ()
    ignore_index: int = 255
    values: Mapping[int | RGB, int] = field(default_factory=dict)
    strict_values: bool = False
    unknown_as_ignore: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        palette = tuple(voc_color(i % 256) for i in range(len(self.names)))
        colors = tuple((int(r), int(g), int(b)) for r, g, b in self.colors)
        object.__setattr__(self, "colors", colors or palette)
        example = 'classes = ["background", "road"]'
        if not self.names:
            raise FullconvError(msg("the class table has no classes."), example)
        repeated = {name for name, count in Counter(self.names).items() if count > 1}
        if repeated or IGNORE in self.names:
            names = truncated_list(sorted(self.names))
            message = msg(
                "class names must be unique and must not be 'ignore'; they are {names}.",
                names=names,
            )
            raise FullconvError(message, example)
        counts = {"classes": len(self.names), "colors": len(self.colors)}
        if counts["classes"] != counts["colors"]:
            message = msg("the class table has {classes} classes but {colors} colors.", **counts)
            raise FullconvError(message, msg("Labels(names)   # PASCAL VOC colors"))
        if 0 <= self.ignore_index < len(self.names):
            message = msg(
                "ignore_index {index} is also the id of class {name!r}; it must be outside "
                "0..{last}.",
                index=self.ignore_index,
                name=self.names[self.ignore_index],
                last=len(self.names) - 1,
            )
            free = 255 if len(self.names) <= 255 else 65535
            raise FullconvError(message, f"ignore_index = {free}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_classes(self) -> int:
        """The number of classes, K; the background counts."""
        return len(self.names)

    @property
    def lists_colors(self) -> bool:
        """True if mask values are colors: the class of an integer may still be itself."""
        return any(isinstance(value, tuple) for value in self.values)

    @property
    def transparent_ids(self) -> tuple[int, ...]:
        """The class ids that an overlay leaves uncolored: a black background."""
        pairs = enumerate(zip(self.names, self.colors, strict=True))
        return tuple(k for k, (name, color) in pairs if color == (0, 0, 0) and is_background(name))

    def class_of(self, value: int | RGB) -> int | None:
        """Return the class id (or `ignore_index`) of a mask value, or None if it has none."""
        unknown = self.ignore_index if self.unknown_as_ignore else None
        if value in self.values:
            return self.values[value]
        if isinstance(value, tuple):
            return self.colors.index(value) if value in self.colors else unknown
        if value == self.ignore_index:
            return value
        return value if 0 <= value < len(self) and not self.strict_values else unknown

    def index(self, name: str) -> int:
        """Return the class id of a name; 'ignore' gives `ignore_index`.

        Raises:
            FullconvError: no class has that name; the hint is the most similar one.
        """
        if name == IGNORE:
            return self.ignore_index
        if name not in self.names:
            values = {"name": name, "names": truncated_list(self.names)}
            message = msg("there is no class {name!r}; the classes are {names}.", **values)
            raise FullconvError(message, f'"{nearest(str(name), self.names, cutoff=0.0)}"')
        return self.names.index(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the table for config.json, without mask values: they belong to the dataset."""
        return {
            "classes": list(self.names),
            "colors": [format_color(color) for color in self.colors],
            "ignore_index": self.ignore_index,
        }

    def to_list(self) -> list[dict[str, Any]]:
        """Return each class for the web page; `painted` tells whether an overlay colors it."""
        pairs = enumerate(zip(self.names, self.colors, strict=True))
        transparent = self.transparent_ids
        return [
            {"id": k, "name": name, "color": color, "painted": k not in transparent}
            for k, (name, color) in pairs
        ]

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Labels:
        """Read what `to_dict` wrote."""
        names: Sequence[str] = table["classes"]
        colors = tuple(parse_color(color) for color in table.get("colors", ()))
        return cls(tuple(names), colors, int(table.get("ignore_index", 255)))
