"""The demo, in miniature: two epochs on small scenes, and the sheet that comes out."""

import pytest
from PIL import Image

from fullconv import demo
from fullconv.data import drawn
from fullconv.errors import FullconvError


def test_the_demo_ends_with_a_score_and_a_sheet(tmp_path, monkeypatch):
    real = drawn.write
    monkeypatch.setattr(
        demo.drawn, "write", lambda root: real(root, train=8, val=2, test=3, size=(48, 64))
    )
    monkeypatch.setattr(demo, "OPTIONS", {**demo.OPTIONS, "backbone": "resnet10t", "workers": 0})
    said = []
    result = demo.run_demo(tmp_path / "demo", epochs=2, say=said.append)
    assert result["protocol"]["split"] == "test"
    assert result["protocol"]["pictures"] == 3
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


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/precious.txt").write_text("mine")
    with pytest.raises(FullconvError, match="is not a demo's"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "run/precious.txt").exists()
