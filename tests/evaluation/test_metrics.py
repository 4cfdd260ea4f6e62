"""The four numbers against their definition, written out with plain loops."""

from __future__ import annotations

import json
import math
import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.core.metric_names import headline, never_predicted
from fullconv.evaluation.metrics import Metrics, confusion_matrix, metrics_table
from fullconv.evaluation.protocol import protocol_card

# Five pixels of class 0, four of 1, one of 2, none of 3; one pixel that does not count.
TRUTH = np.array([[0, 0, 0, 0, 0, 1], [1, 1, 1, 2, 255, 255]])
CALLED = np.array([[0, 0, 0, 1, 1, 1], [1, 1, 0, 1, 2, 0]])


def by_definition(
    images: list[tuple[list[int], list[int]]], num_classes: int
) -> dict[str, float | list[float]]:
    """The paper's score.py as loops over pixels: hits, true pixels and called pixels per class."""
    hits, true, called = ([0] * num_classes for _ in range(3))
    for truth, prediction in images:
        for t, p in zip(truth, prediction, strict=True):
            if t < 0 or t >= num_classes:
                continue
            true[t] += 1
            called[p] += 1
            if t == p:
                hits[t] += 1
    nan = float("nan")
    classes = range(num_classes)
    ious = [hits[k] / u if (u := true[k] + called[k] - hits[k]) else nan for k in classes]
    accuracies = [hits[k] / true[k] if true[k] else nan for k in classes]

    def mean(values: list[float]) -> float:
        known = [value for value in values if not math.isnan(value)]
        return sum(known) / len(known) if known else nan

    total = sum(true)
    return {
        "pixel_accuracy": sum(hits) / total if total else nan,
        "mean_accuracy": mean(accuracies),
        "mean_iou": mean(ious),
        "mean_iou_present": mean([ious[k] for k in classes if true[k]]),
        "frequency_weighted_iou": sum(true[k] / total * ious[k] for k in classes if true[k])
        if total
        else nan,
        "class_iou": ious,
        "class_accuracy": accuracies,
        "class_precision": [hits[k] / called[k] if called[k] else nan for k in classes],
    }


def of(images: list[tuple[Any, Any]], num_classes: int) -> Metrics:
    parts = [confusion_matrix(np.array(t), np.array(p), num_classes) for t, p in images]
    names = [f"class {k}" for k in range(num_classes)]
    return Metrics(names, sum(parts, np.zeros((num_classes, num_classes), np.int64)))


