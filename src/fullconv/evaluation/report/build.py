"""Build report.html and report.md: the metrics of an evaluation, the errors, the data, and how to
reproduce them.

report.html is one file that loads nothing. report.md has the same content for a pull request, with
its images in images/ next to it.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.files import atomic_write
from fullconv.core.i18n import msg
from fullconv.core.packages import __version__, installed_version
from fullconv.core.text import duration, file_size, percent, shell_command
from fullconv.evaluation.error_analysis import AREAS, BINS, WIDTHS, Quality
from fullconv.evaluation.evaluate import Evaluation, EvaluationContext
from fullconv.evaluation.metrics import ratios
from fullconv.evaluation.report.images import PANELS, HeadImages, head_images
from fullconv.evaluation.report.tables import MATRIX_SIZE, HeadTables, head_tables
from fullconv.inference.predictor import Predictor
from fullconv.models.run import History, read_history, total_seconds
from fullconv.visualization.html import environment
from fullconv.visualization.overlay import NEUTRAL
from fullconv.visualization.plots import Line, bar_plot, line_plot, standalone_svg, svg

_FINDINGS = 20  # of the check that are spelled out
_PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "scipy", "pillow", "onnxruntime")
_EDGE_WIDTH = 5  # pixels; the band whose mean IoU is given in words
_SIZES = 3  # image sizes that are listed
# Sizes of objects in a plot, as "64-255", "16k-65k", "65k+".
_AREA_NAMES = [f"{area}" if area < 1000 else f"{area // 1000}k" for area in AREAS]
_AREA_ENDS = [f"{end - 1}" if end < 1000 else f"{(end - 1) // 1000}k" for end in AREAS[1:]]


def save_report(
    evaluation: Evaluation, path: str | Path, *, run: str | Path | None = None, repeat: str = ""
) -> Path:
    """Write a report and return its path: `save_report(evaluate(model, data), "report.html")`.

    Args:
        evaluation: with its error analysis.
        path: of the page; a Markdown file of the same name and images/ are written next to it.
        run: folder of the training run, for its curves and its duration.
        repeat: the command that gives the same numbers again.

    Raises:
        FullconvError: another suffix than .html, or an evaluation without error analysis.
        OSError: a file cannot be written.
    """
    page = Path(path)
    if page.suffix.lower() not in (".html", ".htm"):
        raise FullconvError(
            msg("a report is saved as .html, not as {name!r}.", name=page.name),
            shell_command("--report", page.with_suffix(".html").name),
        )
    context = evaluation.context
    if context is None or not evaluation.qualities:
        raise FullconvError(
            msg("this evaluation has no error analysis, which a report needs."),
            'save_report(evaluate(model, data, quality=True), "report.html")',
        )
    tables = head_tables(evaluation, context)
    images = head_images(context, tables)
    history = read_history(Path(run), context.model.info.stride) if run is not None else []
    charts = [head_charts(head.quality) for head in tables]
    curves = training_charts(history)
    values = _report_values(evaluation, context, history, repeat)
    values |= {"heads": list(zip(tables, images, charts, strict=True)), "curves": curves}

    templates = environment(Path(__file__).with_name("templates"))
    atomic_write(page, templates.get_template("report.html").render(values))
    files = _save_images(page, tables, images, {**curves, **charts[0]})
    text = templates.get_template("report.md").render(values, files=files)
    atomic_write(page.with_suffix(".md"), text)
    return page


def head_charts(quality: Quality) -> dict[str, Markup]:
    """Draw the error analysis of a head: "edges", "sizes" and "confidence", if there are data."""
    columns = (("mean IoU", quality.band_iou), ("pixel accuracy", quality.band_accuracy))
    edges = [
        Line(name, list(zip(WIDTHS, column.tolist(), strict=True))) for name, column in columns
    ]

    objects, _, pixels, right = quality.object_counts.sum(axis=2).T
    names = [f"{low}–{high}" for low, high in zip(_AREA_NAMES, _AREA_ENDS, strict=False)]
    names.append(f"{_AREA_NAMES[-1]}+")
    bars = []
    for name, share, count in zip(names, ratios(right, pixels).tolist(), objects, strict=True):
        number = f"{count}" if count < 1000 else f"{count / 1000:.3g}k"
        bars.append((name, share, f"{percent(share, 0)}\n(n={number})"))

    calibration = [
        (100 * confidence / count, correct / count)
        for count, correct, confidence in quality.calibration_counts.tolist()
        if count
    ]
    lines = [Line("accuracy", calibration), Line("perfect calibration", [(0, 0), (100, 1)], True)]
    label = f"confidence in percent, {BINS} bins"
    confidence = line_plot(lines, x_label=label, percent=True, y_range=(0.0, 1.0))
    label = "width of the band along the true edges, in pixels"
    charts = {
        "edges": (
            line_plot(edges, x_label=label, percent=True),
            "mean IoU and pixel accuracy by the width of the band along the true edges",
        ),
        "sizes": (
            bar_plot(bars, x_label="object size in pixels", y_label="correct pixels"),
            "share of correct pixels by object size",
        ),
        "confidence": (
            confidence if calibration else None,
            "share of correct pixels by confidence",
        ),
    }
    return _without_empty(charts)


def training_charts(history: Sequence[History]) -> dict[str, Markup]:
    """Draw "loss", "scores" and "rate" by epoch, one stage after the other."""
    columns = ("mean_iou", "pixel_accuracy", "loss", "lr")
    points: dict[str, list[tuple[float, float]]] = {column: [] for column in columns}
    stages, done = [], 0
    for stage in history:
        stages.append((done + 0.5, stage.name))
        for column, places in points.items():
            places.append((done, math.nan))  # no line connects two stages
            places += [(done + epoch.number, getattr(epoch, column)) for epoch in stage.epochs]
        done += stage.epochs[-1].number
    iou, accuracy, loss, rate = points.values()
    plot = partial(line_plot, x_label="epoch", stages=stages[1:])
    charts = {
        "scores": (
            plot([Line("mean IoU", iou), Line("pixel accuracy", accuracy)], percent=True),
            "mean IoU and pixel accuracy on the validation split by epoch",
        ),
        "loss": (plot([Line("loss", loss)]), "loss by epoch"),
        "rate": (plot([Line("learning rate", rate)]), "head learning rate by epoch"),
    }
    return _without_empty(charts)


def _without_empty(charts: Mapping[str, tuple[Any, str]]) -> dict[str, Markup]:
    """Return the figures that show something, with their descriptions, as SVG."""
    return {k: svg(figure, text) for k, (figure, text) in charts.items() if figure is not None}


def _report_values(
    evaluation: Evaluation, context: EvaluationContext, history: Sequence[History], repeat: str
) -> dict[str, Any]:
    """Return what the templates show once for all heads."""
    report, model = context.report, context.model
    card = {**evaluation.protocol}
    classes = card.pop("classes")
    times = [(f"training {stage.name}", stage.seconds) for stage in history]
    if len(history) > 1:
        times.append(("training, all stages", total_seconds(history)))
    times.append(("evaluation", context.seconds))
    versions: dict[str, str | None] = {"fullconv": __version__}
    versions["Python"] = platform.python_version()
    versions |= {name: installed_version(name) for name in _PACKAGES}
    sizes = report.sizes.most_common()
    return {
        "name": report.dataset.root.resolve().name,
        "network": f"FCN-{model.info.stride}s, {model.info.backbone}",
        "split": context.split,
        "image_count": card["images"],
        "class_count": len(classes),
        "epoch": model.model.metrics.get("epoch") if isinstance(model, Predictor) else None,
        "panels": PANELS,
        "matrix_size": MATRIX_SIZE,
        "ignored_color": NEUTRAL,
        "edge_width": _EDGE_WIDTH,
        "edge_band": WIDTHS.index(_EDGE_WIDTH),
        "card": {key.replace("_", " "): value for key, value in card.items()},
        "layout": report.dataset.layout,
        "split_images": {name: len(pairs) for name, pairs in context.dataset.splits.items()},
        "sizes": [(height, width, count) for (height, width), count in sizes[:_SIZES]],
        "more_sizes": len(sizes[_SIZES:]),
        "fingerprint": card["data_fingerprint"],
        "findings": report.findings[:_FINDINGS],
        "more_findings": len(report.findings[_FINDINGS:]),
        "left_out": evaluation.left_out,
        "repeat": repeat,
        "resources": [(name, duration(seconds)) for name, seconds in times] + _peak_memory(),
        "machine": _machine(model),
        "versions": [(name, version) for name, version in versions.items() if version],
        "created": f"{datetime.now():%Y-%m-%d %H:%M}",
    }


def _machine(model: Any) -> str:
    device = getattr(model, "device", None)
    if device is not None and device.type == "cuda":
        import torch

        return f"{torch.cuda.get_device_name(device)}, {platform.system()}"
    return f"{os.cpu_count() or 1} CPU cores, {platform.machine()}, {platform.system()}"


def _peak_memory() -> list[tuple[str, str]]:
    rows = []
    if sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        unit = 1 if sys.platform == "darwin" else 1024
        rows.append(("peak memory", file_size(unit * peak)))
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        rows.append(("peak GPU memory", file_size(torch.cuda.max_memory_allocated())))
    return rows


def _save_images(
    page: Path,
    tables: Sequence[HeadTables],
    images: Sequence[HeadImages],
    charts: Mapping[str, Markup],
) -> dict[Any, str]:
    """Save the images of report.md, and return their paths relative to it."""
    (page.parent / "images").mkdir(exist_ok=True)
    files: dict[Any, str] = {}

    def save(key: Any, name: str, image: Image.Image) -> None:
        files[key] = f"images/{name}.jpg"
        image.save(page.parent / files[key], quality=85, optimize=True)

    for k, (head, head_result) in enumerate(zip(tables, images, strict=True)):
        stem = page.stem + f"-head{k + 1}" * (len(images) > 1)
        for ranked in head_result.ranked:
            save((k, ranked.rank), f"{stem}-{ranked.rank}", ranked.sheet())
        for number, pair in enumerate(head.confused, 1):
            save((k, pair), f"{stem}-confused-{number}", head_result.crops[pair])
    for name, chart in charts.items():
        files[name] = f"images/{page.stem}-{name}.svg"
        atomic_write(page.parent / files[name], standalone_svg(chart))
    return files
