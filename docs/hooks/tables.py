"""Tables of the keys of TOML files, generated from the dataclasses that read them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from typing import Any

from fullconv.core.settings import CHOICES, Settings
from fullconv.data.layouts.settings_file import SETTINGS_KEYS
from fullconv.network.backbone_card import BackboneCard

TYPES = {
    "str": "text",
    "bool": "true, false",
    "int": "integer",
    "float": "number",
    "Path": "path",
    "tuple[int, int]": "two integers",
    "tuple[float, float]": "two numbers",
    "tuple[str, ...]": "list of text",
    "tuple[float, ...]": "three numbers",
    "Mapping[str, Any]": "table",
}


def settings() -> str:
    """Return the keys of `[train]` in a config.toml."""
    descriptions = _field_docstrings(Settings)
    rows = []
    for field in fields(Settings):
        description = descriptions[field.name]
        choices = CHOICES.get(field.name)
        if choices and not all(str(choice) in description for choice in choices):
            description += f" One of {', '.join(map(str, choices))}."
        rows.append((field.name, _type(field), _default(field), description))
    return _table(("key", "type", "default", "description"), rows)


def card() -> str:
    """Return the keys of a backbone config file."""
    descriptions = _argument_docs(BackboneCard)
    rows = [(f.name, _type(f), _default(f), descriptions[f.name]) for f in fields(BackboneCard)]
    return _table(("key", "type", "default", "description"), rows)


def dataset() -> str:
    """Return the keys of a dataset.toml."""
    rows = []
    for key, (kind, _, example) in SETTINGS_KEYS.items():
        lines = "<br>".join(f"`{line}`" for line in example.splitlines())
        rows.append((key, str(kind), lines))
    return _table(("key", "type", "example"), rows)


TABLES = {"settings": settings, "card": card, "dataset": dataset}


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *((f"`{key}`", *rest) for key, *rest in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _type(field: Field[Any]) -> str:
    return TYPES[str(field.type).partition(" | ")[0]]


def _default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING or field.default in (None, "", ()):
        return ""
    if field.default is MISSING:
        return "required"
    value = field.default
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _field_docstrings(dataclass: type) -> dict[str, str]:
    """Return the text below each field of a class."""
    (tree,) = ast.parse(inspect.getsource(dataclass)).body
    assert isinstance(tree, ast.ClassDef)
    texts, name = {}, ""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign):
            name = ast.unparse(node.target)
        elif isinstance(node, ast.Expr) and name:
            texts[name] = " ".join(ast.literal_eval(node.value).split())
    return texts


def _argument_docs(function: Any) -> dict[str, str]:
    """Return the text of each name in the Args section of a docstring."""
    section = (inspect.getdoc(function) or "").split("Args:\n")[1].split("\n\n")[0]
    texts = {}
    for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
        texts.update({name.strip(): " ".join(text.split()) for name in names.split(",")})
    return texts
