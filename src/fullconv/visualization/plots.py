"""Curves of trainings, and differences with their intervals, drawn by matplotlib: as SVG that takes
the colour of the text around it, or as PNG.

Logs are what `fullconv.models.run.read_log` gives: the columns of a log.csv, a number per epoch.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Logs = Mapping[str, Mapping[str, Sequence[float]]]

# Readable on white and on black, and told apart by those who see few colours (after Okabe & Ito).
COLORS = ("#1f83c4", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_INK = "#010203"  # stands for the colour of the text, where the drawing is part of a page
_PANELS = (("loss", "training loss"), ("mean_iou", "mean IoU, validation"))


class IntervalRow(NamedTuple):
    """One line of a plot of differences: a value and its interval, all as fractions."""

    name: str
    value: float
    low: float
    high: float
    significant: bool


def has_curves(logs: Logs) -> bool:
    """Whether there is anything to draw: a single epoch is a point."""
    return any(len(log.get("epoch", ())) for log in logs.values())


def curves(logs: Logs) -> Figure:
    """Loss and mean IoU over epochs, a line per run."""
    figure = _figure(7.4, 2.6)
    _draw_curves(figure.subplots(1, 2), logs)
    return figure


def summary(logs: Logs, groups: Mapping[str, Sequence[IntervalRow]]) -> Figure:
    """Curves above, differences below.

    Args:
        logs: by the name of the run.
        groups: title -> names and differences; a panel each.
    """
    rows = sum(len(group) + 2 for group in groups.values())
    heights = [2.6] * has_curves(logs) + [0.5 + 0.21 * (len(of) + 1) for of in groups.values()]
    figure = _figure(7.4, sum(heights) if rows else 2.6)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    if has_curves(logs):
        _draw_curves(parts[0].subplots(1, 2), logs)
        parts = parts[1:]
    for part, (title, group) in zip(parts, groups.items(), strict=True):
        _draw_differences(part.subplots(), title, group)
    return figure


def svg(figure: Figure) -> ElementTree.Element:
    """As a part of a page."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue().decode().replace(_INK, "currentColor")
    node = ElementTree.fromstring(text[text.index("<svg") :])
    for one in node.iter():  # HTML knows these names without their spaces
        one.tag = one.tag.partition("}")[2] or one.tag
        for name in [name for name in one.attrib if name.startswith("{")]:
            one.set(name.partition("}")[2], one.attrib.pop(name))
    for child in [child for child in node if child.tag == "metadata"]:
        node.remove(child)
    node.set("role", "img")
    return node


