"""A fixture that records the texts on images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from PIL import ImageDraw

from fullconv.visualization import legend


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every text that is drawn, in order."""
    monkeypatch.setattr(legend, "_CACHED_SIZE", 0)
    written: list[str] = []
    plain = ImageDraw.ImageDraw.text

    def text(self: Any, xy: Any, text: str, *args: Any, **options: Any) -> None:
        written.append(text)
        plain(self, xy, text, *args, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return written
