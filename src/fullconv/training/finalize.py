"""Complete the best model of a run: exact metrics, agreement of bfloat16, the report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fullconv.core.files import atomic_write
from fullconv.core.i18n import msg
from fullconv.core.progress import say
from fullconv.core.text import first_line, shell_command
from fullconv.data.check.check import CheckReport
from fullconv.data.layouts.dataset import Dataset
from fullconv.data.loading.dataset import SegmentationDataset
from fullconv.evaluation.evaluate import evaluate
from fullconv.evaluation.per_image import save_next_to_run
from fullconv.evaluation.report.build import save_report
from fullconv.inference.predictor import Predictor
from fullconv.inference.runtime import Runtime, computes_in_bfloat16, label_disagreement
from fullconv.models.model import Model, save_model

COMPARED = 8  # images on which two networks are compared
REPORT = "report.html"


def finish(
    model: Model, folder: Path, reports: Sequence[CheckReport], split: str, device: torch.device
) -> dict[str, Any]:
    """Evaluate the best model of a run in float32, save it with its metrics, and return them: those
    that `fullconv evaluate` computes, and the epoch.

    Also writes metrics.json, the confusion matrix of each image, and the report.

    Args:
        reports: of the dataset and of the masks of additional heads.
        split: that the model was chosen on.
    """
    dataset = reports[0].dataset
    predictor = Predictor(model, device=device, precision="float32")
    result = evaluate(predictor, dataset, split=split, checked=reports)
    model.metrics = {**result.to_dict(), "epoch": model.metrics["epoch"]}
    model.bfloat16_disagreement = None
    if computes_in_bfloat16(device):
        exact, fast = (Runtime(model, device=device, precision=p) for p in ("float32", "bfloat16"))
        images = sample_images(dataset, split)
        try:
            model.bfloat16_disagreement = label_disagreement(exact, fast, images)
        except RuntimeError as error:  # a user's backbone that creates float32 tensors
            reason = first_line(error)
            say(msg("note: this network does not run in bfloat16: {reason}.", reason=reason))
    save_model(model, folder / "model")
    atomic_write(folder / "metrics.json", json.dumps(model.metrics, indent=1))
    assert result.counts is not None
    save_next_to_run(result.counts, folder)  # after the model, whose checksum it notes
    repeat = shell_command("fullconv", "train", "--config", folder / "config.toml", "--out", "NEW")
    try:
        save_report(result, folder / REPORT, run=folder, repeat=repeat)
    except OSError as error:  # the model is complete without a page
        values = {"folder": folder, "reason": error.strerror or error}
        say(msg("note: no report in {folder}: {reason}", **values))
    return dict(model.metrics)


def sample_images(dataset: Dataset, split: str) -> Iterator[Tensor]:
    """Yield a few images from all over a split: (3, H, W) uint8 RGB, or (3 + E, H, W) with extra
    input channels."""
    pairs = dataset.splits[split]
    pairs = pairs[:: max(1, len(pairs) // COMPARED)][:COMPARED]
    samples = SegmentationDataset(pairs, dataset.labels, extra_labels=dataset.tables[1:])
    return (samples[i, 0][0] for i in range(len(pairs)))
