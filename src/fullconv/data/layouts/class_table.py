"""Class tables of datasets: from dataset.toml, classes.txt, the layout, or the mask values.

The keys of dataset.toml are in `fullconv.data.layouts.settings_file`, the forms of classes.txt in
`fullconv.data.layouts.class_table_files`. A text that is not a class table is skipped with a note.
The YAML file of Ultralytics (names, label_mapping) is used if there is neither.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.labels import IGNORE, RGB, Labels, is_background, parse_color
from fullconv.core.text import nearest
from fullconv.data.io import masks
from fullconv.data.io.scan_cache import ScanCache
from fullconv.data.layouts.class_table_files import (
    name_list,
    parse_csv,
    parse_json,
    parse_table,
    read_text,
    read_yaml,
    table_from_pairs,
)
from fullconv.data.layouts.mask_value_kinds import (
    has_gaps,
    is_black_and_white,
    is_blurred,
    kinds_disagree,
    white_kind,
)
from fullconv.data.layouts.settings_file import SETTINGS_NAME, Settings

_TEXT_FILES = (
    *("classes.txt", "class_names.txt", "labelmap.txt", "label_colors.txt", "codes.txt"),
    *("class_dict.csv", "classes.csv", "_classes.csv", "classes.json", "dataset.json"),
)
_OFTEN_OTHER = ("codes.txt", "classes.json", "dataset.json")  # no note if they are no class table
_OTHER_ENCODINGS = ("utf-16", "gb2312", "cp1252")
_IN_SPLITS = "_classes.csv"  # the file that Roboflow writes into the folder of each split
_SAMPLED = 64  # masks, if a few tell enough

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
    """

    proposed: tuple[str, ...] = ("background", "object")  # black and white, if the user confirms


UNDETERMINED = UndeterminedLabels(("class 0",), ignore_index=254)


class MaskValues(NamedTuple):
    """The values in all masks of a dataset."""

    counts: Counter[Any]  # value -> pixels
    lossy: bool  # whether any mask is in a lossy format
    kinds: Mapping[str, int] = MappingProxyType({})  # see `white_kind` -> masks

    @property
    def disagree(self) -> bool:
        """True if 255 seems to be a class in some masks, and other masks have ids."""
        kinds = {kind for kind, count in self.kinds.items() if count}
        return kinds_disagree(self.kinds) or kinds == {"white"}


class LabelSource(NamedTuple):
    """A class table and where it is from."""

    labels: Labels
    named: bool  # False if the names are made up from ids ("class 3")
    source: str  # the file of the names, in words; "" for none
    notes: list[str]


_CACHE_VERSION = 2  # of the cached mask values
_MAX_CLASSES = 1000  # masks with more values do not hold class ids


def read_labels(
    root: Path,
    settings: Settings,
    mask_paths: Sequence[Path],
    *,
    layout_labels: Labels | None = None,
    layout_is_generic: bool = False,
) -> LabelSource:
    """Return the class table of a dataset.

    Args:
        root: the folder of the dataset.
        settings: its dataset.toml.
        mask_paths: all masks.
        layout_labels: the class table of a published dataset with this layout.
        layout_is_generic: people also arrange datasets of their own in this layout.

    The names are from dataset.toml, else classes.txt, else `layout_labels`, else the YAML file of
    Ultralytics; else they are made up from the mask values.

    Raises:
        FullconvError: a file contradicts itself.
    """
    values = cache(lambda: _count_mask_values(mask_paths))  # opens every mask: only if needed
    notes: list[str] = []
    source, base = "", None
    named = True
    if "classes" not in settings:
        counted = values if layout_labels is None else None
        base, source = _from_text_files(root, mask_paths, counted, "map" in settings, notes)
        if base is not None and layout_labels is not None and base.names == layout_labels.names:
            base = replace(base, colors=layout_labels.colors)
        if base is None and layout_labels is not None and layout_is_generic:
            layout_labels = _if_ids_fit(layout_labels, mask_paths, notes)
        if base is None and layout_labels is not None:
            base = layout_labels
            notes.append(msg("class names: the {count} of the layout", count=len(layout_labels)))
        if base is None:
            base, source = _from_yaml(root)
        named = base is not None and not isinstance(base, UndeterminedLabels)
        if base is None:
            base = infer_labels(values(), notes)
    if settings:
        base = _with_settings(settings, base, root / SETTINGS_NAME)
    assert base is not None
    return LabelSource(base, named, source, notes)


