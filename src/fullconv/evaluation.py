"""Evaluate a model on a split: the paper's four numbers, at the pictures' original size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.data.check import check
from fullconv.data.layouts import Dataset, read
from fullconv.data.masks import map_lines, read_mask
from fullconv.data.pictures import read_picture
from fullconv.data.tolerance import tolerated
from fullconv.errors import FullconvError
from fullconv.labels import Labels
from fullconv.metrics import Metrics, confusion_matrix, protocol_card
from fullconv.predict import Predictor, load


@dataclass(frozen=True)
class Evaluation:
    """The result on one split.

    Args:
        metrics: from the confusion matrix of the whole split.
        protocol: what the numbers mean; see `fullconv.metrics.protocol_card`.
    """

    metrics: Metrics
    protocol: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the metrics, and the card under "protocol"."""
        return {**self.metrics.to_dict(), "protocol": self.protocol}


def evaluate(
    model: Predictor | str | Path,
    data: Dataset | str | Path,
    *,
    split: str = "test",
    ignore_rules: str = "",
    alter: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predicts every picture of a split and compares it with its mask, at the original size.

    Args:
        model: a model or its path.
        data: a data set or its folder. Classes are matched by name.
        split: "train", "val" or "test".
        ignore_rules: see `fullconv.data.tolerance.tolerated`.
        alter: makes of a picture (H, W, 3) and its true ids (H, W) of the model the picture that
            the model is shown; see `fullconv.probe`.
        progress: called with (pictures done, pictures).

    Raises:
        FullconvError: no such split, classes that do not match, or faulty data.
    """
    predictor = model if isinstance(model, Predictor) else load(model, precision="float32")
    if predictor.engine.precision != "float32":  # one number for a model, whatever runs it
        predictor = Predictor(predictor.model, device=predictor.device, precision="float32")
    dataset = data if isinstance(data, Dataset) else read(data)
    report = check(dataset)
    dataset = tolerated(report, ignore_rules)
    pairs = dataset.pairs_of(split)
    to_model = match_classes(dataset.labels, predictor.labels, report.class_pixels[split])
    count = len(predictor.labels)
    confusion = np.zeros((count, count), dtype=np.int64)
    ignored = 0
    for done, pair in enumerate(pairs):
        truth = to_model[read_mask(pair.mask, dataset.labels)]
        picture = read_picture(pair.picture)
        prediction = predictor.label_map(alter(picture, truth) if alter else picture)
        confusion += confusion_matrix(truth, prediction, count)
        ignored += int((truth >= count).sum())
        if progress:
            progress(done + 1, len(pairs))
    card = protocol_card(
        fingerprint=report.fingerprint,
        split=split,
        pictures=len(pairs),
        classes=predictor.labels.names,
        pretrained_on=predictor.model.card.pretrained_on,
        ignored_pixels=ignored,
    )
    return Evaluation(Metrics(predictor.labels.names, confusion), card)


def match_classes(data: Labels, model: Labels, pixels: Sequence[int]) -> np.ndarray:
    """Lookup from the data set's class ids to the model's, by name; ignore stays out of range.

    Args:
        data, model: the two class tables.
        pixels: (K,) of each class of the data set; one without a pixel need not be known.

    Raises:
        FullconvError: a class of the data set that the model does not know.
    """
    unknown = [k for k, name in enumerate(data.names) if name not in model.names and pixels[k]]
    if unknown:
        lines = map_lines(dict.fromkeys((v for k in unknown for v in _values(data, k)), "ignore"))
        raise FullconvError(
            "the data set has classes that the model does not know: "
            f"{', '.join(data.names[k] for k in unknown)}; "
            f"the model has {', '.join(model.names)}.",
            f"in dataset.toml, with one of the model's classes in place of ignore where it fits:\n"
            f"{lines}",
        )
    beyond = max(data.ignore_index, len(data)) + 1
    lookup = np.full(beyond, np.iinfo(np.int32).max, dtype=np.int32)
    for k, name in enumerate(data.names):
        if name in model.names:
            lookup[k] = model.names.index(name)
    return lookup


def _values(labels: Labels, class_id: int) -> list[Any]:
    """What may stand in a mask file for a class."""
    told = [value for value, k in labels.values.items() if k == class_id]
    return told if labels.class_of(class_id) != class_id else [class_id, *told]
