"""What every model does with images: options reach the results, in torch and without."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import photo
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.inference.exported import ExportedModel
from fullconv.inference.options import PredictOptions
from fullconv.inference.predictor import Predictor
from fullconv.inference.probabilities import Probabilities
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.segmenter import Segmenter
from fullconv.inference.writers import save_outputs
from fullconv.models.model import Model
from fullconv.network.multi_input import fuse

MakeModel = Callable[..., Model]
WOOD = Labels(("wood", "stone"))


def with_heads(make_model: MakeModel) -> Model:
    made = make_model(("sky", "road", "tree", *WOOD.names))
    labels = Labels(made.labels.names[:3])
    return replace(made, labels=labels, head="things", heads={"materials": WOOD})


@pytest.fixture
def predictor(make_model: MakeModel) -> Predictor:
    return Predictor(make_model(stride=16), device="cpu")


def test_the_confidence_is_the_softmax_of_the_largest_score(predictor: Predictor) -> None:
    image = photo()
    segmentation = predictor(image)
    planes = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        full = predictor.model.network(predictor.model.normalize(planes)).full()[0].double()
    shares = full.softmax(dim=0).numpy()
    assert segmentation.confidence.dtype == np.float32
    np.testing.assert_allclose(segmentation.confidence, shares.max(axis=0), atol=1e-4)
    np.testing.assert_allclose(segmentation.probability, shares, atol=1e-4)
    assert "probabilit" not in repr(segmentation)


def test_the_network_runs_again_only_for_what_was_not_kept(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, run = [], predictor.runtime.scores
    monkeypatch.setattr(predictor.engine, "scores", lambda x: (runs.append(1), run(x))[1])
    segmentation = predictor(photo())
    assert len(runs) == 1
    again = segmentation.confidence
    assert len(runs) == 2
    predictor.set_options(PredictOptions(keep_scores=True))
    kept = predictor(photo())
    assert (kept.confidence == again).all()
    assert kept.probability.shape == (3, 50, 33)
    assert len(runs) == 3
    predictor.set_options(PredictOptions(flip=True, scales=(1.0, 0.5), keep_scores=True))
    assert predictor(photo()).confidence.shape == (50, 33)
    assert len(runs) == 7


def test_labels_and_their_confidence_come_of_one_run(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = predictor(photo())
    sure = plain.confidence
    runs, run = [], predictor.runtime.scores
    monkeypatch.setattr(predictor.engine, "scores", lambda x: (runs.append(1), run(x))[1])
    ((ids, confidence),) = predictor.predict_with_confidence(photo())
    assert len(runs) == 1
    assert (ids == plain.mask).all()
    assert confidence is not None
    assert (confidence == sure).all()
    predictor.set_options(PredictOptions(flip=True))
    ((ids, confidence),) = predictor.predict_with_confidence(photo())
    assert (ids == predictor.label_map(photo())).all()
    assert confidence is not None
    assert (confidence != sure).any()
    monkeypatch.setattr("fullconv.inference.segmenter.LARGEST", 100)
    ((ids, confidence),) = predictor.predict_with_confidence(photo())
    assert confidence is None


def test_a_model_of_labels_alone_has_no_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Red, "labels_only", True)
    ((ids, confidence),) = Red().predict_with_confidence(np.full((2, 3, 3), 200, np.uint8))
    assert confidence is None
    assert ids.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_result_without_a_model() -> None:
    ids = np.zeros((2, 2), np.uint8)
    made = Segmentation(ids, WOOD, np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(FullconvError) as caught:
        made.confidence  # noqa: B018
    assert caught.value.message == "this result was made without a model, and has no probabilities."
    assert caught.value.hint == 'model("photo.jpg").confidence'


def test_unsure_pixels_in_every_result(predictor: Predictor, tmp_path: Path) -> None:
    plain = predictor(photo())
    limit = float(np.median(plain.confidence))
    predictor.set_options(PredictOptions(min_confidence=limit))
    segmentation = predictor(photo())
    low = plain.confidence < np.float32(limit)
    assert 0.3 < low.mean() < 0.7
    assert (segmentation.mask == np.where(low, 255, plain.mask)).all()
    assert (segmentation.unsure == low).all()
    area = segmentation.to_dict()["area"]
    assert area["unsure"] == low.mean()
    assert sum(area.values()) == pytest.approx(1)
    color = np.asarray(segmentation.color())
    (ours,) = np.unique(color[low], axis=0)
    assert tuple(ours) not in predictor.labels.colors
    assert (color[~low] == np.asarray(plain.color())[~low]).all()
    over, before = (np.asarray(one.overlay(legend=False)) for one in (segmentation, plain))
    assert (over[low] != before[low]).any()
    assert segmentation.overlay().height > over.shape[0]
    (mask,) = save_outputs(segmentation, tmp_path / "a", ["mask"])
    with Image.open(mask) as image:
        assert ((np.asarray(image) == 255) == low).all()


def test_a_class_that_is_called_unsure(make_model: MakeModel) -> None:
    predictor = Predictor(make_model(("sky", "road", "unsure")), device="cpu")
    predictor.set_options(PredictOptions(min_confidence=0.5))
    found = predictor(photo())
    assert {"unsure", "unsure (no class)"} < {*found.area}
    assert sum(found.area.values()) == pytest.approx(1)


def test_only_these_classes(predictor: Predictor) -> None:
    plain = predictor(photo())
    predictor.set_options(PredictOptions(classes=("road",)))
    segmentation = predictor(photo())
    assert (segmentation.mask == np.where(plain.mask == 1, 1, 255)).all()
    share = (plain.mask == 1).mean()
    assert segmentation.to_dict()["area"] == {"road": share, "ignore": pytest.approx(1 - share)}
    shapes = segmentation.to_geojson()["features"]
    assert {shape["properties"]["class"] for shape in shapes} == {"road"}
    photographed = np.asarray(segmentation.overlay(legend=False)) == photo()
    assert photographed[plain.mask != 1].all()
    with pytest.raises(FullconvError, match="no class 'rood'; the nearest are road"):
        predictor.set_options(PredictOptions(classes=("rood",)))
    assert predictor.options.classes == ("road",)


def test_every_head_has_its_own(make_model: MakeModel, tmp_path: Path) -> None:
    predictor = Predictor(with_heads(make_model), device="cpu")
    plain = predictor(photo())
    predictor.set_options(
        PredictOptions(classes=("stone",), min_confidence=0.5, min_area=4, keep_scores=True)
    )
    found = predictor(photo())
    materials = found.heads["materials"]
    assert set(np.unique(found.mask)) <= {0, 1, 2, 255}
    assert set(np.unique(materials.mask)) <= {1, 255}
    assert materials.confidence.min() >= 0.5  # of two
    assert (materials.confidence == plain.heads["materials"].confidence).all()
    assert (found.confidence == plain.confidence).all()
    assert found.probability.shape[0] == 3
    assert materials.probability.shape[0] == 2
    kinds = ["probability", "confidence", "polygons", "coco", "json"]
    names = sorted(path.name for path in save_outputs(found, tmp_path / "a", kinds))
    assert names == [
        "a.geojson", "a.json", "a_coco.json", "a_confidence.png", "a_materials.geojson",
        "a_materials_coco.json", "a_materials_confidence.png", "a_materials_probability.npz",
        "a_probability.npz",
    ]  # fmt: skip
    assert json.loads((tmp_path / "a.json").read_text()) == found.to_dict()
    assert json.loads((tmp_path / "a.geojson").read_text()) == found.to_geojson()
    assert json.loads((tmp_path / "a_coco.json").read_text()) == found.to_coco()
    with Image.open(tmp_path / "a_confidence.png") as image:
        assert image.mode == "L"
        assert abs(np.asarray(image) / 255 - found.confidence).max() < 0.002


def test_views_with_further_inputs(make_model: MakeModel) -> None:
    made = make_model()
    depth = ExtraInput("depth", 1, (2000.0,), (700.0,))
    fuse(made.network, [1], "early")
    predictor = Predictor(replace(made, extra_inputs=(depth,), fusion="early"), device="cpu")
    predictor.set_options(PredictOptions(flip=True, scales=(0.5, 1.0)))
    given = np.random.default_rng(0).uniform(500, 4000, (50, 33)).astype(np.float32)
    one = predictor(photo(), extra_inputs=[given]).probability
    other = predictor(photo(), extra_inputs=[np.full_like(given, 2000)]).probability
    assert one.shape == (3, 50, 33)
    assert abs(one - other).max() > 0


def test_scales_of_a_model_that_resizes_and_of_tiles(predictor: Predictor) -> None:
    resizing = Predictor(replace(predictor.model, short_side=64), device="cpu")
    with pytest.raises(FullconvError) as caught:
        resizing.set_options(PredictOptions(scales=(0.5, 1.0)))
    assert "resizes every image to 64 pixels on its shorter side" in caught.value.message
    assert "without --scales" in caught.value.hint
    resizing.set_options(PredictOptions(flip=True))
    assert resizing(photo()).mask.shape == (50, 33)
    tiled = Predictor(predictor.model, device="cpu", tile=64)
    with pytest.raises(FullconvError) as caught:
        tiled.set_options(PredictOptions(scales=(0.5, 1.0)))
    assert "--scales and --tile do not go together" in caught.value.message


OPTIONS = [
    PredictOptions(flip=True),
    PredictOptions(scales=(0.5, 1.0, 1.5)),
    PredictOptions(min_confidence=0.5, classes=("sky", "road")),
    PredictOptions(min_area=30),
]


def deployed(model: Model, *, labels_only: bool = False) -> ExportedModel:
    """As of a file, whose graph is the network itself."""
    place = model.network.backbone.grids[0]
    about = {**model.config(), "labels_only": labels_only}

    def run(planes: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            scores = model.network(model.normalize(torch.from_numpy(planes)))
        if labels_only:
            return [of.labels().numpy() for of in model.split(scores)]
        assert (scores.grid.stride, scores.grid.offset) == (place.stride, place.offset)
        return [scores.values.numpy()]

    return ExportedModel(run, {**about, "grid": [place.stride, place.offset]}, "a.onnx")


def agree(one: Segmentation, other: Segmentation) -> None:
    assert (one.mask == other.mask).mean() > 0.995
    np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-3)
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-3)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_exported_files_do_the_same(make_model: MakeModel, options: PredictOptions) -> None:
    model = with_heads(make_model)
    predictor, file = Predictor(model, device="cpu", precision="float32"), deployed(model)
    for one in (predictor, file):
        one.set_options(options)
    wanted, found = predictor(photo(61, 80)), file(photo(61, 80))
    agree(found, wanted)
    agree(found.heads["materials"], wanted.heads["materials"])


def test_a_file_with_labels_only_has_no_scores(make_model: MakeModel) -> None:
    file = deployed(with_heads(make_model), labels_only=True)
    for options in (
        PredictOptions(flip=True),
        PredictOptions(min_confidence=0.5),
        PredictOptions(keep_scores=True),
    ):
        with pytest.raises(FullconvError) as caught:
            file.set_options(options)
        assert caught.value.message.startswith("a.onnx gives labels and no scores: prob")
        assert caught.value.hint == "fullconv export MODEL --format onnx   # without --with-labels"
    file.set_options(PredictOptions(min_area=30, classes=("road",)))
    found = file(photo())
    assert set(np.unique(found.mask)) <= {1, 255}
    with pytest.raises(FullconvError, match="no scores"):
        found.confidence  # noqa: B018


# Any model at all.


class Red(Segmenter):
    """Class 1 where there is more red than 127; the second head where the input is above 1."""

    def __init__(self, further: bool = False) -> None:
        self.further = further

    labels = Labels(("dark", "red"))  # type: ignore[assignment]
    backbone = pretrained_on = ""  # type: ignore[assignment]
    stride = 1  # type: ignore[assignment]

    @property
    def head(self) -> str:
        return "red" if self.further else ""

    @property
    def heads(self) -> Mapping[str, Labels]:
        return {"far": Labels(("near", "far"))} if self.further else {}

    @property
    def extra_inputs(self) -> tuple[ExtraInput, ...]:
        return (ExtraInput("depth", 1, (0.0,), (1.0,)),) if self.further else ()

    def predict_labels(self, planes: np.ndarray) -> list[np.ndarray]:
        maps = [(planes[..., 0] > 127).astype(np.uint8)]
        return [*maps, (planes[..., 3] > 1).astype(np.uint8)] if self.further else maps

    def read(self, planes: np.ndarray, size: tuple[int, int]) -> Probabilities:
        raise NotImplementedError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos/deep").mkdir(parents=True)
    for name, red in (("a", 200), ("deep/b", 10)):
        Image.new("RGB", (3, 2), (red, 0, 0)).save(tmp_path / f"photos/{name}.png")
    return tmp_path / "photos"


def test_one_several_or_a_folder(folder: Path) -> None:
    model = Red()
    one = model(folder / "a.png")
    assert one.mask.tolist() == [[1, 1, 1]] * 2
    assert one.source == folder / "a.png"
    several = model([folder / "deep/b.png", np.full((1, 4, 3), 255, np.uint8)])
    assert [found.mask.sum() for found in several] == [0, 4]
    assert [found.source and found.source.name for found in model(folder)] == ["a.png", "b.png"]


def test_further_inputs_are_found_by_name_and_heads_come_back(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "depth/deep").mkdir(parents=True)
    for name, far in (("a", 0), ("deep/b", 5)):
        Image.fromarray(np.full((2, 3), far, np.uint8)).save(tmp_path / f"depth/{name}.png")
    found = Red(further=True)(folder, extra_inputs=[tmp_path / "depth"])
    assert [of.heads["far"].mask.max() for of in found] == [0, 1]
    assert [of.mask.max() for of in found] == [1, 0]


def test_what_belongs_to_a_image_is_missing_or_too_much(folder: Path) -> None:
    with pytest.raises(FullconvError, match="takes depth beside each image; nothing was") as one:
        Red(further=True)(folder / "a.png")
    assert "--extra-inputs depth" in one.value.hint
    with pytest.raises(FullconvError, match="takes nothing beside each image; 1 was") as other:
        Red()(folder / "a.png", extra_inputs=["depth.png"])
    assert "model(image)" in other.value.hint
    with pytest.raises(FullconvError, match="of type ndarray have no names to find") as nameless:
        Red(further=True)([np.zeros((2, 3, 3), np.uint8)], extra_inputs=["depth"])
    assert "zip(images, depths)" in nameless.value.hint


def test_what_is_no_image() -> None:
    with pytest.raises(FullconvError, match="something of type int; expected a path") as caught:
        Red()(7)
    assert caught.value.hint == 'model("photo.jpg")'