def encoded(figure: Figure, kind: str) -> bytes:
    """As a file of its own, on white: "png" or "svg"."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fullconv"}):
        figure.savefig(file, format=kind, dpi=150, facecolor="white",
                       metadata={"Date": None} if kind == "svg" else None)  # fmt: skip
    return file.getvalue().replace(_INK.encode(), b"#222222")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_curves(axes: Sequence[Axes], logs: Logs) -> None:
    for panel, (column, title) in zip(axes, _PANELS, strict=True):
        for k, (name, log) in enumerate(logs.items()):
            epochs, values = log.get("epoch", ()), log.get(column, ())
            if len(epochs) and len(values):
                mark = "o" if len(epochs) < 3 else None
                color = COLORS[k % len(COLORS)]
                dashes = ("-", "--", ":")[k // len(COLORS) % 3]
                panel.plot(epochs, values, dashes, color=color, marker=mark, label=name)
        _inked(panel, title)
        panel.set_xlabel("epoch", color=_INK, fontsize=8)
        panel.locator_params(axis="x", integer=True)
    handles, names = axes[0].get_legend_handles_labels()
    if len(logs) > 1 and handles:
        made = axes[-1].legend(handles, names, frameon=False, fontsize=8)
        for text in made.get_texts():
            text.set_color(_INK)
            text.set_parse_math(False)


def _draw_differences(panel: Axes, title: str, group: Sequence[IntervalRow]) -> None:
    """A point and a line for each, from the top down; in percent."""
    names = [row.name for row in group]
    panel.axvline(0, color=_INK, linewidth=0.8)
    for k, row in enumerate(group):
        color = COLORS[0] if row.significant else "#888888"
        panel.plot([100 * row.low, 100 * row.high], [k, k], color=color, linewidth=1.6)
        panel.plot([100 * row.value], [k], "o", color=color, markersize=3.5)
    panel.set_yticks(range(len(names)), names)
    for text in panel.get_yticklabels():
        text.set_parse_math(False)
    panel.set_ylim(len(names) - 0.4, -0.6)
    _inked(panel, title)


def _inked(panel: Any, title: str) -> None:
    panel.set_title(title, fontsize=9, color=_INK, loc="left", parse_math=False)
    panel.tick_params(colors=_INK, labelsize=8)
    panel.grid(True, color="#7f7f7f", alpha=0.25, linewidth=0.6)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)


WIDTH, HEIGHT = 420, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 24, 40  # around the axes, in the chart's units
_SMALLEST = 1e-30  # what is nearer to 0 is drawn as 0
STYLE = """
:root { --ink: #1f2429; --pale: #596069; --rule: #d9dde1 }
:root { --c0: #1d4ed8; --c1: #b45309; --c2: #596069 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e9ebee; --pale: #a9b1ba; --rule: #3a4148 }
  :root { --c0: #7cacff; --c1: #f0a355; --c2: #a9b1ba }
}
.chart text { font: 11px system-ui, sans-serif; fill: var(--pale) }
.chart .name { fill: var(--ink) }
.chart .grid, .chart .stage { stroke: var(--rule); stroke-width: 1 }
.chart .stage { stroke: var(--pale); stroke-dasharray: 2 3 }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round }
.chart .dashed { stroke-dasharray: 5 4; stroke-width: 1.5 }
.chart .l0 { stroke: var(--c0) } .chart .l1 { stroke: var(--c1) } .chart .l2 { stroke: var(--c2) }
.chart .f0 { fill: var(--c0) } .chart .f1 { fill: var(--c1) } .chart .f2 { fill: var(--c2) }
"""


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        name: for the key.
        points: (x, y); those whose y is not finite leave a gap.
        dashed: drawn as a line to compare with, without dots.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def line_chart(
    lines: Sequence[Line],
    *,
    across: str,
    said: str,
    percent: bool = False,
    span: tuple[float, float] | None = None,
    stages: Sequence[tuple[float, str]] = (),
) -> str:
    """Lines over axes, as an SVG element; "" where there is no point.

    Args:
        lines: three at most.
        across: what runs along the x axis, with its unit.
        said: the chart in words, for those who do not see it.
        percent: y is a fraction, and is written in percent.
        span: of the y axis; by itself what the points need.
        stages: places on the x axis where something begins, and what.
    """
    known = [(x, y) for line in lines for x, y in line.points if math.isfinite(y)]
    if not known:
        return ""
    xs, ys = [x for x, _ in known], [y for _, y in known]
    low, high = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 0.5, min(xs) + 0.5)
    bottom, top = span or _span(min(ys), max(ys))
    place = _Axes((low, high), (bottom, top))
    parts = [_grid(place, across, percent)]
    for x, name in stages:
        left = place.x(x)
        parts.append(f'<line class="stage" x1="{left}" x2="{left}" y1="{_TOP}" y2="{_floor()}"/>')
        parts.append(f'<text x="{left + 3}" y="{_TOP + 9}">{escape(name)}</text>')
    for k, line in enumerate(lines):
        parts.append(_drawn(line, k, place))
    return _svg([*parts, _key(lines)], said)


def bar_chart(
    bars: Sequence[tuple[str, float]], *, across: str, said: str, notes: Sequence[str] = ()
) -> str:
    """Fractions as bars from 0 to 100 %, as an SVG element; "" where there is none.

    Args:
        bars: name and fraction; nan leaves a gap.
        across: what the names are.
        said: the chart in words.
        notes: a line above each bar.
    """
    if not any(math.isfinite(value) for _, value in bars):
        return ""
    place = _Axes((0, len(bars)), (0.0, 1.0))
    parts = [_grid(place, across, True, numbers=False)]
    width = (place.x(1) - place.x(0)) * 0.68
    for k, (name, value) in enumerate(bars):
        middle = place.x(k + 0.5)
        parts.append(_text(name, middle, _floor() + 14))
        if not math.isfinite(value):
            continue
        top = place.y(value)
        box = f'x="{middle - width / 2:.1f}" y="{top}" width="{width:.1f}"'
        parts.append(f'<rect class="f0" {box} height="{max(0.0, _floor() - top):.1f}"/>')
        note = f"{100 * value:.0f}" + (f" · {notes[k]}" if notes else "")
        parts.append(_text(note, middle, round(top - 4, 1), "name"))
    return _svg(parts, said)


def standalone_svg(chart: str) -> str:
    """A chart as the content of a file of its own."""
    head = '<svg xmlns="http://www.w3.org/2000/svg"'
    return chart.replace("<svg", head, 1).replace(">", f"><style>{STYLE}</style>", 1)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within a span, at most so many steps apart.

    >>> ticks(0, 1), ticks(3, 52)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [10.0, 20.0, 30.0, 40.0, 50.0])
    """
    power = math.floor(math.log10((high - low) / most))
    step = 10.0**power
    step *= next(k for k in (1, 2, 5, 10) if (high - low) / (step * k) <= most + 1e-9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 2 - power) for k in range(first, last + 1)]


