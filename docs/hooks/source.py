"""Every file of the source with the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/fullconv"


def files() -> list[Path]:
    """All files with a docstring, those of the package itself first, then folder by folder."""
    found = [path for path in SOURCE.rglob("*.py") if _said(path)]
    return sorted(found, key=lambda path: (path.parent != SOURCE, path.parent, path.name))


def source() -> str:
    """A table for each folder."""
    parts = []
    for folder, paths in groupby(files(), key=lambda path: path.parent):
        name = folder.relative_to(SOURCE.parent).as_posix()
        lines = [f"## {name}/", "", "| | |", "|---|---|"]
        for path in paths:
            link = f"../../{path.relative_to(ROOT).as_posix()}"
            lines.append(f"| [`{path.name}`]({link}) | {_sentence(_said(path))} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _said(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _sentence(text: str) -> str:
    first = " ".join(text.split("\n\n")[0].split())
    found = re.match(r"(.*?[.:])(?= [A-Z]|$)", first)
    said = (found[1] if found else first).rstrip(":.")
    return said.replace("|", "\\|").replace("<", "&lt;") + "."
