"""The numbers of a report: the matrix, what is confused, the ceiling beside each class."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fullconv.data.check.iou_ceiling import iou_ceiling
from fullconv.data.synthetic.scenes import LABELS
from fullconv.evaluation.error_analysis import Quality
from fullconv.evaluation.evaluate import evaluate
from fullconv.evaluation.metrics import Metrics
from fullconv.evaluation.report.tables import (
    MATRIX_SIZE,
    OTHERS,
    confusion_table,
    head_tables,
    most_confused,
)
from fullconv.inference.predictor import Predictor, load
from fullconv.models.model import Model


def metrics(confusion: np.ndarray) -> Metrics:
    return Metrics([f"class {k}" for k in range(len(confusion))], confusion)


def test_each_row_of_the_matrix_is_a_whole() -> None:
    counts = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 3]])
    names, rows = confusion_table(metrics(counts))
    assert names == ("class 0", "class 1", "class 2")  # the second is called, not true
    assert [[cell.pixels for cell in row] for row in rows] == counts.tolist()
    assert [cell.share for cell in rows[0]] == [0.75, 0.25, 0]
    assert [cell.share for cell in rows[1]] == [0, 0, 0]


def test_classes_that_do_not_occur_have_no_row() -> None:
    counts = np.zeros((4, 4), int)
    counts[1, 3] = 5
    names, rows = confusion_table(metrics(counts))
    assert names == ("class 1", "class 3")
    assert [[cell.pixels for cell in row] for row in rows] == [[0, 5], [0, 0]]


def test_of_many_classes_the_most_mistaken_are_shown_and_no_pixel_is_lost() -> None:
    random = np.random.default_rng(0)
    counts = random.integers(0, 50, (171, 171))
    counts[7, 9] = counts[100, 3] = 100_000
    names, rows = confusion_table(metrics(counts))
    assert len(names) == len(rows) == MATRIX_SIZE
    assert names[-1] == OTHERS
    assert {"class 3", "class 7", "class 9", "class 100"} <= set(names)
    assert sum(cell.pixels for row in rows for cell in row) == counts.sum()
    assert rows[names.index("class 7")][names.index("class 9")].pixels == 100_000
    kept = [int(name.split()[1]) for name in names[:-1]]
    assert kept == sorted(kept)


def test_what_is_confused_most_comes_first() -> None:
    counts = np.array([[90, 10, 0], [30, 60, 10], [0, 0, 5]])
    quality = Quality(["a", "b", "c"])
    quality.worst_image[1, 0] = 4
    found = most_confused(metrics(counts), quality)
    assert [(one.truth, one.prediction, one.pixels) for one in found] == [
        (1, 0, 30),
        (0, 1, 10),
        (1, 2, 10),
    ]
    assert found[0].share == 0.3
    assert found[0].image == 4
    assert most_confused(metrics(np.diag([5, 5])), Quality(["a", "b"])) == ()


def test_the_ceiling_is_that_of_the_models_stride(model_folder: Path, scenes: Path) -> None:
    result = evaluate(load(model_folder, device="cpu"), scenes, split="val")
    assert result.context is not None
    (head,) = head_tables(result, result.context)
    stride = result.context.model.stride
    reached = iou_ceiling(scenes, split="val")
    assert head.mean_upper_bound == reached.mean_iou[stride]
    known = dict(zip(reached.names, reached.class_iou[stride], strict=True))
    assert {row.name: row.upper_bound for row in head.rows} == pytest.approx(
        {row.name: known[row.name] for row in head.rows}, nan_ok=True
    )
    assert sum(row.share for row in head.rows) == pytest.approx(1)
    assert head.name == ""
    assert {row.name for row in head.rows} | set(head.absent) == set(LABELS.names)


def test_a_class_of_the_model_that_the_data_lack_has_no_ceiling(
    scenes: Path, make_model: Callable[..., Model]
) -> None:
    names = ("boat", *LABELS.names)
    result = evaluate(Predictor(make_model(names), device="cpu"), scenes, split="val")
    assert result.context is not None
    (head,) = head_tables(result, result.context)
    boat = [row for row in head.rows if row.name == "boat"]
    assert all(math.isnan(row.upper_bound) for row in boat)
    assert boat or "boat" in head.absent
