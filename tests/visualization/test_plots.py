"""Drawings: what is drawn, in the colour of the text around it, whatever the names."""

from __future__ import annotations

import io

from PIL import Image

from fullconv.evaluation.bootstrap import Interval
from fullconv.visualization.html import fragment
from fullconv.visualization.plots import curves, encoded, has_curves, summary, svg

LOG = {"epoch": [1.0, 2.0, 3.0], "loss": [2.0, 1.0, 0.5], "mean_iou": [0.1, 0.3, float("nan")]}
NAN = float("nan")


def lines_of(panel: object) -> list[list[float]]:
    return [line.get_ydata().tolist() for line in panel.lines]  # type: ignore[attr-defined]


def test_a_line_for_each_run() -> None:
    figure = curves({"a": LOG, "b": {**LOG, "loss": [3.0, 2.0, 1.0]}})
    loss, iou = figure.axes
    assert lines_of(loss) == [[2.0, 1.0, 0.5], [3.0, 2.0, 1.0]]
    assert len(lines_of(iou)) == 2
    assert [text.get_text() for text in iou.get_legend().get_texts()] == ["a", "b"]
    colors = [line.get_color() for line in loss.lines]
    assert len(set(colors)) == 2


def test_many_runs_are_told_apart() -> None:
    figure = curves({f"run {k}": LOG for k in range(14)})
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 14


def test_one_epoch_is_a_point_and_none_is_nothing() -> None:
    one = {name: column[:1] for name, column in LOG.items()}
    assert curves({"a": one}).axes[0].lines[0].get_marker() == "o"
    assert has_curves({"a": one})
    assert not has_curves({"a": {}, "b": {"epoch": []}})
    assert lines_of(curves({"a": {}}).axes[0]) == []


def test_inside_a_page_the_ink_is_that_of_the_text() -> None:
    node = svg(curves({"<b>": LOG, "$x": LOG}))
    assert node.tag == "svg"
    assert all("}" not in one.tag for one in node.iter())
    text = fragment(node)
    assert "currentColor" in text
    assert "#010203" not in text
    assert "&lt;b&gt;" in text
    assert ">$x<" in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_differences_are_drawn_with_their_intervals() -> None:
    group = [
        ("mean IoU", Interval(0.02, 0.01, 0.03)),
        ("$\\bad{", Interval(-0.01, -0.04, 0.02)),
        ("rare", Interval(0.1, NAN, NAN)),
    ]
    figure = summary({"a": LOG}, {"b against a": group})
    panel = figure.axes[-1]
    drawn = [line.get_xdata() for line in panel.lines][1:]
    assert [round(x, 6) for x in drawn[0]] == [1.0, 3.0]
    assert [round(x, 6) for x in drawn[3]] == [-1.0]
    assert panel.lines[1].get_color() != panel.lines[3].get_color()
    assert [text.get_text() for text in panel.get_yticklabels()] == [name for name, _ in group]
    with Image.open(io.BytesIO(encoded(figure, "png"))) as image:
        assert image.size[0] == 1110
    assert b"#010203" not in encoded(figure, "svg")
    alone = summary({}, {"b against a": group})
    assert len(alone.axes) == 1
