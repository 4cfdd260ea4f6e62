"""Class tables of data sets: dataset.toml, classes.txt, what a layout knows, else mask values.

    classes = ["background", "road"]      # dataset.toml; the position is the id in the mask
    ignore_index = 255
    images = "photos"                     # optional: the folders, relative to this file
    masks = "truth"
    layout = "folders"                    # optional: where another one is recognised
    [map]                                 # optional: value in a mask file -> class, or "ignore"
    255 = "road"
    "#804080" = "road"
    [colors]                              # optional: the VOC palette where left out
    road = "#804080"

classes.txt has one class per line: see `fullconv.data.layouts.class_table_files`. Text that is no table is left
alone, and said.
The YAML file that Ultralytics trains from (names, label_mapping) counts where there is neither.
"""

from __future__ import annotations

import difflib
import io
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.labels import IGNORE, RGB, Labels, parse_color, voc_color
from fullconv.core.text import plural
from fullconv.data.io import masks
from fullconv.data.io.scan_cache import ScanCache
from fullconv.data.layouts.class_table_files import from_pairs, name_list, parse_table, read_yaml

Settings: TypeAlias = dict[str, Any]

SETTINGS_NAME = "dataset.toml"

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
    """Where the masks do not say which classes there are. Not even 255 has a meaning here, so that
    nothing can be trained before `check` was read.

    Args:
        proposed: the names of black and white, where a person says that they are meant.
    """

    proposed: tuple[str, ...] = ("background", "object")


UNDECIDED = UndeterminedLabels(("class 0",), ignore_index=254)

_EXPECTED: dict[str, tuple[str, type, str]] = {  # in words, the type, an example to paste
    "classes": ("a list of names", list, 'classes = ["background", "road"]'),
    "ignore_index": ("a whole number", int, "ignore_index = 255"),
    "map": ("a table", dict, '[map]\n255 = "road"'),
    "colors": ("a table", dict, '[colors]\nroad = "#804080"'),
    "images": ("a folder", str, 'images = "images"'),
    "masks": ("a folder", str, 'masks = "masks"'),
    "layout": ("the name of a layout", str, 'layout = "folders"'),
}
_MOST_NOMINAL = 64
_VERSION = 2  # of what is remembered of a mask
_LEAST = 0.0003  # share of the pixels that a colour must have to be meant
_ROUNDED = 8  # how far a blend may lie off the line between its two colours
_MOST_CLASSES = 1000  # more than this many values are not class ids


def read_settings(root: Path) -> Settings:
    """The keys of ROOT/dataset.toml, checked; {} where there is none."""
    path = root / SETTINGS_NAME
    if not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FullconvError(
            f"{path} is not valid TOML: {error}.", 'classes = ["a", "b"]'
        ) from error
    for key, value in table.items():
        if key not in _EXPECTED:
            near = _nearest(key, _EXPECTED)
            raise FullconvError(
                f"{path}: unknown key {key!r}; there are {', '.join(_EXPECTED)}.",
                f"{near} in place of {key}",
            )
        words, kind, example = _EXPECTED[key]
        wrong = not isinstance(value, kind) or isinstance(value, bool)
        if wrong or (kind is list and not all(isinstance(name, str) for name in value)):
            raise FullconvError(f"{path}: {key} is {value!r}; expected {words}.", example)
    return table


def read_labels(
    root: Path, settings: Settings, mask_paths: Sequence[Path], *, known: Labels | None = None
) -> tuple[Labels, bool, list[str]]:
    """The class table of a data set, whether its names are real, and notes on where it is from.

    dataset.toml first, then classes.txt, then `known` (from the layout), then the YAML file of
    Ultralytics, then the mask values.
    """
    notes: list[str] = []
    base: Labels | None = None
    if "classes" not in settings:
        held = cache(lambda: _held(mask_paths))
        base = _from_text_files(root, held if known is None else None, "map" in settings, notes)
        if base is not None and known is not None and base.names == known.names:
            base = replace(base, colors=known.colors)
        if base is None and known is not None:
            base = known
            notes.append(f"class names: the {len(known)} that the layout is known for")
        if base is None:
            base = _from_yaml(root, notes)
        named = base is not None and not isinstance(base, UndeterminedLabels)
        if base is None:
            base = _infer(held(), notes)
    else:
        named = True
    return (_apply(settings, base, root / SETTINGS_NAME) if settings else base), named, notes  # type: ignore[return-value]


