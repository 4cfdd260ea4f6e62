"""Read and write masks: the only module that opens, decodes and encodes mask files.

A *value* is what a file stores: an integer (palette index, gray level or 16-bit number; the raw
sample, never a displayed brightness) or an RGB color. A *class id* is what `Labels` assigns to it.
Palette files are never converted to gray, which would turn the ids 0, 1, 2 into the brightness of
their colors. Nothing is guessed: a value without a class is an error.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from fullconv.core.errors import FullconvError
from fullconv.core.files import atomic_path
from fullconv.core.i18n import join, msg, nmsg
from fullconv.core.labels import IGNORE, RGB, Labels, voc_color
from fullconv.core.text import truncated_list
from fullconv.data.io.images import Source, open_image, pixels_to_decode, source_name, upright
from fullconv.data.io.limits import decode_budget
from fullconv.data.io.mask_values import (
    Ids,
    Value,
    are_colors,
    bands,
    describe,
    format_value,
    make_class_lookup,
    map_table,
    palette_speaks,
    unpack,
    value_counts,
)
from fullconv.data.io.matlab import read_mat_mask
from fullconv.data.io.npy import read_npy_mask
from fullconv.data.io.pages import refuse_pages

_LOSSY = ("JPEG", "MPO", "AVIF", "WEBP")
ARRAY_SUFFIXES = (".npy", ".mat")  # masks that are not image files
_MAX_LISTED = 8  # unknown values that an error spells out
_DENSEST = 1000  # pixels per byte of a compressed array
_MAX_COLORS = 1 << 12  # in a histogram; drawn masks have far fewer, masks saved as JPEG far more


@dataclass(frozen=True)
class MaskHistogram:
    """The values in one mask file."""

    size: tuple[int, int]  # (H, W), upright
    counts: dict[Value, int]  # value -> number of pixels
    gray_rgb: bool = False  # the file is RGB with equal channels; `counts` has integers
    lossy: bool = False  # the format of the file (by content, not suffix) is lossy
    more: int = 0  # number of rare colors that `counts` leaves out
    more_pixels: int = 0  # number of pixels with these colors
    palette: dict[int, RGB] = field(default_factory=dict)  # indices in use -> color

    def in_colors(self, labels: Labels) -> MaskHistogram:
        """Return the histogram of a palette file by color, if its colors tell the classes."""
        if not palette_speaks(self.palette, labels):
            return self
        counts: Counter[Value] = Counter()
        for index, count in self.counts.items():
            counts[self.palette[index]] += count  # type: ignore[index]
        return replace(self, counts=dict(counts), palette={})

    def classes(self, labels: Labels) -> dict[Value, int | None]:
        """Return the class id, `ignore_index` or None (no class) of every value in the file."""
        if self.are_colors(labels):
            return {value: labels.class_of((value,) * 3) for value in self.counts}  # type: ignore[arg-type]
        return {value: labels.class_of(value) for value in self.counts}

    def to_json(self) -> dict[str, Any]:
        """Return a table for JSON; `from_json` reads it back."""
        more = [self.more, self.more_pixels]
        table = {"size": self.size, "counts": list(self.counts.items()), "more": more}
        palette = list(self.palette.items())
        return {**table, "gray_rgb": self.gray_rgb, "lossy": self.lossy, "palette": palette}

    @classmethod
    def from_json(cls, table: Any) -> MaskHistogram | None:
        """Read what `to_json` returned; None if the table has another form."""
        try:
            counts = {tuple(v) if isinstance(v, list) else int(v): n for v, n in table["counts"]}
            height, width = table["size"]
            more, pixels = table["more"]
            palette = {int(index): tuple(color) for index, color in table["palette"]}
            flags = table["gray_rgb"], table["lossy"]
            return cls((height, width), counts, *flags, more, pixels, palette)
        except (TypeError, KeyError, ValueError):
            return None

    def are_colors(self, labels: Labels) -> bool:
        """Return whether integer values are gray colors, because the class table lists them all."""
        return self.gray_rgb and are_colors(self.counts, labels)


def read_values(path: Source, labels: Labels | None = None) -> Ids:
    """Read the values of a mask file: (H, W) integers, or (H, W, 3) uint8 colors, without alpha.

    An RGB file with equal channels is read as gray; a palette file as indices, unless its colors
    tell the classes of `labels`.
    """
    return _read(path, labels=labels).values


def read_mask(path: Source, labels: Labels) -> Ids:
    """Read a mask file as (H, W) class ids: uint8, or uint16 for more than 255 classes.

    Raises:
        FullconvError: the file cannot be read, or a value has no class.
    """
    file = _read(path, labels=labels)
    values, gray_rgb = file.values, file.gray_rgb
    ids = np.empty(values.shape[:2], mask_dtype(labels))
    lookup = make_class_lookup(values, labels, gray_rgb=gray_rgb)
    for rows in bands(values):
        class_ids = lookup(values[rows])
        unknown = class_ids < 0
        if unknown.any():
            if not labels.unknown_as_ignore:
                raise _unknown_values(source_name(path), values, gray_rgb, labels)
            class_ids[unknown] = labels.ignore_index
        ids[rows] = class_ids
    return ids


def class_lookup(values: Ids, labels: Labels, *, gray_rgb: bool = False) -> NDArray[np.int32]:
    """Return (H, W) class ids or `ignore_index` of what `read_values` returned; -1 for no class."""
    return make_class_lookup(values, labels, gray_rgb=gray_rgb)(values)


def write_mask(
    path: str | Path, ids: NDArray[Any], labels: Labels, *, mark: PngInfo | None = None
) -> None:
    """Write class ids as a palette PNG in the colors of `labels` (16-bit gray above 255 classes).

    The file holds class ids, not the values of the dataset that they came from: read it with a
    `Labels` that has no `values`. `mark` are text chunks to store beside the pixels.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        message = msg(
            "a mask is written as PNG, not as {name!r}: other formats change its values.",
            name=path.name,
        )
        raise FullconvError(message, f"{path.stem}.png")
    image = mask_image(ids, labels, str(path))
    with atomic_path(path) as unfinished, unfinished.open("xb") as file:
        save_png(image, file, mark)


