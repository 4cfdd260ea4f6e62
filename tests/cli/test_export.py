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
from commands import Cli
from lively import lively
from PIL import Image

from fullconv.cli import export as export_command
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
    cli: Cli, model: Model, folder: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "my files"
    code, text, _ = cli("export", folder, "--out", out, "--json")
    facts = json.loads(text)
    assert code == 0
    assert facts["path"] == str(out / "model.onnx")
    assert facts["labels_that_differ"] <= 1e-4
    assert facts["bytes"] == (out / "model.onnx").stat().st_size
    words = ["predict", facts["path"], str(photos), "--out", str(tmp_path / "out")]
    argv = [sys.executable, "-c", WITHOUT_TORCH, *words, "--save", "mask,overlay,json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    predictor = Predictor(model, device="cpu", precision="float32")
    for seed in range(3):
        ids = np.asarray(Image.open(tmp_path / f"out/{seed}_mask.png"))
        expected = predictor.label_map(np.asarray(Image.open(photos / f"{seed}.png")))
        assert len(np.unique(expected)) > 3
        assert (ids == expected).mean() > 0.999
        assert (tmp_path / f"out/{seed}_overlay.jpg").is_file()


def test_commands_that_need_torch_without_torch(
    cli: Cli, folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith("fullconv.network")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "fullconv.inference.predictor")
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = cli("predict", folder, photos)
    assert code == 1
    assert err.startswith("error: torch is not installed, which this command needs. Without it")
    assert err.endswith("  try: pip install torch torchvision timm lightning torchmetrics\n")


def test_int8(
    cli: Cli, folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random weights leave less between the classes than trained ones do.
    monkeypatch.setitem(MAX_DISAGREEMENT, "int8", 0.25)
    out, options = tmp_path / "my files", ("--precision", "int8", "--calibrate", photos)
    code, text, _ = cli("export", folder, "--out", out, *options)
    assert code == 0
    assert "int8\ncompared with the model in float32 on 8 images of 6 sizes: " in text
    assert f"next: fullconv predict '{out / 'model.onnx'}' IMAGES" in text
    code, _, err = cli("predict", out / "model.onnx", photos, "--tile", 64)
    assert (code, "is an exported model, which does not support tiles" in err) == (1, True)


@pytest.mark.parametrize("share", [None, 0.002])
def test_the_note_about_bfloat16(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float | None
) -> None:
    """There `predict` on the folder labels some pixels otherwise than `predict` on the file."""
    monkeypatch.setattr("fullconv.inference.runtime.computes_in_bfloat16", lambda _: True)
    model = lively()
    model.bfloat16_disagreement = share
    folder = save_model(model, tmp_path / "my model")
    code, _, err = cli("export", folder, "--out", tmp_path / "out")
    line = f"fullconv predict '{folder}' IMAGES --precision float32\n"
    noted = share is not None
    assert (code, "predict runs in bfloat16" in err, err.endswith(line)) == (0, noted, noted)


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
