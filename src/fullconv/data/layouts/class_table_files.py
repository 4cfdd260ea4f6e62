"""Class tables in files beside the masks, in the forms that people write.

    0 sky           255 0 0 hair        hair:255,0,0::        sky
    255 void        0 0 255 eyes        eyes:0,0,255::        road

    name,r,g,b      Pixel Value, Class      {"background": 0, "road": 1}      ["sky", "road"]
    sky,0,0,255     0, sky                  [{"name": "road", "color": "#ff0000"}]

These are "value name", "r g b name", the lines of CVAT, one name per line; CSV files with a header;
and JSON. The names void, ignore and unlabeled mark ignored pixels. A file in any other form is not
a class table.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import IGNORE, RGB, Labels, format_color, parse_color, voc_color

_IGNORED = {"void", IGNORE, "ignored", "unlabeled", "unlabelled", "__ignore__"}
_NAME = r"[^\W\d][\w '&/.+-]{0,60}"  # begins with a letter or underscore; no ':', '=' or '('
_COLOR_LINE = re.compile(rf"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+({_NAME})")
_CVAT_LINE = re.compile(r"([^:]+):(\d+),(\d+),(\d+):[^:]*:[^:]*")  # name:r,g,b:parts:actions
_VALUE_LINE = re.compile(rf"(\d+)[\s,:]+({_NAME})")
# Names that `_NAME` does not cover, such as "2-wheeler" or "crack (old)".
_UNUSUAL_NAME = re.compile(r"(?!\d+([\s,.]|-\d))\w(?:[^=:;|<>{}\[\]\"\\\n](?!\.\.)){0,39}")
_Entry: TypeAlias = tuple[list[Any], str]  # ids and colors of a class, and its name

_NAME_COLUMNS = ("name", "class", "label", "class_name", "classname")  # of CSV files
_VALUE_COLUMNS = ("pixel value", "value", "id", "index", "class_id", "label_id", "pixel")
_RGB_COLUMNS = ("r", "red"), ("g", "green"), ("b", "blue")
_MAX_BYTES = 1 << 20
_MAX_WORDS = 5  # a line with more words is a sentence, not a name

NAME = "data.yaml"  # the usual name of the YAML file of Ultralytics
_USUAL_STEMS = ("data", "dataset")
_MAX_ID = 65535  # largest class id in a mask


def parse_table(text: str) -> Labels | None:
    """Return the class table in the text of a classes.txt, or None if it is not a table.

    >>> parse_table("0 sky\\n1 road\\n2 void").values
    {2: 255}
    """
    lines = _lines(text)
    pairs: list[tuple[int | RGB, str]] = []
    if not lines:
        return None
    if matches := _match_all(_COLOR_LINE, lines):
        pairs = [((int(m[1]), int(m[2]), int(m[3])), m[4]) for m in matches]
    elif matches := _match_all(_CVAT_LINE, lines):
        pairs = [((int(m[2]), int(m[3]), int(m[4])), m[1]) for m in matches]
    elif matches := _match_all(_VALUE_LINE, lines):
        pairs = [(int(m[1]), m[2]) for m in matches]
        pairs.sort(key=lambda pair: pair[0])
    elif _match_all(re.compile(_NAME), lines):
        start = -1 if lines[0] == "__ignore__" else 0  # labelme counts from -1
        pairs = [(value, name) for value, name in enumerate(lines, start) if value >= 0]
    if any(isinstance(value, tuple) and max(value) > 255 for value, _ in pairs):
        return None
    return table_from_pairs(pairs)


def read_text(path: Path) -> tuple[str, str]:
    """Return the text of a file of class names, and its encoding.

    It is UTF-8, or UTF-16 with a byte order mark; else GB 2312, if all its letters are Chinese, or
    Windows-1252.

    Raises:
        ValueError: the file has more than a megabyte, or is no text.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16"), "utf-16"
    for encoding in ("utf-8-sig", "gb2312"):
        with suppress(UnicodeDecodeError):
            return content.decode(encoding), encoding
    return content.decode("cp1252"), "cp1252"


