"""The commands about datasets: their options, what they print, and their exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import damage
import numpy as np
import pytest
from commands import Cli
from PIL import Image
from trees import TREES

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


def test_a_repaired_copy(cli: Cli, tmp_path: Path) -> None:
    root, copy = lossy(tmp_path / "data"), tmp_path / "copy"
    code, out, _ = cli("check", root)
    ahead = f"next: fullconv check {root} --fix {tmp_path / 'data_fixed'}"
    assert (code, out.splitlines()[-1]) == (1, ahead)
    code, out, _ = cli("check", root, "--fix", copy)
    assert code == 0
    assert out.startswith(f"{root} -> {copy}: pairs of images and id masks: train 3, ")
    assert out.endswith(f"next: fullconv check {copy}\n")
    assert cli("check", copy)[0] == 0
    assert cli("check", root)[0] == 1  # the original stays as it was
    code, out, _ = cli("check", root, "--fix", tmp_path / "other", "--json")
    facts = json.loads(out)
    assert (code, facts["images"], facts["left_out"]) == (0, {"train": 3, "val": 1}, {})
    assert facts["classes"] == ["background", "object"]


def test_check_and_ceiling_recommend_the_same_stride(
    cli: Cli, scenes: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    code, out, err = cli("check", scenes, "--preview", sheet)
    assert (code, err, sheet.is_file()) == (0, f"preview: {sheet}\n", True)
    advice = next(line for line in out.splitlines() if line.startswith("recommended: "))
    assert advice.startswith("recommended: --stride 4: stride 4 can reach about ")
    assert advice.endswith(" (measured on 2 masks of val)")
    assert f"\n  fullconv ceiling {scenes}   # shows each class\n" in out
    assert out.endswith(f"\nnext: fullconv train {scenes} --stride 4\n")
    facts = json.loads(cli("check", scenes, "--json")[1])
    assert f"recommended: --stride 4: {facts['recommended_stride_reason']}" == advice
    *_, again, ahead = cli("ceiling", scenes)[1].splitlines()
    assert (again, ahead) == (advice, f"next: fullconv train {scenes} --stride 4")


def test_train_and_evaluate_ignore_the_same_findings(cli: Cli, tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "scenes", train=2, val=2, test=1, size=(48, 64))
    mask = min((root / "masks" / "val").iterdir())
    mask.write_bytes(b"")
    words = "--backbone resnet10t --no-pretrained --epochs 1 --workers 0 --crop 33 33"
    training = ["train", root, *words.split(), "--out", tmp_path / "run"]
    code, _, err = cli(*training)
    assert (code, "unreadable" in err) == (1, True)
    assert cli(*training, "--ignore-rules", "unreadable")[0] == 0
    evaluation = ["evaluate", tmp_path / "run", root, "--split", "val"]
    assert cli(*evaluation)[0] == 1
    code, out, _ = cli(*evaluation, "--ignore-rules", "unreadable")
    assert (code, ", 1 image, original size" in out) == (0, True)


@pytest.mark.parametrize("name", ["nyud", "label-studio, brush", "ultralytics, outlines"])
def test_convert(cli: Cli, name: str, tmp_path: Path) -> None:
    source, out, tree = tmp_path / "in", tmp_path / "out", TREES[name]
    tree.write(source)
    code, text, _ = cli("convert", source, out, "--layout", tree.layout, "--json")
    facts = json.loads(text)
    assert (code, facts["layout"], facts["splits"]) == (0, tree.layout, {"train": 3, "val": 1})
    assert cli("check", out)[0] == 0


def test_check_reports_damaged_files_and_libraries_print_nothing(
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
    counts = {finding["rule"]: len(finding["files"]) for finding in report["findings"]}
    assert 100 < counts["unreadable"] < len(files)