def test_a_case_computed_by_hand() -> None:
    metrics = of([(TRUTH, CALLED)], 4)
    assert metrics.confusion.tolist() == [[3, 2, 0, 0], [1, 3, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert metrics.pixel_accuracy == pytest.approx(6 / 10)
    assert metrics.class_accuracy[:3].tolist() == pytest.approx([3 / 5, 3 / 4, 0])
    assert metrics.class_precision[:2].tolist() == pytest.approx([3 / 4, 3 / 6])
    assert np.isnan(metrics.class_precision[2:]).all()  # nothing was called so
    assert metrics.mean_accuracy == pytest.approx((3 / 5 + 3 / 4 + 0) / 3)
    assert metrics.class_iou[:3].tolist() == pytest.approx([3 / 6, 3 / 7, 0])
    assert metrics.mean_iou == pytest.approx((3 / 6 + 3 / 7 + 0) / 3)
    assert metrics.frequency_weighted_iou == pytest.approx((5 * 3 / 6 + 4 * 3 / 7 + 0) / 10)
    assert math.isnan(metrics.class_iou[3])
    assert math.isnan(metrics.class_accuracy[3])


def test_a_class_that_is_only_predicted_counts_in_the_mean_but_not_among_the_present() -> None:
    metrics = of([([0, 0, 0, 0], [0, 0, 0, 1])], 3)
    assert metrics.class_iou[:2].tolist() == [0.75, 0.0]
    assert metrics.mean_iou == 0.375
    assert metrics.mean_iou_present == 0.75
    assert metrics.mean_accuracy == 0.75


def test_ids_out_of_range_are_skipped_whatever_is_predicted_there() -> None:
    truth = np.array([0, 1, 2, 254, 255, -1, 2**31 - 1])
    called = np.array([0, 1, 0, 1, 0, 1, 1])
    assert confusion_matrix(truth, called, 2).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_no_type_of_ids_overflows(dtype: type) -> None:
    count = 300 if dtype != np.uint8 else 255
    truth = np.array([count - 1, count - 1, 0], dtype)
    called = np.array([count - 1, 0, count - 1], dtype)
    found = confusion_matrix(truth, called, count)
    assert found.dtype == np.int64
    assert (found[-1, -1], found[-1, 0], found[0, -1], found.sum()) == (1, 1, 1, 3)


def test_more_classes_than_the_type_of_the_truth_can_name() -> None:
    found = confusion_matrix(np.array([7], np.uint8), np.array([299], np.int32), 300)
    assert found[7, 299] == found.sum() == 1


def test_no_pixel_at_all_gives_nan_everywhere() -> None:
    metrics = of([([255, 255], [0, 1])], 2)
    assert metrics.confusion.tolist() == [[0, 0], [0, 0]]
    numbers = metrics.to_dict()
    for key in ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
        assert math.isnan(getattr(metrics, key))
        assert numbers[key] is None
    assert "nan" not in json.dumps(numbers).lower()


def test_all_right_is_one_and_all_wrong_is_zero() -> None:
    ids = np.arange(12).reshape(3, 4) % 3
    right, wrong = of([(ids, ids)], 3), of([(ids, (ids + 1) % 3)], 3)
    for key in ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
        assert getattr(right, key) == 1
        assert getattr(wrong, key) == 0


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[tuple[list[int], list[int]]], int]:
    count = draw(st.integers(1, 5))
    truths = st.integers(0, count - 1) | st.sampled_from([255, -1, count])
    pixel = st.tuples(truths, st.integers(0, count - 1))
    images = draw(st.lists(st.lists(pixel, min_size=1, max_size=30), min_size=1, max_size=4))
    return [([t for t, _ in p], [c for _, c in p]) for p in images], count


@given(splits())
@settings(max_examples=200)
def test_any_split_gives_the_numbers_of_the_definition(
    case: tuple[list[tuple[list[int], list[int]]], int],
) -> None:
    images, count = case
    metrics, expected = of(images, count), by_definition(images, count)
    for key, value in expected.items():
        assert np.asarray(getattr(metrics, key)).tolist() == pytest.approx(value, nan_ok=True), key


def test_the_numbers_are_of_the_split_not_the_mean_over_images() -> None:
    """One image with a large object that is nearly right, one with a tiny object missed."""
    large = np.repeat([0, 0, 1, 1], [631, 453, 433, 8483]).reshape(100, 100)
    called = np.repeat([0, 1, 0, 1], [631, 453, 433, 8483]).reshape(100, 100)
    tiny = np.zeros((99, 100), int)
    tiny[40:45, 20:26] = 1
    images = [(large, called), (tiny, np.zeros_like(tiny))]
    metrics = of(images, 3)
    assert metrics.class_iou[:2].round(3).tolist() == [0.920, 0.903]
    assert math.isnan(metrics.class_iou[2])
    assert round(metrics.mean_iou, 3) == 0.911
    per_image = np.mean([of([image], 3).class_iou[:2] for image in images], axis=0)
    assert per_image.round(3).tolist() == [0.706, 0.453]
    assert round(float(per_image.mean()), 3) == 0.580  # what we do not print


def test_the_order_and_the_cut_of_the_images_do_not_matter() -> None:
    random = np.random.default_rng(0)
    truth, called = random.integers(0, 4, (2, 6, 8, 10))
    whole = confusion_matrix(truth, called, 4)
    parts = [confusion_matrix(t, c, 4) for t, c in zip(truth[::-1], called[::-1], strict=True)]
    assert (whole == sum(parts)).all()


def test_large_counts_are_exact() -> None:
    confusion = np.array([[2**52 + 1, 1], [0, 2**51]])
    metrics = Metrics(("a", "b"), confusion)
    assert metrics.class_iou[0] == pytest.approx(1, abs=1e-15)
    assert metrics.to_dict()["confusion"][0][0] == 2**52 + 1


def test_the_dictionary_has_the_names_and_plain_numbers() -> None:
    found = Metrics(("a", "b", "c", "d"), confusion_matrix(TRUTH, CALLED, 4)).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert list(found) == [
        "mean_iou",
        "pixel_accuracy",
        "mean_accuracy",
        "frequency_weighted_iou",
        "mean_iou_present",
        "per_class_iou",
        "per_class_accuracy",
        "per_class_precision",
        "confusion",
    ]
    assert found["per_class_iou"] == {"a": 0.5, "b": pytest.approx(3 / 7), "c": 0.0, "d": None}
    assert found["per_class_accuracy"]["d"] is None
    assert found["per_class_precision"] == {"a": 0.75, "b": 0.5, "c": None, "d": None}
    assert sum(map(sum, found["confusion"])) == 10


def test_the_table_has_every_class_and_says_which_are_left_out() -> None:
    names = ("sky", "a name that is much longer than its column", "car", "bus")
    lines = metrics_table(Metrics(names, confusion_matrix(TRUTH, CALLED, 4)).to_dict()).splitlines()
    words = [line.split() for line in lines]
    assert words[0] == ["mean", "IoU", "30.95"]
    assert words[1] == ["pixel", "accuracy", "60.00"]
    assert words[2] == ["mean", "accuracy", "45.00"]
    assert words[3] == ["frequency", "weighted", "IoU", "42.14"]
    assert ["sky", "50.00", "60.00", "75.00"] in words
    assert ["bus", "-", "-", "-"] in words
    assert lines[-1] == "neither present nor predicted, left out of the means: bus"
    assert len({len(line) for line in lines[5:10]}) == 1  # the columns are straight


def test_metrics_of_an_earlier_version_have_no_precision_in_the_table() -> None:
    found = Metrics(("sky", "car", "pole", "bus"), confusion_matrix(TRUTH, CALLED, 4)).to_dict()
    del found["per_class_precision"]
    assert ["sky", "50.00", "60.00", "-"] in [
        line.split() for line in metrics_table(found).splitlines()
    ]


def test_a_class_that_is_never_predicted_is_named() -> None:
    """One that occurs and that nothing was called; not one that was called where it is not."""
    metrics = of([([0, 0, 1, 1, 2, 2], [0, 0, 0, 2, 0, 0])], 4).to_dict()
    assert never_predicted(metrics) == ["class 1"]
    assert "never predicted: class 1" in metrics_table(metrics).splitlines()
    good = of([([0, 1], [0, 1])], 2).to_dict()
    assert never_predicted(good) == []
    assert "never predicted" not in metrics_table(good)


def test_many_classes_that_are_absent_are_counted() -> None:
    lines = metrics_table(of([([0, 1], [0, 1])], 60).to_dict()).splitlines()
    assert lines[-1].startswith("neither present nor predicted, left out of the means: class 2, ")
    assert lines[-1].endswith(", class 13 and 46 more")
    assert len(lines) == 4 + 1 + 1 + 2 + 1 + 1  # a line for each of two classes


def test_a_class_that_is_only_predicted_has_an_iou_but_no_accuracy_in_the_table() -> None:
    text = metrics_table(of([([0, 0], [0, 1])], 2).to_dict())
    assert text.splitlines()[-1].split() == ["class", "1", "0.00", "-", "0.00"]


def test_the_protocol_card_names_all_that_a_comparison_needs() -> None:
    card = protocol_card(
        fingerprint="ab12",
        split="val",
        images=3,
        classes=("sky", "road"),
        pretrained_on="",
        ignored_pixels=17,
    )
    asked = operator.itemgetter(
        "data_fingerprint", "split", "images", "image_size", "ignored_pixels", "classes"
    )
    assert asked(card) == ("ab12", "val", 3, "original", 17, ["sky", "road"])
    assert card["pretrained_on"] == "nothing"
    assert card["trained_on"] == "not stated"
    assert card["test_time_augmentation"] == "none"
    assert "ignore" in card["void"]
    assert "one confusion matrix" in card["metric"]
    assert json.loads(json.dumps(card)) == card


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([], "original"),
        ([(360, 480), (360, 480)], "original, 360 x 480"),
        ([(9, 9), (500, 333), (4, 20)], "original, 3 sizes from 4 x 20 to 500 x 333"),
    ],
)
def test_the_protocol_card_says_the_sizes(sizes: list[tuple[int, int]], said: str) -> None:
    card = protocol_card(
        fingerprint="", split="val", images=3, classes=("sky",), pretrained_on="",
        ignored_pixels=0, trained_on="train (3 images)", sizes=sizes,
    )  # fmt: skip
    assert card["image_size"] == said
    assert card["trained_on"] == "train (3 images)"


def test_the_headline_names_split_and_images_and_a_mean_that_is_not_defined() -> None:
    card = {"split": "val", "images": 7}
    assert headline({"mean_iou": 0.5, "protocol": card}) == "mean IoU 50.0% on val (7 images)"
    nothing = Metrics(("a", "b"), np.zeros((2, 2), dtype=np.int64)).to_dict()
    said = headline({**nothing, "protocol": card})
    assert said == "mean IoU is not defined (no labelled pixel) on val (7 images)"
