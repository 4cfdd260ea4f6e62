"""Where files are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where Fullconv keeps what can be made again: ~/.cache/fullconv, or below XDG_CACHE_HOME."""
    given = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(given).expanduser().absolute() / "fullconv"
