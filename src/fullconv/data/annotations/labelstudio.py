"""Label Studio: its JSON export, a list of tasks of an image each, with brush strokes, bitmasks,
polygons, rectangles and ellipses; also JSON-MIN, older exports, and a file for each task.

A later region lies over an earlier one. Places are in percent of the image's width and height. Of
several annotations of a task one counts: the ground truth, else that of the lowest id; cancelled
ones never do. What has no area (key points, choices, relations ...) leaves no pixel.

Shapes: H, W image.
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
from fullconv.data.annotations.coco import split_of
from fullconv.data.annotations.image_finder import Finder, split_in
from fullconv.data.annotations.rasterize import (
    Ellipse,
    Polygon,
    Runs,
    Size,
    is_place,
    read_points,
    runs_of,
    turned_rectangle,
)
from fullconv.data.annotations.shapes import (
    Annotated,
    Annotations,
    Part,
    Shape,
    class_name,
    look_at,
    numbered,
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
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of a file


def gather(root: Path, tables: list[tuple[Path, Any]]) -> Annotations:
    """All tasks of all files. Classes are the labels of the regions, by name."""
    found = Annotations(
        "label-studio", f"{', '.join(path.name for path, _ in tables[:5])} of tasks"
    )
    find, seen, several = Finder(root, "image"), dict[Path, str](), 0
    for path, table in tables:
        split = split_of(path) if len(tables) > 1 else ""
        for task in _tasks(path, table):
            where = f"{path}, task {task.get('id')!r}"
            kept = _kept(task)
            if not kept:
                found.left_out["tasks without an annotation"] += 1
                continue
            several += len(kept) > 1
            try:
                image = find(path, *_names(task))
                size, suffix = _looked_at(image, kept[0])
                shapes = _shapes(kept[0], size, found.left_out)
                if image.resolve() in seen:
                    raise FullconvError(
                        f"its image {image} is that of {seen[image.resolve()]} too.",
                        "delete one of the two tasks in Label Studio, and export again",
                    )
            except FullconvError as error:
                found.problems.append(FullconvError(f"{where}: {error.message}", error.hint))
                continue
            seen[image.resolve()] = where
            whole, top = image.resolve(), root.resolve()
            inside = whole.relative_to(top) if whole.is_relative_to(top) else Path(image.name)
            found.images.append(
                Annotated(
                    path,
                    inside.with_suffix("").as_posix(),
                    split or split_in(inside),
                    image,
                    suffix,
                    size,
                    shapes,
                )
            )
    found.names = sorted({shape.name for image in found.images for shape in image.shapes})
    found.notes.append("class names: the labels of the regions, by name")
    if several:
        found.notes.append(
            f"{several} tasks have several annotations: of each the ground truth counts, else the "
            "one of the lowest id"
        )
    return found


def _tasks(path: Path, table: Any) -> list[Table]:
    """The tasks in a file, each with its "data" and "annotations"."""
    tasks: list[Table] = []
    shortened: dict[Any, Table] = {}  # tasks of JSON-MIN, which has an object per annotation
    for number, entry in numbered(f"{path}: task", table if isinstance(table, list) else [table]):
        form = task_form(entry)
        if form == "task":
            listed = entry.get("annotations", entry.get("completions"))
            tasks.append({**entry, "annotations": listed})
        elif form == "result":
            tasks.append({**entry["task"], "annotations": [entry]})
        elif not form and "annotation_id" not in entry:
            tasks.append({**entry, "annotations": []})
        else:
            key = entry.get("id") if isinstance(entry.get("id"), int | str) else (number,)
            if key not in shortened:
                shortened[key] = {"id": entry.get("id"), "data": entry, "annotations": []}
                tasks.append(shortened[key])
            annotation = {"id": entry.get("annotation_id"), "result": min_regions(entry)}
            shortened[key]["annotations"].append(annotation)
    return tasks


def _kept(task: Table) -> list[Table]:
    """The annotations of a task that were not cancelled, the one that counts first."""
    kept = [
        entry
        for entry in task["annotations"]
        if isinstance(entry, dict) and not (entry.get("was_cancelled") or entry.get("skipped"))
    ]

    def rank(entry: Table) -> tuple[bool, float]:
        number = entry.get("id")
        return not entry.get("ground_truth"), number if isinstance(number, int) else math.inf

    return sorted(kept, key=rank)


def _names(task: Table) -> list[str]:
    """What the image of a task may be called on disk, the likeliest first."""
    paths = {key: _paths(text) for key, text in task["data"].items() if isinstance(text, str)}
    images = [
        key
        for key, found in paths.items()
        if PurePosixPath(found[0]).suffix.lower() in IMAGE_SUFFIXES
    ]
    key = "image" if "image" in paths else images[0] if len(images) == 1 else None
    named = [PurePosixPath(path) for path in paths.get(key or "", []) if PurePosixPath(path).name]
    if not named:
        raise FullconvError(
            f"it is open which image it is of: {len(images)} of its data name one "
            f"({', '.join(map(str, task['data'])) or 'there are none'}); expected one.",
            '"data": {"image": "a.jpg"}',
        )
    bare = [path.with_name(_UPLOADED.sub("", path.name) or path.name) for path in named]
    return list(dict.fromkeys(map(str, (*named, *bare))))


def _paths(text: str) -> list[str]:
    """/data/upload/1/a.jpg, s3://bucket/a.jpg?key=1, /data/local-files/?d=a.jpg -> paths"""
    text = text.replace("\\", "/")
    try:
        address = urlsplit(text)
    except ValueError:  # no address at all
        return [text]
    if "local-files" in address.path and (local := parse_qs(address.query).get("d")):
        return [local[0]]
    return [unquote(address.path)] if address.scheme else [unquote(text.partition("?")[0]), text]


