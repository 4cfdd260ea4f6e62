"""Kinds: which tool an annotation file is from; of a large file the beginning tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fullconv.data.annotations import coco, labelme

_WHOLE = 1 << 22  # bytes up to which a file is parsed; of longer ones the beginning tells
_KEYS = (("coco", ('"images"', '"annotations"', '"categories"')), ("labelme", ('"shapes"',)))


def kind_of(table: Any) -> str | None:
    """ "labelme", "coco", "label-studio" or None, of a JSON file's content."""
    if labelme.is_labelme(table):
        return "labelme"
    if coco.is_coco(table):
        return "coco"
    if isinstance(table, list) and table and all(isinstance(task, dict) for task in table):
        return "label-studio" if any("annotations" in t and "data" in t for t in table) else None
    return None


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
    return next((kind for kind, keys in _KEYS if any(key in head for key in keys)), None)
