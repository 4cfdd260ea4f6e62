"""fullconv predict: which model takes which way; what it prints and writes stands in test_cli."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv import deployed
from fullconv.cli import run
from fullconv.data.masks import read_values
from fullconv.labels import Labels


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose graph gives the picture's own red and green as scores of two classes."""

    def onnx(path: Path, threads: int | None) -> tuple[deployed.Run, str]:
        about = {**Labels(("red", "green")).to_dict(), "grid": [1, 0], "labels_inside": False}
        return lambda planes: [planes[:, :2].astype(np.float32)], deployed.json.dumps(about)

    monkeypatch.setattr(deployed, "_onnx", onnx)
    (tmp_path / "m.onnx").touch()
    return tmp_path / "m.onnx"


def test_an_exported_file_labels_pictures(exported: Path, tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :2, 0], pixels[:, 2:, 1] = 200, 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert run(["predict", str(exported), str(tmp_path / "a.png"), "--out", str(tmp_path)]) == 0
    assert read_values(tmp_path / "a_mask.png").tolist() == [[0, 0, 1, 1, 1, 1]] * 4


def test_an_exported_file_takes_a_geotiff_as_a_picture(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    size = {"count": 3, "height": 5, "width": 7, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **size, **place) as file:
        file.write(np.full((3, 5, 7), 9, np.uint8))
    assert run(["predict", str(exported), str(tmp_path / "a.tif"), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "a.tif will not be georeferenced: exported models take each picture whole" in said
    assert read_values(tmp_path / "a_mask.png").shape == (5, 7)
