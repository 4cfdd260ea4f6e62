"""Trained by the command line: additional heads and extra inputs, stages, --quiet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cards
import pytest
from commands import Cli, TrainRecorder

from fullconv.data.synthetic import scenes as synthetic
from fullconv.models.run import Stage

SMALL = "--backbone resnet10t --no-pretrained --epochs 1 --workers 0 --crop 33 33"


def test_result_of_each_stage(cli: Cli, training: TrainRecorder, scenes: Path) -> None:
    training.stages = (
        Stage("FCN-32s", "run/32s/model", 0.5, 0.8, None, None, 2, 60.0),
        Stage("FCN-16s", "run/model", 0.54, 0.82, 0.04, 1.0, 2, 90.0),
    )
    code, out, _ = cli("train", scenes, "--staged", "--stride", 16)
    assert code == 0
    assert training.options == {"staged": True, "stride": 16, "out": None, "resume": None}
    assert out.splitlines()[2].split()[:2] == ["FCN-16s", "54.0%"]
    assert json.loads(cli("train", scenes, "--staged", "--json")[1])["stages"][1]["gain"] == 0.04


@pytest.mark.slow
def test_quiet(cli: Cli, tmp_path: Path) -> None:
    data = synthetic.write(tmp_path / "data", train=2, val=1, test=1, size=(48, 64))
    run = tmp_path / "run"
    code, out, err = cli("--quiet", "train", data, *SMALL.split(), "--out", run)
    assert (code, err) == (0, "")
    assert out.startswith("mean IoU ")
    assert out.endswith(f"\nreport: {run / 'report.html'}\n")  # without the next command
    words = ["predict", run, data / "images/test", "--out", tmp_path / "out"]
    assert cli(*words)[2] == ""
    code, out, err = cli(*words)
    assert err.startswith("note: skipped 1 image with results")
    assert cli(*words, "--quiet") == (0, out[: out.index("next: ")], "")


@pytest.mark.slow
def test_heads_and_extra_inputs(cli: Cli, tmp_path: Path) -> None:
    data, run = cards.write(tmp_path / "cards", sized=True, train=4, val=2), tmp_path / "run"
    folders = ["--heads", "order", "--extra-inputs", "depth"]
    code, out, _ = cli("check", data, *folders)
    assert (code, "head order" in out, "near" in out) == (0, True, True)
    code, out, err = cli("train", data, *SMALL.split(), "--batch-size", 2, *folders, "--out", run)
    assert (code, ", order " in out) == (0, True), err
    code, out, err = cli("evaluate", run, data, "--split", "val")
    assert (code, "head order" in out, "not scored" in err) == (0, True, False)
    assert "extra input depth: 1 channel, early fusion" in cli("inspect", run)[1]

    images, results = data / "images/val", tmp_path / "results"
    code, _, err = cli("predict", run, images, "--out", results)
    assert (code, "--extra-inputs depth" in err) == (1, True)
    given = ["--extra-inputs", data / "depth/val", "--out", results, "--save", "mask,json"]
    assert cli("predict", run, images, *given)[0] == 0
    ends = ("_mask.png", "_order_mask.png", ".json")
    names = {path.name for path in results.glob("[!.]*")}
    assert names == {f"card_{k:03}{end}" for k in (0, 1) for end in ends}
    assert set(json.loads((results / "card_000.json").read_text())["heads"]) == {"order"}

    shutil.rmtree(data / "order")
    code, _, err = cli("evaluate", run, data, "--split", "val")
    assert (code, "has no masks for order, which are not scored" in err) == (0, True)
