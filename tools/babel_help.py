"""Babel extractor of the texts of --help: docstrings of commands, their parameters and options.

It reads functions that are decorated with `@app.command` or `@app.meta.default`, and the attribute
docstrings of `OPTION_CLASSES`. Like `fullconv.cli.help.translate_help` it makes a line of each
paragraph.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import IO, Any

OPTION_CLASSES = ("Settings", "PredictionChoices", "RuntimeOptions")
Entry = tuple[int, str | None, str, list[str]]


def extract_help(
    file: IO[bytes], keywords: Any, comment_tags: Any, options: dict[str, Any]
) -> Iterator[Entry]:
    """Yield (line, function name, message, comments), as Babel expects."""
    for node in ast.walk(ast.parse(file.read())):
        if isinstance(node, ast.FunctionDef) and _is_command(node):
            yield from _docstring_entries(node.lineno, ast.get_docstring(node) or "")
        elif isinstance(node, ast.ClassDef) and node.name in OPTION_CLASSES:
            for statement in node.body[1:]:
                value = getattr(statement, "value", None)
                if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant):
                    yield statement.lineno, None, _one_line(value.value), []


def _is_command(node: ast.FunctionDef) -> bool:
    return any(
        ast.unparse(decorator).startswith(("app.command", "app.meta"))
        for decorator in node.decorator_list
    )


def _docstring_entries(line: int, docstring: str) -> Iterator[Entry]:
    """Split a docstring into its paragraphs and the descriptions of its parameters."""
    prose, _, parameters = docstring.partition("\nArgs:\n")
    texts = re.split(r"\n\s*\n", prose)
    texts += re.split(r"^    \w+: ", parameters, flags=re.MULTILINE)
    for text in map(_one_line, texts):
        if text:
            yield line, None, text, []


def _one_line(text: str) -> str:
    return " ".join(text.split())
