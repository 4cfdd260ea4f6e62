"""Runs and their logs, finished or not; files of version 0.1."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from evaluated import counted, matrices, written

import fullconv as fc
from fullconv.core.errors import FullconvError
from fullconv.models.migrate import migrate_config
from fullconv.models.run import Stage, open_run, read_history, read_log, total_seconds
from fullconv.training.callbacks import COLUMNS

HEAD = ",".join(COLUMNS)
OLD_CONFIG = Path(__file__).with_name("old") / "config.json"  # of a model of version 0.1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "a", counted(matrices(5)))


def write_log(folder: Path, *rows: str, head: str = HEAD) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.csv").write_text("\n".join([head, *rows]) + "\n")


def test_a_finished_run(folder: Path) -> None:
    run = fc.open_run(folder / "model")
    assert run == open_run(str(folder))
    assert (run.folder, run.model, run.data) == (folder, folder / "model", Path("/data"))
    assert run.splits == ("val",)
    assert run.settings["backbone"] == "resnet18"
    assert run.log["epoch"] == [1, 2, 3]
    assert run.log["mean_iou"] == pytest.approx([0.2, 0.4, 0.6])
    stage = Stage("FCN-32s", "32s/model", 0.5, 0.8, None, None, 3, 2.0)
    (folder / "stages.json").write_text(json.dumps([stage.__dict__]))
    assert open_run(folder).stages == (stage,)
    (folder / "config.toml").unlink()
    assert open_run(folder).settings == {}


@pytest.mark.parametrize(
    ("damage", "message", "hint"),
    [
        (
            lambda f: (f / "metrics.json").write_text("[1"),
            "metrics.json cannot be read: ",
            "fullconv evaluate {f} DATA --split val",
        ),
        (
            lambda f: (f / "metrics.json").unlink(),
            "the run {f} is not finished: it has no metrics.json.",
            "fullconv train --resume {f}",
        ),
        (shutil.rmtree, "{f} is not a run folder: it has no metrics.json.", "fullconv train DATA"),
    ],
)
def test_folders_without_a_finished_run(folder: Path, damage: Any, message: str, hint: str) -> None:
    damage(folder)
    with pytest.raises(FullconvError) as caught:
        open_run(folder)
    assert message.format(f=folder) in caught.value.message
    assert caught.value.hint == hint.format(f=folder)


def test_incomplete_logs(folder: Path) -> None:
    path = folder / "log.csv"
    path.write_text("epoch,loss\n1,0.5\n2,oh\n3")
    log = read_log(path)
    assert log["epoch"] == [1, 2]
    assert log["loss"][0] == 0.5
    assert math.isnan(log["loss"][1])
    path.write_text("")
    assert read_log(path) == {}
    path.unlink()
    assert read_log(path) == {}


def test_a_history_of_one_stage_without_its_incomplete_row(tmp_path: Path) -> None:
    write_log(tmp_path, "1,10,1.5,0.001,0.25,0.5,3.0", "2,20,1.0,0.0005,0.5,0.75,6.5", "3,30,1")
    (stage,) = read_history(tmp_path, 8)
    assert stage.name == "FCN-8s"
    assert [epoch.number for epoch in stage.epochs] == [1, 2]
    epoch = stage.epochs[1]
    assert (epoch.loss, epoch.lr, epoch.mean_iou, epoch.pixel_accuracy) == (1.0, 5e-4, 0.5, 0.75)
    assert stage.seconds == 6.5


def test_the_clock_restarts_when_a_training_run_is_resumed(tmp_path: Path) -> None:
    clock = (3.0, 6.0, 2.5, 5.0, 1.0)
    write_log(tmp_path, *(f"{k},{k},1,1,1,1,{seconds}" for k, seconds in enumerate(clock, 1)))
    assert read_history(tmp_path, 8)[0].seconds == pytest.approx(6.0 + 5.0 + 1.0)


def test_stages_come_coarsest_first(tmp_path: Path) -> None:
    assert read_history(tmp_path, 8) == []
    write_log(tmp_path)
    assert read_history(tmp_path, 8) == []
    write_log(tmp_path, "1,10,1,1,0.5,0.5,3")
    write_log(tmp_path / "16s", "1,10,1,1,0.4,0.5,5", "2,20,1,1,0.4,0.5,9")
    write_log(tmp_path / "32s", "1,10,1,1,0.3,0.5,7")
    (tmp_path / "64s").mkdir()  # never started
    (tmp_path / "images").mkdir()
    stages = read_history(tmp_path, 8)
    assert [stage.name for stage in stages] == ["FCN-32s", "FCN-16s", "FCN-8s"]
    assert total_seconds(stages) == 7 + 9 + 3


def test_columns_are_read_by_name_also_the_old_name_of_the_learning_rate(tmp_path: Path) -> None:
    write_log(tmp_path, "0.25,1,,0.5", head="mean_iou,epoch,loss,rate")
    (epoch,) = read_history(tmp_path, 8)[0].epochs
    assert (epoch.number, epoch.mean_iou, epoch.lr) == (1, 0.25, 0.5)
    assert all(math.isnan(x) for x in (epoch.loss, epoch.seconds))
    assert read_log(tmp_path / "log.csv")["lr"] == [0.5]


def test_a_run_of_version_0_1(folder: Path) -> None:
    metrics = json.loads(OLD_CONFIG.read_text())["metrics"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.toml").write_text('[data]\nroot = "/d"\n[train]\nrate = 0.5\nbatch = 4\n')
    run = open_run(folder)
    protocol = run.metrics["protocol"]
    assert (protocol["images"], protocol["image_size"]) == (40, "original, 144 x 208")
    assert protocol["trained_on"] == "train (330 images)"
    assert run.settings == {"lr": 0.5, "batch_size": 4}
    assert run.data == Path("/d")


def test_the_config_of_a_model_of_version_0_1() -> None:
    old = json.loads(OLD_CONFIG.read_text())
    config = migrate_config(old)
    training = config["training"]
    assert training["data"]["images"] == {"train": 330, "val": 40, "test": 40}
    assert training["trained_on"] == [{"images": 330, "fingerprint": "f45c30750ff93a4c"}]
    assert (training["settings"]["lr"], training["settings"]["batch_size"]) == (0.003, 4)
    assert "picture" not in json.dumps(config)
    assert migrate_config(config) == config
    assert old["training"]["data"]["pictures"]  # unchanged
    old["training"]["data"]["class_pixels"]["pictures"] = 3  # a class may have this name
    assert migrate_config(old)["training"]["data"]["class_pixels"]["pictures"] == 3
