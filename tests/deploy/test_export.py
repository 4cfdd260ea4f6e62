"""Exported files: what they give is what the model gives, in every engine, without torch too."""

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
from fullconv.data.synthetic import scenes as drawn
from fullconv.deploy import export as exporting
from fullconv.deploy.export import export
from fullconv.deploy.export_graph import WRITERS
from fullconv.inference.exported import ExportedModel, load_exported
from fullconv.inference.predictor import Predictor
from fullconv.models.model import Model
from fullconv.network.fcn import FCN

pytest.importorskip("onnxruntime")
WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; from fullconv.cli.main import main; main()"
)
ODD = [(1, 1), (17, 90), (33, 65), (64, 64), (101, 75)]


@pytest.fixture(scope="module")
def model() -> Model:
    return lively(stride=16)


@pytest.fixture(scope="module")
def file(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(model, tmp_path_factory.mktemp("onnx")).path


def random_image(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", ODD)
def test_the_file_gives_the_scores_and_labels_of_the_model(
    model: Model, file: Path, size: tuple[int, int]
) -> None:
    found, wanted = load_exported(file), Predictor(model, device="cpu", precision="float32")
    photo = random_image(size)
    planes = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        values = model.network(model.normalize(planes)).values[0].numpy()
    np.testing.assert_allclose(found.scores(photo), values, atol=1e-4 * abs(values).max())
    assert (found.label_map(photo) == wanted.label_map(photo)).mean() > 0.999
    assert len(np.unique(wanted.label_map(random_image((101, 75))))) > 2


def test_a_batch_of_any_number(model: Model, file: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    batch = np.stack([random_image((50, 71), seed).transpose(2, 0, 1) for seed in range(3)])
    (scores,) = session.run(None, {"images": batch})
    with torch.no_grad():
        values = model.network(model.normalize(torch.from_numpy(batch))).values.numpy()
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


def test_the_public_way_in_and_evaluation(model: Model, file: Path, tmp_path: Path) -> None:
    data = drawn.write(tmp_path / "scenes", train=1, val=2, test=0, size=(48, 64))
    found = fc.load(file)
    assert isinstance(found, ExportedModel)
    assert found.labels.names == drawn.LABELS.names
    ours = fc.evaluate(found, data, split="val").to_dict()
    theirs = fc.evaluate(Predictor(model, device="cpu"), data, split="val").to_dict()
    assert ours["protocol"] == theirs["protocol"]
    difference = np.abs(np.array(ours["confusion"]) - theirs["confusion"]).sum()
    assert difference <= 0.002 * np.sum(theirs["confusion"])


def test_labels_inside_and_several_heads(tmp_path: Path) -> None:
    model = lively(head="masks", heads={"order": cards.ORDER})
    found = load_exported(export(model, tmp_path, with_labels=True).path)
    wanted = Predictor(model, device="cpu", precision="float32")
    for size in ((1, 1), (50, 71)):
        for ours, theirs in zip(
            found.label_maps(random_image(size)), wanted.label_maps(random_image(size)), strict=True
        ):
            assert ours.shape == size
            assert (ours == theirs).mean() > 0.999
    assert found.segment(random_image((50, 71))).heads["order"].labels.names == cards.ORDER.names


def test_further_inputs(tmp_path: Path) -> None:
    model = lively(extra_inputs=(ExtraInput("depth", 1, (2000.0,), (700.0,)),), fusion="early")
    found = load_exported(export(model, tmp_path).path)
    depth = np.random.default_rng(0).uniform(500, 4000, (50, 71)).astype(np.float32)
    wanted = Predictor(model, device="cpu", precision="float32")
    ours, theirs = (
        one(random_image((50, 71)), extra_inputs=[depth]).mask for one in (found, wanted)
    )
    assert (ours == theirs).mean() > 0.999
    with pytest.raises(FullconvError, match="takes"):
        found(random_image((50, 71)))


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_fewer_bits_are_nearly_as_good_and_smaller(
    model: Model, file: Path, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random weights leave less between the classes than trained ones do.
    monkeypatch.setitem(exporting.MAX_DISAGREEMENT, "int8", 0.25)
    scenes = [drawn.scene(k, size=(64, 96))[0] for k in range(4)]
    result = export(model, tmp_path, precision=precision, images=scenes)
    assert result.disagreement <= exporting.MAX_DISAGREEMENT[precision]
    assert result.bytes < 0.6 * file.stat().st_size
    assert load_exported(result.path).about["precision"] == precision


@pytest.mark.parametrize("to", ["openvino", "torch"])
def test_other_engines(model: Model, to: str, tmp_path: Path) -> None:
    if to == "openvino":
        pytest.importorskip("openvino")
    result = export(model, tmp_path / "there", format=to)
    assert result.disagreement <= 1e-4
    if to == "openvino":
        photo = random_image((50, 71))
        wanted = Predictor(model, device="cpu", precision="float32").label_map(photo)
        assert (load_exported(tmp_path / "there").label_map(photo) == wanted).mean() > 0.999


def test_a_file_that_gives_other_labels_is_not_kept(
    model: Model, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: ExportedModel, photo: np.ndarray, extra_inputs: Any = ()) -> list[np.ndarray]:
        return [np.full(photo.shape[:2], 7, np.uint8)]

    def written(graph: Any, path: Path, *about: Any) -> None:
        shutil.copy(file, path)

    monkeypatch.setattr(ExportedModel, "label_maps", wrong)
    monkeypatch.setitem(WRITERS, "onnx", written)
    with pytest.raises(FullconvError, match="gives other labels than the model at") as caught:
        export(model, tmp_path / "no")
    assert "it was not kept" in caught.value.message
    assert not (tmp_path / "no").exists()


def test_what_cannot_be_exported_says_why(model: Model, tmp_path: Path) -> None:
    sized = lively(short_side=520)
    with pytest.raises(FullconvError, match="shorter side of 520 pixels"):
        export(sized, tmp_path)
    network = FCN("resnet10t", 8, stride=32, placement="stretched").eval()
    with pytest.raises(FullconvError, match="stretched over each image"):
        export(Model(network, drawn.LABELS, network.backbone.card), tmp_path)
    with pytest.raises(FullconvError, match="format is 'tflite'; expected one of onnx, openvino"):
        export(model, tmp_path, format="tflite")
    with pytest.raises(FullconvError, match="int8 is available for onnx, not for torch"):
        export(model, tmp_path, format="torch", precision="int8")
    assert Labels.from_dict(model.config()).names == drawn.LABELS.names
