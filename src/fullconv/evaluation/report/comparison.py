"""A comparison of runs as text, as a page in one file, in a notebook, or as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from fullconv.core.errors import FullconvError
from fullconv.core.files import atomic_write
from fullconv.core.i18n import Message, join, msg, nmsg, translate
from fullconv.core.metric_names import TITLES
from fullconv.core.text import align_columns, percent, truncated_list
from fullconv.evaluation.bootstrap import FEW, METRICS, Difference, Interval
from fullconv.evaluation.compare import ComparedRun, Comparison
from fullconv.visualization.html import fragment, interval_bar, muted, page, table, title
from fullconv.visualization.plots import (
    IntervalRow,
    Logs,
    comparison_plot,
    encoded,
    has_curves,
    svg,
    training_curves,
)

_SUFFIXES = (".html", ".png", ".svg")
_LISTED = 40  # classes in a terminal or a plot; of more, those that differ most
_TESTED = 20  # images; with fewer, the coverage of the intervals was not measured
_POINTS, _INTERVAL = msg("difference in points"), msg("95% interval")
_METRIC_HEAD = ["", _POINTS, _INTERVAL, ""]
_CLASS_HEAD = [msg("IoU of"), msg("first"), msg("this"), _POINTS, _INTERVAL, ""]
_Rows = list[tuple[list[str], Interval]]  # the cells of a table, and what its bar shows


def comparison_text(comparison: Comparison) -> str:
    """Format a comparison for a terminal."""
    head = ["", *TITLES.values(), msg("epochs")]
    blocks: list[str] = [
        translate(heading(comparison)),
        align_columns([head, *(_metric_row(run) for run in comparison.runs)]),
    ]
    if settings := _settings_rows(comparison):
        table_text = align_columns(settings, left=range(len(settings[0])))
        blocks.append(translate(msg("different settings")) + f"\n{table_text}")
    for run, difference in comparison.compared:
        metrics, classes = _difference_rows(comparison, run, difference)
        table_text = align_columns([_METRIC_HEAD, *(cells for cells, _ in metrics)], left=(0, 3))
        blocks.append(f"{translate(_title(run, comparison))}\n{table_text}")
        listed = _largest([np.nan_to_num(interval.value) for _, interval in classes])
        rows = [_CLASS_HEAD, *(classes[k][0] for k in listed)]
        blocks.append(align_columns(rows, left=(0, 5)))
        if left := len(classes) - len(listed):
            more = nmsg(
                "... and {count} more class with a smaller difference (--json)",
                "... and {count} more classes with smaller differences (--json)",
                left,
            )
            blocks[-1] += f"\n{translate(more)}"
    return "\n\n".join([*blocks, translate(join(notes(comparison)))])


def comparison_html(comparison: Comparison) -> str:
    """Show a comparison in a notebook."""
    names = " · ".join(run.name for run in comparison.runs)
    return fragment(title(names), *_html_parts(comparison))


def save_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write a comparison as a page (.html), or its curves and differences as a plot (.png, .svg).

    Raises:
        FullconvError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        problem = msg(
            "a comparison is saved as {suffixes}, not as {name!r}.",
            suffixes=truncated_list(_SUFFIXES),
            name=path.name,
        )
        raise FullconvError(problem, "--out compare.html")
    content: str | bytes
    if suffix == ".html":
        names = ", ".join(run.name for run in comparison.runs)
        content = page(f"Comparison of {names}", *_html_parts(comparison))
    else:
        groups = {}
        for run, difference in comparison.compared:
            panel = f"{_title(run, comparison)}: difference in percentage points"
            groups[panel] = _plot_rows(comparison, difference)
        content = encoded(comparison_plot(_logs(comparison), groups), suffix[1:])
    try:
        atomic_write(path, content)
    except OSError as error:
        reason = error.strerror or error
        problem = msg(
            "could not write the comparison to {path}: {reason}.", path=path, reason=reason
        )
        raise FullconvError(problem, "--out another_folder/compare.html") from error
    return path


def heading(comparison: Comparison) -> Message:
    """Describe what was compared: split, head, number of images, image size."""
    values = {
        "split": comparison.split,
        "head": comparison.head,
        "images": nmsg("{count} image", "{count} images", comparison.images),
        "size": str(comparison.runs[0].protocol["image_size"]).removeprefix("original, "),
    }
    if comparison.head:
        return msg("split {split}, head {head}: {images}, {size}", **values)
    return msg("split {split}: {images}, {size}", **values)


def notes(comparison: Comparison) -> list[Message]:
    """Explain how to read the intervals."""
    names = comparison.runs[0].metrics.names
    lines = [
        msg(
            "Intervals: the middle 95% of {resamples} resamples of the {images} images, the same "
            "ones for every run. A difference is significant if its interval excludes 0.",
            resamples=comparison.resamples,
            images=comparison.images,
        ),
        msg(
            "They show what other images of the same kind would change, not what another training "
            "seed would change."
        ),
    ]
    if len(names) > 1:
        lines.append(
            msg(
                "Of {count} classes, some exclude 0 by chance; * marks classes that still differ "
                "when all are tested at once.",
                count=len(names),
            )
        )
    if len(comparison.runs) > 2:
        lines.append(
            msg(
                "{count} runs are compared with one: each may look significant by chance.",
                count=len(comparison.runs) - 1,
            )
        )
    if comparison.images < _TESTED:
        lines.append(
            msg(
                "Fewer than {count} images: how often such intervals contain the true difference "
                "was not measured.",
                count=_TESTED,
            )
        )
    classes = zip(*(difference.classes for difference in comparison.differences), strict=True)
    without = [
        name
        for name, runs in zip(names, classes, strict=True)
        if any(np.isfinite(run.value) and np.isnan(run.low) for run in runs)
    ]
    if without:
        lines.append(
            msg(
                "Too few images for an interval (fewer than {count}): {names}.",
                count=FEW,
                names=truncated_list(without),
            )
        )
    return lines


def points(difference: float) -> str:
    """Return a difference of fractions in percentage points.

    >>> points(0.0123), points(-0.00001), points(float("nan"))
    ('+1.23', '0.00', '-')
    """
    if np.isnan(difference):
        return "-"
    return "0.00" if abs(difference) < 0.00005 else f"{100 * difference:+.2f}"


def interval_cells(interval: Interval) -> list[str]:
    """Return a difference in points, its interval and its meaning; "" without an interval."""
    if np.isnan(interval.low):
        return [points(interval.value), "", ""]
    if interval.low == interval.high == 0:
        verdict = msg("the same")
    elif not interval.significant:
        verdict = msg("not significant")
    else:
        verdict = msg("better") if interval.value > 0 else msg("worse")
    if interval.significant_familywise:
        verdict = msg("{verdict} *", verdict=verdict)
    return [points(interval.value), f"{points(interval.low)} .. {points(interval.high)}", verdict]


def _difference_rows(
    comparison: Comparison, run: ComparedRun, difference: Difference
) -> tuple[_Rows, _Rows]:
    """Return the cells of each metric, and of each class that occurs, with their intervals."""
    metrics: _Rows = [
        ([TITLES[name], *interval_cells(interval)], interval)
        for name, interval in difference.metrics.items()
    ]
    first = comparison.runs[0].metrics
    columns = (first.names, first.class_iou, run.metrics.class_iou, difference.classes)
    classes: _Rows = [
        ([name, percent(iou, 2), percent(other, 2), *interval_cells(interval)], interval)
        for name, iou, other, interval in zip(*columns, strict=True)
        if not (np.isnan(iou) and np.isnan(other))
    ]
    return metrics, classes


def _largest(differences: Sequence[float]) -> list[int]:
    """Return the places of all differences; of many, those of the largest."""
    order = sorted(range(len(differences)), key=lambda k: -abs(differences[k]))
    return sorted(order[:_LISTED])


def _settings_rows(comparison: Comparison) -> list[list[str]]:
    """Return a head and a row for each setting that differs; nothing if none does."""
    rows = [[name, *values] for name, values in comparison.differing_settings.items()]
    return [["", *(run.name for run in comparison.runs)], *rows] if rows else []


def _metric_row(run: ComparedRun) -> list[str]:
    epochs = run.log.get("epoch", ())
    values = [percent(getattr(run.metrics, name), 2) for name in METRICS]
    return [run.name, *values, f"{epochs[-1]:g}" if epochs else "-"]


def _title(run: ComparedRun, comparison: Comparison) -> Message:
    return msg("{run} compared with {first}", run=run.name, first=comparison.runs[0].name)


def _logs(comparison: Comparison) -> Logs:
    return {run.name: run.log for run in comparison.runs if run.log}


def _plot_rows(comparison: Comparison, difference: Difference) -> list[IntervalRow]:
    """Return the metrics and the classes that occur; of many classes, those that differ most."""
    named = [(str(TITLES[name]), difference.metrics[name]) for name in METRICS]
    classes = [
        (name + " *" * interval.significant_familywise, interval)
        for name, interval in zip(comparison.runs[0].metrics.names, difference.classes, strict=True)
        if np.isfinite(interval.value)
    ]
    named += [classes[k] for k in _largest([interval.value for _, interval in classes])]
    return [IntervalRow(name, i.value, i.low, i.high, i.significant) for name, i in named]


def _html_parts(comparison: Comparison) -> list[Markup]:
    logs = _logs(comparison)
    rows = [_metric_row(run) for run in comparison.runs]
    head = ["", *TITLES.values(), "epochs"]
    parts = [muted(heading(comparison)), table(head, rows, numbers=len(TITLES) + 1)]
    if settings := _settings_rows(comparison):
        parts += [muted("Different settings"), table(settings[0], settings[1:])]
    if has_curves(logs):
        parts.append(svg(training_curves(logs), "loss and mean IoU by epoch"))
    for run, difference in comparison.compared:
        metrics, classes = _difference_rows(comparison, run, difference)
        ends = [end for _, i in (*metrics, *classes) for end in (i.low, i.high) if np.isfinite(end)]
        reach = max(map(abs, ends), default=0.0)
        parts.append(title(_title(run, comparison)))
        for head, table_rows in ((_METRIC_HEAD, metrics), (_CLASS_HEAD, classes)):
            body = [_with_bar(cells, interval, reach) for cells, interval in table_rows]
            parts.append(table([*head, ""], body, numbers=len(head) - 2))
    return [*parts, *(muted(note) for note in notes(comparison))]


def _with_bar(cells: Sequence[str], interval: Interval, reach: float) -> list[str]:
    """Keep the words of the last cell on one line, and draw the interval next to them."""
    words = Markup('<span class="unbroken">{}</span>').format(cells[-1])
    if np.isnan(interval.low) or not reach:
        return [*cells[:-1], words, ""]
    bar = interval_bar(interval.value, interval.low, interval.high, reach, interval.significant)
    return [*cells[:-1], words, bar]
