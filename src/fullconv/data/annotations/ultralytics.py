"""Ultralytics: one text file per image with one outline per line, as Roboflow writes it too.

    images/train/a.jpg   labels/train/a.txt   or   train/images/a.jpg   train/labels/a.txt
    0 0.1 0.2 0.4 0.2 0.4 0.7                      class id, then x and y from 0 to 1
    data.yaml                                      names: [road, car]

Larger outlines are painted first, as Ultralytics does to train semantic segmentation, or all in the
order of the file. Pixels outside all outlines are background, also for an empty file.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.annotations.image_finder import split_from_folders
from fullconv.data.annotations.rasterize import Polygon, Size
from fullconv.data.annotations.shapes import (
    AnnotatedImage,
    Annotations,
    Shape,
    check_image,
    class_name,
    in_place,
    overlap_note,
)
from fullconv.data.layouts.class_table_files import NAME, read_yaml
from fullconv.data.layouts.pairing import images_in

_TOLERANCE = 0.01  # how far outside 0 .. 1 Ultralytics accepts coordinates
_EXAMPLE = msg(
    "{line}   # class id, then x and y of each corner, from 0 to 1",
    line="0 0.1 0.2 0.4 0.2 0.4 0.7",
)


def gather(root: Path, files: list[Path], order: str) -> Annotations:
    """Collect the text files of a dataset. `order` is "file"; anything else means by area."""
    reason = nmsg(
        "{count} text file in labels, next to images",
        "{count} text files in labels, next to images",
        len(files),
    )
    annotations = Annotations("ultralytics", reason)
    names = _class_names(root, annotations)
    annotations.names = [names[key] for key in sorted(names)]
    by_area = order != "file"
    images_of: dict[Path, dict[str, list[Path]]] = {}
    for path in files:
        with annotations.collect_problems():
            image = _find_image(path, images_of)
            size, suffix = check_image(image)
            shapes = _shapes(path, names, size)
            if by_area:
                shapes.sort(key=lambda shape: -shape.area)
            inside = path.relative_to(root)
            name, split = inside.with_name(path.stem).as_posix(), split_from_folders(inside)
            annotations.images.append(
                AnnotatedImage(path, name, split, image, suffix, size, tuple(shapes))
            )
    annotations.notes.append(overlap_note(by_area))
    return annotations


def _class_names(root: Path, annotations: Annotations) -> dict[int, str]:
    """Return class id -> name from the YAML file, or the classes.txt that Label Studio writes."""
    table = read_yaml(root)
    if table is not None:
        names, path = table.names, table.path
    elif (path := root / "classes.txt").is_file():
        lines = path.read_text("utf-8-sig", errors="replace").splitlines()
        names = dict(enumerate(line for line in lines if line.strip()))
    else:
        message = msg(
            "{root} has no class names; expected a {name} with names, as Ultralytics uses for "
            "training, or classes.txt with one name per line.",
            root=root,
            name=NAME,
        )
        hint = msg("{line}   # in {path}", line="names: [road, car]", path=root / NAME)
        raise FullconvError(message, hint)
    annotations.notes.append(msg("class names from {path}", path=path.name))
    return {key: class_name(name) for key, name in names.items()}


def _find_image(path: Path, images_of: dict[Path, dict[str, list[Path]]]) -> Path:
    """Return the image of a text file: the same file name, in the same place below images."""
    labels = next(folder for folder in path.parents if folder.name == "labels")
    folder = labels.parent / "images" / path.parent.relative_to(labels)
    if folder not in images_of:
        images_of[folder] = defaultdict(list)
        for image in images_in(folder) if folder.is_dir() else ():
            images_of[folder][image.stem].append(image)
    images = images_of[folder].get(path.stem, [])
    if len(images) == 1:
        return images[0]
    values = {"path": path, "count": len(images), "expected": f"{folder / path.stem}.jpg"}
    message = msg("{path}: the image is missing; expected {expected} or another format.", **values)
    if images:
        message = msg(
            "{path}: {count} images have its name; expected one, {expected} or another format.",
            **values,
        )
    command = shell_command("ls", folder)
    hint = msg("{command}   # one image for {stem}", command=command, stem=path.stem)
    raise FullconvError(message, hint)


def _shapes(path: Path, names: dict[int, str], size: Size) -> list[Shape]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        message = msg("{path} is not a text file: {reason}.", path=path, reason=error)
        raise FullconvError(message, _EXAMPLE) from error
    shapes = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                shapes.append(_shape(line.split(), names, size))
            except FullconvError:
                with in_place(msg("{path}, line {number}", path=path, number=number)):
                    raise
    return shapes


def _shape(words: list[str], names: dict[int, str], size: Size) -> Shape:
    try:
        values = np.array(words, np.float64)
    except ValueError:
        values = np.full(1, np.nan)
    if not np.isfinite(values).all() or values[0] != round(values[0]):
        line = " ".join(words)[:60]
        message = msg("{line!r} is not a class id and an outline.", line=line)
        raise FullconvError(message, _EXAMPLE)
    if len(values) == 5:
        message = msg(
            "4 numbers after the class id are a box, as in detection; a mask requires the outline."
        )
        hint = msg(
            "export the labels again for segmentation (YOLO Segmentation), not for detection"
        )
        raise FullconvError(message, hint)
    if len(values) < 7 or len(values) % 2 == 0:
        message = nmsg(
            "{count} number after the class id; expected x and y of at least 3 corners.",
            "{count} numbers after the class id; expected x and y of at least 3 corners.",
            len(values) - 1,
        )
        raise FullconvError(message, _EXAMPLE)
    if values[0] not in names:
        known = truncated_list([f"{key} {name}" for key, name in names.items()], 20)
        message = msg(
            "no class {class_id:g}; expected one of {names}.", class_id=values[0], names=known
        )
        line = f"names: {{{values[0]:g}: a_name}}"
        raise FullconvError(message, msg("{line}   # in data.yaml, with the others", line=line))
    points = values[1:].reshape(-1, 2)
    if points.min() < -_TOLERANCE or points.max() > 1 + _TOLERANCE:
        span = {"low": points.min(), "high": points.max()}
        message = msg(
            "coordinates from {low:g} to {high:g}; expected fractions of the width and height "
            "of the image, from 0 to 1.",
            **span,
        )
        raise FullconvError(message, _EXAMPLE)
    return Shape(names[int(values[0])], (Polygon(points * (size[1], size[0])),))