def mask_image(ids: NDArray[Any], labels: Labels, name: str) -> Image.Image:
    """Return (H, W) class ids as a palette image in the colors of `labels`; above 255 classes as
    16-bit gray. Messages contain the name of the file."""
    if ids.ndim != 2 or ids.dtype.kind not in "ui" or ids.size == 0:
        values = {"shape": ids.shape, "dtype": ids.dtype}
        message = msg(
            "a mask of shape {shape} and type {dtype}; expected (H, W) whole numbers.", **values
        )
        raise FullconvError(message, 'np.asarray(ids).squeeze().astype("uint8")')
    dtype = mask_dtype(labels)
    invalid = np.unique(ids[((ids < 0) | (ids >= len(labels))) & (ids != labels.ignore_index)])
    if invalid.size:
        message = msg(
            "ids {ids} cannot be written to {name}: there are {count} classes (0..{last}), and "
            "{ignore_index} is for ignored pixels.",
            ids=invalid[:_MAX_LISTED].tolist(),
            name=name,
            count=len(labels),
            last=len(labels) - 1,
            ignore_index=labels.ignore_index,
        )
        valid = f"(ids >= 0) & (ids < {len(labels)})"
        raise FullconvError(message, f"np.where({valid}, ids, {labels.ignore_index})")
    image = Image.fromarray(np.ascontiguousarray(ids.astype(dtype)))
    if dtype == np.uint8:
        palette = [voc_color(i) for i in range(256)]
        palette[: len(labels)] = labels.colors
        palette[labels.ignore_index] = voc_color(255)
        image.putpalette([channel for color in palette for channel in color])
    return image


def count_values(path_or_file: Source, *, name: str = "") -> MaskHistogram:
    """Count the values of a mask file. Threads wait instead of decoding much at once."""
    with decode_budget.reserve(mask_pixels(path_or_file, name=name)):
        return read_histogram(path_or_file, name=name)[0]


