"""Count the values of a mask, and look up the class of each value.

Masks are processed in bands of rows: the wide numbers that counting and look-up need would take
many times the memory of a large mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import tomli_w
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import IGNORE, RGB, Labels, format_color
from fullconv.core.text import truncated_list

Value: TypeAlias = int | RGB
Ids: TypeAlias = NDArray[np.integer[Any]]
ClassLookup: TypeAlias = Callable[[Ids], NDArray[np.int32]]

_BAND = 1 << 20  # pixels
_MAX_VALUES = 1 << 16  # different values in a mask; more are no class ids


def bands(values: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of rows with about a million pixels each."""
    step = max(1, _BAND // max(1, values.shape[1]))
    return (slice(top, top + step) for top in range(0, len(values), step))


def value_counts(values: Ids, name: str = "the mask") -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the values of a mask (colors as `pack`ed) in ascending order, and how many pixels have
    each. Messages contain the name of the file.

    Raises:
        FullconvError: there are too many different integers for class ids.
    """
    if values.ndim == 2 and values.dtype.kind == "u":
        size = 1 << 8 * values.dtype.itemsize
        counts = np.zeros(size, np.int64)
        for rows in bands(values):
            counts += np.bincount(values[rows].ravel(), minlength=size)
        present = np.flatnonzero(counts)
        return present, counts[present]
    # Colors and 32-bit integers: count runs of equal neighbors, and sort what is left. If there
    # are many colors, a table of all 24-bit values needs no sorting.
    present, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    table: NDArray[np.int64] | None = None
    for rows in bands(values):
        flat = (pack(values[rows]) if values.ndim == 3 else values[rows]).ravel()
        starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
        runs, lengths = flat[starts], np.diff(starts, append=len(flat))
        if table is None and values.ndim == 3 and len(runs) + len(present) > _MAX_VALUES:
            table = np.zeros(1 << 24, np.int64)
            table[present] = counts
        if table is not None:
            np.add.at(table, runs, lengths)
            continue
        present, inverse = np.unique(np.concatenate((present, runs)), return_inverse=True)
        weights = np.concatenate((counts, lengths))
        counts = np.bincount(inverse, weights=weights).astype(np.int64)
        if len(present) > _MAX_VALUES:
            message = msg(
                "mask {name} has more than {limit} different values, from {low} to {high}; "
                "expected class ids.",
                name=name,
                limit=_MAX_VALUES,
                low=int(present[0]),
                high=int(present[-1]),
            )
            hint = msg("save the class ids as 8-bit PNG; heights and distances are not masks")
            raise FullconvError(message, hint)
    if table is not None:
        present = np.flatnonzero(table)
        counts = table[present]
    return present, counts


def make_class_lookup(values: Ids, labels: Labels, *, gray_rgb: bool = False) -> ClassLookup:
    """Return a function from a band of a mask to class ids or `ignore_index`; -1 for no class.

    `values` is the whole mask; `gray_rgb` tells that they are from an RGB file with equal channels.
    """
    if values.ndim == 3:
        class_ids = {int(pack(np.array(c))): k for c, k in colors_of(labels).items()}
        colors = _lookup_table(class_ids, 1 << 24)
        return lambda band: colors[pack(band)] - 1
    class_ids = integers_of(labels)
    if gray_rgb and are_colors(value_counts(values)[0].tolist(), labels):
        class_ids = {c[0]: k for c, k in colors_of(labels).items() if c[0] == c[1] == c[2]}
    if values.dtype.kind == "i":  # 32-bit files may hold any number: binary search, no table
        keys = np.array(sorted(class_ids), np.int64)
        ids = np.array([class_ids[int(key)] for key in keys], np.int32)

        def search(band: Ids) -> NDArray[np.int32]:
            position = np.minimum(np.searchsorted(keys, band), len(keys) - 1)
            return np.where(keys[position] == band, ids[position], -1).astype(np.int32)

        return search
    table = _lookup_table(class_ids, 1 << 8 * min(values.dtype.itemsize, 2))
    return lambda band: table[band] - 1


def are_colors(grays: Iterable[Any], labels: Labels) -> bool:
    """Return whether the class table lists every one of these gray levels as a color."""
    return all((value, value, value) in labels.values for value in grays)


def palette_speaks(palette: Mapping[int, RGB], labels: Labels) -> bool:
    """Return whether the colors of a palette file, not its indices, tell the classes.

    They do if the class table gives a color in use to another class than its index. A color that
    the table lacks then has no class. Black, which is in most palettes, counts only if the table
    lists all colors in use.

    Args:
        palette: the indices that occur in the file -> color.
    """
    all_listed = all(color in labels.values for color in palette.values())
    return any(
        labels.values.get(color, index) != index and (all_listed or color != (0, 0, 0))
        for index, color in palette.items()
    )


def integers_of(labels: Labels) -> dict[int, int]:
    """Return every integer that has a class -> its class id."""
    keys = [*range(len(labels)), labels.ignore_index, *labels.values]
    class_ids = {key: labels.class_of(key) for key in keys if isinstance(key, int)}
    return {key: class_id for key, class_id in class_ids.items() if class_id is not None}


def colors_of(labels: Labels) -> dict[RGB, int]:
    """Return every color that has a class -> its class id."""
    keys = [*labels.colors, *labels.values]
    class_ids = {key: labels.class_of(key) for key in keys if isinstance(key, tuple)}
    return {key: class_id for key, class_id in class_ids.items() if class_id is not None}


def map_table(values: Mapping[Any, str]) -> str:
    """Return a [map] table for dataset.toml, such as the lines [map] and "#804080" = "road"."""
    table = {format_value(value): name for value, name in values.items()}
    return tomli_w.dumps({"map": table}).rstrip()


def format_value(value: Value) -> str:
    """Return a mask value as text: "11", or "#804080" for a color."""
    return str(value) if isinstance(value, int) else format_color(value)


def describe(labels: Labels, limit: int = 30) -> str:
    """Return the class table in one line, for messages.

    >>> describe(Labels(("sky", "road"), values={11: 255}))
    '0 sky, 1 road, 11 ignore, 255 ignore'
    """
    table: dict[Any, int] = dict(sorted(integers_of(labels).items()))
    if any(isinstance(value, tuple) for value in labels.values):
        table = dict(colors_of(labels))
    entries = [
        f"{format_value(value)} {IGNORE if k == labels.ignore_index else labels.names[k]}"
        for value, k in table.items()
    ]
    return truncated_list(entries, limit)


def pack(colors: NDArray[Any]) -> NDArray[Any]:
    """Pack (..., 3) uint8 colors into 24-bit numbers."""
    wide = colors.astype(np.uint32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def unpack(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the (..., 3) colors of 24-bit numbers."""
    return np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=-1).astype(np.uint8)


def _lookup_table(class_ids: Mapping[int, int], size: int) -> NDArray[np.int32]:
    """Return class id + 1 for every value below `size`, 0 for values without a class."""
    # zeros: the operating system never allocates pages of the 24-bit table that no pixel touches.
    table = np.zeros(size, np.int32)
    for value, class_id in class_ids.items():
        if 0 <= value < size:
            table[value] = class_id + 1
    return table
