"""Evaluate a model on a split: the paper's four numbers, at the pictures' original size."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fullconv.data.check import CheckReport, check
from fullconv.data.layouts import Dataset, read
from fullconv.data.masks import Value, map_lines, read_mask
from fullconv.data.pictures import read_picture
from fullconv.data.tables import read_settings
from fullconv.data.tolerance import tolerated
from fullconv.data.writable import table_line
from fullconv.errors import FullconvError, command, some
from fullconv.labels import IGNORE, Labels
from fullconv.metrics import Metrics, confusion_matrix, protocol_card
from fullconv.predict import Predictor, load

Alteration: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]


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
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predicts every picture of a split and compares it with its mask, at the original size.

    Args:
        model: a model or its path.
        data: a data set or its folder. Classes are matched by name.
        split: "train", "val" or "test".
        ignore_rules: see `fullconv.data.tolerance.tolerated`.
        progress: called with (pictures done, pictures).

    Raises:
        FullconvError: no such split, classes that do not match, or faulty data.
    """
    (result,) = evaluate_altered(
        model, data, [None], split=split, ignore_rules=ignore_rules, progress=progress
    )
    return result


def evaluate_altered(
    model: Predictor | str | Path,
    data: Dataset | str | Path,
    alterations: Sequence[Alteration | None],
    *,
    split: str,
    ignore_rules: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> list[Evaluation]:
    """As `evaluate`, once for each way in which the pictures are altered before the model sees
    them; None leaves them as they are.

    Args:
        alterations: make of a picture (H, W, 3) uint8 and its true ids (H, W) of the model the
            picture that is shown; see `fullconv.probe`.
        progress: called with (predictions done, predictions).
    """
    predictor = model if isinstance(model, Predictor) else load(model, precision="float32")
    if predictor.engine.precision != "float32":  # one number for a model, whatever runs it
        predictor = Predictor(predictor.model, device=predictor.device, precision="float32")
    dataset = data if isinstance(data, Dataset) else read(data)
    report = check(dataset)
    dataset = tolerated(report, ignore_rules)
    pairs = dataset.pairs_of(split)
    to_model = match_classes(report, predictor.labels, split)
    count = len(predictor.labels)
    confusions = np.zeros((len(alterations), count, count), dtype=np.int64)
    done = ignored = 0
    for pair in pairs:
        truth = to_model[read_mask(pair.mask, dataset.labels)]
        picture = read_picture(pair.picture)
        ignored += int((truth >= count).sum())
        for confusion, alter in zip(confusions, alterations, strict=True):
            prediction = predictor.label_map(alter(picture, truth) if alter else picture)
            confusion += confusion_matrix(truth, prediction, count)
            done += 1
            if progress:
                progress(done, len(pairs) * len(alterations))
    card = protocol_card(
        fingerprint=report.fingerprint,
        split=split,
        pictures=len(pairs),
        classes=predictor.labels.names,
        pretrained_on=predictor.model.card.pretrained_on,
        ignored_pixels=ignored,
    )
    names = predictor.labels.names
    return [Evaluation(Metrics(names, confusion), card) for confusion in confusions]


def match_classes(report: CheckReport, model: Labels, split: str) -> np.ndarray:
    """Lookup from a data set's class ids to a model's, by name; ignore stays out of range.

    Args:
        report: of the data set.
        model: the model's class table.
        split: whose classes must be known. One without a pixel there need not be.

    Raises:
        FullconvError: a class of the data set that the model does not know.
    """
    data, pixels = report.dataset.labels, report.class_pixels[split]
    shown = [name for name, count in zip(data.names, pixels, strict=True) if count]
    lost = [name for name in shown if name not in model.names]
    if lost:
        root = report.dataset.root
        other = f"{command('fullconv', 'train', root)}   # a model of these classes; or\n"
        raise FullconvError(
            f"the model does not know {some(lost)}, which {split} of {root} shows; it has "
            f"{some([*model.names])}.",
            other * (lost == shown) + _own_table(report, model),
        )
    beyond = max(data.ignore_index, len(data)) + 1
    lookup = np.full(beyond, np.iinfo(np.int32).max, dtype=np.int32)
    for k, name in enumerate(data.names):
        if name in model.names:
            lookup[k] = model.names.index(name)
    return lookup


def _own_table(report: CheckReport, model: Labels) -> str:
    """A whole dataset.toml in which the classes are the model's."""
    dataset = report.dataset
    told = read_settings(dataset.root)
    values: dict[Value, str] = {meaning.value: meaning.name for meaning in report.meanings}
    if not values:  # every value is the id of its class
        every = zip(*report.class_pixels.values(), strict=True)
        values = {k: dataset.labels.names[k] for k, counts in enumerate(every) if any(counts)}
    named = [(value, name) for value, name in values.items() if name]
    known = {value: name if name in model.names else IGNORE for value, name in named}
    head, *lines = map_lines(known).splitlines()
    lost = [name * (name not in (*model.names, IGNORE)) for _, name in named]
    lines = [line + f"   # {name}" * bool(name) for line, name in zip(lines, lost, strict=True)]
    kept = [key for key in ("images", "masks", "layout") if key in told]
    return "\n".join([
        f"{table_line(dataset.root, whole=True)} (another class of the model in place of ignore, "
        "where it means the same):",
        *(f"{key} = {json.dumps(told[key])}" for key in kept),
        f"classes = {json.dumps(list(model.names), ensure_ascii=False)}",
        head,
        *lines,
    ])  # fmt: skip
