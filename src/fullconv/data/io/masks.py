"""Masks: the only place that opens, decodes and encodes a mask file.

A *value* is what stands in the file: an integer (palette index, grey level, 16-bit number; the raw
sample, never a displayed brightness) or an RGB colour. A *class id* is what `Labels` makes of it.
Palette files are never converted to grey: that turns the ids 0, 1, 2 into the brightness of their
colours. Nothing is guessed: a value without a class is an error.

Shapes: H, W image · K classes.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels, format_color, voc_color
from fullconv.data.io.array_masks import read_mat_mask, read_npy_mask
from fullconv.data.io.images import Source, open_image, pixels_to_decode, source_name, upright
from fullconv.data.io.limits import decode_budget
from fullconv.data.io.mask_values import (
    Ids,
    Value,
    are_colors,
    bands,
    colors_of,
    counted,
    integers_of,
    make_class_lookup,
    unpack,
)

_LOSSY = ("JPEG", "MPO", "AVIF", "WEBP")
ARRAY_SUFFIXES = (".npy", ".mat")  # of masks that are no images
_LISTED = 8  # unknown values that an error spells out
_DENSEST = 1000  # pixels per byte of a packed array
_COLORS = 1 << 12  # that a tally keeps; a drawn mask has far fewer, one saved as JPEG far more


@dataclass(frozen=True)
class MaskHistogram:
    """What stands in one mask file.

    Args:
        size: (H, W), upright.
        counts: value -> pixels.
        gray_rgb: an RGB file whose three channels are equal everywhere; `counts` has integers.
        lossy: see `is_lossy`.
        more, more_pixels: colours that are left out of `counts`, which has the commonest, and the
            pixels that have them.
    """

    size: tuple[int, int]
    counts: dict[Value, int]
    gray_rgb: bool = False
    lossy: bool = False
    more: int = 0
    more_pixels: int = 0

    def classes(self, labels: Labels) -> dict[Value, int | None]:
        """Class id, `ignore_index` or None of every value in the file."""
        if self.are_colors(labels):
            return {value: labels.class_of((value,) * 3) for value in self.counts}  # type: ignore[arg-type]
        return {value: labels.class_of(value) for value in self.counts}

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it; `from_json` reads it back."""
        return {
            "size": self.size,
            "counts": list(self.counts.items()),
            "gray_rgb": self.gray_rgb,
            "lossy": self.lossy,
            "more": [self.more, self.more_pixels],
        }

    @classmethod
    def from_json(cls, table: Any) -> MaskHistogram | None:
        """Of what `to_json` made; None where it is not of that form."""
        try:
            counts = {tuple(v) if isinstance(v, list) else int(v): n for v, n in table["counts"]}
            height, width = table["size"]
            more, more_pixels = table["more"]
            return cls(
                (height, width), counts, table["gray_rgb"], table["lossy"], more, more_pixels
            )
        except (TypeError, KeyError, ValueError):
            return None

    def are_colors(self, labels: Labels) -> bool:
        """Whether integer counts mean grey colours: the table names each of them as a colour."""
        return self.gray_rgb and are_colors(self.counts, labels)


def read_values(path: Source) -> Ids:
    """The values in a mask file: (H, W) integers, or (H, W, 3) uint8 where it holds colours.

    An RGB file whose three channels are equal everywhere counts as grey; alpha is dropped.
    """
    return _read(path)[0]


def read_mask(path: Source, labels: Labels) -> Ids:
    """(H, W) class ids of a mask file: uint8, or uint16 where there are more than 255 classes."""
    values, gray_rgb, _ = _read(path)
    ids = np.empty(values.shape[:2], mask_dtype(labels))
    find = make_class_lookup(values, labels, gray_rgb=gray_rgb)
    for rows in bands(values):
        found = find(values[rows])
        unknown = found < 0
        if unknown.any():
            if not labels.unknown_as_ignore:
                raise _unknown(source_name(path), values, gray_rgb, labels)
            found[unknown] = labels.ignore_index
        ids[rows] = found
    return ids


def class_lookup(values: Ids, labels: Labels, *, gray_rgb: bool = False) -> NDArray[np.int32]:
    """(H, W) class id or `ignore_index` of every value, -1 where it has none.

    Args:
        values: from `read_values`.
        gray_rgb: they come from an RGB file with equal channels.
    """
    return make_class_lookup(values, labels, gray_rgb=gray_rgb)(values)


