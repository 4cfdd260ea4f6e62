"""All source files with the first sentence of their docstring."""

from __future__ import annotations

import ast
import re
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/fullconv"


def files() -> list[Path]:
    """Return all files with a docstring, folder by folder, those of the package itself first."""
    paths = [path for path in SOURCE.rglob("*.py") if _docstring(path)]
    return sorted(paths, key=lambda path: (path.parent != SOURCE, path.parent, path.name))


def source() -> str:
    """Return a table for each folder."""
    parts = []
    for folder, paths in groupby(files(), key=lambda path: path.parent):
        name = folder.relative_to(SOURCE.parent).as_posix()
        lines = [f"## {name}/", "", "| file | content |", "|---|---|"]
        for path in paths:
            link = f"../../{path.relative_to(ROOT).as_posix()}"
            lines.append(f"| [`{path.name}`]({link}) | {_sentence(_docstring(path))} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _sentence(text: str) -> str:
    first = " ".join(text.split("\n\n")[0].split())
    match = re.match(r"(.*?[.:])(?= [A-Z]|$)", first)
    sentence = (match[1] if match else first).rstrip(":.")
    return sentence.replace("|", "\\|").replace("<", "&lt;") + "."
