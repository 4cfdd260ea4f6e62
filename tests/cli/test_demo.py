"""The demo, in miniature: two epochs on small scenes, and the sheet that comes out."""

import signal

import pytest
from PIL import Image

from fullconv.cli import demo
from fullconv.core.errors import FullconvError, StoppedError
from fullconv.data.synthetic import scenes as drawn
from fullconv.training.callbacks import Reporter


def test_the_demo_ends_with_a_score_and_a_sheet(tmp_path, monkeypatch):
    real = drawn.write
    monkeypatch.setattr(
        demo.drawn, "write", lambda root: real(root, train=8, val=2, test=3, size=(48, 64))
    )
    monkeypatch.setattr(demo, "OPTIONS", {**demo.OPTIONS, "backbone": "resnet10t", "workers": 0})
    said = []
    result = demo.run_demo(tmp_path / "demo", epochs=2, say=said.append)
    assert result["protocol"]["split"] == "test"
    assert result["protocol"]["images"] == 3
    assert 0 < result["mean_iou"] < 1
    assert any("drawing street scenes in" in line for line in said)
    text = demo.text_of(result, tmp_path / "demo")
    assert text.startswith("on 3 scenes it never saw:\n\nmean IoU ")
    sheet, report = (tmp_path / "demo" / name for name in ("predictions.png", "report.html"))
    assert text.endswith(f"look at {sheet} and {report}")
    assert "FCN-8s, resnet10t</h1>" in report.read_text()
    assert "loss by epoch" in report.read_text()
    with Image.open(sheet) as sheet:
        assert sheet.width > 4 * 200
        assert sheet.height > 3 * 100
    demo.run_demo(tmp_path / "demo", epochs=1, say=said.append)  # again, in its place
    assert not any("going on" in line for line in said)


def test_a_demo_that_was_stopped_goes_on(tmp_path, monkeypatch):
    real = drawn.write
    monkeypatch.setattr(
        demo.drawn, "write", lambda root: real(root, train=8, val=2, test=3, size=(48, 64))
    )
    monkeypatch.setattr(demo, "OPTIONS", {**demo.OPTIONS, "backbone": "resnet10t", "workers": 0})
    epochs = 2

    def stop(self, trainer, module):
        if trainer.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "on_train_epoch_start", stop, raising=False)
        with pytest.raises(StoppedError, match="all is saved"):
            demo.run_demo(tmp_path / "demo", epochs=epochs, say=str)
    log = tmp_path / "demo/run/log.csv"
    first = log.read_text().splitlines()[1]
    said = []
    demo.run_demo(tmp_path / "demo", epochs=epochs, say=said.append)
    assert "going on with the training in" in said[0]
    assert not any("drawing" in line for line in said)
    rows = log.read_text().splitlines()[1:]
    assert rows[0] == first
    assert [row.split(",")[0] for row in rows] == ["1", "2"]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/precious.txt").write_text("mine")
    with pytest.raises(FullconvError, match="is not a demo's"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "run/precious.txt").exists()
