"""Class tables of datasets: from dataset.toml, classes.txt, the layout, or the mask values.

    classes = ["background", "road"]      # dataset.toml; the position is the id in the mask
    ignore_index = 255
    images = "photos"                     # optional: the folders, relative to this file
    masks = "truth"
    layout = "folders"                    # optional: if another layout is recognized
    [map]                                 # optional: value in a mask file -> class, or "ignore"
    255 = "road"
    "#804080" = "road"
    [colors]                              # optional: default is the VOC palette
    road = "#804080"

The forms of classes.txt are in `fullconv.data.layouts.class_table_files`. A text that is not a
class table is skipped with a note. The YAML file of Ultralytics (names, label_mapping) is used if
there is neither.
"""

from __future__ import annotations

import io
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tomli_w

from fullconv.core.errors import FullconvError
from fullconv.core.files import atomic_write
from fullconv.core.i18n import msg, nmsg
from fullconv.core.labels import IGNORE, RGB, Labels, format_color, parse_color, voc_color
from fullconv.core.text import nearest
from fullconv.data.io import masks
from fullconv.data.io.scan_cache import ScanCache
from fullconv.data.layouts.class_table_files import (
    name_list,
    parse_table,
    read_yaml,
    table_from_pairs,
)

Settings: TypeAlias = dict[str, Any]

SETTINGS_NAME = "dataset.toml"
SETTINGS_KEYS: dict[str, tuple[str, type, str]] = {  # description, type, example to paste
    "classes": (msg("a list of names"), list, 'classes = ["background", "road"]'),
    "ignore_index": (msg("a whole number"), int, "ignore_index = 255"),
    "map": (msg("a table"), dict, '[map]\n255 = "road"'),
    "colors": (msg("a table"), dict, '[colors]\nroad = "#804080"'),
    "images": (msg("a folder"), str, 'images = "images"'),
    "masks": (msg("a folder"), str, 'masks = "masks"'),
    "layout": (msg("the name of a layout"), str, 'layout = "folders"'),
}
_TEXT_FILES = ("classes.txt", "class_names.txt", "labelmap.txt")

