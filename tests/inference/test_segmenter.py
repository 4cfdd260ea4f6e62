"""Options, heads and extra inputs, of PyTorch models and exported models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import photo, written
from PIL import Image
from segmenters import RedSegmenter, exported_model, two_heads

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.inference.exported import ExportedModel, is_exported
from fullconv.inference.options import PredictOptions
from fullconv.inference.predictor import Predictor
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.writers import save_outputs
from fullconv.models.model import Model
from fullconv.network.multi_input import fuse

MakeModel = Callable[..., Model]


@pytest.fixture
def predictor(make_model: MakeModel) -> Predictor:
    return Predictor(make_model(stride=16), device="cpu")


@pytest.fixture
def runs(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with each run of the network."""
    runs: list[int] = []
    run = predictor.runtime.scores
    monkeypatch.setattr(predictor.runtime, "scores", lambda x: (runs.append(1), run(x))[1])
    return runs


def test_confidence_is_the_softmax_of_the_largest_logit(predictor: Predictor) -> None:
    segmentation = predictor(photo())
    pixels = torch.from_numpy(photo().copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = predictor.model.network(predictor.model.normalize(pixels)).full()[0].double()
    shares = logits.softmax(dim=0).numpy()
    assert segmentation.confidence.dtype == np.float32
    np.testing.assert_allclose(segmentation.confidence, shares.max(axis=0), atol=1e-4)
    np.testing.assert_allclose(segmentation.probability, shares, atol=1e-4)
    assert "probabilit" not in repr(segmentation)


def test_the_network_runs_again_only_for_scores_that_were_not_kept(
    predictor: Predictor, runs: list[int]
) -> None:
    confidence = predictor(photo()).confidence
    assert len(runs) == 2
    predictor.set_options(PredictOptions(keep_scores=True))
    kept = predictor(photo())
    assert (kept.confidence == confidence).all()
    assert kept.probability.shape == (3, 50, 33)
    assert len(runs) == 3
    predictor.set_options(PredictOptions(flip=True, scales=(1.0, 0.5), keep_scores=True))
    assert predictor(photo()).confidence.shape == (50, 33)
    assert len(runs) == 7


def test_labels_and_confidence_come_from_one_run(
    predictor: Predictor, runs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = predictor(photo())
    expected = plain.confidence
    runs.clear()
    ((ids, confidence),) = predictor.predict_with_confidence(photo())
    assert len(runs) == 1
    assert confidence is not None
    assert (ids == plain.mask).all()
    assert (confidence == expected).all()
    predictor.set_options(PredictOptions(flip=True))
    ((ids, confidence),) = predictor.predict_with_confidence(photo())
    assert confidence is not None
    assert (ids == predictor.label_map(photo())).all()
    assert (confidence != expected).any()
    monkeypatch.setattr("fullconv.inference.segmenter.MAX_VIEW_PIXELS", 100)
    assert predictor.predict_with_confidence(photo())[0][1] is None


def test_unsure_pixels_in_every_result(predictor: Predictor, tmp_path: Path) -> None:
    plain = predictor(photo())
    limit = float(np.median(plain.confidence))
    predictor.set_options(PredictOptions(min_confidence=limit))
    segmentation = predictor(photo())
    unsure = plain.confidence < np.float32(limit)
    assert 0.3 < unsure.mean() < 0.7
    assert (segmentation.mask == np.where(unsure, 255, plain.mask)).all()
    assert (segmentation.unsure == unsure).all()
    area = segmentation.to_dict()["area"]
    assert area["unsure"] == unsure.mean()
    assert sum(area.values()) == pytest.approx(1)
    color = np.asarray(segmentation.color())
    (own_color,) = np.unique(color[unsure], axis=0)
    assert tuple(own_color) not in predictor.labels.colors
    assert (color[~unsure] == np.asarray(plain.color())[~unsure]).all()
    overlay, before = (np.asarray(s.overlay(legend=False)) for s in (segmentation, plain))
    assert (overlay[unsure] != before[unsure]).any()
    assert segmentation.overlay().height > overlay.shape[0]
    (mask,) = save_outputs(segmentation, tmp_path / "a", ["mask"])
    with Image.open(mask) as image:
        assert ((np.asarray(image) == 255) == unsure).all()


def test_a_class_that_is_called_unsure(make_model: MakeModel) -> None:
    predictor = Predictor(make_model(("sky", "road", "unsure")), device="cpu")
    predictor.set_options(PredictOptions(min_confidence=0.5))
    area = predictor(photo()).area
    assert {"unsure", "unsure (no class)"} < {*area}
    assert sum(area.values()) == pytest.approx(1)


def test_chosen_classes_in_every_result(predictor: Predictor) -> None:
    plain = predictor(photo())
    predictor.set_options(PredictOptions(classes=("road",)))
    segmentation = predictor(photo())
    assert (segmentation.mask == np.where(plain.mask == 1, 1, 255)).all()
    share = (plain.mask == 1).mean()
    assert segmentation.to_dict()["area"] == {"road": share, "ignore": pytest.approx(1 - share)}
    features = segmentation.to_geojson()["features"]
    assert {feature["properties"]["class"] for feature in features} == {"road"}
    unchanged = np.asarray(segmentation.overlay(legend=False)) == photo()
    assert unchanged[plain.mask != 1].all()
    with pytest.raises(FullconvError):
        predictor.set_options(PredictOptions(classes=("rood",)))
    assert predictor.options.classes == ("road",)  # refused options change nothing


def test_options_apply_to_each_head(make_model: MakeModel, tmp_path: Path) -> None:
    predictor = Predictor(two_heads(make_model), device="cpu")
    plain = predictor(photo())
    predictor.set_options(
        PredictOptions(classes=("stone",), min_confidence=0.5, min_area=4, keep_scores=True)
    )
    segmentation = predictor(photo())
    materials = segmentation.heads["materials"]
    assert set(np.unique(segmentation.mask)) <= {0, 1, 2, 255}
    assert set(np.unique(materials.mask)) <= {1, 255}
    assert (materials.confidence == plain.heads["materials"].confidence).all()
    assert (segmentation.confidence == plain.confidence).all()
    assert (segmentation.probability.shape[0], materials.probability.shape[0]) == (3, 2)
    kinds = ["probability", "confidence", "polygons", "coco", "json"]
    names = sorted(path.name for path in save_outputs(segmentation, tmp_path / "a", kinds))
    assert names == [
        "a.geojson", "a.json", "a_coco.json", "a_confidence.png", "a_materials.geojson",
        "a_materials_coco.json", "a_materials_confidence.png", "a_materials_probability.npz",
        "a_probability.npz",
    ]  # fmt: skip
    tables = {
        "a.json": segmentation.to_dict(),
        "a.geojson": segmentation.to_geojson(),
        "a_coco.json": segmentation.to_coco(),
    }
    for name, table in tables.items():
        assert json.loads((tmp_path / name).read_text()) == table
    with Image.open(tmp_path / "a_confidence.png") as image:
        assert image.mode == "L"
        assert abs(np.asarray(image) / 255 - segmentation.confidence).max() < 0.002


def test_augmentation_with_extra_inputs(make_model: MakeModel) -> None:
    model = make_model()
    depth = ExtraInput("depth", 1, (2000.0,), (700.0,))
    fuse(model.network, [1], "early")
    predictor = Predictor(replace(model, extra_inputs=(depth,), fusion="early"), device="cpu")
    predictor.set_options(PredictOptions(flip=True, scales=(0.5, 1.0)))
    values = np.random.default_rng(0).uniform(500, 4000, (50, 33)).astype(np.float32)
    probability = predictor(photo(), extra_inputs=[values]).probability
    other = predictor(photo(), extra_inputs=[np.full_like(values, 2000)]).probability
    assert probability.shape == (3, 50, 33)
    assert abs(probability - other).max() > 0


@pytest.mark.parametrize(
    "options",
    [
        PredictOptions(flip=True),
        PredictOptions(scales=(0.5, 1.0, 1.5)),
        PredictOptions(min_confidence=0.5, classes=("sky", "road")),
        PredictOptions(min_area=30),
    ],
    ids=str,
)
def test_exported_models_do_the_same(make_model: MakeModel, options: PredictOptions) -> None:
    model = two_heads(make_model)
    results: list[Segmentation] = []
    for segmenter in (Predictor(model, device="cpu", precision="float32"), exported_model(model)):
        segmenter.set_options(options)
        results.append(segmenter(photo(61, 80)))
    heads = [result.heads["materials"] for result in results]
    for expected, actual in (results, heads):
        assert (actual.mask == expected.mask).mean() > 0.995
        np.testing.assert_allclose(actual.confidence, expected.confidence, atol=1e-3)
        np.testing.assert_allclose(actual.probability, expected.probability, atol=1e-3)


def test_an_exported_model_without_logits(make_model: MakeModel) -> None:
    model = exported_model(two_heads(make_model), labels_only=True)
    model.set_options(PredictOptions(min_area=30, classes=("road",)))
    assert set(np.unique(model(photo()).mask)) <= {1, 255}
    assert [confidence for _, confidence in model.predict_with_confidence(photo())] == [None, None]


@pytest.mark.parametrize(("count", "dtype"), [(2, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_ids_of_an_exported_model_have_the_smallest_dtype(count: int, dtype: type) -> None:
    ids = np.arange(6, dtype=np.int32).reshape(1, 2, 3) * (count - 1) // 5
    labels = Labels(tuple(f"class {k}" for k in range(count)), ignore_index=65535)
    about = {**labels.to_dict(), "grid": [1, 0], "labels_inside": True}
    mask = ExportedModel(lambda _: [ids], about, "a.xml").label_map(np.zeros((2, 3, 3), np.uint8))
    assert mask.dtype == dtype
    assert np.array_equal(mask, ids[0])


def test_names_of_exported_models(tmp_path: Path) -> None:
    (tmp_path / "ov").mkdir()
    assert not is_exported(tmp_path / "ov")
    (tmp_path / "ov/model.xml").touch()
    assert is_exported(tmp_path / "ov")
    assert is_exported("a/model.onnx")
    assert not is_exported("runs/model")


def test_an_image_a_list_and_a_folder(tmp_path: Path) -> None:
    photos, depth = tmp_path / "photos", tmp_path / "depth"
    for name, red, far in (("a", 200, 0), ("deep/b", 10, 5)):
        written(photos / f"{name}.png", np.full((2, 3, 3), (red, 0, 0), np.uint8))
        written(depth / f"{name}.png", np.full((2, 3), far, np.uint8))
    model = RedSegmenter()
    result = model(photos / "a.png")
    assert result.mask.tolist() == [[1, 1, 1]] * 2
    assert result.source == photos / "a.png"
    results = model([photos / "deep/b.png", np.full((1, 4, 3), 255, np.uint8)])
    assert [result.mask.sum() for result in results] == [0, 4]
    assert [result.source.name for result in model(photos)] == ["a.png", "b.png"]
    with_depth = RedSegmenter(depth=True)(photos, extra_inputs=[depth])
    assert [result.heads["far"].mask.max() for result in with_depth] == [0, 1]
    assert [result.mask.max() for result in with_depth] == [1, 0]
