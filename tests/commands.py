"""Helpers for tests of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from fullconv.models.run import Stage

Cli = Callable[..., tuple[int, str, str]]


def damage_dataset(data: Path, fault: str) -> None:
    """Damage a test image, its mask, or the ids in the mask."""
    image, mask = data / "images/test/street_0000.jpg", data / "masks/test/street_0000.png"
    if fault == "image":
        image.write_bytes(image.read_bytes()[:300])
    elif fault == "mask":
        mask.write_bytes(mask.read_bytes()[:100])
    else:
        Image.fromarray(np.full((48, 64), 99, np.uint8)).save(mask)


class TrainRecorder:
    """Replaces `fullconv.training.train`, and records what it is called with."""

    def __init__(self) -> None:
        self.data: Any = None
        self.options: dict[str, Any] = {}
        self.splits = ("train", "val", "test")
        self.stages: tuple[Stage, ...] = ()
        self.metrics = {
            "mean_iou": 0.5,
            "epoch": 3,
            "protocol": {"split": "val", "images": 4},
            "per_class_iou": {"sky": 0.5},
            "confusion": [[1]],
        }

    def train(self, data: Any, **options: Any) -> Any:
        self.data, self.options = data, options
        return SimpleNamespace(
            folder=Path("my run"),
            model=Path("my run/model"),
            metrics=self.metrics,
            data=Path("DATA"),
            splits=self.splits,
            stages=self.stages,
        )
