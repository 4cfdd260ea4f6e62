"""Plots by matplotlib: training curves, lines, bars, and intervals.

`svg` makes a part of a page, in the color of the text around it, so it is readable in light and
dark mode; `standalone_svg` and `encoded` make files.

Logs are what `fullconv.models.run.read_log` returns: the columns of a log.csv, a number per epoch.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Logs = Mapping[str, Mapping[str, Sequence[float]]]

# Readable on white and on black, and distinct for color-blind readers (after Okabe & Ito).
COLORS = ("#1f83c4", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MUTED = "#888888"
_INK = "#010203"  # replaced by the color of the text
_DASHES = ("-", "--", ":")
_PANELS = (("loss", "training loss"), ("mean_iou", "mean IoU in percent, validation"))
_MANY_POINTS = 24  # lines with more have no dots
_TINY = 1e-30  # smaller values are drawn as 0


class IntervalRow(NamedTuple):
    """One line of a plot of differences: a value and its interval, as fractions."""

    name: str
    value: float
    low: float
    high: float
    significant: bool


class Line(NamedTuple):
    """One line of a plot: NaN and infinite y leave a gap; a dashed line has no dots."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def has_curves(logs: Logs) -> bool:
    """Return true if a log has at least one epoch."""
    return any(len(log.get("epoch", ())) for log in logs.values())


def training_curves(logs: Logs) -> Figure:
    """Plot loss and mean IoU over epochs, a line per run."""
    figure = _figure(7.4, 2.6)
    _draw_curves(figure.subplots(1, 2), logs)
    return figure


def comparison_plot(logs: Logs, groups: Mapping[str, Sequence[IntervalRow]]) -> Figure:
    """Plot training curves of runs by name, and below them a panel of differences for each group of
    rows by its title."""
    heights = [2.6] * has_curves(logs) + [0.71 + 0.21 * len(rows) for rows in groups.values()]
    figure = _figure(7.4, sum(heights) or 2.6)
    panels = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if has_curves(logs):
        _draw_curves(panels.pop(0).subplots(1, 2), logs)
    for panel, (title, rows) in zip(panels, groups.items(), strict=True):
        axes = panel.subplots()
        axes.axvline(0, color=_INK, linewidth=0.8)
        for k, row in enumerate(rows):
            color = COLORS[0] if row.significant else MUTED
            axes.plot([100 * row.low, 100 * row.high], [k, k], color=color, linewidth=1.6)
            axes.plot([100 * row.value], [k], "o", color=color, markersize=3.5)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)  # from the top down
        _style(axes, title)
    return figure


def line_plot(
    lines: Sequence[Line],
    *,
    x_label: str,
    percent: bool = False,
    y_range: tuple[float, float] | None = None,
    stages: Sequence[tuple[float, str]] = (),
) -> Figure | None:
    """Plot lines; None if there is no finite point.

    Args:
        percent: y values are fractions, labeled in percent.
        y_range: of the y axis. Default: what the points need, from 0 if that is near.
        stages: (x, name) of each place where a stage begins.
    """
    finite = [y for line in lines for _, y in line.points if math.isfinite(y)]
    if not finite:
        return None
    figure = _figure(4.6, 2.6)
    axes = figure.subplots()
    for k, (name, points, dashed) in enumerate(lines):
        y = np.array([value for _, value in points], np.float64)
        y[np.abs(y) < _TINY] = 0
        y[~np.isfinite(y)] = np.nan
        # Points between two gaps are drawn as dots, even on long lines.
        gap = np.isnan(np.concatenate([[np.nan], y, [np.nan]]))
        alone = np.flatnonzero(gap[:-2] & ~gap[1:-1] & gap[2:]).tolist()
        axes.plot(
            [x for x, _ in points],
            y,
            "--" if dashed else "-",
            color=MUTED if dashed else COLORS[k % len(COLORS)],
            marker=None if dashed else "o",
            markersize=3.2,
            markevery=None if len(points) <= _MANY_POINTS else alone,
            label=name,
        )
    for x, name in stages:
        axes.axvline(x, color=MUTED, linewidth=0.8, linestyle=":")
        place = axes.get_xaxis_transform()
        axes.text(x, 1.0, f" {name}", transform=place, va="top", color=_INK, fontsize=8)
    axes.set_ylim(y_range or _y_range(min(finite), max(finite)))
    _style(axes, x_label=x_label, percent=percent)
    _add_legend(axes, axes if len(lines) > 1 else None)
    return figure


