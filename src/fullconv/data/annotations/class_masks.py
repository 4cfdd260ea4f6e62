"""Read datasets with a mask file per class or per object, see `fullconv.data.layouts.class_masks`.

A file has two values: the smaller one is outside, the larger one inside. Of overlapping classes the
one with the later name is on top, and the pixels are counted.

Shapes: H, W image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.text import truncated_list
from fullconv.data.annotations.rasterize import Patch, Size
from fullconv.data.annotations.shapes import (
    AnnotatedImage,
    Annotations,
    Shape,
    check_image,
    class_name,
)
from fullconv.data.io.mask_values import value_counts
from fullconv.data.io.masks import read_values
from fullconv.data.layouts.class_masks import ImageMasks


@dataclass(frozen=True, eq=False)
class MaskFile:
    """The pixels inside of a black and white file, which is read when they are needed."""

    path: Path
    area: float

    def pixels(self, size: Size) -> Patch:
        inside = read_inside(self.path)
        return slice(0, size[0]), slice(0, size[1]), inside


def gather(root: Path, images: Iterable[ImageMasks]) -> Annotations:
    """Collect the masks of all images; each file is read once to find problems."""
    annotations = Annotations("class-masks", msg("a mask file per class or object"))
    overlapping = 0
    for entry in images:
        with annotations.collect_problems():
            size, suffix = check_image(entry.image)
            count = np.zeros(size, np.uint16)
            shapes = []
            for name, path in entry.masks:
                inside = read_inside(path)
                if inside.shape != size:
                    raise _other_size(path, entry.image, inside.shape, size)
                count += inside
                shapes.append(Shape(class_name(name), (MaskFile(path, float(inside.sum())),)))
            overlapping += int((count > 1).sum())
            inside_root = entry.image.relative_to(root)
            annotations.images.append(
                AnnotatedImage(
                    entry.masks[0][1],
                    inside_root.with_suffix("").as_posix(),
                    entry.split,
                    entry.image,
                    suffix,
                    size,
                    tuple(shapes),
                )
            )
    annotations.names = sorted(
        {shape.name for image in annotations.images for shape in image.shapes}
    )
    if overlapping:
        annotations.notes.append(
            nmsg(
                "{count} pixel is in several masks of its image: it gets the class whose name is "
                "last in the alphabet",
                "{count} pixels are in several masks of their image: they get the class whose name "
                "is last in the alphabet",
                overlapping,
            )
        )
    return annotations


def read_inside(path: Path) -> NDArray[np.bool_]:
    """Return (H, W): whether a pixel has the larger of the two values of a file.

    A file with a single value is inside everywhere if that is not 0.

    Raises:
        FullconvError: the file cannot be read, or has more than two values.
    """
    values = read_values(path)
    present = value_counts(values, str(path))[0].tolist()
    if values.ndim == 3 or len(present) > 2:
        listed = [f"{value:#08x}"[2:] if values.ndim == 3 else value for value in present]
        raise FullconvError(
            msg(
                "{path} has {count} values ({values}); expected two: outside and inside.",
                path=path,
                count=len(present),
                values=truncated_list(listed),
            ),
            msg("save it as a black and white PNG"),
        )
    inside: NDArray[np.bool_] = values == present[-1]
    return inside if len(present) == 2 or present[0] > 0 else np.zeros(values.shape, bool)


def _other_size(path: Path, image: Path, size: tuple[int, ...], expected: Size) -> FullconvError:
    return FullconvError(
        msg(
            "{path} has {height} x {width} pixels (height x width), but {image} has "
            "{expected_height} x {expected_width}.",
            path=path,
            height=size[0],
            width=size[1],
            image=image,
            expected_height=expected[0],
            expected_width=expected[1],
        ),
        msg("export both again, or remove them"),
    )
