"""Links from `file.py:name` to the line of the source that defines the name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/fullconv"
SYMBOL = re.compile(r"`([\w/]+\.py):([\w.]+)`")
FILE = re.compile(r"`(\w+/[\w/]+\.py)`")


def line_of(path: str, name: str) -> int:
    """Return the line that defines a function, a class, a method (Class.method) or a constant.

    Raises:
        LookupError: the file does not define the name.
    """
    body = ast.parse((SOURCE / path).read_text(encoding="utf-8")).body
    line = 0
    for part in name.split("."):
        node = next((node for node in body if part in _names(node)), None)
        if node is None:
            raise LookupError(f"src/fullconv/{path} has no {name}")
        line, body = node.lineno, getattr(node, "body", [])
    return line


def with_links(markdown: str) -> str:
    """Return a page whose names of source files and of their definitions are links."""

    def symbol(match: re.Match[str]) -> str:
        path, name = match[1], match[2]
        # HTML, because Markdown does not know the anchors of lines.
        page = f"../files/src/fullconv/{path}.html"
        return f'<a href="{page}#line-0-{line_of(path, name)}"><code>{path}:{name}</code></a>'

    def file(match: re.Match[str]) -> str:
        path = match[1]
        if not (SOURCE / path).is_file():
            raise LookupError(f"there is no src/fullconv/{path}")
        return f"[`{path}`](../../src/fullconv/{path})"

    return FILE.sub(file, SYMBOL.sub(symbol, markdown))


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets]
    if isinstance(node, ast.AnnAssign):
        return [ast.unparse(node.target)]
    return []
