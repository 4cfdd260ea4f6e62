"""The error analysis against its definitions: masks of single classes, with scipy's distance
transforms, dilations and labels."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from fullconv.evaluation.error_analysis import AREAS, BINS, TOLERANCE, WIDTHS, Quality
from fullconv.evaluation.metrics import confusion_matrix

Triple = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # ground truth, prediction, confidence
IGNORED = 255
CROSS = ndimage.generate_binary_structure(2, 1)


def analyze(triples: list[Triple], count: int) -> Quality:
    quality = Quality([f"class {k}" for k in range(count)])
    for truth, prediction, confidence in triples:
        confusion = confusion_matrix(truth, prediction, count)
        quality.add(truth, prediction, confusion, confidence)
    return quality


def outline(members: np.ndarray) -> np.ndarray:
    """Members with a side neighbor in the image that is none."""
    return members & ~ndimage.binary_erosion(members, CROSS, border_value=1)


def band(truth: np.ndarray, width: int) -> np.ndarray:
    """The band of a width along every edge of the ground truth, ignored pixels included."""
    edge = np.any([outline(truth == k) for k in np.unique(truth)], axis=0)
    if width == 1:
        return edge
    return ndimage.binary_dilation(edge, np.ones((3, 3)), iterations=width - 1)


def band_iou(triples: list[Triple], count: int, width: int) -> float:
    ious = []
    for k in range(count):
        both = either = 0
        for truth, prediction, _ in triples:
            inside = band(truth, width) & (truth < count)
            both += int((inside & (truth == k) & (prediction == k)).sum())
            either += int((inside & ((truth == k) | (prediction == k))).sum())
        if either:
            ious.append(both / either)
    return float(np.mean(ious)) if ious else math.nan


def boundary_f1(truth: np.ndarray, prediction: np.ndarray, count: int) -> dict[int, float]:
    """By class whose edge the ground truth shows: Csurka et al. 2013, section 3."""
    limit = TOLERANCE * math.hypot(*truth.shape)
    scores = {}
    for k in range(count):
        predicted, true = outline(prediction == k), outline(truth == k)
        if not true.any():
            continue
        if not predicted.any():
            scores[k] = 0.0
            continue
        close = ndimage.distance_transform_edt(~true)[predicted] < limit
        counted = close | (truth[predicted] < count)  # ignored pixels are not wrong
        recall = (ndimage.distance_transform_edt(~predicted)[true] < limit).mean()
        precision = close.sum() / max(1, counted.sum())
        total = precision + recall
        scores[k] = 2 * precision * recall / total if total else 0.0
    return scores


def check_definitions(triples: list[Triple], count: int) -> None:
    quality = analyze(triples, count)
    for width, iou in zip(WIDTHS, quality.band_iou, strict=True):
        assert iou == pytest.approx(band_iou(triples, count, width), nan_ok=True), width
    images = [boundary_f1(truth, prediction, count) for truth, prediction, _ in triples]
    means = [float(np.mean(list(scores.values()))) for scores in images if scores]
    expected = float(np.mean(means)) if means else math.nan
    assert quality.boundary_f1 == pytest.approx(expected, nan_ok=True)
    for k in range(count):
        own = [scores[k] for scores in images if k in scores]
        assert quality.class_f1[k] == pytest.approx(np.mean(own) if own else math.nan, nan_ok=True)
    objects = np.zeros((len(AREAS), 4), int)
    for truth, prediction, _ in triples:
        for k in range(count):
            parts, number = ndimage.label(truth == k, CROSS)
            for part in range(1, number + 1):
                size = int((parts == part).sum())
                right = int(((parts == part) & (prediction == k)).sum())
                row = max(i for i, area in enumerate(AREAS) if size >= area)
                objects[row] += (1, 2 * right >= size, size, right)
    assert quality.object_counts.sum(axis=2).tolist() == objects.tolist()


@settings(max_examples=60)
@given(
    st.tuples(st.integers(2, 26), st.integers(2, 26)),
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.sampled_from([1, 3, 6]),
    st.booleans(),
)
def test_the_numbers_are_those_of_the_definitions(
    size: tuple[int, int], seed: int, count: int, grain: int, ignored: bool
) -> None:
    """Blocks of a few pixels, some of them ignored, and a prediction that is mostly right."""
    random = np.random.default_rng(seed)
    triples: list[Triple] = []
    for _ in range(2):
        cells = random.integers(0, count, (size[0] // grain + 1, size[1] // grain + 1))
        truth = cells.repeat(grain, axis=0).repeat(grain, axis=1)[: size[0], : size[1]].copy()
        prediction = np.where(random.random(size) < 0.8, truth, random.integers(0, count, size))
        if ignored:
            truth[random.random(size) < 0.2] = IGNORED
        triples.append((truth, prediction, None))
    check_definitions(triples, count)


@pytest.fixture
def camvid(shared: Path) -> list[Triple]:
    """Ground truth, and as a prediction what is left of it at a quarter of the size, moved by two
    pixels; the first class where it is ignored."""
    paths = sorted((shared / "data/camvid/valannot").glob("*.png"))[::20][:3]
    triples: list[Triple] = []
    for path in paths:
        with Image.open(path) as image:
            truth = np.asarray(image).astype(np.int32)
            small = image.resize((image.width // 4, image.height // 4), Image.Resampling.NEAREST)
            prediction = np.asarray(small.resize(image.size, Image.Resampling.NEAREST))
        prediction = np.roll(np.where(prediction >= 11, 0, prediction), 2, axis=1)
        triples.append((np.where(truth >= 11, IGNORED, truth), prediction, None))
    return triples


def test_the_numbers_are_those_of_the_definitions_on_camvid(camvid: list[Triple]) -> None:
    assert any((truth == IGNORED).any() for truth, _, _ in camvid)
    check_definitions(camvid, 11)
    quality = analyze(camvid, 11)
    assert 0.3 < quality.boundary_f1 < 0.95
    assert quality.band_iou[0] < quality.band_iou[4] < quality.band_iou[-1]


def test_a_perfect_prediction(camvid: list[Triple]) -> None:
    truth = camvid[0][0]
    prediction = np.where(truth == IGNORED, 3, truth)
    quality = analyze([(truth, prediction, np.ones(truth.shape, np.float32))], 11)
    assert (quality.boundary_f1, quality.calibration_error) == (1, 0)
    assert quality.band_iou.tolist() == [1.0] * len(WIDTHS)
    assert set(quality.to_dict()["object_size"]["accuracy"]) - {None} == {1.0}


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (3, 1.0), (4, 0.0)])
def test_an_edge_within_the_tolerance_is_right(shift: int, expected: float) -> None:
    """A straight edge in an image whose diagonal is 500: the tolerance is 3.75 pixels."""
    columns = np.indices((300, 400))[1]
    truth, prediction = (columns >= 200).astype(int), (columns >= 200 + shift).astype(int)
    assert analyze([(truth, prediction, None)], 2).boundary_f1 == expected


def test_edges_on_ignored_pixels_can_be_right_but_not_wrong() -> None:
    """As in PASCAL VOC, an ignored band hides where an object ends."""
    prediction = np.zeros((300, 400), int)
    prediction[100:200, 100:200] = 1
    truth = prediction.copy()
    ring = np.zeros_like(truth, bool)
    ring[97:203, 97:203] = True
    ring[103:197, 103:197] = False
    truth[ring] = IGNORED
    f1 = analyze([(truth, prediction, None)], 2).class_f1[1]
    assert f1 > 0.99  # all but the corners of the band
    truth[:, 300:] = IGNORED
    prediction[10:60, 320:380] = 1  # on ignored pixels
    assert analyze([(truth, prediction, None)], 2).class_f1[1] == f1
    prediction[10:60, 220:280] = 1  # and on labeled ones
    assert analyze([(truth, prediction, None)], 2).class_f1[1] < 0.9


def test_calibration_by_its_definition() -> None:
    random = np.random.default_rng(0)
    triples = []
    for _ in range(3):
        truth, prediction = random.integers(0, 3, (2, 40, 50))
        truth[:5] = IGNORED
        triples.append((truth, prediction, random.random((40, 50), np.float32)))
    quality = analyze(triples, 3)  # type: ignore[arg-type]
    confidence = np.concatenate([c[t != IGNORED] for t, _, c in triples])
    right = np.concatenate([(t == p)[t != IGNORED] for t, p, _ in triples])
    error = 0.0
    for k in range(BINS):
        inside = (confidence >= k / BINS) & (confidence < (k + 1) / BINS)
        error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    facts = quality.to_dict()["calibration"]
    assert quality.calibration_error == facts["expected_error"] == pytest.approx(error, abs=1e-6)
    assert sum(facts["pixels"]) == len(confidence)
    one = np.zeros((2, 2), int)
    quality = analyze([(one, one, np.ones((2, 2), np.float32))], 1)
    assert quality.calibration_counts[:, 0].tolist() == [0] * (BINS - 1) + [4]


def test_the_image_with_the_most_confusion() -> None:
    truth = np.zeros((10, 10), int)
    few, many = truth.copy(), truth.copy()
    few[:1], many[:6] = 1, 1
    quality = analyze([(truth, few, None), (truth, many, None), (truth, truth, None)], 2)
    assert quality.image_iou == pytest.approx([0.45, 0.2, 1.0])
    assert (quality.most_pixels[0, 1], quality.worst_image[0, 1]) == (60, 1)


def test_nothing_labeled_and_only_one_class() -> None:
    ignored, zeros = np.full((6, 7), IGNORED), np.zeros((6, 7), int)
    quality = analyze([(ignored, zeros, None), (zeros, zeros, None)], 1)
    assert quality.image_iou == pytest.approx([math.nan, 1], nan_ok=True)
    facts = quality.to_dict()
    assert facts["boundary"]["f1"] is None
    assert facts["boundary"]["band_iou"] == [None] * len(WIDTHS)
    assert facts["object_size"]["objects"] == [1, 0, 0, 0, 0, 0, 0]
    assert facts["calibration"]["expected_error"] is None
    assert json.loads(json.dumps(facts)) == facts


def test_many_classes() -> None:
    truth = (np.indices((30, 40))[1] // 10 * 99) % 300
    quality = analyze([(truth, truth, None)], 300)
    assert quality.image_f1_sums.tolist() == [1, 1]
    assert quality.object_counts.sum() == 4 + 4 + 2 * 1200
