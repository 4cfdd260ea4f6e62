"""The shapes that an annotation file draws on an image, and painting them as class ids.

A `Shape` is a class and the parts of one object. An `AnnotatedImage` is an image and its shapes,
the lowest first. Each shape is painted over those before it; the rest is background, class 0.

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
from fullconv.core.i18n import msg
from fullconv.core.labels import IGNORE, Labels
from fullconv.data.annotations.rasterize import Patch, Size
from fullconv.data.io.images import IMAGE_SUFFIXES, Source, image_size, open_image, source_name
from fullconv.data.io.masks import mask_dtype

BACKGROUND = "background"  # class 0
_BACKGROUNDS = ("background", "_background_", "__background__")
_IGNORED = ("__ignore__", "_ignore_", IGNORE, "void")
_SUFFIXES = {"JPEG": ".jpg", "JPEG2000": ".jp2"}  # of formats whose suffix is not their name


class Part(Protocol):
    """Polygon, Disc, Ellipse, RunLengths or Stamp."""

    @property
    def area(self) -> float: ...

    def pixels(self, size: Size) -> Patch: ...


@dataclass(frozen=True, eq=False)
class Stamp:
    """A small mask with its upper left pixel at column x and row y."""

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
    """An object: the name of its class, or "ignore", and its parts."""

    name: str
    parts: tuple[Part, ...]

    @property
    def area(self) -> float:
        """Area in square pixels; overlaps of the parts count twice."""
        return sum(part.area for part in self.parts)


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image as an annotation file describes it.

    Args:
        source: the annotation file.
        name: path without suffix, relative to the dataset.
        split: "train", "val", "test", or "" if unknown.
        image: the image file; None if the image is inside `source`.
        suffix: suffix of the image, such as ".jpg".
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
    """The content of the annotation files of one tool.

    Args:
        tool: "labelme", "coco", "label-studio" or "ultralytics"; "" if there are no files.
        reason: what the tool was recognized by.
        names: class names, in the order of their ids.
        images: the images that can be converted.
        problems: an error for each file or image that cannot.
        notes: decisions that the user should know.
        left_out: description of entries that cover no pixels -> how many.
        others: JSON files of other kinds, with their keys.
    """

    tool: str
    reason: str
    names: list[str] = field(default_factory=list)
    images: list[AnnotatedImage] = field(default_factory=list)
    problems: list[FullconvError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)


def class_name(label: Any) -> str:
    """Return the class of a label: "background" for `_background_`, "ignore" for `__ignore__` and
    void, otherwise the label itself."""
    name = str(label).strip() if isinstance(label, str | int) else ""
    if not name or not name.isprintable():
        raise FullconvError(
            msg("the label {label!r} is not a name.", label=label), '"label": "road"'
        )
    if name.lower() in _BACKGROUNDS:
        return BACKGROUND
    return IGNORE if name.lower() in _IGNORED else name


def class_table(names: Iterable[str]) -> Labels:
    """Return a class table of background and the names, each once, in their order."""
    classes = tuple(dict.fromkeys((BACKGROUND, *(name for name in names if name != IGNORE))))
    return Labels(classes, ignore_index=255 if len(classes) <= 255 else 65535)


def paint(annotated: AnnotatedImage, labels: Labels) -> tuple[NDArray[Any], int]:
    """Return (H, W) class ids, and the number of shapes that contain no pixel center."""
    import rasterio

    ids = np.zeros(annotated.size, mask_dtype(labels))
    empty_shapes = 0
    with rasterio.Env():  # one for all polygons, because each would enter and leave its own
        for shape in annotated.shapes:
            class_id, is_empty = labels.index(shape.name), True
            for part in shape.parts:
                rows, columns, inside = part.pixels(annotated.size)
                ids[rows, columns][inside] = class_id
                is_empty = is_empty and not inside.any()
            empty_shapes += is_empty
    return ids, empty_shapes


def check_image(image: Source, height: Any = None, width: Any = None) -> tuple[Size, str]:
    """Return (H, W) of an image and the suffix of its format.

    Args:
        height, width: the size by the annotation file; None if it does not tell.

    Raises:
        FullconvError: the image has another size.
    """
    size = image_size(image)
    require_stated_size(size, source_name(image), height, width)
    if isinstance(image, str | Path):
        if Path(image).suffix.lower() in IMAGE_SUFFIXES:
            return size, Path(image).suffix
    else:
        image.seek(0)
    with open_image(image) as opened:
        image_format = str(opened.format)
    return size, _SUFFIXES.get(image_format, f".{image_format.lower()}")


def require_stated_size(size: Size, name: str, height: Any, width: Any) -> None:
    """Check that an image has the size that an annotation file states.

    Args:
        size: (H, W) of the image.
        name: name of the image in messages.
        height, width: the size by the annotation file; None if it does not tell.

    Raises:
        FullconvError: the image has another size.
    """
    stated = (size[0] if height is None else height, size[1] if width is None else width)
    if stated != size:
        values = {
            "name": name,
            "width": size[1],
            "height": size[0],
            "stated_width": stated[1],
            "stated_height": stated[0],
        }
        if stated == size[::-1]:
            message = msg(
                "says {stated_width} x {stated_height} pixels, the size before the EXIF rotation, "
                "but {name} has {width} x {height} (width x height): it is not the image that was "
                "annotated.",
                **values,
            )
        else:
            message = msg(
                "says {stated_width} x {stated_height} pixels, but {name} has {width} x {height} "
                "(width x height): it is not the image that was annotated.",
                **values,
            )
        file = Path(name).name
        raise FullconvError(
            message, msg("copy the original of {file} there, or annotate it again", file=file)
        )


def overlap_note(by_area: bool) -> str:
    """Return the note on which of overlapping shapes is on top."""
    if by_area:
        return msg("of overlapping shapes the smaller is on top (--order file: the later one)")
    return msg("of overlapping shapes the later is on top (--order area: the smaller one)")


def numbered(entries: Any, place: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects in a list with their numbers from 1.

    Args:
        place: where the list is, for messages.
    """
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            message = msg(
                "{place} {number} is {entry!r}; expected an object.",
                place=place,
                number=number,
                entry=str(entry)[:40],
            )
            raise FullconvError(message, '{"id": 1}')
        yield number, entry


def in_place(place: str, error: FullconvError) -> FullconvError:
    """Return an error whose message begins with the place of the mistake."""
    message = msg("{place}: {message}", place=place, message=error.message)
    return FullconvError(message, error.hint)
