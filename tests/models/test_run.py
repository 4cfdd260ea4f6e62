"""A run of another day, read from its folder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from evaluated import counted, matrices, written

import fullconv as fc
from fullconv.core.errors import FullconvError
from fullconv.models.run import Stage, open_run, read_log


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "a", counted(matrices(5)))


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


def test_what_is_no_finished_run(folder: Path, tmp_path: Path) -> None:
    (folder / "metrics.json").write_text("[1")
    with pytest.raises(FullconvError, match=r"metrics.json cannot be read: ") as caught:
        open_run(folder)
    assert caught.value.hint == f"fullconv evaluate {folder} DATA --split val"
    (folder / "metrics.json").unlink()
    with pytest.raises(FullconvError) as caught:
        open_run(folder)
    assert caught.value.message == f"{folder} has not come to its end: it has no metrics.json."
    assert caught.value.hint == f"fullconv train --resume {folder}"
    with pytest.raises(FullconvError, match=r"is no folder of a run: it has no metrics\.json"):
        open_run(tmp_path)


def test_a_log_that_was_cut_off(folder: Path) -> None:
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
