"""Finding: one problem of a dataset, and its fix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fullconv.core.text import percent

Level: TypeAlias = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One problem of a dataset."""

    level: Level  # an error prevents training
    rule: str
    message: str  # one or more sentences
    files: tuple[str, ...] = ()  # relative to the dataset's folder
    fix: str = ""  # what to do; may end with lines to paste
    groups: tuple[tuple[str, ...], ...] = ()  # files that belong together, such as copies

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        head = {"level": self.level, "rule": self.rule, "message": self.message}
        return {**head, "files": list(self.files), "fix": self.fix}


def relative_name(root: Path, path: Path) -> str:
    """Return a file's name in findings: relative to the dataset's folder if it is inside."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def share_text(share: float) -> str:
    """Return a share as percent; never 0% or 100% if it is only close to them.

    >>> share_text(0.5), share_text(0.00001), share_text(0.99999), share_text(0)
    ('50.00%', '<0.01%', '>99.99%', '0.00%')
    """
    return ">99.99%" if 0.99995 <= share < 1 else percent(share, 2)
