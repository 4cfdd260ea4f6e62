"""The metrics against their definition, written as plain loops."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from evaluated import CLASSES, FOUR, NAN, check_metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.core.metric_names import current_names, headline, never_predicted
from fullconv.evaluation.metrics import Metrics, confusion_matrix, metrics_table
from fullconv.evaluation.protocol import protocol_card

# Five pixels of class 0, four of 1, one of 2, none of 3; two ignored pixels.
TRUTH = np.array([[0, 0, 0, 0, 0, 1], [1, 1, 1, 2, 255, 255]])
PREDICTION = np.array([[0, 0, 0, 1, 1, 1], [1, 1, 0, 1, 2, 0]])
Images = list[tuple[Any, Any]]  # ground truth and prediction


def measure(images: Images, num_classes: int) -> Metrics:
    parts = [confusion_matrix(np.array(t), np.array(p), num_classes) for t, p in images]
    names = [f"class {k}" for k in range(num_classes)]
    return Metrics(names, sum(parts, np.zeros((num_classes, num_classes), np.int64)))


def test_a_case_computed_by_hand() -> None:
    metrics = measure([(TRUTH, PREDICTION)], 4)
    assert metrics.confusion.tolist() == [[3, 2, 0, 0], [1, 3, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert metrics.pixel_accuracy == pytest.approx(6 / 10)
    assert metrics.class_accuracy.tolist() == pytest.approx([3 / 5, 3 / 4, 0, NAN], nan_ok=True)
    assert metrics.class_precision.tolist() == pytest.approx([3 / 4, 1 / 2, NAN, NAN], nan_ok=True)
    assert metrics.class_iou.tolist() == pytest.approx([3 / 6, 3 / 7, 0, NAN], nan_ok=True)
    assert metrics.mean_accuracy == pytest.approx((3 / 5 + 3 / 4 + 0) / 3)
    assert metrics.mean_iou == pytest.approx((3 / 6 + 3 / 7 + 0) / 3)
    assert metrics.frequency_weighted_iou == pytest.approx((5 * 3 / 6 + 4 * 3 / 7 + 0) / 10)


@st.composite
def splits(draw: st.DrawFn) -> tuple[Images, int]:
    count = draw(st.integers(1, 5))
    truths = st.integers(0, count - 1) | st.sampled_from([255, -1, count])
    pixel = st.tuples(truths, st.integers(0, count - 1))
    images = draw(st.lists(st.lists(pixel, min_size=1, max_size=30), min_size=1, max_size=4))
    return [([t for t, _ in pixels], [p for _, p in pixels]) for pixels in images], count


@given(splits())
@settings(max_examples=200)
def test_any_split_has_the_metrics_of_the_definition(case: tuple[Images, int]) -> None:
    images, count = case
    metrics = measure(images, count)
    check_metrics(metrics, images)
    reordered = measure(images[::-1], count)
    assert (reordered.confusion == metrics.confusion).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_no_type_of_ids_overflows(dtype: type) -> None:
    count = 300 if dtype != np.uint8 else 255
    last = count - 1
    matrix = confusion_matrix(np.array([last, last, 0], dtype), np.array([last, 0, last]), count)
    assert matrix.dtype == np.int64
    assert (matrix[-1, -1], matrix[-1, 0], matrix[0, -1], matrix.sum()) == (1, 1, 1, 3)
    other = confusion_matrix(np.array([7], np.uint8), np.array([299], np.int32), 300)
    assert other[7, 299] == other.sum() == 1


def test_large_counts_are_exact() -> None:
    metrics = Metrics(("a", "b"), np.array([[2**52 + 1, 1], [0, 2**51]]))
    assert metrics.class_iou[0] == pytest.approx(1, abs=1e-15)
    assert metrics.to_dict()["confusion"][0][0] == 2**52 + 1


def test_the_extremes() -> None:
    ids = np.arange(12).reshape(3, 4) % 3
    right, wrong = measure([(ids, ids)], 3), measure([(ids, (ids + 1) % 3)], 3)
    nothing = measure([([255, 255], [0, 1])], 2)
    for key in FOUR:
        assert (getattr(right, key), getattr(wrong, key)) == (1, 0)
        assert math.isnan(getattr(nothing, key))
        assert nothing.to_dict()[key] is None
    assert "nan" not in json.dumps(nothing.to_dict()).lower()


def test_the_dictionary_has_the_names_and_plain_numbers() -> None:
    facts = Metrics(("a", "b", "c", "d"), confusion_matrix(TRUTH, PREDICTION, 4)).to_dict()
    assert json.loads(json.dumps(facts)) == facts
    per_class = ["per_class_iou", "per_class_accuracy", "per_class_precision"]
    assert list(facts) == [*FOUR, "mean_iou_present", *per_class, "confusion"]
    assert facts["per_class_iou"] == {"a": 0.5, "b": pytest.approx(3 / 7), "c": 0.0, "d": None}
    assert facts["per_class_accuracy"]["d"] is None
    assert facts["per_class_precision"] == {"a": 0.75, "b": 0.5, "c": None, "d": None}


def test_the_table_lists_every_class_and_what_is_not_averaged() -> None:
    names = ("sky", "a name that is much longer than its column", "car", "bus")
    facts = Metrics(names, confusion_matrix(TRUTH, PREDICTION, 4)).to_dict()
    lines = metrics_table(facts).splitlines()
    words = [line.split() for line in lines]
    assert [row[-1] for row in words[:4]] == ["30.95%", "60.00%", "45.00%", "42.14%"]
    assert words[6] == ["sky", "50.00%", "60.00%", "75.00%"]
    assert words[9] == ["bus", "-", "-", "-"]
    assert lines[-2:] == [
        "never predicted: car",
        "in neither ground truth nor prediction, not averaged: bus",
    ]
    assert len({len(line) for line in lines[5:10]}) == 1  # the columns are straight
    del facts["per_class_precision"]  # as in files of earlier versions
    assert metrics_table(facts).splitlines()[6].split() == ["sky", "50.00%", "60.00%", "-"]
    with_head = metrics_table({**facts, "heads": {"rooms": facts}})
    assert with_head.count("mean IoU") == 2
    assert "\n\nhead rooms\n\n" in with_head


def test_the_table_of_many_absent_classes_is_short() -> None:
    lines = metrics_table(measure([([0, 1], [0, 1])], 60).to_dict()).splitlines()
    assert lines[-1].endswith(": " + ", ".join(f"class {k}" for k in range(2, 14)) + " and 46 more")
    assert len(lines) == 10  # two classes have a line


@pytest.mark.parametrize(
    ("truth", "prediction", "never"),
    [([0, 0, 1, 1, 2, 2], [0, 0, 0, 2, 0, 0], ["class 1"]), ([0, 1], [0, 1], [])],
)
def test_never_predicted_classes_occur_in_the_ground_truth(
    truth: list[int], prediction: list[int], never: list[str]
) -> None:
    assert never_predicted(measure([(truth, prediction)], 4).to_dict()) == never


def test_the_headline() -> None:
    card = {"split": "val", "images": 7}
    assert headline({"mean_iou": 0.5, "protocol": card}) == "mean IoU 50.0% on val (7 images)"
    nothing = Metrics(("a", "b"), np.zeros((2, 2), dtype=np.int64)).to_dict()
    text = headline({**nothing, "heads": {"rooms": {"mean_iou": 0.25}}, "protocol": card})
    assert text == "mean IoU is undefined (no labeled pixel), rooms 25.0% on val (7 images)"


def test_metrics_of_version_0_1_get_todays_names() -> None:
    seen = "pictures that are not stated, then train (3 pictures)"
    former = {
        "mean_iou": 0.5,
        "per_class_iou": {"pictures": 0.5},  # names of classes and heads stay
        "heads": {"pictures": {"per_class_iou": {"picture_size": 1.0}}},
        "protocol": {"pictures": 3, "picture_size": "64 x 64", "trained_on": seen},
    }
    current = current_names(former)
    assert current == {
        **{key: former[key] for key in ("mean_iou", "per_class_iou", "heads")},
        "protocol": {
            "images": 3,
            "image_size": "64 x 64",
            "trained_on": "unknown images, then train (3 images)",
        },
    }
    assert current_names(current) == current


@pytest.mark.parametrize(
    ("sizes", "image_size"),
    [
        ([], "original"),
        ([(360, 480), (360, 480)], "original, 360 x 480"),
        ([(9, 9), (500, 333), (4, 20)], "original, 3 sizes from 4 x 20 to 500 x 333"),
    ],
)
def test_the_protocol_card_describes_the_image_sizes(
    sizes: list[tuple[int, int]], image_size: str
) -> None:
    card = protocol_card(
        fingerprint="ab12", split="val", images=3, classes=CLASSES, pretrained_on="",
        ignored_pixels=17, sizes=sizes,
    )  # fmt: skip
    assert (card["image_size"], card["images"], card["ignored_pixels"]) == (image_size, 3, 17)
