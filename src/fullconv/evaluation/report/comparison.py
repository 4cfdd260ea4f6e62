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
    comparison_plot,
    encoded,
    has_curves,
    svg,
    training_curves,
)

_SUFFIXES = (".html", ".png", ".svg")
_LISTED = 40  # classes in a terminal or a plot; of more, those that differ most
_TESTED = 20  # images; with fewer, the coverage of the intervals was not measured


def comparison_text(comparison: Comparison) -> str:
    """Format a comparison for a terminal."""
    first = comparison.runs[0]
    head = ["", *TITLES.values(), msg("epochs")]
    blocks: list[str] = [
        translate(heading(comparison)),
        align_columns([head, *(_metric_row(run) for run in comparison.runs)]),
    ]
    if settings := comparison.differing_settings:
        rows = [["", *(run.name for run in comparison.runs)]]
        rows += [[name, *values] for name, values in settings.items()]
        blocks.append(translate(msg("different settings")))
        blocks[-1] += "\n" + align_columns(rows, left=range(len(rows[0])))
    for run, difference in zip(comparison.runs[1:], comparison.differences, strict=True):
        metrics, classes = _difference_rows(comparison, run, difference)
        listed = classes
        if len(classes) > _LISTED:
            sizes = [-abs(np.nan_to_num(interval.value)) for _, interval in classes]
            listed = [classes[k] for k in sorted(np.argsort(sizes, kind="stable")[:_LISTED])]
        blocks.append(
            f"{translate(_title(run, first))}\n"
            + align_columns([_METRIC_HEAD, *(cells for cells, _ in metrics)], left=(0, 3))
        )
        block = align_columns([_CLASS_HEAD, *(cells for cells, _ in listed)], left=(0, 5))
        if left := len(classes) - len(listed):
            more = nmsg(
                "... and {count} more class with a smaller difference (--json)",
                "... and {count} more classes with smaller differences (--json)",
                left,
            )
            block += f"\n{translate(more)}"
        blocks.append(block)
    return "\n\n".join([*blocks, translate(join(notes(comparison)))])


def comparison_html(comparison: Comparison) -> str:
    """Show a comparison in a notebook."""
    names = " · ".join(run.name for run in comparison.runs)
    return fragment(title(names), *_html_parts(comparison))


def save_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write a comparison as a page (.html), or its curves and differences as a plot (.png, .svg).

    Returns:
        The path.

    Raises:
        FullconvError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise FullconvError(
            msg(
                "a comparison is saved as {suffixes}, not as {name!r}.",
                suffixes=truncated_list(_SUFFIXES),
                name=path.name,
            ),
            "--out compare.html",
        )
    first = comparison.runs[0]
    content: str | bytes
    if suffix == ".html":
        names = ", ".join(run.name for run in comparison.runs)
        content = page(f"Comparison of {names}", *_html_parts(comparison))
    else:
        groups = {
            f"{_title(run, first)}: difference in percentage points": _plot_rows(
                comparison, difference
            )
            for run, difference in zip(comparison.runs[1:], comparison.differences, strict=True)
        }
        content = encoded(comparison_plot(_logs(comparison), groups), suffix[1:])
    try:
        atomic_write(path, content)
    except OSError as error:
        raise FullconvError(
            msg(
                "could not write the comparison to {path}: {reason}.",
                path=path,
                reason=error.strerror or error,
            ),
            "--out another_folder/compare.html",
        ) from error
    return path


