"""Exported files that cannot be read; what they do where they can is in test_export."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.inference.exported import ExportedModel, is_exported, load_exported

onnx = pytest.importorskip("onnx")


def test_which_files_are_meant(tmp_path: Path) -> None:
    (tmp_path / "ov").mkdir()
    assert not is_exported(tmp_path / "ov")
    (tmp_path / "ov/model.xml").touch()
    assert is_exported(tmp_path / "ov")
    assert is_exported("a/model.onnx")
    assert not is_exported("runs/model")


def test_nothing_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(FullconvError, match=r"no exported model at .*gone\.onnx") as caught:
        load_exported(tmp_path / "gone.onnx")
    assert caught.value.hint == "fullconv export MODEL --format onnx"
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(FullconvError, match=r"a\.onnx cannot be read: \[ONNXRuntimeError\]"):
        load_exported(tmp_path / "a.onnx")


def test_a_network_of_others(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Identity", ["images"], ["scores"])
    sides = [1, 3, 4, 4]
    graph = onnx.helper.make_graph(
        [node], "g", [value("images", 1, sides)], [value("scores", 1, sides)]
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "b.onnx"
    )
    with pytest.raises(FullconvError, match="expected a file that fullconv wrote"):
        load_exported(tmp_path / "b.onnx")


def test_the_engine_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(FullconvError, match="runs in onnxruntime, which is not") as caught:
        load_exported(tmp_path / "c.onnx")
    assert caught.value.hint == "pip install onnxruntime"


@pytest.mark.parametrize(("count", "kind"), [(2, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_ids_of_a_file_without_scores_are_as_narrow_as_all_are(count: int, kind: type) -> None:
    ids = np.arange(6, dtype=np.int32).reshape(1, 2, 3) * (count - 1) // 5
    names = tuple(f"class {k}" for k in range(count))
    about = {**Labels(names, ignore_index=65535).to_dict(), "grid": [1, 0], "labels_inside": True}
    found = ExportedModel(lambda _: [ids], about, "model.xml").label_map(
        np.zeros((2, 3, 3), np.uint8)
    )
    assert found.dtype == kind
    assert np.array_equal(found, ids[0])


def test_a_image_that_the_engine_cannot_take(tmp_path: Path) -> None:
    about = {**Labels(("a", "b")).to_dict(), "grid": [1, 0], "labels_inside": False}

    def run(planes: np.ndarray) -> list[np.ndarray]:
        raise RuntimeError("Check 'cmp::le' failed\nand more")

    found = ExportedModel(run, about, "model.xml")
    with pytest.raises(
        FullconvError, match=r"model\.xml could not be run on an image of 3 x 2 pixels: Check 'cmp"
    ) as caught:
        found.label_map(np.zeros((2, 3, 3), np.uint8))
    assert "more" not in caught.value.message
    assert "the model that it was exported from" in caught.value.hint