def _looked_at(image: Path, annotation: Table) -> tuple[Size, str]:
    """(H, W) of an image, which must be that of every region, and the suffix of its format."""
    size, suffix = look_at(image, None, None)
    for entry in _results(annotation):
        look_at(image, entry.get("original_height"), entry.get("original_width"))
        if entry.get("image_rotation"):
            raise FullconvError(
                f"the image was turned by {entry['image_rotation']} degrees in Label Studio, and "
                "it is not known how its regions lie then.",
                "turn the image back in Label Studio, and export again",
            )
    return size, suffix


def _results(annotation: Table) -> list[Table]:
    """The results with an area."""
    listed = annotation.get("result")
    if not isinstance(listed, list):
        raise FullconvError(f"its result is {str(listed)[:40]!r}; expected a list.", '"result": []')
    found = [entry for _, entry in numbered("result", listed) if entry.get("type") in _WITH_AREA]
    images = sorted({str(entry["to_name"]) for entry in found if entry.get("to_name")})
    if len(images) > 1 or any(entry.get("item_index") for entry in found):
        raise FullconvError(
            f"regions on several images ({', '.join(images)}); expected an image per task.",
            "import each image as a task of its own",
        )
    return found


def _shapes(annotation: Table, size: Size, left_out: Counter[str]) -> tuple[Shape, ...]:
    """The regions, the lowest first."""
    results = _results(annotation)
    for entry in annotation["result"]:
        if entry.get("type") not in _WITH_AREA:
            left_out[f"results of the type {entry.get('type')}, which has no area"] += 1
    # Where labels and tools are apart in the interface, each region stands there twice.
    labelled = {str(entry.get("id")) for entry in results if _labels(entry)}
    shapes = []
    for number, entry in enumerate(results, 1):
        try:
            labels, value = _labels(entry), entry["value"]
            if not labels:
                if str(entry.get("id")) not in labelled:
                    left_out["regions without a label"] += 1
                continue
            if len(labels) > 1:
                raise FullconvError(
                    f"{len(labels)} labels: {', '.join(map(str, labels))}; expected one.",
                    "give the region one label",
                )
            part = _part(value, size, left_out)
            if part is not None:
                shapes.append(Shape(class_name(labels[0]), (part,)))
        except FullconvError as error:
            where = f"region {number} ({entry['type']})"
            raise FullconvError(f"{where}: {error.message}", error.hint) from error
    return tuple(shapes)


def _labels(entry: Table) -> list[Any]:
    value = entry.get("value")
    if not isinstance(value, dict):
        raise FullconvError(f"its value is {str(value)[:40]!r}; expected an object.", AGAIN)
    labels = value.get(entry["type"]) or value.get("labels") or []
    return labels if isinstance(labels, list) else [labels]