def heading(comparison: Comparison) -> Message:
    """Describe what was compared: split, head, number of images, image size."""
    card = comparison.runs[0].protocol
    size = str(card["image_size"]).removeprefix("original, ")
    images = nmsg("{count} image", "{count} images", comparison.images)
    if comparison.head:
        return msg(
            "split {split}, head {head}: {images}, {size}",
            split=comparison.split,
            head=comparison.head,
            images=images,
            size=size,
        )
    return msg("split {split}: {images}, {size}", split=comparison.split, images=images, size=size)


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
    intervals = zip(
        names, *(difference.classes for difference in comparison.differences), strict=True
    )
    without = [
        name
        for name, *runs in intervals
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


def verdict(interval: Interval) -> Message | str:
    """Return better, worse, the same or not significant; "" without an interval."""
    if np.isnan(interval.low):
        return ""
    if interval.low == interval.high == 0:
        return msg("the same")
    if not interval.significant:
        return msg("not significant")
    return msg("better") if interval.value > 0 else msg("worse")


def points(difference: float) -> str:
    """Return a difference of fractions in percentage points.

    >>> points(0.0123), points(-0.00001), points(float("nan"))
    ('+1.23', '0.00', '-')
    """
    if np.isnan(difference):
        return "-"
    return "0.00" if abs(difference) < 0.00005 else f"{100 * difference:+.2f}"


def interval_text(interval: Interval) -> str:
    """Return the ends of an interval in percentage points; "" without an interval."""
    if np.isnan(interval.low):
        return ""
    return f"{points(interval.low)} .. {points(interval.high)}"


_METRIC_HEAD = ["", msg("difference in points"), msg("95% interval"), ""]
_CLASS_HEAD = [
    msg("IoU of"),
    msg("first"),
    msg("this"),
    msg("difference in points"),
    msg("95% interval"),
    "",
]
_Rows = list[tuple[list[str], Interval]]


def _difference_rows(
    comparison: Comparison, run: ComparedRun, difference: Difference
) -> tuple[_Rows, _Rows]:
    """Return the cells of each metric, and of each class that occurs, with their intervals."""
    metrics: _Rows = []
    for name, interval in difference.metrics.items():
        cells = [TITLES[name], points(interval.value), interval_text(interval), verdict(interval)]
        metrics.append((cells, interval))
    classes: _Rows = []
    first = comparison.runs[0].metrics
    columns = (first.names, first.class_iou, run.metrics.class_iou, difference.classes)
    for name, iou, other, interval in zip(*columns, strict=True):
        if np.isnan(iou) and np.isnan(other):
            continue
        words = verdict(interval)
        if interval.significant_familywise:
            words = msg("{verdict} *", verdict=words)
        ious = [percent(iou, 2), percent(other, 2)]
        cells = [name, *ious, points(interval.value), interval_text(interval), words]
        classes.append((cells, interval))
    return metrics, classes


def _metric_row(run: ComparedRun) -> list[str]:
    epochs = run.log.get("epoch", ())
    values = [percent(getattr(run.metrics, name), 2) for name in METRICS]
    return [run.name, *values, f"{epochs[-1]:g}" if epochs else "-"]


def _title(run: ComparedRun, first: ComparedRun) -> Message:
    return msg("{run} compared with {first}", run=run.name, first=first.name)


def _logs(comparison: Comparison) -> dict[str, dict[str, list[float]]]:
    return {
        run.name: {name: list(column) for name, column in run.log.items()}
        for run in comparison.runs
        if run.log
    }


def _plot_rows(comparison: Comparison, difference: Difference) -> list[IntervalRow]:
    """Return the metrics and the classes that occur; of many classes, those that differ most."""
    names = comparison.runs[0].metrics.names
    classes = [k for k, interval in enumerate(difference.classes) if np.isfinite(interval.value)]
    if len(classes) > _LISTED:
        classes = sorted(sorted(classes, key=lambda k: -abs(difference.classes[k].value))[:_LISTED])
    named = [(str(TITLES[name]), difference.metrics[name]) for name in METRICS]
    for k in classes:
        interval = difference.classes[k]
        named.append((names[k] + " *" * interval.significant_familywise, interval))
    return [
        IntervalRow(name, interval.value, interval.low, interval.high, interval.significant)
        for name, interval in named
    ]


def _html_parts(comparison: Comparison) -> list[Markup]:
    first, logs = comparison.runs[0], _logs(comparison)
    rows = [_metric_row(run) for run in comparison.runs]
    parts = [
        muted(heading(comparison)),
        table(["", *TITLES.values(), "epochs"], rows, numbers=len(TITLES) + 1),
    ]
    if settings := comparison.differing_settings:
        names = [run.name for run in comparison.runs]
        parts += [muted("Different settings")]
        parts += [table(["", *names], [[name, *values] for name, values in settings.items()])]
    if has_curves(logs):
        parts.append(svg(training_curves(logs), "loss and mean IoU by epoch"))
    for run, difference in zip(comparison.runs[1:], comparison.differences, strict=True):
        metrics, classes = _difference_rows(comparison, run, difference)
        ends = [end for _, i in (*metrics, *classes) for end in (i.low, i.high) if np.isfinite(end)]
        reach = max(map(abs, ends), default=0.0)
        parts.append(title(_title(run, first)))
        for head, table_rows in ((_METRIC_HEAD, metrics), (_CLASS_HEAD, classes)):
            body = [[*_unbroken(cells), _bar(interval, reach)] for cells, interval in table_rows]
            parts.append(table([*head, ""], body, numbers=len(head) - 2))
    return [*parts, *(muted(note) for note in notes(comparison))]


def _unbroken(cells: Sequence[str]) -> list[str]:
    """Keep the words of the last cell on one line."""
    return [*cells[:-1], Markup('<span class="unbroken">{}</span>').format(cells[-1])]


def _bar(interval: Interval, reach: float) -> str:
    if np.isnan(interval.low) or not reach:
        return ""
    return interval_bar(interval.value, interval.low, interval.high, reach, interval.significant)
