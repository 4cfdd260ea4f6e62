"""The images of a report are those that they are said to be, and small."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fullconv.data.io.images import read_image
from fullconv.data.io.masks import read_mask
from fullconv.data.synthetic import scenes as drawn
from fullconv.data.synthetic.scenes import LABELS
from fullconv.evaluation.evaluate import evaluate
from fullconv.evaluation.metrics import Metrics, confusion_matrix
from fullconv.evaluation.report.images import head_images, rank_images
from fullconv.evaluation.report.tables import head_tables
from fullconv.inference.predictor import load
from fullconv.visualization import overlay as draw


def test_best_median_and_worst_by_each_images_own_mean_iou(
    model_folder: Path, tmp_path: Path
) -> None:
    scenes = drawn.write(tmp_path, train=2, val=5, test=2, size=(48, 64))
    predictor = load(model_folder, device="cpu", precision="float32")
    result = evaluate(predictor, scenes, split="val")
    assert result.context is not None
    own = {}
    for pair in result.context.dataset.splits["val"]:
        truth = read_mask(pair.mask, result.context.dataset.labels)
        found = predictor.label_map(read_image(pair.image))
        own[pair.name] = Metrics(LABELS.names, confusion_matrix(truth, found, 8)).mean_iou
    order = sorted(own, key=lambda name: -own[name])
    facts = head_tables(result, result.context)
    (images,) = head_images(result.context, facts)
    assert [shown.rank for shown in images.ranked] == ["best", "median", "worst"]
    assert [shown.name for shown in images.ranked] == [order[0], order[2], order[4]]
    assert [shown.mean_iou for shown in images.ranked] == [own[order[k]] for k in (0, 2, 4)]
    best = images.ranked[0]
    pair = next(p for p in result.context.dataset.splits["val"] if p.name == best.name)
    photo, truth, found, errors = (np.asarray(image.convert("RGB")) for image in best.panels)
    assert (photo == read_image(pair.image)).all()
    ids = read_mask(pair.mask, LABELS)
    assert (truth == draw.colorize(ids, LABELS)).all()
    called = predictor.label_map(read_image(pair.image))
    assert (found == draw.colorize(called, LABELS)).all()
    wrong = (errors == draw.WRONG).all(axis=2)
    assert (wrong == ((ids != called) & (ids != 255))).all()
    assert set(images.crops) == set(facts[0].confused)
    assert best.sheet().width > 4 * 200


def test_large_images_are_made_smaller(model_folder: Path, tmp_path: Path) -> None:
    scenes = drawn.write(tmp_path, train=1, val=1, test=1, size=(240, 800))
    result = evaluate(load(model_folder, device="cpu"), scenes, split="val")
    assert result.context is not None
    (images,) = head_images(result.context, head_tables(result, result.context))
    (shown,) = images.ranked
    assert {image.size for image in shown.panels} == {(640, 192)}
    assert sum(len(data_uri(image)) for image in shown.panels) < 400_000


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=12))
def test_ranks_are_of_different_images(image_iou: list[float]) -> None:
    found = rank_images(image_iou)
    known = [iou for iou in image_iou if iou == iou]
    assert len(found) == len(set(found.values())) == min(3, len(known))
    if known:
        assert image_iou[found["best"]] == max(known)
    if len(known) > 1:
        assert image_iou[found["worst"]] == min(known)
    if len(known) > 2:
        assert image_iou[found["median"]] == sorted(known)[(len(known) - 1) // 2]


def test_a_data_uri_holds_the_image() -> None:
    ids = np.indices((20, 30))[1] // 10
    image = Image.fromarray(draw.colorize(ids, LABELS)).quantize(256)
    head, _, content = data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
        assert (np.asarray(opened.convert("RGB")) == draw.colorize(ids, LABELS)).all()
    assert data_uri(image.convert("RGB")).startswith("data:image/jpeg;base64,")