def _part(value: Table, size: Size, left_out: Counter[str]) -> Part | None:
    """What a region covers, or None where it has no area."""
    if "rle" in value:
        return read_brush(value["rle"], size)
    if "imageDataURL" in value:
        return _bitmask(value["imageDataURL"], size)
    height, width = size
    if "points" in value:
        points = read_points(value["points"])
        if points is None:
            raise FullconvError("its points are no list of [x, y] in percent.", AGAIN)
        if len(points) < 3:
            left_out["polygons of less than three points"] += 1
            return None
        return Polygon(points * (width, height) / 100)
    round_one = "radiusX" in value
    keys = ("x", "y", *(("radiusX", "radiusY") if round_one else ("width", "height")))
    numbers: list[Any] = [value.get(key) for key in keys]
    turn = value.get("rotation") or 0
    if not all(is_place(number) for number in (*numbers, turn)) or min(numbers[2:]) < 0:
        shown = ", ".join(f"{key} {number!r}" for key, number in zip(keys, numbers, strict=True))
        raise FullconvError(
            f"its {shown}, rotation {turn!r}; expected numbers, in percent and degrees.", AGAIN
        )
    x, y, right, down = np.array(numbers, np.float64) * (width, height, width, height) / 100
    return (Ellipse if round_one else turned_rectangle)(x, y, right, down, turn)


def _bitmask(text: Any, size: Size) -> Runs:
    """Of a PNG as base64 text, whose pixels outside are transparent."""
    try:
        content = base64.b64decode(str(text).partition("base64,")[2], validate=False)
    except (binascii.Error, ValueError):
        content = b""
    with open_image(io.BytesIO(content), "bitmask") as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    if alpha.shape != size:
        raise FullconvError(
            f"a bitmask of {alpha.shape[1]} x {alpha.shape[0]} pixels, but the image has "
            f"{size[1]} x {size[0]} (width x height).",
            AGAIN,
        )
    return runs_of(alpha > 0)


_CHANNELS = 4
_WORD = 8  # bits
_HEAD = 40  # bits looked at for a chunk: 7 before it, 3 + 16 of its length, 8 of its word, rest
AGAIN = "export the task again from Label Studio, as JSON"


def read_brush(numbers: Any, size: Size) -> Runs:
    """The mask in `value.rle` of an image of (H, W) pixels."""
    try:
        data = bytes(numbers) if isinstance(numbers, list) else b""
    except (TypeError, ValueError):
        data = b""
    if not data:
        raise FullconvError("its rle is no list of numbers from 0 to 255.", AGAIN)
    words = unpack(data, _CHANNELS * size[0] * size[1])
    alpha = np.frombuffer(words, np.uint8)[_CHANNELS - 1 :: _CHANNELS]
    return runs_of(alpha.reshape(size) > 0)


def unpack(data: bytes, count: int) -> bytearray:
    """The words in a stream, which must be `count` bytes.

    >>> list(unpack(bytes([0, 0, 0, 3, 57, 27, 252, 64, 224]), 3))
    [7, 7, 7]
    """
    end = 8 * len(data)
    start = int.from_bytes(data[:7].ljust(7, b"\0"), "big") >> 3  # 53 bits
    told, word = start >> 21, (start >> 16 & 31) + 1
    sizes = [(start >> shift & 15) + 1 for shift in (12, 8, 4, 0)]
    if told != count or word != _WORD:
        raise FullconvError(
            f"brush strokes of {told} words of {word} bits; expected {count} of {_WORD} bits: "
            "red, green, blue and alpha of every pixel.",
            AGAIN,
        )
    data += bytes(_HEAD // 8)  # so that every look at a chunk is a whole one
    words, done, place = bytearray(count), 0, 53
    while done < count:
        first, skipped = place >> 3, place & 7
        head = int.from_bytes(data[first : first + _HEAD // 8], "big") << skipped
        size = sizes[head >> _HEAD - 3 & 3]
        length = (head >> _HEAD - 3 - size & (1 << size) - 1) + 1
        place += 3 + size
        repeats = head >> _HEAD - 1 & 1
        place += _WORD * (1 if repeats else length)
        if place > end or done + length > count:
            what = "end in the middle" if place > end else f"are more than {count} words"
            raise FullconvError(f"brush strokes that {what}.", AGAIN)
        if repeats:
            if value := head >> _HEAD - 3 - size - _WORD & 255:
                words[done : done + length] = bytes([value]) * length
        else:
            first = (place - _WORD * length) >> 3
            chunk = int.from_bytes(data[first : first + length + 1], "big") >> 8 - (place & 7)
            words[done : done + length] = (chunk & (1 << _WORD * length) - 1).to_bytes(length)
        done += length
    return words
