"""labelme: one JSON file per image, with polygons, rectangles, circles and small masks.

Later shapes are painted over earlier ones, as labelme does. `group_id` joins the parts of an
object, which class ids do not need. Points and lines have no area and are left out. The image is
inside the file (`imageData`) or next to it (`imagePath`).
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
from fullconv.core.i18n import msg, nmsg
from fullconv.core.labels import IGNORE
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.annotations.rasterize import Disc, Part, Stamp, read_points, rectangle
from fullconv.data.annotations.shapes import (
    BACKGROUND,
    AnnotatedImage,
    Annotations,
    Shape,
    check_image,
    class_name,
    in_place,
    numbered,
    polygon,
)
from fullconv.data.io.masks import read_values
from fullconv.data.layouts.pairing import SPLITS

CLASS_LIST = "labels.txt"  # the argument of labelme's own scripts: one name per line
_POLYGONS = ("polygon", "rotation", "oriented_rectangle", None)
_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_SHAPE_TYPES = (*_POLYGONS[:-1], "rectangle", "circle", "mask", *_WITHOUT_AREA)


def read_file(
    path: Path, table: dict[str, Any], root: Path, left_out: Counter[str]
) -> AnnotatedImage:
    """Read the shapes of one file. `left_out` counts the entries that cover no pixels."""
    shapes = []
    for number, entry in numbered(table["shapes"], msg("{path}: shape", path=path)):
        values = {"path": path, "number": number, "label": entry.get("label")}
        with in_place(msg("{path}, shape {number} ({label!r})", **values)):
            part = _part(entry, left_out)
            if part is not None:
                shapes.append(Shape(class_name(entry.get("label")), (part,)))
    image = None if table.get("imageData") else _find_image(path, table)
    with in_place(str(path)):
        source = image or io.BytesIO(image_bytes(table))
        size, suffix = check_image(source, table.get("imageHeight"), table.get("imageWidth"))
    inside = path.relative_to(root)
    split = SPLITS.get(inside.parts[0].lower(), "") if len(inside.parts) > 1 else ""
    name = inside.with_name(path.name[: -len(path.suffix)]).as_posix()
    return AnnotatedImage(path, name, split, image, suffix, size, tuple(shapes))


def gather(root: Path, annotations: Annotations) -> Annotations:
    """Add the class names, the reason and notes to the annotations.

    Class names come from the labels.txt next to the files or above them, else from the shapes.

    Raises:
        FullconvError: several labels.txt disagree, or one is not a list of names.
    """
    images = annotations.images
    count = len(images) + len(annotations.problems)
    annotations.reason = nmsg(
        '{count} JSON file with "shapes"', '{count} JSON files with "shapes"', count
    )
    class_lists: dict[Path, list[str]] = {}
    for folder in {image.source.parent for image in images}:
        above = [p for p in (folder, *folder.parents) if p.is_relative_to(root)]
        lists = (p / CLASS_LIST for p in (*above, root.resolve().parent))
        path = next((p for p in lists if p.is_file()), None)
        if path is not None:
            lines = path.read_text("utf-8-sig", errors="replace").splitlines()
            class_lists[path.resolve()] = [class_name(line) for line in lines if line.strip()]
    if len(class_lists) > 1:
        paths = truncated_list(sorted(class_lists))
        values = {"root": root, "count": len(class_lists), "paths": paths}
        message = msg(
            "{root} contains {count} projects with different class lists: {paths}; expected one.",
            **values,
        )
        hint = shell_command("fullconv", "convert", min(class_lists).parent, "OUT")
        raise FullconvError(message, hint)
    if not class_lists:
        annotations.names = sorted({shape.name for image in images for shape in image.shapes})
        note = msg(
            "class names: the labels of the shapes, sorted by name (no {file})", file=CLASS_LIST
        )
        annotations.notes.append(note)
    for path, names in class_lists.items():
        annotations.names = names
        annotations.notes.append(msg("class names from {path}", path=path))
        for image in images:
            unknown = sorted({s.name for s in image.shapes} - {*names, IGNORE, BACKGROUND})
            if unknown:
                message = msg(
                    "{source}: labels that are not in {path}: {labels}; expected one of {names}.",
                    source=image.source,
                    labels=truncated_list([repr(name) for name in unknown]),
                    path=path,
                    names=truncated_list(names),
                )
                hint = f"{shell_command('echo', unknown[0])} >> {shell_command(path)}"
                annotations.problems.append(FullconvError(message, hint))
    return annotations


def image_bytes(table: dict[str, Any]) -> bytes:
    """Return the image inside a file."""
    return _decode_base64(table["imageData"], "imageData")


def _part(entry: dict[str, Any], left_out: Counter[str]) -> Part | None:
    kind = entry.get("shape_type")
    if kind not in (*_SHAPE_TYPES, None):
        kinds = ", ".join(_SHAPE_TYPES)
        message = msg(
            "unknown shape_type {kind!r}; expected one of {kinds}.", kind=kind, kinds=kinds
        )
        raise FullconvError(message, msg('draw it as a polygon: "shape_type": "polygon"'))
    points = read_points(entry.get("points"))
    if points is None:
        message = msg("its points are not a list of [x, y] in pixels.")
        raise FullconvError(message, '"points": [[0, 0], [9, 0], [9, 9]]')
    if kind in _WITHOUT_AREA:
        left_out[msg("points or lines, which have no area")] += 1
        return None
    if kind in _POLYGONS or (kind == "rectangle" and len(points) == 4):
        return polygon(points, left_out)
    if len(points) != 2:
        message = nmsg(
            "a {kind} with {count} point; expected two.",
            "a {kind} with {count} points; expected two.",
            count=len(points),
            kind=kind,
        )
        raise FullconvError(message, '"points": [[0, 0], [9, 9]]')
    (x0, y0), (x1, y1) = points.tolist()
    if kind == "rectangle":
        return rectangle(x0, y0, x1, y1)
    if kind == "circle":  # its center and a point on the outline
        return Disc(x0, y0, math.hypot(x1 - x0, y1 - y0))
    values = read_values(io.BytesIO(_decode_base64(entry.get("mask"), "mask")))
    mask = np.asarray(values.reshape(*values.shape[:2], -1)[..., 0] != 0)
    return Stamp(round(x0), round(y0), mask)


def _decode_base64(text: Any, key: str) -> bytes:
    try:
        return base64.b64decode(text, validate=False)
    except (binascii.Error, ValueError, TypeError) as error:
        message = msg("its {key} is not an image as base64 text.", key=key)
        raise FullconvError(message, msg("save the file again with labelme")) from error


def _find_image(path: Path, table: dict[str, Any]) -> Path:
    """Return the image that `imagePath` names relative to the file, or of that name next to it."""
    name = table.get("imagePath")
    if not isinstance(name, str) or not name:
        message = msg(
            "{path} has neither imageData nor imagePath, so there is no image.", path=path
        )
        raise FullconvError(message, f'"imagePath": "{path.stem}.jpg"')
    relative = Path(name.replace("\\", "/"))
    candidates = (path.parent / relative, path.parent / relative.name)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    values = {"path": path, "name": name, "candidate": candidates[0]}
    message = msg(
        "{path}: the image is missing; its imagePath is {name!r}, and there is no {candidate}.",
        **values,
    )
    raise FullconvError(message, shell_command("cp", f"/path/to/{relative.name}", path.parent))
