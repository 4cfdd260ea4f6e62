"""Shapes: what an annotation file draws on an image, and painting it into class ids.

A `Shape` is a class and the parts of one object; an `Annotated` is an image and its shapes, the
lowest first. Painting puts each over those before it; what no shape covers is background, class 0.

Shapes: H, W image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.core.labels import IGNORE, Labels
from fullconv.data.annotations.rasterize import Patch, Size
from fullconv.data.io.images import IMAGE_SUFFIXES, Source, image_size, open_image, source_name
from fullconv.data.io.masks import mask_dtype

BACKGROUND = "background"  # class 0
_BACKGROUNDS = ("background", "_background_", "__background__")
_IGNORED = ("__ignore__", "_ignore_", IGNORE, "void")
_SUFFIXES = {"JPEG": ".jpg", "JPEG2000": ".jp2"}  # of Pillow's formats; else the format's name


class Part(Protocol):
    """Polygon, Disc, Ellipse, Runs or Stamp."""

    @property
    def area(self) -> float: ...

    def pixels(self, size: Size) -> Patch: ...


@dataclass(frozen=True, eq=False)
class Stamp:
    """A small mask whose upper left pixel is at column x and row y."""

    x: int
    y: int
    mask: NDArray[np.bool_]

    @property
    def area(self) -> float:
        return float(self.mask.sum())

    def pixels(self, size: Size) -> Patch:
        height, width = self.mask.shape
        top, bottom = np.clip((self.y, self.y + height), 0, size[0]).tolist()
        left, right = np.clip((self.x, self.x + width), 0, size[1]).tolist()
        inside = self.mask[top - self.y : bottom - self.y, left - self.x : right - self.x]
        return slice(top, bottom), slice(left, right), inside


@dataclass(frozen=True, eq=False)
class Shape:
    """An object: the name of its class (or "ignore") and its parts."""

    name: str
    parts: tuple[Part, ...]

    @property
    def area(self) -> float:
        """In square pixels; overlaps of the parts count twice."""
        return sum(part.area for part in self.parts)


@dataclass(frozen=True, eq=False)
class Annotated:
    """An image as an annotation file describes it.

    Args:
        source: the annotation file.
        name: what to call it: a path without suffix, relative to the data set.
        split: "train", "val", "test", or "" where none is known.
        image: the file; None where the image stands inside `source`.
        suffix: of the image, such as ".jpg".
        size: (H, W), upright.
        shapes: the lowest first.
    """

    source: Path
    name: str
    split: str
    image: Path | None
    suffix: str
    size: Size
    shapes: tuple[Shape, ...]


@dataclass
class Annotations:
    """What the annotation files of one tool hold.

    Args:
        tool: "labelme", "coco", "label-studio" or "ultralytics".
        reason: what it was recognised by, in words.
        names: class names, in their order.
        images: those that can be read.
        problems: one for each file or image that cannot.
        notes: what was decided without being told.
        left_out: what is read but leaves no pixel, in words -> how often.
        others: JSON files of another kind, with their keys.
    """

    tool: str
    reason: str
    names: list[str] = field(default_factory=list)
    images: list[Annotated] = field(default_factory=list)
    problems: list[FullconvError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)


def class_name(label: Any) -> str:
    """The class that a label stands for: "background" for `_background_`, "ignore" for
    `__ignore__` and void, else itself."""
    name = str(label).strip() if isinstance(label, str | int) else ""
    if not name or not name.isprintable():
        raise FullconvError(f"the label {label!r}; expected a name.", '"label": "road"')
    if name.lower() in _BACKGROUNDS:
        return BACKGROUND
    return IGNORE if name.lower() in _IGNORED else name


def class_table(names: Iterable[str]) -> Labels:
    """Background and then the names, each once, in their order."""
    classes = tuple(dict.fromkeys((BACKGROUND, *(name for name in names if name != IGNORE))))
    return Labels(classes, ignore_index=255 if len(classes) <= 255 else 65535)


def paint(annotated: Annotated, labels: Labels) -> tuple[NDArray[Any], int]:
    """(H, W) class ids, and how many shapes hold the centre of no pixel."""
    ids = np.zeros(annotated.size, mask_dtype(labels))
    lost = 0
    for shape in annotated.shapes:
        class_id, hit = labels.index(shape.name), False
        for part in shape.parts:
            rows, columns, inside = part.pixels(annotated.size)
            ids[rows, columns][inside] = class_id
            hit = hit or bool(inside.any())
        lost += not hit
    return ids, lost


def look_at(image: Source, height: Any, width: Any) -> tuple[Size, str]:
    """(H, W) of an image, which must be what its annotation says (None: nothing), and the suffix
    that its format has."""
    size = image_size(image)
    told = (size[0] if height is None else height, size[1] if width is None else width)
    if told != size:
        turned = ", as the image lies in its file, before its EXIF rotation" * (told == size[::-1])
        raise FullconvError(
            f"says {told[1]} x {told[0]} pixels{turned}, but {source_name(image)} has "
            f"{size[1]} x {size[0]} (width x height): it is not the image that was annotated.",
            f"copy the original of {Path(source_name(image)).name} there, or annotate it again",
        )
    if isinstance(image, str | Path) and Path(image).suffix.lower() in IMAGE_SUFFIXES:
        return size, Path(image).suffix
    if not isinstance(image, str | Path):
        image.seek(0)
    with open_image(image) as file:
        kind = str(file.format)
    return size, _SUFFIXES.get(kind, f".{kind.lower()}")


def numbered(what: str, entries: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """The entries of a list of objects, from 1."""
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise FullconvError(
                f"{what} {number} is {str(entry)[:40]!r}; expected an object.",
                f'"{what}": [{{"id": 1}}]',
            )
        yield number, entry
