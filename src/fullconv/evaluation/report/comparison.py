"""A comparison to look at: in a notebook, as a page in one file, or as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.evaluation.bootstrap import METRICS, Difference, Interval
from fullconv.evaluation.metrics import TITLES
from fullconv.evaluation.report._fold_compared_text import (
    heading,
    interval,
    notes,
    points,
    verdict,
)
from fullconv.visualization import plots as curves
from fullconv.visualization.html import Child, Node, element, page, quiet, table, title
from fullconv.visualization.html import fragment as as_fragment

if TYPE_CHECKING:
    from fullconv.evaluation.compare import Comparison

_KINDS = (".html", ".png", ".svg")
_DRAWN = 40  # classes in a picture; of more those that differ most
_WIDTH = 150  # of the drawing of an interval, in pixels


def fragment(of: Comparison) -> str:
    """For a notebook."""
    return as_fragment(title(" · ".join(run.name for run in of.runs)), _parts(of))


def save(of: Comparison, path: Path) -> Path:
    """Writes a page or a picture, see `Comparison.save`."""
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


def _drawn(of: Comparison, found: Difference) -> list[tuple[str, Interval]]:
    """The metrics, and the classes that occur; of very many those that differ most."""
    rows = [(TITLES[name], found.metrics[name]) for name in METRICS]
    names = of.runs[0].metrics.names
    known = [k for k, one in enumerate(found.classes) if np.isfinite(one.value)]
    if len(known) > _DRAWN:
        largest = sorted(known, key=lambda k: -abs(found.classes[k].value))[:_DRAWN]
        known = sorted(largest)
    return rows + [(names[k] + " *" * found.classes[k].together, found.classes[k]) for k in known]


def _parts(of: Comparison) -> list[Node]:
    parts = [quiet(heading(of)), _scores(of)]
    if of.apart:
        parts += [quiet("What differs")]
        parts += [table(["", *_names(of)], [[name, *row] for name, row in of.apart.items()])]
    if curves.has_curves(_logs(of)):
        parts.append(curves.svg(curves.curves(_logs(of))))
    for run, found in zip(of.runs[1:], of.differences, strict=True):
        parts.append(title(f"{run.name} against {of.runs[0].name}"))
        parts += _differences(of, run.metrics.class_iou, found)
    return [*parts, *(quiet(line) for line in notes(of))]


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
