"""Finding: one thing that is wrong with a data set, and its fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, the files it is wrong with (relative to the root), and its fix;
    `groups` has those of the files that belong together."""

    level: Level
    rule: str
    message: str
    files: tuple[str, ...] = ()
    fix: str = ""
    groups: tuple[tuple[str, ...], ...] = ()


def percent(share: float) -> str:
    """What is there is never shown as nothing, and what is not all never as all.

    >>> percent(0.5), percent(0.00001), percent(0.99999), percent(0)
    ('50.00%', '<0.01%', '>99.99%', '0.00%')
    """
    if 0 < share < 0.00005:
        return "<0.01%"
    return ">99.99%" if 0.99995 <= share < 1 else f"{share:.2%}"
