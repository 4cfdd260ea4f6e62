"""`file.py:name` on the page about the paper becomes a link to the line where it is defined."""

from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/fullconv"
SYMBOL = re.compile(r"`([\w/]+\.py):([\w.]+)`")


def line_of(path: str, name: str) -> int:
    """The line where a function, a class, a method (Class.method) or a constant is defined.

    Raises:
        LookupError: there is none of that name.
    """
    body = ast.parse((SOURCE / path).read_text(encoding="utf-8")).body
    line = 0
    for part in name.split("."):
        node = next((one for one in body if part in _names(one)), None)
        if node is None:
            raise LookupError(f"src/fullconv/{path} has no {name}")
        line, body = node.lineno, getattr(node, "body", [])
    return line


def linked(markdown: str) -> str:
    """The page with its links."""

    def link(found: re.Match[str]) -> str:
        path, name = found[1], found[2]
        line = line_of(path, name)
        page = f"../files/src/fullconv/{path}.html"  # HTML: Markdown does not know of its lines
        return f'<a href="{page}#line-0-{line}"><code>{path}:{name}</code></a>'

    return SYMBOL.sub(link, markdown)


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets]
    if isinstance(node, ast.AnnAssign):
        return [ast.unparse(node.target)]
    return []
