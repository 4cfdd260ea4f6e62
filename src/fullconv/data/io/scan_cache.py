"""ScanCache: what was found in a file before, keyed by its content, so that it is found once.

A small SQLite file in the user's cache folder. It only ever saves time: where it cannot be opened,
read or written, everything is simply found again; where it is damaged, a new one takes its place.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from fullconv.core.files import cache_dir

_FILE = "scans.sqlite"
_MOST_BYTES = 1 << 28  # of the file; where it is larger, the oldest half is forgotten
_HELD = 1 << 24  # characters of what is new that are held before they are written
_TROUBLE = (sqlite3.Error, OSError, ValueError)


class ScanCache:
    """Key -> anything that JSON holds. For many threads; to be used in a `with` block, by whose end
    what is new is written."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: dict[str, str] = {}
        self._size = 0  # of what is new, in characters
        self._file: sqlite3.Connection | None = None

    def __enter__(self) -> ScanCache:
        with contextlib.suppress(*_TROUBLE, RuntimeError):  # a user without a home
            folder = cache_dir()
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._open(folder / _FILE)
            except sqlite3.DatabaseError as error:
                if _is_damaged(error):
                    self._replace(folder / _FILE)
                else:
                    raise
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
            self._forget(self._file)
        self._file.close()
        self._file = None

    def _open(self, path: Path) -> None:
        file = sqlite3.connect(path, timeout=0.5, check_same_thread=False)
        try:
            file.execute("CREATE TABLE IF NOT EXISTS found (key TEXT PRIMARY KEY, value TEXT)")
        except BaseException:
            file.close()
            raise
        self._file = file

    def _replace(self, path: Path) -> None:
        """A new file in place of one that is no database, or not any more."""
        for end in ("", "-journal"):
            path.with_name(path.name + end).unlink(missing_ok=True)
        self._open(path)

    @staticmethod
    def _forget(file: sqlite3.Connection) -> None:
        """The older half of the bytes, where there are too many."""
        pages, free, size = (
            file.execute(f"PRAGMA {of}").fetchone()[0]
            for of in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > _MOST_BYTES:
            newest = "SUM(LENGTH(key) + LENGTH(value)) OVER (ORDER BY rowid DESC)"
            old = (
                f"SELECT id FROM (SELECT rowid AS id, {newest} AS bytes FROM found) WHERE bytes > ?"
            )
            file.execute(f"DELETE FROM found WHERE rowid IN ({old})", (_MOST_BYTES // 2,))

    def get(self, key: str) -> Any:
        """What was kept, or None."""
        with self._lock:
            if self._file is None:
                return None
            try:
                found = self._file.execute("SELECT value FROM found WHERE key = ?", (key,))
                row = found.fetchone()
                return json.loads(row[0]) if row else None
            except _TROUBLE as error:  # locked or broken, and will be for the next file too
                self._file.close()
                self._file = None
                if _is_damaged(error):
                    with contextlib.suppress(*_TROUBLE):
                        self._replace(cache_dir() / _FILE)
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


def _is_damaged(error: Exception) -> bool:
    """Whether it is no database, or malformed; what else there is (locked ...) has other types."""
    return type(error) is sqlite3.DatabaseError