def infer(mask_paths: Iterable[Path], notes: list[str]) -> Labels:
    """Ids 0 .. max of the masks as "class 0" ...; `UNDECIDED` where the values are no ids."""
    return _infer(_held(mask_paths), notes)


def _held(mask_paths: Iterable[Path]) -> tuple[Counter[Any], bool]:
    """How many pixels of all masks have each value, and whether one is lossy."""
    counts: Counter[Any] = Counter()
    lossy = False
    with ScanCache() as known, ThreadPoolExecutor() as pool:
        for tally in pool.map(lambda path: _tally(path, known), mask_paths):
            if tally is not None:
                counts.update(tally.counts)
                lossy = lossy or tally.lossy
    return counts, lossy


def _infer(held: tuple[Counter[Any], bool], notes: list[str]) -> Labels:
    counts, lossy = held
    colored = any(isinstance(value, tuple) for value in counts)
    if colored or lossy or not counts or is_two_valued(counts) or is_soft(counts):
        notes.append("no class table, and the mask values are no class ids: they need a meaning")
        return UNDECIDED
    ignore = 65535 if max(counts) > 255 else 255
    top = max((value for value in counts if value != ignore), default=0)
    if top >= _MOST_CLASSES or min(counts) < 0:
        notes.append(f"no class table, and mask values from {min(counts)} to {max(counts)}")
        return UNDECIDED
    notes.append(f"class names made up: mask values go from 0 to {top}")
    if ignore in counts:
        notes.append(f"mask value {ignore} taken as ignore")
    return Labels(tuple(f"class {i}" for i in range(top + 1)), ignore_index=ignore)


def is_two_valued(values: Iterable[Any]) -> bool:
    """Whether 255 is there and beside it nothing but 0: a black and white mask."""
    found = set(values)
    return 255 in found and found <= {0, 255}


def is_soft(counts: Mapping[Any, int]) -> bool:
    """Whether it looks like a black and white mask with blurred borders: 0 and 255 cover most of
    it, and the rest is spread over the greys between. (Ids beside an ignored 255 are small.)"""
    if any(isinstance(value, tuple) for value in counts) or not {0, 255} <= set(counts):
        return False
    between = [value for value in counts if 0 < value < 255]
    ends = counts[0] + counts[255]
    spread = len(between) >= 8 and max(between) > 200 and min(between) < 55
    return spread and ends >= 0.8 * sum(counts.values())


