"""Small datasets of given masks and images of noise, and the findings of a report by rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fullconv.data.check.check import CheckReport
from fullconv.data.check.finding import Finding


def noise(seed: int, size: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def save(path: Path, values: Any, **options: Any) -> None:
    """Write values 0 .. 255 as an image, in a folder that need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values).astype(np.uint8)).save(path, **options)


def write_pairs(
    root: Path, masks: Mapping[str, Any], *, toml: str = "", suffix: str = ".png"
) -> Path:
    """Write masks by name, "a" or "train/a", with an image each; return the folder."""
    for number, (name, values) in enumerate(masks.items()):
        save(root / f"images/{name}.png", noise(number, np.shape(values)[:2]))
        save(root / f"masks/{name}{suffix}", values)
    if toml:
        (root / "dataset.toml").write_text(toml)
    return root


def turned() -> Image.Exif:
    """Return the EXIF data of a photo that is upright after a quarter turn clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def only(report: CheckReport, rule: str) -> Finding:
    """Return the only finding of a rule."""
    (finding,) = (finding for finding in report.findings if finding.rule == rule)
    return finding


def rules_of(report: CheckReport) -> list[str]:
    return [finding.rule for finding in report.findings]
