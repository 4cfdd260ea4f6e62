"""The options of `fullconv predict`, as they are typed; its loop is tested in test_cli."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullconv.cli import run
from fullconv.data.masks import read_values
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
