"""Staged training on synthetic scenes: each stage starts where the previous one ended."""

import json
import shutil

import pytest
import torch
from pyramid import Pyramid
from rich.cells import cell_len

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import set_language
from fullconv.data.synthetic.scenes import write
from fullconv.models.model import load_model
from fullconv.models.run import Stage
from fullconv.training.staged import stages_table
from fullconv.training.train import train

STAGED = {"staged": True, "stage_lr_factor": 0.25, "lr": 0.004, "backbone_lr": 0.002}
STAGED |= {"pretrained": False, "epochs": 2, "batch_size": 3, "crop": (33, 65)}
STAGED |= {"workers": 0, "quiet": True, "precision": "float32"}
PARTS = ("32s", "16s", ".")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes of 32 k + 1 pixels: no stride needs padding."""
    root = tmp_path_factory.mktemp("scenes")
    return write(root, train=3, val=2, test=2, size=(65, 97))


@pytest.fixture(scope="module")
def staged(scenes, tmp_path_factory):
    torch.manual_seed(0)
    return train(scenes, out=tmp_path_factory.mktemp("runs") / "r", module=Pyramid(), **STAGED)


def test_each_stage_starts_from_the_one_before(staged):
    assert [stage.name for stage in staged.stages] == ["FCN-32s", "FCN-16s", "FCN-8s"]
    assert [stage.unchanged for stage in staged.stages] == [None, 1.0, 1.0]
    assert [stage.epochs for stage in staged.stages] == [2, 2, 2]
    strides = ["stride8", "stride16", "stride32"]
    for number, part in enumerate(PARTS, 1):
        assert len((staged.folder / part / "log.csv").read_text().splitlines()) == 3
        model = load_model(staged.folder / part, backbone=Pyramid())
        assert list(model.network.score) == strides[-number:]
    assert staged.metrics == json.loads((staged.folder / "metrics.json").read_text())


def test_gains_are_differences_of_the_stages(staged):
    metrics = [json.loads((staged.folder / part / "metrics.json").read_text()) for part in PARTS]
    values = [values_of_stage["mean_iou"] for values_of_stage in metrics]
    assert [stage.mean_iou for stage in staged.stages] == values
    assert staged.stages[0].gain is None
    for number in (1, 2):
        assert staged.stages[number].gain == values[number] - values[number - 1]
    assert json.loads((staged.folder / "stages.json").read_text())[2]["mean_iou"] == values[2]


def test_learning_rates_shrink_from_stage_to_stage(staged):
    rates = []
    for part in PARTS:
        settings = load_model(staged.folder / part, backbone=Pyramid()).training["settings"]
        rates.append((settings["lr"], settings["backbone_lr"]))
    assert rates == [(0.004, 0.002), (0.001, 0.0005), (0.00025, 0.000125)]


def test_a_resumed_run_continues_with_the_missing_stage(staged, tmp_path):
    folder = shutil.copytree(staged.folder, tmp_path / "r")
    for name in ("metrics.json", "stages.json", "log.csv", "checkpoint/last.ckpt"):
        (folder / name).unlink()
    shutil.rmtree(folder / "model")
    weights = (folder / "16s/model/model.safetensors").stat().st_mtime_ns
    again = train(resume=folder, quiet=True, module=Pyramid())
    assert again.metrics == staged.metrics
    assert (folder / "16s/model/model.safetensors").stat().st_mtime_ns == weights
    assert [stage.mean_iou for stage in again.stages] == [s.mean_iou for s in staged.stages]


def test_several_processes_are_refused(scenes, tmp_path):
    with pytest.raises(FullconvError, match="by one process, not by 2") as caught:
        train(scenes, out=tmp_path / "r", module=Pyramid(), devices=2, **STAGED)
    assert "--stride 16 --init-from RUN" in caught.value.hint


def test_the_table_shows_gain_and_cost():
    stages = [
        Stage("FCN-32s", "a", 0.5, 0.8, None, None, 2, 90.0),
        Stage("FCN-16s", "b", 0.5625, 0.85, 0.0625, 0.9987, 2, 120.0),
        Stage("FCN-8s", "c", None, None, None, 1.0, 2, 150.0),
    ]
    lines = stages_table(stages).splitlines()
    assert lines[1].split() == ["FCN-32s", "50.0%", "80.0%", "1.5", "min"]
    assert lines[2].split() == ["FCN-16s", "56.2%", "+6.2", "85.0%", "99.87%", "2.0", "min"]
    assert lines[3].split() == ["FCN-8s", "-", "-", "100.00%", "2.5", "min"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.usefixtures("chinese")
def test_the_table_is_translated_and_straight():
    set_language("zh")
    stages = [Stage("FCN-32s", "a", 0.5, 0.8, None, None, 2, 90.0)]
    heading, row = stages_table(stages).splitlines()
    assert heading.split() == ["平均交并比", "提升", "像素准确率", "开始时不变", "时间"]
    assert row.split() == ["FCN-32s", "50.0%", "80.0%", "1.5", "分钟"]
    assert cell_len(heading) == cell_len(row)


def test_new_classes_from_an_old_model(scenes, staged, tmp_path, capsys):
    root = shutil.copytree(scenes, tmp_path / "data")
    text = (root / "dataset.toml").read_text()
    assert "pole" in text
    (root / "dataset.toml").write_text(text.replace("pole", "post"))
    options = {**STAGED, "staged": False, "epochs": 1, "quiet": False}
    run = train(root, out=tmp_path / "r", module=Pyramid(), init_from=str(staged.folder), **options)
    assert "its backbone; the scores start untrained" in capsys.readouterr().err
    assert "post" in load_model(run.model, backbone=Pyramid()).labels.names
