"""Images for tests, in memory and as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def photo(height: int = 50, width: int = 33, seed: int = 0) -> np.ndarray:
    """Return blotches of color, to which a random network gives several classes."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (5, 4, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def written(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path
