"""The numbers of a report: a table of classes, the confusion matrix, what is confused most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fullconv.core.labels import Labels, format_color
from fullconv.data.check.iou_ceiling import STRIDES, iou_ceiling
from fullconv.evaluation.error_analysis import Quality
from fullconv.evaluation.evaluate import Evaluation, EvaluationContext
from fullconv.evaluation.metrics import Metrics

MATRIX = 25  # classes that get a row of the matrix; the others share one
CONFUSED = 6  # pairs of classes that are shown
OTHERS = "others"


@dataclass(frozen=True)
class Row:
    """A class in the table; nan where there is nothing to count.

    Args:
        name, color: of the class, the latter as "#rrggbb".
        share: of the labelled pixels.
        iou, accuracy, precision, boundary_f1: fractions.
        ceiling: about the best IoU that the model's stride can reach.
    """

    name: str
    color: str
    share: float
    iou: float
    ceiling: float
    accuracy: float
    precision: float
    boundary_f1: float


@dataclass(frozen=True)
class Cell:
    """True class -> what it was called: a share of the true class's pixels, and how many."""

    share: float
    pixels: int


@dataclass(frozen=True)
class Confused:
    """Two classes that were taken for each other.

    Args:
        truth, called: class ids.
        pixels: how many of the true class were called so, and their share of it.
        image: number of the one that has most of them.
    """

    truth: int
    called: int
    pixels: int
    share: float
    image: int


@dataclass(frozen=True)
class HeadFacts:
    """What there is to say of one head.

    Args:
        name: "" where there is only one.
        number: of the head in the model.
        labels, metrics, quality: of it.
        ceiling_mean: about the best mean IoU that the model's stride can reach; nan: not known.
        rows: of the classes that occur, in their order.
        absent: names of the others.
        matrix_names: of the rows and columns.
        matrix: rows are the truth.
        confused: the commonest first.
    """

    name: str
    number: int
    labels: Labels
    metrics: Metrics
    quality: Quality
    ceiling_mean: float
    rows: tuple[Row, ...]
    absent: tuple[str, ...]
    matrix_names: tuple[str, ...]
    matrix: tuple[tuple[Cell, ...], ...]
    confused: tuple[Confused, ...]


def facts_of(evaluation: Evaluation, scored: EvaluationContext) -> list[HeadFacts]:
    """Of every head that was scored."""
    every = [evaluation.metrics, *evaluation.heads.values()]
    several = len(scored.model.tables) > 1
    found = []
    for k, (metrics, quality) in enumerate(zip(every, evaluation.qualities, strict=True)):
        head = scored.heads[k]
        labels = scored.model.tables[head.number]
        best, mean = _ceiling(scored, k, labels)
        rows, absent = _rows(labels, metrics, quality, best)
        names, matrix = matrix_of(metrics)
        found.append(
            HeadFacts(
                head.name if several else "",
                head.number,
                labels,
                metrics,
                quality,
                mean,
                rows,
                absent,
                names,
                matrix,
                most_confused(metrics, quality),
            )
        )
    return found


def _ceiling(scored: EvaluationContext, k: int, labels: Labels) -> tuple[dict[str, float], float]:
    """By class name what the model's stride can reach on the masks of head k, and the mean."""
    stride = scored.model.stride
    if stride not in STRIDES:
        return {}, math.nan
    data, split = scored.dataset, scored.split
    pairs = data.pairs_of(split)
    if k:
        pairs = tuple(replace(pair, mask=pair.masks[k - 1]) for pair in pairs)
    own = replace(data, splits={split: pairs}, labels=scored.heads[k].of_data)
    reached = iou_ceiling(own, split=split, checked=True, strides=(stride,))
    known = dict(zip(reached.names, reached.class_iou[stride], strict=True))
    return {name: known.get(name, math.nan) for name in labels.names}, reached.mean_iou[stride]


def _rows(
    labels: Labels, metrics: Metrics, quality: Quality, best: dict[str, float]
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    truth = metrics.confusion.sum(axis=1)
    rows, absent = [], []
    both = (metrics.class_accuracy, metrics.class_precision)
    columns = zip(metrics.class_iou, *both, quality.class_f1, strict=True)
    for k, (iou, accuracy, precision, f1) in enumerate(columns):
        name = labels.names[k]
        if math.isnan(iou):
            absent.append(name)
            continue
        share = truth[k] / max(1, truth.sum())
        color = format_color(labels.colors[k])
        reach = best.get(name, math.nan)
        rows.append(Row(name, color, share, iou, reach, accuracy, precision, f1))
    return tuple(rows), tuple(absent)


def matrix_of(metrics: Metrics) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """The confusion matrix of the classes that occur, each row a whole; of more than `MATRIX` those
    that are in most mistakes, in their order, and the others as one."""
    counts = np.asarray(metrics.confusion)
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    shown = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    names = [metrics.names[int(k)] for k in shown]
    if len(shown) > MATRIX:
        kept = np.sort(shown[np.argsort(-wrong[shown], kind="stable")[: MATRIX - 1]])
        group = np.full(len(counts), len(kept))
        group[kept] = np.arange(len(kept))
        small = np.zeros((len(kept) + 1, len(kept) + 1), counts.dtype)
        np.add.at(small, (group[:, None], group[None]), counts)
        counts, names = small, [*(metrics.names[int(k)] for k in kept), OTHERS]
    else:
        counts = counts[np.ix_(shown, shown)]
    wholes = np.maximum(1, counts.sum(axis=1, keepdims=True))
    rows = zip((counts / wholes).tolist(), counts.tolist(), strict=True)
    return tuple(names), tuple(tuple(map(Cell, *row)) for row in rows)


def most_confused(metrics: Metrics, quality: Quality, most: int = CONFUSED) -> tuple[Confused, ...]:
    """Pairs of classes by how many pixels of one were called the other."""
    counts = np.array(metrics.confusion)
    truth = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs: Sequence[tuple[int, int]] = list(
        zip(*np.unravel_index(order, counts.shape), strict=True)
    )
    return tuple(
        Confused(
            int(i),
            int(j),
            int(counts[i, j]),
            float(counts[i, j] / truth[i]),
            int(quality.where[i, j]),
        )
        for i, j in pairs
        if counts[i, j]
    )
