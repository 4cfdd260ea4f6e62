"""One small run that most of these tests look at, with everything that it drew and printed."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from fullconv.data.synthetic import scenes as synthetic
from fullconv.models.run import Run

SMALL: dict[str, Any] = {
    "backbone": "test_resnet",
    "pretrained": False,
    "epochs": 3,
    "batch_size": 4,
    "crop": (33, 65),
    "workers": 0,
    "precision": "float32",
    "device": "cpu",
    "quiet": True,
}


@dataclass
class Trained:
    """A run, the batches of its steps, the arguments of its sheets, and its messages."""

    run: Run
    stderr: str
    batches: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    crops: list[Any] = field(default_factory=list)
    sheets: list[list[Any]] = field(default_factory=list)


@pytest.fixture(scope="package")
def small() -> dict[str, Any]:
    """Options of a run that takes a few seconds. Copy, do not change."""
    return SMALL


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic scenes: 14 to train, 3 to validate, 2 to test. Read only."""
    root = tmp_path_factory.mktemp("scenes")
    return synthetic.write(root, train=14, val=3, test=2, size=(48, 64))


@pytest.fixture(scope="package")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Three epochs of three steps each. Read only."""
    from fullconv.training import image_logger
    from fullconv.training.lightning_module import TrainingModule
    from fullconv.training.train import train

    kept = Trained(run=None, stderr="")  # type: ignore[arg-type]
    step, batches_sheet = TrainingModule.training_step, image_logger.batches_sheet
    epoch_sheet = image_logger.epoch_sheet

    def training_step(self: TrainingModule, batch: Any, index: int) -> Any:
        kept.batches.append((batch[0].clone(), batch[1].clone()))
        return step(self, batch, index)

    def keep_crops(crops: Any, *rest: Any) -> Any:
        assert not kept.batches  # drawn before the first step
        kept.crops.extend(crops)
        return batches_sheet(crops, *rest)

    def keep_images(images: Any, *rest: Any) -> Any:
        kept.sheets.append(list(images))
        return epoch_sheet(images, *rest)

    stderr = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(stderr):
        patch.setattr(TrainingModule, "training_step", training_step)
        patch.setattr(image_logger, "batches_sheet", keep_crops)
        patch.setattr(image_logger, "epoch_sheet", keep_images)
        options = {**SMALL, "quiet": False, "log_images_every": 2}
        kept.run = train(data, out=tmp_path_factory.mktemp("runs") / "whole", **options)
    kept.stderr = stderr.getvalue()
    return kept
