"""Every mistake that prediction refuses: the message, and the hint below it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from photos import photo
from segmenters import RedSegmenter, exported_model, two_heads

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.inference import probabilities
from fullconv.inference.exported import ExportedModel, load_exported
from fullconv.inference.options import PredictOptions, parse_scales
from fullconv.inference.predictor import Predictor, choose_device
from fullconv.inference.probabilities import Probabilities, rescale
from fullconv.inference.runtime import Runtime
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.segmenter import as_array
from fullconv.inference.sharding import current_shard
from fullconv.inference.writers import save_outputs
from fullconv.models.model import Model

Options = PredictOptions
TABLES = [Labels(("sky", "road", "sidewalk")), Labels(("wood",))]
ALL = Options(True, (0.5, 1), ("road",), 0.5, 9)
SLURM = {"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_LOCALID": "1"}
RESULT = Segmentation(np.zeros((2, 2), np.uint8), TABLES[0], np.zeros((2, 2, 3), np.uint8))
LABELS_ONLY = exported_model(labels_only=True)
PIXELS = np.zeros((2, 3, 3), np.uint8)


class NanProbabilities(Probabilities):
    size, counts = (2, 2), (3,)

    def rows(self, head: int, start: int, stop: int) -> np.ndarray:
        return np.full((3, stop - start, 2), np.nan, np.float32)


def failing_model() -> ExportedModel:
    def run(channels: np.ndarray) -> list[np.ndarray]:
        raise RuntimeError("Check 'cmp::le' failed\nand more")

    about = {**Labels(("a", "b")).to_dict(), "grid": [1, 0], "labels_inside": False}
    return ExportedModel(run, about, "model.xml")


CASES: list[tuple[Callable[[], Any], str, str]] = [
    # Options
    (lambda: Options(scales=(1.0, 0.0)), "scales '1 0'; expected factors from 0.1 to 8",
     "--scales"),
    (lambda: Options(scales=(9.0,)), "scales '9'; expected", "--scales"),
    (lambda: Options(scales=(float("nan"),)), "scales 'nan'", "--scales"),
    (lambda: Options(scales=()), "scales ''", "--scales"),
    (lambda: Options(min_confidence=0.0), "a minimum confidence of 0; expected a fraction", "0.6"),
    (lambda: Options(min_confidence=60.0), "a minimum confidence of 60", "--min-confidence"),
    (lambda: Options(min_area=-1), "a minimum area of -1 pixels; expected 0 or more", "64"),
    (lambda: Options(frame_step=0), "a step of 0 frames; expected 1 or more", "--frame-step 5"),
    (lambda: parse_scales("0.75;1"), "scales '0.75;1'; expected comma-separated numbers", "0.75,1"),
    (lambda: Options(classes=("road", "sidewalks")).require_classes(TABLES),
     "the model has no class 'sidewalks'; the nearest are sidewalk.", "--classes sidewalk"),
    (lambda: Options(classes=("zzz",)).require_classes(TABLES),
     "no class 'zzz'; it has sky, road, sidewalk, wood.", "--classes sky"),
    (lambda: ALL.require_windows(Path("a.tif")),
     "a.tif is read in windows, which does not support --flip, --scales, --classes, "
     "--min-confidence, --min-area.", "PNG"),
    # Images
    (lambda: as_array(None), "an object of type NoneType is not an image; expected a path",
     "photo"),
    (lambda: as_array([[1]]), "an object of type list", "photo.jpg"),
    (lambda: RedSegmenter()(7), "an object of type int", "photo.jpg"),
    (lambda: as_array(np.zeros((4, 5, 3))), "float64", "* 255"),
    (lambda: as_array(np.zeros((3, 4, 5), np.uint8)), "channels", "transpose(1, 2, 0)"),
    (lambda: as_array(np.zeros((0, 5, 3), np.uint8)), "at least one pixel", ""),
    (lambda: as_array(torch.zeros(1, 3, 4, 5)), "(1, 3, 4, 5) is not an image", "list(images)"),
    (lambda: as_array(torch.zeros(9, 5, 3)), "a tensor (9, 5, 3) is not an image", "permute(2, 0"),
    (lambda: as_array(torch.zeros(4, 5)), "a tensor (4, 5) is not an image", "photo.jpg"),
    (lambda: as_array(torch.zeros(3, 0, 5)), "with at least one pixel", "photo.jpg"),
    (lambda: as_array(torch.full((3, 4, 5), 255.0)), "from 255 to 255; expected 0 to 1", "/ 255"),
    (lambda: as_array(torch.full((3, 4, 5), -2.0)), "from -2 to -2; expected 0 to 1", "/ 255"),
    (lambda: as_array(torch.full((3, 4, 5), float("nan"))), "values from nan to nan", "/ 255"),
    (lambda: as_array(torch.zeros(3, 4, 5, dtype=torch.int64)), "int64", ""),
    (lambda: as_array("gone.jpg"), "gone.jpg", ""),
    (lambda: as_array("."), "folder", ""),
    # Extra inputs
    (lambda: RedSegmenter(depth=True)(PIXELS),
     "the model takes depth with each image; 0 extra inputs were given", "--extra-inputs depth"),
    (lambda: RedSegmenter()(PIXELS, extra_inputs=["depth.png"]),
     "the model takes images only; 1 extra input was given", "model(image)"),
    (lambda: RedSegmenter(depth=True)([PIXELS], extra_inputs=["depth"]),
     "an image of type ndarray has no file name", "zip(images, depths)"),
    # Results
    (lambda: RESULT.confidence, "made without a model", 'model("photo.jpg").confidence'),
    (lambda: save_outputs(RESULT, Path("a"), ["heatmap"]),
     "no output type 'heatmap'; there are mask, color, overlay, confidence, probability, "
     "polygons, coco, json.", "--save mask,overlay"),
    (lambda: NanProbabilities().labels(0), "NaN", ""),
    (lambda: NanProbabilities().confidence(0), "NaN", ""),
    (lambda: rescale(np.zeros((9, 8, 3), np.uint8), 1.5),
     "an image of 9 x 8 pixels (height x width) at scale 1.5", "--scales 1"),
    # Exported models
    (lambda: LABELS_ONLY.set_options(Options(flip=True)), "returns labels only", "--with-labels"),
    (lambda: LABELS_ONLY.set_options(Options(min_confidence=0.5)), "labels only", ""),
    (lambda: LABELS_ONLY.set_options(Options(keep_scores=True)), "labels only", ""),
    (lambda: LABELS_ONLY(photo()).confidence, "a.onnx returns labels only, so no", "--format onnx"),
    (lambda: failing_model().label_map(PIXELS),
     "model.xml failed on an image of 3 x 2 pixels: Check 'cmp::le' failed.",
     "the model that was exported"),
    (lambda: load_exported("gone.onnx"), "no exported model at gone.onnx", "--format onnx"),
    (lambda: load_exported("a.onnx", tile=64), "does not support tiles", "--tile 1024"),
    (lambda: load_exported("damaged.onnx"), "damaged.onnx cannot be read: [ONNXRuntimeError]", ""),
    (lambda: load_exported("foreign.onnx"), "expected a file that fullconv export wrote", "export"),
    # Devices and processes
    (lambda: choose_device("cuda:77"), "device cuda:77 is not available: ", "--device cpu"),
    (lambda: current_shard({"RANK": "2", "WORLD_SIZE": "2"}),
     "the environment has RANK=2 WORLD_SIZE=2; expected a rank", "unset RANK WORLD_SIZE"),
    (lambda: current_shard({"RANK": "-1", "WORLD_SIZE": "2"}), "RANK=-1", "unset RANK"),
    (lambda: current_shard({"RANK": "one", "WORLD_SIZE": "2"}), "RANK=one WORLD_SIZE=2", ""),
    (lambda: current_shard({**SLURM, "SLURM_NTASKS": "many"}), "SLURM_PROCID=2 SLURM_NTASKS=many",
     "unset SLURM_PROCID"),
    (
        lambda: current_shard(
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "", "LOCAL_WORLD_SIZE": "4"}
        ),
        "LOCAL_RANK= LOCAL_WORLD_SIZE=4",
        "",
    ),
    (lambda: current_shard({**SLURM, "SLURM_LOCALID": "x"}), "SLURM_LOCALID=x", "unset SLURM_L"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _folder_of_exported_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probabilities, "MAX_VIEW_PIXELS", 100)
    monkeypatch.chdir(tmp_path)
    Path("damaged.onnx").write_bytes(b"no network")
    sides = [1, 3, 4, 4]
    values = [onnx.helper.make_tensor_value_info(name, 1, sides) for name in ("images", "scores")]
    node = onnx.helper.make_node("Identity", ["images"], ["scores"])
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), "foreign.onnx")


@pytest.mark.parametrize(
    ("make", "message", "hint"), CASES, ids=[message[:40] for _, message, _ in CASES]
)
def test_mistakes(make: Callable[[], Any], message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        make()
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_mistakes_with_a_model(make_model: Callable[..., Model]) -> None:
    model = make_model()
    resizing = replace(model, short_side=64)
    cases: list[tuple[Callable[[], Any], str, str]] = [
        (lambda: Predictor(resizing, device="cpu").set_options(Options(scales=(0.5, 1.0))),
         "the model resizes each image to 64 pixels on the shorter side", "without --scales"),
        (lambda: Predictor(model, device="cpu", tile=64).set_options(Options(scales=(0.5,))),
         "--scales and --tile cannot be combined", "--tile 64"),
        (lambda: Predictor(resizing, device="cpu", tile=96),
         "resizes each image to 64 pixels on the shorter side, which cannot be done tile by "
         "tile", "without --tile"),
        (lambda: Predictor(model, tile=0), "a tile side of 0 pixels; expected 1", "--tile 1024"),
        (lambda: Runtime(model, device=torch.device("cpu"), precision="half"),
         "unknown precision 'half'; there are auto, float32, bfloat16", "--precision auto"),
        (lambda: exported_model(two_heads(make_model)).set_options(Options(classes=("rood",))),
         "no class 'rood'; the nearest are wood, road", "--classes wood"),
    ]  # fmt: skip
    for make, message, hint in cases:
        test_mistakes(make, message, hint)


def test_a_runtime_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(FullconvError, match="needs onnxruntime, which is not installed") as caught:
        load_exported("damaged.onnx")
    assert caught.value.hint == "pip install onnxruntime"
