"""Evaluations without a model: made-up confusion matrices, and run folders that hold them; and the
metrics by their definition."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.core.config_file import to_toml
from fullconv.evaluation.metrics import Metrics
from fullconv.evaluation.per_image import (
    ImageConfusions,
    SplitConfusions,
    content_fingerprint,
    save_next_to_run,
    sparse_row,
)
from fullconv.evaluation.protocol import protocol_card

CLASSES = ("sky", "road", "tree")
FOUR = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
NAN = float("nan")


def by_definition(images: Sequence[tuple[Any, Any]], count: int) -> dict[str, float | list[float]]:
    """Return the metrics of ground truths and predictions: the paper's score.py, pixel by pixel."""
    hits, true, predicted = ([0] * count for _ in range(3))
    for truth, prediction in images:
        pixels = zip(np.ravel(truth).tolist(), np.ravel(prediction).tolist(), strict=True)
        for t, p in pixels:
            if 0 <= t < count:
                true[t] += 1
                predicted[p] += 1
                hits[t] += t == p
    classes = range(count)
    unions = [true[k] + predicted[k] - hits[k] for k in classes]
    ious = [hits[k] / unions[k] if unions[k] else NAN for k in classes]
    accuracies = [hits[k] / true[k] if true[k] else NAN for k in classes]

    def mean(values: list[float]) -> float:
        numbers = [value for value in values if not math.isnan(value)]
        return sum(numbers) / len(numbers) if numbers else NAN

    total = sum(true)
    weighted = sum(true[k] * ious[k] for k in classes if true[k])
    return {
        "pixel_accuracy": sum(hits) / total if total else NAN,
        "mean_accuracy": mean(accuracies),
        "mean_iou": mean(ious),
        "mean_iou_present": mean([ious[k] for k in classes if true[k]]),
        "frequency_weighted_iou": weighted / total if total else NAN,
        "class_iou": ious,
        "class_accuracy": accuracies,
        "class_precision": [hits[k] / predicted[k] if predicted[k] else NAN for k in classes],
    }


def check_metrics(metrics: Metrics, images: Sequence[tuple[Any, Any]]) -> None:
    for key, value in by_definition(images, len(metrics.names)).items():
        assert np.asarray(getattr(metrics, key)).tolist() == pytest.approx(value, nan_ok=True), key


def matrices(
    images: int = 30, classes: int = 3, *, right: float = 0.7, seed: int = 0
) -> np.ndarray:
    """Return (n, K, K) matrices of images whose true classes depend only on the seed; `right` is
    about the share of correct pixels."""
    shares = np.random.default_rng(seed).dirichlet([0.6] * classes, images)
    random = np.random.default_rng([seed, round(1000 * right)])
    counts = np.zeros((images, classes, classes), np.int64)
    for k, row in enumerate(np.round(shares * 400).astype(int)):
        for true, count in enumerate(row):
            odds = np.full(classes, (1 - right) / max(1, classes - 1)) + 0.02
            odds[true] = right + random.normal(0, 0.05)
            counts[k, true] = random.multinomial(count, np.abs(odds) / np.abs(odds).sum())
    return counts


def confusions(classes: Sequence[str], counts: np.ndarray) -> ImageConfusions:
    """Return the per-image counts of matrices (n, K, K)."""
    return ImageConfusions.from_rows(classes, [sparse_row(matrix) for matrix in counts])


def counted(
    counts: np.ndarray,
    *,
    classes: Sequence[str] = CLASSES,
    names: Sequence[str] = (),
    data: str = "/data",
    **card: Any,
) -> SplitConfusions:
    """Return an evaluation of matrices (n, K, K); `card` changes lines of its protocol card."""
    names = tuple(names) or tuple(f"street_{k:04}" for k in range(len(counts)))
    lines = protocol_card(
        fingerprint="f" * 64,
        split="val",
        images=len(counts),
        classes=classes,
        pretrained_on="ImageNet-1k",
        ignored_pixels=0,
        trained_on="train (367 images)",
        sizes=[(360, 480)],
    )
    contents = tuple(content_fingerprint([name]) for name in names)
    heads = {"": confusions(classes, counts)}
    return SplitConfusions(names, contents, heads, {**lines, **card}, data)


def written(folder: Path, counts: SplitConfusions, *, epochs: int = 3, **settings: Any) -> Path:
    """Write a run folder that holds the counts, as if it had been trained."""
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "config.json").write_text(json.dumps({"weights_sha256": folder.name}))
    options = {"backbone": "resnet18", "stride": 8, **settings}
    (folder / "config.toml").write_text(to_toml({"data": {"root": "/data"}, "train": options}))
    rows = [f"{k},{10 * k},{1 / k:.3f},0.001,{0.2 * k},0.5,{k}.0" for k in range(1, epochs + 1)]
    head = "epoch,step,loss,lr,mean_iou,pixel_accuracy,seconds"
    (folder / "log.csv").write_text("\n".join([head, *rows]) + "\n")
    metrics = Metrics(counts.head().classes, counts.head().confusion()).to_dict()
    facts = {**metrics, "protocol": dict(counts.protocol), "epoch": epochs}
    (folder / "metrics.json").write_text(json.dumps(facts))
    save_next_to_run(counts, folder)
    return folder


def write_dataset(
    root: Path, classes: Sequence[str], **splits: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Path:
    """Write the (image, mask) pairs of each split as PNG files, and the class table."""
    for split, pairs in splits.items():
        for number, pair in enumerate(pairs):
            for folder, pixels in zip(("images", "masks"), pair, strict=True):
                path = root / folder / split / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    (root / "dataset.toml").write_text(f"classes = {json.dumps(list(classes))}\n")
    return root
