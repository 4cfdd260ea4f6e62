"""Remembered: what was found in a file before, keyed by its content, so that it is found once.

A small SQLite file in the user's cache folder. It only ever saves time: where it cannot be opened,
read or written, everything is simply found again.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

_FILE = "scans.sqlite"
_MOST = 400_000  # rows; the oldest are forgotten
_HELD = 1 << 24  # characters of what is new that are held before they are written
_TROUBLE = (sqlite3.Error, OSError, ValueError)


def cache_folder() -> Path:
    """Where Fullconv keeps what can be made again: ~/.cache/fullconv, or below XDG_CACHE_HOME."""
    given = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(given).expanduser().absolute() / "fullconv"


class Remembered:
    """Key -> anything that JSON holds. For many threads; to be used in a `with` block, by whose end
    what is new is written."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: dict[str, str] = {}
        self._size = 0  # of what is new, in characters
        self._file: sqlite3.Connection | None = None

    def __enter__(self) -> Remembered:
        with contextlib.suppress(*_TROUBLE, RuntimeError):  # a user without a home
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(folder / _FILE, timeout=0.5, check_same_thread=False)
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS found (key TEXT PRIMARY KEY, value TEXT)"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        self._write()
        with contextlib.suppress(*_TROUBLE), self._file:
            oldest = "SELECT rowid FROM found ORDER BY rowid DESC LIMIT -1 OFFSET ?"
            self._file.execute(f"DELETE FROM found WHERE rowid IN ({oldest})", (_MOST,))
        self._file.close()
        self._file = None

    def get(self, key: str) -> Any:
        """What was kept, or None."""
        with self._lock:
            if self._file is None:
                return None
            try:
                found = self._file.execute("SELECT value FROM found WHERE key = ?", (key,))
                row = found.fetchone()
                return json.loads(row[0]) if row else None
            except _TROUBLE:  # it is locked or broken, and will be for the next file too
                self._file.close()
                self._file = None
                return None

    def put(self, key: str, value: Any) -> None:
        """Keeps something."""
        text = json.dumps(value)
        with self._lock:
            if self._file is None:
                return
            self._new[key] = text
            self._size += len(text)
            if self._size > _HELD:
                self._write()

    def _write(self) -> None:
        assert self._file is not None
        with contextlib.suppress(*_TROUBLE), self._file:
            rows = list(self._new.items())
            self._file.executemany("INSERT OR REPLACE INTO found VALUES (?, ?)", rows)
        self._new.clear()
        self._size = 0
