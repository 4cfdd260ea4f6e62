"""fullconv export: files, messages, the next command; predictions from the file without torch."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lively import lively
from PIL import Image

from fullconv.cli import export as export_command
from fullconv.cli.main import run
from fullconv.data.synthetic import scenes as drawn
from fullconv.deploy.export import MAX_DISAGREEMENT
from fullconv.inference.predictor import Predictor
from fullconv.models.model import Model, save_model

pytest.importorskip("onnxruntime")
WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; from fullconv.cli.main import main; main()"
)


@pytest.fixture(scope="module")
def model() -> Model:
    return lively()


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(model, tmp_path_factory.mktemp("m") / "model")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        Image.fromarray(drawn.scene(seed, size=(61, 90))[0]).save(place / f"{seed}.png")
    return place


def test_a_file_and_predictions_from_it_where_there_is_no_torch(
    model: Model, folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my files"
    assert run(["export", str(folder), "--out", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] == str(out / "model.onnx")
    assert facts["labels_that_differ"] <= 1e-4
    assert facts["bytes"] == (out / "model.onnx").stat().st_size
    words = ["predict", facts["path"], str(photos), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words, "--save", "mask,overlay,json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    predictor = Predictor(model, device="cpu", precision="float32")
    for seed in range(3):
        ids = np.asarray(Image.open(tmp_path / f"out/{seed}_mask.png"))
        wanted = predictor.label_map(np.asarray(Image.open(photos / f"{seed}.png")))
        assert len(np.unique(wanted)) > 3
        assert (ids == wanted).mean() > 0.999
        assert (tmp_path / f"out/{seed}_overlay.jpg").is_file()


def test_what_needs_torch_says_so_where_there_is_none(
    folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [name for name in sys.modules if name.startswith("fullconv.network")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "fullconv.inference.predictor")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run(["predict", str(folder), str(photos)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: torch is not installed, which this command needs. Without it")
    assert said.endswith("  try: pip install torch torchvision timm lightning torchmetrics\n")


def test_what_is_printed_can_be_pasted(
    folder: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Random weights leave less between the classes than trained ones do.
    monkeypatch.setitem(MAX_DISAGREEMENT, "int8", 0.25)
    words = ["export", str(folder), "--out", str(tmp_path / "my files"), "--precision", "int8"]
    assert run([*words, "--calibrate", str(photos)]) == 0
    said = capsys.readouterr().out
    assert "int8\ncompared with the model in float32 on 8 images of 6 sizes: " in said
    assert f"next: fullconv predict '{tmp_path / 'my files' / 'model.onnx'}' IMAGES" in said
    assert run(["predict", str(tmp_path / "my files/model.onnx"), str(photos), "--tile", "64"]) == 1
    assert "is an exported model, which does not support tiles" in capsys.readouterr().err


@pytest.mark.parametrize("share", [None, 0.002])
def test_it_is_said_where_the_model_itself_runs_in_bfloat16(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    share: float | None,
) -> None:
    """There `predict` on the folder labels some pixels otherwise than `predict` on the file."""
    monkeypatch.setattr("fullconv.inference.runtime.computes_in_bfloat16", lambda _: True)
    model = lively()
    model.bfloat16_disagreement = share
    folder = save_model(model, tmp_path / "my model")
    assert run(["export", str(folder), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    line = f"fullconv predict '{folder}' IMAGES --precision float32\n"
    assert ("predict runs in bfloat16" in said) is (share is not None)
    assert said.endswith(line) is (share is not None)


def test_the_next_command_reads_a_program_of_torch(tmp_path: Path) -> None:
    (tmp_path / "my files").mkdir()
    file = tmp_path / "my files" / "model.pt2"
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(2),))
    torch.export.save(program, file)
    (line,) = export_command._following("torch", file)
    words = shlex.split(line)
    assert words[0] == "python"
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ExportedProgram:")


def test_int8_wants_images(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(folder), "--precision", "int8", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert (
        "int8 is calibrated on images like those that the model will see; none were given." in said
    )
    assert "try: --calibrate IMAGES" in said
    assert not list(tmp_path.iterdir())
