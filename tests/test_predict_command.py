"""The options of `fullconv predict`, as they are typed; its loop is tested in test_cli."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv import deployed
from fullconv.cli import run
from fullconv.data.masks import read_values
from fullconv.labels import Labels
from fullconv.options import Options
from fullconv.predict import load


@pytest.fixture
def picture(scenes: Path) -> Path:
    return scenes / "images/test/street_0000.jpg"


def test_every_kind_of_result_with_every_option(
    model_folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = "mask,color,overlay,confidence,probability,polygons,coco,json"
    argv = ["predict", str(model_folder), str(picture), "--out", str(tmp_path), "--save", kinds]
    argv += ["--classes", "road, sky", "--unsure", "0.5", "--min-area", "12", "--flip"]
    assert run([*argv, "--scales", "0.5,1", "--json"]) == 0
    options = Options(True, (0.5, 1.0), ("road", "sky"), 0.5, 12)
    wanted = load(model_folder, options=options)(picture)
    (result,) = json.loads(capsys.readouterr().out)["pictures"]
    assert result["area"] == wanted.to_dict()["area"]
    assert sorted(Path(path).name for path in result["files"]) == [
        "street_0000.geojson", "street_0000.json", "street_0000_coco.json",
        "street_0000_color.png", "street_0000_confidence.png", "street_0000_mask.png",
        "street_0000_overlay.png", "street_0000_probability.npz",
    ]  # fmt: skip
    assert (read_values(tmp_path / "street_0000_mask.png") == wanted.mask).all()
    with np.load(tmp_path / "street_0000_probability.npz") as found:
        np.testing.assert_allclose(
            found["probability"].transpose(2, 0, 1), wanted.probability, atol=1e-3
        )


@pytest.mark.parametrize(
    ("typed", "said", "hint"),
    [
        (["--classes", "rod"], "the model has no class 'rod'; the nearest are road", "road"),
        (["--scales", "half"], "scales 'half'; expected numbers with commas", "0.75,1,1.25"),
        (["--unsure", "60"], "a probability of 60; expected a fraction", "--unsure 0.6"),
        (["--min-area", "-3"], "a smallest area of -3 pixels", "--min-area 64"),
        (["--scales", "1,2", "--tile", "64"], "do not go together", "--tile 64"),
        (["--save", "polygon"], "no output 'polygon'; --save takes mask,", "--save mask,over"),
    ],
)
def test_what_is_refused(
    model_folder: Path,
    picture: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    typed: list[str],
    said: str,
    hint: str,
) -> None:
    argv: list[Any] = ["predict", str(model_folder), str(picture), "--out", str(tmp_path / "out")]
    assert run([*argv, *typed]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert hint in error.split("try:")[1]
    assert not (tmp_path / "out").exists()


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