def infer_labels(values: MaskValues, notes: list[str]) -> Labels:
    """Return "class 0" ... for the ids in the masks; `UNDETERMINED` if the values are no ids."""
    counts = values.counts
    colored = any(isinstance(value, tuple) for value in counts)
    white = is_black_and_white(counts) or is_blurred(counts) or values.disagree
    if colored or values.lossy or white or has_gaps(counts) or not counts:
        notes.append(msg("no class table, and the mask values are no class ids: name the classes"))
        return UNDETERMINED
    ignore = 65535 if max(counts) > 255 else 255
    last = max((value for value in counts if value != ignore), default=0)
    if last >= _MAX_CLASSES or min(counts) < 0:
        limits = {"first": min(counts), "last": max(counts)}
        notes.append(msg("no class table, and mask values from {first} to {last}", **limits))
        return UNDETERMINED
    notes.append(msg("class names made up: the mask values are 0 to {last}", last=last))
    if ignore in counts:
        notes.append(msg("mask value {value} is ignored", value=ignore))
    return Labels(tuple(f"class {k}" for k in range(last + 1)), ignore_index=ignore)


def _from_text_files(
    root: Path,
    mask_paths: Sequence[Path],
    values: Callable[[], MaskValues] | None,
    mapped: bool,
    notes: list[str],
) -> tuple[Labels | None, str]:
    """Return the class table of classes.txt or a similar file, and the source in words.

    A plain list of names is used if it fits `values` (None: the layout has names). `mapped` tells
    that dataset.toml maps the mask values to classes.
    """
    for path in _table_files(root, mask_paths):
        try:
            text, encoding = read_text(path)
            parse = {".csv": parse_csv, ".json": parse_json}.get(path.suffix, parse_table)
            labels, names = parse(text), name_list(text) if path.suffix == ".txt" else []
        except (ValueError, csv.Error):
            labels, names, encoding = None, [], ""
        except FullconvError as error:
            raise _in_file(path, error) from error
        if encoding in _OTHER_ENCODINGS:
            notes.append(msg("{file} is read as {encoding}", file=path.name, encoding=encoding))
        if labels is None and path.name in _OFTEN_OTHER:
            continue
        if names and values is not None:
            few = labels is None or len(names) <= 2
            counted = values() if few else _count_mask_values(_sample(mask_paths))
            fitting = _fit_names(names, mapped, counted) if few else None
            one_each = msg("class names from {file}: a name on each line", file=path.name)
            rest = msg("class names from {file}: the rest is background", file=path.name)
            if fitting is not None:
                return fitting, one_each if len(names) > 1 else rest
            if not mapped and (shifted := _beside_background(names, counted.counts)) is not None:
                return shifted, msg("class names from {file}: 0 is background", file=path.name)
        if labels is not None:
            return labels, msg("class names from {file}", file=path.name)
        if names and values is not None:
            last = max((v for v in values().counts if isinstance(v, int)), default=msg("none"))
            note = nmsg(
                "{file} is not used: its {count} name does not fit mask values up to {last}",
                "{file} is not used: its {count} names do not fit mask values up to {last}",
                len(names),
                file=path.name,
                last=last,
            )
        else:
            note = msg(
                "{file} is not a class table (a line is 'value name', 'r g b name' or 'name')",
                file=path.name,
            )
        notes.append(note)
    return None, ""


def _table_files(root: Path, mask_paths: Sequence[Path]) -> list[Path]:
    """Return the files that may hold a class table, the most specific names first.

    Raises:
        FullconvError: the folders of the splits have different tables.
    """
    files = [path for name in _TEXT_FILES if (path := root / name).is_file()]
    folders = sorted({path.parent for path in mask_paths} - {root})
    inside = [path for folder in folders if (path := folder / _IN_SPLITS).is_file()]
    for path in inside[1:]:
        if path.read_bytes() != inside[0].read_bytes():
            message = msg(
                "{first} and {second} are different class tables; expected one for all splits.",
                first=inside[0],
                second=path,
            )
            raise FullconvError(message, msg("export the dataset again, or remove one of them"))
    return files + inside[:1]


