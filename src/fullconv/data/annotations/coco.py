"""COCO: one JSON file for many images, whose instances become class ids.

An annotation is an object of a category, drawn as one or several outlines or as run lengths.
Categories become classes in the order of their ids, by name, without gaps. COCO does not define
which object is on top: larger ones are painted first, so that small ones stay visible, and crowd
regions below all others. Alternatively all are painted in the order of the file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.annotations.image_finder import ImageFinder, split_from_name
from fullconv.data.annotations.rasterize import Part, RunLengths, read_points, read_run_lengths
from fullconv.data.annotations.shapes import (
    AnnotatedImage,
    Annotations,
    Shape,
    check_image,
    class_name,
    in_place,
    numbered,
    overlap_note,
    polygon,
)


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
        with annotations.collect_problems():
            is_by_area, crowds_in_file = read_file(annotations, path, table, split, order, find)
            by_area = by_area or is_by_area
            crowds += crowds_in_file
    annotations.notes.append(overlap_note(by_area))
    note = nmsg(
        "{count} crowd region is painted as its class",
        "{count} crowd regions are painted as their class",
        count=crowds,
    )
    if by_area:
        note = nmsg(
            "{count} crowd region is painted as its class, below all other shapes",
            "{count} crowd regions are painted as their class, below all other shapes",
            count=crowds,
        )
    annotations.notes += [note] if crowds else []
    return annotations


def read_file(
    annotations: Annotations,
    path: Path,
    table: dict[str, Any],
    split: str,
    order: str,
    find: ImageFinder,
) -> tuple[bool, int]:
    """Add all images of one file, and return whether the shapes are ordered by area, and the number
    of crowd regions.

    An `order` of "auto" is "file" if the file was made from labelme, whose order has a meaning,
    else "area".
    """
    categories = _categories(path, table)
    if order == "auto":  # labelme's own script writes this class, and keeps the order of drawing
        is_labelme = any(entry.get("name") == "_background_" for entry in table["categories"])
        order = "file" if is_labelme else "area"
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for _, entry in numbered(table["annotations"], msg("{path}: annotation", path=path)):
        if "segments_info" in entry:
            message = msg(
                "{path} is a panoptic file, whose shapes are in PNG files; expected instances.",
                path=path,
            )
            raise FullconvError(message, "fullconv convert instances_train2017.json OUT")
        by_image[_key(entry.get("image_id"))].append(entry)
    crowds, left_out = 0, annotations.left_out
    names: dict[Any, Any] = {}  # image id -> file name
    without: list[str] = []  # images without annotations
    for _, image in list(numbered(table["images"], msg("{path}: image", path=path))):
        key = _key(image.get("id"))
        entries = by_image.pop(key, [])
        name = image.get("file_name", image.get("id"))
        place = msg("{path}, image {name!r}", path=path, name=name)
        with annotations.collect_problems(), in_place(place):
            if key in names:
                message = msg(
                    "its id {key!r} is also that of {other!r}: it is unclear which image the "
                    "annotations belong to.",
                    key=image.get("id"),
                    other=names[key],
                )
                raise FullconvError(message, '"images": [{"id": 1, "file_name": "a.jpg"}]')
            names[key] = name
            without += [] if entries else [str(name)]
            shapes = _shapes(entries, categories, order, left_out)
            annotations.images.append(_annotated_image(path, image, split, find, shapes))
            crowds += sum(bool(entry.get("iscrowd")) for entry in entries)
    if orphans := sum(map(len, by_image.values())):
        left_out[msg("annotations of images that {file} does not list", file=path.name)] += orphans
        if without:
            note = nmsg(
                "{count} image has no annotations, such as {first}; do those that are left out "
                "belong to it?",
                "{count} images have no annotations, such as {first}; do those that are left out "
                "belong to them?",
                len(without),
                first=without[0],
            )
            annotations.notes.append(note)
    annotations.names += dict.fromkeys(categories[key] for key in sorted(categories))
    return order == "area", crowds


def _categories(path: Path, table: dict[str, Any]) -> dict[int, str]:
    """Return category id -> class name."""
    categories: dict[int, str] = {}
    for number, entry in numbered(table["categories"], msg("{path}: category", path=path)):
        key = entry.get("id")
        if not isinstance(key, int) or key in categories:
            values = {"path": path, "number": number, "key": key}
            message = msg(
                "{path}: category {number} has the id {key!r}; expected a unique whole number.",
                **values,
            )
            raise FullconvError(message, '"categories": [{"id": 1, "name": "road"}]')
        with in_place(msg("{path}: category {key}", path=path, key=key)):
            categories[key] = class_name(entry.get("name"))
    return categories


def _annotated_image(
    path: Path, entry: dict[str, Any], split: str, find: ImageFinder, shapes: tuple[Shape, ...]
) -> AnnotatedImage:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise FullconvError(msg("it has no file_name."), '"file_name": "a.jpg"')
    image = find(path, name)
    size, suffix = check_image(image, _key(entry.get("height")), _key(entry.get("width")))
    for part in (part for shape in shapes for part in shape.parts):
        if isinstance(part, RunLengths) and part.size != size:
            message = msg(
                "run lengths of the size {rle_size}, but the image has {size} (height, width).",
                rle_size=part.size,
                size=size,
            )
            values = {"height": size[0], "width": size[1]}
            hint = msg('"size": [{height}, {width}]   # and counts that belong to it', **values)
            raise FullconvError(message, hint)
    stem = PurePosixPath(name.replace("\\", "/")).with_suffix("")
    return AnnotatedImage(path, str(stem), split, image, suffix, size, shapes)


def _shapes(
    entries: list[dict[str, Any]], categories: dict[int, str], order: str, left_out: Counter[str]
) -> tuple[Shape, ...]:
    ranked = []
    for entry in entries:
        try:
            parts = _parts(entry.get("segmentation"), left_out)
            category = _key(entry.get("category_id"))
            if category not in categories:
                known = [f"{key} {name}" for key, name in categories.items()]
                values = {"category": category, "categories": truncated_list(known, 20)}
                message = msg(
                    "category_id {category!r} is not in the table; expected one of {categories}.",
                    **values,
                )
                raise FullconvError(message, f'"categories": {{"id": {category!r}, "name": "..."}}')
        except FullconvError:  # there may be a million entries: name the place of errors only
            with in_place(msg("annotation {id!r}", id=entry.get("id"))):
                raise
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
    parts: list[Part] = []
    for outline in outlines:
        points = read_points(outline)
        if points is None:
            message = msg(
                "its segmentation is neither outlines [x, y, x, y, ...] in pixels nor run lengths."
            )
            raise FullconvError(message, '"segmentation": [[0, 0, 9, 0, 9, 9]]')
        part = polygon(points, left_out)
        if part is not None:
            parts.append(part)
    return tuple(parts)


def _key(value: Any) -> Any:
    """Return an id or a size that can be compared, whole numbers as such even if they are text or
    have a decimal point; None for lists and objects."""
    if isinstance(value, str) and len(value) < 20 and value.strip().isdecimal():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) else None