def read_histogram(
    path_or_file: Source, labels: Labels | None = None, *, name: str = ""
) -> tuple[MaskHistogram, Ids]:
    """Return the results of `count_values` and `read_values` from one decode, without waiting."""
    file = _read(path_or_file, name, labels)
    values = file.values
    present, pixels = value_counts(values, name or source_name(path_or_file))
    total_pixels, total_values = int(pixels.sum()), len(present)
    if values.ndim == 3 and total_values > _MAX_COLORS:
        commonest = np.sort(np.argsort(-pixels, kind="stable")[:_MAX_COLORS])
        present, pixels = present[commonest], pixels[commonest]
    height, width = values.shape[:2]
    counts = dict(zip(_keys(present, values), pixels.tolist(), strict=True))
    more = total_values - len(counts), total_pixels - int(pixels.sum())
    palette = {k: file.palette[k] for k in present.tolist()} if file.palette else {}
    size, flags = (height, width), (file.gray_rgb, file.lossy)
    return MaskHistogram(size, counts, *flags, *more, palette), values


def content_key(content: bytes, path: Path) -> str:
    """Return a key for the content of a mask file: its hash, and its suffix if it is an array."""
    suffix = path.suffix.lower()
    array_suffix = suffix if suffix in ARRAY_SUFFIXES else ""
    return f"{hashlib.sha256(content).hexdigest()} {array_suffix}"


def mask_pixels(source: Source, *, name: str = "") -> int:
    """Return the number of pixels by the header of a mask file; for arrays an upper estimate."""
    name = name or source_name(source)
    if not name.lower().endswith(ARRAY_SUFFIXES):
        return pixels_to_decode(source, kind="mask", name=name)
    if isinstance(source, str | Path):
        size = Path(source).stat().st_size if Path(source).is_file() else 0
    else:
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
    return size * (_DENSEST if name.lower().endswith(".mat") else 1)


def mask_dtype(labels: Labels) -> type[np.uint8] | type[np.uint16]:
    """Return the dtype of a mask: uint8, or uint16 if a class id or the ignored id exceeds 255."""
    top = max(len(labels) - 1, labels.ignore_index)
    if labels.ignore_index < 0 or top > 65535:
        values = {"ignore_index": labels.ignore_index, "count": len(labels)}
        message = msg(
            "ignore_index {ignore_index} with {count} classes does not fit a mask, which holds "
            "whole numbers from 0 to 65535.",
            **values,
        )
        raise FullconvError(message, f"ignore_index = {255 if len(labels) <= 255 else 65535}")
    return np.uint8 if top <= 255 else np.uint16


class _File(NamedTuple):
    """The content of a mask file."""

    values: Ids
    gray_rgb: bool = False  # RGB with equal channels
    lossy: bool = False
    palette: Sequence[RGB] = ()  # color of each index


def _read(source: Source, name: str = "", labels: Labels | None = None) -> _File:
    """Read a file; one with a palette as colors, if these tell the classes of `labels`."""
    file = _decode(source, name)
    if labels is None or not file.palette or not labels.lists_colors:
        return file
    present = value_counts(file.values)[0].tolist()
    if not palette_speaks({index: file.palette[index] for index in present}, labels):
        return file
    return _File(np.array(file.palette, np.uint8)[file.values], lossy=file.lossy)


def _decode(source: Source, name: str) -> _File:
    name = name or source_name(source)
    if name.lower().endswith(ARRAY_SUFFIXES):
        read_array = read_mat_mask if name.lower().endswith(".mat") else read_npy_mask
        return _File(_narrow(read_array(source, name), name))
    with open_image(source, "mask", name=name) as opened_image:
        refuse_pages(opened_image, name)
        lossy = _is_lossy(opened_image)
        # Pillow scales 2-bit and 4-bit gray of PNG to 0..255; the ids are the stored samples. It
        # forgets the number of bits when the image is loaded.
        tiles = opened_image.tile if opened_image.format == "PNG" else ()
        samples = tiles[0][3] if tiles else ""
        samples = samples[0] if isinstance(samples, tuple) else samples
        step = {"L;2": 85, "L;4": 17}.get(str(samples), 1)
        image = upright(opened_image)
        if image.mode == "F":
            message = msg(
                "mask {name} has floating-point values; expected whole numbers (8 or 16 bits), "
                "palette indices or RGB colors.",
                name=name,
            )
            raise FullconvError(message, msg("save it again as 8-bit or 16-bit PNG"))
        if image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16"):
            values = np.array(image, np.uint8) if image.mode == "1" else np.array(image)
            values = values // step if step > 1 else values
            return _File(values, lossy=lossy, palette=_palette(image))
        if image.mode in ("LA", "PA", "La"):
            return _File(np.array(image)[..., 0], lossy=lossy, palette=_palette(image))
        values = np.array(image if image.mode in ("RGB", "RGBA") else image.convert("RGB"))[..., :3]
    if (values[..., 0] == values[..., 1]).all() and (values[..., 1] == values[..., 2]).all():
        return _File(np.ascontiguousarray(values[..., 0]), True, lossy)
    return _File(values, lossy=lossy)


