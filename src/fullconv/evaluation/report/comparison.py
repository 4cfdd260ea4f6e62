"""A comparison to look at: in a notebook, as a page in one file, or as an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.metric_names import TITLES
from fullconv.core.text import truncated_list
from fullconv.evaluation.bootstrap import FEW, METRICS, Difference, Interval
from fullconv.evaluation.compare import Comparison
from fullconv.visualization import plots as curves
from fullconv.visualization.html import Child, Node, element, muted, page, table, title
from fullconv.visualization.html import fragment as as_fragment

_KINDS = (".html", ".png", ".svg")
_DRAWN = 40  # classes in an image; of more those that differ most
_WIDTH = 150  # of the drawing of an interval, in pixels


def comparison_html(of: Comparison) -> str:
    """For a notebook."""
    return as_fragment(title(" · ".join(run.name for run in of.runs)), _parts(of))


def save_comparison(of: Comparison, path: str | Path) -> Path:
    """Writes it as a page (.html), or its curves and differences as an image (.png, .svg).

    Raises:
        FullconvError: another kind of file, or it cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in _KINDS:
        raise FullconvError(
            f"a comparison is written as {', '.join(_KINDS)}, not as {path.name!r}.",
            "--out compare.html",
        )
    if kind == ".html":
        content = page("Comparison of " + ", ".join(run.name for run in of.runs), _parts(of))
        data = content.encode()
    else:
        groups = {
            f"{run.name} against {of.runs[0].name}: difference in points": _drawn(of, found)
            for run, found in zip(of.runs[1:], of.differences, strict=True)
        }
        data = curves.encoded(curves.summary(_logs(of), groups), kind[1:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise FullconvError(
            f"the comparison could not be written to {path}: {error.strerror or error}.",
            "--out another_folder/compare.html",
        ) from error
    return path


def _logs(of: Comparison) -> dict[str, dict[str, list[float]]]:
    return {run.name: {k: list(v) for k, v in run.log.items()} for run in of.runs if run.log}


def _drawn(of: Comparison, found: Difference) -> list[curves.IntervalRow]:
    """The metrics, and the classes that occur; of very many those that differ most."""
    rows = [_row(TITLES[name], found.metrics[name]) for name in METRICS]
    names = of.runs[0].metrics.names
    known = [k for k, one in enumerate(found.classes) if np.isfinite(one.value)]
    if len(known) > _DRAWN:
        largest = sorted(known, key=lambda k: -abs(found.classes[k].value))[:_DRAWN]
        known = sorted(largest)
    return rows + [
        _row(names[k] + " *" * found.classes[k].together, found.classes[k]) for k in known
    ]


def _row(name: str, interval: Interval) -> curves.IntervalRow:
    return curves.IntervalRow(name, interval.value, interval.low, interval.high, interval.real)


def _parts(of: Comparison) -> list[Node]:
    parts = [muted(heading(of)), _scores(of)]
    if of.apart:
        parts += [muted("What differs")]
        parts += [table(["", *_names(of)], [[name, *row] for name, row in of.apart.items()])]
    if curves.has_curves(_logs(of)):
        parts.append(curves.svg(curves.curves(_logs(of))))
    for run, found in zip(of.runs[1:], of.differences, strict=True):
        parts.append(title(f"{run.name} against {of.runs[0].name}"))
        parts += _differences(of, run.metrics.class_iou, found)
    return [*parts, *(muted(line) for line in notes(of))]


def _names(of: Comparison) -> list[str]:
    return [run.name for run in of.runs]


def _scores(of: Comparison) -> Node:
    rows = [
        [run.name, *(points(getattr(run.metrics, name)) for name in METRICS)] for run in of.runs
    ]
    return table(["", *TITLES.values()], rows, numbers=len(METRICS))


def _differences(of: Comparison, iou: np.ndarray, found: Difference) -> list[Node]:
    first = of.runs[0].metrics
    every = [*found.metrics.values(), *found.classes]
    reach = max((abs(x) for one in every for x in (one.low, one.high) if np.isfinite(x)), default=0)
    whole: list[list[Child]] = [
        [
            TITLES[name],
            points(one.value, sign=True),
            interval(one),
            _whole(verdict(one)),
            _line(one, reach),
        ]
        for name, one in found.metrics.items()
    ]
    rows: list[list[Child]] = []
    for k, (name, one) in enumerate(zip(first.names, found.classes, strict=True)):
        if np.isnan([first.class_iou[k], iou[k]]).all():
            continue
        said = verdict(one) + " *" * one.together
        values = [points(first.class_iou[k]), points(iou[k]), points(one.value, sign=True)]
        rows.append([name, *values, interval(one), _whole(said), _line(one, reach)])
    head = ["", "difference", "95 % interval", "", ""]
    classes = ["IoU of", "first", "this", "difference", "95 % interval", "", ""]
    return [table(head, whole, numbers=2), table(classes, rows, numbers=4)]


def _whole(words: str) -> Node:
    return element("span", words, class_="whole")


def _line(one: Interval, reach: float) -> Sequence[Node]:
    """The interval beside the others, 0 in the middle."""
    if np.isnan(one.low) or not reach:
        return []
    low, value, high = (_WIDTH / 2 * (1 + x / reach * 0.94) for x in (one.low, one.value, one.high))
    ink = curves.COLORS[0] if one.real else "#888888"
    middle = {"x1": _WIDTH / 2, "x2": _WIDTH / 2, "y1": 0, "y2": 14, "stroke": "currentColor"}
    return [
        element(
            "svg",
            element("line", **middle, stroke_opacity=0.5),
            element("line", x1=f"{low:.1f}", x2=f"{high:.1f}", y1=7, y2=7, stroke=ink,
                    stroke_width=3, stroke_linecap="round"),
            element("circle", cx=f"{value:.1f}", cy=7, r=4, fill=ink),
            width=_WIDTH, height=14, viewBox=f"0 0 {_WIDTH} 14", aria_hidden="true",
        )
    ]  # fmt: skip


_WIDEST = 28  # columns of a name; longer ones are cut
_SHOWN = 40  # classes that the terminal lists
SURE = 20  # images, from which on it was measured how often the intervals hold the truth


def heading(of: Comparison) -> str:
    """On what, in a line."""
    card = of.runs[0].protocol
    head = f", head {of.head}" if of.head else ""
    size = str(card["image_size"]).removeprefix("original, ")
    return f"split {of.split}{head}: {of.images} images, {size}; in percent"


def notes(of: Comparison) -> list[str]:
    """What must be known to read the intervals."""
    names = of.runs[0].metrics.names
    lines = [
        f"Intervals: the middle 95 % of {of.resamples} resamples of the {of.images} images, "
        "the same ones for every run. A difference is real where 0 lies outside.",
        "They say what other images of the same kind would change, not what another seed of the "
        "training would.",
    ]
    if len(names) > 1:
        lines.append(
            f"Of {len(names)} classes some lie outside by chance; * marks those that still differ "
            "when all are asked at once."
        )
    if len(of.runs) > 2:
        lines.append(
            f"{len(of.runs) - 1} runs against one: each has a chance to look real by luck."
        )
    if of.images < SURE:
        lines.append(
            f"Fewer than {SURE} images: how often such intervals hold the truth was not measured."
        )
    lost = [
        name
        for k, name in enumerate(names)
        if any(np.isfinite(d.classes[k].value) and np.isnan(d.classes[k].low)
               for d in of.differences)
    ]  # fmt: skip
    if lost:
        lines.append(f"Too few images for an interval (fewer than {FEW}): {truncated_list(lost)}.")
    return lines


def verdict(one: Interval) -> str:
    """better, worse, the same, or not told apart; empty where there is no interval."""
    if np.isnan(one.low):
        return ""
    if one.low == one.high == 0:
        return "the same"
    return ("better" if one.value > 0 else "worse") if one.real else "not told apart"


def points(value: float, *, sign: bool = False) -> str:
    """A fraction in percent, with two digits.

    >>> points(0.5), points(0.0123, sign=True), points(float("nan"))
    ('50.00', '+1.23', '-')
    """
    if np.isnan(value):
        return "-"
    if abs(value) < 0.00005:
        return "0.00"
    return f"{100 * value:+.2f}" if sign else f"{100 * value:.2f}"


def interval(one: Interval) -> str:
    """From where to where."""
    if np.isnan(one.low):
        return ""
    return f"{points(one.low, sign=True)} .. {points(one.high, sign=True)}"


def comparison_text(of: Comparison) -> str:
    """All of it."""
    blocks = [heading(of), _text_scores(of)]
    if of.apart:
        rows = [[name, *values] for name, values in of.apart.items()]
        blocks.append(
            "what differs\n" + _columns([["", *(run.name for run in of.runs)], *rows], left=True)
        )
    for run, found in zip(of.runs[1:], of.differences, strict=True):
        title = f"{run.name} against {of.runs[0].name}"
        blocks += [f"{title}\n{_metrics(found)}", _classes(of, run.metrics.class_iou, found)]
    blocks.append("\n".join(notes(of)))
    return "\n\n".join(blocks)


def _text_scores(of: Comparison) -> str:
    head = ["", "mean IoU", "pixel acc.", "mean acc.", "f.w. IoU", "epochs"]
    rows = [
        [run.name, *(points(getattr(run.metrics, name)) for name in METRICS), _epochs(run.log)]
        for run in of.runs
    ]
    return _columns([head, *rows])


def _epochs(log: object) -> str:
    column = log.get("epoch", []) if isinstance(log, dict) else []
    return f"{column[-1]:g}" if column else "-"


def _metrics(found: Difference) -> str:
    rows = [
        [TITLES[name], points(one.value, sign=True), interval(one), verdict(one)]
        for name, one in found.metrics.items()
    ]
    return _columns([["", "difference", "95 % interval", ""], *rows])


def _classes(of: Comparison, iou: np.ndarray, found: Difference) -> str:
    """A line per class that occurs; of very many those that differ most."""
    first = of.runs[0].metrics
    known = [k for k in range(len(first.names)) if not np.isnan([first.class_iou[k], iou[k]]).all()]
    shown = known
    if len(known) > _SHOWN:
        sizes = np.abs([np.nan_to_num(found.classes[k].value) for k in known])
        shown = sorted(known[k] for k in np.argsort(-sizes, kind="stable")[:_SHOWN])
    rows = []
    for k in shown:
        one = found.classes[k]
        said = verdict(one) + (" *" if one.together else "")
        values = [points(first.class_iou[k]), points(iou[k]), points(one.value, sign=True)]
        rows.append([first.names[k], *values, interval(one), said])
    text = _columns([["IoU of", "first", "this", "difference", "95 % interval", ""], *rows])
    left = len(known) - len(shown)
    return text + f"\n... and {left} more classes that differ less (--json)" * bool(left)


def _columns(rows: Sequence[Sequence[str]], *, left: bool = False) -> str:
    """Aligned by what a terminal shows: letters of some scripts are two columns wide. The first
    column to the left, the last one too where it holds words; numbers to the right."""
    from rich.cells import cell_len, set_cell_size

    short = [[cell if cell_len(cell) <= _WIDEST else set_cell_size(cell, _WIDEST - 1) + "…"
              for cell in row] for row in rows]  # fmt: skip
    widths = [max(map(cell_len, column)) for column in zip(*short, strict=True)]
    last = len(widths) - 1
    words = {0, last} if not short[0][last] else {0}
    lines = []
    for row in short:
        cells = [
            cell + " " * (width - cell_len(cell))
            if left or k in words
            else " " * (width - cell_len(cell)) + cell
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
