"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def shared() -> Path:
    """The folder with the real data sets (data/camvid and others); skips where there is none."""
    folder = os.environ.get("FULLCONV_SHARED", "")
    if not folder:
        pytest.skip("FULLCONV_SHARED is not set: it names the folder that holds data/camvid, ...")
    return Path(folder)
