"""COCO: one JSON file for many images, made semantic.

An annotation is an object of a category: outlines, of several parts perhaps, or run lengths.
Categories become classes in the order of their ids, by name, without gaps. COCO does not say which
object lies over which. The larger ones are painted first, so that the small ones stay visible, and
regions of a crowd below all others; or all in the order of the file, where that has a meaning.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.text import shell_command
from fullconv.data.annotations.image_finder import Finder
from fullconv.data.annotations.rasterize import Polygon, read_points, read_runs
from fullconv.data.annotations.shapes import (
    Annotated,
    Annotations,
    Part,
    Shape,
    class_name,
    look_at,
    numbered,
)
from fullconv.data.layouts.pairing import SPLITS


@dataclass
class Contents:
    """What one file holds.

    Args:
        names: class names, in the order of the category ids.
        annotated: the images that can be read.
        problems: one for each image that cannot.
        crowds: regions of a crowd.
        by_area: whether the shapes are in the order of their areas.
    """

    names: list[str]
    annotated: list[Annotated] = field(default_factory=list)
    problems: list[FullconvError] = field(default_factory=list)
    crowds: int = 0
    by_area: bool = True


def gather(
    root: Path, source: Path, tables: list[tuple[Path, dict[str, Any]]], order: str
) -> Annotations:
    """All files: one, or one for each split. `order` as in `read_file`."""
    paths = [path for path, _ in tables]
    listed = ", ".join(path.name for path in paths)
    found = Annotations("coco", f'{listed} with "images", "annotations" and "categories"')
    splits = [split_of(path) for path in paths] if len(paths) > 1 else [""] * len(paths)
    if len(paths) > 1 and (not all(splits) or len({*splits}) < len(splits)):
        raise FullconvError(
            f"{source} holds {len(paths)} COCO files: {', '.join(map(str, paths[:8]))}; expected "
            "one, or one for each of train, val and test with that word in its name.",
            shell_command("fullconv", "convert", paths[0], "OUT"),
        )
    find, crowds, by_area = Finder(root, "file_name"), 0, False
    for (path, table), split in zip(tables, splits, strict=True):
        try:
            contents = read_file(
                path, table, split=split, order=order, find=find, left_out=found.left_out
            )
        except FullconvError as error:
            found.problems.append(error)
            continue
        found.names += contents.names
        found.images += contents.annotated
        found.problems += contents.problems
        crowds += contents.crowds
        by_area = by_area or contents.by_area
    found.notes.append(
        "where shapes overlap, the smaller lies on top (--order file: the later in the file)"
        if by_area
        else "where shapes overlap, the later in the file lies on top (--order area: the smaller)"
    )
    if crowds:
        below = ", below all other shapes" * by_area
        found.notes.append(f"{crowds} regions of a crowd count as their class{below}")
    return found


def read_file(
    path: Path,
    table: dict[str, Any],
    *,
    split: str,
    order: str,
    find: Finder,
    left_out: Counter[str],
) -> Contents:
    """All images of one file. `order` is "area", "file" or "auto": as in the file where it was
    made from labelme, whose order has a meaning, else by area. `left_out` as in labelme.py."""
    categories = _categories(path, table)
    if order == "auto":
        order = "file" if _from_labelme(table) else "area"
    names = list(dict.fromkeys(categories[key] for key in sorted(categories)))
    contents = Contents(names, by_area=order == "area")
    entries: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for _, entry in numbered(f"{path}: annotation", table["annotations"]):
        if "segments_info" in entry:
            raise FullconvError(
                f"{path} is a panoptic file, whose shapes stand in PNG files; expected instances.",
                "fullconv convert instances_train2017.json OUT",
            )
        entries[_key(entry.get("image_id"))].append(entry)
    for _, image in numbered(f"{path}: image", table["images"]):
        try:
            mine = entries.pop(_key(image.get("id")), [])
            shapes = _shapes(mine, categories, order, image, left_out)
            contents.annotated.append(_annotated(path, image, split, find, shapes))
            contents.crowds += sum(bool(entry.get("iscrowd")) for entry in mine)
        except FullconvError as error:
            where = f"{path}, image {image.get('file_name', image.get('id'))!r}"
            contents.problems.append(FullconvError(f"{where}: {error.message}", error.hint))
    if rest := sum(map(len, entries.values())):
        left_out[f"annotations of images that {path.name} does not list"] += rest
    return contents


def split_of(path: Path) -> str:
    """instances_train2017.json -> train; valid/_annotations.coco.json -> val"""
    words = re.split(r"[^a-z]+", path.stem.lower())
    named = {SPLITS[word] for word in words if word in SPLITS}
    return named.pop() if len(named) == 1 else SPLITS.get(path.parent.name.lower(), "")


def _categories(path: Path, table: dict[str, Any]) -> dict[int, str]:
    """Category id -> class name."""
    categories: dict[int, str] = {}
    for number, entry in numbered(f"{path}: category", table["categories"]):
        key = entry.get("id")
        if not isinstance(key, int) or key in categories:
            raise FullconvError(
                f"{path}: category {number} has the id {key!r}; expected a whole number of"
                " its own.",
                '"categories": [{"id": 1, "name": "road"}]',
            )
        try:
            categories[key] = class_name(entry.get("name"))
        except FullconvError as error:
            raise FullconvError(f"{path}: category {key}: {error.message}", error.hint) from error
    return categories


def _from_labelme(table: dict[str, Any]) -> bool:
    """labelme's own script writes the shapes in the order in which they were drawn, and this."""
    names = (entry.get("name") for entry in table["categories"])
    return "_background_" in names


