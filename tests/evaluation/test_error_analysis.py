"""The error analysis against its definitions: masks of single classes, and scipy's distance
transforms, dilations and labels of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from fullconv.core.concurrency import BackgroundWorker
from fullconv.evaluation.error_analysis import AREAS, BINS, TOLERANCE, WIDTHS, Quality
from fullconv.evaluation.metrics import confusion_matrix

Triple = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # truth, prediction, confidence
VOID = 255
CROSS = ndimage.generate_binary_structure(2, 1)


def counted(triples: list[Triple], count: int) -> Quality:
    quality = Quality([f"class {k}" for k in range(count)])
    for truth, found, confidence in triples:
        quality.add(truth, found, confusion_matrix(truth, found, count), confidence)
    return quality


def outline(members: np.ndarray) -> np.ndarray:
    """Members with a side neighbour in the image that is none."""
    return members & ~ndimage.binary_erosion(members, CROSS, border_value=1)


def within(truth: np.ndarray, width: int) -> np.ndarray:
    """The band of a width along every edge of the truth, ignored pixels included."""
    edge = np.any([outline(truth == k) for k in np.unique(truth)], axis=0)
    if width == 1:
        return edge
    return ndimage.binary_dilation(edge, np.ones((3, 3)), iterations=width - 1)


def iou_in_band(triples: list[Triple], count: int, width: int) -> float:
    ious = []
    for k in range(count):
        both = either = 0
        for truth, found, _ in triples:
            band = within(truth, width) & (truth < count)
            both += int((band & (truth == k) & (found == k)).sum())
            either += int((band & ((truth == k) | (found == k))).sum())
        if either:
            ious.append(both / either)
    return float(np.mean(ious)) if ious else math.nan


def boundary_f1(truth: np.ndarray, found: np.ndarray, count: int) -> dict[int, float]:
    """Of each class whose edge the truth shows: Csurka et al. 2013, section 3."""
    limit = TOLERANCE * math.hypot(*truth.shape)
    scores = {}
    for k in range(count):
        ours, theirs = outline(found == k), outline(truth == k)
        if not theirs.any():
            continue
        if not ours.any():
            scores[k] = 0.0
            continue
        close = ndimage.distance_transform_edt(~theirs)[ours] < limit
        known = close | (truth[ours] < count)  # where nothing is known, nothing is wrong
        caught = ndimage.distance_transform_edt(~ours)[theirs] < limit
        precision, recall = close.sum() / max(1, known.sum()), caught.mean()
        total = precision + recall
        scores[k] = 2 * precision * recall / total if total else 0.0
    return scores


def agrees(triples: list[Triple], count: int) -> None:
    """All numbers are those of the definitions."""
    quality = counted(triples, count)
    for width, iou in zip(WIDTHS, quality.band_iou, strict=True):
        assert iou == pytest.approx(iou_in_band(triples, count, width), nan_ok=True), width
    each = [boundary_f1(truth, found, count) for truth, found, _ in triples]
    means = [float(np.mean(list(scores.values()))) for scores in each if scores]
    expected = float(np.mean(means)) if means else math.nan
    assert quality.boundary_f1 == pytest.approx(expected, nan_ok=True)
    for k in range(count):
        own = [scores[k] for scores in each if k in scores]
        assert quality.class_f1[k] == pytest.approx(np.mean(own) if own else math.nan, nan_ok=True)
    objects = np.zeros((len(AREAS), 4), int)
    for truth, found, _ in triples:
        for k in range(count):
            parts, many = ndimage.label(truth == k, CROSS)
            for part in range(1, many + 1):
                size = int((parts == part).sum())
                right = int(((parts == part) & (found == k)).sum())
                place = max(i for i, area in enumerate(AREAS) if size >= area)
                objects[place] += (1, 2 * right >= size, size, right)
    assert quality.object_counts.sum(axis=2).tolist() == objects.tolist()


maps = st.integers(2, 26).flatmap(
    lambda height: st.tuples(st.just(height), st.integers(2, 26), st.integers(0, 10**6))
)


@settings(max_examples=60)
@given(maps, st.integers(1, 4), st.sampled_from([1, 3, 6]), st.booleans())
def test_the_numbers_are_those_of_the_definitions(
    drawn: tuple[int, int, int], count: int, grain: int, void: bool
) -> None:
    """Blocks of a few pixels, some of them void, and a prediction that agrees with most."""
    height, width, seed = drawn
    random = np.random.default_rng(seed)
    triples: list[Triple] = []
    for _ in range(2):
        cells = random.integers(0, count, (height // grain + 1, width // grain + 1))
        truth = cells.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width].copy()
        other = random.integers(0, count, (height, width))
        found = np.where(random.random((height, width)) < 0.8, truth, other)
        if void:
            truth[random.random((height, width)) < 0.2] = VOID
        triples.append((truth, found, None))
    agrees(triples, count)


def camvid(shared: Path, stems: int) -> list[Triple]:
    """True masks, and as a prediction what is left of them at a quarter of the size, moved by two
    pixels; void where it is the first class's."""
    paths = sorted((shared / "data/camvid/valannot").glob("*.png"))[::20][:stems]
    triples: list[Triple] = []
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            truth = np.asarray(image).astype(np.int32)
            small = image.resize((image.width // 4, image.height // 4), Image.Resampling.NEAREST)
            found = np.asarray(small.resize(image.size, Image.Resampling.NEAREST))
        found = np.roll(np.where(found >= 11, 0, found), 2, axis=1)
        confidence = np.random.default_rng(number).random(truth.shape, np.float32)
        triples.append((np.where(truth >= 11, VOID, truth), found, confidence))
    return triples


def test_the_numbers_are_those_of_the_definitions_on_camvid(shared: Path) -> None:
    triples = camvid(shared, 3)
    assert any((truth == VOID).any() for truth, _, _ in triples)
    agrees(triples, 11)
    quality = counted(triples, 11)
    assert 0.3 < quality.boundary_f1 < 0.95
    assert quality.band_iou[0] < quality.band_iou[4] < quality.band_iou[-1]


def test_a_perfect_prediction_is_perfect_everywhere(shared: Path) -> None:
    (truth, _, _), *_ = camvid(shared, 1)
    found = np.where(truth == VOID, 3, truth)
    quality = counted([(truth, found, np.ones(truth.shape, np.float32))], 11)
    assert quality.boundary_f1 == 1
    assert quality.band_iou.tolist() == [1.0] * len(WIDTHS)
    assert quality.calibration_error == 0
    facts = quality.to_dict()
    assert {share for share in facts["object_size"]["accuracy"] if share is not None} == {1.0}


@pytest.mark.parametrize(("moved", "expected"), [(0, 1.0), (3, 1.0), (4, 0.0)])
def test_an_edge_within_the_tolerance_is_right(moved: int, expected: float) -> None:
    """A straight edge in an image whose diagonal is 500: the tolerance is 3.75 pixels."""
    truth = np.zeros((300, 400), int)
    truth[:, 200:] = 1
    found = np.roll(truth, moved, axis=1)
    found[:, : 200 + moved], found[:, 200 + moved :] = 0, 1
    assert counted([(truth, found, None)], 2).boundary_f1 == expected


def test_what_is_predicted_on_void_can_be_right_but_not_wrong() -> None:
    """As in PASCAL VOC, a band of void hides where an object ends."""
    truth = np.zeros((300, 400), int)
    truth[100:200, 100:200] = 1
    ring = np.zeros_like(truth, bool)
    ring[97:203, 97:203] = True
    ring[103:197, 103:197] = False
    truth[ring] = VOID
    found = np.zeros_like(truth)
    found[100:200, 100:200] = 1
    clean = counted([(truth, found, None)], 2).class_f1[1]
    assert clean > 0.99  # all but the corners of the band
    far = truth.copy()
    far[:, 300:] = VOID
    wrong = found.copy()
    wrong[10:60, 320:380] = 1  # all of it on void
    assert counted([(far, wrong, None)], 2).class_f1[1] == clean
    wrong[10:60, 220:280] = 1  # and now not
    assert counted([(far, wrong, None)], 2).class_f1[1] < 0.9


def test_calibration_by_its_definition() -> None:
    random = np.random.default_rng(0)
    triples: list[Triple] = []
    for _ in range(3):
        truth, found = random.integers(0, 3, (2, 40, 50))
        truth[:5] = VOID
        triples.append((truth, found, random.random((40, 50), np.float32)))
    quality = counted(triples, 3)
    scored = [(t != VOID, t, f, c) for t, f, c in triples]
    sure = np.concatenate([c[s] for s, _, _, c in scored if c is not None])
    right = np.concatenate([(t == f)[s] for s, t, f, _ in scored])
    error = 0.0
    for k in range(BINS):
        inside = (sure >= k / BINS) & (sure < (k + 1) / BINS)
        error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert quality.calibration_error == pytest.approx(error, abs=1e-6)
    facts = quality.to_dict()["calibration"]
    assert sum(facts["pixels"]) == len(sure)
    assert facts["expected_error"] == pytest.approx(error, abs=1e-6)


def test_a_probability_of_one_belongs_to_the_last_bin() -> None:
    one = np.zeros((2, 2), int)
    quality = counted([(one, one, np.ones((2, 2), np.float32))], 1)
    assert quality.to_dict()["calibration"]["pixels"] == [0] * (BINS - 1) + [4]


def test_each_image_counts_and_the_one_with_the_most_confusion_is_known() -> None:
    truth = np.zeros((10, 10), int)
    some, many = truth.copy(), truth.copy()
    some[:1], many[:6] = 1, 1
    quality = counted([(truth, some, None), (truth, many, None), (truth, truth, None)], 2)
    assert quality.image_iou == pytest.approx([0.45, 0.2, 1.0])
    assert (quality.most_pixels[0, 1], quality.worst_image[0, 1]) == (60, 1)


def test_nothing_labelled_and_nothing_but_one_class() -> None:
    void, full = np.full((6, 7), VOID), np.zeros((6, 7), int)
    quality = counted([(void, full, None), (full, full, None)], 1)
    assert math.isnan(quality.image_iou[0])
    assert quality.image_iou[1] == 1
    assert math.isnan(quality.boundary_f1)
    facts = quality.to_dict()
    assert facts["boundary"]["band_iou"] == [None] * len(WIDTHS)
    assert facts["object_size"]["objects"] == [1, 0, 0, 0, 0, 0, 0]
    assert facts["calibration"]["expected_error"] is None
    assert json.loads(json.dumps(facts)) == facts
    nothing: dict[str, Any] = counted([(void, full, None)], 1).to_dict()
    assert nothing["boundary"]["f1"] is None


@pytest.mark.parametrize("count", [1, 300])
def test_any_number_of_classes(count: int) -> None:
    truth = (np.indices((30, 40))[1] // 10 * 99) % count
    quality = counted([(truth, truth, None)], count)
    assert quality.image_f1_sums.tolist() == ([1, 1] if count > 1 else [0, 0])
    assert quality.object_counts.sum() == (1 + 1 + 2 * 1200 if count == 1 else 4 + 4 + 2 * 1200)


def test_counting_behind_is_in_order_and_its_errors_are_seen() -> None:
    behind, counted_so_far = BackgroundWorker(), []
    for number in range(50):
        behind(counted_so_far.append, number)
    behind.wait()
    assert counted_so_far == list(range(50))
    quality = Quality(["a"])
    behind(quality.add, np.zeros((3, 3), int), np.zeros((4, 4), int), np.ones((1, 1), int))
    with pytest.raises(ValueError, match="broadcast"):
        behind.wait()
