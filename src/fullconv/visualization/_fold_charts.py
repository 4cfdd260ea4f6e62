"""Charts as SVG: lines over axes, and bars. Their colours are the page's, or those of `STYLE` where
a chart is a file of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

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


def alone(chart: str) -> str:
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
