"""Label Studio: its JSON export, a list of tasks with one image each, with brush strokes, bitmasks,
polygons, rectangles and ellipses; also JSON-MIN, older exports, and one file per task.

Later regions are painted over earlier ones. Coordinates are in percent of the image's width and
height. Entries without an area (key points, choices, relations) are left out.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.text import truncated_list
from fullconv.data.annotations.brush import EXPORT_AGAIN, read_brush
from fullconv.data.annotations.image_finder import (
    ImageFinder,
    split_from_folders,
    split_from_name,
)
from fullconv.data.annotations.rasterize import (
    Ellipse,
    Part,
    RunLengths,
    Size,
    encode_run_lengths,
    is_coordinate,
    read_points,
    rotated_rectangle,
)
from fullconv.data.annotations.shapes import (
    AnnotatedImage,
    Annotations,
    Shape,
    check_image,
    class_name,
    in_place,
    numbered,
    polygon,
    require_stated_size,
)
from fullconv.data.io.images import IMAGE_SUFFIXES, open_image
from fullconv.data.layouts.annotation_formats import (
    LABEL_KEYS,
    REGION_KINDS,
    Table,
    min_regions,
    task_form,
)

_WITH_AREA = (*REGION_KINDS, *LABEL_KEYS, "labels")
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # Label Studio adds it to file names


def gather(root: Path, tables: list[tuple[Path, Any]]) -> Annotations:
    """Collect all tasks of all files. Classes are the labels of the regions, sorted by name."""
    files = truncated_list([path.name for path, _ in tables], 5)
    annotations = Annotations("label-studio", msg("the tasks in {files}", files=files))
    find, first_use, several = ImageFinder(root, "image"), dict[Path, str](), 0
    for path, table in tables:
        split = split_from_name(path) if len(tables) > 1 else ""
        for task in _tasks(path, table):
            place = msg("{path}, task {id!r}", path=path, id=task.get("id"))
            valid = [
                entry
                for entry in task["annotations"]
                if isinstance(entry, dict)
                and not (entry.get("was_cancelled") or entry.get("skipped"))
            ]
            if not valid:
                annotations.left_out[msg("tasks without an annotation")] += 1
                continue
            several += len(valid) > 1
            annotation = min(valid, key=_rank)
            with annotations.collect_problems(), in_place(place):
                image = find(path, *_image_names(task))
                size, suffix = check_image(image)
                regions = _regions(annotation, size, image, annotations.left_out)
                shapes = _shapes(regions, size, annotations.left_out)
                absolute, top = image.resolve(), root.resolve()
                if absolute in first_use:
                    values = {"image": image, "place": first_use[absolute]}
                    message = msg("its image {image} is also the image of {place}.", **values)
                    hint = msg("delete one of the two tasks in Label Studio, and export again")
                    raise FullconvError(message, hint)
                first_use[absolute] = place
                is_inside = absolute.is_relative_to(top)
                inside = absolute.relative_to(top) if is_inside else Path(image.name)
                name = inside.with_suffix("").as_posix()
                image_split = split or split_from_folders(inside)
                annotations.images.append(
                    AnnotatedImage(path, name, image_split, image, suffix, size, shapes)
                )
    annotations.names = sorted({s.name for image in annotations.images for s in image.shapes})
    annotations.notes.append(msg("class names: the labels of the regions, sorted by name"))
    if several:
        note = nmsg(
            "{count} task has several annotations: the ground truth is used, else the one "
            "with the lowest id",
            "{count} tasks have several annotations: the ground truth is used, else the one "
            "with the lowest id",
            count=several,
        )
        annotations.notes.append(note)
    return annotations


def _tasks(path: Path, table: Any) -> list[Table]:
    """Return the tasks in a file, each with "data" and "annotations"."""
    tasks: list[Table] = []
    min_tasks: dict[Any, Table] = {}  # JSON-MIN has an object per annotation, not per task
    entries = table if isinstance(table, list) else [table]
    for number, entry in numbered(entries, msg("{path}: task", path=path)):
        form = task_form(entry)
        if form == "task":
            annotations = entry.get("annotations", entry.get("completions"))
            tasks.append({**entry, "annotations": annotations})
        elif form == "result":
            tasks.append({**entry["task"], "annotations": [entry]})
        elif not form and "annotation_id" not in entry:
            tasks.append({**entry, "annotations": []})
        else:
            key = entry.get("id") if isinstance(entry.get("id"), int | str) else (number,)
            if key not in min_tasks:
                min_tasks[key] = {"id": entry.get("id"), "data": entry, "annotations": []}
                tasks.append(min_tasks[key])
            annotation = {"id": entry.get("annotation_id"), "result": min_regions(entry)}
            min_tasks[key]["annotations"].append(annotation)
    return tasks


def _rank(annotation: Table) -> tuple[bool, float]:
    """Rank the ground truth first, then the annotations by their ids."""
    number = annotation.get("id")
    return not annotation.get("ground_truth"), number if isinstance(number, int) else math.inf


def _image_names(task: Table) -> list[str]:
    """Return the names that the image of a task may have on disk, the likeliest first."""
    paths = {key: _paths(text) for key, text in task["data"].items() if isinstance(text, str)}
    image_keys = [
        key
        for key, candidates in paths.items()
        if PurePosixPath(candidates[0]).suffix.lower() in IMAGE_SUFFIXES
    ]
    key = "image" if "image" in paths else image_keys[0] if len(image_keys) == 1 else ""
    names = [PurePosixPath(path) for path in paths.get(key, []) if PurePosixPath(path).name]
    if not names:
        message = msg(
            "it is not clear which image the task belongs to: {count} of the keys in its data "
            "name an image ({keys}); expected one.",
            count=len(image_keys),
            keys=", ".join(map(str, task["data"])) or msg("it has none"),
        )
        raise FullconvError(message, '"data": {"image": "a.jpg"}')
    original = [path.with_name(_UPLOAD_PREFIX.sub("", path.name) or path.name) for path in names]
    return list(dict.fromkeys(map(str, (*names, *original))))


def _paths(text: str) -> list[str]:
    """Return the paths that an address may stand for.

    >>> _paths("/data/local-files/?d=a.jpg"), _paths("s3://bucket/a.jpg?key=1")
    (['a.jpg'], ['/a.jpg'])
    """
    text = text.replace("\\", "/")
    try:
        address = urlsplit(text)
    except ValueError:  # not an address
        return [text]
    if "local-files" in address.path and (local := parse_qs(address.query).get("d")):
        return [local[0]]
    return [unquote(address.path)] if address.scheme else [unquote(text.partition("?")[0]), text]


def _regions(annotation: Table, size: Size, image: Path, left_out: Counter[str]) -> list[Table]:
    """Return the results with an area, which all state the size of the image."""
    results = annotation.get("result")
    if not isinstance(results, list):
        message = msg("its result is {value!r}; expected a list.", value=str(results)[:40])
        raise FullconvError(message, '"result": []')
    regions = [e for _, e in numbered(results, msg("result")) if e.get("type") in _WITH_AREA]
    images = sorted({str(entry["to_name"]) for entry in regions if entry.get("to_name")})
    if len(images) > 1 or any(entry.get("item_index") for entry in regions):
        names = ", ".join(images)
        message = msg(
            "regions on several images ({images}); expected one image per task.", images=names
        )
        raise FullconvError(message, msg("import each image as a separate task"))
    for entry in regions:
        height, width = entry.get("original_height"), entry.get("original_width")
        require_stated_size(size, str(image), height, width)
        if entry.get("image_rotation"):
            message = msg(
                "the image was rotated by {degrees} degrees in Label Studio; the coordinates "
                "of its regions are then unknown.",
                degrees=entry["image_rotation"],
            )
            hint = msg("rotate the image back in Label Studio, and export again")
            raise FullconvError(message, hint)
    for kind in (entry.get("type") for entry in results):
        if kind not in _WITH_AREA:
            left_out[msg("results of the type {type}, which have no area", type=kind)] += 1
    return regions


def _shapes(regions: list[Table], size: Size, left_out: Counter[str]) -> tuple[Shape, ...]:
    # If labels and tools are separate in the interface, each region is there twice.
    labeled = {str(entry.get("id")) for entry in regions if _labels(entry)}
    shapes = []
    for number, entry in enumerate(regions, 1):
        with in_place(msg("region {number} ({type})", number=number, type=entry["type"])):
            labels = _labels(entry)
            if not labels:
                if str(entry.get("id")) not in labeled:
                    left_out[msg("regions without a label")] += 1
                continue
            if len(labels) > 1:
                values = {"count": len(labels), "labels": ", ".join(map(str, labels))}
                message = msg("{count} labels: {labels}; expected one.", **values)
                raise FullconvError(message, msg("give the region one label"))
            part = _part(entry["value"], size, left_out)
            if part is not None:
                shapes.append(Shape(class_name(labels[0]), (part,)))
    return tuple(shapes)


def _labels(entry: Table) -> list[Any]:
    value = entry.get("value")
    if not isinstance(value, dict):
        message = msg("its value is {value!r}; expected an object.", value=str(value)[:40])
        raise FullconvError(message, EXPORT_AGAIN)
    labels = value.get(entry["type"]) or value.get("labels") or []
    return labels if isinstance(labels, list) else [labels]


def _part(value: Table, size: Size, left_out: Counter[str]) -> Part | None:
    if "rle" in value:
        return read_brush(value["rle"], size)
    if "imageDataURL" in value:
        return _bitmask(value["imageDataURL"], size)
    height, width = size
    if "points" in value:
        points = read_points(value["points"])
        if points is None:
            message = msg("its points are not a list of [x, y] in percent.")
            raise FullconvError(message, EXPORT_AGAIN)
        return polygon(points * (width, height) / 100, left_out)
    # A rectangle or an ellipse: a position, two lengths and a rotation.
    is_ellipse = "radiusX" in value
    keys = ("x", "y", "radiusX", "radiusY") if is_ellipse else ("x", "y", "width", "height")
    numbers: list[Any] = [value.get(key) for key in keys]
    rotation = value.get("rotation") or 0
    if not all(map(is_coordinate, (*numbers, rotation))) or min(numbers[2:]) < 0:
        pairs = [*zip(keys, numbers, strict=True), ("rotation", rotation)]
        values = ", ".join(f"{key} {number!r}" for key, number in pairs)
        message = msg("its {values}; expected numbers, in percent and degrees.", values=values)
        raise FullconvError(message, EXPORT_AGAIN)
    x, y, right, down = np.array(numbers, np.float64) * (width, height, width, height) / 100
    return (Ellipse if is_ellipse else rotated_rectangle)(x, y, right, down, rotation)


def _bitmask(text: Any, size: Size) -> RunLengths:
    """Read a PNG as base64 text, which is transparent outside the region."""
    try:
        content = base64.b64decode(str(text).partition("base64,")[2], validate=False)
    except (binascii.Error, ValueError):
        content = b""
    with open_image(io.BytesIO(content), "bitmask") as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    if alpha.shape != size:
        message = msg(
            "a bitmask of {width} x {height} pixels, but the image has {image_width} x "
            "{image_height} (width x height).",
            width=alpha.shape[1],
            height=alpha.shape[0],
            image_width=size[1],
            image_height=size[0],
        )
        raise FullconvError(message, EXPORT_AGAIN)
    return encode_run_lengths(alpha > 0)