def write_mask(
    path: str | Path, ids: NDArray[Any], labels: Labels, *, mark: PngInfo | None = None
) -> None:
    """Write class ids as a palette PNG in the colours of `labels` (16-bit grey PNG above 255
    classes), whole or not at all, with what `mark` says beside the pixels. It holds class ids, not
    the values of the data set it came from: read it back with a `Labels` that has no `values`."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise FullconvError(
            f"a mask is written as PNG, not as {path.name!r}: other formats change its values.",
            f"{path.stem}.png",
        )
    _save(mask_image(ids, labels, str(path)), path, mark)


def mask_image(ids: NDArray[Any], labels: Labels, name: str) -> Image.Image:
    """(H, W) class ids with the colours of `labels` as a palette; above 255 classes 16-bit grey.

    Args:
        name: of the file that it is for, in messages.
    """
    if ids.ndim != 2 or ids.dtype.kind not in "ui" or ids.size == 0:
        raise FullconvError(
            f"a mask of shape {ids.shape} and type {ids.dtype}; expected (H, W) whole numbers.",
            'np.asarray(ids).squeeze().astype("uint8")',
        )
    dtype = mask_dtype(labels)
    strange = np.unique(ids[((ids < 0) | (ids >= len(labels))) & (ids != labels.ignore_index)])
    if strange.size:
        raise FullconvError(
            f"ids {strange[:_LISTED].tolist()} cannot be written to {name}: there are "
            f"{len(labels)} classes (0..{len(labels) - 1}) and {labels.ignore_index} for ignore.",
            f"np.where((ids >= 0) & (ids < {len(labels)}), ids, {labels.ignore_index})",
        )
    image = Image.fromarray(np.ascontiguousarray(ids.astype(dtype)))
    if dtype == np.uint8:
        palette = [voc_color(i) for i in range(256)]
        palette[: len(labels)] = labels.colors
        palette[labels.ignore_index] = voc_color(255)
        image.putpalette([channel for color in palette for channel in color])
    return image


def is_lossy(path: Source) -> bool:
    """Whether the file's real format (not its suffix) changes values when it is written."""
    if source_name(path).lower().endswith(ARRAY_SUFFIXES):
        return False
    with open_image(path, "mask") as image:
        return _is_lossy(image)


def count_values(path_or_file: Source, *, name: str = "") -> MaskHistogram:
    """Count the values of one mask file; all that `check` wants to know, in one decode. Threads
    wait for each other where they would decode much at once."""
    with decode_budget.reserve(mask_pixels(path_or_file, name=name)):
        return read_histogram(path_or_file, name=name)[0]


def read_histogram(path_or_file: Source, *, name: str = "") -> tuple[MaskHistogram, Ids]:
    """What `count_values` and `read_values` give, in one decode; without waiting."""
    values, gray_rgb, lossy = _read(path_or_file, name)
    found, pixels = counted(values, name or source_name(path_or_file))
    total, kinds = int(pixels.sum()), len(found)
    if values.ndim == 3 and kinds > _COLORS:
        commonest = np.sort(np.argsort(-pixels, kind="stable")[:_COLORS])
        found, pixels = found[commonest], pixels[commonest]
    keys: list[Value] = found.tolist()
    if values.ndim == 3:
        keys = [unpack(value) for value in found.tolist()]
    height, width = values.shape[:2]
    counts = dict(zip(keys, pixels.tolist(), strict=True))
    more, more_pixels = kinds - len(keys), total - int(pixels.sum())
    return MaskHistogram((height, width), counts, gray_rgb, lossy, more, more_pixels), values


def content_key(content: bytes, path: Path) -> str:
    """What a mask file holds, as a key: its bytes, and its suffix where that decides how they are
    read."""
    suffix = path.suffix.lower()
    kind = suffix if suffix in ARRAY_SUFFIXES else ""
    return f"{hashlib.sha256(content).hexdigest()} {kind}"


def mask_pixels(source: Source, *, name: str = "") -> int:
    """How many pixels a mask file has by its header; of arrays, about how many it can have."""
    name = name or source_name(source)
    if not name.lower().endswith(ARRAY_SUFFIXES):
        return pixels_to_decode(source, what="mask", name=name)
    if isinstance(source, str | Path):
        size = Path(source).stat().st_size if Path(source).is_file() else 0
    else:
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
    return size * (_DENSEST if name.lower().endswith(".mat") else 1)


def map_table(values: Mapping[Any, str]) -> str:
    """A [map] table for dataset.toml.

    >>> print(map_table({11: "ignore", (128, 64, 128): "road"}))
    [map]
    11 = "ignore"
    "#804080" = "road"
    """
    lines = ["[map]"]
    for value, name in values.items():
        key = str(value) if isinstance(value, int) else f'"{format_color(value)}"'
        lines.append(f"{key} = {json.dumps(name, ensure_ascii=False)}")
    return "\n".join(lines)


def mask_dtype(labels: Labels) -> type[np.uint8] | type[np.uint16]:
    """The type of class ids: uint8, or uint16 where there are more than 255 classes."""
    top = max(len(labels) - 1, labels.ignore_index)
    if labels.ignore_index < 0 or top > 65535:
        raise FullconvError(
            f"ignore_index {labels.ignore_index} with {len(labels)} classes does not fit a mask, "
            "which holds whole numbers from 0 to 65535.",
            f"ignore_index = {255 if len(labels) <= 255 else 65535}",
        )
    return np.uint8 if top <= 255 else np.uint16


