"""Options: what is refused, and what becomes of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.inference.options import PredictOptions, parse_scales

LABELS = Labels(("sky", "road", "sidewalk", "car"))


@pytest.mark.parametrize(
    ("wrong", "said", "hint"),
    [
        ({"scales": (1.0, 0.0)}, "the scale 0; expected factors from 0.1 to 8.", "--scales 0.75,1"),
        ({"scales": (9.0,)}, "the scale 9; expected", "--scales"),
        ({"scales": (float("nan"),)}, "the scale nan; expected", "--scales"),
        ({"scales": ()}, "no scale; expected factors", "--scales"),
        (
            {"unsure": 0.0},
            "a probability of 0; expected a fraction between 0 and 1",
            "--min-confidence",
        ),
        ({"unsure": 60.0}, "a probability of 60; expected a fraction", "--min-confidence 0.6"),
        ({"min_area": -1}, "a smallest area of -1 pixels; expected 0 or more", "--min-area 64"),
        ({"every": 0}, "every 0 frames; expected 1 or more", "--frame-step 5"),
    ],
)
def test_what_makes_no_sense(wrong: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        PredictOptions(**wrong)
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_a_class_that_there_is_not() -> None:
    with pytest.raises(FullconvError) as caught:
        PredictOptions(classes=("road", "sidewalks")).require_classes([LABELS, Labels(("wood",))])
    assert caught.value.message == "the model has no class 'sidewalks'; the nearest are sidewalk."
    assert caught.value.hint == "--classes sidewalk"
    with pytest.raises(FullconvError) as caught:
        PredictOptions(classes=("zzz",)).require_classes([LABELS, Labels(("wood",))])
    assert "no class 'zzz'; it has sky, road, sidewalk, car, wood." in caught.value.message
    PredictOptions(classes=("road", "wood")).require_classes([LABELS, Labels(("wood",))])


def test_what_windows_cannot() -> None:
    asked = PredictOptions(True, (0.5, 1), ("road",), 0.5, 9)
    with pytest.raises(FullconvError) as caught:
        asked.require_windows(Path("a.tif"))
    assert caught.value.message == (
        "a.tif is read in windows, where there is no --flip and no --scales and no --classes and "
        "no --min-confidence and no --min-area."
    )
    assert "PNG" in caught.value.hint
    PredictOptions(keep_scores=True).require_windows(Path("a.tif"))


def test_lists_as_they_are_typed() -> None:
    assert parse_scales("0.75,1, 1.25") == (0.75, 1.0, 1.25)
    assert parse_scales("") == (1.0,)
    with pytest.raises(FullconvError) as caught:
        parse_scales("0.75;1")
    assert caught.value.message == "scales '0.75;1'; expected numbers with commas between."


def test_the_views_in_words() -> None:
    assert PredictOptions().describe() == PredictOptions(scales=(1.0,)).describe() == "none"
    assert PredictOptions(True).describe() == "flip"
    assert PredictOptions(True, (0.75, 1)).describe() == "flip, scales 0.75 1"
    assert not PredictOptions(min_confidence=0.5).averaged
    assert PredictOptions(scales=(0.5,)).averaged


IDS = arrays(np.uint8, (6, 7), elements=st.integers(0, 3))
SURE = arrays(np.float32, (6, 7), elements=st.sampled_from([0.25, 0.5, 0.599, 0.6, 0.75, 1.0]))


@given(IDS, SURE)
def test_classes_and_the_unsure_pixel_by_pixel(ids: np.ndarray, sure: np.ndarray) -> None:
    found, unsure = PredictOptions(classes=("road", "car"), min_confidence=0.6).apply(
        ids, LABELS, sure
    )
    assert unsure is not None
    for place, before in np.ndenumerate(ids):
        wanted = before in (1, 3)
        low = wanted and float(sure[place]) < 0.599999
        assert unsure[place] == low
        assert found[place] == (before if wanted and not low else 255)
    assert found.dtype == np.uint8


def test_a_head_without_these_classes_stays() -> None:
    ids = np.eye(3, dtype=np.uint8)
    found, unsure = PredictOptions(classes=("wood",)).apply(ids, LABELS)
    assert (found == ids).all()
    assert unsure is None


def test_small_regions_go_last() -> None:
    """Of what is left: a car of one pixel in a road, among classes that were not asked for."""
    ids = np.ones((5, 9), np.uint8)
    ids[2, 2] = 3
    ids[:, 6:] = 0
    sure = np.ones(ids.shape, np.float32)
    sure[0, 0] = 0.1
    sure[3:, 3:5] = 0.1
    options = PredictOptions(classes=("road",), min_confidence=0.5, min_area=3)
    found, unsure = options.apply(ids, LABELS, sure)
    assert unsure is not None
    assert (found[:, :3] == 1).all()  # also where one pixel was unsure
    assert unsure.sum() == 4
    assert (found[3:, 3:5] == 255).all()
    assert (found[:, 6:] == 255).all()
    assert not unsure[:, 6:].any()
