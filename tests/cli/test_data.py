"""The commands about data sets: their options, what they print, and their exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import damage
import numpy as np
import pytest
from PIL import Image
from trees import TREES

from fullconv.cli.main import run
from fullconv.data.synthetic import scenes as drawn


def lossy(root: Path) -> Path:
    """Four black and white masks, as JPEG."""
    generator = np.random.default_rng(0)
    for number in range(4):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        photo = generator.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(photo).save(root / "images" / f"{number}.png")
        mask = np.zeros((40, 50), np.uint8)
        mask[10 : 20 + number, 5:30] = 255
        Image.fromarray(mask).save(root / "masks" / f"{number}.jpg")
    return root


def test_a_repaired_copy_has_no_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = lossy(tmp_path / "data")
    assert run(["check", str(root)]) == 1
    ahead = capsys.readouterr().out.splitlines()[-1]
    assert ahead == f"next: fullconv check {root} --fix {tmp_path / 'data_fixed'}"
    assert run(["check", str(root), "--fix", str(tmp_path / "copy")]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{root} -> {tmp_path / 'copy'}: pairs of images and id masks: train 3, ")
    assert out.endswith(f"next: fullconv check {tmp_path / 'copy'}\n")
    assert run(["check", str(tmp_path / "copy")]) == 0
    assert run(["check", str(root)]) == 1  # the original stays as it was


def test_a_repaired_copy_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, copy = lossy(tmp_path / "data"), tmp_path / "copy"
    assert run(["check", str(root), "--fix", str(copy), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["images"] == {"train": 3, "val": 1}
    assert facts["classes"] == ["background", "object"]
    assert facts["left_out"] == {}


def test_check_recommends_a_stride_and_draws_a_sheet(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    assert run(["check", str(scenes), "--preview", str(sheet)]) == 0
    out, err = capsys.readouterr()
    said = next(line for line in out.splitlines() if line.startswith("recommended: "))
    assert said.startswith("recommended: --stride 4: stride 4 can reach about ")
    assert said.endswith(" (measured on 2 masks of val)")
    assert f"\n  fullconv ceiling {scenes}   # shows each class\n" in out
    assert out.endswith(f"\nnext: fullconv train {scenes} --stride 4\n")
    assert err == f"preview: {sheet}\n"
    assert sheet.is_file()
    assert run(["check", str(scenes), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["recommended_stride"] == 4
    assert f"recommended: --stride 4: {facts['recommended_stride_reason']}" == said
    assert run(["ceiling", str(scenes)]) == 0
    *_, again, ahead = capsys.readouterr().out.splitlines()
    assert again == said  # they never contradict
    assert ahead == f"next: fullconv train {scenes} --stride 4"
    bad = lossy(tmp_path / "data")
    assert run(["check", str(bad), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["recommended_stride"] is None


def test_the_layout_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = drawn.write(tmp_path / "scenes", train=2, val=1, test=1, size=(48, 64))
    assert run(["check", str(root), "--layout", "folders"]) == 0
    assert "layout folders" in capsys.readouterr().out
    assert run(["check", str(root), "--layout", "voc"]) == 1
    assert "JPEGImages/ and SegmentationClass/" in capsys.readouterr().err
    assert run(["check", str(root), "--layout", "vox"]) == 1
    assert "try: --layout voc" in capsys.readouterr().err


def test_what_train_ignores_evaluate_ignores_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = drawn.write(tmp_path / "scenes", train=2, val=2, test=1, size=(48, 64))
    mask = min((root / "masks" / "val").iterdir())
    mask.write_bytes(b"")
    words = "--backbone resnet10t --no-pretrained --epochs 1 --workers 0 --crop 33 33"
    given = ["train", str(root), *words.split(), "--out", str(tmp_path / "run")]
    assert run(given) == 1
    assert "unreadable" in capsys.readouterr().err
    assert run([*given, "--ignore-rules", "unreadable"]) == 0
    again = ["evaluate", str(tmp_path / "run"), str(root), "--split", "val"]
    assert run(again) == 1
    capsys.readouterr()
    assert run([*again, "--ignore-rules", "unreadable"]) == 0
    assert ", 1 image, original size" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nyud", "label-studio, brush", "ultralytics, outlines"])
def test_anything_is_converted(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, tree = tmp_path / "in", tmp_path / "out", TREES[name]
    tree.write(source)
    assert run(["convert", str(source), str(out), "--layout", tree.layout, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["layout"], facts["splits"]) == (tree.layout, {"train": 3, "val": 1})
    assert run(["check", str(out)]) == 0
    capsys.readouterr()
    assert run(["convert", str(source), str(tmp_path / "x"), "--layout", "yolo"]) == 1
    assert "labelme, coco, label-studio, ultralytics, city" in capsys.readouterr().err


def test_a_sheet_that_cannot_be_written_does_not_cost_the_report(
    scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(scenes), "--preview", "sheet.jpg"]) == 1
    out, err = capsys.readouterr()
    assert "recommended: --stride" in out
    assert "sheet.jpg" in err


def test_check_says_all_that_is_wrong_with_damaged_files_and_libraries_say_nothing(
    scenes: Path, tmp_path: Path
) -> None:
    image, mask = (next((scenes / k / "train").iterdir()) for k in ("images", "masks"))
    files = [f for f in damage.files(900) if "_half." not in f.name and "_large." not in f.name]
    files = [f for f in files if f.name.endswith((".tif", ".png", ".jpg", ".npy", ".mat"))][::2]
    for number, file in enumerate(files):
        hurt = number % 2 if not file.is_array else 1
        for side, (folder, sound) in enumerate((("images", image), ("masks", mask))):
            name = file.name if side == hurt else sound.name
            path = tmp_path / folder / ("val" if number % 5 == 4 else "train")
            path.mkdir(parents=True, exist_ok=True)
            content = file.content if side == hurt else sound.read_bytes()
            (path / f"{number}{Path(name).suffix}").write_bytes(content)
    shutil.copy(scenes / "dataset.toml", tmp_path)
    words = [sys.executable, "-m", "fullconv", "check", str(tmp_path), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads(done.stdout)
    assert sum(report["images"].values()) == len(files) > 200
    found = {finding["rule"]: len(finding["files"]) for finding in report["findings"]}
    assert 100 < found["unreadable"] < len(files)
