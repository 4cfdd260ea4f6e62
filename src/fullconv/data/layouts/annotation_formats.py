"""Recognize the annotation files of other tools by their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

Table: TypeAlias = dict[str, Any]

REGION_KINDS = ("brush", "bitmask", "polygon", "rectangle", "ellipse")  # of Label Studio
LABEL_KEYS = tuple(f"{kind}labels" for kind in REGION_KINDS)

_MAX_PARSED = 1 << 22  # bytes; of longer files only the beginning is read
_HEAD = 1 << 16
_KEYS = (("coco", ('"images"', '"annotations"', '"categories"')), ("labelme", ('"shapes"',)))
_TASK_KEYS = ('"annotations"', '"completions"', '"original_width"')
_NAME_LISTS = ("classes.txt", "labels.txt", "train.txt", "val.txt", "test.txt")


def tool_of(table: Any) -> str | None:
    """Return the tool that wrote the content of a JSON file, or None."""
    if is_labelme(table):
        return "labelme"
    keys = ("images", "annotations", "categories")
    if isinstance(table, dict) and all(isinstance(table.get(key), list) for key in keys):
        return "coco"
    return "label-studio" if is_label_studio(table) else None


def tool_of_file(path: Path) -> str | None:
    """Return the tool that wrote a JSON file, or None. Large files are known by their start."""
    try:
        if path.stat().st_size <= _MAX_PARSED:
            return tool_of(json.loads(path.read_bytes()))
        with path.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", errors="replace")
    except (OSError, ValueError, RecursionError):
        return None
    # The other keys of a large file may come after its data: one key is enough.
    if head.lstrip("\ufeff \t\r\n").startswith("["):
        return "label-studio" if any(key in head for key in _TASK_KEYS) else None
    return next((tool for tool, keys in _KEYS if any(key in head for key in keys)), None)


def is_labelme(table: Any) -> bool:
    """Return True if JSON content is from labelme."""
    return isinstance(table, dict) and isinstance(table.get("shapes"), list)


def is_label_studio(table: Any) -> bool:
    """Return True if JSON content has tasks of Label Studio, in a supported form."""
    entries = table if isinstance(table, list) else [table]
    return any(isinstance(entry, dict) and task_form(entry) for entry in entries)


def task_form(entry: Table) -> str:
    """Return the form of a Label Studio task: "task", "result" (an annotation that contains its
    task, as target storages have it), "min" (JSON-MIN), or "" if it is not a task."""
    annotations = entry.get("annotations", entry.get("completions"))
    if isinstance(entry.get("data"), dict) and isinstance(annotations, list):
        return "task"
    task = entry.get("task")
    if isinstance(entry.get("result"), list) and isinstance(task, dict):
        return "result" if isinstance(task.get("data"), dict) else ""
    return "min" if min_regions(entry) else ""


def min_regions(entry: Table) -> list[Table]:
    """Return the regions in a JSON-MIN task, in the form of the results of a full export."""
    lists = [value for value in entry.values() if isinstance(value, list)]
    results = []
    for region in (region for regions in lists for region in regions):
        if isinstance(region, dict) and "original_width" in region:
            kinds = [key for key in (*LABEL_KEYS, "labels") if key in region]
            results += [{**region, "type": kinds[0], "value": region}] if kinds else []
    return results


def outline_files(root: Path) -> list[Path]:
    """Return the text files of Ultralytics: below a folder `labels` next to a folder `images`."""
    files: list[Path] = []
    for folder in (root / "labels", *sorted(root.glob("*/labels"))):
        if folder.is_dir() and (folder.parent / "images").is_dir():
            files += sorted(folder.rglob("*.txt"))
    return [f for f in files if f.name not in _NAME_LISTS and not f.name.startswith(".")]
