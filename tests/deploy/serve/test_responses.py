"""Responses contain what the files of `predict` contain."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import photo
from served import pixels

from fullconv.core.labels import Labels
from fullconv.deploy.serve.responses import PredictRequest, encode_response
from fullconv.inference.result_files import output_path
from fullconv.inference.segmentation import Segmentation

LABELS = Labels(("sky", "road", "car"), colors=((0, 0, 255), (90, 90, 90), (255, 0, 0)))
SIZE = (13, 21)


@pytest.fixture
def segmentation() -> Segmentation:
    random = np.random.default_rng(0)
    mask = random.choice(np.array([0, 2, 255], np.uint8), SIZE)
    other = Segmentation(1 - mask % 2, Labels(("dark", "light")), photo(*SIZE))
    return Segmentation(mask, LABELS, photo(*SIZE), heads={"light": other})


@pytest.mark.parametrize("kind", ["mask", "color", "overlay"])
def test_images_are_the_files(segmentation: Segmentation, tmp_path: Path, kind: Any) -> None:
    for number, head in enumerate((segmentation, segmentation.heads["light"])):
        path = output_path(tmp_path / f"{number}", kind)
        head.save(path, kind)
        sent = encode_response(segmentation, None, PredictRequest(kind, head=number), 1.0)
        assert sent.body == path.read_bytes()
        assert sent.media_type == ("image/jpeg" if kind == "overlay" else "image/png")
    assert np.array_equal(pixels(sent.body), segmentation.heads["light"].mask) == (kind == "mask")


def test_json_counts_pixels(segmentation: Segmentation) -> None:
    sent = encode_response(segmentation, None, PredictRequest("json"), 1.23456)
    table = json.loads(sent.body)
    assert sent.media_type == "application/json"
    assert (table["height"], table["width"], table["seconds"]) == (*SIZE, 1.2346)
    for number, area in enumerate(table["classes"]):
        count = int((segmentation.mask == number).sum())
        share = count / (13 * 21)
        expected = {"id": number, "name": LABELS.names[number], "pixels": count, "share": share}
        assert area == expected
    assert len(table["classes"]) == len(LABELS.names)
    assert sum(area["pixels"] for area in table["classes"]) < 13 * 21  # some are ignored
    assert sum(area["pixels"] for area in table["heads"]["light"]) == 13 * 21
    assert not {"ids", "mask", "confidence"} & set(table)


def test_json_carries_images(segmentation: Segmentation) -> None:
    confidence = np.linspace(0, 1, 13 * 21, dtype=np.float32).reshape(SIZE)
    asked = PredictRequest("json", ("ids", "mask", "confidence"))
    table = json.loads(encode_response(segmentation, confidence, asked, 1.0).body)
    sent = {}
    for name in asked.include:
        kind, _, text = table[name].partition(",")
        assert kind == "data:image/png;base64"
        sent[name] = base64.b64decode(text)
    assert np.array_equal(pixels(sent["ids"]), segmentation.mask)
    assert sent["mask"] == encode_response(segmentation, None, PredictRequest("mask"), 1.0).body
    assert np.abs(pixels(sent["confidence"]) - 255 * confidence.astype(np.float64)).max() <= 0.5001


def test_confidence_is_computed_if_it_is_sent() -> None:
    assert PredictRequest("json", ("ids", "confidence")).needs_confidence
    assert not PredictRequest("json", ("ids",)).needs_confidence
    assert not PredictRequest("mask", ("confidence",)).needs_confidence
