"""Kinds: which tool annotation files are from, and what all of them in a folder hold.

Every JSON file is read once. Of a large one the beginning tells the tool, where that is all that is
asked.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.text import plural, shell_command
from fullconv.data.annotations import coco, labelme, labelstudio, ultralytics
from fullconv.data.annotations.shapes import Annotated, Annotations
from fullconv.data.layouts.annotation_formats import outline_files, tool_of

TOOLS = ("labelme", "coco", "label-studio", "ultralytics")
EXPECTED = (
    "A labelme file has the key shapes, a COCO file has images, annotations and categories, one of "
    "Label Studio is a list of tasks with data and annotations, and Ultralytics has labels/*.txt "
    "beside images/."
)


@dataclass
class _Found:
    """What lies below a folder."""

    drawn: list[Annotated] = field(default_factory=list)  # labelme
    problems: list[FullconvError] = field(default_factory=list)  # of labelme files
    broken: list[FullconvError] = field(default_factory=list)  # no JSON at all
    tables: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)  # COCO
    tasks: list[tuple[Path, Any]] = field(default_factory=list)  # Label Studio
    texts: list[Path] = field(default_factory=list)  # Ultralytics
    others: list[str] = field(default_factory=list)  # none of these, with their keys
    left_out: Counter[str] = field(default_factory=Counter)

    def tools(self) -> dict[str, str]:
        """Those that files are of -> how many, or which."""
        named = {
            "labelme": plural(len(self.drawn) + len(self.problems), "file")
            * bool(self.drawn or self.problems),
            "coco": str(self.tables[0][0]) if self.tables else "",
            "label-studio": str(self.tasks[0][0]) if self.tasks else "",
            "ultralytics": plural(len(self.texts), "text file") * bool(self.texts),
        }
        return {tool: text for tool, text in named.items() if text}


def read(root: Path, source: Path, *, tool: str | None, order: str) -> Annotations:
    """All annotations in the folder `root`, or in the one file `source`; of the tool "" where there
    are none.

    Args:
        tool: overrules what is recognised.
        order: of COCO and Ultralytics only: see `coco.read_file`.
    """
    found = _look(root, source, tool)
    tools = found.tools()
    if tool is None and len(tools) > 1:
        listed = ", ".join(f"{name} ({text})" for name, text in tools.items())
        first, second, *_ = tools
        raise FullconvError(
            f"{source} holds annotations of {len(tools)} tools: {listed}; expected those of one.",
            shell_command("fullconv", "convert", source, "OUT", "--layout", first)
            + f"   # or --layout {second}",
        )
    tool = tool or next(iter(tools), "labelme" if found.broken else "")
    if tool not in tools:
        annotations = Annotations(tool, "")
    elif tool == "labelme":
        annotations = labelme.gather(root, found.drawn, found.problems)
    elif tool == "coco":
        annotations = coco.gather(root, source, found.tables, order)
    elif tool == "label-studio":
        annotations = labelstudio.gather(root, found.tasks)
    else:
        annotations = ultralytics.gather(root, found.texts, order)
    if tool != "ultralytics":
        annotations.problems[:0] = found.broken
    annotations.left_out += found.left_out
    annotations.others = found.others
    return annotations


def read_json(path: Path) -> Any:
    """A JSON file."""
    data, again = path.read_bytes(), shell_command("python", "-m", "json.tool", path)
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        what = f"{error.msg} (the file ends in the middle, or was changed by hand)"
        said = f"{where}: {what}" if data.strip() else f"{path}: the file is empty"
        raise FullconvError(f"{said}; expected JSON.", again) from error
    except (ValueError, RecursionError) as error:
        raise FullconvError(f"{path} cannot be read as JSON: {error}.", again) from error


def _look(root: Path, source: Path, tool: str | None) -> _Found:
    """Every JSON file once; of labelme's only the shapes are kept, not the images in them."""
    found = _Found()
    if tool in (None, "ultralytics") and source.is_dir():
        found.texts = outline_files(root)
    for path in _json_files(source) if tool != "ultralytics" else ():
        try:
            table = read_json(path)
        except FullconvError as error:
            found.broken.append(error)
            continue
        kind = tool_of(table)
        if kind is None:
            keys = ", ".join(sorted(map(str, table))[:6]) if isinstance(table, dict) else ""
            found.others.append(f"{path} ({keys or f'a {type(table).__name__}'})")
        elif tool not in (None, kind):
            continue
        elif kind == "coco":
            found.tables.append((path, table))
        elif kind == "label-studio":
            found.tasks.append((path, table))
        else:
            try:
                found.drawn.append(labelme.read_file(path, table, root, found.left_out))
            except FullconvError as error:
                found.problems.append(error)
    return found


def _json_files(source: Path) -> list[Path]:
    """The JSON files in a folder, hidden ones left out."""
    if source.is_file():
        return [source]
    return [
        path
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() == ".json"
        and not any(p.startswith((".", "__")) for p in path.relative_to(source).parts)
        and path.is_file()
    ]