def otsu(counts: Mapping[Any, int]) -> float:
    """The threshold between two groups of grey levels that leaves the least spread inside them:
    N. Otsu, "A threshold selection method from gray-level histograms", 1979. Halfway between the
    two levels that it parts.

    >>> otsu({0: 90, 10: 5, 250: 5, 255: 40})
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
    """The colours that were meant, of masks whose borders are blended: those that cover more than
    `_LEAST` of the pixels and do not lie between two that are commoner. Black first, then as in
    the VOC palette.

    >>> nominal_colors({(0, 0, 0): 900, (128, 0, 0): 500, (64, 0, 0): 9, (90, 2, 0): 8})
    ((0, 0, 0), (128, 0, 0))
    """
    colors = {v if isinstance(v, tuple) else (v, v, v): n for v, n in counts.items()}
    least = _LEAST * sum(colors.values())
    found: list[RGB] = []
    for color in sorted(colors, key=lambda color: -colors[color]):
        if colors[color] < least or len(found) == _MOST_NOMINAL:
            break
        if not any(_between(color, one, other) for one, other in combinations(found, 2)):
            found.append(color)
    order = {voc_color(k): k for k in range(256)}
    return tuple(sorted(found, key=lambda color: (order.get(color, 256), color)))


def _between(color: RGB, one: RGB, other: RGB) -> bool:
    """Whether a colour is a blend of two others, up to rounding."""
    line = [b - a for a, b in zip(one, other, strict=True)]
    offset = [c - a for a, c in zip(one, color, strict=True)]
    length = sum(x * x for x in line)
    along = sum(x * y for x, y in zip(line, offset, strict=True)) / length
    rest = sum((y - along * x) ** 2 for x, y in zip(line, offset, strict=True))
    return 0 <= along <= 1 and rest <= _ROUNDED**2


def _from_text_files(
    root: Path,
    held: Callable[[], tuple[Counter[Any], bool]] | None,
    mapped: bool,
    notes: list[str],
) -> Labels | None:
    """Of classes.txt and its like. A plain list of names counts where it fits the values that the
    masks hold (None: the layout has names); `mapped`: dataset.toml says what these mean."""
    for name in ("classes.txt", "class_names.txt", "labelmap.txt"):
        path = root / name
        if not path.is_file():
            continue
        try:
            text = path.read_text("utf-8-sig")
            labels, names = parse_table(text), name_list(text)
        except UnicodeDecodeError:
            labels, names = None, []
        except FullconvError as error:
            raise FullconvError(f"{path}: {error.message}", error.hint) from error
        if names and held is not None and (labels is None or len(names) <= 2):
            fitting = _fitting(names, mapped, *held())
            if fitting is not None:
                order = "a name on each line" * (len(names) > 1) or "the rest is background"
                notes.append(f"class names from {name}: {order}")
                return fitting
        if labels is not None:
            notes.append(f"class names from {name}")
            return labels
        why = "is not a class table (a line is 'value name', 'r g b name' or 'name')"
        if names and held is not None:
            top = max((v for v in held()[0] if isinstance(v, int)), default="none")
            fit = plural(len(names), "name does", "names do")
            why = f"is set aside: its {fit} not fit mask values to {top}"
        notes.append(f"{name} {why}")
    return None


def _fitting(names: list[str], mapped: bool, counts: Counter[Any], lossy: bool) -> Labels | None:
    """The names for the values in the masks: for the ids in their order, or for black and white;
    one name alone is what is not background. None where they do not fit."""
    if not counts or any(isinstance(value, tuple) for value in counts):
        return None
    if len(names) == 1 and names[0].lower() != "background":
        names = ["background", *names]
    if not mapped and (lossy or is_two_valued(counts) or is_soft(counts)):
        return replace(UNDECIDED, proposed=tuple(names)) if len(names) == 2 else None
    fits = mapped or set(counts) <= {*range(len(names)), 255, 65535}
    return from_pairs(list(enumerate(names))) if fits else None


def _from_yaml(root: Path, notes: list[str]) -> Labels | None:
    found = read_yaml(root)
    if found is None:
        return None
    notes.append(f"class names from {found.path.name}")
    names = tuple(found.listed)
    if not found.mapping:
        return from_pairs(list(enumerate(names)))
    ignore = 255 if len(names) <= 255 else 65535
    values: dict[int | RGB, int] = {
        value: ignore if k is None else k for value, k in found.mapping.items()
    }
    # What the mapping leaves out has no class: it is said, not guessed.
    return Labels(names, ignore_index=ignore, values=values, strict_values=True)


def _apply(settings: Settings, base: Labels | None, path: Path) -> Labels:
    """The class table with what dataset.toml says on top."""
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
            values[_value(key)] = _class_id(labels, name)
        strict = base is not None and base.strict_values
        labels = Labels(names, tuple(colors), ignore, values, strict_values=strict)
        masks.mask_dtype(labels)  # an ignore index that no mask can hold
    except FullconvError as error:
        raise FullconvError(f"{path}: {error.message}", error.hint) from error
    return labels


def _class_id(labels: Labels, name: Any) -> int:
    if name != IGNORE and name not in labels.names:
        raise FullconvError(
            f"no class {name!r}; there are {', '.join(labels.names)} and {IGNORE}.",
            f'"{_nearest(str(name), [*labels.names, IGNORE])}" in place of "{name}"',
        )
    return labels.index(name)


def _value(key: str) -> int | RGB:
    if key.startswith("#"):
        return parse_color(key)
    if not key.isdecimal():
        raise FullconvError(
            f"[map] has the key {key!r}; expected a whole number or a colour.",
            '255 = "road", or "#804080" = "road"',
        )
    return int(key)


def _nearest(word: str, words: Iterable[str]) -> str:
    words = list(words)
    return (difflib.get_close_matches(word, words, 1, 0) or words)[0]


def _tally(path: Path, known: ScanCache) -> masks.MaskHistogram | None:
    try:
        content = path.read_bytes()
        key = f"mask {_VERSION} {masks.content_key(content, path)}"
        found = masks.MaskHistogram.from_json(known.get(key))
        if found is None:
            found = masks.count_values(io.BytesIO(content), name=str(path))
            known.put(key, found.to_json())
        return found
    except (FullconvError, OSError):
        return None  # `check` says what is wrong with it
