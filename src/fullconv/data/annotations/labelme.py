"""labelme: one JSON file per image, with polygons, rectangles, circles and small masks.

A later shape lies over an earlier one, as in labelme's own export. `group_id` joins the parts of an
object, which ids of classes do not need. Points and lines have no area and leave no pixel. The
image stands inside the file (`imageData`) or beside it (`imagePath`).
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.labels import IGNORE
from fullconv.core.text import plural, shell_command
from fullconv.data.annotations.rasterize import Disc, Polygon, read_points, rectangle
from fullconv.data.annotations.shapes import (
    BACKGROUND,
    Annotated,
    Annotations,
    Part,
    Shape,
    Stamp,
    class_name,
    look_at,
    numbered,
)
from fullconv.data.io.masks import read_values
from fullconv.data.layouts.pairing import SPLITS

CLASS_LIST = "labels.txt"  # what labelme's own scripts are given: a name on a line
_POLYGONS = ("polygon", "rotation", "oriented_rectangle", None)
_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_KNOWN = (*_POLYGONS[:-1], "rectangle", "circle", "mask", *_WITHOUT_AREA)


def read_file(path: Path, table: dict[str, Any], root: Path, left_out: Counter[str]) -> Annotated:
    """The image of one file. `left_out` counts, in words, what is read but leaves no pixel."""
    shapes = []
    for number, entry in numbered(f"{path}: shape", table["shapes"]):
        label = entry.get("label")
        try:
            part = _part(entry, left_out)
            if part is not None:
                shapes.append(Shape(class_name(label), (part,)))
        except FullconvError as error:
            where = f"{path}, shape {number} ({label!r})"
            raise FullconvError(f"{where}: {error.message}", error.hint) from error
    height, width = table.get("imageHeight"), table.get("imageWidth")
    image = None if table.get("imageData") else _image(path, table)
    try:
        size, suffix = look_at(image or io.BytesIO(image_bytes(table)), height, width)
    except FullconvError as error:
        raise FullconvError(f"{path}: {error.message}", error.hint) from error
    inside = path.relative_to(root)
    split = SPLITS.get(inside.parts[0].lower(), "") if len(inside.parts) > 1 else ""
    name = inside.with_name(path.name[: -len(path.suffix)]).as_posix()
    return Annotated(path, name, split, image, suffix, size, tuple(shapes))


def gather(root: Path, drawn: list[Annotated], problems: list[FullconvError]) -> Annotations:
    """All files of a folder, of which some could not be read. Class names are those of the
    labels.txt next to the files or above them, else those of the shapes."""
    files = plural(len(drawn) + len(problems), "JSON file")
    found = Annotations("labelme", f'{files} with "shapes"')
    found.images, found.problems = drawn, problems
    lists: dict[Path, list[str]] = {}
    for folder in {image.source.parent for image in drawn}:
        above = [p for p in (folder, *folder.parents) if p.is_relative_to(root)]
        nearest = read_classes([*above, root.resolve().parent])
        if nearest is not None:
            lists[nearest[1].resolve()] = nearest[0]
    if len(lists) > 1:
        listed = ", ".join(map(str, sorted(lists)))
        raise FullconvError(
            f"{root} holds {len(lists)} projects with class lists of their own: {listed}; "
            "expected one.",
            shell_command("fullconv", "convert", min(lists).parent, "OUT"),
        )
    if not lists:
        found.names = sorted({shape.name for image in drawn for shape in image.shapes})
        found.notes.append(f"class names: the labels of the shapes, by name (no {CLASS_LIST})")
    for path, names in lists.items():
        found.names = names
        found.notes.append(f"class names from {path}")
        for image in drawn:
            strange = sorted({s.name for s in image.shapes} - {*names, IGNORE, BACKGROUND})
            if strange:
                found.problems.append(
                    FullconvError(
                        f"{image.source}: label {', '.join(map(repr, strange))} is not in "
                        f"{path}, which has {', '.join(names)}.",
                        f"{shell_command('echo', strange[0])} >> {shell_command(path)}",
                    )
                )
    return found


def image_bytes(table: dict[str, Any]) -> bytes:
    """The image that stands inside a file."""
    return _decoded(table["imageData"], "imageData")


def read_classes(folders: list[Path]) -> tuple[list[str], Path] | None:
    """The names in the first labels.txt of some folders, and where it lies."""
    for folder in folders:
        path = folder / CLASS_LIST
        if path.is_file():
            lines = path.read_text("utf-8-sig", errors="replace").splitlines()
            return [class_name(line) for line in lines if line.strip()], path
    return None


def _part(entry: dict[str, Any], left_out: Counter[str]) -> Part | None:
    """What a shape covers, or None where it has no area."""
    kind = entry.get("shape_type")
    if kind not in (*_KNOWN, None):
        raise FullconvError(
            f"unknown shape_type {kind!r}; there are {', '.join(_KNOWN)}.",
            'draw it as a polygon: "shape_type": "polygon"',
        )
    points = read_points(entry.get("points"))
    if points is None:
        raise FullconvError(
            "its points are no list of [x, y] in pixels.", '"points": [[0, 0], [9, 0], [9, 9]]'
        )
    if kind in _WITHOUT_AREA:
        left_out["points or lines, which have no area"] += 1
        return None
    if kind in _POLYGONS or (kind == "rectangle" and len(points) == 4):
        if len(points) < 3:
            left_out["polygons of less than three points"] += 1
            return None
        return Polygon(points)
    if len(points) != 2:
        raise FullconvError(
            f"a {kind} of {len(points)} points; expected two.", '"points": [[0, 0], [9, 9]]'
        )
    (x0, y0), (x1, y1) = points.tolist()
    if kind == "rectangle":
        return rectangle(x0, y0, x1, y1)
    if kind == "circle":  # its centre and a point on its rim
        return Disc(x0, y0, math.hypot(x1 - x0, y1 - y0))
    return _stamp(entry, round(x0), round(y0))


def _stamp(entry: dict[str, Any], x: int, y: int) -> Stamp:
    """Of a small image of a mask, encoded as text."""
    values = read_values(io.BytesIO(_decoded(entry.get("mask"), "mask")))
    return Stamp(x, y, np.asarray(values.reshape(*values.shape[:2], -1)[..., 0] != 0))


def _decoded(text: Any, key: str) -> bytes:
    try:
        return base64.b64decode(text, validate=False)
    except (binascii.Error, ValueError, TypeError) as error:
        raise FullconvError(
            f"its {key} is no image as base64 text.", "save the file again with labelme"
        ) from error


def _image(path: Path, table: dict[str, Any]) -> Path:
    """The file that `imagePath` names, relative to the JSON file, or of that name beside it."""
    named = table.get("imagePath")
    if not isinstance(named, str) or not named:
        raise FullconvError(
            f"{path}: neither imageData nor imagePath, so there is no image.",
            f'"imagePath": "{path.stem}.jpg"',
        )
    relative = Path(named.replace("\\", "/"))
    places = (path.parent / relative, path.parent / relative.name)
    for place in places:
        if place.is_file():
            return place
    raise FullconvError(
        f"{path}: the image is missing; its imagePath is {named!r}, and there is no {places[0]}.",
        shell_command("cp", f"/where/it/is/{relative.name}", path.parent),
    )