def _sample(mask_paths: Sequence[Path]) -> Sequence[Path]:
    return mask_paths[:: max(1, len(mask_paths) // _SAMPLED)][:_SAMPLED]


def _beside_background(names: list[str], counts: Mapping[Any, int]) -> Labels | None:
    """Return background and the names, if the masks have one id more than there are names."""
    ids = {value for value in counts if value not in (255, 65535)}
    if any(isinstance(value, tuple) for value in ids) or any(map(is_background, names)):
        return None
    if 0 not in ids or max(ids) != len(names):
        return None
    return table_from_pairs(list(enumerate(["background", *names])))


def _if_ids_fit(labels: Labels, mask_paths: Sequence[Path], notes: list[str]) -> Labels | None:
    """Return the class table of a published dataset, or None if the masks in its layout seem to
    have other classes: ids from 0 on without a gap, fewer than half of the published ones."""
    ids: set[Any] = set()
    for path in _sample(mask_paths):
        ids |= _count_mask_values([path]).counts.keys() - {labels.ignore_index, *labels.values}
        if any(isinstance(x, tuple) for x in ids) or max(ids, default=0) >= len(labels) // 2:
            return labels
    if not ids or ids != set(range(len(ids))):
        return labels
    note = msg(
        "the ids of the masks do not look like the {count} classes of the layout; name yours in "
        "dataset.toml: {line}",
        count=len(labels),
        line='classes = ["background", ...]',
    )
    notes.append(note)
    return None


def _fit_names(names: list[str], mapped: bool, values: MaskValues) -> Labels | None:
    """Return the names for the ids in the masks, or for black and white; None if none fit."""
    counts = values.counts
    if not counts or any(isinstance(value, tuple) for value in counts):
        return None
    # A single name is the class that is not background.
    if len(names) == 1 and names[0].lower() != "background":
        names = ["background", *names]
    white = is_black_and_white(counts) or is_blurred(counts) or values.disagree
    if not mapped and (values.lossy or white):
        return replace(UNDETERMINED, proposed=tuple(names)) if len(names) == 2 else None
    fits = mapped or set(counts) <= {*range(len(names)), 255, 65535}
    return table_from_pairs(list(enumerate(names))) if fits else None


def _from_yaml(root: Path) -> tuple[Labels | None, str]:
    table = read_yaml(root)
    if table is None:
        return None, ""
    source = msg("class names from {file}", file=table.path.name)
    names = tuple(table.names.get(k, f"class {k}") for k in range(max(table.names) + 1))
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
        colored = set(settings.get("colors", {}))
        for key, name in settings.get("map", {}).items():
            if not key.startswith("#") and not key.isdecimal():
                raise FullconvError(
                    msg("[map] has the key {key!r}; expected a whole number or a color.", key=key),
                    msg("{number}, or {color}", number='255 = "road"', color='"#804080" = "road"'),
                )
            value = int(key) if key.isdecimal() else parse_color(key)
            values[value] = class_id = _class_id(labels, name)
            # The color of a class in the masks is its color everywhere, unless [colors] has one.
            if isinstance(value, tuple) and class_id != ignore and name not in colored:
                colors[class_id] = value
                colored.add(name)
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
        close = nearest(str(name), names, 0) or names[0]
        raise FullconvError(
            msg("no class {name!r}; expected one of {names}.", name=name, names=", ".join(names)),
            msg('replace "{name}" by "{nearest}"', name=name, nearest=close),
        )
    return labels.index(name)


def _count_mask_values(mask_paths: Iterable[Path]) -> MaskValues:
    counts: Counter[Any] = Counter()
    kinds: Counter[str] = Counter()
    lossy = False

    def count(path: Path) -> masks.MaskHistogram | None:
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

    with ScanCache() as scan_cache, ThreadPoolExecutor() as pool:
        for histogram in filter(None, pool.map(count, mask_paths)):
            counts.update(histogram.counts)
            kinds[white_kind(histogram.counts)] += 1
            lossy = lossy or histogram.lossy
    return MaskValues(counts, lossy, kinds)
