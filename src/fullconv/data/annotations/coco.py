"""COCO: one JSON file for many pictures, made semantic.

An annotation is an object of a category: outlines, of several parts perhaps, or run lengths.
Categories become classes in the order of their ids, by name, without gaps. COCO does not say which
object lies over which. The larger ones are painted first, so that the small ones stay visible, and
regions of a crowd below all others; or all in the order of the file, where that has a meaning.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fullconv.data.annotations.polygons import Polygon, read_points
from fullconv.data.annotations.rle import read_runs
from fullconv.data.annotations.shapes import Annotated, Part, Shape, class_name, look_at, numbered
from fullconv.data.pairing import SPLITS, folders_in, pictures_in
from fullconv.data.pictures import PICTURE_SUFFIXES
from fullconv.errors import FullconvError

Find = Callable[[Path, str], Path]  # the picture that a file of annotations names


@dataclass
class Contents:
    """What one file holds.

    Args:
        names: class names, in the order of the category ids.
        annotated: the pictures that can be read.
        problems: one for each picture that cannot.
        crowds: regions of a crowd.
        by_area: whether the shapes are in the order of their areas.
    """

    names: list[str]
    annotated: list[Annotated] = field(default_factory=list)
    problems: list[FullconvError] = field(default_factory=list)
    crowds: int = 0
    by_area: bool = True


def is_coco(table: Any) -> bool:
    """Whether a JSON file holds pictures, annotations and categories."""
    keys = ("images", "annotations", "categories")
    return isinstance(table, dict) and all(isinstance(table.get(key), list) for key in keys)


def read_file(
    path: Path,
    table: dict[str, Any],
    *,
    split: str,
    order: str,
    find: Find,
    left_out: Counter[str],
) -> Contents:
    """All pictures of one file. `order` is "area", "file" or "auto": as in the file where it was
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
            where = f"{path}, picture {image.get('file_name', image.get('id'))!r}"
            contents.problems.append(FullconvError(f"{where}: {error.message}", error.hint))
    if rest := sum(map(len, entries.values())):
        left_out[f"annotations of pictures that {path.name} does not list"] += rest
    return contents


def split_of(path: Path) -> str:
    """instances_train2017.json -> train; valid/_annotations.coco.json -> val"""
    words = re.split(r"[^a-z]+", path.stem.lower())
    named = {SPLITS[word] for word in words if word in SPLITS}
    return named.pop() if len(named) == 1 else SPLITS.get(path.parent.name.lower(), "")


class Finder:
    """Finds the picture that a COCO file names: beside the file, from the root, else by its name
    below the root or in a folder beside the file's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.places: dict[str, set[Path]] | None = None

    def __call__(self, path: Path, name: str) -> Path:
        inside = name.replace("\\", "/")
        for folder in (path.parent, self.root):
            if (folder / inside).is_file():
                return folder / inside
        if self.places is None:
            self.places = self._look(path)
        hits = self.places.get(PurePosixPath(inside).name, set())
        closest = {hit for hit in hits if hit.as_posix().endswith("/" + inside)} or hits
        if len(closest) == 1:
            return closest.pop()
        if closest:
            listed = ", ".join(map(str, sorted(closest)[:4]))
            raise FullconvError(
                f"{len(closest)} pictures have its name: {listed}; expected one.",
                f'"file_name": "{os.path.relpath(min(closest), path.parent)}"',
            )
        raise FullconvError(
            f"the picture is missing; there is no {path.parent / inside}, nor one of its name in "
            f"or below {self.root}.",
            f"cp /where/it/is/{PurePosixPath(inside).name} {path.parent}",
        )

    def _look(self, path: Path) -> dict[str, set[Path]]:
        beside = path.resolve().parent.parent
        found = [p for folder in folders_in(beside) for p in pictures_in(folder)]
        below = (p for p in self.root.resolve().rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
        places: dict[str, set[Path]] = {}
        for picture in (*found, *below):
            places.setdefault(picture.name, set()).add(picture)
        return places


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
    path: Path, image: dict[str, Any], split: str, find: Find, shapes: tuple[Shape, ...]
) -> Annotated:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise FullconvError("it has no file_name.", '"file_name": "a.jpg"')
    picture = find(path, name)
    size, suffix = look_at(picture, image.get("height"), image.get("width"))
    for shape in shapes:
        for part in shape.parts:
            if getattr(part, "size", size) != size:
                raise FullconvError(
                    f"run lengths of the size {part.size}, but the picture has {size} "  # type: ignore[attr-defined]
                    "(height, width).",
                    f'"size": [{size[0]}, {size[1]}]   # and counts that belong to it',
                )
    stem = PurePosixPath(name.replace("\\", "/"))
    return Annotated(path, str(stem.with_suffix("")), split, picture, suffix, size, shapes)


def _shapes(
    entries: list[dict[str, Any]],
    categories: dict[int, str],
    order: str,
    image: dict[str, Any],
    left_out: Counter[str],
) -> tuple[Shape, ...]:
    """The shapes of a picture, the lowest first."""
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