def _read(source: Source, name: str = "") -> tuple[Ids, bool, bool]:
    """Values, whether they come from an RGB file with equal channels, whether it is lossy."""
    name = name or source_name(source)
    if name.lower().endswith(".mat"):
        return _narrow(read_mat_mask(source, name), name), False, False
    if name.lower().endswith(".npy"):
        return _narrow(read_npy_mask(source, name), name), False, False
    with open_image(source, "mask", name=name) as opened_image:
        lossy = _is_lossy(opened_image)
        step = {"L;2": 85, "L;4": 17}.get(_raw_mode(opened_image), 1)
        image = upright(opened_image)
        if image.mode == "F":
            raise FullconvError(
                f"mask {name} holds floating-point numbers; expected whole "
                "numbers (8 or 16 bit), palette indices or RGB colours.",
                "save it again as 8-bit or 16-bit PNG",
            )
        if image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16"):
            values = np.array(image, np.uint8) if image.mode == "1" else np.array(image)
            # Pillow spreads 2- and 4-bit grey over 0..255; ids are the samples themselves.
            return values // step if step > 1 else values, False, lossy
        if image.mode in ("LA", "PA", "La"):
            return np.array(image)[..., 0], False, lossy
        values = np.array(image if image.mode in ("RGB", "RGBA") else image.convert("RGB"))[..., :3]
    if (values[..., 0] == values[..., 1]).all() and (values[..., 1] == values[..., 2]).all():
        return np.ascontiguousarray(values[..., 0]), True, lossy
    return values, False, lossy


def _narrow(values: NDArray[Any], name: str) -> Ids:
    """As 8 or 16 bit where they fit, else 32 bit with sign."""
    if not values.size:
        raise FullconvError(f"mask {name} has no pixel.", "export it again from its image")
    low, high = int(values.min()), int(values.max())
    for kind in (np.uint8, np.uint16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.ascontiguousarray(values, kind)
    raise FullconvError(
        f"mask {name} holds numbers from {low} to {high}; expected class ids.",
        "save the class ids as 8-bit PNG",
    )


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the samples lie in a PNG file; it is forgotten once the image is loaded."""
    if image.format != "PNG" or not image.tile:
        return ""
    args = image.tile[0][3]
    return str(args[0] if isinstance(args, tuple) else args)


def _is_lossy(image: ImageFile.ImageFile) -> bool:
    if image.format == "WEBP" and image.fp is not None:
        position = image.fp.tell()
        image.fp.seek(0)
        head = image.fp.read(4096)
        image.fp.seek(position)
        return b"VP8L" not in head  # the name of the lossless chunk
    return image.format in _LOSSY


def _unknown(name: str, values: Ids, gray_rgb: bool, labels: Labels) -> FullconvError:
    found, counts = counted(values, name)
    rows = np.array([unpack(v) for v in found.tolist()], np.uint8) if values.ndim == 3 else found
    find = make_class_lookup(values, labels, gray_rgb=gray_rgb)
    lost = find(rows.astype(values.dtype)[None])[0] < 0
    found, counts = found[lost], counts[lost]
    order = np.argsort(-counts, kind="stable")[:_LISTED]
    keys: list[Value] = found[order].tolist()
    if values.ndim == 3:
        keys = [unpack(v) for v in found[order].tolist()]
    shown = ", ".join(
        f"{key if isinstance(key, int) else format_color(key)} ({count} pixels)"
        for key, count in zip(keys, counts[order].tolist(), strict=True)
    )
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    row, column = next(
        (rows.start + int(at[0]), int(at[1]))
        for rows in bands(values)
        for at in np.argwhere(find(values[rows]) < 0)[:1]
    )
    height, width = values.shape[:2]
    lost_pixels = f"{int(counts.sum())} of {height * width} pixels"
    return FullconvError(
        f"mask {name}: {lost_pixels} hold a value without a class: {shown}{more}; the first at row "
        f"{row}, column {column}. Expected {describe(labels)}.",
        "in dataset.toml, with a class name in place of ignore where it is one:\n"
        + map_table(dict.fromkeys(keys, "ignore")),
    )


def describe(labels: Labels, limit: int = 30) -> str:
    """The class table in one line, for messages.

    >>> describe(Labels(("sky", "road"), values={11: 255}))
    '0 sky, 1 road, 11 ignore, 255 ignore'
    """
    colored = any(isinstance(value, tuple) for value in labels.values)
    table: Mapping[Any, int] = (
        colors_of(labels) if colored else dict(sorted(integers_of(labels).items()))
    )
    parts = [
        f"{value if isinstance(value, int) else format_color(value)} "
        f"{'ignore' if class_id == labels.ignore_index else labels.names[class_id]}"
        for value, class_id in table.items()
    ]
    rest = f", ... ({len(parts)} in all)" if len(parts) > limit else ""
    return ", ".join(parts[:limit]) + rest


def save_png(image: Image.Image, file: IO[bytes], mark: PngInfo | None) -> None:
    """With run lengths alone: sooner packed, and masks of large regions hardly grow by it."""
    image.save(file, format="PNG", pnginfo=mark, compress_type=zlib.Z_RLE)


def _save(image: Image.Image, path: Path, mark: PngInfo | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files may be read by nobody but their owner.
    unfinished = path.with_name(f".{path.stem}-{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("xb") as file:
            save_png(image, file, mark)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