VOC = Labels((
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
))  # fmt: skip
CAMVID = Labels(
    ("sky", "building", "pole", "road", "sidewalk", "tree", "sign_symbol", "fence", "car",
     "pedestrian", "bicyclist"),
    ((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
     (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    values={11: 255},
)  # fmt: skip


@dataclass(frozen=True)
class UndeterminedLabels(Labels):
    """A class table for masks whose values do not tell which classes there are.

    No value has a meaning here, not even 255, so nothing can be trained before the user has read
    the report of `check`.

    Args:
        proposed: names for black and white, if the user confirms them.
    """

    proposed: tuple[str, ...] = ("background", "object")


UNDETERMINED = UndeterminedLabels(("class 0",), ignore_index=254)


class MaskValues(NamedTuple):
    """The values in all masks of a dataset."""

    counts: Counter[Any]  # value -> pixels
    lossy: bool  # whether any mask is in a lossy format


class LabelSource(NamedTuple):
    """A class table and where it is from."""

    labels: Labels
    named: bool  # False if the names are made up from ids ("class 3")
    source: str  # the file of the names, in words; "" for none
    notes: list[str]


_CACHE_VERSION = 2  # of the cached mask values
_MAX_CLASSES = 1000  # masks with more values do not hold class ids
_MAX_NOMINAL = 64
_MIN_SHARE = 0.0003  # share of the pixels that a nominal color has at least
_ROUNDING = 8  # distance of a blended color from the line between its two colors


def read_settings(root: Path) -> Settings:
    """Return the keys of ROOT/dataset.toml; {} if there is no such file.

    Raises:
        FullconvError: the file is not TOML, or a key or value is wrong.
    """
    path = root / SETTINGS_NAME
    if not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FullconvError(
            msg("{path} is not valid TOML: {reason}.", path=path, reason=str(error)),
            'classes = ["a", "b"]',
        ) from error
    for key, value in table.items():
        if key not in SETTINGS_KEYS:
            raise FullconvError(
                msg(
                    "{path}: unknown key {key!r}; expected one of {keys}.",
                    path=path,
                    key=key,
                    keys=", ".join(SETTINGS_KEYS),
                ),
                msg("replace {key} by {nearest}", key=key, nearest=nearest(key, SETTINGS_KEYS, 0)),
            )
        description, kind, example = SETTINGS_KEYS[key]
        wrong = not isinstance(value, kind) or isinstance(value, bool)
        if wrong or (kind is list and not all(isinstance(name, str) for name in value)):
            raise FullconvError(
                msg(
                    "{path}: {key} is {value!r}; expected {description}.",
                    path=path,
                    key=key,
                    value=value,
                    description=description,
                ),
                example,
            )
    return table


def write_settings(root: Path, labels: Labels) -> None:
    """Write ROOT/dataset.toml with the names, the colors and the ignore index of a class table."""
    colors = map(format_color, labels.colors)
    table = {
        "classes": list(labels.names),
        "ignore_index": labels.ignore_index,
        "colors": dict(zip(labels.names, colors, strict=True)),
    }
    atomic_write(root / SETTINGS_NAME, tomli_w.dumps(table))


def read_labels(
    root: Path,
    settings: Settings,
    mask_paths: Sequence[Path],
    *,
    layout_labels: Labels | None = None,
) -> LabelSource:
    """Return the class table of a dataset.

    The names are from dataset.toml, else classes.txt, else `layout_labels`, else the YAML file of
    Ultralytics; else they are made up from the mask values.

    Raises:
        FullconvError: a file contradicts itself.
    """
    values = cache(lambda: _count_mask_values(mask_paths))  # opens every mask: only if needed
    notes: list[str] = []
    source, base = "", None
    if "classes" not in settings:
        counted = values if layout_labels is None else None
        base, source = _from_text_files(root, counted, "map" in settings, notes)
        if base is not None and layout_labels is not None and base.names == layout_labels.names:
            base = replace(base, colors=layout_labels.colors)
        if base is None and layout_labels is not None:
            base = layout_labels
            notes.append(msg("class names: the {count} of the layout", count=len(layout_labels)))
        if base is None:
            base, source = _from_yaml(root)
        named = base is not None and not isinstance(base, UndeterminedLabels)
        if base is None:
            base = infer_labels(values(), notes)
    else:
        named = True
    if settings:
        base = _with_settings(settings, base, root / SETTINGS_NAME)
    assert base is not None
    return LabelSource(base, named, source, notes)


def infer_labels(values: MaskValues, notes: list[str]) -> Labels:
    """Return "class 0" ... for the ids in the masks; `UNDETERMINED` if the values are no ids."""
    counts = values.counts
    colored = any(isinstance(value, tuple) for value in counts)
    odd = colored or values.lossy or is_black_and_white(counts) or is_blurred(counts)
    if odd or not counts:
        notes.append(msg("no class table, and the mask values are no class ids: name the classes"))
        return UNDETERMINED
    ignore = 65535 if max(counts) > 255 else 255
    last = max((value for value in counts if value != ignore), default=0)
    if last >= _MAX_CLASSES or min(counts) < 0:
        notes.append(
            msg(
                "no class table, and mask values from {first} to {last}",
                first=min(counts),
                last=max(counts),
            )
        )
        return UNDETERMINED
    notes.append(msg("class names made up: the mask values are 0 to {last}", last=last))
    if ignore in counts:
        notes.append(msg("mask value {value} is ignored", value=ignore))
    return Labels(tuple(f"class {k}" for k in range(last + 1)), ignore_index=ignore)


def is_black_and_white(values: Iterable[Any]) -> bool:
    """Return True if the values are 0 and 255, or 255 alone."""
    distinct = set(values)
    return 255 in distinct and distinct <= {0, 255}


def is_blurred(counts: Mapping[Any, int]) -> bool:
    """Return True if the values look like a black and white mask with blurred borders.

    0 and 255 cover most pixels, and the rest is spread over the grays between them. (Class ids
    beside an ignored 255 are small numbers.)
    """
    if any(isinstance(value, tuple) for value in counts) or not {0, 255} <= set(counts):
        return False
    between = [value for value in counts if 0 < value < 255]
    spread = len(between) >= 8 and max(between) > 200 and min(between) < 55
    return spread and counts[0] + counts[255] >= 0.8 * sum(counts.values())


def otsu_threshold(counts: Mapping[Any, int]) -> float:
    """Return the threshold that splits gray levels with the least variance inside both groups.

    N. Otsu, "A threshold selection method from gray-level histograms", 1979; halfway between the
    two levels on either side.

    >>> otsu_threshold({0: 90, 10: 5, 250: 5, 255: 40})
    130.0
    """
    levels = np.array(sorted(counts), np.float64)
    weight = np.array([counts[int(level)] for level in levels], np.float64)
    if len(levels) < 2:
        return 127.5
    below = np.cumsum(weight)[:-1]
    above = weight.sum() - below
    sums = np.cumsum(weight * levels)
    between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float((levels[best[0]] + levels[best[-1] + 1]) / 2)


def nominal_colors(counts: Mapping[Any, int]) -> tuple[RGB, ...]:
    """Return the colors that masks with blended borders were drawn in.

    These are the colors that cover more than `_MIN_SHARE` of the pixels and are no blend of two
    more common ones. Black first, then in the order of the VOC palette.

    >>> nominal_colors({(0, 0, 0): 900, (128, 0, 0): 500, (64, 0, 0): 9, (90, 2, 0): 8})
    ((0, 0, 0), (128, 0, 0))
    """
    colors = {v if isinstance(v, tuple) else (v, v, v): n for v, n in counts.items()}
    minimum = _MIN_SHARE * sum(colors.values())
    nominal: list[RGB] = []
    for color in sorted(colors, key=lambda color: -colors[color]):
        if colors[color] < minimum or len(nominal) == _MAX_NOMINAL:
            break
        if not any(_is_blend(color, first, second) for first, second in combinations(nominal, 2)):
            nominal.append(color)
    order = {voc_color(k): k for k in range(256)}
    return tuple(sorted(nominal, key=lambda color: (order.get(color, 256), color)))


def _is_blend(color: RGB, first: RGB, second: RGB) -> bool:
    """Return True if a color is on the line between two others, up to rounding."""
    line = [b - a for a, b in zip(first, second, strict=True)]
    offset = [c - a for a, c in zip(first, color, strict=True)]
    length = sum(x * x for x in line)
    along = sum(x * y for x, y in zip(line, offset, strict=True)) / length
    distance = sum((y - along * x) ** 2 for x, y in zip(line, offset, strict=True))
    return 0 <= along <= 1 and distance <= _ROUNDING**2


def _from_text_files(
    root: Path,
    values: Callable[[], MaskValues] | None,
    mapped: bool,
    notes: list[str],
) -> tuple[Labels | None, str]:
    """Return the class table of classes.txt or a similar file, and the source in words.

    A plain list of names is used if it fits `values` (None: the layout has names). `mapped` tells
    that dataset.toml maps the mask values to classes.
    """
    for path in (root / name for name in _TEXT_FILES):
        if not path.is_file():
            continue
        try:
            text = path.read_text("utf-8-sig")
            labels, names = parse_table(text), name_list(text)
        except UnicodeDecodeError:
            labels, names = None, []
        except FullconvError as error:
            raise _in_file(path, error) from error
        if names and values is not None and (labels is None or len(names) <= 2):
            fitting = _fit_names(names, mapped, values())
            if fitting is not None and len(names) > 1:
                return fitting, msg("class names from {file}: a name on each line", file=path.name)
            if fitting is not None:
                return fitting, msg(
                    "class names from {file}: the rest is background", file=path.name
                )
        if labels is not None:
            return labels, msg("class names from {file}", file=path.name)
        if names and values is not None:
            last = max((v for v in values().counts if isinstance(v, int)), default="none")
            notes.append(
                nmsg(
                    "{file} is not used: its {count} name does not fit mask values up to {last}",
                    "{file} is not used: its {count} names do not fit mask values up to {last}",
                    count=len(names),
                    file=path.name,
                    last=last,
                )
            )
        else:
            notes.append(
                msg(
                    "{file} is not a class table (a line is 'value name', 'r g b name' or 'name')",
                    file=path.name,
                )
            )
    return None, ""


def _fit_names(names: list[str], mapped: bool, values: MaskValues) -> Labels | None:
    """Return the names for the ids in the masks, or for black and white; None if they do not fit.

    A single name is the class that is not background.
    """
    counts = values.counts
    if not counts or any(isinstance(value, tuple) for value in counts):
        return None
    if len(names) == 1 and names[0].lower() != "background":
        names = ["background", *names]
    if not mapped and (values.lossy or is_black_and_white(counts) or is_blurred(counts)):
        return replace(UNDETERMINED, proposed=tuple(names)) if len(names) == 2 else None
    fits = mapped or set(counts) <= {*range(len(names)), 255, 65535}
    return table_from_pairs(list(enumerate(names))) if fits else None


def _from_yaml(root: Path) -> tuple[Labels | None, str]:
    table = read_yaml(root)
    if table is None:
        return None, ""
    source = msg("class names from {file}", file=table.path.name)
    names = tuple(table.all_names)
    if not table.mapping:
        return table_from_pairs(list(enumerate(names))), source
    ignore = 255 if len(names) <= 255 else 65535
    values: dict[int | RGB, int] = {
        value: ignore if class_id is None else class_id for value, class_id in table.mapping.items()
    }
    # Values that the mapping leaves out have no class: `check` reports them.
    return Labels(names, ignore_index=ignore, values=values, strict_values=True), source


def _with_settings(settings: Settings, base: Labels | None, path: Path) -> Labels:
    """Return the class table with the keys of dataset.toml applied."""
    names = tuple(settings["classes"]) if base is None else base.names
    default = 255 if len(names) <= 255 else 65535
    ignore = settings.get("ignore_index", default if base is None else base.ignore_index)
    values: dict[int | RGB, int] = {}
    if base is not None:
        moved = {base.ignore_index: ignore}
        values = {value: moved.get(class_id, class_id) for value, class_id in base.values.items()}
    try:
        labels = Labels(names, () if base is None else base.colors, ignore, values)
        colors = list(labels.colors)
        for name, text in settings.get("colors", {}).items():
            color = parse_color(str(text))
            class_id = _class_id(labels, name)
            values[color] = class_id
            if class_id != ignore:
                colors[class_id] = color
        for key, name in settings.get("map", {}).items():
            values[_mask_value(key)] = _class_id(labels, name)
        strict = base is not None and base.strict_values
        labels = Labels(names, tuple(colors), ignore, values, strict_values=strict)
        masks.mask_dtype(labels)  # refuses an ignore index that no mask can hold
    except FullconvError as error:
        raise _in_file(path, error) from error
    return labels


def _in_file(path: Path, error: FullconvError) -> FullconvError:
    return FullconvError(msg("{path}: {message}", path=path, message=error.message), error.hint)


def _class_id(labels: Labels, name: Any) -> int:
    if name != IGNORE and name not in labels.names:
        names = [*labels.names, IGNORE]
        raise FullconvError(
            msg("no class {name!r}; expected one of {names}.", name=name, names=", ".join(names)),
            msg(
                'replace "{name}" by "{nearest}"',
                name=name,
                nearest=nearest(str(name), names, 0) or names[0],
            ),
        )
    return labels.index(name)


def _mask_value(key: str) -> int | RGB:
    if key.startswith("#"):
        return parse_color(key)
    if not key.isdecimal():
        raise FullconvError(
            msg("[map] has the key {key!r}; expected a whole number or a color.", key=key),
            msg("{number}, or {color}", number='255 = "road"', color='"#804080" = "road"'),
        )
    return int(key)


def _count_mask_values(mask_paths: Iterable[Path]) -> MaskValues:
    counts: Counter[Any] = Counter()
    lossy = False
    with ScanCache() as scan_cache, ThreadPoolExecutor() as pool:
        for histogram in pool.map(lambda path: _histogram(path, scan_cache), mask_paths):
            if histogram is not None:
                counts.update(histogram.counts)
                lossy = lossy or histogram.lossy
    return MaskValues(counts, lossy)


def _histogram(path: Path, scan_cache: ScanCache) -> masks.MaskHistogram | None:
    try:
        content = path.read_bytes()
        key = f"mask {_CACHE_VERSION} {masks.content_key(content, path)}"
        histogram = masks.MaskHistogram.from_json(scan_cache.get(key))
        if histogram is None:
            histogram = masks.count_values(io.BytesIO(content), name=str(path))
            scan_cache.put(key, histogram.to_json())
        return histogram
    except (FullconvError, OSError):
        return None  # `check` reports files that cannot be read
