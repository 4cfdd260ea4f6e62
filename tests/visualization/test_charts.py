"""Charts: points where they belong, gaps where nothing is known, and well-formed SVG."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fullconv.visualization.plots import (
    HEIGHT,
    WIDTH,
    Line,
    bar_chart,
    line_chart,
    standalone_svg,
    ticks,
)

SVG = "{http://www.w3.org/2000/svg}"
numbers = st.floats(-1e6, 1e6) | st.floats(-1e100, 1e100) | st.just(math.nan)


def parsed(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(standalone_svg(chart))


def places(chart: str) -> list[tuple[float, float]]:
    """The ends of all lines, and the dots."""
    root = parsed(chart)
    drawn = " ".join(line.attrib["points"] for line in root.iter(f"{SVG}polyline")).split()
    ends = [tuple(map(float, point.split(","))) for point in drawn]
    dots = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter(f"{SVG}circle")]
    return [(x, y) for x, y in ends + dots]


@given(st.lists(st.tuples(st.integers(0, 500), numbers), max_size=30), st.booleans())
@example([(0, 5e-324)], False)  # as a rate that has decayed to nothing
@example([(0, 1e6), (1, math.nextafter(1e6, 2e6))], False)
@example([(0, 1e-10), (1, 3e-10)], False)
def test_whatever_the_points_are_they_lie_in_the_chart(
    points: list[tuple[int, float]], percent: bool
) -> None:
    points = sorted(dict(points).items())
    chart = line_chart([Line("a", points)], across="x", said="a by x", percent=percent)
    known = [point for point in points if not math.isnan(point[1])]
    assert bool(chart) == bool(known)
    if chart:
        found = places(chart)
        assert len(set(found)) <= len(known)
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in found)


def test_small_rates_are_told_apart() -> None:
    """As the paper's, for a loss that is summed over pixels."""
    chart = line_chart([Line("rate", [(0, 1e-10), (1, 3e-10)])], across="x", said="a")
    texts = ["".join(text.itertext()) for text in parsed(chart).iter(f"{SVG}text")]
    assert {"1e-10", "2e-10", "3e-10"} <= set(texts)


def test_higher_is_higher_and_later_is_further_right() -> None:
    chart = line_chart([Line("a", [(1, 0.2), (2, 0.4), (4, 0.3)])], across="x", said="a")
    (x1, y1), (x2, y2), (x4, y4) = places(chart)[:3]
    assert x1 < x2 < x4
    assert x4 - x2 == pytest.approx(2 * (x2 - x1), abs=0.2)
    assert y2 < y4 < y1
    assert y1 - y4 == pytest.approx(y4 - y2, abs=0.2)


def test_what_is_not_known_leaves_a_gap() -> None:
    points = [(1, 1.0), (2, 2.0), (3, math.nan), (4, 1.0), (5, 3.0), (6, math.nan), (7, 2.0)]
    root = parsed(line_chart([Line("a", points)], across="x", said="a"))
    assert [len(p.attrib["points"].split()) for p in root.iter(f"{SVG}polyline")] == [2, 2]
    assert len(list(root.iter(f"{SVG}circle"))) == 5


def test_names_are_escaped_and_said() -> None:
    lines = [Line("<b> & co", [(0, 1.0), (1, 2.0)]), Line("other", [(0, 2.0), (1, 1.0)], True)]
    chart = line_chart(lines, across='"x"', said='a "b" < c', stages=[(0.5, "<FCN>")])
    root = parsed(chart)
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert {"<b> & co", "other", '"x"', "<FCN>"} <= set(texts)
    assert root.attrib["aria-label"] == 'a "b" < c'
    assert root.attrib["role"] == "img"


def test_bars_are_as_high_as_their_values() -> None:
    chart = bar_chart([("a", 0.5), ("b", math.nan), ("c", 1.0)], across="x", said="s", notes="123")
    bars = list(parsed(chart).iter(f"{SVG}rect"))
    half, full = (float(bar.attrib["height"]) for bar in bars)
    assert full == pytest.approx(2 * half, abs=0.2)
    assert "50 · 1" in chart
    assert "100 · 3" in chart
    assert bar_chart([("a", math.nan)], across="x", said="s") == ""


@given(st.integers(-(10**5), 10**5), st.sampled_from([0.013, 0.5, 1, 3, 7, 20, 99, 12345]))
def test_ticks_are_few_and_round(low: float, size: float) -> None:
    found = ticks(low, low + size)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-6 * size <= value <= low + size * (1 + 1e-6) for value in found)
    steps = [b - a for a, b in pairwise(found)]
    assert all(f"{step:.0e}"[0] in "125" for step in steps)
    assert len({f"{step:.3e}" for step in steps}) <= 1


def test_a_chart_alone_has_its_colours_for_light_and_dark() -> None:
    text = standalone_svg(line_chart([Line("a", [(0, 1.0)])], across="x", said="a"))
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg" class="chart"')
    assert text.count("<style>") == 1
    assert "prefers-color-scheme: dark" in text
