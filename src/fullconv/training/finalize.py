"""What is noted in the best model when its training ends: its metrics, exactly, and whether
bfloat16 gives the same labels; and the report of its run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fullconv.core.i18n import translate
from fullconv.core.settings import Settings
from fullconv.core.text import shell_command
from fullconv.data.layouts.dataset import Dataset
from fullconv.data.loading.dataset import SegmentationDataset
from fullconv.evaluation.evaluate import evaluate
from fullconv.evaluation.per_image import save_next_to_run
from fullconv.evaluation.report.build import save_report
from fullconv.inference.predictor import Predictor
from fullconv.inference.runtime import Runtime, computes_in_bfloat16, label_disagreement
from fullconv.models.model import Model, load_model, save_model

COMPARED = 8  # images that show whether two networks give the same labels
REPORT = "report.html"


def finish(
    folder: Path,
    dataset: Dataset,
    split: str,
    device: torch.device,
    backbone: nn.Module | None,
    settings: Settings,
) -> dict[str, Any]:
    """Completes the best model of a run; writes its metrics.json, its images' counts, its report.

    Args:
        folder: of the run.
        dataset, split: what the model was chosen by.
        device: of the training.
        backbone: where it is a module of one's own.
        settings: of the training.

    Returns:
        The metrics in float32, as `fullconv evaluate` gives them; while training they were those of
        the training's precision.
    """
    model = load_model(folder / "model", backbone=backbone)
    predictor = Predictor(model, device=device, precision="float32")
    result = evaluate(
        predictor,
        dataset,
        split=split,
        heads=settings.heads,
        inputs=settings.extra_inputs,
        ignore_rules=settings.ignore_rules,
    )
    model.metrics = {**result.to_dict(), "epoch": model.metrics["epoch"]}
    (folder / "metrics.json").write_text(json.dumps(model.metrics, indent=1), encoding="utf-8")
    if computes_in_bfloat16(device):
        model.bfloat16_disagreement = _disagreement(model, dataset, split, device)
    save_model(model, folder / "model")
    assert result.counts is not None
    save_next_to_run(result.counts, folder)  # of the model that lies there now
    again = shell_command("fullconv", "train", "--config", folder / "config.toml", "--out", "NEW")
    try:
        save_report(result, folder / REPORT, run=folder, repeat=again)
    except OSError as error:  # the model is there, whatever becomes of the page
        print(translate(f"note: no report in {folder}: {error.strerror or error}"), file=sys.stderr)
    return dict(model.metrics)


def some_images(dataset: Dataset, split: str) -> Iterator[Tensor]:
    """A few images from all over a split, (3, H, W) uint8 RGB each, channels of further inputs
    behind."""
    pairs = dataset.splits[split]
    some = pairs[:: max(1, len(pairs) // COMPARED)][:COMPARED]
    samples = SegmentationDataset(some, dataset.labels, extra_labels=dataset.tables[1:])
    return (samples[i, 0][0] for i in range(len(some)))


def _disagreement(model: Model, dataset: Dataset, split: str, device: torch.device) -> float | None:
    exact, fast = (Runtime(model, device=device, precision=p) for p in ("float32", "bfloat16"))
    try:
        return label_disagreement(exact, fast, some_images(dataset, split))
    except RuntimeError as error:  # a backbone of one's own that makes float32 tensors
        print(translate(f"note: this network does not run in bfloat16: {error}"), file=sys.stderr)
        return None