@dataclass(frozen=True)
class _Axes:
    """Where numbers lie in the chart."""

    across: tuple[float, float]
    up: tuple[float, float]

    def x(self, value: float) -> float:
        share = (value - self.across[0]) / (self.across[1] - self.across[0])
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.up[0]) / (self.up[1] - self.up[0])
        return round(_floor() - share * (_floor() - _TOP), 1)


def _floor() -> float:
    return HEIGHT - _BOTTOM


def _span(low: float, high: float) -> tuple[float, float]:
    """A little more than the points need; from 0 where that is near."""
    if low >= 0 and low < 0.5 * high:
        low = 0.0
    size, room = max(abs(low), abs(high)), high - low
    if room <= 1e-9 * size:  # one value, but for what is lost in adding
        room = size
    if room < _SMALLEST:
        room = 1.0
    return (low if low == 0 else low - 0.05 * room), high + 0.08 * room


def _grid(place: _Axes, across: str, percent: bool, *, numbers: bool = True) -> str:
    parts = []
    for value in ticks(*place.up):
        y = place.y(value)
        text = f"{100 * value:g} %" if percent else f"{value:.4g}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{text}</text>')
    for value in ticks(*place.across) if numbers else []:
        x = place.x(value)
        parts.append(f'<text x="{x}" y="{_floor() + 14}" text-anchor="middle">{value:g}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(across)}</text>'
    )
    return "".join(parts)


def _drawn(line: Line, number: int, place: _Axes) -> str:
    """The line, in pieces where there are gaps; a point that stands alone is a dot."""
    pieces: list[list[str]] = [[]]
    for x, y in line.points:
        if math.isfinite(y):
            pieces[-1].append(f"{place.x(x)},{place.y(y)}")
        elif pieces[-1]:
            pieces.append([])
    style = f"line l{number}" + " dashed" * line.dashed
    parts = [f'<polyline class="{style}" points="{" ".join(p)}"/>' for p in pieces if len(p) > 1]
    dots = [point for p in pieces for point in p if len(p) == 1 or len(line.points) <= 24]
    for point in dots if not line.dashed else []:
        left, down = point.split(",")
        parts.append(f'<circle class="f{number}" cx="{left}" cy="{down}" r="2.6"/>')
    return "".join(parts)


def _key(lines: Sequence[Line]) -> str:
    """A piece and the name of each line, above the axes; none of a single one."""
    parts, x = [], _LEFT
    for k, line in enumerate(lines if len(lines) > 1 else ()):
        style = f"line l{k}" + " dashed" * line.dashed
        parts.append(f'<line class="{style}" x1="{x}" x2="{x + 16}" y1="9" y2="9"/>')
        parts.append(f'<text class="name" x="{x + 21}" y="13">{escape(line.name)}</text>')
        x += 40 + round(6.2 * len(line.name))
    return "".join(parts)


def _text(text: str, x: float, y: float, kind: str = "") -> str:
    """Around x."""
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="middle">{escape(text)}</text>'


def _svg(parts: Sequence[str], said: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">'
        + "".join(parts)
        + "</svg>"
    )
