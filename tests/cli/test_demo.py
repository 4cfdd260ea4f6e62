"""The demo in miniature: two epochs on small scenes, and the sheet and report that it writes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fullconv.cli import demo
from fullconv.cli.main import run
from fullconv.core.errors import FullconvError, StoppedError
from fullconv.data.synthetic import scenes
from fullconv.training.callbacks import Reporter


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    write = scenes.write
    monkeypatch.setattr(
        scenes, "write", lambda root: write(root, train=8, val=2, test=3, size=(48, 64))
    )
    monkeypatch.setitem(demo.OPTIONS, "workers", 0)


@pytest.mark.slow
def test_the_demo_ends_with_metrics_a_sheet_and_a_report(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my demo"
    assert run(["demo", "--out", str(folder), "--epochs", "2"]) == 0
    out, err = capfd.readouterr()
    assert f"drawing street scenes in {folder / 'scenes'} ...\n" in err
    assert "ready for the first step after " in err
    assert out.startswith("on 3 scenes that it never saw:\n\nmean IoU ")
    sheet, report = folder / "predictions.png", folder / "report.html"
    assert out.endswith(
        f"look at {sheet} and {report}\n"
        f"next: fullconv predict '{folder}/run' '{folder}/scenes/images/test'\n"
    )
    assert "loss by epoch" in report.read_text(encoding="utf-8")
    with Image.open(sheet) as image:
        assert image.width > 4 * 200
        assert image.height > 3 * 100


@pytest.mark.slow
def test_an_interrupted_demo_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(self: Any, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "on_train_epoch_start", interrupt, raising=False)
        with pytest.raises(StoppedError):
            demo.run_demo(tmp_path, epochs=2)
    log = tmp_path / "run/log.csv"
    first = log.read_text().splitlines()[1]
    capfd.readouterr()
    metrics = demo.run_demo(tmp_path, epochs=2)
    assert 0 < metrics["mean_iou"] < 1
    err = capfd.readouterr().err
    assert f"continuing the interrupted training in {tmp_path / 'run'}\n" in err
    rows = log.read_text().splitlines()[1:]
    assert (rows[0], [row.split(",")[0] for row in rows]) == (first, ["1", "2"])


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/precious.txt").write_text("mine")
    with pytest.raises(FullconvError, match="is not the run of a demo"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "run/precious.txt").exists()
