"""Masks: the only place that opens, decodes and encodes a mask file.

A *value* is what stands in the file: an integer (palette index, grey level, 16-bit number; the raw
sample, never a displayed brightness) or an RGB colour. A *class id* is what `Labels` makes of it.
Palette files are never converted to grey: that turns the ids 0, 1, 2 into the brightness of their
colours. Nothing is guessed: a value without a class is an error.

Shapes: H, W picture · K classes.
"""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from fullconv.data import matlab
from fullconv.data.pictures import Source, opened, source_name, upright
from fullconv.errors import FullconvError
from fullconv.labels import RGB, Labels, format_color, voc_color

Value: TypeAlias = int | RGB
Ids: TypeAlias = NDArray[np.integer[Any]]

_LOSSY = ("JPEG", "MPO", "AVIF", "WEBP")
ARRAY_SUFFIXES = (".npy", ".mat")  # of masks that are no pictures
_LISTED = 8  # unknown values that an error spells out


@dataclass(frozen=True)
class Tally:
    """What stands in one mask file.

    Args:
        size: (H, W), upright.
        counts: value -> pixels.
        gray_rgb: an RGB file whose three channels are equal everywhere; `counts` has integers.
        lossy: see `is_lossy`.
    """

    size: tuple[int, int]
    counts: dict[Value, int]
    gray_rgb: bool = False
    lossy: bool = False

    def classes(self, labels: Labels) -> dict[Value, int | None]:
        """Class id, `ignore_index` or None of every value in the file."""
        if self.are_colors(labels):
            return {value: labels.class_of((value,) * 3) for value in self.counts}  # type: ignore[arg-type]
        return {value: labels.class_of(value) for value in self.counts}

    def to_plain(self) -> dict[str, Any]:
        """As JSON holds it; `from_plain` reads it back."""
        return {
            "size": self.size,
            "counts": list(self.counts.items()),
            "gray_rgb": self.gray_rgb,
            "lossy": self.lossy,
        }

    @classmethod
    def from_plain(cls, table: Any) -> Tally | None:
        """Of what `to_plain` made; None where it is not of that form."""
        try:
            counts = {tuple(v) if isinstance(v, list) else int(v): n for v, n in table["counts"]}
            height, width = table["size"]
            return cls((height, width), counts, table["gray_rgb"], table["lossy"])
        except (TypeError, KeyError, ValueError):
            return None

    def are_colors(self, labels: Labels) -> bool:
        """Whether integer counts mean grey colours: the table names each of them as a colour."""
        return self.gray_rgb and _are_colors(self.counts, labels)


def read_values(path: Source) -> Ids:
    """The values in a mask file: (H, W) integers, or (H, W, 3) uint8 where it holds colours.

    An RGB file whose three channels are equal everywhere counts as grey; alpha is dropped.
    """
    return _read(path)[0]


def read_mask(path: Source, labels: Labels) -> Ids:
    """(H, W) class ids of a mask file: uint8, or uint16 where there are more than 255 classes."""
    values, gray_rgb, _ = _read(path)
    dtype = mask_dtype(labels)
    ids = class_lookup(values, labels, gray_rgb=gray_rgb)
    unknown = ids < 0
    if unknown.any():
        if not labels.lenient:
            raise _unknown(source_name(path), values, unknown, labels)
        ids[unknown] = labels.ignore_index
    return ids.astype(dtype)


