"""Exported files predict what the model predicts, in every engine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cards
import numpy as np
import pytest
import torch
from lively import lively
from PIL import Image

import fullconv as fc
from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.data.synthetic import scenes
from fullconv.deploy import export as export_module
from fullconv.deploy.export import export
from fullconv.deploy.export_graph import WRITERS
from fullconv.inference.exported import ExportedModel, load_exported
from fullconv.inference.predictor import Predictor
from fullconv.models.model import Model
from fullconv.network.fcn import FCN

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> Model:
    return lively(stride=16)


@pytest.fixture(scope="module")
def file(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(model, tmp_path_factory.mktemp("onnx")).path


def exact(model: Model) -> Predictor:
    return Predictor(model, device="cpu", precision="float32")


def random_image(size: tuple[int, int] = (50, 71), seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


@torch.no_grad()
def logits_of(model: Model, images: np.ndarray) -> np.ndarray:
    values: np.ndarray = model.network(model.normalize(torch.from_numpy(images))).values.numpy()
    return values


@pytest.mark.parametrize("size", [(1, 1), (17, 90), (33, 65), (64, 64), (101, 75)])
def test_a_file_has_the_logits_and_labels_of_the_model(
    model: Model, file: Path, size: tuple[int, int]
) -> None:
    exported, predictor, image = load_exported(file), exact(model), random_image(size)
    values = logits_of(model, image.transpose(2, 0, 1)[None].copy())[0]
    np.testing.assert_allclose(exported.scores(image), values, atol=1e-4 * abs(values).max())
    assert (exported.label_map(image) == predictor.label_map(image)).mean() > 0.999
    assert len(np.unique(predictor.label_map(random_image((101, 75))))) > 2


def test_a_batch_of_any_number(model: Model, file: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    batch = np.stack([random_image(seed=seed).transpose(2, 0, 1) for seed in range(3)])
    (scores,) = session.run(None, {"images": batch})
    values = logits_of(model, batch)
    np.testing.assert_allclose(scores, values, atol=1e-4 * abs(values).max())


def test_a_file_of_an_older_version_whose_input_has_another_name(
    file: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    network = onnx.load(file)
    for node in network.graph.node:
        node.input[:] = ["pictures" if name == "images" else name for name in node.input]
    network.graph.input[0].name = "pictures"
    onnx.save(network, tmp_path / "old.onnx")
    image = random_image((33, 65))
    old, new = load_exported(tmp_path / "old.onnx"), load_exported(file)
    assert np.array_equal(old.segment(image).mask, new.segment(image).mask)


def test_load_and_evaluate(model: Model, file: Path, scenes: Path) -> None:
    exported = fc.load(file)
    assert isinstance(exported, ExportedModel)
    assert exported.labels.names == model.labels.names
    ours = fc.evaluate(exported, scenes, split="val").to_dict()
    theirs = fc.evaluate(Predictor(model, device="cpu"), scenes, split="val").to_dict()
    assert ours["protocol"] == theirs["protocol"]
    difference = np.abs(np.array(ours["confusion"]) - theirs["confusion"]).sum()
    assert difference <= 0.002 * np.sum(theirs["confusion"])


def test_labels_inside_and_several_heads(tmp_path: Path) -> None:
    model = lively("tiny", 8, head="masks", heads={"order": cards.ORDER})
    exported = load_exported(export(model, tmp_path, with_labels=True).path)
    for size in ((1, 1), (50, 71)):
        image = random_image(size)
        for ours, theirs in zip(
            exported.label_maps(image), exact(model).label_maps(image), strict=True
        ):
            assert ours.shape == size
            assert (ours == theirs).mean() > 0.999
    assert exported.segment(random_image()).heads["order"].labels.names == cards.ORDER.names


def test_extra_inputs(tmp_path: Path) -> None:
    depth_input = ExtraInput("depth", 1, (2000.0,), (700.0,))
    model = lively("tiny", 8, extra_inputs=(depth_input,), fusion="early")
    exported = load_exported(export(model, tmp_path).path)
    depth = np.random.default_rng(0).uniform(500, 4000, (50, 71)).astype(np.float32)
    ours = exported(random_image(), extra_inputs=[depth]).mask
    assert (ours == exact(model)(random_image(), extra_inputs=[depth]).mask).mean() > 0.999
    with pytest.raises(FullconvError, match="takes"):
        exported(random_image())


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_fewer_bits_are_nearly_as_good_and_smaller(
    model: Model, file: Path, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random weights leave less between the classes than trained ones do.
    monkeypatch.setitem(export_module.MAX_DISAGREEMENT, "int8", 0.25)
    images = [scenes.scene(seed, size=(64, 96))[0] for seed in range(4)]
    result = export(model, tmp_path, precision=precision, images=images)
    assert result.disagreement <= export_module.MAX_DISAGREEMENT[precision]
    assert result.bytes < 0.6 * file.stat().st_size
    assert load_exported(result.path).about["precision"] == precision


@pytest.mark.parametrize("format", ["openvino", "torch"])
def test_other_engines(format: str, tmp_path: Path) -> None:
    if format == "openvino":
        pytest.importorskip("openvino")
    model = lively("tiny", 8)
    result = export(model, tmp_path / "out", format=format)
    assert result.disagreement <= 1e-4
    if format == "openvino":
        ours = load_exported(tmp_path / "out").label_map(random_image())
        assert (ours == exact(model).label_map(random_image())).mean() > 0.999


def test_a_file_with_other_labels_is_not_kept(
    model: Model, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict_wrongly(self: ExportedModel, image: np.ndarray, inputs: Any) -> list[np.ndarray]:
        return [np.full(image.shape[:2], 7, np.uint8)]

    def write(graph: Any, path: Path, *about: Any) -> None:
        shutil.copy(file, path)

    monkeypatch.setattr(ExportedModel, "label_maps", predict_wrongly)
    monkeypatch.setitem(WRITERS, "onnx", write)
    with pytest.raises(FullconvError, match="gives other labels than the model at") as caught:
        export(model, tmp_path / "no")
    assert "it was not kept" in caught.value.message
    assert not (tmp_path / "no").exists()


def test_what_cannot_be_exported_says_why(model: Model, tmp_path: Path) -> None:
    network = FCN("resnet10t", 8, stride=32, placement="stretched").eval()
    stretched = Model(network, scenes.LABELS, network.backbone.card)
    int8: dict[str, Any] = {"format": "torch", "precision": "int8"}
    for refused, options, message in (
        (lively(short_side=520), {}, "shorter side of 520 pixels"),
        (stretched, {}, "stretched over each image"),
        (model, {"format": "tflite"}, "format is 'tflite'; expected one of onnx, openvino"),
        (model, int8, "int8 is available for onnx, not for torch"),
    ):
        with pytest.raises(FullconvError, match=message):
            export(refused, tmp_path, **options)
    assert Labels.from_dict(model.config()).names == scenes.LABELS.names
