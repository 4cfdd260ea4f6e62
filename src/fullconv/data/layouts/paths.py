"""Paths for commands that are suggested to the user: unused ones, in folders the user can write to.

Datasets are often on a disk that is shared and read-only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import shell_command
from fullconv.data.layouts.settings_file import SETTINGS_NAME


def unused_path(root: Path, ending: str) -> Path:
    """Return a path that does not exist, made of a dataset's name and an ending.

    It is next to the dataset if that is writable, else in the working directory (or the home
    directory, if the working directory is inside the dataset).
    """
    parent, root = root.parent, root.resolve()
    folder = parent if parent.resolve() == root.parent else root.parent
    if not _is_writable(folder):
        folder = Path.home() if Path.cwd().is_relative_to(root) else Path()
    first = folder / f"{root.name or 'data'}{ending}"
    numbered = (first.with_name(f"{first.name}_{number}") for number in count(2))
    return next(path for path in chain([first], numbered) if not path.exists())


def repair_command(root: Path) -> str:
    """Return the command that writes a repaired copy of a dataset."""
    return shell_command("fullconv", "check", root, "--fix", unused_path(root, "_fixed"))


def where_to_paste(root: Path, *, whole: bool = False) -> str:
    """Return what to do with lines for a dataset.toml; `whole`: they replace its content."""
    path = root / SETTINGS_NAME
    exists = path.is_file()
    if _is_writable(path if exists else root):
        if not exists:
            return msg("write {path}", path=path)
        if whole:
            return msg("write {path}, replacing its content", path=path)
        return msg("add to {path}", path=path)
    copy = unused_path(root, "_copy")
    values = {
        "root": root,
        "path": copy / SETTINGS_NAME,
        "copy": shell_command("cp", "-r", root, copy),
        "allow": shell_command("chmod", "-R", "u+w", copy),
    }
    if not exists:
        return msg("{root} is read-only: copy it ({copy} && {allow}) and write {path}", **values)
    if not whole:
        return msg("{root} is read-only: copy it ({copy} && {allow}) and add to {path}", **values)
    return msg(
        "{root} is read-only: copy it ({copy} && {allow}) and write {path}, replacing its content",
        **values,
    )


def require_new(out: Path, root: Path, purpose: str, hint: str) -> None:
    """Raise a `FullconvError` if the folder of a copy contains something, or is inside the dataset.

    `purpose` tells in a message what the folder is for; `hint` is a command with a better folder.
    """
    values = {"out": out, "root": root, "purpose": purpose}
    if out.exists() and not out.is_dir():
        message = msg("{out} is a file; expected a new folder for {purpose}.", **values)
    elif out.exists() and any(out.iterdir()):
        message = msg("{out} is not empty; expected a new folder for {purpose}.", **values)
    elif out.resolve().is_relative_to(root.resolve()):
        message = msg("{out} is inside {root}, which must not change.", **values)
    else:
        return
    raise FullconvError(message, hint)


@contextmanager
def whole_or_nothing(out: Path) -> Iterator[None]:
    """Remove the images and masks in the folder of a copy if the block fails, and the folder if it
    is new."""
    is_new = not out.exists()
    try:
        yield
    except BaseException:
        for folder in (out / "images", out / "masks"):
            shutil.rmtree(folder, ignore_errors=True)
        if is_new:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _is_writable(path: Path) -> bool:
    """Check the permissions, too: root may write everywhere, even to read-only folders."""
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & 0o222)