def _annotated(
    path: Path, entry: dict[str, Any], split: str, find: Finder, shapes: tuple[Shape, ...]
) -> Annotated:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise FullconvError("it has no file_name.", '"file_name": "a.jpg"')
    image = find(path, name)
    size, suffix = look_at(image, entry.get("height"), entry.get("width"))
    for shape in shapes:
        for part in shape.parts:
            if getattr(part, "size", size) != size:
                raise FullconvError(
                    f"run lengths of the size {part.size}, but the image has {size} "  # type: ignore[attr-defined]
                    "(height, width).",
                    f'"size": [{size[0]}, {size[1]}]   # and counts that belong to it',
                )
    stem = PurePosixPath(name.replace("\\", "/"))
    return Annotated(path, str(stem.with_suffix("")), split, image, suffix, size, shapes)


def _shapes(
    entries: list[dict[str, Any]],
    categories: dict[int, str],
    order: str,
    image: dict[str, Any],
    left_out: Counter[str],
) -> tuple[Shape, ...]:
    """The shapes of an image, the lowest first."""
    ranked = []
    for entry in entries:
        try:
            parts = _parts(entry.get("segmentation"), left_out)
            category = _key(entry.get("category_id"))
            if category not in categories:
                known = ", ".join(f"{key} {name}" for key, name in list(categories.items())[:20])
                more = ", ..." if len(categories) > 20 else ""
                raise FullconvError(
                    f"category_id {category!r} is not in the table; there are {known}{more}.",
                    f'in "categories": {{"id": {category!r}, "name": "..."}}',
                )
        except FullconvError as error:
            where = f"annotation {entry.get('id')!r}"
            raise FullconvError(f"{where}: {error.message}", error.hint) from error
        if parts:
            shape = Shape(categories[category], parts)
            ranked.append((not entry.get("iscrowd"), -shape.area, shape))
    if order == "area":
        ranked.sort(key=lambda item: item[:2])
    return tuple(shape for *_, shape in ranked)


def _parts(segmentation: Any, left_out: Counter[str]) -> tuple[Part, ...]:
    if isinstance(segmentation, dict):
        return (read_runs(segmentation),)
    if not segmentation:
        raise FullconvError(
            "it has no segmentation, only a box perhaps; a mask needs the outline.",
            "take the annotation out, or draw its outline",
        )
    outlines = segmentation if isinstance(segmentation, list) else [segmentation]
    if isinstance(outlines[0], int | float):  # one outline that is not in a list of its own
        outlines = [outlines]
    parts = []
    for outline in outlines:
        points = read_points(outline)
        if points is None:
            raise FullconvError(
                "its segmentation is neither outlines [x, y, x, y, ...] in pixels nor run lengths.",
                '"segmentation": [[0, 0, 9, 0, 9, 9]]',
            )
        if len(points) < 3:
            left_out["polygons of less than three points"] += 1
        else:
            parts.append(Polygon(points))
    return tuple(parts)


def _key(value: Any) -> Any:
    """An id, to look up: a number or text."""
    return value if isinstance(value, int | str) else None
