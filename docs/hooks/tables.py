"""Tables of the keys that files may have, made from the dataclasses that read them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any

from fullconv.core.settings import CHOICES, Settings
from fullconv.data.layouts.class_table import SETTINGS_KEYS as DATASET
from fullconv.network.backbone_card import BackboneCard


def settings() -> str:
    """Of `[train]` in a config.toml: `fullconv.core.settings.Settings`."""
    said = _said_below(Settings)
    rows = []
    for one in fields(Settings):
        what = said[one.name]
        choices = CHOICES.get(one.name)
        if choices and not all(str(choice) in what for choice in choices):
            what += f" One of {', '.join(map(str, choices))}."
        rows.append((one.name, _kind(one.type), _default(one), what))
    return _table(("key", "type", "default", ""), rows)


def card() -> str:
    """Of a backbone card: `fullconv.network.backbone_card.BackboneCard`."""
    said = _said_in_args(BackboneCard)
    rows = [(f.name, _kind(f.type), _default(f), said[f.name]) for f in fields(BackboneCard)]
    return _table(("key", "type", "default", ""), rows)


def dataset() -> str:
    """Of a dataset.toml."""
    rows = []
    for key, (words, _, example) in DATASET.items():
        shown = "<br>".join(f"`{line}`" for line in example.splitlines())
        rows.append((key, words, shown))
    return _table(("key", "type", "example"), rows)


MADE = {"settings": settings, "card": card, "dataset": dataset}


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *((f"`{key}`", *rest) for key, *rest in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _kind(annotation: Any) -> str:
    kind = str(annotation).partition(" | ")[0]
    known = {
        "str": "text",
        "bool": "true, false",
        "int": "whole number",
        "float": "number",
        "Path": "path",
        "tuple[int, int]": "two whole numbers",
        "tuple[float, float]": "two numbers",
        "tuple[str, ...]": "list of text",
        "tuple[float, ...]": "three numbers",
        "Mapping[str, Any]": "table",
    }
    return known[kind]


def _default(one: Any) -> str:
    if one.default_factory is not MISSING or one.default in (None, "", ()):
        return ""
    if one.default is MISSING:
        return "required"
    value = one.default
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _said_below(kind: type) -> dict[str, str]:
    """The text below each field of a class."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    said, last = {}, ""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign):
            last = ast.unparse(node.target)
        elif isinstance(node, ast.Expr) and last:
            said[last] = " ".join(ast.literal_eval(node.value).split())
    return said


def _said_in_args(kind: type) -> dict[str, str]:
    """What a docstring's Args say of each name."""
    text = inspect.getdoc(kind) or ""
    args = text.split("Args:\n")[1].split("\n\n")[0]
    said = {}
    for names, what in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", args, re.MULTILINE):
        said.update({name.strip(): " ".join(what.split()) for name in names.split(",")})
    return said
