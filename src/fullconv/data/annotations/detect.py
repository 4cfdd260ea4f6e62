"""Recognize which tool wrote annotation files, and read all annotations of a dataset.

Every JSON file is read once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.annotations import coco, labelme, labelstudio, ultralytics
from fullconv.data.annotations.shapes import Annotations
from fullconv.data.layouts.annotation_formats import outline_files, tool_of

CLASS_MASKS = "class-masks"
TOOLS = ("labelme", "coco", "label-studio", "ultralytics", CLASS_MASKS)


@dataclass
class _Files:
    labelme: Annotations
    tables: dict[str, list[tuple[Path, Any]]]  # tool -> its other JSON files
    ultralytics: list[Path]
    not_json: list[FullconvError] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # JSON files of no tool, with their keys


def read_annotations(root: Path, source: Path, *, tool: str | None, order: str) -> Annotations:
    """Read all annotations of one tool in the folder `root`, or in the single file `source`.

    Without annotations the tool of the result is "". `order` is described in `coco.read_file`.

    Raises:
        FullconvError: `tool` is None, and there are files of several tools.
    """
    files = _read_files(root, source, tool)
    # Describe the tools whose files exist.
    labelme_count = len(files.labelme.images) + len(files.labelme.problems)
    tools: dict[str, str] = {}
    if labelme_count:
        tools["labelme"] = nmsg("{count} file", "{count} files", labelme_count)
    tools.update((name, str(tables[0][0])) for name, tables in files.tables.items() if tables)
    if files.ultralytics:
        count = len(files.ultralytics)
        tools["ultralytics"] = nmsg("{count} text file", "{count} text files", count)
    if tool is None and len(tools) > 1:
        first, second, *_ = tools
        descriptions = [msg("{tool} ({files})", tool=t, files=text) for t, text in tools.items()]
        message = msg(
            "{source} contains annotations of {count} tools: {tools}; expected one tool.",
            source=source,
            count=len(tools),
            tools=truncated_list(descriptions),
        )
        command = shell_command("fullconv", "convert", source, "OUT", "--layout", first)
        hint = msg("{command}   # or --layout {second}", command=command, second=second)
        raise FullconvError(message, hint)
    tool = tool or next(iter(tools), "labelme" if files.not_json else "")
    if tool not in tools:
        annotations = Annotations(tool, "")
    elif tool == "labelme":
        annotations = labelme.gather(root, files.labelme)
    elif tool == "coco":
        annotations = coco.gather(root, source, files.tables[tool], order)
    elif tool == "label-studio":
        annotations = labelstudio.gather(root, files.tables[tool])
    else:
        annotations = ultralytics.gather(root, files.ultralytics, order)
    if tool != "ultralytics":
        annotations.problems[:0] = files.not_json
    annotations.others = files.others
    return annotations


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises a `FullconvError` if it is not JSON."""
    content, check = path.read_bytes(), shell_command("python", "-m", "json.tool", path)
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        message = msg("{path} is empty; expected JSON.", path=path)
        if content.strip():
            message = msg(
                "{path}, line {line}, column {column}: {reason} (the file is truncated, or was "
                "edited by hand); expected JSON.",
                path=path,
                line=error.lineno,
                column=error.colno,
                reason=error.msg,
            )
        raise FullconvError(message, check) from error
    except (ValueError, RecursionError) as error:
        message = msg("{path} cannot be read as JSON: {reason}.", path=path, reason=error)
        raise FullconvError(message, check) from error


def _read_files(root: Path, source: Path, tool: str | None) -> _Files:
    texts = outline_files(root) if tool in (None, "ultralytics") and source.is_dir() else []
    files = _Files(Annotations("labelme", ""), {"coco": [], "label-studio": []}, texts)
    if tool == "ultralytics":
        return files
    for path in [source] if source.is_file() else sorted(source.rglob("*")):
        if path != source:
            is_hidden = any(p.startswith((".", "__")) for p in path.relative_to(source).parts)
            if path.suffix.lower() != ".json" or is_hidden or not path.is_file():
                continue
        try:
            table = read_json(path)
        except FullconvError as error:
            files.not_json.append(error)
            continue
        table_tool = tool_of(table)
        if table_tool is None:
            keys = ", ".join(sorted(map(str, table))[:6]) if isinstance(table, dict) else ""
            files.others.append(f"{path} ({keys or type(table).__name__})")
        elif tool not in (None, table_tool):
            continue
        elif table_tool == "labelme":  # the file may contain the image: only the shapes are held
            with files.labelme.collect_problems():
                image = labelme.read_file(path, table, root, files.labelme.left_out)
                files.labelme.images.append(image)
        else:
            files.tables[table_tool].append((path, table))
    return files
