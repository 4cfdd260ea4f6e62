"""The class table in the YAML file that Ultralytics trains from: `names`, and `label_mapping`.

names: [road, car]      # or {0: road, 1: car}
label_mapping: {7: 0, 26: 1, 0: ignore_label}      # optional: value in a mask file -> class id
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
