"""Finding: one thing that is wrong with a data set, and its fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["error", "warning", "note"]

LISTED = 12  # values or names that a message spells out


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, the files it is wrong with (relative to the root), and its fix."""

    level: Level
    rule: str
    message: str
    files: tuple[str, ...] = ()
    fix: str = ""


def some(names: list[str]) -> str:
    """The first of them, with commas."""
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