def parse_csv(text: str) -> Labels | None:
    """Return the class table in a CSV text whose first line names the columns; None for any other.

    >>> parse_csv("Pixel Value, Class\\n0, sky\\n1, road").names
    ('sky', 'road')
    """
    lines = _lines(text)
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    header = [cell.lower() for cell in rows[0]] if rows else []

    def column(names: tuple[str, ...]) -> int | None:
        return next((header.index(name) for name in names if name in header), None)

    name, value = column(_NAME_COLUMNS), column(_VALUE_COLUMNS)
    rgb = [column(names) for names in _RGB_COLUMNS]
    entries: list[_Entry] = []
    for row in rows[1:]:
        if len(row) < len(header) or name is None:
            return None
        numbers = [row[k] if k is not None else "" for k in (*rgb, value)]
        if not all(number == "" or _is_id(number) for number in numbers):
            return None
        values: list[int | RGB] = [int(numbers[3])] if numbers[3] else []
        if all(number and int(number) <= 255 for number in numbers[:3]):
            values.append((int(numbers[0]), int(numbers[1]), int(numbers[2])))
        entries.append((values, row[name]))
    return _table_from_entries(entries)


def parse_json(text: str) -> Labels | None:
    """Return the class table in a JSON text; None for any other text.

    It is a list of names, an object of names and ids in either order, or a list of objects with
    the keys name and id, value or color; or one of these under the key classes, labels or names.

    >>> parse_json('{"labels": {"background": 0, "road": 1}}').names
    ('background', 'road')
    """
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(table, dict):
        table = next((table[key] for key in ("classes", "labels", "names") if key in table), table)
    if isinstance(table, dict):
        items = table.items()
        if all(isinstance(value, str) and _is_id(key) for key, value in items):
            pairs = [(int(key), value) for key, value in items]
        elif all(isinstance(value, int | str) and _is_id(str(value)) for _, value in items):
            pairs = [(int(value), key) for key, value in items]
        else:
            return None
        return table_from_pairs(sorted(pairs))
    if not isinstance(table, list):
        return None
    entries: list[_Entry] = []
    for number, entry in enumerate(table):
        entry = {"name": entry} if isinstance(entry, str) else entry
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            return None
        given = [entry[key] for key in ("id", "value", "color") if key in entry] or [number]
        values = [_color(value) if isinstance(value, str | list) else value for value in given]
        if not all(_is_value(value) for value in values):
            return None
        entries.append((values, name))
    return _table_from_entries(entries)


def _table_from_entries(entries: list[_Entry]) -> Labels | None:
    """Return the class table of classes with their values, in the order of the ids if all have one;
    None if a class has no value."""
    if not all(values for values, _ in entries):
        return None
    ids = [next((v for v in values if isinstance(v, int)), None) for values, _ in entries]
    if None not in ids:
        entries = [entries[k] for k in sorted(range(len(ids)), key=lambda k: ids[k] or 0)]
    return table_from_pairs([(value, name) for values, name in entries for value in values])


def _is_value(value: Any) -> bool:
    return isinstance(value, tuple) or (type(value) is int and 0 <= value <= _MAX_ID)


def _color(value: Any) -> RGB | None:
    """Return the color of "#rrggbb" or [r, g, b]; None for anything else."""
    if isinstance(value, str):
        with suppress(FullconvError):
            return parse_color(value)
        return None
    good = len(value) == 3 and all(isinstance(x, int) and 0 <= x <= 255 for x in value)
    return (value[0], value[1], value[2]) if good else None