def bar_plot(
    bars: Sequence[tuple[str, float, str]], *, x_label: str, y_label: str = ""
) -> Figure | None:
    """Plot fractions as bars from 0 to 100 %; None if there is no finite value.

    A bar is a name, a fraction and a note above it; NaN leaves a gap.
    """
    if not any(math.isfinite(value) for _, value, _ in bars):
        return None
    figure = _figure(4.6, 2.6)
    axes = figure.subplots()
    for k, (_, value, note) in enumerate(bars):
        if math.isfinite(value):
            axes.bar(k, value, width=0.68, color=COLORS[0])
            axes.text(k, value + 0.01, note, ha="center", va="bottom", color=_INK, fontsize=7)
    axes.set_xticks(range(len(bars)), [name for name, _, _ in bars])
    axes.set_xlim(-0.6, len(bars) - 0.4)
    axes.set_ylim(0, 1.16)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    _style(axes, x_label=x_label, percent=True)
    axes.set_ylabel(y_label, color=_INK, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    return figure


def svg(figure: Figure, description: str = "") -> Markup:
    """Return a figure as an SVG element of a page; who does not see it reads the description."""
    text = _svg_text(figure).replace(_INK, "currentColor")
    text = text[text.index("<svg") :]
    # HTML needs no namespaces, and a style would apply to the whole page.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"(?<=font-family: )[^;\"]*", "system-ui, sans-serif", text)
    # Several figures share a page: ids that are referenced get the figure's own prefix.
    prefix = f"f{hashlib.sha256(text.encode()).hexdigest()[:8]}-"
    used = set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', text))
    text = re.sub(
        r' id="([\w.-]+)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", text
    )
    text = re.sub(r'(url\(#|href="#)', rf"\1{prefix}", text)
    label = f' aria-label="{escape(description)}"' if description else ""
    attributes = f'role="img"{label} stroke-linejoin="round"'
    return Markup(text.replace("<svg", f"<svg {attributes}", 1).strip())


def standalone_svg(inline: str) -> str:
    """Return what `svg` returned as a file that follows the reader's light or dark mode."""
    style = (
        "<style>svg { color: #1f2429 } "
        "@media (prefers-color-scheme: dark) { svg { color: #e9ebee } }</style>"
    )
    head, _, rest = inline.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{rest}'


def encoded(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file on white: "png" or "svg"."""
    if kind == "svg":
        return _svg_text(figure, white=True).replace(_INK, "#222222").encode()
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=150, facecolor="white")
    return file.getvalue()


def _svg_text(figure: Figure, *, white: bool = False) -> str:
    import matplotlib

    file = io.BytesIO()
    look = {"facecolor": "white"} if white else {"transparent": True}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fullconv"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, **look)
    return file.getvalue().decode()


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_curves(panels: Sequence[Axes], logs: Logs) -> None:
    for axes, (column, title) in zip(panels, _PANELS, strict=True):
        for k, (name, log) in enumerate(logs.items()):
            epochs, values = log.get("epoch", ()), log.get(column, ())
            if len(epochs) and len(values):
                dashes = _DASHES[k // len(COLORS) % len(_DASHES)]
                color, marker = COLORS[k % len(COLORS)], "o" if len(epochs) < 3 else None
                axes.plot(epochs, values, dashes, color=color, marker=marker, label=name)
        _style(axes, title, x_label="epoch", percent=column == "mean_iou")
        axes.locator_params(axis="x", integer=True)
    _add_legend(panels[0], panels[-1] if len(logs) > 1 else None)


def _add_legend(source: Axes, target: Axes | None) -> None:
    handles, names = source.get_legend_handles_labels()
    if target is None or not handles:
        return
    for text in target.legend(handles, names, frameon=False, fontsize=8).get_texts():
        text.set_color(_INK)
        text.set_parse_math(False)


def _style(axes: Axes, title: str = "", *, x_label: str = "", percent: bool = False) -> None:
    if percent:
        from matplotlib.ticker import PercentFormatter

        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    if title:
        axes.set_title(title, fontsize=9, color=_INK, loc="left", parse_math=False)
    axes.set_xlabel(x_label, color=_INK, fontsize=8)
    axes.tick_params(colors=_INK, labelsize=8)
    axes.yaxis.get_offset_text().set_color(_INK)
    axes.grid(True, color="#7f7f7f", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)


def _y_range(low: float, high: float) -> tuple[float, float]:
    """Return a little more than the points need; from 0 if that is near."""
    if 0 <= low < 0.5 * high:
        low = 0.0
    size, room = max(abs(low), abs(high)), high - low
    if room <= 1e-9 * size:  # one value, apart from rounding
        room = size
    if room < _TINY:
        room = 1.0
    return (low if low == 0 else low - 0.05 * room), high + 0.08 * room
