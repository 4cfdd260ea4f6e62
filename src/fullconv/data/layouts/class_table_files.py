"""Class tables in text and YAML files beside the masks, in the forms that people write.

    0 sky           255 0 0 hair        hair:255,0,0::        sky
    255 void        0 0 255 eyes        eyes:0,0,255::        road

These are "value name", "r g b name", the lines of CVAT, and one name per line. The names void,
ignore and unlabeled mark ignored pixels. Text in any other form is not a class table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullconv.core.labels import IGNORE, RGB, Labels

_IGNORED = {"void", IGNORE, "ignored", "unlabeled", "unlabelled", "__ignore__"}
_NAME = r"[^\W\d][\w '&/.+-]{0,60}"  # begins with a letter or underscore; no ':', '=' or '('
_COLOR_LINE = re.compile(rf"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+({_NAME})")
_CVAT_LINE = re.compile(r"([^:]+):(\d+),(\d+),(\d+):[^:]*:[^:]*")  # name:r,g,b:parts:actions
_VALUE_LINE = re.compile(rf"(\d+)[\s,:]+({_NAME})")
# Names that `_NAME` does not cover, such as "2-wheeler" or "crack (old)".
_UNUSUAL_NAME = re.compile(r"(?!\d+([\s,.]|-\d))\w(?:[^=:;|<>{}\[\]\"\\\n](?!\.\.)){0,39}")
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


def name_list(text: str) -> list[str]:
    """Return the names in a text with one name per line; [] for any other text.

    >>> name_list("2-wheeler\\ncrack (old)"), name_list("masks/: 0 background, 255 crack")
    (['2-wheeler', 'crack (old)'], [])
    """
    lines = _lines(text)
    good = all(_UNUSUAL_NAME.fullmatch(x) and len(x.split()) <= _MAX_WORDS for x in lines)
    return lines if good and len(set(lines)) == len(lines) else []


def table_from_pairs(pairs: list[tuple[int | RGB, str]]) -> Labels | None:
    """Return the class table of (value, name) pairs; None if all names are ignored."""
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
    # Every integer is listed, so an integer that is not has no class.
    return Labels(tuple(names), tuple(colors.values()), ignore, values, strict_values=not colors)


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
    return isinstance(text, str) and text.isdecimal() and int(text) < _MAX_ID