def _palette(image: Image.Image) -> list[RGB]:
    """Return 256 colors, black beyond the end of the palette; [] for an image without one."""
    if image.mode not in ("P", "PA"):
        return []
    flat = (image.getpalette("RGB") or []) + [0] * 768
    return [(flat[k], flat[k + 1], flat[k + 2]) for k in range(0, 768, 3)]


def _narrow(values: NDArray[Any], name: str) -> Ids:
    """Convert to uint8, uint16 or int32, the first that holds all values."""
    if not values.size:
        message = msg("mask {name} has no pixels.", name=name)
        raise FullconvError(message, msg("export it again from its image"))
    low, high = int(values.min()), int(values.max())
    for dtype in (np.uint8, np.uint16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.ascontiguousarray(values, dtype)
    span = {"name": name, "low": low, "high": high}
    message = msg("mask {name} has values from {low} to {high}; expected class ids.", **span)
    raise FullconvError(message, msg("save the class ids as 8-bit PNG"))


def _is_lossy(image: ImageFile.ImageFile) -> bool:
    if image.format == "WEBP" and image.fp is not None:
        position = image.fp.tell()
        image.fp.seek(0)
        head = image.fp.read(4096)
        image.fp.seek(position)
        return b"VP8L" not in head  # the name of the lossless chunk
    return image.format in _LOSSY


def _unknown_values(name: str, values: Ids, gray_rgb: bool, labels: Labels) -> FullconvError:
    # The values without a class, the commonest first.
    present, counts = value_counts(values, name)
    keys = _keys(present, values)
    rows = np.array(keys, np.uint8) if values.ndim == 3 else present
    lookup = make_class_lookup(values, labels, gray_rgb=gray_rgb)
    unknown = np.flatnonzero(lookup(rows.astype(values.dtype)[None])[0] < 0)
    unknown = unknown[np.argsort(-counts[unknown], kind="stable")]
    listed = []
    for k in unknown.tolist():
        count, value = int(counts[k]), format_value(keys[k])
        listed.append(
            nmsg("{value} ({count} pixel)", "{value} ({count} pixels)", count, value=value)
        )
    # The first pixel with such a value.
    row, column = next(
        (rows.start + int(position[0]), int(position[1]))
        for rows in bands(values)
        for position in np.argwhere(lookup(values[rows]) < 0)[:1]
    )
    message = msg(
        "mask {name}: {count} of {total} pixels have a value without a class: {values}; the first "
        "is at row {row}, column {column}. Expected {expected}.",
        name=name,
        count=int(counts[unknown].sum()),
        total=values.shape[0] * values.shape[1],
        values=truncated_list(listed, _MAX_LISTED),
        row=row,
        column=column,
        expected=describe(labels),
    )
    table = map_table(dict.fromkeys([keys[k] for k in unknown[:_MAX_LISTED]], IGNORE))
    advice = msg("in dataset.toml, with class names in place of ignore where they are classes:")
    return FullconvError(message, join([advice, table]))


def _keys(present: NDArray[Any], values: Ids) -> list[Value]:
    """Return the values that `value_counts` found as integers or RGB colors."""
    if values.ndim == 2:
        return present.tolist()
    return [(red, green, blue) for red, green, blue in unpack(present).tolist()]


def save_png(image: Image.Image, file: IO[bytes], mark: PngInfo | None) -> None:
    """Save as PNG with run-length compression only: faster, and masks hardly become larger."""
    image.save(file, format="PNG", pnginfo=mark, compress_type=zlib.Z_RLE)
