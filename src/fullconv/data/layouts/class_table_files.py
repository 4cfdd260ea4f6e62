"""The class table in a text file beside the masks, in one of the forms that people write.

    0 sky           255 0 0 hair        hair:255,0,0::        sky
    255 void        0 0 255 eyes        eyes:0,0,255::        road

"value name", "r g b name", the lines of CVAT, or a name on each line; void, ignore and unlabeled
stand for pixels that do not count. Text that is none of these is no table.
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
# A name that is not quite one of those above, such as "2-wheeler" or "crack (old)".
_LOOSE = re.compile(r"(?!\d+([\s,.]|-\d))\w(?:[^=:;|<>{}\[\]\"\\\n](?!\.\.)){0,39}")
_MOST_WORDS = 5  # more are a sentence


def parse_table(text: str) -> Labels | None:
    """The class table in the text of a classes.txt, or None where it is none.

    >>> parse_table("0 sky\\n1 road\\n2 void").values
    {2: 255}
    """
    lines = _lines(text)
    pairs: list[tuple[int | RGB, str]] = []
    if not lines:
        return None
    if found := _all_match(_COLOR_LINE, lines):
        pairs = [((int(m[1]), int(m[2]), int(m[3])), m[4]) for m in found]
    elif found := _all_match(_CVAT_LINE, lines):
        pairs = [((int(m[2]), int(m[3]), int(m[4])), m[1]) for m in found]
    elif found := _all_match(_VALUE_LINE, lines):
        pairs = [(int(m[1]), m[2]) for m in found]
        pairs.sort(key=lambda pair: pair[0])
    elif _all_match(re.compile(_NAME), lines):
        # labelme counts from -1, where it lists what is to be ignored.
        start = -1 if lines[0] == "__ignore__" else 0
        pairs = [(value, name) for value, name in enumerate(lines, start) if value >= 0]
    if any(isinstance(value, tuple) and max(value) > 255 for value, _ in pairs):
        return None
    return from_pairs(pairs)


def name_list(text: str) -> list[str]:
    """The names in a text that has one on each line and nothing else; [] for any other text.

    >>> name_list("2-wheeler\\ncrack (old)"), name_list("masks/: 0 background, 255 crack")
    (['2-wheeler', 'crack (old)'], [])
    """
    lines = _lines(text)
    good = all(_LOOSE.fullmatch(line) and len(line.split()) <= _MOST_WORDS for line in lines)
    return lines if good and len(set(lines)) == len(lines) else []


def from_pairs(pairs: list[tuple[int | RGB, str]]) -> Labels | None:
    """The table of (value, name); None where no name counts."""
    names = list(dict.fromkeys(name for _, name in pairs if name.lower() not in _IGNORED))
    if not names:
        return None
    ignore = 255 if len(names) <= 255 else 65535
    values = {v: names.index(n) if n in names else ignore for v, n in pairs}
    colors: dict[str, RGB] = {}
    for value, name in pairs:
        if isinstance(value, tuple) and name in names:
            colors.setdefault(name, value)
    if all(value == class_id or class_id == ignore for value, class_id in values.items()):
        rest = {value: class_id for value, class_id in values.items() if class_id == ignore}
        return Labels(tuple(names), ignore_index=ignore, values=rest)
    return Labels(
        tuple(names), tuple(colors.values()), ignore, values, strict_values=not colors
    )  # every value is listed: what is not has no class


def _all_match(pattern: re.Pattern[str], lines: list[str]) -> list[re.Match[str]]:
    found = [pattern.fullmatch(line) for line in lines]
    return [match for match in found if match] if all(found) else []


def _lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


NAME = "data.yaml"  # what it is mostly called
_LIKELY = ("data", "dataset")
_MOST = 65535  # class ids that a mask can hold


@dataclass(frozen=True)
class YamlTable:
    """Class id -> name, and value in a mask file -> class id, or None where it is ignored."""

    path: Path
    names: dict[int, str]
    mapping: dict[int, int | None]

    @property
    def listed(self) -> list[str]:
        """All names in the order of their ids; made up where one is missing."""
        return [self.names.get(key, f"class {key}") for key in range(max(self.names) + 1)]


def read_yaml(root: Path) -> YamlTable | None:
    """Of data.yaml, dataset.yaml, else the first file by name that has `names`; None where there is
    none. What is no YAML, or another program's, is passed over."""
    import yaml

    paths = [path for path in root.iterdir() if path.suffix.lower() in (".yaml", ".yml")]
    for path in sorted(paths, key=lambda p: (p.stem not in _LIKELY, p.name)):
        try:
            # All as text: YAML takes the names yes, no, on and off for true and false.
            table = yaml.load(path.read_text("utf-8-sig"), yaml.BaseLoader)
        except (yaml.YAMLError, OSError, ValueError, RecursionError):
            continue
        names = table.get("names") if isinstance(table, dict) else None
        names = {str(k): n for k, n in enumerate(names)} if isinstance(names, list) else names
        if isinstance(names, dict) and names and all(map(_is_name, names.items())):
            texts = {int(key): name for key, name in names.items()}
            return YamlTable(path, texts, _mapping(table.get("label_mapping"), max(texts)))
    return None


def _mapping(table: Any, last: int) -> dict[int, int | None]:
    if not isinstance(table, dict):
        return {}
    return {
        int(value): int(class_id) if _is_id(class_id) and int(class_id) <= last else None
        for value, class_id in table.items()
        if _is_id(value)
    }


def _is_name(item: tuple[Any, Any]) -> bool:
    key, name = item
    return _is_id(key) and isinstance(name, str) and bool(name)


def _is_id(text: Any) -> bool:
    return isinstance(text, str) and text.isdecimal() and int(text) < _MOST
