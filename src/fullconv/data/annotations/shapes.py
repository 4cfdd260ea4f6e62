"""The shapes that an annotation file draws on an image, and painting them as class ids.

A `Shape` is a class and the parts of one object. An `AnnotatedImage` is an image and its shapes,
the lowest first. Each shape is painted over those before it; the rest is background, class 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import IGNORE, Labels
from fullconv.data.annotations.rasterize import Part, Polygon, Size
from fullconv.data.io.images import IMAGE_SUFFIXES, Source, image_size, open_image, source_name
from fullconv.data.io.masks import mask_dtype

BACKGROUND = "background"  # class 0
_BACKGROUNDS = ("background", "_background_", "__background__")
_IGNORED = ("__ignore__", "_ignore_", IGNORE, "void")
_SUFFIXES = {"JPEG": ".jpg", "JPEG2000": ".jp2"}  # of formats whose suffix is not their name


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
    """An image as an annotation file describes it."""

    source: Path  # the annotation file
    name: str  # path without suffix, relative to the dataset
    split: str  # "train", "val", "test", or "" if unknown
    image: Path | None  # None if the image is inside `source`
    suffix: str  # of the image, such as ".jpg"
    size: Size  # (H, W), upright
    shapes: tuple[Shape, ...]  # the lowest first


@dataclass
class Annotations:
    """The content of the annotation files of one tool: images, and a problem for each file or image
    that cannot be converted."""

    tool: str  # "labelme", "coco", "label-studio" or "ultralytics"; "" if there are no files
    reason: str  # what the tool was recognized by
    names: list[str] = field(default_factory=list)  # of the classes, in the order of their ids
    images: list[AnnotatedImage] = field(default_factory=list)
    problems: list[FullconvError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # decisions that the user should know
    left_out: Counter[str] = field(default_factory=Counter)  # entries that cover no pixels
    others: list[str] = field(default_factory=list)  # JSON files of other kinds, with their keys

    @contextmanager
    def collect_problems(self) -> Iterator[None]:
        """Add an error inside the block to the problems."""
        try:
            yield
        except FullconvError as error:
            self.problems.append(error)


def class_name(label: Any) -> str:
    """Return the class of a label: "background" for `_background_`, "ignore" for `__ignore__` and
    void, otherwise the label itself."""
    name = str(label).strip() if isinstance(label, str | int) else ""
    if not name or not name.isprintable():
        message = msg("the label {label!r} is not a name.", label=label)
        raise FullconvError(message, '"label": "road"')
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

    Raises:
        FullconvError: the annotation file states another height or width.
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
    """Raise an error unless an image has the height and width that an annotation file states."""
    stated = (size[0] if height is None else height, size[1] if width is None else width)
    if stated == size:
        return
    values = {"stated_width": stated[1], "stated_height": stated[0], "name": name}
    values |= {"width": size[1], "height": size[0]}
    if stated == size[::-1]:
        message = msg(
            "says {stated_width} x {stated_height} pixels, the size before the EXIF rotation, but "
            "{name} has {width} x {height} (width x height): it is not the image that was "
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
    hint = msg("copy the original of {file} there, or annotate it again", file=file)
    raise FullconvError(message, hint)


def polygon(points: NDArray[np.float64], left_out: Counter[str]) -> Polygon | None:
    """Return a polygon; count it as left out if it has fewer than three points."""
    if len(points) >= 3:
        return Polygon(points)
    left_out[msg("polygons with fewer than three points")] += 1
    return None


def overlap_note(by_area: bool) -> str:
    """Return the note on which of overlapping shapes is on top."""
    if by_area:
        return msg("of overlapping shapes the smaller is on top (--order file: the later one)")
    return msg("of overlapping shapes the later is on top (--order area: the smaller one)")


def numbered(entries: Any, place: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects in a list, whose place messages name, with their numbers from 1."""
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            values = {"place": place, "number": number, "entry": str(entry)[:40]}
            message = msg("{place} {number} is {entry!r}; expected an object.", **values)
            raise FullconvError(message, '{"id": 1}')
        yield number, entry


@contextmanager
def in_place(place: str) -> Iterator[None]:
    """Begin the message of an error inside the block with the place of the mistake."""
    try:
        yield
    except FullconvError as error:
        message = msg("{place}: {message}", place=place, message=error.message)
        raise FullconvError(message, error.hint) from error
