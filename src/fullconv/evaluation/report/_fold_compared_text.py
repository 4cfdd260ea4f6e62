"""A comparison as text for a terminal, and the sentences that stand under it everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fullconv.core.errors import some
from fullconv.evaluation.bootstrap import FEW, METRICS, Difference, Interval
from fullconv.evaluation.metrics import TITLES

if TYPE_CHECKING:
    from fullconv.evaluation.compare import Comparison

_WIDEST = 28  # columns of a name; longer ones are cut
_SHOWN = 40  # classes that the terminal lists
SURE = 20  # pictures, from which on it was measured how often the intervals hold the truth


def heading(of: Comparison) -> str:
    """On what, in a line."""
    card = of.runs[0].protocol
    head = f", head {of.head}" if of.head else ""
    size = str(card["picture_size"]).removeprefix("original, ")
    return f"split {of.split}{head}: {of.pictures} pictures, {size}; in percent"


def notes(of: Comparison) -> list[str]:
    """What must be known to read the intervals."""
    names = of.runs[0].metrics.names
    lines = [
        f"Intervals: the middle 95 % of {of.resamples} resamples of the {of.pictures} pictures, "
        "the same ones for every run. A difference is real where 0 lies outside.",
        "They say what other pictures of the same kind would change, not what another seed of the "
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
    if of.pictures < SURE:
        lines.append(
            f"Fewer than {SURE} pictures: how often such intervals hold the truth was not measured."
        )
    lost = [
        name
        for k, name in enumerate(names)
        if any(np.isfinite(d.classes[k].value) and np.isnan(d.classes[k].low)
               for d in of.differences)
    ]  # fmt: skip
    if lost:
        lines.append(f"Too few pictures for an interval (fewer than {FEW}): {some(lost)}.")
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


def text_of(of: Comparison) -> str:
    """All of it."""
    blocks = [heading(of), _scores(of)]
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


def _scores(of: Comparison) -> str:
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
