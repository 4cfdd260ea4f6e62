"""Recognize the annotation files of other tools by their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

_WHOLE = 1 << 22  # bytes up to which a file is parsed; of longer ones the beginning tells
_KEYS = (("coco", ('"images"', '"annotations"', '"categories"')), ("labelme", ('"shapes"',)))
_TASK_KEYS = ('"annotations"', '"completions"', '"original_width"')


def kind_of(table: Any) -> str | None:
    """The tool that a JSON file's content is from, or None."""
    if is_labelme(table):
        return "labelme"
    if is_coco(table):
        return "coco"
    return "label-studio" if is_label_studio(table) else None


def convertible(path: Path) -> str | None:
    """The tool that a JSON file is from, or None."""
    try:
        if path.stat().st_size <= _WHOLE:
            return kind_of(json.loads(path.read_bytes()))
        with path.open("rb") as file:
            head = file.read(1 << 16).decode("utf-8", errors="replace")
    except (OSError, ValueError, RecursionError):
        return None
    # The keys of a long file may stand behind its data: one of them is enough.
    if head.lstrip("\ufeff \t\r\n").startswith("["):
        return "label-studio" if any(key in head for key in _TASK_KEYS) else None
    return next((kind for kind, keys in _KEYS if any(key in head for key in keys)), None)


def is_coco(table: Any) -> bool:
    """Whether a JSON file holds images, annotations and categories."""
    keys = ("images", "annotations", "categories")
    return isinstance(table, dict) and all(isinstance(table.get(key), list) for key in keys)


def is_labelme(table: Any) -> bool:
    """Whether a JSON file is one of labelme's."""
    return isinstance(table, dict) and isinstance(table.get("shapes"), list)


Table: TypeAlias = dict[str, Any]

_KINDS = ("brush", "bitmask", "polygon", "rectangle", "ellipse")
_LABELS = tuple(f"{kind}labels" for kind in _KINDS)


def is_label_studio(table: Any) -> bool:
    """Whether a JSON file holds tasks of Label Studio, in one of the forms that are read."""
    entries = table if isinstance(table, list) else [table]
    return any(isinstance(entry, dict) and _form(entry) for entry in entries)


def _form(entry: Table) -> str:
    """ "task", "result" (an annotation that knows its task, as target storages have it), "min" or
    "", of an object in a file."""
    listed = entry.get("annotations", entry.get("completions"))
    if isinstance(entry.get("data"), dict) and isinstance(listed, list):
        return "task"
    task = entry.get("task")
    if isinstance(entry.get("result"), list) and isinstance(task, dict):
        return "result" if isinstance(task.get("data"), dict) else ""
    return "min" if _regions(entry) else ""


def _regions(entry: Table) -> list[Table]:
    """The regions in an object of JSON-MIN, as the results that they were."""
    found = []
    for value in entry.values():
        for region in value if isinstance(value, list) else ():
            kinds = [
                kind for kind in (*_LABELS, "labels") if isinstance(region, dict) and kind in region
            ]
            if kinds and "original_width" in region:
                found.append({**region, "type": kinds[0], "value": region})
    return found


_LISTS = ("classes.txt", "labels.txt", "train.txt", "val.txt", "test.txt")  # no outlines in these


def label_files(root: Path) -> list[Path]:
    """Its text files: those below a folder `labels` that has a folder `images` beside it."""
    folders = [
        folder
        for folder in (root / "labels", *sorted(root.glob("*/labels")))
        if folder.is_dir() and (folder.parent / "images").is_dir()
    ]
    return [
        path
        for folder in folders
        for path in sorted(folder.rglob("*.txt"))
        if path.name not in _LISTS and not path.name.startswith(".")
    ]
