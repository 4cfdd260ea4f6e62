"""Places that a line to paste may name: new ones, where the user can write.

Data sets often lie where they cannot be changed, on a disk that others read as well.
"""

from __future__ import annotations

import os
from itertools import chain, count
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.text import shell_command
from fullconv.data.layouts.class_table import SETTINGS_NAME


def unused_path(root: Path, ending: str) -> Path:
    """A folder that does not exist, named as a data set and an ending: beside the data set, by the
    same way that this is named, else in the current folder (or the user's own, where that one lies
    inside the data set)."""
    beside, root = root.parent, root.resolve()
    place = beside if beside.resolve() == root.parent else root.parent
    if not _is_writable(place):
        place = Path.home() if Path.cwd().is_relative_to(root) else Path()
    first = place / f"{root.name or 'data'}{ending}"
    more = (first.with_name(f"{first.name}_{number}") for number in count(2))
    return next(path for path in chain([first], more) if not path.exists())


def repair_command(root: Path) -> str:
    """The command that writes a repaired copy of a data set."""
    return shell_command("fullconv", "check", root, "--fix", unused_path(root, "_fixed"))


def where_to_paste(root: Path, *, whole: bool = False) -> str:
    """What to do with lines for a dataset.toml, in words that name the file. `whole`: they are all
    of it, and nothing that stands there is kept."""
    path = root / SETTINGS_NAME
    there = path.is_file()
    rest = ", in place of what it holds" if there else ""
    if _is_writable(path if there else root):
        return f"add to {path}" if there and not whole else f"write {path}{rest}"
    copy = unused_path(root, "_copy")
    how = f"{shell_command('cp', '-r', root, copy)} && {shell_command('chmod', '-R', 'u+w', copy)}"
    path = copy / SETTINGS_NAME
    if there and not whole:
        return f"{root} cannot be written, so copy it ({how}) and add to {path}"
    return f"{root} cannot be written, so copy it ({how}) and write {path}{rest}"


def require_new(out: Path, root: Path, purpose: str, hint: str) -> None:
    """Nothing is written over, and nothing into the data set.

    Raises:
        FullconvError: `out` holds something, or lies inside `root`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "is not empty" if out.is_dir() else "is a file"
        raise FullconvError(f"{out} {what}; expected a new folder for {purpose}.", hint)
    if out.resolve().is_relative_to(root.resolve()):
        raise FullconvError(f"{out} lies inside {root}, which is left as it is.", hint)


def _is_writable(path: Path) -> bool:
    """As its permissions mean it: root may write where nobody is supposed to."""
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & 0o222)
