"""Plots: what is drawn, in the color of the text around it, whatever the names."""

from __future__ import annotations

import io
import math
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from fullconv.visualization.plots import (
    IntervalRow,
    Line,
    bar_plot,
    comparison_plot,
    encoded,
    has_curves,
    line_plot,
    standalone_svg,
    svg,
    training_curves,
)

NAN = float("nan")
LOG = {"epoch": [1.0, 2.0, 3.0], "loss": [2.0, 1.0, 0.5], "mean_iou": [0.1, 0.3, NAN]}
SVG = "{http://www.w3.org/2000/svg}"


def values_of(axes: Any) -> list[list[float]]:
    return [line.get_ydata().tolist() for line in axes.lines]


def texts_of(chart: str) -> list[str]:
    root = ElementTree.fromstring(standalone_svg(chart))
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def test_training_curves_have_a_line_per_run() -> None:
    loss, iou = training_curves({"a": LOG, "b": {**LOG, "loss": [3.0, 2.0, 1.0]}}).axes
    assert values_of(loss) == [[2.0, 1.0, 0.5], [3.0, 2.0, 1.0]]
    assert len(iou.lines) == 2
    assert [text.get_text() for text in iou.get_legend().get_texts()] == ["a", "b"]
    many = training_curves({f"run {k}": LOG for k in range(14)}).axes[0]
    assert len({(line.get_color(), line.get_linestyle()) for line in many.lines}) == 14


def test_one_epoch_is_a_point_and_none_is_nothing() -> None:
    one = {name: column[:1] for name, column in LOG.items()}
    assert training_curves({"a": one}).axes[0].lines[0].get_marker() == "o"
    assert has_curves({"a": one})
    assert not has_curves({"a": {}, "b": {"epoch": []}})
    assert values_of(training_curves({"a": {}}).axes[0]) == []


def test_differences_are_drawn_with_their_intervals() -> None:
    rows = [
        IntervalRow("mean IoU", 0.02, 0.01, 0.03, True),
        IntervalRow("$\\bad{", -0.01, -0.04, 0.02, False),
        IntervalRow("rare", 0.1, NAN, NAN, False),
    ]
    figure = comparison_plot({"a": LOG}, {"b against a": rows})
    panel = figure.axes[-1]
    lines = panel.lines[1:]
    assert [round(x, 6) for x in lines[0].get_xdata()] == [1.0, 3.0]
    assert [round(x, 6) for x in lines[3].get_xdata()] == [-1.0]
    assert lines[0].get_color() != lines[2].get_color()
    assert [text.get_text() for text in panel.get_yticklabels()] == [row.name for row in rows]
    with Image.open(io.BytesIO(encoded(figure, "png"))) as image:
        assert image.size[0] == 1110
    assert b"#010203" not in encoded(figure, "svg")
    assert len(comparison_plot({}, {"b against a": rows}).axes) == 1


points = st.tuples(st.integers(0, 500), st.floats(-1e30, 1e30) | st.sampled_from([NAN, math.inf]))


@settings(max_examples=12)
@given(st.lists(points, max_size=30))
@example([(0, 5e-324)])  # as a learning rate that has decayed to nothing
@example([(0, 1e6), (1, math.nextafter(1e6, 2e6))])
@example([(0, 1e-10), (1, 3e-10)])  # as the paper's, for a loss summed over pixels
def test_any_points_are_inside_the_plot(points: list[tuple[int, float]]) -> None:
    points = sorted(dict(points).items())
    figure = line_plot([Line("a", points)], x_label="x")
    finite = [y for _, y in points if math.isfinite(y)]
    assert (figure is None) == (not finite)
    if figure is not None:
        low, high = figure.axes[0].get_ylim()
        assert math.isfinite(low)
        assert high > low
        assert all(low <= y <= high for y in finite if abs(y) > 1e-30)
        assert svg(figure)


def test_small_rates_are_distinguishable() -> None:
    figure = line_plot([Line("rate", [(0, 1e-10), (1, 3e-10)])], x_label="epoch")
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert 0 <= low <= 1e-10
    assert 3e-10 < high < 4e-10


def test_unknown_values_leave_gaps_and_lone_points_are_dots() -> None:
    points = [(k, NAN if k in (3, 5) else 1.0) for k in range(1, 31)]
    figure = line_plot([Line("a", points)], x_label="x")
    assert figure is not None
    (line,) = figure.axes[0].lines
    assert np.isnan(line.get_ydata()).sum() == 2
    assert line.get_markevery() == [3]  # the fourth epoch, between two gaps
    few = line_plot([Line("a", points[:9]), Line("b", [(0, 1)], dashed=True)], x_label="x")
    assert few is not None
    assert [line.get_marker() for line in few.axes[0].lines] == ["o", "None"]


def test_bars_have_the_height_of_their_values() -> None:
    bars = [("a", 0.5, "50%\n(n=1)"), ("b", NAN, ""), ("c", 1.0, "100%\n(n=3)")]
    figure = bar_plot(bars, x_label="x", y_label="y")
    assert figure is not None
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.5, 1.0]
    texts = texts_of(svg(figure))
    assert {"a", "b", "c", "x", "y", "100%"} <= set(texts)
    assert bar_plot([("a", NAN, "")], x_label="x") is None


def test_inside_a_page_a_plot_has_the_color_of_the_text() -> None:
    lines = [Line("<b> & co", [(0, 1.0), (1, 2.0)]), Line("$x", [(0, 2.0), (1, 1.0)], True)]
    figure = line_plot(lines, x_label='"x"', stages=[(0.5, "<FCN>")])
    assert figure is not None
    chart = svg(figure, 'a "b" < c')
    assert "currentColor" in chart
    assert "#010203" not in chart
    assert not re.search(r"http|<style|DejaVu|url\((?!#)", chart)
    assert {"<b> & co", "$x", '"x"'} <= set(texts_of(chart))
    assert any("<FCN>" in text for text in texts_of(chart))
    root = ElementTree.fromstring(standalone_svg(chart))
    assert root.attrib["aria-label"] == 'a "b" < c'
    assert root.attrib["role"] == "img"
    assert "prefers-color-scheme: dark" in standalone_svg(chart)


def test_plots_on_one_page_share_no_ids_and_are_reproducible() -> None:
    one, other = (svg(training_curves({"a": {**LOG, "loss": [3, 2, x]}})) for x in (1.0, 0.5))
    ids = [set(re.findall(r' id="([^"]*)"', chart)) for chart in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for chart, own in zip((one, other), ids, strict=True):
        assert set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', chart)) <= own
    assert svg(training_curves({"a": {**LOG, "loss": [3, 2, 1.0]}})) == one


def test_a_file_is_on_white() -> None:
    figure = training_curves({"<b>": LOG})
    with Image.open(io.BytesIO(encoded(figure, "png"))) as image:
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
    assert b"fill: #ffffff" in encoded(figure, "svg")
