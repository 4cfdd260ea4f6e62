"""COCO: one JSON file for many images, whose instances become class ids.

An annotation is an object of a category, drawn as one or several outlines or as run lengths.
Categories become classes in the order of their ids, by name, without gaps. COCO does not define
which object is on top: larger ones are painted first, so that small ones stay visible, and crowd
regions below all others. Alternatively all are painted in the order of the file.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.annotations.image_finder import ImageFinder
from fullconv.data.annotations.rasterize import Polygon, RunLengths, read_points, read_run_lengths
from fullconv.data.annotations.shapes import (
    AnnotatedImage,
    Annotations,
    Part,
    Shape,
    check_image,
    class_name,
    in_place,
    numbered,
    overlap_note,
)
from fullconv.data.layouts.pairing import SPLITS


@dataclass
class CocoFile:
    """The content of one file.

    Args:
        names: class names, in the order of the category ids.
        images: the images that can be converted.
        problems: an error for each image that cannot.
        crowds: number of crowd regions.
        by_area: the shapes are ordered by area.
    """

    names: list[str]
    images: list[AnnotatedImage] = field(default_factory=list)
    problems: list[FullconvError] = field(default_factory=list)
    crowds: int = 0
    by_area: bool = True


def gather(
    root: Path, source: Path, tables: list[tuple[Path, dict[str, Any]]], order: str
) -> Annotations:
    """Collect all files of a dataset: one, or one for each split. `order` as in `read_file`."""
    paths = [path for path, _ in tables]
    reason = msg(
        '{files} with "images", "annotations" and "categories"',
        files=", ".join(path.name for path in paths),
    )
    annotations = Annotations("coco", reason)
    splits = [split_from_name(path) for path in paths] if len(paths) > 1 else [""] * len(paths)
    if len(paths) > 1 and (not all(splits) or len({*splits}) < len(splits)):
        message = msg(
            "{source} contains {count} COCO files: {files}; expected one, or one for each of "
            "train, val and test with that word in its name.",
            source=source,
            count=len(paths),
            files=truncated_list(paths, 8),
        )
        raise FullconvError(message, shell_command("fullconv", "convert", paths[0], "OUT"))
    find, crowds, by_area = ImageFinder(root, "file_name"), 0, False
    for (path, table), split in zip(tables, splits, strict=True):
        left_out = annotations.left_out
        try:
            file = read_file(path, table, split=split, order=order, find=find, left_out=left_out)
        except FullconvError as error:
            annotations.problems.append(error)
            continue
        annotations.names += file.names
        annotations.images += file.images
        annotations.problems += file.problems
        crowds += file.crowds
        by_area = by_area or file.by_area
    annotations.notes.append(overlap_note(by_area))
    if crowds and by_area:
        annotations.notes.append(
            nmsg(
                "{count} crowd region is painted as its class, below all other shapes",
                "{count} crowd regions are painted as their class, below all other shapes",
                count=crowds,
            )
        )
    elif crowds:
        annotations.notes.append(
            nmsg(
                "{count} crowd region is painted as its class",
                "{count} crowd regions are painted as their class",
                count=crowds,
            )
        )
    return annotations


def read_file(
    path: Path,
    table: dict[str, Any],
    *,
    split: str,
    order: str,
    find: ImageFinder,
    left_out: Counter[str],
) -> CocoFile:
    """Read all images of one file.

    Args:
        order: "area", "file" or "auto", which is "file" if the file was made from labelme, whose
            order has a meaning, else "area".
        left_out: counts the entries that cover no pixels, by their description.
    """
    categories = _categories(path, table)
    if order == "auto":  # labelme's own script writes this class, and keeps the order of drawing
        is_labelme = any(entry.get("name") == "_background_" for entry in table["categories"])
        order = "file" if is_labelme else "area"
    names = list(dict.fromkeys(categories[key] for key in sorted(categories)))
    file = CocoFile(names, by_area=order == "area")
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for _, entry in numbered(table["annotations"], msg("{path}: annotation", path=path)):
        if "segments_info" in entry:
            message = msg(
                "{path} is a panoptic file, whose shapes are in PNG files; expected instances.",
                path=path,
            )
            raise FullconvError(message, "fullconv convert instances_train2017.json OUT")
        by_image[_key(entry.get("image_id"))].append(entry)
    for _, image in numbered(table["images"], msg("{path}: image", path=path)):
        try:
            entries = by_image.pop(_key(image.get("id")), [])
            shapes = _shapes(entries, categories, order, left_out)
            file.images.append(_annotated_image(path, image, split, find, shapes))
            file.crowds += sum(bool(entry.get("iscrowd")) for entry in entries)
        except FullconvError as error:
            name = image.get("file_name", image.get("id"))
            place = msg("{path}, image {name!r}", path=path, name=name)
            file.problems.append(in_place(place, error))
    if orphans := sum(map(len, by_image.values())):
        left_out[msg("annotations of images that {file} does not list", file=path.name)] += orphans
    return file


def split_from_name(path: Path) -> str:
    """Return the split that a file name contains, or "".

    >>> split_from_name(Path("instances_train2017.json"))
    'train'
    >>> split_from_name(Path("valid/_annotations.coco.json"))
    'val'
    """
    words = re.split(r"[^a-z]+", path.stem.lower())
    splits = {SPLITS[word] for word in words if word in SPLITS}
    return splits.pop() if len(splits) == 1 else SPLITS.get(path.parent.name.lower(), "")


def _categories(path: Path, table: dict[str, Any]) -> dict[int, str]:
    """Return category id -> class name."""
    categories: dict[int, str] = {}
    for number, entry in numbered(table["categories"], msg("{path}: category", path=path)):
        key = entry.get("id")
        if not isinstance(key, int) or key in categories:
            message = msg(
                "{path}: category {number} has the id {key!r}; expected a unique whole number.",
                path=path,
                number=number,
                key=key,
            )
            raise FullconvError(message, '"categories": [{"id": 1, "name": "road"}]')
        try:
            categories[key] = class_name(entry.get("name"))
        except FullconvError as error:
            raise in_place(msg("{path}: category {key}", path=path, key=key), error) from error
    return categories


def _annotated_image(
    path: Path, entry: dict[str, Any], split: str, find: ImageFinder, shapes: tuple[Shape, ...]
) -> AnnotatedImage:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise FullconvError(msg("it has no file_name."), '"file_name": "a.jpg"')
    image = find(path, name)
    size, suffix = check_image(image, entry.get("height"), entry.get("width"))
    for part in (part for shape in shapes for part in shape.parts):
        if isinstance(part, RunLengths) and part.size != size:
            message = msg(
                "run lengths of the size {rle_size}, but the image has {size} (height, width).",
                rle_size=part.size,
                size=size,
            )
            hint = msg(
                '"size": [{height}, {width}]   # and counts that belong to it',
                height=size[0],
                width=size[1],
            )
            raise FullconvError(message, hint)
    stem = PurePosixPath(name.replace("\\", "/")).with_suffix("")
    return AnnotatedImage(path, str(stem), split, image, suffix, size, shapes)


def _shapes(
    entries: list[dict[str, Any]], categories: dict[int, str], order: str, left_out: Counter[str]
) -> tuple[Shape, ...]:
    """Return the shapes of an image, the lowest first."""
    ranked = []
    for entry in entries:
        try:
            parts = _parts(entry.get("segmentation"), left_out)
            category = _key(entry.get("category_id"))
            if category not in categories:
                message = msg(
                    "category_id {category!r} is not in the table; expected one of {categories}.",
                    category=category,
                    categories=truncated_list(
                        [f"{key} {name}" for key, name in categories.items()], 20
                    ),
                )
                raise FullconvError(message, f'"categories": {{"id": {category!r}, "name": "..."}}')
        except FullconvError as error:
            raise in_place(msg("annotation {id!r}", id=entry.get("id")), error) from error
        if parts:
            shape = Shape(categories[category], parts)
            ranked.append((not entry.get("iscrowd"), -shape.area, shape))
    if order == "area":
        ranked.sort(key=lambda item: item[:2])
    return tuple(shape for *_, shape in ranked)


def _parts(segmentation: Any, left_out: Counter[str]) -> tuple[Part, ...]:
    if isinstance(segmentation, dict):
        return (read_run_lengths(segmentation),)
    if not segmentation:
        message = msg("it has no segmentation, perhaps only a box; a mask requires the outline.")
        raise FullconvError(message, msg("remove the annotation, or draw its outline"))
    outlines = segmentation if isinstance(segmentation, list) else [segmentation]
    if isinstance(outlines[0], int | float):  # a single outline that is not in a list
        outlines = [outlines]
    parts = []
    for outline in outlines:
        points = read_points(outline)
        if points is None:
            message = msg(
                "its segmentation is neither outlines [x, y, x, y, ...] in pixels nor run lengths."
            )
            raise FullconvError(message, '"segmentation": [[0, 0, 9, 0, 9, 9]]')
        if len(points) < 3:
            left_out[msg("polygons with fewer than three points")] += 1
        else:
            parts.append(Polygon(points))
    return tuple(parts)


def _key(value: Any) -> Any:
    """Return an id that can be looked up; None for lists and objects."""
    return value if isinstance(value, int | str) else None
