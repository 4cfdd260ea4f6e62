"""Values: how many pixels of a mask have each value, and which class each value has.

Everything goes band by band: numbers as wide as counting and looking up need them would take many
times the memory of a large mask.

Shapes: H, W mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.core.labels import RGB, Labels

Value: TypeAlias = int | RGB
Ids: TypeAlias = NDArray[np.integer[Any]]
Finder: TypeAlias = Callable[[Ids], NDArray[np.int32]]

_BAND = 1 << 20  # pixels
_MANY = 1 << 16  # values; ids of classes are no more


def bands(values: NDArray[Any]) -> Iterator[slice]:
    """Rows of about a million pixels each."""
    step = max(1, _BAND // max(1, values.shape[1]))
    return (slice(top, top + step) for top in range(0, len(values), step))


def counted(values: Ids, name: str = "the mask") -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The values of a mask, ascending, colours as `pack` makes them, and how many pixels have each.

    Args:
        values: (H, W) or (H, W, 3), of one of the types that `masks` reads.
        name: of the file, for the message where there are too many for ids.
    """
    if values.ndim == 2 and values.dtype.kind == "u":
        size = 1 << 8 * values.dtype.itemsize
        pixels = np.zeros(size, np.int64)
        for rows in bands(values):
            pixels += np.bincount(values[rows].ravel(), minlength=size)
        found = np.flatnonzero(pixels)
        return found, pixels[found]
    found, pixels = np.empty(0, np.int64), np.empty(0, np.int64)
    table: NDArray[np.int64] | None = None
    for rows in bands(values):
        flat = (pack(values[rows]) if values.ndim == 3 else values[rows]).ravel()
        starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
        runs, lengths = flat[starts], np.diff(starts, append=len(flat))
        if table is None and values.ndim == 3 and len(runs) + len(found) > _MANY:
            table = np.zeros(1 << 24, np.int64)  # nothing to sort
            table[found] = pixels
        if table is not None:
            np.add.at(table, runs, lengths)
            continue
        found, pixels = _summed(np.concatenate((found, runs)), np.concatenate((pixels, lengths)))
        if len(found) > _MANY:
            raise FullconvError(
                f"mask {name} holds more than {_MANY} different numbers, from {found[0]} to "
                f"{found[-1]}; expected class ids.",
                "save the class ids as 8-bit PNG; heights and distances are no masks",
            )
    if table is not None:
        found = np.flatnonzero(table)
        pixels = table[found]
    return found, pixels


def make_class_lookup(values: Ids, labels: Labels, *, gray_rgb: bool = False) -> Finder:
    """What gives the class id or `ignore_index` of every value in a band of a mask, -1 where it has
    none.

    Args:
        values: all of the mask.
        gray_rgb: they come from an RGB file with equal channels.
    """
    if values.ndim == 3:
        colors = _table({pack_one(c): k for c, k in colors_of(labels).items()}, 1 << 24)
        return lambda part: colors[pack(part)] - 1
    known = integers_of(labels)
    if gray_rgb and are_colors(counted(values)[0].tolist(), labels):
        known = {c[0]: k for c, k in colors_of(labels).items() if c[0] == c[1] == c[2]}
    if values.dtype.kind == "i":  # 32-bit files: any number may come
        keys = np.array(sorted(known), np.int64)
        ids = np.array([known[int(key)] for key in keys], np.int32)

        def find(part: Ids) -> NDArray[np.int32]:
            at = np.minimum(np.searchsorted(keys, part), len(keys) - 1)
            return np.where(keys[at] == part, ids[at], -1).astype(np.int32)

        return find
    table = _table(known, 1 << 8 * min(values.dtype.itemsize, 2))
    return lambda part: table[part] - 1


def are_colors(greys: Iterable[Any], labels: Labels) -> bool:
    """Whether the grey levels of an RGB file are all colours that the table names itself."""
    return all((value, value, value) in labels.values for value in greys)


def integers_of(labels: Labels) -> dict[int, int]:
    """Integer value -> class id, of every integer that has one."""
    keys = [*range(len(labels)), labels.ignore_index, *labels.values]
    known = {key: labels.class_of(key) for key in keys if isinstance(key, int)}
    return {key: found for key, found in known.items() if found is not None}


def colors_of(labels: Labels) -> dict[RGB, int]:
    """Colour -> class id, of every colour that has one."""
    keys = [*labels.colors, *labels.values]
    known = {key: labels.class_of(key) for key in keys if isinstance(key, tuple)}
    return {key: found for key, found in known.items() if found is not None}


def pack(colors: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 3) uint8 -> (H, W) 24 bit."""
    wide = colors.astype(np.uint32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def pack_one(color: RGB) -> int:
    """One colour as 24 bit."""
    return color[0] << 16 | color[1] << 8 | color[2]


def unpack(number: int) -> RGB:
    """24 bit as a colour."""
    return number >> 16, number >> 8 & 255, number & 255


def _summed(
    values: NDArray[Any], pixels: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Each value once."""
    found, inverse = np.unique(values, return_inverse=True)
    return found, np.bincount(inverse, weights=pixels).astype(np.int64)


def _table(known: Mapping[int, int], size: int) -> NDArray[np.int32]:
    """Class id + 1 of every value below `size`, 0 where it has none."""
    # zeros: the pages of the 24-bit table that no pixel touches are never made.
    table = np.zeros(size, np.int32)
    for value, class_id in known.items():
        if 0 <= value < size:
            table[value] = class_id + 1
    return table
