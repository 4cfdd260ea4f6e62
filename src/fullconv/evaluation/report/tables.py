"""The tables of a report: classes, confusion matrix, most confused pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fullconv.core.labels import RGB, Labels
from fullconv.data.check.iou_ceiling import STRIDES, iou_ceiling
from fullconv.evaluation.error_analysis import Quality
from fullconv.evaluation.evaluate import Evaluation, EvaluationContext
from fullconv.evaluation.metrics import Metrics

MATRIX_SIZE = 25  # classes with a row of the matrix; of more, the others share one
CONFUSED_PAIRS = 6
OTHERS = "others"


class ClassRow(NamedTuple):
    """A class in the table: fractions; NaN if there is nothing to count."""

    name: str
    color: RGB
    share: float  # of the labeled pixels
    iou: float
    upper_bound: float  # IoU that the model's stride can reach, estimated
    recall: float
    precision: float
    boundary_f1: float


class Cell(NamedTuple):
    """True class -> predicted class: share of the true class's pixels, and pixels."""

    share: float
    pixels: int


class ConfusedPair(NamedTuple):
    """Pixels of one class that were predicted as another."""

    truth: int  # class ids
    prediction: int
    pixels: int
    share: float  # of the true class's pixels
    image: int  # number of the image with the most of them


@dataclass(frozen=True)
class HeadTables:
    """The tables of one head."""

    name: str  # "" if there is only one head
    number: int  # of the head in the model
    labels: Labels
    metrics: Metrics
    quality: Quality
    mean_upper_bound: float  # mean IoU that the model's stride can reach, estimated, or NaN
    rows: tuple[ClassRow, ...]  # of the classes that occur, in their order
    absent: tuple[str, ...]  # names of the other classes
    matrix_names: tuple[str, ...]  # of its rows (the ground truth) and columns
    matrix: tuple[tuple[Cell, ...], ...]
    confused: tuple[ConfusedPair, ...]  # the most frequent pair first


def head_tables(evaluation: Evaluation, context: EvaluationContext) -> list[HeadTables]:
    """Compute the tables of every head that was evaluated."""
    every = [evaluation.metrics, *evaluation.heads.values()]
    several = len(context.model.tables) > 1
    tables = []
    for k, (metrics, quality) in enumerate(zip(every, evaluation.qualities, strict=True)):
        head = context.heads[k]
        labels = context.model.tables[head.number]
        bounds, mean = _upper_bounds(context, k)
        names, matrix = confusion_table(metrics)
        tables.append(
            HeadTables(
                name=head.name if several else "",
                number=head.number,
                labels=labels,
                metrics=metrics,
                quality=quality,
                mean_upper_bound=mean,
                rows=_class_rows(labels, metrics, quality, bounds),
                absent=tuple(np.array(labels.names)[np.isnan(metrics.class_iou)].tolist()),
                matrix_names=names,
                matrix=matrix,
                confused=most_confused(metrics, quality),
            )
        )
    return tables


def _upper_bounds(context: EvaluationContext, k: int) -> tuple[dict[str, float], float]:
    """Estimate what the model's stride can reach on the masks of head k: by class, and the mean."""
    stride, split = context.model.info.stride, context.split
    if stride not in STRIDES:
        return {}, math.nan
    pairs = context.dataset.pairs_of(split)
    if k:
        pairs = tuple(replace(pair, mask=pair.masks[k - 1]) for pair in pairs)
    labels = context.heads[k].data_labels
    dataset = replace(context.dataset, splits={split: pairs}, labels=labels)
    ceiling = iou_ceiling(dataset, split=split, checked=True, strides=(stride,))
    by_name = dict(zip(ceiling.names, ceiling.class_iou[stride], strict=True))
    return by_name, ceiling.mean_iou[stride]


def _class_rows(
    labels: Labels, metrics: Metrics, quality: Quality, bounds: dict[str, float]
) -> tuple[ClassRow, ...]:
    true = metrics.confusion.sum(axis=1)
    columns = zip(
        labels.names,
        labels.colors,
        true / max(1, true.sum()),
        metrics.class_iou,
        [bounds.get(name, math.nan) for name in labels.names],
        metrics.class_accuracy,
        metrics.class_precision,
        quality.class_f1,
        strict=True,
    )
    return tuple(row for row in map(ClassRow._make, columns) if not math.isnan(row.iou))


def confusion_table(metrics: Metrics) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """Return names and rows of the confusion matrix, for the classes that occur.

    Of more than `MATRIX_SIZE` classes, those with the most errors keep their row and column, and
    the others share the last ones.
    """
    counts = np.asarray(metrics.confusion)
    totals = counts.sum(axis=0) + counts.sum(axis=1)
    errors = totals - 2 * np.diag(counts)
    present = np.flatnonzero(totals)
    names = [metrics.names[int(k)] for k in present]
    if len(present) > MATRIX_SIZE:
        worst = np.argsort(-errors[present], kind="stable")[: MATRIX_SIZE - 1]
        own = np.sort(present[worst])
        group = np.full(len(counts), len(own))
        group[own] = np.arange(len(own))
        grouped = np.zeros((MATRIX_SIZE, MATRIX_SIZE), counts.dtype)
        np.add.at(grouped, (group[:, None], group[None]), counts)
        counts, names = grouped, [*(metrics.names[int(k)] for k in own), OTHERS]
    else:
        counts = counts[np.ix_(present, present)]
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    rows = zip(shares.tolist(), counts.tolist(), strict=True)
    return tuple(names), tuple(tuple(map(Cell, *row)) for row in rows)


def most_confused(
    metrics: Metrics, quality: Quality, limit: int = CONFUSED_PAIRS
) -> tuple[ConfusedPair, ...]:
    """Return the pairs of true and predicted class with the most pixels."""
    counts = np.array(metrics.confusion)
    true = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(place), len(counts)) for place in order]
    images = quality.worst_image
    return tuple(
        ConfusedPair(i, j, int(counts[i, j]), float(counts[i, j] / true[i]), int(images[i, j]))
        for i, j in pairs
        if counts[i, j]
    )
