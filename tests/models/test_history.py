"""What a training wrote down is read whatever became of it: resumed, in stages, without a log."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fullconv.models.run import read_history, total_seconds
from fullconv.training.callbacks import COLUMNS

HEAD = ",".join(COLUMNS)


def log(folder: Path, *rows: str, head: str = HEAD) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.csv").write_text("\n".join([head, *rows]) + "\n")


def test_one_stage(tmp_path: Path) -> None:
    log(tmp_path, "1,10,1.5,0.001,0.25,0.5,3.0", "2,20,1.0,0.0005,0.5,0.75,6.5")
    (stage,) = read_history(tmp_path, 8)
    assert stage.name == "FCN-8s"
    assert [epoch.number for epoch in stage.epochs] == [1, 2]
    assert stage.epochs[1].loss == 1.0
    assert stage.epochs[1].rate == 0.0005
    assert (stage.epochs[1].mean_iou, stage.epochs[1].pixel_accuracy) == (0.5, 0.75)
    assert stage.seconds == 6.5


def test_the_clock_of_a_resumed_training_begins_anew(tmp_path: Path) -> None:
    clocks = (3.0, 6.0, 2.5, 5.0, 1.0)
    log(tmp_path, *(f"{k},{k},1,1,1,1,{clock}" for k, clock in enumerate(clocks, 1)))
    (stage,) = read_history(tmp_path, 8)
    assert stage.seconds == pytest.approx(6.0 + 5.0 + 1.0)


def test_stages_come_coarsest_first(tmp_path: Path) -> None:
    log(tmp_path, "1,10,1,1,0.5,0.5,3")
    log(tmp_path / "16s", "1,10,1,1,0.4,0.5,5", "2,20,1,1,0.4,0.5,9")
    log(tmp_path / "32s", "1,10,1,1,0.3,0.5,7")
    (tmp_path / "64s").mkdir()  # one that was never begun
    (tmp_path / "images").mkdir()
    stages = read_history(tmp_path, 8)
    assert [stage.name for stage in stages] == ["FCN-32s", "FCN-16s", "FCN-8s"]
    assert total_seconds(stages) == 7 + 9 + 3


def test_without_a_log_there_is_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path, 8) == []
    log(tmp_path)
    assert read_history(tmp_path, 8) == []


def test_columns_go_by_their_names_and_may_lack(tmp_path: Path) -> None:
    log(tmp_path, "0.25,1,,nan", head="mean_iou,epoch,loss,rate")
    (epoch,) = read_history(tmp_path, 8)[0].epochs
    assert (epoch.number, epoch.mean_iou) == (1, 0.25)
    assert all(math.isnan(x) for x in (epoch.loss, epoch.rate, epoch.seconds))


def test_a_row_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    log(tmp_path, "1,10,1.5,0.001,0.25,0.5,3.0", "2,20,1.0,0.00")
    (stage,) = read_history(tmp_path, 8)
    assert [epoch.number for epoch in stage.epochs] == [1]
