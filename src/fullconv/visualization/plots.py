"""Curves of trainings, and differences with their intervals, drawn by matplotlib: as SVG that takes
the colour of the text around it, or as PNG.

Logs are what `fullconv.models.run.read_log` gives: the columns of a log.csv, a number per epoch.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fullconv.evaluation.bootstrap import Interval

Logs = Mapping[str, Mapping[str, Sequence[float]]]

# Readable on white and on black, and told apart by those who see few colours (after Okabe & Ito).
COLORS = ("#1f83c4", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_INK = "#010203"  # stands for the colour of the text, where the drawing is part of a page
_PANELS = (("loss", "training loss"), ("mean_iou", "mean IoU, validation"))


def has_curves(logs: Logs) -> bool:
    """Whether there is anything to draw: a single epoch is a point."""
    return any(len(log.get("epoch", ())) for log in logs.values())


def curves(logs: Logs) -> Figure:
    """Loss and mean IoU over epochs, a line per run."""
    figure = _figure(7.4, 2.6)
    _draw_curves(figure.subplots(1, 2), logs)
    return figure


def summary(logs: Logs, groups: Mapping[str, Sequence[tuple[str, Interval]]]) -> Figure:
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


def _draw_differences(panel: Axes, title: str, group: Sequence[tuple[str, Interval]]) -> None:
    """A point and a line for each, from the top down; in percent."""
    names = [name for name, _ in group]
    panel.axvline(0, color=_INK, linewidth=0.8)
    for k, (_, one) in enumerate(group):
        color = COLORS[0] if one.real else "#888888"
        panel.plot([100 * one.low, 100 * one.high], [k, k], color=color, linewidth=1.6)
        panel.plot([100 * one.value], [k], "o", color=color, markersize=3.5)
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
