"""Cache the results of scanning files, keyed by file content, in a SQLite file.

The cache only saves time: without it everything is scanned again. A damaged file is replaced.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from typing import Any

from fullconv.core.files import cache_dir

_MAX_BYTES = 1 << 28  # if the file is larger, the older half of its content is deleted
_MAX_PENDING = 1 << 24  # characters of new entries that are held before they are written
_ERRORS = (sqlite3.Error, OSError, ValueError, RuntimeError)  # RuntimeError: a user without a home
_DELETE_OLD = """DELETE FROM found WHERE rowid IN (SELECT id FROM (
    SELECT rowid AS id, SUM(LENGTH(key) + LENGTH(value)) OVER (ORDER BY rowid DESC) AS bytes
    FROM found) WHERE bytes > ?)"""


class ScanCache:
    """Key -> anything that JSON holds, for any threads. New entries are written by the end of the
    `with` block; outside of one the cache is empty."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[str, str] = {}
        self._pending_size = 0  # characters
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> ScanCache:
        with contextlib.suppress(*_ERRORS):
            self._open()
        return self

    def __exit__(self, *error: object) -> None:
        if self._database is None:
            return
        self._write(self._database)
        with contextlib.suppress(*_ERRORS), self._database as database:
            names = ("page_count", "freelist_count", "page_size")
            pages, free, page_size = (
                database.execute(f"PRAGMA {name}").fetchone()[0] for name in names
            )
            if (pages - free) * page_size > _MAX_BYTES:
                database.execute(_DELETE_OLD, (_MAX_BYTES // 2,))
        self._database.close()
        self._database = None

    def get(self, key: str) -> Any:
        """Return the value of a key, or None."""
        with self._lock:
            if self._database is None:
                return None
            try:
                query = "SELECT value FROM found WHERE key = ?"
                row = self._database.execute(query, (key,)).fetchone()
                return json.loads(row[0]) if row else None
            except _ERRORS as error:  # locked or damaged, and so will it be for the next key
                self._database.close()
                self._database = None
                if _is_damaged(error):
                    with contextlib.suppress(*_ERRORS):
                        self._open(new=True)
                return None

    def put(self, key: str, value: Any) -> None:
        """Store a value."""
        text = json.dumps(value)
        with self._lock:
            if self._database is None:
                return
            self._pending[key] = text
            self._pending_size += len(text)
            if self._pending_size > _MAX_PENDING:
                self._write(self._database)

    def _open(self, new: bool = False) -> None:
        """Open the database; replace it if it is damaged, or if `new`."""
        path = cache_dir() / "scans.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        if new:
            path.unlink(missing_ok=True)
            path.with_name("scans.sqlite-journal").unlink(missing_ok=True)
        database = sqlite3.connect(path, timeout=0.5, check_same_thread=False)
        try:
            database.execute("CREATE TABLE IF NOT EXISTS found (key TEXT PRIMARY KEY, value TEXT)")
            self._database = database
        except sqlite3.Error as error:
            database.close()
            if new or not _is_damaged(error):
                raise
            self._open(new=True)

    def _write(self, database: sqlite3.Connection) -> None:
        query = "INSERT OR REPLACE INTO found VALUES (?, ?)"
        with contextlib.suppress(*_ERRORS), database:
            database.executemany(query, self._pending.items())
        self._pending.clear()
        self._pending_size = 0


def _is_damaged(error: Exception) -> bool:
    """Return whether the file is not a database. A locked one raises a subclass of this error."""
    return type(error) is sqlite3.DatabaseError
