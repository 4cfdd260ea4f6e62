"""Recognize which tool wrote annotation files, and read all annotations of a dataset.

Every JSON file is read once.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import Message, msg, nmsg
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.annotations import coco, labelme, labelstudio, ultralytics
from fullconv.data.annotations.shapes import AnnotatedImage, Annotations
from fullconv.data.layouts.annotation_formats import outline_files, tool_of

TOOLS = ("labelme", "coco", "label-studio", "ultralytics")


@dataclass
class _Files:
    """The annotation files below a folder."""

    labelme: list[AnnotatedImage] = field(default_factory=list)
    labelme_problems: list[FullconvError] = field(default_factory=list)
    coco: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    label_studio: list[tuple[Path, Any]] = field(default_factory=list)
    ultralytics: list[Path] = field(default_factory=list)
    not_json: list[FullconvError] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # JSON files of no tool, with their keys
    left_out: Counter[str] = field(default_factory=Counter)

    def by_tool(self) -> dict[str, str]:
        """Return the tools whose files exist, with the number or the first of the files."""
        labelme_count, text_count = len(self.labelme + self.labelme_problems), len(self.ultralytics)
        tools: dict[str, str] = {}
        if labelme_count:
            tools["labelme"] = nmsg("{count} file", "{count} files", labelme_count)
        if self.coco:
            tools["coco"] = str(self.coco[0][0])
        if self.label_studio:
            tools["label-studio"] = str(self.label_studio[0][0])
        if text_count:
            tools["ultralytics"] = nmsg("{count} text file", "{count} text files", text_count)
        return tools


def read_annotations(root: Path, source: Path, *, tool: str | None, order: str) -> Annotations:
    """Read all annotations in the folder `root`, or in the single file `source`.

    Args:
        tool: read only files of this tool.
        order: for COCO and Ultralytics: see `coco.read_file`.

    Returns:
        Annotations of one tool; the tool is "" if there are none.

    Raises:
        FullconvError: there are files of several tools.
    """
    files = _read_files(root, source, tool)
    tools = files.by_tool()
    if tool is None and len(tools) > 1:
        first, second, *_ = tools
        descriptions = [msg("{tool} ({files})", tool=t, files=text) for t, text in tools.items()]
        message = msg(
            "{source} contains annotations of {count} tools: {tools}; expected one tool.",
            source=source,
            count=len(tools),
            tools=truncated_list(descriptions),
        )
        hint = msg(
            "{command}   # or --layout {second}",
            command=shell_command("fullconv", "convert", source, "OUT", "--layout", first),
            second=second,
        )
        raise FullconvError(message, hint)
    tool = tool or next(iter(tools), "labelme" if files.not_json else "")
    if tool not in tools:
        annotations = Annotations(tool, "")
    elif tool == "labelme":
        annotations = labelme.gather(root, files.labelme, files.labelme_problems)
    elif tool == "coco":
        annotations = coco.gather(root, source, files.coco, order)
    elif tool == "label-studio":
        annotations = labelstudio.gather(root, files.label_studio)
    else:
        annotations = ultralytics.gather(root, files.ultralytics, order)
    if tool != "ultralytics":
        annotations.problems[:0] = files.not_json
    annotations.left_out += files.left_out
    annotations.others = files.others
    return annotations


def expected_files() -> Message:
    """Return what files of each tool look like, for messages."""
    return msg(
        "A labelme file has the key shapes, a COCO file has images, annotations and categories, a "
        "Label Studio file is a list of tasks with data and annotations, and Ultralytics has "
        "labels/*.txt next to images/."
    )


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FullconvError: it is not JSON.
    """
    content, check = path.read_bytes(), shell_command("python", "-m", "json.tool", path)
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        if not content.strip():
            message = msg("{path} is empty; expected JSON.", path=path)
        else:
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
        raise FullconvError(
            msg("{path} cannot be read as JSON: {reason}.", path=path, reason=error), check
        ) from error


def _read_files(root: Path, source: Path, tool: str | None) -> _Files:
    files = _Files()
    if tool in (None, "ultralytics") and source.is_dir():
        files.ultralytics = outline_files(root)
    for path in _json_files(source) if tool != "ultralytics" else ():
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
        elif table_tool == "coco":
            files.coco.append((path, table))
        elif table_tool == "label-studio":
            files.label_studio.append((path, table))
        else:  # only the shapes are held, because the file may contain the image
            try:
                files.labelme.append(labelme.read_file(path, table, root, files.left_out))
            except FullconvError as error:
                files.labelme_problems.append(error)
    return files


def _json_files(source: Path) -> list[Path]:
    """Return the JSON files in a folder, without hidden ones."""
    if source.is_file():
        return [source]
    return [
        path
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() == ".json"
        and not any(p.startswith((".", "__")) for p in path.relative_to(source).parts)
        and path.is_file()
    ]
