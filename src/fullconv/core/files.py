"""Paths of the cache, and files that are written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder for files that can be made again: ~/.cache/fullconv, or below
    XDG_CACHE_HOME."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser().absolute() / "fullconv"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Create the folder of `path`, and yield a temporary path in it with the same suffix.

    If the block succeeds, the temporary file replaces `path`; otherwise it is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:40]}-{uuid.uuid4().hex}.unfinished{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file whole: text as UTF-8, file names in other encodings as escapes. See
    `atomic_path`."""
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
