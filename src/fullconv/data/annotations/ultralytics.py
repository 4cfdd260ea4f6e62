"""Ultralytics: a text file per image with an outline per line; also what Roboflow writes for it.

    images/train/a.jpg   labels/train/a.txt   or   train/images/a.jpg   train/labels/a.txt
    0 0.1 0.2 0.4 0.2 0.4 0.7                      class id, then x and y from 0 to 1
    data.yaml                                      names: [road, car]

Larger outlines are painted first, as Ultralytics itself does to train semantic segmentation, or
all in the order of the file. What none covers, as in an empty file, is background.

Shapes: H, W image.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.text import plural, shell_command
from fullconv.data.annotations.image_finder import split_in
from fullconv.data.annotations.rasterize import Polygon
from fullconv.data.annotations.shapes import Annotated, Annotations, Shape, class_name, look_at
from fullconv.data.layouts.class_table_files import NAME, read_yaml
from fullconv.data.layouts.pairing import images_in

_BEYOND = 0.01  # how far outside 0 .. 1 Ultralytics lets a coordinate lie
_LINE = "0 0.1 0.2 0.4 0.2 0.4 0.7   # class id, then x and y of each corner, from 0 to 1"


def gather(root: Path, files: list[Path], order: str) -> Annotations:
    """All text files of a folder. `order` is "file", or else by area."""
    found = Annotations(
        "ultralytics", f"{plural(len(files), 'text file')} in labels, beside images"
    )
    names = _class_names(root, found)
    found.names = [names[key] for key in sorted(names)]
    by_area = order != "file"
    images: dict[Path, dict[str, list[Path]]] = {}
    for path in files:
        try:
            image = _image(path, images)
            size, suffix = look_at(image, None, None)
            shapes = _shapes(path, names, size)
        except FullconvError as error:
            found.problems.append(error)
            continue
        if by_area:
            shapes.sort(key=lambda shape: -shape.area)
        inside = path.relative_to(root)
        name = inside.with_name(path.stem).as_posix()
        found.images.append(
            Annotated(path, name, split_in(inside), image, suffix, size, tuple(shapes))
        )
    found.notes.append(
        "where outlines overlap, the smaller lies on top (--order file: the later in the file)"
        if by_area
        else "where outlines overlap, the later in the file lies on top (--order area: the smaller)"
    )
    return found


def _class_names(root: Path, found: Annotations) -> dict[int, str]:
    """Class id -> name, of the YAML file, or of the classes.txt that Label Studio writes."""
    told = read_yaml(root)
    if told is not None:
        names, path = told.names, told.path
    elif (path := root / "classes.txt").is_file():
        lines = path.read_text("utf-8-sig", errors="replace").splitlines()
        names = dict(enumerate(line for line in lines if line.strip()))
    else:
        raise FullconvError(
            f"{root} has no class names; expected a {NAME} with names, as Ultralytics trains "
            "from it, or classes.txt with a name per line.",
            f"names: [road, car]   # in {root / NAME}",
        )
    found.notes.append(f"class names from {path.name}")
    return {key: class_name(name) for key, name in names.items()}


def _image(path: Path, known: dict[Path, dict[str, list[Path]]]) -> Path:
    """The image of a text file: of its stem, at the mirrored place below images."""
    labels = next(folder for folder in path.parents if folder.name == "labels")
    folder = labels.parent / "images" / path.parent.relative_to(labels)
    if folder not in known:
        by_stem: dict[str, list[Path]] = defaultdict(list)
        for image in images_in(folder) if folder.is_dir() else ():
            by_stem[image.stem].append(image)
        known[folder] = by_stem
    hits = known[folder].get(path.stem, [])
    if len(hits) != 1:
        what = f"{len(hits)} images have its name" if hits else "the image is missing"
        raise FullconvError(
            f"{path}: {what}; expected one {folder / path.stem}.jpg, or as another image format.",
            f"{shell_command('ls', folder)}   # one image for {path.stem}",
        )
    return hits[0]


def _shapes(path: Path, names: dict[int, str], size: tuple[int, int]) -> list[Shape]:
    """The outlines in a file, for an image of (H, W) pixels."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FullconvError(f"{path} is no text: {error}.", _LINE) from error
    shapes = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            shapes.append(_shape(line.split(), names, size))
        except FullconvError as error:
            raise FullconvError(f"{path}, line {number}: {error.message}", error.hint) from error
    return shapes


def _shape(words: list[str], names: dict[int, str], size: tuple[int, int]) -> Shape:
    try:
        values = np.array(words, np.float64)
    except ValueError:
        values = np.full(1, np.nan)
    if not np.isfinite(values).all() or values[0] != round(values[0]):
        raise FullconvError(f"{' '.join(words)[:60]!r} is no class id and outline.", _LINE)
    if len(values) == 5:
        raise FullconvError(
            "4 numbers after the class: a box, as detection has it; a mask needs the outline.",
            "export the labels again for segmentation (YOLO Segmentation), not for detection",
        )
    if len(values) < 7 or len(values) % 2 == 0:
        raise FullconvError(
            f"{plural(len(values) - 1, 'number')} after the class; expected x and y of 3 corners "
            "or more.",
            _LINE,
        )
    if values[0] not in names:
        known = ", ".join(f"{key} {name}" for key, name in list(names.items())[:20])
        raise FullconvError(
            f"no class {values[0]:g}; there are {known}{', ...' if len(names) > 20 else ''}.",
            f"names: {{{values[0]:g}: a_name}}   # in data.yaml, beside the others",
        )
    points = values[1:].reshape(-1, 2)
    if points.min() < -_BEYOND or points.max() > 1 + _BEYOND:
        raise FullconvError(
            f"coordinates from {points.min():g} to {points.max():g}; expected shares of the "
            "image's width and height, from 0 to 1.",
            _LINE,
        )
    return Shape(names[int(values[0])], (Polygon(points * (size[1], size[0])),))
