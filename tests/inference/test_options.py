"""Prediction options: how classes, confidence and area change a mask."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fullconv.core.labels import Labels
from fullconv.inference.options import PredictOptions, parse_scales

LABELS = Labels(("sky", "road", "sidewalk", "car"))
IDS = arrays(np.uint8, (6, 7), elements=st.integers(0, 3))
CONFIDENCE = arrays(np.float32, (6, 7), elements=st.sampled_from([0.25, 0.5, 0.599, 0.6, 1.0]))


def test_scales_as_they_are_typed() -> None:
    assert parse_scales("0.75,1, 1.25") == (0.75, 1.0, 1.25)
    assert parse_scales("") == (1.0,)


def test_the_description_names_the_views() -> None:
    assert PredictOptions().describe() == PredictOptions(scales=(1.0,)).describe() == "none"
    assert PredictOptions(True).describe() == "flip"
    assert PredictOptions(True, (0.75, 1)).describe() == "flip, scales 0.75 1"
    assert not PredictOptions(min_confidence=0.5).averaged


@given(IDS, CONFIDENCE)
def test_classes_and_confidence_act_pixel_by_pixel(ids: np.ndarray, confidence: np.ndarray) -> None:
    options = PredictOptions(classes=("road", "car"), min_confidence=0.6)
    result, unsure = options.apply(ids, LABELS, confidence)
    assert unsure is not None
    for pixel, class_id in np.ndenumerate(ids):
        is_chosen = class_id in (1, 3)
        is_low = is_chosen and float(confidence[pixel]) < 0.599999
        assert unsure[pixel] == is_low
        assert result[pixel] == (class_id if is_chosen and not is_low else 255)
    assert result.dtype == np.uint8


def test_a_head_without_these_classes_stays() -> None:
    ids = np.eye(3, dtype=np.uint8)
    result, unsure = PredictOptions(classes=("wood",)).apply(ids, LABELS)
    assert (result == ids).all()
    assert unsure is None
    PredictOptions(classes=("road", "wood")).require_classes([LABELS, Labels(("wood",))])


def test_small_regions_are_removed_last() -> None:
    """A car of one pixel in a road, next to classes that are not chosen."""
    ids = np.ones((5, 9), np.uint8)
    ids[2, 2] = 3
    ids[:, 6:] = 0
    confidence = np.ones(ids.shape, np.float32)
    confidence[0, 0] = confidence[3:, 3:5] = 0.1
    options = PredictOptions(classes=("road",), min_confidence=0.5, min_area=3)
    result, unsure = options.apply(ids, LABELS, confidence)
    assert unsure is not None
    assert (result[:, :3] == 1).all()  # also at the single unsure pixel
    assert unsure.sum() == 4
    assert (result[3:, 3:5] == 255).all()
    assert (result[:, 6:] == 255).all()
    assert not unsure[:, 6:].any()