def class_lookup(values: Ids, labels: Labels, *, gray_rgb: bool = False) -> NDArray[np.int32]:
    """(H, W) class id or `ignore_index` of every value, -1 where it has none.

    Args:
        values: from `read_values`.
        gray_rgb: they come from an RGB file with equal channels.
    """
    if values.ndim == 3:
        return _lookup(
            _pack(values), {_pack_one(c): k for c, k in _colors(labels).items()}, 1 << 24
        )
    known = _integers(labels)
    if gray_rgb and _are_colors({int(v): 0 for v in np.unique(values)}, labels):
        known = {c[0]: k for c, k in _colors(labels).items() if c[0] == c[1] == c[2]}
    return _lookup(values, known, 1 << 8 * min(values.dtype.itemsize, 2))


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
    if ids.ndim != 2 or ids.dtype.kind not in "ui" or ids.size == 0:
        raise FullconvError(
            f"a mask of shape {ids.shape} and type {ids.dtype}; expected (H, W) whole numbers.",
            'np.asarray(ids).squeeze().astype("uint8")',
        )
    dtype = mask_dtype(labels)
    strange = np.unique(ids[((ids < 0) | (ids >= len(labels))) & (ids != labels.ignore_index)])
    if strange.size:
        raise FullconvError(
            f"ids {strange[:_LISTED].tolist()} cannot be written to {path}: there are "
            f"{len(labels)} classes (0..{len(labels) - 1}) and {labels.ignore_index} for ignore.",
            f"np.where((ids >= 0) & (ids < {len(labels)}), ids, {labels.ignore_index})",
        )
    image = Image.fromarray(np.ascontiguousarray(ids.astype(dtype)))
    if dtype == np.uint8:
        palette = [voc_color(i) for i in range(256)]
        palette[: len(labels)] = labels.colors
        palette[labels.ignore_index] = voc_color(255)
        image.putpalette([channel for color in palette for channel in color])
    _save(image, path, mark)


def is_lossy(path: Source) -> bool:
    """Whether the file's real format (not its suffix) changes values when it is written."""
    if source_name(path).lower().endswith(ARRAY_SUFFIXES):
        return False
    with opened(path, "mask") as image:
        return _is_lossy(image)


def tally(path_or_file: Source, *, name: str = "") -> Tally:
    """Count the values of one mask file; all that `check` wants to know, in one decode."""
    return read_tally(path_or_file, name=name)[0]


def read_tally(path_or_file: Source, *, name: str = "") -> tuple[Tally, Ids]:
    """What `tally` and `read_values` give, in one decode."""
    values, gray_rgb, lossy = _read(path_or_file, name)
    flat = _pack(values) if values.ndim == 3 else values
    if flat.dtype.itemsize <= 2 and flat.dtype.kind == "u":
        pixels = np.bincount(flat.ravel())
        found = np.flatnonzero(pixels)
        pixels = pixels[found]
    else:
        found, pixels = np.unique(flat, return_counts=True)
    keys: list[Value] = [int(v) for v in found]
    if values.ndim == 3:
        keys = [_unpack(int(v)) for v in found]
    height, width = values.shape[:2]
    counts = dict(zip(keys, pixels.tolist(), strict=True))
    return Tally((height, width), counts, gray_rgb, lossy), values


def map_lines(values: Mapping[Any, str]) -> str:
    """A [map] table for dataset.toml.

    >>> print(map_lines({11: "ignore", (128, 64, 128): "road"}))
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
        return _narrow(matlab.read_labels(source, name)), False, False
    if name.lower().endswith(".npy"):
        return _narrow(_read_array(source, name)), False, False
    with opened(source, "mask", name=name) as opened_image:
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


def _read_array(source: Source, name: str) -> NDArray[Any]:
    """(H, W) whole numbers of a .npy file; pickles in it are not opened."""
    try:
        content = Path(source).read_bytes() if isinstance(source, str | Path) else source.read()
        values = np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise FullconvError(
            f"mask {name} cannot be read as a NumPy file: {said}.",
            f"np.save({name!r}, ids.astype('uint8'))",
        ) from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "uib":
        what = f"{values.dtype} of shape {values.shape}" if hasattr(values, "dtype") else "no array"
        one_hot = getattr(values, "ndim", 0) == 3
        raise FullconvError(
            f"mask {name} holds {what}; expected whole numbers (height, width).",
            f"np.save({name!r}, {'array.argmax(-1)' if one_hot else 'array'}.astype('uint8'))",
        )
    return values


def _narrow(values: NDArray[Any]) -> Ids:
    """As 8 or 16 bit where they fit, else 32 bit with sign."""
    if not values.size:
        raise FullconvError("a mask without a pixel.", "export it again from its picture")
    low, high = int(values.min()), int(values.max())
    kind = np.uint8 if low >= 0 and high <= 255 else np.uint16 if 0 <= low <= high < 65536 else None
    return np.ascontiguousarray(values.astype(kind or np.int32))


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the samples lie in a PNG file; it is forgotten once the picture is loaded."""
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