def name_list(text: str) -> list[str]:
    """Return the names in a text with one name per line; [] for any other text.

    >>> name_list("2-wheeler\\ncrack (old)"), name_list("masks/: 0 background, 255 crack")
    (['2-wheeler', 'crack (old)'], [])
    """
    lines = _lines(text)
    good = all(_UNUSUAL_NAME.fullmatch(x) and len(x.split()) <= _MAX_WORDS for x in lines)
    return lines if good and len(set(lines)) == len(lines) else []


def table_from_pairs(pairs: list[tuple[int | RGB, str]]) -> Labels | None:
    """Return the class table of (value, name) pairs; None if all names are ignored.

    Raises:
        FullconvError: a value has two names.
    """
    by_value: dict[int | RGB, str] = {}
    for value, name in pairs:
        if by_value.setdefault(value, name) != name:
            message = msg(
                "the value {value} has two names, {first!r} and {second!r}; expected one.",
                value=value if isinstance(value, int) else format_color(value),
                first=by_value[value],
                second=name,
            )
            raise FullconvError(message, msg("remove one of the two lines"))
    names = list(dict.fromkeys(name for _, name in pairs if name.lower() not in _IGNORED))
    if not names:
        return None
    ignore = 255 if len(names) <= 255 else 65535
    values = {value: names.index(name) if name in names else ignore for value, name in pairs}
    if all(value == class_id or class_id == ignore for value, class_id in values.items()):
        ignored = {value: class_id for value, class_id in values.items() if class_id == ignore}
        return Labels(tuple(names), ignore_index=ignore, values=ignored)
    colors: dict[str, RGB] = {}
    for value, name in pairs:
        if isinstance(value, tuple) and name in names:
            colors.setdefault(name, value)
    all_colors = tuple(colors.get(name, voc_color(k % 256)) for k, name in enumerate(names))
    # Every integer is listed, so an integer that is not has no class.
    strict = any(isinstance(value, int) for value in values)
    return Labels(tuple(names), all_colors if colors else (), ignore, values, strict_values=strict)


def _match_all(pattern: re.Pattern[str], lines: list[str]) -> list[re.Match[str]]:
    matches = [pattern.fullmatch(line) for line in lines]
    return [match for match in matches if match] if all(matches) else []


def _lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@dataclass(frozen=True)
class YamlTable:
    """The class names in a YAML file of Ultralytics."""

    path: Path
    names: dict[int, str]  # class id -> name
    mapping: dict[int, int | None]  # value in a mask file -> class id, or None if it is ignored


def read_yaml(root: Path) -> YamlTable | None:
    """Return the names in data.yaml, dataset.yaml, or the first other YAML file with a key `names`;
    None if there is none. Files that are not YAML, or belong to another program, are skipped."""
    import yaml

    paths = [path for path in root.iterdir() if path.suffix.lower() in (".yaml", ".yml")]
    for path in sorted(paths, key=lambda p: (p.stem not in _USUAL_STEMS, p.name)):
        try:
            # BaseLoader reads text only: YAML would turn the names yes, no, on, off into booleans.
            table = yaml.load(path.read_text("utf-8-sig"), yaml.BaseLoader)
        except (yaml.YAMLError, OSError, ValueError, RecursionError):
            continue
        names = table.get("names") if isinstance(table, dict) else None
        if isinstance(names, list):
            names = {str(k): name for k, name in enumerate(names)}
        if not (isinstance(names, dict) and names):
            continue
        if all(_is_id(key) and isinstance(name, str) and name for key, name in names.items()):
            by_id = {int(key): name for key, name in names.items()}
            last, mapping = max(by_id), table.get("label_mapping")
            pairs = mapping.items() if isinstance(mapping, dict) else ()
            class_ids = {
                int(value): int(class_id) if _is_id(class_id) and int(class_id) <= last else None
                for value, class_id in pairs
                if _is_id(value)
            }
            return YamlTable(path, by_id, class_ids)
    return None


def _is_id(text: Any) -> bool:
    short = isinstance(text, str) and text.isdecimal() and len(text) < 9
    return short and int(text) < _MAX_ID
