"""Evaluations without a model: what was counted in made-up images, and runs that hold it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.core.settings import to_toml
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


def matrices(
    images: int = 30, classes: int = 3, *, right: float = 0.7, seed: int = 0
) -> np.ndarray:
    """(n, K, K) of images whose true classes depend on the seed alone; `right` is about the share
    of the pixels that are called what they are."""
    shares = np.random.default_rng(seed).dirichlet([0.6] * classes, images)
    chance = np.random.default_rng([seed, round(1000 * right)])
    found = np.zeros((images, classes, classes), np.int64)
    for k, row in enumerate(np.round(shares * 400).astype(int)):
        for true, count in enumerate(row):
            odds = np.full(classes, (1 - right) / max(1, classes - 1)) + 0.02
            odds[true] = right + chance.normal(0, 0.05)
            found[k, true] = chance.multinomial(count, np.abs(odds) / np.abs(odds).sum())
    return found


def counted(
    every: np.ndarray,
    *,
    classes: Sequence[str] = CLASSES,
    names: Sequence[str] = (),
    data: str = "/data",
    **card: Any,
) -> SplitConfusions:
    """Of matrices (n, K, K), with a protocol card in which `card` is changed."""
    names = tuple(names) or tuple(f"street_{k:04}" for k in range(len(every)))
    lines = protocol_card(
        fingerprint="f" * 64,
        split="val",
        images=len(every),
        classes=classes,
        pretrained_on="ImageNet-1k",
        ignored_pixels=0,
        trained_on="train (367 images)",
        sizes=[(360, 480)],
    )
    head = ImageConfusions.from_rows(classes, [sparse_row(one) for one in every])
    contents = tuple(content_fingerprint([name]) for name in names)
    return SplitConfusions(names, contents, {"": head}, {**lines, **card}, data)


def written(folder: Path, counts: SplitConfusions, *, epochs: int = 3, **settings: Any) -> Path:
    """A run's folder that holds them, as if it had been trained."""
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "config.json").write_text(json.dumps({"weights_sha256": folder.name}))
    options = {"backbone": "resnet18", "stride": 8, **settings}
    (folder / "config.toml").write_text(to_toml({"data": {"root": "/data"}, "train": options}))
    rows = [f"{k},{10 * k},{1 / k:.3f},0.001,{0.2 * k},0.5,{k}.0" for k in range(1, epochs + 1)]
    head = "epoch,step,loss,rate,mean_iou,pixel_accuracy,seconds"
    (folder / "log.csv").write_text("\n".join([head, *rows]) + "\n")
    of = counts.head()
    metrics = Metrics(of.classes, of.confusion()).to_dict()
    facts = {**metrics, "protocol": dict(counts.protocol), "epoch": epochs}
    (folder / "metrics.json").write_text(json.dumps(facts))
    save_next_to_run(counts, folder)
    return folder