def _are_colors(counts: Mapping[Any, int], labels: Labels) -> bool:
    """Whether the grey levels of an RGB file are all colours that the table names itself."""
    return all((value, value, value) in labels.values for value in counts)


def _integers(labels: Labels) -> dict[int, int]:
    """Integer value -> class id, of every integer that has one."""
    keys = [*range(len(labels)), labels.ignore_index, *labels.values]
    known = {key: labels.class_of(key) for key in keys if isinstance(key, int)}
    return {key: found for key, found in known.items() if found is not None}


def _colors(labels: Labels) -> dict[RGB, int]:
    keys = [*labels.colors, *labels.values]
    known = {key: labels.class_of(key) for key in keys if isinstance(key, tuple)}
    return {key: found for key, found in known.items() if found is not None}


def _lookup(values: Ids, known: Mapping[int, int], size: int) -> NDArray[np.int32]:
    """Class id of every pixel; -1 where the value has none."""
    if values.dtype.kind == "i":  # 32-bit files: any number may come
        found, inverse = np.unique(values, return_inverse=True)
        few = np.array([known.get(int(v), -1) for v in found], np.int32)
        return few[inverse.reshape(values.shape)]
    # zeros: the pages of the 24-bit table that no pixel touches are never made.
    table = np.zeros(size, np.int32)
    for value, class_id in known.items():
        if 0 <= value < size:
            table[value] = class_id + 1
    return table[values] - 1


def _pack(colors: NDArray[Any]) -> NDArray[Any]:
    """24 bit, as uint32."""
    wide = colors.astype(np.uint32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _pack_one(color: RGB) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _unpack(number: int) -> RGB:
    return number >> 16, number >> 8 & 255, number & 255


def _unknown(name: str, values: Ids, where: NDArray[np.bool_], labels: Labels) -> FullconvError:
    flat = _pack(values) if values.ndim == 3 else values
    found, counts = np.unique(flat[where], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_LISTED]
    keys: list[Value] = [int(v) for v in found[order]]
    if values.ndim == 3:
        keys = [_unpack(v) for v in found[order].tolist()]
    shown = ", ".join(
        f"{key if isinstance(key, int) else format_color(key)} ({count} pixels)"
        for key, count in zip(keys, counts[order].tolist(), strict=True)
    )
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    row, column = np.argwhere(where)[0].tolist()
    return FullconvError(
        f"mask {name}: {int(where.sum())} of {where.size} pixels hold a value without a class: "
        f"{shown}{more}; the first at row {row}, column {column}. Expected {describe(labels)}.",
        "in dataset.toml, with a class name in place of ignore where it is one:\n"
        + map_lines(dict.fromkeys(keys, "ignore")),
    )


def describe(labels: Labels, limit: int = 30) -> str:
    """The class table in one line, for messages.

    >>> describe(Labels(("sky", "road"), values={11: 255}))
    '0 sky, 1 road, 11 ignore, 255 ignore'
    """
    colored = any(isinstance(value, tuple) for value in labels.values)
    table: Mapping[Any, int] = (
        _colors(labels) if colored else dict(sorted(_integers(labels).items()))
    )
    parts = [
        f"{value if isinstance(value, int) else format_color(value)} "
        f"{'ignore' if class_id == labels.ignore_index else labels.names[class_id]}"
        for value, class_id in table.items()
    ]
    rest = f", ... ({len(parts)} in all)" if len(parts) > limit else ""
    return ", ".join(parts[:limit]) + rest


def _save(image: Image.Image, path: Path, mark: PngInfo | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files may be read by nobody but their owner.
    unfinished = path.with_name(f".{path.stem}-{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("xb") as file:
            image.save(file, format="PNG", pnginfo=mark)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
